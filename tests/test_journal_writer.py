"""The journal's writers: shared commits, requests that fail alone, a full disk, cancelled callers, any loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
import uvloop
from simulation import virtual_time

from payout_engine.domain.errors import IllegalMoveError, JournalDamagedError, JournalError, JournalFullError
from payout_engine.domain.model import Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.journal.schema import connect
from payout_engine.journal.writer import Need, ThreadWriter, Writer
from payout_engine.testing.journal_lines import ORANGE, approved, chunk, every, inline, states


async def test_requests_that_wait_share_a_commit(tmp_path: Path) -> None:
    """A hundred intents handed in at once cost a few fsyncs, not a hundred; each is answered."""
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await approved(journal, "run", *(chunk([n]) for n in range(100)))
        before = journal.commits
        async with anyio.create_task_group() as tasks:
            for ready in await journal.ready("run", ORANGE, 0, 100):
                tasks.start_soon(journal.intend, ready)
        assert 1 <= journal.commits - before <= 20
        assert set((await states(journal, "run")).values()) == {State.SENDING}


async def test_a_failing_request_undoes_nothing_but_itself(tmp_path: Path) -> None:
    """In one shared commit every second request is illegal: it alone fails."""
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await approved(journal, "run", *(chunk([n, n + 1]) for n in range(0, 40, 2)))
        ready = await journal.ready("run", ORANGE, 0, 100)
        refusals = 0

        async def twice(number: int) -> None:
            nonlocal refusals
            try:
                await journal.intend(ready[number])
            except IllegalMoveError:
                refusals += 1

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(twice, number // 2)
        assert refusals == 20
        assert set((await states(journal, "run")).values()) == {State.SENDING}
        assert len(await journal.recover("run")) == 40


async def test_a_cancelled_caller_loses_nothing(tmp_path: Path) -> None:
    """Whoever stops waiting, by anyio's cancellation or the loop's own, finds the write done."""
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await approved(journal, "run", chunk([1]), chunk([2]))
        one, two = [await journal.intend(ready) for ready in await journal.ready("run", ORANGE, 0, 2)]
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.record(one, [Receipt(State.PAID)])
        task = asyncio.ensure_future(journal.record(two, [Receipt(State.FAILED)]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await states(journal, "run") == {1: State.PAID, 2: State.FAILED}


async def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    """Requests that were handed in before closing are carried out and answered."""
    path = tmp_path / "payouts.db"
    async with SqliteJournal.open(path) as journal, anyio.create_task_group() as tasks:
        await approved(journal, "run", *(chunk([n]) for n in range(50)))
        for ready in await journal.ready("run", ORANGE, 0, 50):
            tasks.start_soon(journal.intend, ready)
        await anyio.sleep(0)
        await journal.aclose()
    async with SqliteJournal.open(path) as journal:
        assert set((await states(journal, "run")).values()) == {State.SENDING}


async def test_a_lost_transaction_fails_every_request_in_it(tmp_path: Path) -> None:
    """When SQLite gives up the whole transaction, nobody in it is told that it succeeded."""
    path = tmp_path / "some.db"
    writer = ThreadWriter(path, lambda: apsw.Connection(str(path)), durable=True)
    await writer.start()
    await writer.run(lambda db: db.execute("CREATE TABLE t (n INTEGER UNIQUE)"), Need.DURABLE)
    failures: list[Exception] = []

    async def ask(statement: str) -> None:
        try:
            await writer.run(lambda db: db.execute(statement), Need.DURABLE)
        except Exception as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        for statement in (
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (2)",
            "INSERT OR ROLLBACK INTO t VALUES (1)",
        ):
            tasks.start_soon(ask, statement)
    count = await writer.run(lambda db: db.execute("SELECT count(*) FROM t").get, Need.READ)
    await writer.aclose()
    assert len(failures) == 3 - count


FULL_WAYS = {
    # The first cannot be undone alone, so SQLite gives up the whole transaction; the second can, and only it fails.
    "the whole transaction": "INSERT INTO t VALUES (zeroblob(100000))",
    "a statement": "INSERT INTO t SELECT zeroblob(100000) UNION ALL SELECT zeroblob(100000)",
}


async def one_group(writer: Writer, *requests: tuple[Callable[[apsw.Connection], Any], Need]) -> list[Any]:
    """Return what came of requests that share one transaction: the first that is carried out waits for all others."""
    go, results = threading.Event(), list[Any]([None] * len(requests))

    async def ask(place: int) -> None:
        try:
            results[place] = await writer.run(*requests[place])
        except Exception as error:
            results[place] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, lambda db: go.wait(), Need.READ)
        for place in range(len(requests)):
            tasks.start_soon(ask, place)
        await anyio.sleep(0.05)
        go.set()
    return results


@pytest.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator[Writer]:
    """Return the writer of a table with one row, on a disk with no room for another page of it."""
    path = tmp_path / "some.db"
    writer = ThreadWriter(path, lambda: apsw.Connection(str(path)), durable=True)
    await writer.start()
    for statement in ("CREATE TABLE t (n)", "INSERT INTO t VALUES (1)", "PRAGMA max_page_count = 1"):
        await writer.run(lambda db, statement=statement: db.execute(statement).get, Need.DURABLE)  # type: ignore[misc]
    yield writer
    await writer.aclose()


def insert(db: apsw.Connection) -> int:
    """Write a row."""
    db.execute("INSERT INTO t VALUES (2)")
    return db.changes()


def count(db: apsw.Connection) -> int:
    """Read how many rows there are."""
    return int(db.execute("SELECT count(*) FROM t").get)


async def test_a_full_disk_fails_the_writes_of_a_group_and_none_of_its_reads(small_disk: Writer) -> None:
    """Every write that shared the commit is told that it failed; every read is answered, and not from what failed."""
    fill = FULL_WAYS["the whole transaction"]
    before, wrote, during, full, after = await one_group(
        small_disk,
        (count, Need.READ),
        (insert, Need.DURABLE),
        (count, Need.READ),
        (lambda db: db.execute(fill), Need.WRITE),
        (count, Need.READ),
    )
    assert (before, during, after) == (1, 1, 1)
    assert isinstance(wrote, JournalFullError) and isinstance(full, JournalFullError)
    assert await small_disk.run(count, Need.READ) == 1


async def test_a_statement_for_which_there_is_no_room_fails_alone_where_it_can(small_disk: Writer) -> None:
    """A write that SQLite can undo by itself takes nobody with it."""
    fill = FULL_WAYS["a statement"]
    wrote, full, after = await one_group(
        small_disk, (insert, Need.DURABLE), (lambda db: db.execute(fill), Need.WRITE), (count, Need.READ)
    )
    assert (wrote, after) == (1, 2) and isinstance(full, JournalFullError)


async def test_a_read_that_fails_by_itself_fails_alone(small_disk: Writer) -> None:
    """Being carried out again does not make a wrong question right, nor spoil the others."""
    fill = FULL_WAYS["the whole transaction"]
    wrong, full, right = await one_group(
        small_disk,
        (lambda db: db.execute("SELECT * FROM nothing"), Need.READ),
        (lambda db: db.execute(fill), Need.WRITE),
        (count, Need.READ),
    )
    assert isinstance(wrong, Exception) and isinstance(full, JournalFullError) and right == 1


async def test_a_journal_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    """The error arrives where the journal was to be opened."""
    path = tmp_path / "payouts.db"
    path.write_bytes(b"x" * 5000)

    def opening() -> apsw.Connection:
        return connect(path, sandbox=False, scratch=False, earlier=None)

    writer = ThreadWriter(path, opening, durable=True)
    with pytest.raises(JournalDamagedError):
        await writer.start()
    writer._thread.join(timeout=5)
    assert not writer._thread.is_alive()


def test_it_works_under_uvloop(tmp_path: Path) -> None:
    """The same work under the other event loop."""

    async def main() -> int:
        async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
            await approved(journal, "run", *(chunk([n]) for n in range(10)))
            async with anyio.create_task_group() as tasks:
                for ready in await journal.ready("run", ORANGE, 0, 100):
                    tasks.start_soon(journal.intend, ready)
            return len(await every(journal.entries("run", frozenset({State.SENDING}))))

    assert uvloop.run(main()) == 10


# ------------------------------------------------------------------------------------------------ in the event loop


def test_the_same_requests_go_without_a_thread(tmp_path: Path) -> None:
    """In virtual time the first request is a group, and all that come while it commits are the next."""

    async def main() -> None:
        async with inline(tmp_path / "payouts.db", 5.0) as journal:
            await approved(journal, "run", *(chunk([n]) for n in range(30)))
            ready = await journal.ready("run", ORANGE, 0, 30)
            before, began_at = journal.commits, anyio.current_time()
            refusals = 0

            async def intend(number: int) -> None:
                nonlocal refusals
                try:
                    await journal.intend(ready[number // 2])
                except IllegalMoveError:
                    refusals += 1
                assert anyio.current_time() - began_at == pytest.approx(5.0 if number == 0 else 10.0, abs=0.01)

            async with anyio.create_task_group() as tasks:
                for number in range(60):
                    tasks.start_soon(intend, number)
            assert (journal.commits - before, refusals) == (2, 30)
            assert set((await states(journal, "run")).values()) == {State.SENDING}
            assert (await journal.verify("run")).proven
        with pytest.raises(JournalError, match="closed"):
            await journal.runs()

    threads = threading.active_count()
    virtual_time.run(main())
    assert threading.active_count() == threads


def test_closing_an_inline_writer_finishes_what_is_queued(tmp_path: Path) -> None:
    """What was handed in before closing is in the file, and answered."""

    async def main() -> None:
        async with inline(tmp_path / "payouts.db", 1.0) as journal:
            await approved(journal, "run", chunk([1]))
            (ready,) = await journal.ready("run", ORANGE, 0, 1)
            intent = asyncio.ensure_future(journal.intend(ready))
            await anyio.sleep(0.5)
        assert (await intent).chunk_id == ready.chunk_id
        async with inline(tmp_path / "payouts.db", 0.0) as journal:
            assert await states(journal, "run") == {1: State.SENDING}

    virtual_time.run(main())


def test_an_inline_writer_that_cannot_open_says_so(tmp_path: Path) -> None:
    """The error is the one that the thread would have brought."""

    async def main() -> None:
        (tmp_path / "payouts.db").write_bytes(b"x" * 5000)
        with pytest.raises(JournalDamagedError):
            async with inline(tmp_path / "payouts.db", 0.0):
                pass

    virtual_time.run(main())
