"""What every provider's sandbox is made of: a server on this machine, scripted faults, a strict limiter, a ledger file.

A sandbox plays a provider's API from the other side. This module promises that a fault strikes exactly when it is
scripted (before or after the call was processed, which is what decides whether money moved), that the limiter is
strict on every sliding second, and that the ledger survives the death of the process. It knows no provider; each
provider's `sandbox.py` makes a `ProviderSandbox` of its own. Never used in a run that pays real money.
"""

from __future__ import annotations

import math
import socket
import struct
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import anyio
import apsw
import msgspec
from aiohttp import web

from payout_engine.providers._callbacks import Callbacks
from payout_engine.providers._http import UNREADABLE

ANY_ENDPOINT = "*"

NEVER = 1e18
"""A time that does not come, in seconds since 1970."""

SETTLE_SECONDS_DEFAULT = 0.3
"""How long what was asked for takes, unless somebody says otherwise."""

LATE_SETTLE_FACTOR = 10
"""How much later than others the late ones settle."""

SHUTDOWN_SECONDS = 0.2
"""How long calls that are being answered may hold up the end of a sandbox."""

BODY_BYTES_MAX = 16 * 1024 * 1024
"""The longest request body that is read."""

HTML = b"<html><head><title>%d</title></head><body><h1>%d</h1><hr>nginx</body></html>"
"""What a proxy in front of a provider answers when the provider does not."""


class FaultKind(StrEnum):
    """What goes wrong, and whether the call is processed."""

    SLOW = "slow"  # processed at once, answered after `seconds`
    SLOW_BEFORE = "slow_before"  # processed and answered after `seconds`
    RESET_BEFORE = "reset_before"  # the connection is reset, nothing was processed
    RESET_AFTER = "reset_after"  # processed, then the connection is reset
    STATUS_BEFORE = "status_before"  # HTML with `status`, nothing was processed
    STATUS_AFTER = "status_after"  # processed, then HTML with `status`
    TRUNCATED = "truncated"  # processed, then half an answer
    LATE = "late"  # processed, but a list does not show it for `seconds`
    LOW_BALANCE = "low_balance"  # answered as if the balance were empty, nothing was processed
    RATE_LIMITED = "rate_limited"  # answered as if too fast, nothing was processed; asks to wait `seconds`, if any
    EXPIRED = "expired"  # answered as if the caller's access token had expired, nothing was processed


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One scripted fault.

    Attributes:
        kind: what goes wrong.
        endpoint: which endpoint it strikes, by the sandbox's own short names, or `*` for any.
        seconds: for the kinds that take time.
        status: for the kinds that answer with one.
        times: how many calls it strikes.
    """

    kind: FaultKind
    endpoint: str = ANY_ENDPOINT
    seconds: float = 0.0
    status: int = 502
    times: int = 1


class Faults:
    """The faults to come, consumed in order, each by the calls to its endpoint."""

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self._waiting: deque[Fault] = deque()
        self.add(*faults)

    def add(self, *faults: Fault) -> None:
        """Script more faults behind those that wait."""
        for fault in faults:
            self._waiting.extend([fault] * fault.times)

    def clear(self) -> None:
        """Forget the faults that wait."""
        self._waiting.clear()

    def take(self, endpoint: str) -> Fault | None:
        """Return the next fault for a call to `endpoint`, and forget it."""
        for place, fault in enumerate(self._waiting):
            if fault.endpoint in (endpoint, ANY_ENDPOINT):
                del self._waiting[place]
                return fault
        return None

    def __len__(self) -> int:
        return len(self._waiting)


class SlidingWindow:
    """Admits at most `limit` calls in any stretch of `seconds`, on the clock its caller reads.

    A call that is not admitted leaves no trace in the window, so that `refused` stays 0 exactly if no stretch ever
    saw more than `limit` calls.
    """

    def __init__(self, limit: int, seconds: float = 1.0) -> None:
        self._limit = limit
        self._seconds = seconds
        self._admitted: deque[float] = deque()
        self.refused = 0

    def admit(self, now: float) -> bool:
        """Return whether a call arriving at `now` is within the limit."""
        while self._admitted and now - self._admitted[0] >= self._seconds:
            self._admitted.popleft()
        if len(self._admitted) >= self._limit:
            self.refused += 1
            return False
        self._admitted.append(now)
        return True


class LedgerFile:
    """A ledger file, or one in memory, with its tables.

    A commit survives the death of the process. It need not survive the loss of power, as a real provider's would:
    only rehearsals depend on it.
    """

    def __init__(self, path: Path | None, schema: str) -> None:
        if path is not None:
            path.touch(mode=0o600)  # It holds phone numbers, as the journal beside it does.
        self._connection = apsw.Connection(":memory:" if path is None else str(path))
        self._connection.set_busy_timeout(5_000)
        # Read to the end: the second statement is only carried out when the row of the first was read.
        self._connection.execute("pragma journal_mode = wal; pragma synchronous = normal").fetchall()
        self._connection.execute(schema)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


Process = Callable[[bytes, Fault | None], Awaitable[web.StreamResponse]]


class FaultyEndpoints:
    """Answers requests through the scripted faults, and counts them by endpoint."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.calls: Counter[str] = Counter()

    async def answer(self, endpoint: str, request: web.Request, process: Process) -> web.StreamResponse:
        """Read the request whole, let the next fault strike, and process it or not, as the fault says.

        Args:
            endpoint: the short name that faults and counts go by.
            process: does the provider's work; it sees the fault too, for those that only it can play.
        """
        body = await request.read()
        self.calls[endpoint] += 1
        fault = self.faults.take(endpoint)
        kind = fault.kind if fault else None
        if fault and kind is FaultKind.SLOW_BEFORE:
            await anyio.sleep(fault.seconds)
        if kind is FaultKind.RESET_BEFORE:
            return reset(request)
        if fault and kind is FaultKind.STATUS_BEFORE:
            return html(fault.status)
        response = await process(body, fault)
        if fault and kind is FaultKind.RATE_LIMITED and fault.seconds:
            response.headers["Retry-After"] = str(math.ceil(fault.seconds))
        if fault and kind is FaultKind.SLOW:
            await anyio.sleep(fault.seconds)
        if kind is FaultKind.RESET_AFTER:
            return reset(request)
        if fault and kind is FaultKind.STATUS_AFTER:
            return html(fault.status)
        if kind is FaultKind.TRUNCATED and isinstance(response, web.Response):
            return await truncated(request, response)
        return response


def reset(request: web.Request) -> web.StreamResponse:
    """Break the connection so that the other side sees a reset and no answer."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        # Lingering for zero seconds makes the system send a reset instead of an orderly end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


def html(status: int) -> web.Response:
    """A proxy's error page."""
    return web.Response(status=status, body=HTML % (status, status), content_type="text/html")


async def truncated(request: web.Request, response: web.Response) -> web.StreamResponse:
    """Promise the whole answer, send half of it, and close."""
    body = response.body if isinstance(response.body, bytes) else b""
    half = web.StreamResponse(status=response.status, headers={"Content-Length": str(len(body))})
    half.content_type = response.content_type
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    cut(request)
    return half


def cut(request: web.Request) -> None:
    """Close the connection in an orderly way in the middle of an answer."""
    if request.transport is not None:
        request.transport.close()


def add_control(app: web.Application, faults: Faults, summary: Callable[[], object]) -> None:
    """Add what is no part of the provider's API: scripting faults and reading the ledger's totals over HTTP."""

    async def add_faults(request: web.Request) -> web.Response:
        try:
            faults.add(*msgspec.json.decode(await request.read(), type=list[Fault]))
        except msgspec.DecodeError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"waiting": len(faults)})

    async def clear_faults(_: web.Request) -> web.Response:
        faults.clear()
        return web.json_response({"waiting": 0})

    async def show_ledger(_: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(summary()), content_type="application/json")

    app.router.add_post("/_sandbox/faults", add_faults)
    app.router.add_delete("/_sandbox/faults", clear_faults)
    app.router.add_get("/_sandbox/ledger", show_ledger)


class Served:
    """A running server. `aclose` may be called more than once."""

    def __init__(self, runner: web.AppRunner, base_url: str) -> None:
        self._runner = runner
        self.base_url = base_url

    async def aclose(self) -> None:
        """Stop serving."""
        with anyio.CancelScope(shield=True):
            await self._runner.cleanup()


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[Served]:
    """Serve `app` until the block ends. Port 0 takes a free one; the address is in `base_url`."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
        bound = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        served = Served(runner, f"http://{shown}:{bound}")
        yield served
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


# ------------------------------------------------------------------------------------------------- a provider's sandbox


class Truth(Protocol):
    """What every provider's ledger can tell."""

    def paid(self) -> Mapping[str, tuple[int, int]]:
        """Return how often and how much money moves for each key. See `registration.SandboxServer.paid`."""
        ...

    def totals(self) -> dict[str, object]:
        """Return the sums that people look at."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


AnyTruth = TypeVar("AnyTruth", bound=Truth)

Working = Callable[[web.Request, bytes, Fault | None], web.Response]
"""Does what one call asks for. It is given the fault too, for those that only it can play."""


class ProviderSandbox(ABC, Generic[AnyTruth]):
    """One running sandbox. See `registration.SandboxServer`, whose other attributes each provider's class gives.

    Attributes:
        base_url: where it listens.
        ledger: the truth.
        faults: what is going to go wrong.
        calls: how many calls each endpoint has had, by short name.
    """

    def __init__(self, ledger: AnyTruth, faults: Sequence[Fault] = ()) -> None:
        self.base_url = ""
        self.ledger = ledger
        self.faults = Faults(tuple(faults))
        self._endpoints = FaultyEndpoints(self.faults)
        self.calls: Mapping[str, int] = self._endpoints.calls
        self._callbacks = Callbacks()
        self._served: Served | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    @abstractmethod
    def add_calls(self, app: web.Application) -> None:
        """Add the calls of the API, and its own controls."""

    @abstractmethod
    def refusal(self, endpoint: str, request: web.Request, body: bytes, fault: Fault | None) -> web.Response | None:
        """Return what is said of a call instead of doing what it asks for, or None: who may call, and how often."""

    def handler(self, endpoint: str, work: Working) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return what answers the calls of an endpoint: through the faults, and not to everyone."""

        async def handle(request: web.Request) -> web.StreamResponse:
            async def process(body: bytes, fault: Fault | None) -> web.StreamResponse:
                return self.refusal(endpoint, request, body, fault) or work(request, body, fault)

            return await self._endpoints.answer(endpoint, request, process)

        return handle

    def app(self) -> web.Application:
        """Return the API as an application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        self.add_calls(app)
        add_control(app, self.faults, self.summary)
        return app

    def attach(self, served: Served) -> None:
        """Learn where it is served."""
        self._served = served
        self.base_url = served.base_url

    def paid(self) -> Mapping[str, tuple[int, int]]:
        """Return how often and how much money moves for each key. See `registration.SandboxServer.paid`."""
        return self.ledger.paid()

    def summary(self) -> dict[str, object]:
        """Return the ledger's totals and the counts of calls."""
        return {**self.ledger.totals(), "calls": dict(self.calls), "waiting_faults": len(self.faults)}

    async def aclose(self) -> None:
        """Stop serving, and call nobody any more. The ledger can still be read."""
        await self._callbacks.aclose()
        if self._served is not None:
            await self._served.aclose()


@asynccontextmanager
async def running(sandbox: ProviderSandbox[Any], host: str, port: int) -> AsyncIterator[None]:
    """Serve a sandbox until the block ends, and close its ledger then. Port 0 takes a free one."""
    try:
        async with serving(sandbox.app(), host, port) as served:
            sandbox.attach(served)
            try:
                yield
            finally:
                await sandbox.aclose()
    finally:
        sandbox.ledger.close()


def late_seconds(fault: Fault | None) -> float:
    """Return how long what a call made is not shown, as its fault says."""
    return fault.seconds if fault is not None and fault.kind is FaultKind.LATE else 0.0


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a body holds, or None."""
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    return document if isinstance(document, dict) else None


def json_answer(document: object, status: int = 200) -> web.Response:
    """Return an answer that holds a document."""
    return web.Response(status=status, body=msgspec.json.encode(document), content_type="application/json")
