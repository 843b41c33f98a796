"""The journal's writer: one connection, and many requests in one commit.

Callers hand in a function that gets the connection. The writer takes every request that waits, runs them in one
transaction, each inside a savepoint unless it is alone, commits once, and answers all of them with one call into the
event loop; so the price of an fsync is shared and a failing request undoes nothing but itself. A request that was handed in is carried out even
if its caller is cancelled. `SqliteJournal` is the only user.

`ThreadWriter` does so in a thread of its own. `InlineWriter` does the same in the event loop, for worlds whose time is
virtual: the same groups, transactions and answers, and only the fsync is a timer.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

import anyio
import anyio.to_thread
import apsw

from payout_engine.domain.errors import JournalError
from payout_engine.domain.limits import JOURNAL_QUEUE_MAX
from payout_engine.journal.sqlite_errors import fault

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]


Speaking = Callable[[apsw.Connection], Callable[[], None]]
"""Called within a transaction after which something is sent; what it returns is called after the commit."""


class Need(IntEnum):
    """What a request asks of the transaction it runs in."""

    READ = 0  # changes nothing but temporary tables
    WRITE = 1  # may be lost with the power, in order, as long as nothing durable follows it
    DURABLE = 2  # survives the loss of power once it is answered
    SPEAK = 3  # likewise, and whoever is answered then sends: see `speaking`


class Job(NamedTuple):
    """A request: what to do, and who waits for it."""

    work: Work[Any]
    need: Need
    future: asyncio.Future[Any]


class JobResult(NamedTuple):
    """What came of a request."""

    job: Job
    result: Any
    error: Exception | None


class _LostError(Exception):
    """SQLite rolled the whole transaction back by itself, so every request of the group has failed."""


class Writer(ABC):
    """Runs functions against one connection, in order, in shared transactions. Where and when is for the subclasses.

    Attributes:
        commits: how many transactions were committed that had something to write.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], apsw.Connection],
        *,
        durable: bool,
        speaking: Speaking | None = None,
    ) -> None:
        """Prepare a writer; `start` starts it.

        Args:
            path: the journal's file, for messages.
            connect: opens the connection, where it will be used.
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
        self._slots = anyio.Semaphore(JOURNAL_QUEUE_MAX, fast_acquire=True)
        self._loop = asyncio.get_running_loop()
        self._closing = False

    @abstractmethod
    async def start(self) -> None:
        """Open the connection.

        Raises:
            JournalError: it cannot be opened; nothing is left of the writer.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Carry out what is queued, then close the connection."""

    @abstractmethod
    async def beside(self, work: Callable[..., T], *arguments: object) -> T:
        """Run something that takes long and has a connection of its own, where it keeps nobody waiting."""

    @abstractmethod
    def _put(self, job: Job) -> None:
        """Queue a request."""

    @abstractmethod
    def _answer(self, answers: list[JobResult]) -> None:
        """Let those who wait for these answers know."""

    async def run(self, work: Work[T], need: Need) -> T:
        """Run `work` on the connection and return its result, once it is as durable as it needs to be."""
        # The shield keeps a cancelled caller here until its answer is known. A cancellation that does not come from
        # anyio breaks through; the request is carried out all the same, and its answer falls on the floor.
        future: asyncio.Future[T] = self._loop.create_future()
        with anyio.CancelScope(shield=True):
            await self._slots.acquire()
            if self._closing:
                self._slots.release()
                raise JournalError(f"The journal {self._path} is closed.")
            self._put(Job(work, need, future))
            await future
        return future.result()

    # -------------------------------------------------------------------------------------------------- a transaction

    def _carry_out(self, connection: apsw.Connection, group: list[Job]) -> None:
        """Run a group in one transaction, and answer it once that is over."""
        need = max(job.need for job in group)
        try:
            self._begin(connection, need)
            attempt = self._attempt if len(group) == 1 else self._attempt_apart
            answers = [attempt(connection, job) for job in group]
            spoken = self._speaking(connection) if self._speaking is not None and need is Need.SPEAK else None
            connection.execute("COMMIT")
        except Exception as error:
            cause = error.__cause__ if isinstance(error, _LostError) else error
            assert isinstance(cause, Exception)
            _roll_back(connection)
            self._fail(connection, group, fault(cause, self._path))
            return
        self.commits += need is not Need.READ
        self._answer(self._spoken(answers, spoken))

    def _spoken(self, answers: list[JobResult], spoken: Callable[[], None] | None) -> list[JobResult]:
        """Return the answers, after what has to be done before anybody sends; who was going to is told if it fails."""
        try:
            if spoken is not None:
                spoken()
        except Exception as error:
            return [JobResult(each.job, None, error) if each.job.need is Need.SPEAK else each for each in answers]
        return answers

    def _fail(self, connection: apsw.Connection, group: list[Job], error: Exception) -> None:
        """Answer a group that was rolled back: its writes have failed, and its reads are carried out by themselves.

        What they read before may be what was rolled back.
        """
        reads = [job for job in group if job.need is Need.READ]
        if len(reads) == len(group):
            reads = []  # Nobody's write spoilt them.
        failed = [job for job in group if not reads or job.need is not Need.READ]
        self._answer([JobResult(job, None, error) for job in failed])
        if reads:
            self._carry_out(connection, reads)

    def _begin(self, connection: apsw.Connection, need: Need) -> None:
        """Begin a transaction that will be synced if anybody in it needs that.

        A commit that is not synced waits in the write-ahead log, in order; the next synced one makes it durable too.
        """
        synced = need >= Need.DURABLE
        if need is not Need.READ and self._durable and synced is not self._synced:
            connection.execute("PRAGMA main.synchronous = FULL" if synced else "PRAGMA main.synchronous = NORMAL")
            self._synced = synced
        connection.execute("BEGIN" if need is Need.READ else "BEGIN IMMEDIATE")

    def _attempt(self, connection: apsw.Connection, job: Job) -> JobResult:
        return JobResult(job, job.work(connection), None)

    def _attempt_apart(self, connection: apsw.Connection, job: Job) -> JobResult:
        """Attempt a request so that its failure leaves the others of the transaction as they are."""
        connection.execute("SAVEPOINT request")
        try:
            answer = self._attempt(connection, job)
        except Exception as error:
            if not connection.in_transaction:
                raise _LostError from error
            connection.execute("ROLLBACK TO request")
            connection.execute("RELEASE request")
            return JobResult(job, None, fault(error, self._path))
        connection.execute("RELEASE request")
        return answer

    # --------------------------------------------------------------------------------------------------- in the loop

    def _resolve(self, answers: list[JobResult]) -> None:
        for (_, _, future), result, error in answers:
            self._slots.release()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


class ThreadWriter(Writer):
    """Carries requests out in a thread of its own: the one that pays."""

    def __init__(
        self, path: Path, connect: Callable[[], apsw.Connection], *, durable: bool, speaking: Speaking | None = None
    ) -> None:
        super().__init__(path, connect, durable=durable, speaking=speaking)
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        # Not a daemon: a daemon thread could be stopped by the interpreter's end in the middle of a commit.
        self._thread = threading.Thread(target=self._serve, name="payout-engine-journal", daemon=False)
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()

    async def start(self) -> None:
        """Start the thread and open the connection; see `Writer.start`."""
        self._thread.start()
        with anyio.CancelScope(shield=True):
            try:
                await self._opened
            except BaseException:
                self._queue.put(None)
                raise

    async def aclose(self) -> None:
        """Carry out what is queued, then close the connection and end the thread."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await asyncio.shield(self._closed)
        self._thread.join()

    async def beside(self, work: Callable[..., T], *arguments: object) -> T:
        """Run something in another thread; see `Writer.beside`."""
        return await anyio.to_thread.run_sync(work, *arguments, abandon_on_cancel=True)

    def _put(self, job: Job) -> None:
        self._queue.put(job)

    # ------------------------------------------------------------------------------------------------- in the thread

    def _serve(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:
            self._tell(_refuse, self._opened, fault(error, self._path))
            return
        self._tell(_succeed, self._opened)
        try:
            going_on = True
            while going_on:
                group, going_on = self._take()
                if group:
                    self._carry_out(connection, group)
        finally:
            self._close(connection)

    def _close(self, connection: apsw.Connection) -> None:
        try:
            connection.close()
        except apsw.Error as error:
            self._tell(_refuse, self._closed, fault(error, self._path))
        else:
            self._tell(_succeed, self._closed)

    def _take(self) -> tuple[list[Job], bool]:
        """Wait for a request and return it with all others that wait; False when the writer is to end."""
        group: list[Job] = []
        job = self._queue.get()
        while job is not None:
            group.append(job)
            try:
                job = self._queue.get_nowait()
            except Empty:
                return group, True
        return group, False

    def _answer(self, answers: list[JobResult]) -> None:
        self._tell(self._resolve, answers)

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed, so nobody waits any more. What was asked for has been done.
            self._closing = True


class InlineWriter(Writer):
    """Carries requests out in the event loop, which stands still meanwhile: for virtual time, where threads have none.

    Like the thread, it takes up a request at once when it is idle, and everything that comes while it commits is the
    next group. What it commits is in the file at once, and answered `commit_seconds` later.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], apsw.Connection],
        *,
        durable: bool,
        speaking: Speaking | None = None,
        commit_seconds: float = 0.0,
    ) -> None:
        super().__init__(path, connect, durable=durable, speaking=speaking)
        self._commit_seconds = commit_seconds
        self._connection: apsw.Connection | None = None
        self._waiting: list[Job] = []
        self._answers: list[JobResult] = []
        self._busy = False

    async def start(self) -> None:
        """Open the connection; see `Writer.start`."""
        try:
            self._connection = self._connect()
        except Exception as error:
            raise fault(error, self._path) from error

    async def aclose(self) -> None:
        """Carry out what is queued, then close the connection. The last answers are still on their way."""
        self._closing = True
        self._serve()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.close()
            except apsw.Error as error:
                raise fault(error, self._path) from error

    async def beside(self, work: Callable[..., T], *arguments: object) -> T:
        """Run something here; see `Writer.beside`."""
        return work(*arguments)

    def _put(self, job: Job) -> None:
        self._waiting.append(job)
        if not self._busy:
            self._serve()

    def _serve(self) -> None:
        """Carry out everything that waits, and be busy for as long as that takes."""
        if self._waiting and self._connection is not None:
            self._busy = True
            group, self._waiting = self._waiting, []
            try:
                self._carry_out(self._connection, group)
            finally:
                self._loop.call_later(self._commit_seconds, self._conclude)

    def _answer(self, answers: list[JobResult]) -> None:
        self._answers += answers

    def _conclude(self) -> None:
        """Answer what was carried out, and go on."""
        answers, self._answers = self._answers, []
        self._busy = False
        self._resolve(answers)
        self._serve()


def _roll_back(connection: apsw.Connection) -> None:
    """End a failed transaction. If even that fails, the next one cannot begin and says so to its callers."""
    if connection.in_transaction:
        with suppress(apsw.Error):
            connection.execute("ROLLBACK")


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _refuse(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
