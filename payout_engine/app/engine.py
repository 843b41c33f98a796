"""The engine: where the rooms meet. It alone knows the journal, the providers, the sources and the pipeline.

    async with Engine.open("payouts.toml") as engine:
        run = await engine.submit("salaries.csv")
        async for outcome in engine.pay(run):
            ...

`submit` judges the whole file and records it; nothing is sent. `pay` approves the run, sends what is ready, follows
what is open, and streams outcomes as they settle. Both may be called again after a crash with the same file.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from payout_engine.app.accounts import Accounts
from payout_engine.app.clearing import Clearing, accounts_to_send
from payout_engine.app.controls import over_limits, refuse
from payout_engine.app.locks import PaymentLocks, holder, leases, payment_locks, require_same_keys, wait_for_lock
from payout_engine.app.other_journals import may_begin, notice_move, remember_begun
from payout_engine.app.payment_stream import PaymentStream, unwrap_group
from payout_engine.app.settings import SANDBOX_JOURNAL, Settings, load_settings
from payout_engine.app.submission import Submission
from payout_engine.app.submit import Judging
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.facts import CanarySize
from payout_engine.domain.model import Decision, Entry, Outcome, Payout, Run, RunState, Step, Tally
from payout_engine.domain.proof import Audit
from payout_engine.domain.states import ATTENTION, State
from payout_engine.intake.duplicates import hold_duplicates
from payout_engine.intake.forecast import Forecast
from payout_engine.journal import SqliteJournal, verify_file
from payout_engine.payment.dispatch import Publish
from payout_engine.payment.first_look import seconds_allowed
from payout_engine.payment.poll import FollowPolicy
from payout_engine.payment.run import Payment
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal
from payout_engine.results.deliver import writing_events
from payout_engine.results.files import ResultFiles, write_results
from payout_engine.sinks import open_sink

FOLLOW_FOR_SECONDS = 30 * 60.0
"""How long a run is followed after its last payout was sent, unless the caller says otherwise."""

SANDBOX_POLICY = FollowPolicy(first_seconds=0.4, longest_seconds=5.0, unknown_patience_seconds=10.0)
"""The sandbox settles within a second or two, so it is asked more often."""

Payouts = Iterable[Payout] | AsyncIterable[Payout]


class AttentionLine(msgspec.Struct, frozen=True):
    """A line that waits for a person, and what the log says of it, oldest first."""

    entry: Entry
    steps: Sequence[Step]


class _PayTerms(NamedTuple):
    """How a run is to be paid; see `Engine.pay`."""

    follow_for_seconds: float | None
    send: bool
    events: Path | None
    notify: observer.Observer
    canary: int | None
    wait: bool
    key_renewed: bool
    journal_lost: bool


class Engine(Judging):
    """A journal, the configured accounts, and the verbs of a payer. Made by `Engine.open`."""

    def __init__(
        self, settings: Settings, accounts: Accounts, tasks: anyio.abc.TaskGroup, stack: AsyncExitStack
    ) -> None:
        super().__init__(settings, accounts, stack)
        self._tasks = tasks
        self._opened: Journal | None = None
        self._opening = anyio.Lock()
        self._streams: list[PaymentStream] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: Settings | Path | str | None = None,
        *,
        journal: Path | str | None = None,
        account: str | None = None,
        sandbox: bool = False,
    ) -> AsyncIterator[Engine]:
        """Open an engine.

        Args:
            config: a configuration file, or settings; None for `payouts.toml` here, if there is one.
            journal: the journal file; overrides the configuration.
            account: use only this account.
            sandbox: pay into embedded sandboxes of the providers, on this machine only; needs no configuration or key.

        Raises:
            ConfigError: the configuration cannot be used.
        """
        settings = config if isinstance(config, Settings) else load_settings(Path(config) if config else None)
        path = Path(journal) if journal is not None else (SANDBOX_JOURNAL if sandbox else settings.journal)
        settings = msgspec.structs.replace(settings, journal=path)
        stack = AsyncExitStack()
        try:
            async with stack, anyio.create_task_group() as tasks:
                accounts = Accounts(settings, stack, only=account, sandbox=sandbox)
                engine = cls(settings, accounts, tasks, stack)
                try:
                    yield engine
                finally:
                    await engine._stop()
        except BaseExceptionGroup as group:
            raise unwrap_group(group) from None

    async def _stop(self) -> None:
        """Let every payment finish what is on the wire: a call that is cut off leaves its payouts unknown."""
        for stream in self._streams:
            if not stream.done.is_set():
                stream.stop()
            stream.abandon()
        with anyio.CancelScope(shield=True):
            for stream in self._streams:
                await stream.done.wait()

    async def journal(self) -> Journal:
        """Return the journal, opened (and created) at the first call."""
        async with self._opening:
            if self._opened is not None:
                return self._opened
            journal = await self._stack.enter_async_context(self._journal_file())
            if not self.accounts.sandbox:
                await notice_move(self.memory, journal, self.settings.journal)
            self._opened = journal
            return journal

    def _journal_file(self) -> AbstractAsyncContextManager[Journal]:
        """Open the file of the journal. How far it comes is remembered apart from it."""
        sandbox = self.accounts.sandbox
        remember = None if sandbox else self.memory.keep
        return SqliteJournal.open(self.settings.journal, sandbox=sandbox, remember=remember)

    # ------------------------------------------------------------------------------------------------------- paying

    def pay(
        self,
        run: Submission | Run | str,
        *,
        follow_for_seconds: float | None = FOLLOW_FOR_SECONDS,
        send: bool = True,
        events: Path | None = None,
        watch: observer.Observer | None = None,
        canary: int | None = None,
        wait: bool = False,
        key_renewed: bool = False,
        journal_lost: bool = False,
    ) -> PaymentStream:
        """Pay a run, or finish paying it, and stream its outcomes.

        Args:
            run: what `submit` returned, or a run's id.
            follow_for_seconds: how long to follow after the last payout was sent; 0 does not wait, None has no end.
            send: False only follows what was sent before.
            events: a file to which every outcome is appended as it happens, or None.
            watch: told of what happens.
            canary: of a run that nobody approved yet, how many payouts of each lane are paid and waited for before the
                rest; None for what the settings say.
            wait: while another process pays from an account of the run, or with its key, wait until it has ended; then
                finish what is left. `PaymentStream.stop` ends the waiting.
            key_renewed: a run that was begun with other keys goes on with the configured ones: they are of the same
                accounts, a person says.
            journal_lost: a person says that the newer copy of this journal is lost for good, or else the journal with
                which the same content was begun; recorded, with the name of this machine's user.

        Returns:
            An async iterator of outcomes, each told once. Paying goes on whether or not anybody iterates, and `done`
            is set at its end; leaving the engine's block stops it. Its `ending` says how paying ended. It raises
            JournalBusyError if another process pays and `wait` is false, or was ended; ConfigError if the run was begun
            with other keys, or another journal knows more of it; and UnansweredError if a provider could not say what
            it already has of lines that may have been sent before.
        """
        run_id = run if isinstance(run, str) else run.run_id
        stream = PaymentStream(run_id, self.journal)
        self._streams.append(stream)
        terms = _PayTerms(
            follow_for_seconds, send, events, observer.safe(watch), canary, wait, key_renewed, journal_lost
        )
        self._tasks.start_soon(self._pay, stream, terms)
        return stream

    async def _pay(self, stream: PaymentStream, terms: _PayTerms) -> None:
        """Hold the rights, and keep the event file up to date, while the stream is driven."""

        async def begin(publish: Publish, held: AsyncExitStack) -> Payment:
            granted = await self._granted(stream, terms, held)
            used_before = self.memory.used(granted.keys) or await self._used_before()
            journal, run = await self.journal(), await self.run(stream.run_id)
            resumed = run.approved_at is not None
            if not resumed and not terms.send:
                raise ConfigError(f"Run {run.run_id} was never approved, so there is nothing of it to follow.")
            here = (journal, self.settings.journal)
            await remember_begun(self.memory, *here, run, granted.keys, lost=terms.journal_lost)
            payers = await self.accounts.payers(granted.accounts, used_before)
            halted = anyio.Event()
            clearing = Clearing(
                journal,
                self.accounts,
                run,
                granted.leased,
                held,
                publish,
                terms.notify,
                seconds=seconds_allowed(terms.follow_for_seconds),
                halted=halted,
            )
            stream.when_stopped(halted.set)
            if resumed:
                await self._same_keys(run, granted.accounts, terms)
                sending = await accounts_to_send(journal, run) if terms.send else ()
                if sending:
                    await clearing.clear(sending)
            else:
                # The approval comes last: a run that cannot be paid now must not hold up the references of others.
                await self._approve(run, clearing.must_clear, terms.canary)
                await self._same_keys(run, granted.accounts, terms)
            await self._tell_late(journal, run, clearing.late, publish)
            if terms.events is not None:
                await held.enter_async_context(writing_events(journal, run, terms.events, terms.notify))
            return Payment(
                journal,
                run.run_id,
                payers,
                self._policy(),
                follow_for_seconds=terms.follow_for_seconds,
                send=terms.send,
                uncleared=clearing.uncleared(granted.accounts),
                publish=publish,
                notify=terms.notify,
                max_failure_share=self.settings.max_failure_share,
                canary=await self._canary(run.run_id),
            )

        await stream.drive(begin)

    async def _same_keys(self, run: Run, accounts: Sequence[str], terms: _PayTerms) -> None:
        if not self.accounts.sandbox:
            keys = self.accounts.keys
            await require_same_keys(await self.journal(), run, keys, accounts, renewed=terms.key_renewed)

    async def check_accounts(self, run_id: str, *, journal_lost: bool = False) -> None:
        """Find out before anybody is asked whether a validated run could be paid; no byte is sent by this.

        Args:
            run_id: the run.
            journal_lost: as for `pay`.

        Raises:
            ConfigError: an account has no key, this journal is an older copy, or another one has begun this file with
                the same key or cannot say.
        """
        names = sorted({tally.lane.account for tally in await self.tally(run_id)} - {""})
        for name in names:
            await self.accounts.connect(name)
        keys = [self.accounts.keys[name] for name in (await self.accounts.locks(names)).values()]
        journal, run = await self.journal(), await self.run(run_id)
        await may_begin(self.memory, journal, self.settings.journal, run, keys, lost=journal_lost)

    async def _granted(self, stream: PaymentStream, terms: _PayTerms, held: AsyncExitStack) -> PaymentLocks:
        """Hold everything that paying needs, as soon as nobody else does."""
        journal, path = await self.journal(), self.settings.journal

        async def enter() -> PaymentLocks:
            run = await self.run(stream.run_id)
            return await held.enter_async_context(payment_locks(journal, self.accounts, run, path, send=terms.send))

        return await (wait_for_lock(enter, journal, path, terms.notify, stream.stopping) if terms.wait else enter())

    async def _approve(self, run: Run, clear: Callable[[], Awaitable[None]], canary: int | None) -> None:
        """Approve a validated run.

        Args:
            run: the run.
            clear: compares it with the others once more, and does what has to be done before it is approved.
            canary: as for `pay`.

        Raises:
            ConfigError: the run's file was not read to the end.
            LimitError: the money limits forbid it by now.
        """
        journal = await self.journal()
        if run.state is RunState.INTAKE:
            raise ConfigError(f"Run {run.run_id} stopped while its file was being read. Run the file again.")
        # What another run had provably not paid when this one was validated may have come to light since, while a
        # person was asked or another process paid.
        again = any(other.approved_at is not None for other in await journal.runs())
        while True:
            if again:
                await clear()
            refuse(await over_limits(journal, run, self.settings))
            await self._begin_canary(run, canary)
            if await journal.approve(run.run_id):
                await self.begun(run)
                return
            again = True  # Another run was approved since the comparison.

    async def approved(
        self, run_id: str, *, canary: int | None = None, publish: Publish | None = None
    ) -> tuple[Journal, Run]:
        """Return a run that may be paid, approving it if it was only validated; nobody is asked anything yet.

        Args:
            run_id: the run.
            canary: as for `pay`.
            publish: told of lines that are held because of what happened since the run was validated.

        Raises:
            ConfigError: there is no such run, or its file was not read to the end.
            LimitError: the money limits forbid it by now.
        """
        journal, run = await self.journal(), await self.run(run_id)
        if run.state in (RunState.PAYING, RunState.FINISHED):
            return journal, run
        late: set[int] = set()

        async def compare() -> None:
            late.update(line for line, _ in (await hold_duplicates(journal, run)).held)

        await self._approve(run, compare, canary)
        if publish is not None:
            await self._tell_late(journal, run, late, publish)
        return journal, await self.run(run_id)

    async def _begin_canary(self, run: Run, canary: int | None) -> None:
        """Record the size of a run's canary once, before it is approved."""
        size = canary if canary is not None else self.settings.canary
        if size and not await self._canary(run.run_id):
            await (await self.journal()).add_fact(run.run_id, CanarySize(size))

    async def _tell_late(self, journal: Journal, run: Run, late: set[int], publish: Publish) -> None:
        """Tell the caller of lines that are held because of what happened since the run was validated."""
        if late:
            async for _, outcomes in journal.outcomes(run.run_id):
                await publish([one for one in outcomes if one.line in late and one.status is State.HELD])

    async def _canary(self, run_id: str) -> int:
        """Return the size of a run's canary as it was when the run was approved, or 0."""
        return (await (await self.journal()).facts(run_id)).canary_size

    async def _used_before(self) -> bool:
        """Whether calls made moments ago, for this run or another, may still count against the rate."""
        return any(run.approved_at is not None for run in await (await self.journal()).runs())

    def _policy(self) -> FollowPolicy:
        if self.accounts.sandbox:
            return SANDBOX_POLICY
        return FollowPolicy(unknown_patience_seconds=self.settings.unknown_patience_seconds)

    # ------------------------------------------------------------------------------------------------------- looking

    async def run(self, run_id: str) -> Run:
        """Return a run by its id.

        Raises:
            ConfigError: there is no such run.
        """
        found = await (await self.journal()).find(run_id)
        if found is None:
            raise ConfigError(
                f"There is no run “{run_id}” in {self.settings.journal}. See them with: payout-engine runs"
            )
        return found

    async def runs(self) -> Sequence[Run]:
        """Return all runs, newest first."""
        return await (await self.journal()).runs()

    async def tally(self, run_id: str) -> Sequence[Tally]:
        """Return counts and sums of a run by lane and state."""
        return await (await self.journal()).tally(run_id)

    async def forecast(self, run_id: str) -> Forecast:
        """Return what the payouts of a run that are still ready will need, with the balances as they are now."""
        return await self._forecast(await self.journal(), run_id)

    async def waiting(self, run_id: str, *, accepted: bool = False) -> AsyncIterator[Sequence[AttentionLine]]:
        """Yield the lines of a run that wait for a person, in the order of the file, with what is known of each.

        Args:
            run_id: the run.
            accepted: also those that the provider accepted and never settled.
        """
        journal, run = await self.journal(), await self.run(run_id)
        states = ATTENTION | {State.ACCEPTED} if accepted else ATTENTION
        async for entries in journal.entries(run.run_id, states):
            told = await journal.trace(run.run_id, {entry.key for entry in entries})
            yield [AttentionLine(entry, told.get(entry.key, ())) for entry in entries]

    async def decide(self, run_id: str, decisions: Sequence[Decision]) -> Sequence[Outcome]:
        """Record a person's word on lines that wait for one: all of it, or nothing.

        Raises:
            DecisionError: some of it cannot be carried out; the message names what.
            JournalBusyError: somebody is paying for an account of this run.
        """
        journal, run = await self.journal(), await self.run(run_id)
        async with leases(journal, run, holder("recording decisions on", self.settings.journal, run)):
            # With the leases held nobody is speaking: what is still `sending` was cut off by a crash, and is unknown.
            await journal.recover(run.run_id)
            return await journal.decide(run.run_id, decisions)

    async def verify(self, run_id: str, kept: str = "") -> Audit:
        """Prove from the journal's log that nothing was altered and nothing sent twice without proof; only read.

        Args:
            run_id: a run that was validated.
            kept: a digest of this run that was kept outside the journal; the log must still lead through it.

        Raises:
            JournalError: the journal cannot be read, has no such run, or the run is not validated yet.
        """
        return await anyio.to_thread.run_sync(verify_file, self.settings.journal, run_id, kept, abandon_on_cancel=True)

    async def results(self, run_id: str, folder: Path, *, format: str = "csv") -> ResultFiles:
        """Write a run's results into `folder`; every file appears whole or not at all.

        Raises:
            SinkError: they could not be written. Money is not affected.
        """
        journal, run = await self.journal(), await self.run(run_id)
        return await write_results(journal, run, folder, format=format, open_sink=open_sink)
