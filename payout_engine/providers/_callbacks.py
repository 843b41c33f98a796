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

CallBack = Callable[[aiohttp.ClientSession], Awaitable[None]]
"""Makes one callback."""


class Callbacks:
    """The callbacks of one sandbox that are still to come."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, CallBack]] = []
        self._order = count()
        self._news = anyio.Event()
        self._task: asyncio.Task[None] | None = None

    def after(self, seconds: float, url: str, call: CallBack) -> None:
        """Call in so many seconds, if the address is one of this machine."""
        if not is_loopback(URL(url).host):
            return
        heapq.heappush(self._due, (anyio.current_time() + seconds, next(self._order), call))
        self._news.set()
        if self._task is None:
            # No task group: sandboxes may be opened in one task and closed in another, which a group forbids. `aclose`
            # sees to it that this one ends all the same.
            self._task = asyncio.get_running_loop().create_task(self._run())

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
                _, _, call = heapq.heappop(self._due)
                try:
                    await call(session)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    continue  # Nobody listens, or not in time.
