"""What a person asks of a run beside paying it: to pause, to withdraw what was never sent, to go on.

Whoever pays a run hears of it through the journal (`payment/run.py`). When nobody pays it, it is done at once.
`Engine` is the only caller.
"""

from __future__ import annotations

from collections import Counter

import anyio
import msgspec

from payout_engine.app.locks import holder, leases
from payout_engine.domain.errors import ConfigError, JournalBusyError
from payout_engine.domain.facts import CanaryOverruled
from payout_engine.domain.model import ControlKind, ControlRequest, Run, RunState
from payout_engine.domain.states import UNPAID, State
from payout_engine.payment.run import CANCEL_CHUNKS, REQUESTS_SECONDS
from payout_engine.ports.journal import Journal

HEARD_WITHIN_SECONDS = 10 * REQUESTS_SECONDS
"""Whoever pays the run has taken up a request by then; otherwise the account is busy with another run."""


class Withdrawal(msgspec.Struct, frozen=True):
    """What became of a cancelled run.

    Attributes:
        cancelled: payouts withdrawn by this request.
        others: payouts by the state that kept them from being withdrawn: they were sent, or a provider may have them.
    """

    cancelled: int
    others: dict[State, int]


async def pause(journal: Journal, run: Run, who: str, why: str) -> bool:
    """Ask that nothing more of a run is sent until a person resumes it.

    Returns:
        True when somebody is paying it and has heard, False when nobody is paying it now.

    Raises:
        ConfigError: it is finished, or was never approved.
    """
    _require_begun(run)
    if run.state is RunState.FINISHED:
        raise ConfigError(f"Run {run.run_id} is finished; there is nothing to pause.")
    await journal.request(run.run_id, ControlRequest(ControlKind.PAUSE, who, why))
    await _heard(journal, run, ControlKind.PAUSE)
    # Whoever was paying may have heard and ended before we looked.
    asked = await _standing(journal, run, ControlKind.PAUSE)
    return asked is None or asked.acknowledged


async def cancel(journal: Journal, run: Run, who: str, why: str) -> Withdrawal:
    """Withdraw what was never sent of a run, at once or through whoever is paying it.

    Raises:
        ConfigError: the run was never approved.
    """
    _require_begun(run)
    before = await _count(journal, run, State.CANCELLED)
    request = ControlRequest(ControlKind.CANCEL, who, why)
    await journal.request(run.run_id, request)
    while await _heard(journal, run, ControlKind.CANCEL):  # noqa: ASYNC110
        # Whoever pays the run lets the wire land first, and removes the request when all is done.
        await anyio.sleep(REQUESTS_SECONDS)
    if await _standing(journal, run, ControlKind.CANCEL) is not None:
        await _withdraw(journal, run, request)
    counts = Counter[State]()
    for tally in await journal.tally(run.run_id):
        counts[tally.state] += tally.count
    others = {state: count for state, count in counts.items() if state not in UNPAID}
    return Withdrawal(counts[State.CANCELLED] - before, others)


async def unpause(journal: Journal, run: Run, who: str = "") -> None:
    """Let a run go on that a person paused, or whose canary a person has looked at."""
    await journal.acknowledge(run.run_id, ControlKind.PAUSE, True)
    facts = await journal.facts(run.run_id)
    for lane in sorted(facts.canary_stopped - facts.canary_done):
        await journal.add_fact(run.run_id, CanaryOverruled(lane, who))


def _require_begun(run: Run) -> None:
    if run.approved_at is None:
        raise ConfigError(f"Run {run.run_id} was never approved, so nothing of it is sent. Run its file to begin it.")


async def _withdraw(journal: Journal, run: Run, request: ControlRequest) -> None:
    """Withdraw what was never sent; the journal itself refuses to send it from then on."""
    after, count = 0, 0
    while True:
        outcomes, after = await journal.cancel(run.run_id, request, after, CANCEL_CHUNKS)
        count += len(outcomes)
        if not after:
            break
    await journal.note(run.run_id, "cancelled", f"{count} payouts withdrawn by {request}")
    await journal.acknowledge(run.run_id, ControlKind.CANCEL, True)
    states = {tally.state for tally in await journal.tally(run.run_id)}
    if not states & {State.READY, State.SENDING, State.ACCEPTED, State.UNKNOWN}:
        await journal.finish(run.run_id)


async def _heard(journal: Journal, run: Run, kind: ControlKind) -> bool:
    """Wait until whoever pays the run has taken up a request; False when nobody does, or when it is done."""
    with anyio.move_on_after(HEARD_WITHIN_SECONDS):
        while (request := await _standing(journal, run, kind)) is not None:
            if await _is_free(journal, run):
                return False
            if request.acknowledged:
                return True
            await anyio.sleep(REQUESTS_SECONDS / 2)
    return False


async def _standing(journal: Journal, run: Run, kind: ControlKind) -> ControlRequest | None:
    return next((request for request in await journal.requests(run.run_id) if request.kind is kind), None)


async def _is_free(journal: Journal, run: Run) -> bool:
    """Tell whether nobody pays for the run's accounts now."""
    try:
        async with leases(journal, run, holder("looking at", run=run)):
            return True
    except JournalBusyError:
        return False


async def _count(journal: Journal, run: Run, state: State) -> int:
    return sum(tally.count for tally in await journal.tally(run.run_id) if tally.state is state)
