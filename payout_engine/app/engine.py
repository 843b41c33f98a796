"""The engine: a journal, the configured accounts, and the verbs of a payer.

    async with Engine.open("payouts.toml") as engine:
        run = await engine.submit("salaries.csv")
        async for outcome in engine.pay(run):
            ...

`submit` validates the whole file and records it; nothing is sent. `pay` approves the run, sends what is ready, follows
what is open, and streams outcomes as they settle. Both may be called again after a crash with the same file. What a
verb promises is said here; how it is kept, in the module that it is handed to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from payout_engine.app import controls
from payout_engine.app import pay as paying
from payout_engine.app import submit as submitting
from payout_engine.app.accounts import Accounts
from payout_engine.app.locks import holder, leases
from payout_engine.app.payment_stream import PaymentStream, unwrap_group
from payout_engine.app.recall import Recall, recall
from payout_engine.app.remembered import Remembered
from payout_engine.app.serve import listening, open_doors
from payout_engine.app.settings import SANDBOX_JOURNAL, Settings, load_settings
from payout_engine.app.submit import Payouts, Submission
from payout_engine.app.workspace import Workspace
from payout_engine.domain.model import Decision, Direction, Entry, Outcome, Run, Step, Tally
from payout_engine.domain.proof import Audit
from payout_engine.domain.states import ATTENTION, State
from payout_engine.intake.forecast import Forecast
from payout_engine.journal import SqliteJournal, verify_file
from payout_engine.ports.files import Source
from payout_engine.ports.journal import Journal
from payout_engine.ports.observer import Observer, safe
from payout_engine.results.files import ResultFiles, write_results
from payout_engine.sinks import open_sink

FOLLOW_FOR_SECONDS = 30 * 60.0
"""How long a run is followed after its last payout was sent, unless the caller says otherwise."""


class AttentionLine(msgspec.Struct, frozen=True):
    """A line that waits for a person, and what the log says of it, oldest first."""

    entry: Entry
    steps: Sequence[Step]


class Engine:
    """A journal, the configured accounts, and the verbs of a payer. Made by `Engine.open`."""

    def __init__(self, workspace: Workspace, tasks: anyio.abc.TaskGroup) -> None:
        self._workspace = workspace
        self._tasks = tasks
        self._streams: list[PaymentStream] = []

    @staticmethod
    @asynccontextmanager
    async def open(
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
        stack, memory = AsyncExitStack(), Remembered()
        accounts = Accounts(settings, stack, only=account, sandbox=sandbox)
        remember = None if sandbox else memory.keep  # How far the journal comes is remembered apart from it.
        open_journal = partial(SqliteJournal.open, path, sandbox=sandbox, remember=remember)
        async with engine_over(Workspace(settings, accounts, memory, open_journal, stack)) as engine:
            yield engine

    async def _stop(self) -> None:
        """Let every payment finish what is on the wire: a call that is cut off leaves its payouts unknown."""
        for stream in self._streams:
            if not stream.done.is_set():
                stream.stop()
            stream.abandon()
        with anyio.CancelScope(shield=True):
            for stream in self._streams:
                await stream.done.wait()

    @property
    def settings(self) -> Settings:
        """The configuration."""
        return self._workspace.settings

    @property
    def accounts(self) -> Accounts:
        """The configured accounts, and their connections."""
        return self._workspace.accounts

    async def journal(self) -> Journal:
        """Return the journal, opened (and created) at the first call."""
        return await self._workspace.journal()

    # ------------------------------------------------------------------------------------------------------ submitting

    async def plan(
        self,
        payouts: Path | str | Source | Payouts,
        *,
        name: str = "payouts",
        sheet: str | None = None,
        out: Path | None = None,
        watch: Observer | None = None,
        direction: Direction | str = Direction.PAY,
        columns: Mapping[str, str] | None = None,
    ) -> Submission:
        """Validate a file exactly as `submit` does, and record nothing.

        Args:
            payouts: as for `submit`.
            name: what to call an iterable.
            sheet: as for `submit`.
            out: a folder for `rejected.csv` and `attention.csv`, or None to write nothing.
            watch: told of progress.
            direction: as for `submit`.
            columns: as for `submit`.

        Raises:
            InputError: it cannot be used as a payout file.
            SinkError: the folder cannot be written.
        """
        asked = submitting.Reading(name=name, sheet=sheet, columns=columns or {}, direction=Direction(direction))
        source = await submitting.open_payouts(self._workspace, asked, payouts)
        return await submitting.plan(self._workspace, asked, source, out, safe(watch))

    async def submit(
        self,
        payouts: Path | str | Source | Payouts,
        *,
        name: str = "payouts",
        sheet: str | None = None,
        watch: Observer | None = None,
        wait: bool = False,
        direction: Direction | str = Direction.PAY,
        columns: Mapping[str, str] | None = None,
    ) -> Submission:
        """Validate a whole file (or iterable) and record it as a run; send nothing.

        Args:
            payouts: a path, `-` for standard input, an open source, or an iterable or async iterable of `Payout`.
            name: what to call an iterable.
            sheet: which sheet of a workbook; None means the only one with data.
            watch: told of progress.
            wait: while another process is validating the same content, wait until it has begun to pay, or given up.
            direction: `pay` people, or `collect` from them: then each line is a request that the person has to agree
                to, `accepted` means requested, and `paid` means collected. It stays with the run.
            columns: meaning -> header, such as `{"amount": "À payer"}`; it comes before the configuration's.

        Returns:
            The run, ready for `pay`. The same content gives the run that it began, whatever the file is called now.

        Raises:
            InputError: it cannot be used as a payout file; nothing was recorded.
            LimitError: the money limits forbid it; nothing was recorded.
            JournalBusyError: another process is validating the same content, and `wait` is false.
        """
        asked = submitting.Reading(name=name, sheet=sheet, columns=columns or {}, direction=Direction(direction))
        source = await submitting.open_payouts(self._workspace, asked, payouts)
        return await submitting.submit(self._workspace, asked, source, safe(watch), wait=wait)

    async def retry(
        self,
        run_id: str,
        *,
        watch: Observer | None = None,
        wait: bool = False,
        key_renewed: bool = False,
        journal_lost: bool = False,
    ) -> Submission:
        """Validate the provably unpaid lines of a run by today's rules, and record them as a new run; send nothing.

        The lines keep their references. What a later retry has paid or has in flight is left out; what any other run
        has paid since is held. Rejected lines are not among them: they have to be mended first.

        Returns:
            The new run, ready for `pay`.

        Raises:
            ConfigError: there is nothing to retry, or a retry of the run is not finished, or the run was paid with
                another key: what that account knows of its lines cannot be asked; or this journal is an older copy.
                `key_renewed` and `journal_lost` as for `pay`, which has to be told the latter, too.
            UnansweredError: the provider could not say what it already has; nothing was recorded.
            LimitError: the money limits forbid it; nothing was recorded.
            JournalBusyError: another process is about to retry the same run, or pays from an account of it, and `wait`
                is false.
        """
        return await submitting.retry(
            self._workspace, run_id, safe(watch), wait=wait, key_renewed=key_renewed, journal_lost=journal_lost
        )

    # ---------------------------------------------------------------------------------------------------------- paying

    def pay(
        self,
        run: Submission | Run | str,
        *,
        follow_for_seconds: float | None = FOLLOW_FOR_SECONDS,
        send: bool = True,
        events: Path | None = None,
        watch: Observer | None = None,
        canary: int | None = None,
        wait: bool = False,
        key_renewed: bool = False,
        journal_lost: bool = False,
        ask_paid: bool = False,
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
            ask_paid: ask as well, once, whether what is paid was taken back since.

        Returns:
            An async iterator of outcomes, each told once. Paying goes on whether or not anybody iterates, and `done`
            is set at its end; leaving the engine's block stops it. Its `ending` says how paying ended. It raises
            JournalBusyError if another process pays and `wait` is false, or was ended; ConfigError if the run was begun
            with other keys, or another journal knows more of it; and UnansweredError if a provider could not say what
            it already has of lines that may have been sent before.
        """
        stream = PaymentStream(run if isinstance(run, str) else run.run_id, self.journal)
        self._streams.append(stream)
        terms = paying.PayTerms(
            follow_for_seconds=follow_for_seconds,
            send=send,
            events=events,
            notify=safe(watch),
            canary=canary,
            wait=wait,
            key_renewed=key_renewed,
            journal_lost=journal_lost,
            ask_paid=ask_paid,
        )
        self._tasks.start_soon(paying.pay_run, self._workspace, stream, terms)
        return stream

    async def check_accounts(self, run_id: str, *, journal_lost: bool = False) -> None:
        """Find out before anybody is asked whether a validated run could be paid; no byte is sent by this.

        Args:
            run_id: the run.
            journal_lost: as for `pay`.

        Raises:
            ConfigError: an account has no key, this journal is an older copy, or another one has begun this file with
                the same key or cannot say.
        """
        await paying.check_accounts(self._workspace, run_id, journal_lost=journal_lost)

    async def approved(self, run_id: str) -> tuple[Journal, Run]:
        """Return a run that may be paid, approving it if it was only validated; no provider is asked anything yet.

        Raises:
            ConfigError: there is no such run, or its file was not read to the end.
            LimitError: the money limits forbid it by now.
        """
        return await paying.approved(self._workspace, run_id)

    # ------------------------------------------------------------------------------------------------------- callbacks

    async def callback_paths(self) -> Mapping[str, str]:
        """Return the path of each account that its provider may call about; secret, and no byte is sent by this.

        Raises:
            ConfigError: no account's provider calls, or an account cannot be connected.
        """
        return {door.name: door.path for door in await open_doors(self._workspace, safe(None))}

    @asynccontextmanager
    async def serving(self, host: str, port: int, *, watch: Observer | None = None) -> AsyncIterator[str]:
        """Take providers' calls over HTTP, and ask about what they say, until the block ends; yields the address.

        A call is stored before it is answered. Whoever pays from its account then asks the provider, from whatever
        process; where nobody does, this one. What a call says is never believed.

        Args:
            host: the address to listen at. It speaks plain HTTP, for a proxy in front of it.
            port: its port; 0 takes a free one.
            watch: told of what was asked about, and of what was refused.

        Raises:
            ConfigError: no account's provider calls, or the address cannot be used.
        """
        async with listening(self._workspace, host, port, safe(watch)) as address:
            yield address

    # --------------------------------------------------------------------------------------------------------- control

    async def pause(self, run_id: str, who: str, why: str = "") -> bool:
        """Ask that nothing more of a run is sent until `unpause`; what is on the wire lands. From any process.

        Returns:
            True when somebody is paying it and has heard, False when nobody is paying it now.

        Raises:
            ConfigError: there is no such run, or it is finished, or was never approved.
        """
        return await controls.pause(await self.journal(), await self.run(run_id), who, why)

    async def cancel(self, run_id: str, who: str, why: str = "") -> controls.Withdrawal:
        """Withdraw what was never sent of a run; what was sent is followed to its end as usual. From any process.

        Raises:
            ConfigError: there is no such run, or it was never approved; or this journal is an older copy, which does
                not know what was sent.
        """
        await self._workspace.require_newest()
        return await controls.cancel(await self.journal(), await self.run(run_id), who, why)

    async def recall(self, run_id: str, reference: str, who: str, why: str) -> Recall:
        """Ask the provider, once, to take back what is left of a paid payout; where it can do that at all.

        Who asks and why is recorded first. It moves no payout: what came back is what a look-up tells, now or later
        (`pay` with `ask_paid`).

        Args:
            run_id: the run.
            reference: the payer's reference, or `line:57`.
            who: the person, as they call themselves.
            why: in their words.

        Raises:
            ConfigError: there is no such run, or its provider takes nothing back, or it was paid with another key; or
                this journal is an older copy.
            DecisionError: the run has no such paid line, or several, or nobody says who and why.
            JournalBusyError: somebody pays from the account, or follows it.
        """
        await self._workspace.require_newest()
        return await recall(self._workspace, await self.run(run_id), reference, who.strip(), why.strip())

    async def unpause(self, run_id: str, who: str = "") -> None:
        """Let a run go on that a person paused, or whose canary a person has looked at. `pay` pays it then.

        The journal remembers `who` overruled a canary that did not pass.
        """
        await controls.unpause(await self.journal(), await self.run(run_id), who)

    # ------------------------------------------------------------------------------------------------------- looking

    async def run(self, run_id: str) -> Run:
        """Return a run by its id.

        Raises:
            ConfigError: there is no such run.
        """
        return await self._workspace.run(run_id)

    async def runs(self) -> Sequence[Run]:
        """Return all runs, newest first."""
        return await (await self.journal()).runs()

    async def tally(self, run_id: str) -> Sequence[Tally]:
        """Return counts and sums of a run by lane and state."""
        return await (await self.journal()).tally(run_id)

    async def forecast(self, run_id: str) -> Forecast:
        """Return what the payouts of a run that are still ready will need, with the balances as they are now."""
        return await submitting.forecast_of(self._workspace, await self.journal(), await self.run(run_id))

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


@asynccontextmanager
async def engine_over(workspace: Workspace) -> AsyncIterator[Engine]:
    """Open an engine over parts that were made elsewhere; `Engine.open` makes them from a configuration."""
    try:
        async with workspace.stack, anyio.create_task_group() as tasks:
            engine = Engine(workspace, tasks)
            try:
                yield engine
            finally:
                await engine._stop()
    except BaseExceptionGroup as group:
        raise unwrap_group(group) from None
