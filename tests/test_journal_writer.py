"""The journal's writers: shared commits, requests that fail alone, a full disk, cancelled callers, any loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
import uvloop
from simulation import virtual_time

from payout_engine.domain.errors import IllegalMoveError, JournalDamagedError, JournalError, JournalFullError
from payout_engine.domain.limits import JOURNAL_QUEUE_MAX
from payout_engine.domain.model import Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.journal.schema import connect
from payout_engine.journal.writer import InlineWriter, Need, ThreadWriter, Writer
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


async def test_who_gives_up_while_it_opens_leaves_no_thread(tmp_path: Path) -> None:
    """The loop's own cancellation breaks through; the thread ends once it has opened the file, and not before."""
    go = threading.Event()

    def opening() -> apsw.Connection:
        go.wait(10)
        return apsw.Connection(str(tmp_path / "some.db"))

    writer = ThreadWriter(tmp_path / "some.db", opening, durable=True)
    starting = asyncio.ensure_future(writer.start())
    await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert writer._thread.is_alive()
    go.set()
    writer._thread.join(timeout=5)
    assert not writer._thread.is_alive()


async def test_who_is_cancelled_while_closing_has_closed(tmp_path: Path) -> None:
    """What was queued is carried out, and the thread, for which an interpreter that ends would wait, is over."""
    path, done = tmp_path / "some.db", list[int]()
    writer = ThreadWriter(path, lambda: apsw.Connection(str(path)), durable=True)
    await writer.start()
    assert not writer._thread.daemon

    def work(db: apsw.Connection) -> None:
        time.sleep(0.1)
        done.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, work, Need.DURABLE)
        await anyio.sleep(0.01)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await writer.aclose()
        assert done == [1]
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


# --------------------------------------------------------------------------------------------------- either of them


@asynccontextmanager
async def opened(kind: type[Writer], path: Path, **options: Any) -> AsyncIterator[Writer]:
    """A writer of a file of its own, closed at the end."""
    made = kind(path, options.pop("connect", lambda: apsw.Connection(str(path))), **{"durable": True, **options})
    await made.start()
    try:
        yield made
    finally:
        await made.aclose()


BOTH = pytest.mark.parametrize("kind", [ThreadWriter, InlineWriter])


@BOTH
async def test_only_so_many_requests_wait_at_a_time(kind: type[Writer], tmp_path: Path) -> None:
    """However many callers there are: the others wait where they cost nothing. Each is answered all the same."""
    options: dict[str, Any] = {"commit_seconds": 0.01} if kind is InlineWriter else {}
    async with opened(kind, tmp_path / "some.db", **options) as writer:
        groups, go = Counter[int](), threading.Event()

        async def ask(number: int) -> None:
            def work(db: apsw.Connection) -> int:
                if number == 0 and kind is ThreadWriter:
                    go.wait(10)
                groups[writer.commits] += 1
                return number

            assert await writer.run(work, Need.DURABLE) == number

        async with anyio.create_task_group() as tasks:
            for number in range(3 * JOURNAL_QUEUE_MAX):
                tasks.start_soon(ask, number)
            await anyio.sleep(0.05)
            go.set()
        assert sum(groups.values()) == 3 * JOURNAL_QUEUE_MAX
        assert JOURNAL_QUEUE_MAX / 2 < max(groups.values()) <= JOURNAL_QUEUE_MAX


@BOTH
async def test_a_closed_writer_refuses_however_often_it_is_asked(kind: type[Writer], tmp_path: Path) -> None:
    """With the file's name, and nobody waits for ever; closing again is no fault."""
    async with opened(kind, tmp_path / "some.db") as writer:
        await writer.aclose()
        with anyio.fail_after(10):
            for _ in range(JOURNAL_QUEUE_MAX + 1):
                with pytest.raises(JournalError, match=r"some\.db is closed"):
                    await writer.run(lambda db: db.changes(), Need.READ)


@BOTH
async def test_what_has_to_survive_is_synced_and_nothing_else(kind: type[Writer], tmp_path: Path) -> None:
    """As often as it changes; a journal that is thrown away is never synced, and a read changes nothing."""
    for durable, expected in ((True, [0, 2, 2, 1, 1, 2, 2]), (False, [0] * 7)):
        path = tmp_path / f"{durable}.db"

        def unsynced(path: Path = path) -> apsw.Connection:
            connection = apsw.Connection(str(path))
            connection.execute("PRAGMA main.synchronous = OFF")
            return connection

        def level(db: apsw.Connection) -> int:
            return int(db.execute("PRAGMA main.synchronous").get)

        async with opened(kind, path, durable=durable, connect=unsynced) as writer:
            needs = (Need.READ, Need.DURABLE, Need.READ, Need.WRITE, Need.READ, Need.SPEAK, Need.READ)
            assert [await writer.run(level, need) for need in needs] == expected
            assert writer.commits == 3


@BOTH
async def test_a_read_needs_no_right_to_write(kind: type[Writer], tmp_path: Path) -> None:
    """While another process writes, reads are answered and a write is refused; later it goes through."""
    path = tmp_path / "some.db"
    async with opened(kind, path) as writer:
        await writer.run(lambda db: db.execute("CREATE TABLE t (n)"), Need.DURABLE)
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        assert await writer.run(count, Need.READ) == 0
        with pytest.raises(JournalError):
            await writer.run(insert, Need.DURABLE)
        other.execute("ROLLBACK")
        other.close()
        assert await writer.run(insert, Need.DURABLE) == 1


@BOTH
async def test_who_writes_has_the_right_from_the_beginning(kind: type[Writer], tmp_path: Path) -> None:
    """Nobody else writes between what a request reads and what it writes by it."""
    path = tmp_path / "some.db"

    def connecting() -> apsw.Connection:
        connection = apsw.Connection(str(path))
        connection.execute("PRAGMA journal_mode = WAL")  # As journals are; else a read alone would keep others out.
        return connection

    async with opened(kind, path, connect=connecting) as writer:
        await writer.run(lambda db: db.execute("CREATE TABLE t (n)"), Need.DURABLE)

        def work(db: apsw.Connection) -> int:
            before = count(db)
            other = apsw.Connection(str(path))
            with pytest.raises(apsw.BusyError):
                other.execute("INSERT INTO t VALUES (1)")
            other.close()
            insert(db)
            return count(db) - before

        assert await writer.run(work, Need.DURABLE) == 1


@BOTH
async def test_what_a_failing_request_wrote_is_undone(kind: type[Writer], tmp_path: Path) -> None:
    """It alone: who shares its commit keeps what was written, before it and after it."""
    options: dict[str, Any] = {"commit_seconds": 0.01} if kind is InlineWriter else {}
    async with opened(kind, tmp_path / "some.db", **options) as writer:
        await writer.run(lambda db: db.execute("CREATE TABLE t (n)"), Need.DURABLE)
        failures: list[Exception] = []

        def fail(db: apsw.Connection) -> None:
            insert(db)
            raise ValueError("after all not")

        async def ask(work: Callable[[apsw.Connection], object]) -> None:
            try:
                await writer.run(work, Need.DURABLE)
            except Exception as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, lambda db: time.sleep(0.05))
            for work in (insert, fail, insert, fail, fail, insert):
                tasks.start_soon(ask, work)
        assert await writer.run(count, Need.READ) == 3
        assert len(failures) == 3


@BOTH
async def test_what_cannot_be_committed_leaves_nothing_behind(kind: type[Writer], tmp_path: Path) -> None:
    """The transaction that stayed open is rolled back, so that the next one can begin."""
    async with opened(kind, tmp_path / "some.db") as writer:

        def prepare(db: apsw.Connection) -> None:
            db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            db.execute("CREATE TABLE child (n INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)")

        await writer.run(prepare, Need.DURABLE)
        await writer.run(lambda db: None, Need.READ)
        if isinstance(writer, InlineWriter):
            assert writer._connection is not None
            writer._connection.execute("PRAGMA foreign_keys = ON")
        else:
            await writer.run(
                lambda db: db.execute("COMMIT; PRAGMA foreign_keys = ON; BEGIN; SAVEPOINT request"), Need.READ
            )
        before = writer.commits
        with pytest.raises(Exception, match="FOREIGN KEY"):
            await writer.run(lambda db: db.execute("INSERT INTO child VALUES (7)"), Need.DURABLE)
        assert writer.commits == before
        assert await writer.run(lambda db: db.execute("SELECT count(*) FROM child").get, Need.READ) == 0
        assert await writer.run(lambda db: db.execute("INSERT INTO t VALUES (1)").get, Need.DURABLE) is None


@BOTH
async def test_reads_that_lost_their_transaction_have_failed(kind: type[Writer], tmp_path: Path) -> None:
    """They alone were in it, so they would only lose it again; and the error is the one that began it."""
    async with opened(kind, tmp_path / "some.db") as writer:
        tried: list[int] = []

        def lose(db: apsw.Connection) -> None:
            tried.append(1)
            db.execute("ROLLBACK")
            db.execute("SELECT * FROM nothing")

        with pytest.raises(Exception, match="nothing"):
            await writer.run(lose, Need.READ)
        assert tried == [1]
        assert await writer.run(lambda db: db.execute("SELECT 7").get, Need.READ) == 7


@BOTH
async def test_who_speaks_is_answered_after_what_has_to_be_done_first(kind: type[Writer], tmp_path: Path) -> None:
    """Called within the transaction of who is going to send, and finished after the commit; if that fails, only who
    was going to send is told so.
    """
    done: list[str] = []
    fails = False

    def speaking(db: apsw.Connection) -> Callable[[], None]:
        assert db.in_transaction
        done.append("within")

        def afterwards() -> None:
            assert not db.in_transaction
            done.append("after")
            if fails:
                raise ValueError("not marked")

        return afterwards

    async with opened(kind, tmp_path / "some.db", speaking=speaking) as writer:
        for need in (Need.READ, Need.WRITE, Need.DURABLE):
            assert await writer.run(lambda db: 1, need) == 1
        assert done == []
        assert await writer.run(lambda db: 2, Need.SPEAK) == 2
        assert done == ["within", "after"]
        fails = True
        with pytest.raises(ValueError, match="not marked"):
            await writer.run(lambda db: 3, Need.SPEAK)
        assert await writer.run(lambda db: 4, Need.DURABLE) == 4
        if kind is ThreadWriter:
            spoke, wrote = await one_group(writer, (lambda db: 5, Need.SPEAK), (lambda db: 6, Need.WRITE))
            assert isinstance(spoke, ValueError) and wrote == 6


@BOTH
async def test_a_connection_that_cannot_be_closed_is_told(kind: type[Writer], tmp_path: Path) -> None:
    """And the thread, if there is one, has ended."""

    class Stubborn(apsw.Connection):
        def close(self, force: bool = False) -> None:
            super().close(force)
            raise apsw.IOError("The disk is gone.")

    path = tmp_path / "some.db"
    writer = kind(path, lambda: Stubborn(str(path)), durable=True)
    await writer.start()
    assert await writer.run(lambda db: 1, Need.DURABLE) == 1
    with pytest.raises(JournalError, match="The disk is gone"):
        await writer.aclose()


async def test_what_takes_long_keeps_nobody_who_gave_up(tmp_path: Path) -> None:
    """It runs on in its thread; who no longer waits for it goes on."""
    go, done = threading.Event(), list[int]()

    def work(number: int) -> int:
        go.wait(10)
        done.append(number)
        return number

    async with opened(ThreadWriter, tmp_path / "some.db") as writer:
        with anyio.move_on_after(0.05):
            await writer.beside(work, 1)
        assert done == []
        go.set()
        assert await writer.beside(work, 2) == 2


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
    assert threading.active_count() <= threads


def test_closing_an_inline_writer_finishes_what_is_queued(tmp_path: Path) -> None:
    """What was handed in before closing is in the file, and answered."""

    async def main() -> None:
        async with inline(tmp_path / "payouts.db", 1.0) as journal:
            await approved(journal, "run", chunk([1]), chunk([2]))
            ready = await journal.ready("run", ORANGE, 0, 2)
            intents = [asyncio.ensure_future(journal.intend(one)) for one in ready]
            await anyio.sleep(0.5)
        assert [(await intent).chunk_id for intent in intents] == [one.chunk_id for one in ready]
        async with inline(tmp_path / "payouts.db", 0.0) as journal:
            assert await states(journal, "run") == {1: State.SENDING, 2: State.SENDING}

    virtual_time.run(main())


def test_an_inline_writer_that_cannot_open_says_so(tmp_path: Path) -> None:
    """The error is the one that the thread would have brought."""

    async def main() -> None:
        (tmp_path / "payouts.db").write_bytes(b"x" * 5000)
        with pytest.raises(JournalDamagedError):
            async with inline(tmp_path / "payouts.db", 0.0):
                pass

    virtual_time.run(main())
