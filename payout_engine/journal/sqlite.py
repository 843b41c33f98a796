"""The durable journal: one SQLite file, one writer, one commit for many requests.

`SqliteJournal` keeps every promise of `ports.Journal`. What each method does to the file is in the modules beside this
one; here is who waits for what. Opened by the engine; several processes may have one file open, and only the holder of
an account's lease sends for it.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import anyio
import apsw

from payout_engine.domain import clock
from payout_engine.domain.errors import Holder, JournalError
from payout_engine.domain.facts import Fact, RunFacts
from payout_engine.domain.limits import BLOCK_ROWS
from payout_engine.domain.model import (
    Chunk,
    ControlKind,
    ControlRequest,
    Decision,
    Dispatch,
    Duplicate,
    Entry,
    Lane,
    LookUpResult,
    Outcome,
    Problem,
    Query,
    Receipt,
    Run,
    Step,
    Tally,
)
from payout_engine.domain.proof import Audit
from payout_engine.domain.states import State
from payout_engine.journal import callbacks, dispatches, duplicates, facts, log, lookups, reads, requests, resends, runs
from payout_engine.journal.decisions import decide
from payout_engine.journal.file_locks import lease
from payout_engine.journal.schema import connect
from payout_engine.journal.transitions import run_no
from payout_engine.journal.verify import digest_file, verify_file
from payout_engine.journal.writer import Need, ThreadWriter, Work, Writer
from payout_engine.ports.callbacks import Heard
from payout_engine.ports.journal import Mark, OnWire, Ready, ReadyChunk, Reconciled, StoredCallback
from payout_engine.ports.provider import Traits

T = TypeVar("T")

Remember = Callable[[Mark], Mark | None]
"""Keeps a mark of a journal apart from it, and returns the one it keeps instead because that is further, if any."""


class SqliteJournal:
    """The journal in a file; see `ports.Journal` for what each method promises. Made by `SqliteJournal.open`."""

    def __init__(self, path: Path, writer: Writer) -> None:
        self.path = path
        self._real = path.resolve()
        self._opened = self._real.stat()
        self._writer = writer
        # One search at a time: they share the temporary tables.
        self._searching = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        scratch_of: Path | None = None,
        sandbox: bool = False,
        writer: Callable[..., Writer] = ThreadWriter,
        remember: Remember | None = None,
    ) -> AsyncIterator[SqliteJournal]:
        """Open a journal, making it if there is none, and close it at the end.

        Args:
            path: the file. It is made readable by its owner alone.
            scratch_of: makes this a throw-away journal that validates as if it were that one: repeats are compared with
                the runs of `scratch_of`, if it exists, and nothing is written to it. A scratch journal is not durable.
            sandbox: whether it is for a sandbox's payouts; a journal keeps the kind it was made as.
            writer: makes what carries requests out; `InlineWriter` where time is virtual.
            remember: given the end of the log, after each commit that promises to send, and before anything is sent. If
                it raises, or keeps the end of another copy's log, nothing is.

        Raises:
            JournalDamagedError: the file is not a journal.
            JournalNewerError: a newer version of payout_engine wrote it.
            JournalFullError: it cannot be written.
            JournalError: it is of the other kind (sandbox or not), or cannot be used for another reason.
        """
        earlier = scratch_of if scratch_of is not None and scratch_of.exists() else None
        scratch = scratch_of is not None
        opening = partial(connect, path, sandbox=sandbox, scratch=scratch, earlier=earlier)
        speaking = partial(_remembering, path, remember) if remember is not None else None
        made = writer(path, opening, durable=not scratch, speaking=speaking)
        await made.start()
        journal = cls(path, made)
        try:
            yield journal
        finally:
            await journal.aclose()

    @property
    def commits(self) -> int:
        """How many transactions have written something; fewer than requests when requests shared them."""
        return self._writer.commits

    async def _read(self, work: Work[T]) -> T:
        return await self._writer.run(work, Need.READ)

    # ------------------------------------------------------------------------------------------------------- intake

    async def begin(self, run: Run) -> None:
        await self._writer.run(lambda db: runs.begin(db, run), Need.WRITE)

    async def add(self, run_id: str, chunks: Sequence[Chunk]) -> None:
        await self._writer.run(lambda db: runs.add(db, run_id, chunks), Need.WRITE)

    async def duplicates(self, run_id: str) -> AsyncIterator[Sequence[Duplicate]]:
        async with self._searching:
            search = await self._read(lambda db: duplicates.begin(db, run_id))
            if search is None:
                return
            seen: tuple[int, int, int] | None = (0, 0, 0)
            while seen is not None:
                seen = await self._read(partial(duplicates.compare, search=search, after=seen))
            await self._read(lambda db: duplicates.conclude(db, search))
        after = (0, "", 0)
        while True:
            found, after = await self._read(partial(duplicates.page, search=search, after=after))
            if not found:
                return
            yield found

    async def former_accounts(self, run_id: str) -> Sequence[str]:
        return await self._read(lambda db: duplicates.former_accounts(db, run_id))

    async def former_queries(
        self, run_id: str, account: str, limit: int, after: int = 0
    ) -> tuple[Sequence[Query], int]:
        return await self._read(lambda db: duplicates.former_queries(db, run_id, account, limit, after))

    async def hold(self, run_id: str, reasons: Mapping[int, Problem]) -> None:
        await self._writer.run(lambda db: runs.hold(db, run_id, reasons), Need.DURABLE)

    async def seal(self, run_id: str) -> None:
        await self._writer.run(lambda db: runs.seal(db, run_id), Need.DURABLE)

    async def discard(self, run_id: str) -> None:
        await self._writer.run(lambda db: runs.discard(db, run_id), Need.WRITE)

    async def approve(self, run_id: str) -> bool:
        return await self._writer.run(lambda db: runs.approve(db, run_id), Need.DURABLE)

    # ------------------------------------------------------------------------------------------------------ payment

    async def recover(self, run_id: str) -> Sequence[Outcome]:
        return await self._writer.run(lambda db: dispatches.recover(db, run_id), Need.DURABLE)

    async def ready(self, run_id: str, lane: Lane, after: int, limit: int) -> Sequence[ReadyChunk]:
        return await self._read(lambda db: dispatches.ready(db, run_id, lane, after, limit))

    async def ready_amounts(
        self, run_id: str, lane: Lane, after: int, limit: int
    ) -> Sequence[tuple[int, Sequence[int]]]:
        return await self._read(lambda db: dispatches.ready_amounts(db, run_id, lane, after, limit))

    async def intend(self, chunk: ReadyChunk) -> Dispatch:
        self._require_named()
        return await self._writer.run(lambda db: dispatches.intend(db, chunk), Need.SPEAK)

    async def record(
        self, dispatch: Dispatch, receipts: Sequence[Receipt], *, on_wire: OnWire = True
    ) -> Sequence[Outcome]:
        work = partial(dispatches.record, dispatch=dispatch, receipts=receipts, on_wire=on_wire)
        return await self._writer.run(work, Need.DURABLE)

    async def resendable_chunks(
        self, run_id: str, lane: Lane, traits: Traits, before: float, after: int, limit: int
    ) -> Sequence[ReadyChunk]:
        found = partial(resends.resendable_chunks, run_id=run_id, lane=lane, traits=traits, before=before, after=after)
        return await self._read(lambda db: list(islice(found(db), limit)))

    async def intend_resend(self, chunk: ReadyChunk, traits: Traits) -> Dispatch:
        self._require_named()
        return await self._writer.run(lambda db: resends.intend_resend(db, chunk, traits), Need.SPEAK)

    async def reconcile(self, results: Sequence[LookUpResult]) -> Reconciled:
        return await self._writer.run(lambda db: lookups.reconcile(db, results), Need.DURABLE)

    async def open_queries(
        self, run_id: str, account: str, limit: int, after: int = 0, *, ready: Ready | None = None
    ) -> tuple[Sequence[Query], int]:
        return await self._read(lambda db: dispatches.open_queries(db, run_id, account, limit, after, ready=ready))

    async def open_since(self, run_id: str, account: str) -> float | None:
        return await self._read(lambda db: dispatches.open_since(db, run_id, account))

    async def paid_queries(self, run_id: str, account: str, limit: int, after: int = 0) -> tuple[Sequence[Query], int]:
        return await self._read(lambda db: reads.paid_queries(db, run_id, account, limit, after))

    async def may_be_sent_since(self, run_id: str) -> float | None:
        return await self._read(lambda db: dispatches.may_be_sent_since(db, run_id))

    async def finish(self, run_id: str) -> None:
        await self._writer.run(lambda db: dispatches.finish(db, run_id), Need.DURABLE)

    # ---------------------------------------------------------------------------------------------------- callbacks

    async def store_callback(self, account: str, digest: bytes, heard: Heard) -> bool:
        return await self._writer.run(lambda db: callbacks.store(db, account, digest, heard), Need.DURABLE)

    async def stored_callbacks(self, account: str, limit: int, after: int = 0) -> tuple[Sequence[StoredCallback], int]:
        return await self._read(lambda db: callbacks.stored(db, account, limit, after))

    async def queries(self, account: str, keys: Sequence[str]) -> Sequence[Query]:
        return await self._read(lambda db: callbacks.queries(db, account, keys))

    async def settle_callbacks(self, numbers: Sequence[int]) -> None:
        await self._writer.run(lambda db: callbacks.settle(db, numbers), Need.WRITE)

    async def count_callbacks(self, account: str, limit: int) -> int:
        return await self._read(lambda db: callbacks.count(db, account, limit))

    # ------------------------------------------------------------------------------------------------------- people

    async def runs(self) -> Sequence[Run]:
        return await self._read(reads.runs)

    async def find(self, run_id: str) -> Run | None:
        return await self._read(lambda db: reads.find(db, run_id))

    async def find_digest(self, digest: str) -> Run | None:
        return await self._read(lambda db: reads.find_digest(db, digest))

    async def tally(self, run_id: str) -> Sequence[Tally]:
        totals, after = reads.Totals(), 0
        while after := await self._read(partial(reads.tally, run_id=run_id, after=after, totals=totals)):
            pass
        return totals.tallies()

    async def entries(self, run_id: str, states: frozenset[State] | None = None) -> AsyncIterator[Sequence[Entry]]:
        waiting: list[Entry] = []
        cursor, going_on = reads.START, True
        while going_on:
            page = await self._read(partial(reads.entries, run_id=run_id, states=states, cursor=cursor))
            waiting += page.entries
            # Sorting keeps the order of equal lines; chunks arrive in the order of their first lines.
            waiting.sort(key=_line)
            cursor, going_on = page.cursor, page.before is not None
            done = len(waiting) if page.before is None else bisect_left(waiting, page.before, key=_line)
            for start in range(0, done, BLOCK_ROWS):
                yield waiting[start : min(start + BLOCK_ROWS, done)]
            del waiting[:done]

    async def request(self, run_id: str, request: ControlRequest) -> None:
        await self._writer.run(lambda db: requests.ask(db, run_id, request), Need.DURABLE)

    async def requests(self, run_id: str) -> Sequence[ControlRequest]:
        return await self._read(lambda db: requests.requests(db, run_id))

    async def acknowledge(self, run_id: str, kind: ControlKind, done: bool) -> None:
        await self._writer.run(lambda db: requests.answer(db, run_id, kind, done), Need.DURABLE)

    async def cancel(
        self, run_id: str, request: ControlRequest, after: int, limit: int
    ) -> tuple[Sequence[Outcome], int]:
        return await self._writer.run(lambda db: requests.cancel(db, run_id, request, after, limit), Need.DURABLE)

    async def decide(self, run_id: str, decisions: Sequence[Decision]) -> Sequence[Outcome]:
        return await self._writer.run(lambda db: decide(db, run_id, decisions), Need.DURABLE)

    async def trace(self, run_id: str, keys: Collection[str]) -> Mapping[str, Sequence[Step]]:
        wanted = await self._read(lambda db: reads.places(db, run_id, keys))
        found: reads.Traces = {}
        chunks = reads.by_chunk(wanted.values())
        after = 0
        while after := await self._read(partial(reads.trace, run_id=run_id, wanted=chunks, after=after, found=found)):
            pass
        return {key: found.get(place, []) for key, place in wanted.items()}

    async def digest(self, run_id: str) -> str:
        return await self._writer.beside(digest_file, self.path, run_id)

    async def verify(self, run_id: str, kept: str = "") -> Audit:
        return await self._writer.beside(verify_file, self.path, run_id, kept)

    async def mark(self, seq: int | None = None) -> Mark | None:
        return await self._read(lambda db: log.mark(db, seq))

    async def note(self, run_id: str, kind: str, text: str) -> None:
        await self._writer.run(lambda db: log.note(db, clock.now(), run_no(db, run_id), kind, text), Need.DURABLE)

    async def add_fact(self, run_id: str, fact: Fact) -> None:
        await self._writer.run(lambda db: facts.add(db, run_id, fact), Need.DURABLE)

    async def facts(self, run_id: str) -> RunFacts:
        return await self._read(lambda db: facts.facts(db, run_id))

    async def notes(self, run_id: str) -> Sequence[tuple[float, str, str]]:
        return await self._read(lambda db: reads.notes(db, run_id))

    async def outcomes(self, run_id: str, after: int = 0) -> AsyncIterator[tuple[int, Sequence[Outcome]]]:
        while True:
            page = await self._read(partial(reads.outcomes, run_id=run_id, after=after))
            for seq, found in page:
                yield seq, found
                after = seq
            if len(page) < reads.LOG_PAGE:
                return

    @asynccontextmanager
    async def lease(self, name: str, holder: Holder) -> AsyncIterator[None]:
        with lease(self.path, name, holder):
            self._require_named()
            yield

    def _require_named(self) -> None:
        """Refuse to promise anything in a file that nobody would find again.

        Raises:
            JournalError: the file is no longer the one of its name.
        """
        try:
            named = os.path.samestat(self._opened, self._real.stat())
        except OSError:
            named = False
        if not named:
            raise JournalError(
                f"The journal {self.path} was moved, deleted or replaced while it was in use, so nothing more is sent. "
                "Put it back first, with all files beside it: without it nobody knows what was sent."
            )

    async def aclose(self) -> None:
        await self._writer.aclose()


_line = attrgetter("payout.line")


def _remembering(path: Path, remember: Remember, db: apsw.Connection) -> Callable[[], None]:
    """Look how far the log has come, to be kept once that is on the disk."""
    # Looked up before the commit: what another process writes after it may not be on the disk yet.
    mark = log.mark(db)
    assert mark is not None

    def keep() -> None:
        further = remember(mark)
        if further is not None and log.mark(db, further.seq) != further:
            raise JournalError(
                f"Another copy of the journal {path} has gone on meanwhile, and sends. Nothing more is sent from this "
                "one, which does not know what the other does."
            )

    return keep
