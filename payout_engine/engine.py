"""The engine: where the rooms meet. It alone knows the journal, the providers, the sources and the pipeline.

    async with Engine.open("payouts.toml") as engine:
        run = await engine.submit("salaries.csv")
        async for outcome in engine.pay(run):
            ...

`submit` judges the whole file and records it; nothing is sent. `pay` approves the run, sends what is ready, follows
what is open, and streams outcomes as they settle. Both may be called again after a crash with the same file.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from payout_engine import observe
from payout_engine.accounts import Accounts
from payout_engine.errors import ConfigError, InputError, LimitError
from payout_engine.journal import SqliteJournal, verify_file
from payout_engine.lifecycle import ATTENTION, UNPAID, State
from payout_engine.model import Audit, Decision, Entry, Outcome, Payout, Run, RunState, Step, Tally
from payout_engine.payments import PaymentStream, alone
from payout_engine.pipeline.brakes import CANARY_SIZE_NOTE
from payout_engine.pipeline.deliver import delivering
from payout_engine.pipeline.dispatch import Publish
from payout_engine.pipeline.follow import FollowPolicy
from payout_engine.pipeline.forecast import Forecast, forecast
from payout_engine.pipeline.intake import intake, prepare
from payout_engine.pipeline.payment import Payment
from payout_engine.pipeline.repeats import hold_repeats
from payout_engine.pipeline.results import ResultFiles, write_refused, write_results
from payout_engine.ports import Journal, Source
from payout_engine.retrying import ask_providers, retry_source
from payout_engine.settings import SANDBOX_JOURNAL, Settings, load_settings
from payout_engine.sinks import open_sink
from payout_engine.sources import open_source, payouts_source
from payout_engine.steering import Steered, over_limits, refuse
from payout_engine.submission import Submission

FOLLOW_FOR_SECONDS = 30 * 60.0
"""How long a run is followed after its last payout was sent, unless the caller says otherwise."""

SANDBOX_POLICY = FollowPolicy(first_seconds=0.4, longest_seconds=5.0, unknown_patience_seconds=10.0)
"""The sandbox settles within a second or two, so it is asked more often."""

Payouts = Iterable[Payout] | AsyncIterable[Payout]


class Waiting(msgspec.Struct, frozen=True):
    """A line that waits for a person, and what the log says of it, oldest first."""

    entry: Entry
    steps: Sequence[Step]


class Engine(Steered):
    """A journal, the configured accounts, and the verbs of a payer. Made by `Engine.open`."""

    def __init__(
        self, settings: Settings, accounts: Accounts, tasks: anyio.abc.TaskGroup, stack: AsyncExitStack
    ) -> None:
        self.settings = settings
        self.accounts = accounts
        self._tasks = tasks
        self._stack = stack
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
            raise alone(group) from None

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
            opening = SqliteJournal.open(self.settings.journal, sandbox=self.accounts.sandbox)
            journal: Journal = await self._stack.enter_async_context(opening)
            self._opened = journal
            return journal

    # ------------------------------------------------------------------------------------------------ judging a file

    async def plan(
        self,
        payouts: Path | str | Source | Payouts,
        *,
        name: str = "payouts",
        sheet: str | None = None,
        out: Path | None = None,
        watch: observe.Watch | None = None,
    ) -> Submission:
        """Judge a file exactly as `submit` does, and record nothing.

        Args:
            payouts: as for `submit`.
            name: what to call an iterable.
            sheet: as for `submit`.
            out: a folder for `rejected.csv` and `attention.csv`, or None to write nothing.
            watch: told of progress.

        Raises:
            InputError: it cannot be used as a payout file.
            SinkError: the folder cannot be written.
        """
        source = await self._source(payouts, name, sheet)
        known = await self._known(source) if self.settings.journal.exists() else None
        if known is not None:
            return Submission(known)
        with TemporaryDirectory(prefix="payout-plan-") as folder:
            scratch = SqliteJournal.open(
                Path(folder) / "plan.db", scratch_of=self.settings.journal, sandbox=self.accounts.sandbox
            )
            async with scratch as journal:
                submission = await self._judge(source, journal, watch)
                approved = await self.journal() if self.settings.journal.exists() else None
                over = await over_limits(journal, submission.run, self.settings, approved)
                submission = msgspec.structs.replace(submission, over_limits=over)
                if out is not None:
                    await write_refused(journal, submission.run, out, open_sink=open_sink)
                return submission

    async def submit(
        self,
        payouts: Path | str | Source | Payouts,
        *,
        name: str = "payouts",
        sheet: str | None = None,
        watch: observe.Watch | None = None,
    ) -> Submission:
        """Judge a whole file (or iterable) and record it as a run; send nothing.

        Args:
            payouts: a path, `-` for standard input, an open source, or an iterable or async iterable of `Payout`.
            name: what to call an iterable.
            sheet: which sheet of a workbook; None means the only one with data.
            watch: told of progress.

        Returns:
            The run, ready for `pay`. The same content gives the run that it began, whatever the file is called now.

        Raises:
            InputError: it cannot be used as a payout file; nothing was recorded.
            LimitError: the money limits forbid it; nothing was recorded.
        """
        source = await self._source(payouts, name, sheet)
        known = await self._known(source)
        if known is not None:
            return Submission(known)
        journal = await self.journal()
        await self._clear(journal, source.digest)
        return await self._within_limits(await self._judge(source, journal, watch))

    async def retry(self, run_id: str, *, watch: observe.Watch | None = None) -> Submission:
        """Judge the provably unpaid lines of a run again, by today's rules, and record them as a new run; send nothing.

        The lines keep their references. What a later retry has paid or has in flight is left out; what any other run
        has paid since is held. Rejected lines are not among them: they have to be mended first.

        Returns:
            The new run, ready for `pay`.

        Raises:
            ConfigError: there is nothing to retry, or a retry of the run is not finished.
            ProviderError: the provider could not say what it already has; nothing was recorded.
            LimitError: the money limits forbid it; nothing was recorded.
        """
        journal, run = await self.journal(), await self.run(run_id)
        await ask_providers(journal, run, self.accounts)
        source = await retry_source(journal, run)
        try:
            submission = await self._judge(source, journal, watch, mapping=source.mapping, retry_of=run_id)
        except InputError:
            if source.lines:
                raise
            later = "".join(f" Run {name} has paid {count} of them." for name, count in source.left_out.items())
            raise ConfigError(f"No line of run {run_id} is failed or cancelled and still unpaid.{later}") from None
        submission = msgspec.structs.replace(submission, left_out=source.left_out)
        return await self._within_limits(submission)

    async def _within_limits(self, submission: Submission) -> Submission:
        """Return a submission that the money limits allow.

        Raises:
            LimitError: they do not; nothing is recorded.
        """
        journal = await self.journal()
        try:
            refuse(await over_limits(journal, submission.run, self.settings))
        except LimitError:
            await journal.discard(submission.run_id)
            raise
        return submission

    async def _clear(self, journal: Journal, digest: str) -> None:
        """Throw away what an earlier submission of this content left behind without anybody's yes."""
        for run in await journal.runs():
            if digest and run.digest == digest and run.approved_at is None:
                await journal.discard(run.run_id)

    async def _source(self, payouts: Path | str | Source | Payouts, name: str, sheet: str | None) -> Source:
        if isinstance(payouts, str | Path):
            return await open_source(payouts, sheet=sheet, stack=self._stack)
        if isinstance(payouts, Iterable | AsyncIterable):
            return payouts_source(cast(Payouts, payouts), name)
        return payouts

    async def _known(self, source: Source) -> Run | None:
        """Return the run that this content began, if anybody approved it and not all of it came to nothing.

        Where every line provably failed, the same content is a new attempt: its lines are safe to pay, unless a retry
        has made that attempt.
        """
        journal = await self.journal()
        run = await journal.find_digest(source.digest) if source.digest else None
        if run is None or run.approved_at is None:
            return None
        states = {tally.state for tally in await journal.tally(run.run_id) if tally.count}
        came_to_nothing = run.state is RunState.FINISHED and states <= UNPAID and bool(states - {State.REJECTED})
        retried = any(later.retry_of == run.run_id and later.approved_at for later in await journal.runs())
        return None if came_to_nothing and not retried else run

    async def _judge(
        self,
        source: Source,
        journal: Journal,
        watch: observe.Watch | None,
        *,
        mapping: Mapping[str, str] | None = None,
        retry_of: str = "",
    ) -> Submission:
        run, judge = prepare(
            source,
            self.accounts.router,
            columns=self.settings.columns if mapping is None else mapping,
            country=self.settings.country,
            max_payout_amount=self.settings.max_payout_amount,
            sandbox=self.accounts.sandbox,
        )
        run = msgspec.structs.replace(run, retry_of=retry_of)
        findings = await intake(source, journal, run, judge, on_progress=observe.safe(watch))
        coming = await self._forecast(journal, run.run_id)
        return Submission(await journal.find(run.run_id) or run, findings, coming)

    async def _forecast(self, journal: Journal, run_id: str) -> Forecast:
        balances = await self.accounts.balances({tally.lane for tally in await journal.tally(run_id)})
        return await forecast(journal, run_id, self.accounts.router, balances.found, balances.problems)

    # ------------------------------------------------------------------------------------------------------- paying

    def pay(
        self,
        run: Submission | Run | str,
        *,
        follow_for_seconds: float | None = FOLLOW_FOR_SECONDS,
        send: bool = True,
        events: Path | None = None,
        watch: observe.Watch | None = None,
        canary: int | None = None,
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

        Returns:
            An async iterator of outcomes. Its `ending` says how paying ended.
        """
        run_id = run if isinstance(run, str) else run.run_id
        stream = PaymentStream(run_id)
        self._streams.append(stream)
        tell = observe.safe(watch)
        self._tasks.start_soon(partial(self._pay, stream, follow_for_seconds, send, events, tell, canary))
        return stream

    async def _pay(
        self,
        stream: PaymentStream,
        follow_for_seconds: float | None,
        send: bool,
        events: Path | None,
        tell: observe.Watch,
        canary: int | None,
    ) -> None:
        """Hold the leases, and keep the event file up to date, while the stream is driven."""

        async def begin(publish: Publish, held: AsyncExitStack) -> Payment:
            used_before = await self._used_before()
            resumed = (await self.run(stream.run_id)).approved_at is not None
            accounts = sorted({tally.lane.account for tally in await self.tally(stream.run_id)} - {""})
            for account in accounts:
                # Before the approval: a run that cannot be paid now must not hold up the references of others.
                await held.enter_async_context((await self.journal()).lease(account))
            journal, run = await self.approved(stream.run_id, canary=canary)
            if events is not None:
                await held.enter_async_context(delivering(journal, run, events, tell))
            return Payment(
                journal,
                run.run_id,
                {name: await self.accounts.payer(name, used_before) for name in accounts},
                self._policy(),
                follow_for_seconds=follow_for_seconds,
                send=send,
                resumed=resumed,
                publish=publish,
                tell=tell,
                max_failure_share=self.settings.max_failure_share,
                canary=await self._canary(run.run_id),
            )

        await stream.drive(begin)

    async def approved(self, run_id: str, *, canary: int | None = None) -> tuple[Journal, Run]:
        """Return a run that may be paid, approving it if it was only judged.

        Args:
            run_id: the run.
            canary: as for `pay`.

        Raises:
            ConfigError: there is no such run, or its file was not read to the end.
            LimitError: the money limits forbid it by now.
        """
        journal = await self.journal()
        run = await self.run(run_id)
        if run.state is RunState.INTAKE:
            raise ConfigError(f"Run {run_id} stopped while its file was being read. Run the file again.")
        if run.state is RunState.JUDGED:
            canary = canary if canary is not None else self.settings.canary
            if canary:
                await journal.note(run_id, CANARY_SIZE_NOTE, str(canary))
            # Limits are looked at before each try, and a try fails when another run was approved meanwhile.
            refuse(await over_limits(journal, run, self.settings))
            while not await journal.approve(run_id):
                await hold_repeats(journal, run)
                refuse(await over_limits(journal, run, self.settings))
            run = await self.run(run_id)
        return journal, run

    async def _canary(self, run_id: str) -> int:
        """Return the size of a run's canary as it was when the run was approved, or 0."""
        sizes = [text for _, kind, text in await (await self.journal()).notes(run_id) if kind == CANARY_SIZE_NOTE]
        return int(sizes[-1]) if sizes else 0

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

    async def waiting(self, run_id: str, *, accepted: bool = False) -> AsyncIterator[Sequence[Waiting]]:
        """Yield the lines of a run that wait for a person, in the order of the file, with what is known of each.

        Args:
            run_id: the run.
            accepted: also those that the provider accepted and never settled.
        """
        journal, run = await self.journal(), await self.run(run_id)
        states = ATTENTION | {State.ACCEPTED} if accepted else ATTENTION
        async for entries in journal.entries(run.run_id, states):
            told = await journal.trace(run.run_id, {entry.key for entry in entries})
            yield [Waiting(entry, told.get(entry.key, ())) for entry in entries]

    async def decide(self, run_id: str, decisions: Sequence[Decision]) -> Sequence[Outcome]:
        """Record a person's word on lines that wait for one: all of it, or nothing.

        Raises:
            DecisionError: some of it cannot be carried out; the message names what.
            JournalBusyError: somebody is paying for an account of this run.
        """
        journal, run = await self.journal(), await self.run(run_id)
        async with AsyncExitStack() as held:
            for account in sorted({tally.lane.account for tally in await journal.tally(run.run_id)} - {""}):
                await held.enter_async_context(journal.lease(account))
            # With the leases held nobody is speaking: what is still `sending` was cut off by a crash, and is unknown.
            await journal.recover(run.run_id)
            return await journal.decide(run.run_id, decisions)

    async def verify(self, run_id: str, kept: str = "") -> Audit:
        """Prove from the journal's log that nothing was altered and nothing sent twice without proof; only read.

        Args:
            run_id: a run that was judged.
            kept: a digest of this run that was kept outside the journal; the log must still lead through it.

        Raises:
            JournalError: the journal cannot be read, has no such run, or the run is not judged yet.
        """
        return await anyio.to_thread.run_sync(verify_file, self.settings.journal, run_id, kept, abandon_on_cancel=True)

    async def results(self, run_id: str, folder: Path, *, format: str = "csv") -> ResultFiles:
        """Write a run's results into `folder`; every file appears whole or not at all.

        Raises:
            SinkError: they could not be written. Money is not affected.
        """
        journal, run = await self.journal(), await self.run(run_id)
        return await write_results(journal, run, folder, format=format, open_sink=open_sink)
