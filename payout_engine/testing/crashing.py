"""A process that dies, on a disk that fills: proxies around a journal and a provider which fail at a chosen step.

A `Crash` is a `BaseException`, so that nothing which handles errors handles it. Once the fuse has blown the process is
dead: whatever its tasks still try while they unwind, also behind a shield, reaches neither the journal nor the wire.
So a simulation needs no crash hooks in production code. `processes.py` makes one fuse for each process.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

import anyio
import msgspec

from payout_engine.errors import JournalFullError
from payout_engine.model import Balance, Dispatch, Query, Receipt, Sighting
from payout_engine.ports import HasBalances, Journal, Provider
from payout_engine.traits import Traits

READS = frozenset(
    {
        "ready",
        "ready_amounts",
        "unanswered",
        "open_queries",
        "runs",
        "find",
        "find_digest",
        "tally",
        "mark",
        "notes",
        "requests",
        "trace",
    }
)
"""Calls that a full disk does not refuse."""


Done = Callable[[str, Sequence[Any], Any], Awaitable[None]]


class Crash(BaseException):
    """The process is dead."""


class Step(msgspec.Struct, frozen=True):
    """Where a process dies.

    Attributes:
        number: at the how-manieth call, counted from 1; of those called `name`, if that is given.
        after: True when the call's work is done, and only its caller never hears of it.
        name: a method of the journal or the provider, or empty for any.
    """

    number: int
    after: bool
    name: str = ""


class Disk:
    """The disk under the journal, which all processes share.

    Attributes:
        full: set by whoever fills it; the journal then refuses every write, and records nothing of it.
    """

    def __init__(self) -> None:
        self.full = False


class Fuse:
    """Counts the steps of one process and ends it at the chosen one.

    Attributes:
        dead: True once it has blown.
        disk: where its journal is.
        at_death: called when it blows, in their order, to end at once what nobody would end but the operating system.
    """

    def __init__(
        self,
        step: Step | None = None,
        tell: Callable[[str], None] = lambda text: None,
        disk: Disk | None = None,
    ) -> None:
        """Prepare a fuse.

        Args:
            step: where to blow; None for never, unless `blow` is called.
            tell: told where the process died.
            disk: shared with other processes; None for one that is never full.
        """
        self.dead = False
        self.disk = disk or Disk()
        self.at_death: dict[Callable[[], None], None] = {}
        self._step = step
        self._tell = tell
        self._calls: Counter[str] = Counter()

    def blow(self, where: str) -> NoReturn:
        """Kill the process."""
        if not self.dead:
            self.dead = True
            self._tell(where)
            for end in list(self.at_death):
                end()
        raise Crash(where)

    def enter(self, name: str) -> bool:
        """Begin a step; return True when the process is to die at its end. A dead process begins nothing."""
        self.check()
        self._calls[name] += 1
        self._calls[""] += 1
        step = self._step
        if step is None or step.name not in ("", name) or step.number != self._calls[step.name]:
            return False
        if not step.after:
            self.blow(f"before {name}")
        return True

    def leave(self, name: str, last: bool) -> None:
        """End a step that `enter` began with this answer."""
        if last:
            self.blow(f"after {name}")
        self.check()

    def check(self) -> None:
        """Go no further in a dead process."""
        if self.dead:
            raise Crash("after the end")


class CrashingJournal:
    """A journal whose every call is a step, carried out in order and a moment later, as by a writer's thread.

    It offers whatever the journal offers, so it needs no change when the port grows.
    """

    def __init__(
        self,
        journal: Journal,
        fuse: Fuse,
        commit_seconds: float = 0.0,
        done: Done | None = None,
    ) -> None:
        """Wrap a journal.

        Args:
            journal: survives the process.
            fuse: the process.
            commit_seconds: how long a call waits before its work is done, and again for the answer.
            done: told of each call's name, arguments and result once its work is durable, before anybody else is.
        """
        self._journal = journal
        self._fuse = fuse
        self._commit_seconds = commit_seconds
        self._done = done
        self._queue = anyio.Lock()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._journal, name)
        if name == "requests":
            # Asked twice a second for as long as paying goes on: as steps they would leave few for anything else.
            return lambda *arguments: self._glance(method, arguments)
        if inspect.iscoroutinefunction(method):
            return lambda *arguments, **named: self._call(name, method, arguments, named)
        if inspect.isasyncgenfunction(method):
            return lambda *arguments, **named: self._stream(name, method(*arguments, **named))
        return method

    def lease(self, *arguments: Any, **named: Any) -> AbstractAsyncContextManager[None]:
        """Hold the journal's own lease; a dead process lets go of it."""
        self._fuse.leave("lease", self._fuse.enter("lease"))
        return self._journal.lease(*arguments, **named)

    async def _glance(self, method: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        self._fuse.check()
        return await method(*arguments)

    async def _call(
        self, name: str, method: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]
    ) -> Any:
        last = self._fuse.enter(name)
        # What was handed to the journal is carried out even if the caller is cancelled, but not if the process dies.
        with anyio.CancelScope(shield=True):
            async with self._queue:
                await anyio.sleep(self._commit_seconds)
                self._fuse.check()
                if self._fuse.disk.full and name not in READS:
                    raise JournalFullError("The disk is full. Make room, then run the same command again.")
                result = await method(*arguments, **named)
                if self._done is not None:
                    await self._done(name, arguments, result)
            if not last:
                await anyio.sleep(self._commit_seconds)
        self._fuse.leave(name, last)
        return result

    async def _stream(self, name: str, batches: AsyncIterator[Any]) -> AsyncIterator[Any]:
        last = self._fuse.enter(name)
        async for batch in batches:
            await anyio.sleep(self._commit_seconds)
            self._fuse.leave(name, last)
            yield batch
        self._fuse.leave(name, last)


class CrashingProvider:
    """A provider whose every call is a step."""

    def __init__(self, provider: Provider, fuse: Fuse) -> None:
        self.traits: Traits = provider.traits
        self._provider = provider
        self._fuse = fuse

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Send; die before a byte left, or after the answer came and before anybody could read it."""
        last = self._fuse.enter("send")
        # The connections of a dead process are closed at once, whatever shield its tasks stand behind.
        with anyio.CancelScope() as connection:
            self._fuse.at_death[connection.cancel] = None
            try:
                return await self._provider.send(dispatch)
            finally:
                self._fuse.at_death.pop(connection.cancel, None)
                self._fuse.leave("send", last)
        raise Crash("in the middle of send")

    async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[Sighting]]:
        """Look up; die before the question, or after the first batch."""
        last = self._fuse.enter("look_up")
        async for sightings in self._provider.look_up(queries):
            self._fuse.leave("look_up", last)
            yield sightings
        self._fuse.leave("look_up", last)

    async def balances(self) -> Sequence[Balance]:
        """Read the balances."""
        last = self._fuse.enter("balances")
        assert isinstance(self._provider, HasBalances)
        found = await self._provider.balances()
        self._fuse.leave("balances", last)
        return found

    async def aclose(self) -> None:
        """Close the provider. A dead process has no connections left to close."""
        if not self._fuse.dead:
            await self._provider.aclose()
