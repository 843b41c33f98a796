"""An event loop whose clock jumps to the next timer instead of waiting for it.

A payment that takes an hour by the provider's limits is simulated in milliseconds, with every limiter, sleep and
timeout following the same clock. Only for code that waits on timers and on itself: sockets do not know this time. What
would be done in a thread is done at once instead, in no time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio.to_thread
from anyio._backends._asyncio import CancelScope

STEP_SECONDS = 1e-6
"""What each turn of the loop costs. Without it a limiter that waits for a rounding residue would turn for ever."""

Result = TypeVar("Result")


class _JumpingSelector(selectors.BaseSelector):
    """A selector that never blocks: where it would wait, it moves the loop's clock."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._real = selectors.DefaultSelector()
        self._advance = advance

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:
            # There is work already: what comes from outside can wait until there is none.
            self._advance(STEP_SECONDS)
            return []
        ready = self._real.select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("nothing will ever happen: every task waits for something no timer will bring")
        self._advance(max(timeout, STEP_SECONDS))
        return []


class _NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number. Cancellation walks sets of tasks; by address, no run would repeat another."""

    def __init__(self, *arguments: Any, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at time 0 and jumps, and in which everything happens in one order only."""

    def __init__(self) -> None:
        self._now_seconds = 0.0
        self._tasks_made = 0
        super().__init__(_JumpingSelector(self._jump))
        self.set_task_factory(self._numbered)

    def _numbered(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> _NumberedTask:
        self._tasks_made += 1
        return _NumberedTask(coroutine, loop=loop, number=self._tasks_made, **options)

    def time(self) -> float:
        """Return the simulated time in seconds."""
        return self._now_seconds

    def _jump(self, seconds: float) -> None:
        self._now_seconds += seconds


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end in simulated time."""
    with _numbered_scopes(), _no_threads(), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


@contextmanager
def _numbered_scopes() -> Iterator[None]:
    """Give cancel scopes hashes in the order of their first use: a cancellation walks sets of them as well."""
    numbers: dict[int, tuple[object, int]] = {}  # Each is kept alive, so that no address comes twice.

    def number(scope: object) -> int:
        return numbers.setdefault(id(scope), (scope, len(numbers)))[1]

    original = CancelScope.__hash__
    CancelScope.__hash__ = number  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        CancelScope.__hash__ = original  # type: ignore[method-assign]


@contextmanager
def _no_threads() -> Iterator[None]:
    """Do at once what is handed to a thread: while one worked, the clock would jump on."""

    async def run_sync(work: Callable[..., Result], *arguments: Any, **_: Any) -> Result:
        return work(*arguments)

    original = anyio.to_thread.run_sync
    anyio.to_thread.run_sync = run_sync  # type: ignore[assignment]
    try:
        yield
    finally:
        anyio.to_thread.run_sync = original
