"""Every documented call of JumiaPay as a method, over real HTTP, against a sandbox that is strict."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError, RefusedError
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.jumiapay import JumiaPayClient
from payout_engine.providers.jumiapay.ledger import Ledger
from payout_engine.providers.jumiapay.sandbox import JumiaPaySandbox, sandbox
from payout_engine.providers.jumiapay.wire import NewCredit

PROJECT = Path(__file__).parent.parent
SECRET = "jumiapay_test_never_show_this"
HEADERS = {"apikey": SECRET, "X-Business-Area": "01234567-abcd-0000-1111-abc123456789"}
ASKED = NewCredit("Campaign voucher", "Refund", "100.99", "NGN", "awa@example.com", "HCgfE")


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[JumiaPayClient, JumiaPaySandbox]]:
    """A sandbox that settles at once, and a client of it."""
    async with sandbox(**{"settle_seconds": 0.0, **settings}) as server:
        client = JumiaPayClient(
            SECRET,
            business_area=HEADERS["X-Business-Area"],
            credit_account="AAE2wHesP7/..",
            base_url=server.base_url,
            timeout_seconds=5.0,
            loopback_only=True,
        )
        try:
            yield client, server
        finally:
            await client.aclose()


def path(server: JumiaPaySandbox, rest: str = "") -> str:
    return f"{server.base_url}/api/v1/single-credits/account{rest}"


async def post(url: str, document: Any, headers: Mapping[str, str] = HEADERS) -> tuple[int, bytes]:
    """What anybody may send to the sandbox."""
    async with aiohttp.ClientSession() as session, session.post(url, json=document, headers=headers) as answer:
        return answer.status, await answer.read()


# ---------------------------------------------------------------------------------------------------------- the calls


async def test_create_asks_for_a_credit() -> None:
    """It is made in the background: the answer says that it is being delivered, and the account's id is quoted."""
    async with serving() as (client, server):
        made = await client.create(ASKED)
        (stored,) = server.ledger.credits()
    assert (made.status.id, made.partner_credit_id, made.customer_email) == (
        "processing_delivery",
        "HCgfE",
        "awa@example.com",
    )
    assert (stored.account, stored.amount_minor, stored.uuid) == ("AAE2wHesP7/..", 10_099, made.uuid)


async def test_fetch_returns_a_credit_by_the_providers_id() -> None:
    """Delivered by now; another id is not found."""
    async with serving() as (client, _):
        made = await client.create(ASKED)
        assert (await client.fetch(made.uuid)).status.id == "delivered"
        with pytest.raises(AmbiguousError) as caught:
            await client.fetch("f74f6658-0168-447e-8b15-b468ec792278")
    assert caught.value.reason == "not_found"


async def test_find_returns_a_credit_by_our_id() -> None:
    """And no credit of another Credit account."""
    async with serving() as (client, server):
        await client.create(ASKED)
        assert (await client.find("HCgfE")).status.id == "delivered"
        status, _ = await post(path(server), msgspec.to_builtins(ASKED))
        assert status == 201, "an id is unique within its Credit account only"
        with pytest.raises(AmbiguousError) as caught:
            await client.find("hcgfe")
    assert caught.value.reason == "not_found"


async def test_cancel_takes_back_what_is_unspent() -> None:
    """From delivered only; then it is on its way, and the unspent part is back on the balance when it is done."""
    async with serving(balances={"jumiapay_ng": 1_000}) as (client, server):
        made = await client.create(ASKED)
        assert server.ledger.available()["NGN"] == 100_000 - 10_099
        assert server.ledger.use("HCgfE", 99)
        assert (await client.cancel(made.uuid)).status.id == "processing_cancellation"
        assert (await client.fetch(made.uuid)).status.id == "cancelled"
        assert server.ledger.available()["NGN"] == 100_000 - 99
        with pytest.raises(AmbiguousError, match="HTTP 400"):
            await client.cancel(made.uuid)
        with pytest.raises(AmbiguousError, match="HTTP 404"):
            await client.cancel("nobody")
    assert server.calls == {"create": 1, "fetch": 1, "cancel": 3}


def test_every_call_is_in_the_documents_with_its_test() -> None:
    """docs/providers.md names each method, and for each a test that exists."""
    text = (PROJECT / "docs" / "providers.md").read_text(encoding="utf-8").split("## JumiaPay")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?:GET|POST) `[^`]+` \| `JumiaPayClient\.(\w+)` \| `([\w/.]+)::(\w+)` \|$", text, re.M)
    methods = {
        name
        for name, method in inspect.getmembers(JumiaPayClient, inspect.iscoroutinefunction)
        if not name.startswith("_") and name != "aclose"
    }
    assert {name for name, _, _ in rows} == methods
    for _, file, test in rows:
        assert f"async def {test}(" in (PROJECT / file).read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------------- the sandbox


@pytest.mark.parametrize("missing", [*HEADERS, "nothing"])
async def test_without_either_header_nothing_is_answered(missing: str) -> None:
    """401 for every call, with nothing done."""
    headers = {name: text for name, text in HEADERS.items() if name != missing}
    if missing == "nothing":
        headers["apikey"] = "somebody else's"
    async with serving() as (_, server), aiohttp.ClientSession(headers=headers) as session:
        for method, rest in (("POST", ""), ("GET", "/x"), ("GET", "/partner-id/x"), ("POST", "/x/cancel")):
            async with session.request(method, path(server, rest), json=msgspec.to_builtins(ASKED)) as answer:
                assert answer.status == 401
        assert not server.ledger.credits()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "x" * 51},
        {"name": None},
        {"description": "x" * 256},
        {"description": 5},
        {"amount": 100},
        {"amount": "100,99"},
        {"amount": "1.999"},
        {"amount": "0.00"},
        {"amount": "-1"},
        {"amount": "1.0", "currency": "XOF"},
        {"amount": "1.234", "currency": "TND"},
        {"currency": "USD"},
        {"customer_email": "nobody"},
        {"expiration_date": "2021-03-27T23:59:59Z"},
        {"expiration_date": "2100-03-27 23:59:59"},
        {"callback_url": "http://example.com/callback"},
        {"partner_credit_id": ""},
    ],
    ids=str,
)
async def test_what_the_document_forbids_is_refused(changes: dict[str, Any]) -> None:
    """400, and no credit."""
    async with serving() as (_, server):
        assert await post(path(server), msgspec.to_builtins(ASKED) | changes) == (400, b"")
        assert not server.ledger.credits()
        fine = {"expiration_date": "2100-03-27T23:59:59Z", "callback_url": "https://example.com/?a=b"}
        status, body = await post(path(server), msgspec.to_builtins(ASKED) | fine)
    assert status == 201 and msgspec.json.decode(body).items() >= fine.items()


async def test_an_id_is_refused_a_second_time() -> None:
    """Whatever else the second credit says."""
    async with serving() as (client, server):
        await client.create(ASKED)
        with pytest.raises(AmbiguousError, match="HTTP 400"):
            await client.create(msgspec.structs.replace(ASKED, amount="1", customer_email="other@example.com"))
        assert server.paid() == {"HCgfE": (1, 10_099)}


async def test_the_balance_is_looked_at_when_a_credit_is_delivered() -> None:
    """201 never means funded: of two credits over the balance the second fails, and a third fits."""
    async with serving(balances={"jumiapay_ng": 150}) as (client, server):
        for number, amount in enumerate(("100", "100", "50")):
            asked = msgspec.structs.replace(ASKED, amount=amount, partner_credit_id=f"credit-{number}")
            assert (await client.create(asked)).status.id == "processing_delivery"
        states = [(await client.find(f"credit-{number}")).status.id for number in range(3)]
        assert states == ["delivered", "failed", "delivered"]
        assert server.paid().keys() == {"credit-0", "credit-2"}


async def test_a_credit_expires_when_its_time_has_come() -> None:
    """And what is unspent returns."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with serving(balances={"jumiapay_ng": 1_000}) as (client, server):
            await client.create(msgspec.structs.replace(ASKED, expiration_date="2027-03-27T23:59:59Z"))
            assert (await client.find("HCgfE")).status.id == "delivered"
            time[0] += 365 * 86_400.0
            assert (await client.find("HCgfE")).status.id == "expired"
            assert server.ledger.available()["NGN"] == 100_000


async def test_customers_spend_and_credits_expire_by_control_calls() -> None:
    """As no call of the API can make them; of what is not delivered they do nothing."""
    async with serving() as (client, server):
        await client.create(ASKED)
        ours = {"partner_credit_id": "HCgfE"}
        assert (await post(f"{server.base_url}/_sandbox/usage", {**ours, "usage_minor": 10_100}))[0] == 404
        assert (await post(f"{server.base_url}/_sandbox/usage", {**ours, "usage_minor": 99}))[0] == 200
        assert (await post(f"{server.base_url}/_sandbox/expire", ours))[0] == 200
        found = await client.find("HCgfE")
        assert found.status.id == "expired" and found.usage is not None and str(found.usage.value) == "0.99"
        assert (await post(f"{server.base_url}/_sandbox/expire", ours))[0] == 404


async def test_a_failed_cancellation_may_succeed_after_all() -> None:
    """As the document says of its error states."""
    async with serving() as (client, server):
        made = await client.create(msgspec.structs.replace(ASKED, customer_email="awa.kept@example.com"))
        await client.cancel(made.uuid)
        assert (await client.fetch(made.uuid)).status.id == "cancellation_failed"
        assert server.ledger.relent("HCgfE") and not server.ledger.relent("HCgfE")
        assert (await client.fetch(made.uuid)).status.id == "cancelled"


async def test_the_ledger_outlives_the_server(tmp_path: Path) -> None:
    """What was made is known to the next server, and to whoever reads the file, without an orderly end."""
    file = tmp_path / "jumiapay.db"
    async with serving(ledger=file, settle_seconds=60.0) as (client, _):
        await client.create(ASKED)
        beside = Ledger(file, {})
        assert beside.paid() == {"HCgfE": (1, 10_099)}
        beside.close()
    async with serving(ledger=file) as (client, server):
        with pytest.raises(AmbiguousError, match="HTTP 400"):
            await client.create(ASKED)
        assert len(server.ledger.credits()) == 1
    assert file.stat().st_mode & 0o077 == 0


async def test_a_rate_can_be_set_although_none_is_documented() -> None:
    """For whoever wants to see what 429 does: it is in no document, so it proves nothing."""
    async with serving(calls_per_second=1) as (client, server):
        await client.create(ASKED)
        with pytest.raises(AmbiguousError, match="HTTP 429"):
            await client.create(msgspec.structs.replace(ASKED, partner_credit_id="other"))
        assert len(server.ledger.credits()) == 1


async def test_keys_can_be_named() -> None:
    """Then no other is accepted."""
    async with serving(keys=["jumiapay_test_other"]) as (client, _):
        with pytest.raises(RefusedError):
            await client.create(ASKED)


async def test_what_is_shown_late_is_not_found_meanwhile() -> None:
    """The fault that look-ups have to live with."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with serving(faults=[Fault(FaultKind.LATE, "create", 5.0)]) as (client, _):
            await client.create(ASKED)
            with pytest.raises(AmbiguousError, match="404"):
                await client.find("HCgfE")
            time[0] += 5.0
            assert (await client.find("HCgfE")).status.id == "delivered"
