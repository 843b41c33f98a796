"""Paying one run, around the payment itself: take the locks, ask what is known, approve, and begin.

The order is what keeps money safe. Nothing is read of a run before its locks are held; what begins is remembered before
it is approved; a new run is approved last, when nothing else can refuse it. `Engine.pay` starts `pay_run` in a task of
its own, and the caller reads what comes of it from the `PaymentStream`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import anyio
import msgspec

from payout_engine.app.clearing import Clearing, Looking, accounts_to_send
from payout_engine.app.locks import PaymentLocks, payment_locks, require_same_keys, wait_for_lock
from payout_engine.app.money_limits import over_limits, refuse
from payout_engine.app.other_journals import may_begin, remember_begun
from payout_engine.app.payment_stream import PaymentStream
from payout_engine.app.settings import Settings
from payout_engine.app.workspace import Workspace, right_to_begin, right_to_retry
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.facts import CanarySize
from payout_engine.domain.model import Direction, Run, RunState
from payout_engine.domain.states import State
from payout_engine.intake.duplicates import hold_duplicates
from payout_engine.payment.context import Publish
from payout_engine.payment.first_look import seconds_allowed
from payout_engine.payment.poll import FollowPolicy
from payout_engine.payment.run import Payment, Terms
from payout_engine.ports.journal import Journal
from payout_engine.ports.observer import Observer
from payout_engine.results.event_log import writing_events

SANDBOX_POLICY = FollowPolicy(first_seconds=0.4, longest_seconds=5.0, unknown_patience_seconds=10.0)
"""The sandbox settles within a second or two, so it is asked more often."""


FAILURE_SHARE_PAYING = 0.2
"""The share of failures that stops a lane of a run that pays, unless the settings say another one."""


class PayTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is to be paid; see `Engine.pay`."""

    follow_for_seconds: float | None
    send: bool
    events: Path | None
    notify: Observer
    canary: int | None
    wait: bool
    key_renewed: bool
    journal_lost: bool
    ask_paid: bool = False


async def pay_run(workspace: Workspace, stream: PaymentStream, terms: PayTerms) -> None:
    """Drive a stream: pay its run to the end. Nothing is raised here; the stream tells its reader."""
    await stream.drive(partial(_begin, workspace, stream, terms))


async def _begin(
    workspace: Workspace, stream: PaymentStream, terms: PayTerms, publish: Publish, held: AsyncExitStack
) -> Payment:
    """Do all that comes before a run is paid, and return the payment; what has to be held meanwhile is left in `held`.

    Raises:
        UserError: it cannot be paid now; see `Engine.pay`.
    """
    granted = await _granted(workspace, stream, terms, held)
    used_before = workspace.memory.used(granted.keys) or await _used_before(workspace)
    journal, run = await workspace.journal(), await workspace.run(stream.run_id)
    resumed = run.approved_at is not None
    if not resumed and not terms.send:
        raise ConfigError(f"Run {run.run_id} was never approved, so there is nothing of it to follow.")
    here = (journal, workspace.settings.journal)
    await remember_begun(workspace.memory, *here, run, granted.keys, lost=terms.journal_lost)
    payers = await workspace.accounts.payers(granted.accounts, used_before, run.direction)
    halted = anyio.Event()
    clearing = Clearing(
        journal,
        workspace.accounts,
        run,
        granted.leased,
        held,
        Looking(publish, terms.notify, seconds_allowed(terms.follow_for_seconds), halted),
    )
    stream.when_stopped(halted.set)
    if resumed:
        await _same_keys(workspace, run, granted.accounts, terms)
        sending = await accounts_to_send(journal, run) if terms.send else ()
        if sending:
            await clearing.clear(sending)
    else:
        # The approval comes last: a run that cannot be paid now must not hold up the references of others.
        await _approve(workspace, run, clearing.must_clear, terms.canary)
        await _same_keys(workspace, run, granted.accounts, terms)
    await _tell_late(journal, run, clearing.late, publish)
    if terms.events is not None:
        await held.enter_async_context(writing_events(journal, run, terms.events, terms.notify))
    paying = Terms(
        policy=follow_policy(workspace),
        follow_for_seconds=terms.follow_for_seconds,
        send=terms.send,
        uncleared=clearing.uncleared(granted.accounts),
        max_failure_share=_failure_share(workspace.settings, run),
        canary=await _canary(journal, run.run_id),
        ask_paid=terms.ask_paid,
    )
    return Payment(journal, run.run_id, payers, paying, publish, terms.notify)


def follow_policy(workspace: Workspace) -> FollowPolicy:
    """Return how what is open is followed."""
    if workspace.accounts.sandbox:
        return SANDBOX_POLICY
    return FollowPolicy(unknown_patience_seconds=workspace.settings.unknown_patience_seconds)


async def _granted(workspace: Workspace, stream: PaymentStream, terms: PayTerms, held: AsyncExitStack) -> PaymentLocks:
    """Hold everything that paying needs, as soon as nobody else does."""
    journal, path = await workspace.journal(), workspace.settings.journal

    async def enter() -> PaymentLocks:
        run = await workspace.run(stream.run_id)
        return await held.enter_async_context(payment_locks(journal, workspace.accounts, run, path, send=terms.send))

    return await (wait_for_lock(enter, journal, path, terms.notify, stream.stopping) if terms.wait else enter())


async def _used_before(workspace: Workspace) -> bool:
    """Whether calls made moments ago, for this run or another, may still count against the rate."""
    return any(run.approved_at is not None for run in await (await workspace.journal()).runs())


async def _same_keys(workspace: Workspace, run: Run, accounts: Sequence[str], terms: PayTerms) -> None:
    if not workspace.accounts.sandbox:
        keys = workspace.accounts.keys
        await require_same_keys(await workspace.journal(), run, keys, accounts, renewed=terms.key_renewed)


async def check_accounts(workspace: Workspace, run_id: str, *, journal_lost: bool) -> None:
    """Find out before anybody is asked whether a validated run could be paid; see `Engine.check_accounts`."""
    journal, run = await workspace.journal(), await workspace.run(run_id)
    names = sorted({tally.lane.account for tally in await journal.tally(run_id)} - {""})
    for name in names:
        await workspace.accounts.connect(name, run.direction)
    locks = await workspace.accounts.locks(names, run.direction)
    keys = [workspace.accounts.keys[name] for name in locks.values()]
    await may_begin(workspace.memory, journal, workspace.settings.journal, run, keys, lost=journal_lost)


# ------------------------------------------------------------------------------------------------------------ approval


async def _approve(workspace: Workspace, run: Run, clear: Callable[[], Awaitable[None]], canary: int | None) -> None:
    """Approve a validated run.

    Args:
        workspace: ours.
        run: the run.
        clear: compares it with the others once more, and does what has to be done before it is approved.
        canary: as for `Engine.pay`.

    Raises:
        ConfigError: the run's file was not read to the end.
        LimitError: the money limits forbid it by now.
    """
    journal = await workspace.journal()
    if run.state is RunState.INTAKE:
        raise ConfigError(f"Run {run.run_id} stopped while its file was being read. Run the file again.")
    # What another run had provably not paid when this one was validated may have come to light since, while a
    # person was asked or another process paid.
    again = any(other.approved_at is not None for other in await journal.runs())
    while True:
        if again:
            await clear()
        refuse(await over_limits(journal, run, workspace.settings))
        await _begin_canary(workspace, run, canary)
        if await journal.approve(run.run_id):
            # Others that wait with the same content see now that it was begun.
            await workspace.let_go(right_to_retry(run.retry_of) if run.retry_of else right_to_begin(run.digest))
            return
        again = True  # Another run was approved since the comparison.


async def approved(workspace: Workspace, run_id: str) -> tuple[Journal, Run]:
    """Return a run that may be paid, approving it if it was only validated; see `Engine.approved`."""
    journal, run = await workspace.journal(), await workspace.run(run_id)
    if run.state not in (RunState.PAYING, RunState.FINISHED):

        async def compare() -> None:
            await hold_duplicates(journal, run)

        await _approve(workspace, run, compare, None)
    return journal, await workspace.run(run_id)


def _failure_share(settings: Settings, run: Run) -> float:
    """Return which share of failures stops a lane."""
    if settings.max_failure_share is not None:
        return settings.max_failure_share
    return FAILURE_SHARE_PAYING if run.direction is Direction.PAY else 1.0


async def _begin_canary(workspace: Workspace, run: Run, canary: int | None) -> None:
    """Record the size of a run's canary once, before it is approved."""
    journal = await workspace.journal()
    by_itself = workspace.settings.canary if run.direction is Direction.PAY else None
    size = canary if canary is not None else by_itself
    if size and not await _canary(journal, run.run_id):
        await journal.add_fact(run.run_id, CanarySize(size))


async def _canary(journal: Journal, run_id: str) -> int:
    """Return the size of a run's canary as it was when the run was approved, or 0."""
    return (await journal.facts(run_id)).canary_size


async def _tell_late(journal: Journal, run: Run, late: set[int], publish: Publish) -> None:
    """Tell the caller of lines that are held because of what happened since the run was validated."""
    if late:
        async for _, outcomes in journal.outcomes(run.run_id):
            await publish([one for one in outcomes if one.line in late and one.status is State.HELD])
