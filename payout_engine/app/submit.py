"""From a payout file to a recorded run, before anything is sent. `plan` only looks, `submit` and `retry` record.

Only one process at a time begins a given content: whoever comes second waits, and then finds the run of the first.
Called by `Engine`, whose methods say what each verb promises.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import msgspec

from payout_engine.app.locks import holder, leases, require_same_keys, wait_for_lock
from payout_engine.app.money_limits import over_limits, refuse
from payout_engine.app.retry import ask_providers, retry_source
from payout_engine.app.workspace import Workspace, right_to_begin, right_to_retry
from payout_engine.domain.errors import ConfigError, InputError, LimitError
from payout_engine.domain.model import Direction, Payout, Run, RunState
from payout_engine.domain.states import UNPAID, State
from payout_engine.intake.forecast import Forecast, LaneForecast, forecast
from payout_engine.intake.intake import IntakeFindings, Kind, intake, prepare
from payout_engine.journal import SqliteJournal
from payout_engine.ports.files import Source
from payout_engine.ports.journal import Journal
from payout_engine.ports.observer import Observer
from payout_engine.results.files import write_refused
from payout_engine.sinks import open_sink
from payout_engine.sources import open_source, payouts_source

Payouts = Iterable[Payout] | AsyncIterable[Payout]

__all__ = [
    "Forecast",
    "IntakeFindings",
    "Kind",
    "LaneForecast",
    "Payouts",
    "Submission",
    "forecast_of",
    "open_payouts",
    "plan",
    "retry",
    "submit",
]


class Submission(msgspec.Struct, frozen=True):
    """A validated file.

    Attributes:
        run: the recorded run; of `Engine.plan`, a run that was recorded nowhere.
        findings: what intake found; None when the file was submitted before and its run goes on.
        forecast: what paying will need; None when the file was submitted before.
        over_limits: the money limits that forbid it, in sentences; always empty for what `submit` returns.
        left_out: of a retry, how many lines another retry has paid or has in flight, by its id.
    """

    run: Run
    findings: IntakeFindings | None = None
    forecast: Forecast | None = None
    over_limits: Sequence[str] = ()
    left_out: Mapping[str, int] = {}

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.run.run_id

    @property
    def known(self) -> bool:
        """True when this content was approved before: paying again only finishes what was begun."""
        return self.findings is None


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How a caller wants a source to be read; see `Engine.submit`."""

    name: str
    sheet: str | None
    columns: Mapping[str, str]
    direction: Direction

    def mapping(self, workspace: Workspace) -> Mapping[str, str]:
        """Which column is which, as far as anybody said: what is asked for now comes before the configuration."""
        return {**workspace.settings.columns, **self.columns}


async def open_payouts(workspace: Workspace, asked: Reading, payouts: Path | str | Source | Payouts) -> Source:
    """Return the source of what a caller wants to have paid, or collected; see `Engine.submit`.

    What is collected has another digest than its content, so that the same file may be paid as well.
    """
    if isinstance(payouts, str | Path):
        source: Source = await open_source(payouts, sheet=asked.sheet, stack=workspace.stack)
    elif isinstance(payouts, Iterable | AsyncIterable):
        source = payouts_source(cast(Payouts, payouts), asked.name)
    else:
        source = payouts
    if asked.direction is Direction.COLLECT and source.digest:
        source.digest = sha256(f"{asked.direction} {source.digest}".encode()).hexdigest()
    return source


# --------------------------------------------------------------------------------------------------------------- verbs


async def plan(workspace: Workspace, asked: Reading, source: Source, out: Path | None, notify: Observer) -> Submission:
    """Validate a file and record nothing; see `Engine.plan`."""
    settings = workspace.settings
    known = await _known(workspace, source) if settings.journal.exists() else None
    if known is not None:
        return Submission(known)
    with TemporaryDirectory(prefix="payout-plan-") as folder:
        scratch = SqliteJournal.open(
            Path(folder) / "plan.db", scratch_of=settings.journal, sandbox=workspace.accounts.sandbox
        )
        async with scratch as journal:
            submission = await _validate(
                workspace, source, journal, notify, mapping=asked.mapping(workspace), direction=asked.direction
            )
            approved = await workspace.journal() if settings.journal.exists() else None
            over = await over_limits(journal, submission.run, settings, approved)
            submission = msgspec.structs.replace(submission, over_limits=over)
            if out is not None:
                await write_refused(journal, submission.run, out, open_sink=open_sink)
            return submission


async def submit(workspace: Workspace, asked: Reading, source: Source, notify: Observer, *, wait: bool) -> Submission:
    """Validate a file and record it as a run; see `Engine.submit`."""
    known = await _known(workspace, source)
    if known is not None:
        return Submission(known)
    right = right_to_begin(source.digest)
    async with AsyncExitStack() as beginning:
        if source.digest:
            await _begin(workspace, beginning, right, source.name, notify if wait else None)
            known = await _known(workspace, source)
            if known is not None:
                return Submission(known)
        journal = await workspace.journal()
        await _clear(journal, lambda left: bool(source.digest) and left.digest == source.digest)
        submission = await _validate(
            workspace, source, journal, notify, mapping=asked.mapping(workspace), direction=asked.direction
        )
        submission = await _within_limits(workspace, submission)
        if source.digest:
            workspace.beginnings[right] = beginning.pop_all()
    return submission


async def retry(
    workspace: Workspace, run_id: str, notify: Observer, *, wait: bool, key_renewed: bool, journal_lost: bool
) -> Submission:
    """Validate the provably unpaid lines of a run as a new run; see `Engine.retry`."""
    journal, run = await workspace.journal(), await workspace.run(run_id)
    if not journal_lost:
        await workspace.require_newest()
    right = right_to_retry(run_id)
    async with AsyncExitStack() as beginning:
        await _begin(workspace, beginning, right, run.name, notify if wait else None)
        await _clear(journal, lambda left: left.retry_of == run_id)
        await _look_first(workspace, run, notify, wait=wait, key_renewed=key_renewed)
        source = await retry_source(journal, run)
        try:
            submission = await _validate(
                workspace,
                source,
                journal,
                notify,
                mapping=source.mapping,
                retry_of=run_id,
                direction=run.direction,
            )
        except InputError:
            if source.lines:
                raise
            later = "".join(f" Run {name} has paid {count} of them." for name, count in source.left_out.items())
            raise ConfigError(f"No line of run {run_id} is failed or cancelled and still unpaid.{later}") from None
        submission = await _within_limits(workspace, msgspec.structs.replace(submission, left_out=source.left_out))
        workspace.beginnings[right] = beginning.pop_all()
    return submission


# ------------------------------------------------------------------------------------------------- the right to begin


async def _begin(workspace: Workspace, held: AsyncExitStack, right: str, name: str, waiting: Observer | None) -> None:
    """Hold the right to begin a content, from before it is validated until its run is approved or given up.

    Args:
        workspace: ours.
        held: what holds it.
        right: its name.
        name: what the file is called.
        waiting: told whom we wait for while another process holds it; None not to wait.

    Raises:
        JournalBusyError: another process holds it, and we do not wait.
    """
    await workspace.let_go(right)  # An earlier submission of our own is replaced by this one.
    journal, path = await workspace.journal(), workspace.settings.journal

    async def enter() -> None:
        await held.enter_async_context(journal.lease(right, holder("validating", path, name=name)))

    await (wait_for_lock(enter, journal, path, waiting) if waiting else enter())


async def _clear(journal: Journal, is_left: Callable[[Run], bool]) -> None:
    """Throw away what an earlier submission left behind without anybody's yes."""
    for run in await journal.runs():
        if run.approved_at is None and is_left(run):
            await journal.discard(run.run_id)


async def _known(workspace: Workspace, source: Source) -> Run | None:
    """Return the run that this content began, if anybody approved it and not all of it came to nothing.

    Where every line provably failed, the same content is a new attempt: its lines are safe to pay, unless a retry
    has made that attempt.
    """
    journal = await workspace.journal()
    run = await journal.find_digest(source.digest) if source.digest else None
    if run is None or run.approved_at is None:
        return None
    states = {tally.state for tally in await journal.tally(run.run_id)}
    came_to_nothing = run.state is RunState.FINISHED and states <= UNPAID and bool(states - {State.REJECTED})
    retried = any(later.retry_of == run.run_id and later.approved_at for later in await journal.runs())
    return None if came_to_nothing and not retried else run


# --------------------------------------------------------------------------------------------------------- validating


async def _validate(
    workspace: Workspace,
    source: Source,
    journal: Journal,
    notify: Observer,
    *,
    mapping: Mapping[str, str],
    retry_of: str = "",
    direction: Direction = Direction.PAY,
) -> Submission:
    """Read a source to its end into a journal, and say what paying it would need."""
    settings, accounts = workspace.settings, workspace.accounts
    run, validator = prepare(
        source,
        accounts.router(direction),
        columns=mapping,
        country=settings.country or accounts.default_country,
        max_payout_amount=settings.max_payout_amount,
        sandbox=accounts.sandbox,
    )
    run = msgspec.structs.replace(run, retry_of=retry_of, direction=direction)
    findings = await intake(source, journal, run, validator, on_progress=notify)
    coming = await forecast_of(workspace, journal, run)
    return Submission(await journal.find(run.run_id) or run, findings, coming)


async def forecast_of(workspace: Workspace, journal: Journal, run: Run) -> Forecast:
    """Return what the payouts of a run that are ready will need, with the balances as they are now."""
    accounts, run_id, router = workspace.accounts, run.run_id, workspace.accounts.router(run.direction)
    if run.direction is Direction.COLLECT:
        return await forecast(journal, run_id, router, {}, {})  # What comes in needs no balance.
    balances = await accounts.balances({tally.lane for tally in await journal.tally(run_id)})
    return await forecast(journal, run_id, router, balances.found, balances.problems)


async def _within_limits(workspace: Workspace, submission: Submission) -> Submission:
    """Return a submission that the money limits allow.

    Raises:
        LimitError: they do not; nothing is recorded.
    """
    journal = await workspace.journal()
    try:
        refuse(await over_limits(journal, submission.run, workspace.settings))
    except LimitError:
        await journal.discard(submission.run_id)
        raise
    return submission


async def _look_first(workspace: Workspace, run: Run, notify: Observer, *, wait: bool, key_renewed: bool) -> None:
    """Ask the providers what they have of a run, with its leases held: two look-ups at once would cross.

    Raises:
        UnansweredError: one could not say.
        JournalBusyError: another process pays from one of the accounts, and `wait` is false.
    """
    journal, accounts, path = await workspace.journal(), workspace.accounts, workspace.settings.journal
    async with AsyncExitStack() as held:

        async def enter() -> Sequence[str]:
            return await held.enter_async_context(leases(journal, run, holder("looking after", path, run)))

        names = await (wait_for_lock(enter, journal, path, notify) if wait else enter())
        for name in names:
            await accounts.connect(name, run.direction)
        if not accounts.sandbox:
            await require_same_keys(journal, run, accounts.keys, names, renewed=key_renewed)
        await ask_providers(journal, run, accounts, notify)
