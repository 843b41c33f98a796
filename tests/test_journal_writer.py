"""The journal's thread: shared commits, requests that fail alone, callers that are cancelled, either event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import apsw
import pytest
import uvloop

from payout_engine.errors import IllegalMoveError, JournalDamagedError
from payout_engine.journal import SqliteJournal
from payout_engine.journal.schema import connect
from payout_engine.journal.writer import Need, Writer
from payout_engine.lifecycle import State
from payout_engine.model import Receipt
from payout_engine.testing.journal_lines import ORANGE, approved, chunk, every, states


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
    writer = Writer(path, lambda: apsw.Connection(str(path)), durable=True)
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


async def test_a_journal_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    """The error arrives where the journal was to be opened."""
    path = tmp_path / "payouts.db"
    path.write_bytes(b"x" * 5000)

    def opening() -> apsw.Connection:
        return connect(path, sandbox=False, scratch=False, earlier=None)

    writer = Writer(path, opening, durable=True)
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
