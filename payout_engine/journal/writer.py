"""The journal's thread: one connection, one thread, and many requests in one commit.

Callers hand in a function that gets the connection. The thread takes every request that waits, runs each inside a
savepoint of one transaction, commits once, and answers all of them with one call into the event loop; so the price of
an fsync is shared and a failing request undoes nothing but itself. A request that was handed in is carried out even
if its caller is cancelled. `SqliteJournal` is the only user.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

import anyio
import apsw

from payout_engine.errors import JournalError
from payout_engine.journal.faults import fault
from payout_engine.limits import JOURNAL_QUEUE_MAX

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]


class Need(IntEnum):
    """What a request asks of the transaction it runs in."""

    READ = 0  # changes nothing but temporary tables
    WRITE = 1  # may be lost with the power, in order, as long as nothing durable follows it
    DURABLE = 2  # survives the loss of power once it is answered
    SPEAK = 3  # likewise, and whoever is answered then sends: see `speaking`


class _Request(NamedTuple):
    work: Work[Any]
    need: Need
    future: asyncio.Future[Any]


class _Answer(NamedTuple):
    future: asyncio.Future[Any]
    result: Any
    error: Exception | None


class _LostError(Exception):
    """SQLite rolled the whole transaction back by itself, so every request of the group has failed."""


class Writer:
    """Runs functions against one connection, in order, in its own thread.

    Attributes:
        commits: how many transactions were committed that had something to write.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], apsw.Connection],
        *,
        durable: bool,
        speaking: Callable[[apsw.Connection], Callable[[], None]] | None = None,
    ) -> None:
        """Prepare a writer; `start` starts it.

        Args:
            path: the journal's file, for messages.
            connect: opens the connection, in the writer's thread.
            durable: False for a throw-away journal, which is never synced.
            speaking: called in the thread at the end of a transaction after which something is sent. What it returns is
                called after the commit; if that raises, who was going to send is told so instead.
        """
        self.commits = 0
        self._speaking = speaking
        self._path = path
        self._connect = connect
        self._durable = durable
        self._synced: bool | None = None
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._slots = anyio.Semaphore(JOURNAL_QUEUE_MAX, fast_acquire=True)
        self._loop = asyncio.get_running_loop()
        # Not a daemon: a daemon thread could be stopped by the interpreter's end in the middle of a commit.
        self._thread = threading.Thread(target=self._serve, name="payout-engine-journal", daemon=False)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._closing = False

    async def start(self) -> None:
        """Start the thread and open the connection.

        Raises:
            JournalError: the connection cannot be opened; the thread has ended.
        """
        self._thread.start()
        with anyio.CancelScope(shield=True):
            try:
                await self._opened
            except BaseException:
                self._queue.put(None)
                raise

    async def run(self, work: Work[T], need: Need) -> T:
        """Run `work` in the thread and return its result, once it is as durable as it needs to be."""
        # The shield keeps a cancelled caller here until its answer is known. A cancellation that does not come from
        # anyio breaks through; the request is carried out all the same, and its answer falls on the floor.
        future: asyncio.Future[T] = self._loop.create_future()
        with anyio.CancelScope(shield=True):
            await self._slots.acquire()
            if self._closing:
                self._slots.release()
                raise JournalError(f"The journal {self._path} is closed.")
            self._queue.put(_Request(work, need, future))
            await future
        return future.result()

    async def aclose(self) -> None:
        """Carry out what is queued, then close the connection and end the thread."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await asyncio.shield(self._closed)
        self._thread.join()

    # ------------------------------------------------------------------------------------------------- in the thread

    def _serve(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:
            self._tell(_fail, self._opened, fault(error, self._path))
            return
        self._tell(_succeed, self._opened)
        try:
            going_on = True
            while going_on:
                group, going_on = self._take()
                if group:
                    self._tell(self._resolve, self._carry_out(connection, group))
        finally:
            self._close(connection)

    def _close(self, connection: apsw.Connection) -> None:
        try:
            connection.close()
        except apsw.Error as error:
            self._tell(_fail, self._closed, fault(error, self._path))
        else:
            self._tell(_succeed, self._closed)

    def _take(self) -> tuple[list[_Request], bool]:
        """Wait for a request and return it with all others that wait; False when the writer is to end."""
        group: list[_Request] = []
        request = self._queue.get()
        while request is not None:
            group.append(request)
            try:
                request = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False

    def _carry_out(self, connection: apsw.Connection, group: list[_Request]) -> list[_Answer]:
        need = max(request.need for request in group)
        try:
            self._begin(connection, need)
            answers = [self._attempt(connection, request) for request in group]
            spoken = self._speaking(connection) if self._speaking is not None and need is Need.SPEAK else None
            connection.execute("COMMIT")
        except Exception as error:
            cause = error.__cause__ if isinstance(error, _LostError) else error
            assert isinstance(cause, Exception)
            _roll_back(connection)
            return [_Answer(request.future, None, fault(cause, self._path)) for request in group]
        self.commits += need is not Need.READ
        try:
            if spoken is not None:
                spoken()
        except Exception as error:
            mute = [_Answer(request.future, None, error) for request in group]
            return [
                unsaid if request.need is Need.SPEAK else answer
                for request, answer, unsaid in zip(group, answers, mute, strict=True)
            ]
        return answers

    def _begin(self, connection: apsw.Connection, need: Need) -> None:
        """Begin a transaction that will be synced if anybody in it needs that.

        A commit that is not synced waits in the write-ahead log, in order; the next synced one makes it durable too.
        """
        synced = need >= Need.DURABLE and self._durable
        if need is not Need.READ and self._durable and synced is not self._synced:
            connection.execute("PRAGMA main.synchronous = FULL" if synced else "PRAGMA main.synchronous = NORMAL")
            self._synced = synced
        connection.execute("BEGIN" if need is Need.READ else "BEGIN IMMEDIATE")

    def _attempt(self, connection: apsw.Connection, request: _Request) -> _Answer:
        connection.execute("SAVEPOINT request")
        try:
            result = request.work(connection)
        except Exception as error:
            if not connection.in_transaction:
                raise _LostError from error
            connection.execute("ROLLBACK TO request")
            connection.execute("RELEASE request")
            return _Answer(request.future, None, fault(error, self._path))
        connection.execute("RELEASE request")
        return _Answer(request.future, result, None)

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed, so nobody waits any more. What was asked for has been done.
            self._closing = True

    # --------------------------------------------------------------------------------------------------- in the loop

    def _resolve(self, answers: list[_Answer]) -> None:
        for future, result, error in answers:
            self._slots.release()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _roll_back(connection: apsw.Connection) -> None:
    """End a failed transaction. If even that fails, the next one cannot begin and says so to its callers."""
    if connection.in_transaction:
        with suppress(apsw.Error):
            connection.execute("ROLLBACK")


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
