"""The money limits of the configuration: how much one run may pay, and all runs together within a day.

They are looked at when a file was validated, and again whenever a run is approved. Called by `submit.py` and `pay.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from payout_engine.app.settings import Settings
from payout_engine.domain.clock import now
from payout_engine.domain.errors import LimitError
from payout_engine.domain.model import Direction, Run
from payout_engine.domain.money import SCALES, format_amount
from payout_engine.domain.states import UNPAID, State
from payout_engine.ports.journal import Journal

DAY_SECONDS = 24 * 3600

Amounts = dict[str, int]
"""Amounts in minor units, by currency."""


async def over_limits(journal: Journal, run: Run, settings: Settings, approved: Journal | None = None) -> Sequence[str]:
    """Return which money limits a validated run would pass, each as a sentence. What is paid and collected count apart.

    Args:
        journal: where the run is recorded.
        run: validated, and not approved yet.
        settings: the limits.
        approved: the journal whose approved runs count; the same one if not given.
    """
    if settings.max_run_amount is None and settings.max_day_amount is None:
        return ()
    verb = "pay" if run.direction is Direction.PAY else "request"
    amounts = await _amounts(journal, run, frozenset({State.READY}))
    found = [
        f"The run would {verb} {format_amount(amount, currency)}, and max_run_amount is {_limit(limit, currency)}."
        for currency, amount in sorted(amounts.items())
        if (limit := settings.max_run_amount) is not None and amount > limit * SCALES[currency]
    ]
    if settings.max_day_amount is not None:
        before = await _approved_lately(approved or journal, run.direction)
        for currency, amount in sorted(amounts.items()):
            earlier = before.get(currency, 0)
            if amount + earlier > settings.max_day_amount * SCALES[currency]:
                found.append(
                    f"The run would {verb} {format_amount(amount, currency)} beside {format_amount(earlier, currency)} "
                    f"approved in the last 24 hours, and max_day_amount is {_limit(settings.max_day_amount, currency)}."
                )
    return found


def refuse(sentences: Sequence[str]) -> None:
    """Refuse to begin when a limit would be passed.

    Raises:
        LimitError: there is a sentence.
    """
    if sentences:
        raise LimitError(f"Nothing was sent. {' '.join(sentences)} Pay less, wait, or have the limit changed.")


def _limit(limit: int, currency: str) -> str:
    return format_amount(limit * SCALES[currency], currency)


async def _approved_lately(journal: Journal, direction: Direction) -> Amounts:
    """Add up what was approved within a day and is not provably unpaid. What is held was not let go yet."""
    since, sums = now() - DAY_SECONDS, Amounts()
    counted = frozenset(State) - UNPAID - {State.HELD}
    for run in await journal.runs():
        if run.approved_at is not None and run.approved_at > since and run.direction is direction:
            for currency, amount in (await _amounts(journal, run, counted)).items():
                sums[currency] = sums.get(currency, 0) + amount
    return sums


async def _amounts(journal: Journal, run: Run, states: frozenset[State]) -> Amounts:
    sums = Amounts()
    for tally in await journal.tally(run.run_id):
        if tally.state in states and tally.lane.currency:
            sums[tally.lane.currency] = sums.get(tally.lane.currency, 0) + tally.amount_minor
    return sums
