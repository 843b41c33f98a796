"""What JumiaPay's sandbox calls back with: the printed shapes, repeated as documented, and to this machine only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
import msgspec
from aiohttp import web
from test_jumiapay_wire import STATUS_CHANGED, USAGE_UPDATED

from payout_engine.providers._sandbox import serving
from payout_engine.providers.jumiapay import JumiaPayClient
from payout_engine.providers.jumiapay.sandbox import JumiaPaySandbox, sandbox
from payout_engine.providers.jumiapay.wire import NewCredit


class Listener:
    """What was called, and what is answered to each call."""

    def __init__(self, *statuses: int) -> None:
        self.heard: list[dict[str, Any]] = []
        self.queries: list[str] = []
        self._statuses = statuses

    async def answer(self, request: web.Request) -> web.Response:
        """Take a call."""
        self.heard.append(msgspec.json.decode(await request.read()))
        self.queries.append(request.query_string)
        place = len(self.heard) - 1
        return web.Response(status=self._statuses[place] if place < len(self._statuses) else 200)

    async def until(self, count: int) -> None:
        """Wait for so many calls."""
        with anyio.fail_after(5):
            while len(self.heard) < count:
                await anyio.sleep(0.005)


@asynccontextmanager
async def listening(*statuses: int) -> AsyncIterator[tuple[Listener, JumiaPaySandbox, JumiaPayClient, NewCredit]]:
    """A sandbox, a client of it, and a credit that asks to be told at a listener."""
    listener = Listener(*statuses)
    app = web.Application()
    app.router.add_post("/told", listener.answer)
    async with serving(app, "127.0.0.1", 0) as served, sandbox(settle_seconds=0.05) as server:
        client = JumiaPayClient(
            "jumiapay_test_key", business_area="area", credit_account="account", base_url=server.base_url
        )
        asked = NewCredit("n", "d", "10", "NGN", "awa@example.com", "HCgfE", callback_url=f"{served.base_url}/told?a=b")
        try:
            yield listener, server, client, asked
        finally:
            await client.aclose()


async def control(server: JumiaPaySandbox, what: str, document: Any) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.base_url}/_sandbox/{what}", json=document) as answer,
    ):
        assert answer.status == 200


async def test_each_change_of_status_is_told_as_printed() -> None:
    """Delivery and expiry, with the status before; what is being processed is not told."""
    async with listening() as (listener, server, client, asked):
        await client.create(asked)
        await listener.until(1)
        await control(server, "expire", {"partner_credit_id": "HCgfE"})
        await listener.until(2)
    assert [(told["old_status"], told["new_status"]) for told in listener.heard] == [
        ("processing_delivery", "delivered"),
        ("delivered", "expired"),
    ]
    printed = msgspec.json.decode(STATUS_CHANGED)
    for told in listener.heard:
        assert told.keys() == printed.keys() and told["type"] == printed["type"]
        assert told["credit"].keys() == printed["credit"].keys()
    assert listener.queries == ["a=b", "a=b"]


async def test_a_cancellation_is_told_once_it_is_done() -> None:
    """Not while it is being processed."""
    async with listening() as (listener, _, client, asked):
        made = await client.create(asked)
        await listener.until(1)
        await client.cancel(made.uuid)
        await listener.until(2)
    assert listener.heard[1]["new_status"] == "cancelled"


async def test_what_is_spent_is_told_as_printed() -> None:
    """The old usage and the new, and no other."""
    async with listening() as (listener, server, client, asked):
        await client.create(asked)
        await listener.until(1)
        await control(server, "usage", {"partner_credit_id": "HCgfE", "usage_minor": 500})
        await listener.until(2)
    told, printed = listener.heard[1], msgspec.json.decode(USAGE_UPDATED)
    assert told.keys() == printed.keys() and (told["type"], told["status"]) == (printed["type"], printed["status"])
    assert (told["credit"]["old_usage"]["value"], told["credit"]["new_usage"]["value"]) == (0, 5)
    assert told["credit"]["usage"] is None


async def test_a_call_is_repeated_five_times_and_no_more() -> None:
    """While the answer is not 2xx; the same call each time."""
    async with listening(*[500] * 10) as (listener, _, client, asked):
        await client.create(asked)
        await listener.until(6)
        await anyio.sleep(0.3)
    assert len(listener.heard) == 6 and all(told == listener.heard[0] for told in listener.heard)
    async with listening(500, 404, 204) as (listener, _, client, asked):
        await client.create(asked)
        await listener.until(3)
        await anyio.sleep(0.3)
    assert len(listener.heard) == 3


async def test_no_other_machine_is_called() -> None:
    """The address is repeated in answers, and that is all."""
    async with listening() as (_, server, client, asked):
        elsewhere = msgspec.structs.replace(asked, callback_url="https://payouts.invalid/told")
        assert (await client.create(elsewhere)).callback_url == "https://payouts.invalid/told"
        assert server._teller._callbacks._task is None
