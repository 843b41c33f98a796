"""Judging a payout file: what an engine does before anything is sent. `plan` looks, `submit` and `retry` record.

Only one process at a time begins a given content: whoever comes second waits, and then finds the run of the first.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import msgspec

from payout_engine.app.accounts import Accounts
from payout_engine.app.controls import Steered, Withdrawal, over_limits, refuse
from payout_engine.app.locks import holder, leases, require_same_keys, wait_for_lock
from payout_engine.app.other_journals import require_newest
from payout_engine.app.remembered import Remembered
from payout_engine.app.retry import ask_providers, retry_source
from payout_engine.app.settings import Settings
from payout_engine.app.submission import Submission
from payout_engine.domain.errors import ConfigError, InputError, LimitError
from payout_engine.domain.model import Payout, Run, RunState
from payout_engine.domain.states import UNPAID, State
from payout_engine.intake.forecast import Forecast, forecast
from payout_engine.intake.intake import intake, prepare
from payout_engine.journal import SqliteJournal
from payout_engine.ports import observer
from payout_engine.ports.files import Source
from payout_engine.ports.journal import Journal
from payout_engine.results.files import write_refused
from payout_engine.sinks import open_sink
from payout_engine.sources import open_source, payouts_source

Payouts = Iterable[Payout] | AsyncIterable[Payout]


class Judging(Steered):
    """The verbs that judge, for an engine that has a journal and accounts."""

    def __init__(self, settings: Settings, accounts: Accounts, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.accounts = accounts
        self.memory = Remembered()
        self._stack = stack
        stack.callback(self.memory.close)
        self._beginnings: dict[str, AsyncExitStack] = {}
        stack.push_async_callback(self._end_beginnings)

    async def plan(
        self,
        payouts: Path | str | Source | Payouts,
        *,
        name: str = "payouts",
        sheet: str | None = None,
        out: Path | None = None,
        watch: observer.Observer | None = None,
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
        watch: observer.Observer | None = None,
        wait: bool = False,
    ) -> Submission:
        """Judge a whole file (or iterable) and record it as a run; send nothing.

        Args:
            payouts: a path, `-` for standard input, an open source, or an iterable or async iterable of `Payout`.
            name: what to call an iterable.
            sheet: which sheet of a workbook; None means the only one with data.
            watch: told of progress.
            wait: while another process is judging the same content, wait until it has begun to pay, or given up.

        Returns:
            The run, ready for `pay`. The same content gives the run that it began, whatever the file is called now.

        Raises:
            InputError: it cannot be used as a payout file; nothing was recorded.
            LimitError: the money limits forbid it; nothing was recorded.
            JournalBusyError: another process is judging the same content, and `wait` is false.
        """
        source = await self._source(payouts, name, sheet)
        known = await self._known(source)
        if known is not None:
            return Submission(known)
        async with AsyncExitStack() as beginning:
            if source.digest:
                await self._begin(beginning, _content(source.digest), source.name, watch, wait)
                known = await self._known(source)
                if known is not None:
                    return Submission(known)
            journal = await self.journal()
            await self._clear(journal, lambda left: bool(source.digest) and left.digest == source.digest)
            submission = await self._within_limits(await self._judge(source, journal, watch))
            if source.digest:
                self._beginnings[_content(source.digest)] = beginning.pop_all()
        return submission

    async def retry(
        self,
        run_id: str,
        *,
        watch: observer.Observer | None = None,
        wait: bool = False,
        key_renewed: bool = False,
        journal_lost: bool = False,
    ) -> Submission:
        """Judge the provably unpaid lines of a run again, by today's rules, and record them as a new run; send nothing.

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
        journal, run = await self.journal(), await self.run(run_id)
        if not journal_lost:
            await self._require_newest()
        async with AsyncExitStack() as beginning:
            await self._begin(beginning, _retry(run_id), run.name, watch, wait)
            await self._clear(journal, lambda left: left.retry_of == run_id)
            await self._look_first(journal, run, watch, wait, key_renewed=key_renewed)
            source = await retry_source(journal, run)
            try:
                submission = await self._judge(source, journal, watch, mapping=source.mapping, retry_of=run_id)
            except InputError:
                if source.lines:
                    raise
                later = "".join(f" Run {name} has paid {count} of them." for name, count in source.left_out.items())
                raise ConfigError(f"No line of run {run_id} is failed or cancelled and still unpaid.{later}") from None
            submission = await self._within_limits(msgspec.structs.replace(submission, left_out=source.left_out))
            self._beginnings[_retry(run_id)] = beginning.pop_all()
        return submission

    async def cancel(self, run_id: str, who: str, why: str = "") -> Withdrawal:
        """Withdraw what was never sent of a run; what was sent is followed to its end as usual. From any process.

        Raises:
            ConfigError: there is no such run, or it was never approved; or this journal is an older copy, which does
                not know what was sent.
        """
        await self._require_newest()
        return await super().cancel(run_id, who, why)

    async def _require_newest(self) -> None:
        if not self.accounts.sandbox:
            await require_newest(self.memory, await self.journal(), self.settings.journal)

    async def _begin(
        self, held: AsyncExitStack, right: str, name: str, watch: observer.Observer | None, wait: bool
    ) -> None:
        """Hold the right to begin a content, from before it is validated until its run is approved or given up.

        Raises:
            JournalBusyError: another process holds it, and `wait` is false.
        """
        await self._let_go(right)  # An earlier submission of our own is replaced by this one.
        journal, path = await self.journal(), self.settings.journal
        enter = partial(self._enter, held, journal, right, name)
        await (wait_for_lock(enter, journal, path, observer.safe(watch)) if wait else enter())

    async def _enter(self, held: AsyncExitStack, journal: Journal, right: str, name: str) -> None:
        await held.enter_async_context(journal.lease(right, holder("judging", self.settings.journal, name=name)))

    async def begun(self, run: Run) -> None:
        """Let others see a content that was approved, or given up."""
        await self._let_go(_retry(run.retry_of) if run.retry_of else _content(run.digest))

    async def _let_go(self, right: str) -> None:
        if right in self._beginnings:
            await self._beginnings.pop(right).aclose()

    async def _end_beginnings(self) -> None:
        for right in list(self._beginnings):
            await self._let_go(right)

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

    async def _look_first(
        self, journal: Journal, run: Run, watch: observer.Observer | None, wait: bool, *, key_renewed: bool
    ) -> None:
        """Ask the providers what they have of a run, with its leases held: two look-ups at once would cross.

        Raises:
            UnansweredError: one could not say.
            JournalBusyError: another process pays from one of the accounts, and `wait` is false.
        """
        path = self.settings.journal
        async with AsyncExitStack() as held:

            async def enter() -> Sequence[str]:
                return await held.enter_async_context(leases(journal, run, holder("looking after", path, run)))

            names = await (wait_for_lock(enter, journal, path, observer.safe(watch)) if wait else enter())
            for name in names:
                await self.accounts.connect(name)
            if not self.accounts.sandbox:
                await require_same_keys(journal, run, self.accounts.keys, names, renewed=key_renewed)
            await ask_providers(journal, run, self.accounts, observer.safe(watch))

    async def _clear(self, journal: Journal, is_left: Callable[[Run], bool]) -> None:
        """Throw away what an earlier submission left behind without anybody's yes."""
        for run in await journal.runs():
            if run.approved_at is None and is_left(run):
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
        watch: observer.Observer | None,
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
        findings = await intake(source, journal, run, judge, on_progress=observer.safe(watch))
        coming = await self._forecast(journal, run.run_id)
        return Submission(await journal.find(run.run_id) or run, findings, coming)

    async def _forecast(self, journal: Journal, run_id: str) -> Forecast:
        balances = await self.accounts.balances({tally.lane for tally in await journal.tally(run_id)})
        return await forecast(journal, run_id, self.accounts.router, balances.found, balances.problems)


def _content(digest: str) -> str:
    """Name the right to begin a content."""
    return f"file {digest[:16]}"


def _retry(run_id: str) -> str:
    """Name the right to begin a retry."""
    return f"retry {run_id}"
