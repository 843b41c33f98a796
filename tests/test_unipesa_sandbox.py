"""Unipesa's sandbox: as strict as the document, and once only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from payout_engine.domain import clock
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.unipesa.ledger import Ledger
from payout_engine.providers.unipesa.sandbox import MERCHANT_ID, PUBLIC_ID, SECRET_KEY, UnipesaSandbox, sandbox
from payout_engine.providers.unipesa.signature import sign

# As an independent client sends it: numbers where the document allows them, keys in no order.
PAYMENT = {
    "provider_id": 2352,
    "order_id": "16280954971628095497",
    "merchant_id": MERCHANT_ID,
    "customer_id": "250788123456",
    "amount": "1100.00",
    "currency": "RWF",
    "country": "RW",
    "extra": {"customer_name": "Name Lastname", "customer_email": "Name@domen.com"},
}


async def call(
    server: UnipesaSandbox, name: str, document: object, *, signed: bool = True, public: str = PUBLIC_ID
) -> Any:
    if signed and isinstance(document, dict):
        document = {**document, "signature": sign(SECRET_KEY, document)}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.base_url}/{public}/{name}", json=document) as got,
    ):
        return await got.json(content_type=None) if got.content_type == "application/json" else got.status


async def test_answers_are_what_the_document_prints() -> None:
    """The keys of each call, in their order; confirmations are for payments to people only."""
    async with sandbox(settle_seconds=0.0) as server:
        paid = await call(server, "payment_b2c", PAYMENT)
        asked = await call(server, "payment_c2b", {**PAYMENT, "order_id": "other"})
        shown = await call(server, "status", {"merchant_id": MERCHANT_ID, "order_id": PAYMENT["order_id"]})

    keys = "order_id transaction_id transaction_ref status result provider_result service_id service_version"
    assert list(paid) == [*keys.split(), "service_date_time", "confirm_type"]
    assert list(asked) == list(shown) == [*keys.split(), "service_date_time"]
    assert (paid["status"], paid["result"], paid["provider_result"]) == (
        1,
        {"code": 0, "message": "OK"},
        {"code": -8888, "message": "Good"},
    )
    assert shown["status"] == 2 and shown["transaction_ref"] and shown["transaction_id"] == paid["transaction_id"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"order_id": "no spaces"}, 10400),
        ({"order_id": ""}, 10400),
        ({"order_id": 5}, 10400),
        ({"amount": "1100"}, 10400),
        ({"amount": 1100}, 10400),
        ({"amount": "1100.5"}, 10400),
        ({"amount": "0.00"}, 10400),
        ({"amount": "99.99"}, 10400),
        ({"amount": "10000000.01"}, 10400),
        ({"currency": "XOF"}, 10400),
        ({"country": "UG"}, 10400),
        ({"provider_id": "2352x"}, 10400),
        ({"provider_id": 391}, 10400),
        ({"provider_id": True}, 10400),
        ({"extra": {}}, 10400),
        ({"extra": {"customer_name": 7}}, 10400),
        ({"customer_id": "0788123456"}, 10401),
        ({"customer_id": "2507881234567"}, 10401),
        ({"customer_id": "229788123456"}, 10401),
        ({"customer_id": "250788000003"}, 10301),
        ({"merchant_id": "other"}, 10105),
        ({"signature": "0" * 128}, 10201),
    ],
)
async def test_what_the_document_does_not_allow_is_refused(changes: dict[str, Any], code: int) -> None:
    """With a code, under HTTP 200, and nothing is made of it."""
    async with sandbox(settle_seconds=0.0) as server:
        answer = await call(server, "payment_b2c", {**PAYMENT, **changes}, signed="signature" not in changes)

        assert answer["result"]["code"] == code and answer["status"] == -1
        assert not server.paid()


@pytest.mark.parametrize(
    ("id", "customer", "amount", "taken"),
    [
        (2303, "2250705145655", "1100.00", True),
        (2303, "2250705145655", "1101.00", True),  # Some of the tables that may be its own ask for no multiple.
        (2303, "2250705145655", "0.50", False),
        (9209, "22670123456", "1101.00", False),
        (9209, "22670123456", "1100.00", True),
        (2357, "22890123456", "499.00", False),
        (2357, "228901234567", "500.00", False),  # As printed, with a digit too many.
        (2357, "22890123456", "500.00", True),
    ],
)
async def test_limits_and_phones_by_id(id: int, customer: str, amount: str, taken: bool) -> None:
    """Sure limits are kept; where it is not said which are the id's, any will do. Real phones, not the printed ones."""
    country = {"2": "CI", "9": "BF"}[str(id)[0]] if id != 2357 else "TG"
    document = {**PAYMENT, "provider_id": str(id), "customer_id": customer, "amount": amount, "currency": "XOF"}
    async with sandbox(settle_seconds=0.0) as server:
        answer = await call(server, "payment_b2c", {**document, "country": country})

        assert (answer["result"]["code"] == 0) is taken and bool(server.paid()) is taken


async def test_an_order_id_is_answered_once_and_for_all() -> None:
    """Also if what it says has changed: the same answer, and no second payment."""
    async with sandbox(settle_seconds=0.0) as server:
        first = await call(server, "payment_b2c", PAYMENT)
        again = await call(server, "payment_b2c", {**PAYMENT, "amount": "2000.00"})

        assert first == again and server.paid() == {PAYMENT["order_id"]: (1, 1_100)}
        assert server.summary()["counters"] == {"repeated": 1}


async def test_a_signature_is_of_the_order_that_was_received() -> None:
    """Signed in one order and sent in another, a call is not accepted."""
    document = {**PAYMENT, "signature": sign(SECRET_KEY, dict(sorted(PAYMENT.items())))}
    async with sandbox() as server:
        assert (await call(server, "payment_b2c", document, signed=False))["result"]["code"] == 10201


async def test_who_is_not_the_merchant_learns_nothing() -> None:
    """Not how an order stands, either."""
    async with sandbox(settle_seconds=0.0) as server:
        await call(server, "payment_b2c", PAYMENT)
        question = {"merchant_id": MERCHANT_ID, "order_id": PAYMENT["order_id"]}
        wrong = [
            await call(server, "status", question, signed=False),
            await call(server, "status", question, public="other"),
            await call(server, "status", {**question, "merchant_id": "other"}),
        ]
        assert [answer["result"]["code"] for answer in wrong] == [10201, 10105, 10105]
        assert {answer["status"] for answer in wrong} == {-1}


async def test_an_empty_balance_fails_the_order() -> None:
    """The document has no word for it; collecting needs none."""
    async with sandbox(settle_seconds=0.0, balances={"mtn_rw_2352": 1_500}) as server:
        for number, name in enumerate(("payment_b2c", "payment_b2c", "payment_c2b")):
            await call(server, name, {**PAYMENT, "order_id": f"order-{number}"})
        assert sorted(server.paid()) == ["order-0", "order-2"]
        assert server.ledger.available("mtn_rw_2352") == 40_000


async def test_what_is_shown_late_is_not_found_at_first() -> None:
    """As an order that no status call knows."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with sandbox(settle_seconds=0.0) as server:
            server.faults.add(Fault(FaultKind.LATE, "payment", seconds=10.0))
            await call(server, "payment_b2c", PAYMENT)
            question = {"merchant_id": MERCHANT_ID, "order_id": PAYMENT["order_id"]}
            early = await call(server, "status", question)
            time[0] += 11.0
            assert (early["status"], (await call(server, "status", question))["status"]) == (-1, 2)


async def test_more_calls_than_it_is_told_to_take_are_turned_away() -> None:
    """The document knows no rate, so only if it is asked to, and as a proxy would."""
    async with sandbox(calls_per_second=2) as server:
        answers = [await call(server, "payment_b2c", {**PAYMENT, "order_id": f"order-{n}"}) for n in range(3)]
        assert answers[2] == 429 and len(server.paid()) == 2


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff", b"[" * 5_000])
async def test_what_is_no_document_is_refused(body: bytes) -> None:
    """Whatever it is, an answer comes."""
    async with (
        sandbox() as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.base_url}/{PUBLIC_ID}/payment_b2c", data=body) as got,
    ):
        assert (await got.json())["result"]["code"] == 10400


def test_the_ledger_survives_the_death_of_its_process(tmp_path: Path) -> None:
    """What was committed before a kill is there after it, and answered as before."""
    path = tmp_path / "ledger.db"
    code = f"""
import os, pathlib, signal
from payout_engine.providers.unipesa.ledger import Fate, Ledger, LedgerOrder
ledger = Ledger(pathlib.Path({str(path)!r}), {{}}, 10)
ledger.add(LedgerOrder("x", "payment_b2c", "mtn_rw_2352", 2352, "RW", "RWF", "250788123456", 500, "", "1",
    Fate.SUCCEEDS, b"said", 0.0, 0.0))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False)
    assert killed.returncode == -signal.SIGKILL
    ledger = Ledger(path, {}, 10)
    found = ledger.find("x")
    assert found is not None and found.answer == b"said"
    assert ledger.paid() == {"x": (1, 5)} and ledger.available("mtn_rw_2352") == 500
    ledger.close()
