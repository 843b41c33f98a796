"""The engine: where the rooms meet. It alone knows the journal, the providers, the sources and the pipeline.

    async with Engine.open("payouts.toml") as engine:
        run = await engine.submit("salaries.csv")
        async for outcome in engine.pay(run):
            ...

`submit` judges the whole file and records it; nothing is sent. `pay` approves the run, sends what is ready, follows
what is open, and streams outcomes as they settle. Both may be called again after a crash with the same file.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import anyio
import anyio.abc
import msgspec

from payout_engine import observe
from payout_engine.accounts import Accounts
from payout_engine.errors import ConfigError, SinkError
from payout_engine.journal import SqliteJournal
from payout_engine.model import Payout, Run, RunState, Tally
from payout_engine.payments import PaymentStream, alone
from payout_engine.pipeline.deliver import deliver
from payout_engine.pipeline.dispatch import Publish
from payout_engine.pipeline.follow import FollowPolicy
from payout_engine.pipeline.forecast import Forecast, forecast
from payout_engine.pipeline.intake import Findings, intake, prepare
from payout_engine.pipeline.payment import Payment
from payout_engine.pipeline.repeats import hold_repeats
from payout_engine.pipeline.results import ResultFiles, write_results
from payout_engine.ports import Journal, Source
from payout_engine.settings import SANDBOX_JOURNAL, Settings, load_settings
from payout_engine.sinks import open_sink
from payout_engine.sources import open_source, payouts_source

FOLLOW_FOR_SECONDS = 30 * 60.0
"""How long a run is followed after its last payout was sent, unless the caller says otherwise."""

SANDBOX_POLICY = FollowPolicy(first_seconds=0.4, longest_seconds=5.0, unknown_patience_seconds=10.0)
"""The sandbox settles within a second or two, so it is asked more often."""

Payouts = Iterable[Payout] | AsyncIterable[Payout]


class Submission(msgspec.Struct, frozen=True):
    """A judged file.

    Attributes:
        run: the recorded run; of `Engine.plan`, a run that was recorded nowhere.
        findings: what intake found; None when the file was submitted before and its run goes on.
        forecast: what paying will need; None when the file was submitted before.
    """

    run: Run
    findings: Findings | None = None
    forecast: Forecast | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.run.run_id

    @property
    def known(self) -> bool:
        """True when this content was approved before: paying again only finishes what was begun."""
        return self.findings is None


class Engine:
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
        self, payouts: Path | str | Source | Payouts, *, name: str = "payouts", watch: observe.Watch | None = None
    ) -> Submission:
        """Judge a file exactly as `submit` does, and record nothing.

        Raises:
            InputError: it cannot be used as a payout file.
        """
        source = await self._source(payouts, name)
        known = await self._known(source) if self.settings.journal.exists() else None
        if known is not None:
            return Submission(known)
        with TemporaryDirectory(prefix="payout-plan-") as folder:
            scratch = SqliteJournal.open(
                Path(folder) / "plan.db", scratch_of=self.settings.journal, sandbox=self.accounts.sandbox
            )
            async with scratch as journal:
                return await self._judge(source, journal, watch)

    async def submit(
        self, payouts: Path | str | Source | Payouts, *, name: str = "payouts", watch: observe.Watch | None = None
    ) -> Submission:
        """Judge a whole file (or iterable) and record it as a run; send nothing.

        Args:
            payouts: a path, `-` for standard input, an open source, or an iterable or async iterable of `Payout`.
            name: what to call an iterable.
            watch: told of progress.

        Returns:
            The run, ready for `pay`. The same content gives the run that it began, whatever the file is called now.

        Raises:
            InputError: it cannot be used as a payout file; nothing was recorded.
        """
        source = await self._source(payouts, name)
        known = await self._known(source)
        if known is not None:
            return Submission(known)
        journal = await self.journal()
        await self._clear(journal, source.digest)
        return await self._judge(source, journal, watch)

    async def _clear(self, journal: Journal, digest: str) -> None:
        """Throw away what an earlier submission of this content left behind without anybody's yes."""
        for run in await journal.runs():
            if digest and run.digest == digest and run.approved_at is None:
                await journal.discard(run.run_id)

    async def _source(self, payouts: Path | str | Source | Payouts, name: str) -> Source:
        if isinstance(payouts, str | Path):
            return await open_source(payouts, stack=self._stack)
        if isinstance(payouts, Iterable | AsyncIterable):
            return payouts_source(cast(Payouts, payouts), name)
        return payouts

    async def _known(self, source: Source) -> Run | None:
        """Return the run that this content began, if anybody approved it."""
        journal = await self.journal()
        run = await journal.find_digest(source.digest) if source.digest else None
        return run if run is not None and run.approved_at is not None else None

    async def _judge(self, source: Source, journal: Journal, watch: observe.Watch | None) -> Submission:
        run, judge = prepare(
            source,
            self.accounts.router,
            columns=self.settings.columns,
            country=self.settings.country,
            max_payout_amount=self.settings.max_payout_amount,
            sandbox=self.accounts.sandbox,
        )
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
    ) -> PaymentStream:
        """Pay a run, or finish paying it, and stream its outcomes.

        Args:
            run: what `submit` returned, or a run's id.
            follow_for_seconds: how long to follow after the last payout was sent; 0 does not wait, None has no end.
            send: False only follows what was sent before.
            events: a file to which every outcome is appended as it happens, or None.
            watch: told of what happens.

        Returns:
            An async iterator of outcomes. Its `ending` says how paying ended.
        """
        run_id = run if isinstance(run, str) else run.run_id
        stream = PaymentStream(run_id)
        self._streams.append(stream)
        self._tasks.start_soon(partial(self._pay, stream, follow_for_seconds, send, events, observe.safe(watch)))
        return stream

    async def _pay(
        self,
        stream: PaymentStream,
        follow_for_seconds: float | None,
        send: bool,
        events: Path | None,
        tell: observe.Watch,
    ) -> None:
        """Hold the leases, and keep the event file up to date, while the stream is driven."""

        async def begin(publish: Publish, held: AsyncExitStack) -> Payment:
            used_before = await self._used_before()
            resumed = (await self.run(stream.run_id)).approved_at is not None
            journal, run = await self.approved(stream.run_id)
            accounts = sorted({tally.lane.account for tally in await journal.tally(run.run_id)} - {""})
            for account in accounts:
                await held.enter_async_context(journal.lease(account))
            if events is not None:
                await held.enter_async_context(_delivering(journal, run, events, tell))
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
            )

        await stream.drive(begin)

    async def approved(self, run_id: str) -> tuple[Journal, Run]:
        """Return a run that may be paid, approving it if it was only judged.

        Raises:
            ConfigError: there is no such run, or its file was not read to the end.
        """
        journal = await self.journal()
        run = await self.run(run_id)
        if run.state is RunState.INTAKE:
            raise ConfigError(f"Run {run_id} stopped while its file was being read. Run the file again.")
        if run.state is RunState.JUDGED:
            while not await journal.approve(run_id):
                await hold_repeats(journal, run)
            run = await self.run(run_id)
        return journal, run

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

    async def results(self, run_id: str, folder: Path, *, format: str = "csv") -> ResultFiles:
        """Write a run's results into `folder`; every file appears whole or not at all.

        Raises:
            SinkError: they could not be written. Money is not affected.
        """
        journal, run = await self.journal(), await self.run(run_id)
        return await write_results(journal, run, folder, format=format, open_sink=open_sink)


@asynccontextmanager
async def _delivering(journal: Journal, run: Run, path: Path, tell: observe.Watch) -> AsyncIterator[None]:
    """Keep the event file up to date while inside; a failure to do so is told and stops nothing."""
    done = anyio.Event()

    async def work() -> None:
        try:
            await deliver(journal, run, path, done, tell)
        except SinkError as error:
            tell(observe.Waiting("", f"{error} Write the results again with: payout-engine results {run.run_id}"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        try:
            yield
        finally:
            done.set()
