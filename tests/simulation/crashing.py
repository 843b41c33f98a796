"""A process that dies: proxies around its journal and its providers, which end it at a chosen step.

A `Crash` is a `BaseException`, so that nothing which handles errors handles it. Once the fuse has blown the process is
dead, as SIGKILL would leave it: its connection to the journal is dropped in the middle of whatever it did, its locks
are free and their files lie about (see `mortal.py`), and whatever its tasks still try while they unwind, also behind a
shield, reaches neither the journal nor the wire. So a simulation needs no crash hooks in production code.
`processes.py` makes one fuse for each process.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import anyio
import apsw
import msgspec

from payout_engine.domain.model import Balance, ControlRequest, Dispatch, LookUpResult, Outcome, Query, Receipt
from payout_engine.journal import SqliteJournal
from payout_engine.journal.writer import InlineWriter, Job, JobResult, Need
from payout_engine.ports.callbacks import Callback, Heard, HearsCallbacks
from payout_engine.ports.provider import HasBalances, ListsBack, Provider, Traits
from simulation.disk import Disk

READS = frozenset(
    {
        "ready",
        "ready_amounts",
        "resendable_chunks",
        "open_queries",
        "paid_queries",
        "runs",
        "find",
        "find_digest",
        "former_accounts",
        "former_queries",
        "tally",
        "mark",
        "notes",
        "facts",
        "requests",
        "trace",
    }
)
"""Calls that change nothing, and that a full disk does not refuse."""

MIDDLE_SECONDS = 0.03
"""How far into a paying call its middle is: while the request is on its way."""


class Crash(BaseException):
    """The process is dead."""


class Moment(StrEnum):
    """When, of a call, a process dies."""

    BEFORE = "before"  # nothing of the call has happened
    INSIDE = "inside"  # its work is done in a transaction that never commits; a paying call is on the wire
    BETWEEN = "between"  # from that call on, as soon as a second write is about to follow another in one transaction
    AFTER = "after"  # its work is done, and only its caller never hears of it


class Step(msgspec.Struct, frozen=True):
    """Where a process dies.

    Attributes:
        number: at the how-manieth call, counted from 1; of those called `name`, if that is given.
        moment: when of that call.
        name: a method of the journal or the provider, or empty for any.
    """

    number: int
    moment: Moment
    name: str = ""


class Fuse:
    """Counts the steps of one process and ends it at the chosen one.

    Attributes:
        dead: True once it has blown.
        journal: the name of the journal that the process uses.
        at_death: called when it blows, in their order, to end at once what nobody would end but the operating system.
    """

    def __init__(
        self, step: Step | None = None, notify: Callable[[str], None] = lambda text: None, journal: str = ""
    ) -> None:
        """Prepare a fuse.

        Args:
            step: where to blow; None for never, unless `blow` is called.
            tell: told where the process died.
            journal: the name of its journal.
        """
        self.dead = False
        self.journal = journal
        self.at_death: dict[Callable[[], None], None] = {}
        self._step = step
        self._notify = notify
        self._armed = False
        self._calls: Counter[str] = Counter()

    def blow(self, where: str) -> NoReturn:
        """Kill the process."""
        if not self.dead:
            self.dead = True
            self._notify(where)
            for end in list(self.at_death):
                end()
        raise Crash(where)

    def enter(self, name: str) -> Moment | None:
        """Begin a step; return when of it the process is to die, None for not. A dead process begins nothing."""
        self.check()
        self._calls[name] += 1
        self._calls[""] += 1
        step = self._step
        if step is None or step.name not in ("", name) or step.number != self._calls[step.name]:
            return None
        if step.moment is Moment.BEFORE:
            self.blow(f"before {name}")
        self._armed = step.moment is Moment.BETWEEN
        return None if self._armed else step.moment

    def leave(self, name: str, moment: Moment | None) -> None:
        """End a step that `enter` began with this answer."""
        if moment is not None:
            self.blow(f"after {name}")
        self.check()

    def between(self, one: str, other: str) -> None:
        """Pass from one write to another of the same transaction."""
        if self._armed:
            self.blow(f"between requests: {one} and {other}")

    def check(self) -> None:
        """Go no further in a dead process."""
        if self.dead:
            raise Crash("after the end")


# ------------------------------------------------------------------------------------------------------- its journal


class Call(msgspec.Struct):
    """A call of the journal while it is being carried out.

    Attributes:
        moment: when of it the process dies; None for not.
        told: whether somebody is told of what became of it.
    """

    name: str
    arguments: Sequence[Any]
    moment: Moment | None
    told: bool


Done = Callable[[Call, Any, apsw.Connection], None]

_calling: ContextVar[Call | None] = ContextVar("calling", default=None)


class MortalWriter(InlineWriter):
    """The writer of a process that may die.

    It dies between the requests of a group, after the commit and before the answers, or at any time between groups; and
    then drops its connection, with whatever transaction is open, so that the write-ahead log stays as it is.
    """

    def __init__(
        self, path: Path, connect: Callable[[], apsw.Connection], *, fuse: Fuse, done: Done, **options: Any
    ) -> None:
        """Prepare a writer.

        Args:
            path: as for any writer.
            connect: as for any writer.
            fuse: the process.
            done: told of each call, with its result and the connection, once its work is committed and before anybody
                else is.
            options: as for an `InlineWriter`.
        """
        super().__init__(path, connect, **options)
        self._fuse = fuse
        self._done = done
        self._calls: dict[asyncio.Future[Any], Call | None] = {}
        self._written = ""
        fuse.at_death[self._die] = None

    async def aclose(self) -> None:
        """Close as any writer; of a dead one, nothing is left to close."""
        await super().aclose()
        self._fuse.at_death.pop(self._die, None)

    def _put(self, job: Job) -> None:
        self._fuse.check()
        self._calls[job.future] = _calling.get()
        super()._put(job)

    def _serve(self) -> None:
        with suppress(Crash):
            super()._serve()

    def _carry_out(self, connection: apsw.Connection, group: list[Job]) -> None:
        self._written = ""
        super()._carry_out(connection, group)

    def _attempt(self, connection: apsw.Connection, job: Job) -> JobResult:
        call = self._calls[job.future]
        if call is not None and job.need is not Need.READ:
            if self._written:
                self._fuse.between(self._written, call.name)
            self._written = call.name
        answer = super()._attempt(connection, job)
        if call is not None and call.moment is Moment.INSIDE:
            self._fuse.blow(f"inside {call.name}")
        return answer

    def _answer(self, answers: list[JobResult]) -> None:
        super()._answer(answers)
        calls = [(self._calls[answer.job.future], answer) for answer in answers]
        for call, answer in calls:
            if call is not None and call.told and answer.error is None:
                assert self._connection is not None
                self._done(call, answer.result, self._connection)
        for call, _ in calls:
            if call is not None and call.moment is not None:
                self._fuse.blow(f"after {call.name}")

    def _resolve(self, answers: list[JobResult]) -> None:
        for answer in answers:
            self._calls.pop(answer.job.future, None)
        super()._resolve(answers)

    def _die(self) -> None:
        """Leave the file as a killed process does; whoever waited for an answer is dead as well."""
        if self._connection is not None:
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._connection.close()
            self._connection = None
        self._waiting.clear()
        self._answers.clear()
        for future in self._calls:
            if not future.done():
                future.set_exception(Crash("after the end"))


class CrashingJournal:
    """A process's journal, whose every call is a step.

    It offers whatever the journal offers, so it needs no change when the port grows. What is asked again and again
    while nothing happens, half of all that is asked in a simulation, is answered from the last time for as long as not
    a byte of the disk has changed.
    """

    def __init__(self, journal: SqliteJournal, fuse: Fuse, disk: Disk) -> None:
        """Wrap a journal.

        Args:
            journal: with a `MortalWriter` of the same fuse.
            fuse: the process.
            disk: where the journal is.
        """
        self._journal = journal
        self._fuse = fuse
        self._disk = disk
        self._asked: dict[str, tuple[int, Sequence[ControlRequest]]] = {}
        self._nothing_new: dict[tuple[str, int], int] = {}

    def __getattr__(self, name: str) -> Any:
        step = method = getattr(self._journal, name)
        if inspect.iscoroutinefunction(method):
            step = partial(self._call, name, method)
        elif inspect.isasyncgenfunction(method):
            step = partial(self._stream, name, method)
        setattr(self, name, step)
        return step

    async def requests(self, run_id: str) -> Sequence[ControlRequest]:
        """Ask what people want. It is no step: there are so many that they would leave few for anything else."""
        self._fuse.check()
        at, found = self._asked.get(run_id, (-1, ()))
        if at != self._disk.writes:
            at = self._disk.writes
            found = await self._journal.requests(run_id)
            self._asked[run_id] = at, found
        self._fuse.check()
        return found

    async def outcomes(self, run_id: str, after: int = 0) -> AsyncIterator[tuple[int, Sequence[Outcome]]]:
        """Replay what happened."""
        at, place = self._disk.writes, (run_id, after)
        if self._nothing_new.get(place) == at:
            self._fuse.leave("outcomes", self._fuse.enter("outcomes"))
            return
        nothing = True
        async for batch in self._stream("outcomes", self._journal.outcomes, run_id, after):
            nothing = False
            yield batch
        if nothing:
            self._nothing_new[place] = at

    @asynccontextmanager
    async def lease(self, *arguments: Any, **named: Any) -> AsyncIterator[None]:
        """Hold the journal's own lease."""
        moment = self._fuse.enter("lease")
        async with self._journal.lease(*arguments, **named):
            self._fuse.leave("lease", moment)
            yield

    async def _call(self, name: str, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        call = Call(name, arguments, self._fuse.enter(name), True)
        with _handing(call):
            result = await method(*arguments, **named)
        self._fuse.leave(name, call.moment)
        return result

    async def _stream(self, name: str, method: Callable[..., Any], *arguments: Any, **named: Any) -> AsyncIterator[Any]:
        call = Call(name, arguments, self._fuse.enter(name), False)
        batches = method(*arguments, **named)
        while True:
            try:
                with _handing(call):
                    batch = await anext(batches)
            except StopAsyncIteration:
                self._fuse.leave(name, call.moment)
                return
            self._fuse.leave(name, call.moment)
            yield batch


@contextmanager
def _handing(call: Call) -> Iterator[None]:
    """Let the writer know, of each request that is handed to it here, which call it belongs to."""
    before = _calling.set(call)
    try:
        yield
    finally:
        _calling.reset(before)


# ------------------------------------------------------------------------------------------------------ its providers


class CrashingProvider:
    """A provider whose every call is a step."""

    def __init__(self, provider: Provider, fuse: Fuse) -> None:
        self.traits: Traits = provider.traits
        self._provider = provider
        self._fuse = fuse

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Send; die before a byte left, in the middle, or after the answer came and before anybody could read it."""
        moment = self._fuse.enter("send")
        middle_seconds = MIDDLE_SECONDS if moment is Moment.INSIDE else None
        # The connections of a dead process are closed at once, whatever shield its tasks stand behind.
        with anyio.move_on_after(middle_seconds) as connection:
            self._fuse.at_death[connection.cancel] = None
            try:
                return await self._provider.send(dispatch)
            finally:
                self._fuse.at_death.pop(connection.cancel, None)
                if moment is not Moment.INSIDE or not connection.cancel_called:
                    self._fuse.leave("send", moment)
        return self._fuse.blow("inside send")

    def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Look up; die before the question, or after the first batch."""
        return self._shown(lambda: self._provider.look_up(queries))

    def look_up_since(self, queries: Sequence[Query], since: float) -> AsyncIterator[Sequence[LookUpResult]]:
        """Do the same."""
        assert isinstance(self._provider, ListsBack)
        listing = self._provider.look_up_since
        return self._shown(lambda: listing(queries, since))

    async def _shown(
        self, look: Callable[[], AsyncIterator[Sequence[LookUpResult]]]
    ) -> AsyncIterator[Sequence[LookUpResult]]:
        moment = self._fuse.enter("look_up")
        async for results in look():
            self._fuse.leave("look_up", moment)
            yield results
        self._fuse.leave("look_up", moment)

    async def balances(self) -> Sequence[Balance]:
        """Read the balances."""
        moment = self._fuse.enter("balances")
        assert isinstance(self._provider, HasBalances)
        found = await self._provider.balances()
        self._fuse.leave("balances", moment)
        return found

    async def aclose(self) -> None:
        """Close the provider. A dead process has no connections left to close."""
        if not self._fuse.dead:
            await self._provider.aclose()


class CrashingCaller(CrashingProvider):
    """The same of a provider that calls back."""

    def hear(self, callback: Callback) -> Heard:
        """Say what a call speaks of."""
        assert isinstance(self._provider, HearsCallbacks)
        return self._provider.hear(callback)

    def re_read(self, heard: Heard, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask about what was heard; die before the question, or after the first batch."""
        assert isinstance(self._provider, HearsCallbacks)
        asking = self._provider.re_read
        return self._shown(lambda: asking(heard, queries))
