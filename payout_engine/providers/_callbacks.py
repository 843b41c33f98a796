"""Calls that a sandbox makes by itself, once something has happened: to this machine only, and one after the other.

It promises that nothing is ever called on another machine, that a listener who is away stops nobody, and that nothing
is called after `aclose`. What is called, and what is said then, is each provider's own. Used by the sandboxes.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from itertools import count

import aiohttp
import anyio
from yarl import URL

from payout_engine.ports.registration import is_loopback

CALL_SECONDS_MAX = 5.0
"""How long one call may take."""

REPEAT_SECONDS = 0.5
"""How long after it failed a call is made again, where the provider does that."""

CallBack = Callable[[aiohttp.ClientSession], Awaitable[int | None]]
"""Makes one callback, and returns the status that it was answered with, if that matters."""


class Callbacks:
    """The callbacks of one sandbox that are still to come."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, CallBack, int]] = []
        self._order = count()
        self._news = anyio.Event()
        self._task: asyncio.Task[None] | None = None

    def after(self, seconds: float, url: str, call: CallBack, again: int = 0) -> None:
        """Call in so many seconds, if the address is one of this machine; where it fails, so many times again."""
        if not is_loopback(URL(url).host):
            return
        self._call_in(seconds, call, again)
        if self._task is None:
            # No task group: sandboxes may be opened in one task and closed in another, which a group forbids. `aclose`
            # sees to it that this one ends all the same.
            self._task = asyncio.get_running_loop().create_task(self._run())

    def _call_in(self, seconds: float, call: CallBack, again: int) -> None:
        heapq.heappush(self._due, (anyio.current_time() + seconds, next(self._order), call, again))
        self._news.set()

    async def aclose(self) -> None:
        """Call nobody any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        patience = aiohttp.ClientTimeout(total=CALL_SECONDS_MAX)
        async with aiohttp.ClientSession(timeout=patience, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                wait_seconds = self._due[0][0] - anyio.current_time() if self._due else float("inf")
                if wait_seconds > 0:
                    with anyio.move_on_after(wait_seconds):
                        await self._news.wait()
                    self._news = anyio.Event()
                    continue
                _, _, call, again = heapq.heappop(self._due)
                try:
                    status = await call(session)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    status = 0  # Nobody listens, or not in time.
                if status is not None and not 200 <= status < 300 and again:
                    self._call_in(REPEAT_SECONDS, call, again - 1)
