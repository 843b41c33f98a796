"""A bank that pays one by one and calls back, and the adapter by which the command line reaches it over HTTP.

The adapter is found by its entry point, as one of another distribution would be, so that real processes use it. Calls
are signed. What became of a payout is told by one address to those who follow, and by another to those who were called;
each can be made to lag, to fail or to wait, which tells apart what a call has brought about.
"""

from __future__ import annotations

import hmac
import http.client
import json
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
import anyio.to_thread
from aiohttp import web
from anyio.from_thread import start_blocking_portal

from payout_engine.domain.errors import AmbiguousError, ForgedError
from payout_engine.domain.model import Dispatch, LookUpResult, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.callbacks import Callback, Heard
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits, Wallet
from payout_engine.ports.registration import Account, Face, Registration
from payout_engine.providers._sandbox import serving

SECRET = "sk_test_calling"
WALLET = Wallet(code="calling_bf", title="Calling", country="BF", currency="XOF", decimals=0, operators=())


def signature(body: bytes) -> str:
    """Return the signature of a call."""
    return hmac.new(SECRET.encode(), body, "sha256").hexdigest()


# --------------------------------------------------------------------------------------------------------- the adapter


def traits(_: Mapping[str, Any]) -> Traits:
    """One payout in a call, asked about one by one, and nothing promised."""
    return Traits(
        batch_limit=1,
        calls_per_second=None,
        concurrency=4,
        key_promise=KeyPromise.NONE,
        key_lifetime_seconds=None,
        look_up=LookUpKind.EACH,
        absence_final_seconds=0.0,
    )


class CallingProvider:
    """The bank's adapter; see `ports.Provider` and `ports.callbacks`."""

    def __init__(self, account: Account) -> None:
        self.traits = traits({})
        self._account = account
        self._opened: aiohttp.ClientSession | None = None

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        (payout,) = dispatch.payouts
        order = {"key": dispatch.keys[0], "amount": payout.amount_minor, "phone": payout.phone}
        found = await self._call("POST", "/pay", order | {"callback_url": self._account.callback_url})
        return [Receipt(State(found["state"]), provider_reference=found["reference"])]

    async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        for query in queries:
            yield await self._ask("status", query.key)

    def hear(self, callback: Callback) -> Heard:
        if callback.method == "GET":
            return Heard()
        if not hmac.compare_digest(signature(callback.body), callback.headers.get("x-signature", "")):
            raise ForgedError("not signed")
        return Heard([json.loads(callback.body)["key"]])

    async def re_read(self, heard: Heard, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        assert {query.key for query in queries} == set(heard.keys)
        for key in heard.keys:
            yield await self._ask("truth", key)

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def _ask(self, where: str, key: str) -> Sequence[LookUpResult]:
        found = await self._call("GET", f"/{where}/{key}")
        if not found:
            return []
        return [LookUpResult(key, Receipt(State(found["state"]), provider_reference=found["reference"]))]

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(headers={"X-Pid": str(os.getpid())})
        try:
            async with self._opened.request(method, f"{self._account.base_url}{path}", json=body) as response:
                response.raise_for_status()
                return await response.json()
        except aiohttp.ClientError as error:
            raise AmbiguousError("bank_failed", f"the bank failed with {type(error).__name__}") from None


def no_sandbox(*_: object, **__: object) -> Any:
    """Offer no sandbox: the bank of the tests is one."""
    raise NotImplementedError


REGISTRATION = Registration(
    name="calling",
    title="Calling bank",
    secrets=("api_key",),
    sandbox=no_sandbox,
    sandbox_secrets={"api_key": SECRET},
    summary="A bank of the tests.",
    pays=Face(traits=traits, wallets=lambda _: [WALLET], connect=CallingProvider),
)


# ------------------------------------------------------------------------------------------------------------ the bank


class CallingBank:
    """The bank, on this machine, in a thread of the tests, and a configuration that points at it.

    Attributes:
        states: by key, what became of a payout, as the bank alone knows it.
        addresses: where it was asked to call, by key.
        asked: who asked about the truth of which key after a call: process and key, with how often.
        lags: whether those who follow are told `accepted`, whatever became of a payout.
        fails: whether who was called gets no answer.
        mumbles: whether it takes orders, and answers them with what says nothing.
        paying, telling: closed gates keep calls waiting before they are answered.
    """

    def __init__(self, folder: Path, *, more: str = "") -> None:
        self.states: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self.asked: Counter[tuple[int, str]] = Counter()
        self.lags = True
        self.fails = False
        self.mumbles = False
        self.paying, self.telling = threading.Event(), threading.Event()
        self.paying.set()
        self.telling.set()
        self._open = ExitStack()
        portal = self._open.enter_context(start_blocking_portal())
        app = web.Application()
        app.router.add_post("/pay", self._pay)
        app.router.add_get("/status/{key}", self._status)
        app.router.add_get("/truth/{key}", self._truth)
        self.base_url = self._open.enter_context(
            portal.wrap_async_context_manager(serving(app, "127.0.0.1", 0))
        ).base_url
        self.config = folder / "payouts.toml"
        self.config.write_text(
            f'{more}\n[accounts.bf]\nprovider = "calling"\nbase_url = "{self.base_url}"\napi_key = "{SECRET}"\n'
        )

    def close(self) -> None:
        """Stop serving."""
        self.paying.set()
        self.telling.set()
        self._open.close()

    def total_asked(self) -> int:
        """Return how often somebody who was called has asked."""
        return sum(self.asked.values())

    async def _pay(self, request: web.Request) -> web.Response:
        order = await request.json()
        self.states.setdefault(order["key"], "accepted")
        self.addresses[order["key"]] = order["callback_url"]
        await _passing(self.paying)
        if self.mumbles:
            return web.Response(status=502)
        return web.json_response({"state": "accepted", "reference": f"R-{order['key']}"})

    async def _status(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        state = self.states.get(key)
        return self._told(key, "accepted" if state and self.lags else state)

    async def _truth(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        self.asked[int(request.headers["X-Pid"]), key] += 1
        await _passing(self.telling)
        return web.Response(status=502) if self.fails else self._told(key, self.states.get(key))

    def _told(self, key: str, state: str | None) -> web.Response:
        return web.json_response({"state": state, "reference": f"R-{key}"} if state else None)


async def _passing(gate: threading.Event) -> None:
    while not gate.is_set():
        await anyio.sleep(0.01)


def call(url: str, body: bytes, *, method: str = "POST", signed: str | None = None) -> int:
    """Call an address as the bank does; return the status that it answers with."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body, {"X-Signature": signature(body) if signed is None else signed})
        return connection.getresponse().status
    finally:
        connection.close()


def said(key: str, **more: object) -> bytes:
    """Return the body of a call about a payout."""
    return json.dumps({"key": key, **more}).encode()


def installed(folder: Path) -> list[str]:
    """Make a folder in which Python finds the adapter as that of another distribution; return where to look."""
    info = folder / "site" / "calling_bank-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: calling-bank\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[payout_engine.providers]\ncalling = calling_bank:REGISTRATION\n")
    return [str(info.parent), str(Path(__file__).parent)]
