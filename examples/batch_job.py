"""A batch job from Python: pay the payouts of one's own system and act on each outcome.

Runs as it stands, without a key: `sandbox=True` pays into an embedded sandbox on this machine. For real payments write
a payouts.toml (see the README), leave `sandbox` out, and keep the journal.

    python examples/batch_job.py
"""

from __future__ import annotations

from collections.abc import Iterator

import anyio

from payout_engine import Engine, Payout, State


def refunds() -> Iterator[Payout]:
    """Stand-in for one's own database: 250 refunds, each with a reference that is unique for ever."""
    for number in range(1, 251):
        yield Payout(
            reference=f"refund-2026-11-{number:04}",
            amount_minor=500 + 25 * number,  # Whole francs: XOF has no smaller unit.
            currency="XOF",
            phone=f"+226 70 12 {number // 100:02} {number % 100:02}",
        )


async def main() -> None:
    """Judge everything, pay what is good, and tell what became of it."""
    async with Engine.open(sandbox=True) as engine:
        run = await engine.submit(refunds(), name="refunds of November")
        paid_minor = 0
        async for outcome in engine.pay(run):
            if outcome.status is State.PAID:
                paid_minor += outcome.amount_minor
            elif outcome.status is not State.ACCEPTED:
                print(f"{outcome.reference}: {outcome.status}, {outcome.message}")
        print(f"paid {paid_minor:,} XOF; run {run.run_id}")


if __name__ == "__main__":
    anyio.run(main)
