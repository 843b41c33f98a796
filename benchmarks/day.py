"""A day in simulated time: the whole engine at the documented limit, to count what it reads of the provider's list.

Half an hour of paying passes as fast as the processor allows. Below the engine's HTTP client stands a wire in memory
instead of sockets, which do not know simulated time; it leads to the ledger of the stub. Called by `clients.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, cast

import aiohttp
import anyio
from yarl import URL

from benchmarks.ledger import Ledger
from benchmarks.stub import BALANCES_BODY, BULK, LIST_END, LIST_START, QUEUED, TRANSFERS
from payout_engine.domain import clock
from payout_engine.journal import SqliteJournal
from payout_engine.journal.writer import InlineWriter
from payout_engine.providers.senfenico.adapter import SenfenicoProvider

BEGINS_AT = 1_800_000_000.0
CALL_SECONDS = 0.2
LIST_BYTES_PER_SECOND = 10_000_000
SETTLES_AFTER_SECONDS = 60.0


@contextmanager
def simulated(ledger: Ledger) -> Iterator[None]:
    """Make all engines of this process, for good, live on a virtual loop and pay to a ledger; the clock is theirs."""

    def opened(headers: Mapping[str, str], limit: int) -> aiohttp.ClientSession:
        return cast(aiohttp.ClientSession, Wire(ledger))

    # The journal and the adapter take these as arguments; the engine, which makes both, has no reason to pass them on.
    SqliteJournal.open = partial(SqliteJournal.open, writer=InlineWriter)  # type: ignore[method-assign]
    SenfenicoProvider.__init__.__defaults__ = (opened,)
    with clock.replaced(lambda: BEGINS_AT + _now_seconds(), lambda: ("day", _now_seconds())):
        yield


def _now_seconds() -> float:
    try:
        return anyio.current_time()
    except RuntimeError:  # before the loop runs
        return 0.0


class Wire:
    """What `_http` uses of a session. Every call takes its time and is heard."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def close(self) -> None:
        """Nothing is open."""

    @asynccontextmanager
    async def request(self, method: str, url: URL, *, data: bytes | None = None, **_: Any) -> AsyncIterator[_Response]:
        """Carry one call whose answer is read whole."""
        await anyio.sleep(CALL_SECONDS)
        if method == "GET":
            yield _Response(iter([BALANCES_BODY]))
            return
        assert data is not None and url.path.encode() == BULK
        assert self._ledger.arrive(anyio.current_time()), "a call went over the limit"
        yield _Response(iter([QUEUED % self._ledger.take(data)]))

    async def get(self, url: URL, **_: Any) -> _Response:
        """Begin to read the list of transfers."""
        assert url.path.encode() == TRANSFERS
        await anyio.sleep(CALL_SECONDS)
        return _Response(self._list(), LIST_BYTES_PER_SECOND)

    def _list(self) -> Iterator[bytes]:
        yield LIST_START
        for piece in self._ledger.listed():
            self._ledger.listed_bytes += len(piece)
            yield piece
        yield LIST_END


class _Response:
    """What `_http` uses of an answer."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, pieces: Iterator[bytes], bytes_per_second: float = 0.0) -> None:
        self.content = self
        self._pieces = pieces
        self._bytes_per_second = bytes_per_second

    async def readany(self) -> bytes:
        """Return the next piece; empty at the end."""
        piece = next(self._pieces, b"")
        if self._bytes_per_second:
            await anyio.sleep(len(piece) / self._bytes_per_second)
        return piece

    def close(self) -> None:
        """What is not read is not sent."""
        self._pieces = iter(())
