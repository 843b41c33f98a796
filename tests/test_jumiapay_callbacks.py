"""What JumiaPay calls back with: the printed shapes, repeated as documented, to this machine only, and never believed.

What a call is about is asked again; only that answer moves a payout.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import apsw
import msgspec
import pytest
from aiohttp import web
from processes import ENVIRONMENT, call, command
from test_jumiapay_wire import STATUS_CHANGED, USAGE_UPDATED

from payout_engine import Payout, providers
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Dispatch, Lane
from payout_engine.ports.callbacks import Callback, Heard, HearsCallbacks
from payout_engine.ports.registration import Account
from payout_engine.providers._sandbox import serving
from payout_engine.providers.jumiapay import JumiaPayClient
from payout_engine.providers.jumiapay.adapter import JumiaPayProvider
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


# ------------------------------------------------------------------------------------------------------ what we hear


def account(base_url: str | None, **changes: Any) -> Account:
    registration = providers.get("jumiapay")
    changes = {"options": registration.sandbox_options, **changes}
    return Account(name="vouchers", secrets=registration.sandbox_secrets, base_url=base_url, **changes)


def posted(body: bytes, method: str = "POST") -> Callback:
    return Callback(method, "", "", {}, body)


@pytest.mark.parametrize("body", [STATUS_CHANGED, USAGE_UPDATED], ids=["status", "usage"])
def test_a_call_says_which_credit_it_is_about_and_nothing_else(body: bytes) -> None:
    """Our key, if it looks like one: it becomes part of an address."""
    provider = JumiaPayProvider(account("http://127.0.0.1:1"))
    assert isinstance(provider, HearsCallbacks)
    assert provider.hear(posted(body)) == Heard(("HCgfE",))
    for strange in (b"../..", b"a b", b"x" * 65, b""):
        assert not provider.hear(posted(body.replace(b"HCgfE", strange)))
    assert not provider.hear(posted(b"", "GET"))


async def test_the_address_of_the_server_goes_along_unless_an_option_says_another() -> None:
    """And one that JumiaPay would refuse is refused before anything is sent."""
    async with listening() as (_, server, _, _):
        ours, other = "http://127.0.0.1:9/vouchers/x", "https://payouts.invalid/told"
        options = account(None).options
        for number, changes in enumerate(({}, {"options": {**options, "callback_url": other}})):
            provider = JumiaPayProvider(account(server.base_url, callback_url=ours, **changes))
            lane = Lane("vouchers", "jumiapay_ng", "NGN")
            payout = Payout("r", 100, currency="NGN", email="awa@example.com")
            await provider.send(Dispatch(1, 1, lane, [0], [payout], [f"key-{number}"]))
            await provider.aclose()
        assert [credit.callback_url for credit in server.ledger.credits()] == [ours, other]
    with pytest.raises(ConfigError, match="callback_url must begin with https://"):
        JumiaPayProvider(account(None, callback_url=ours))


async def test_a_call_is_heard_by_the_server_and_a_credit_that_expires_is_reversed_without_a_person(
    tmp_path: Path,
) -> None:
    """The command that pays has ended; the server asks about each call, and a forged one moves nothing."""
    port = _free_port()
    async with sandbox(settle_seconds=0.3) as server:
        (tmp_path / "payouts.toml").write_text(
            f'callbacks_url = "http://127.0.0.1:{port}"\n[accounts.vouchers]\nprovider = "jumiapay"\n'
            f'api_key = "jumiapay_test_key"\nbusiness_area = "a"\ncredit_account = "b"\ncurrency = "NGN"\n'
            f'base_url = "{server.base_url}"\n'
        )
        (tmp_path / "v.csv").write_text("reference,amount,email\na,100,awa@example.com\nb,200,ali@example.com\n")
        serving_calls = await anyio.open_process(
            command("serve", "--port", str(port)), cwd=tmp_path, env=ENVIRONMENT, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            await _listening(port)  # A call that nobody hears is made five times again, and then no more.
            ran = await anyio.to_thread.run_sync(call, tmp_path, "run", "v.csv", "--yes", "--no-follow")
            assert ran.returncode == 5, ran.stderr
            await _until(tmp_path, ["paid", "paid"])
            (first, _) = server.ledger.credits()
            assert first.callback_url is not None
            forged = STATUS_CHANGED.replace(b"HCgfE", str(first.partner_credit_id).encode())
            async with (
                aiohttp.ClientSession() as session,
                session.post(first.callback_url, data=forged.replace(b"delivered", b"failed")) as answer,
            ):
                assert answer.status == 200
            await control(server, "expire", {"partner_credit_id": server.ledger.credits()[1].partner_credit_id})
            await _until(tmp_path, ["paid", "reversed"])
        finally:
            serving_calls.terminate()
            await serving_calls.aclose()


async def _until(folder: Path, states: list[str]) -> None:
    """Wait until the payouts stand so."""
    found: list[str] = []
    with anyio.move_on_after(40):
        while found != states:
            await anyio.sleep(0.1)
            db = apsw.Connection(str(folder / "payouts.db"), flags=apsw.SQLITE_OPEN_READONLY)
            found = [state for (state,) in db.execute("select state from payouts order by line")]
            db.close()
    assert found == states


async def _listening(port: int) -> None:
    """Wait until somebody listens."""
    with anyio.fail_after(40):
        while True:
            try:
                await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                return
            except OSError:
                await anyio.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])
