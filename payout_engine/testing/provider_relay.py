"""Stands between an adapter and its sandbox, and changes what the adapter hears.

The sandbox does its work as ever, so that its ledger tells what happened to the money; the relay then hands on its
answer, or any bytes that a test would rather have. It knows a call by the sandbox's own counts, so that it needs to be
told nothing about a provider's paths. Changes fit one call at a time. Used by the provider suite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import aiohttp
import anyio
import msgspec
from aiohttp import web
from yarl import URL

from payout_engine.ports.registration import SandboxServer

BODY_BYTES_MAX = 16 * 1024 * 1024
HOP_HEADERS = frozenset({"host", "content-length", "connection", "accept-encoding"})
"""What belongs to one connection and is not handed on."""


class Heard(msgspec.Struct, frozen=True):
    """An answer of the sandbox, with the short name of the call it answers."""

    endpoint: str
    status: int
    body: bytes


Change = Callable[[Heard], bytes | None]
"""From a genuine answer to the bytes to send instead, HTTP head and all; None leaves it as it is."""


class Relay:
    """A running relay.

    Attributes:
        base_url: where it listens.
        heard: every answer of the sandbox, as it gave it.
    """

    def __init__(self, server: SandboxServer, session: aiohttp.ClientSession) -> None:
        self.base_url = ""
        self.heard: list[Heard] = []
        self._server = server
        self._session = session
        self._endpoints: Sequence[str] | None = None
        self._change: Change = lambda _: None
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    @property
    def open_connections(self) -> int:
        """How many connections the adapter holds open."""
        return len(self.runner.server.connections) if self.runner.server is not None else 0

    def answer(self, change: Change, *endpoints: str) -> None:
        """From now on, change the answers to these calls; none named: to all of them."""
        self._change = change
        self._endpoints = endpoints or None

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        before = dict(self._server.calls)
        headers = {name: text for name, text in request.headers.items() if name.lower() not in HOP_HEADERS}
        # As proxies do: some providers sign the address, and it must be the one that the adapter knows.
        headers["X-Forwarded-Host"] = request.host
        url = URL(self._server.base_url + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, data=body or None, headers=headers, allow_redirects=False
        ) as genuine:
            grown = [name for name, count in self._server.calls.items() if count > before.get(name, 0)]
            heard = Heard(grown[0] if grown else "", genuine.status, await genuine.read())
            kept = {name: genuine.headers[name] for name in ("Content-Type", "Retry-After") if name in genuine.headers}
        self.heard.append(heard)
        changed = self._change(heard) if self._endpoints is None or heard.endpoint in self._endpoints else None
        if changed is None:
            return web.Response(status=heard.status, body=heard.body, headers=kept)
        return _raw(request, changed)


def _raw(request: web.Request, answer: bytes) -> web.Response:
    """Write bytes as they are, and end the connection."""
    if request.transport is not None:
        request.transport.write(answer)
        request.transport.close()
    return web.Response()


def http(
    status: int, body: bytes, *, content_type: str = "application/json", promised_bytes: int | None = None
) -> bytes:
    """Return an HTTP answer as bytes; with `promised_bytes`, one that says it is longer or shorter than it is."""
    length = len(body) if promised_bytes is None else promised_bytes
    head = f"HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


@asynccontextmanager
async def relaying(server: SandboxServer) -> AsyncIterator[Relay]:
    """Run a relay in front of a sandbox until the block ends."""
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session:
        relay = Relay(server, session)
        await relay.runner.setup()
        try:
            await web.TCPSite(relay.runner, "127.0.0.1", 0).start()
            relay.base_url = f"http://127.0.0.1:{relay.runner.addresses[0][1]}"
            yield relay
        finally:
            with anyio.CancelScope(shield=True):
                await relay.runner.cleanup()
