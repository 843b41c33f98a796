"""The rest of Senfenico: checkouts, charges, settlements and all balances, by our client and by the official one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import anyio.to_thread
import msgspec
import pytest
import requests

from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError, Brake, RefusedError
from payout_engine.providers._http import HttpAnswer
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.senfenico import DESCRIPTIONS, SenfenicoClient, envelope
from payout_engine.providers.senfenico.balances import read_statement
from payout_engine.providers.senfenico.collecting import (
    CANCEL_REFUSALS,
    CHARGE_PROVIDERS,
    CHARGE_REFUSALS,
    CHARGE_STATUSES,
    CHECKOUT_STATUSES,
    SETTLEMENT_STATUSES,
    SUBMIT_REFUSALS,
    Charge,
    Checkout,
    ConfirmationAttempt,
    NewCharge,
    NewCheckout,
    Settlement,
    StartedCharge,
    StartedCheckout,
)
from payout_engine.providers.senfenico.envelope import read_data
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox, sandbox
from payout_engine.providers.senfenico.sandbox_collections import OTP, TEST_ACCOUNTS
from payout_engine.providers.senfenico.shown import FullTransfer
from payout_engine.providers.senfenico.wire import Order, bulk_body, single_body

KEY = "sk_test_never_show_this"
PAGE = NewCheckout(
    email="customer@mail.com",
    amount=600,
    success_url="https://example.com/sucess",
    cancel_url="https://example.com/cancel",
)


@asynccontextmanager
async def connected(**settings: Any) -> AsyncIterator[tuple[SenfenicoClient, SenfenicoSandbox]]:
    """A sandbox and our client."""
    async with sandbox(**{"settle_seconds": 0.0, **settings}) as server:
        client = SenfenicoClient(KEY, base_url=server.base_url, loopback_only=True)
        try:
            yield client, server
        finally:
            await client.aclose()


def answer(document: dict[str, Any], status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, msgspec.json.encode(document))


def printed(message: str, data: object) -> HttpAnswer:
    return answer({"status": True, "message": message, "data": data})


# --------------------------------------------------------------------------------------------------------- samples

CHECKOUT = {
    "email": "customer@mail.com",
    "reference": "8872031d-178e-464c-9261-7984f0a313c0",
    "charge_reference": None,
    "amount": 600,
    "success_url": "https://yourwebsite.com/success",
    "cancel_url": "https://yourwebsite.com/cancel",
    "phone": "",
    "provider": "",
    "live_mode": True,
    "created_at": "2023-07-25T19:55:48.223895Z",
    "updated_at": "2023-07-25T19:55:48.223956Z",
    "status": "pending",
}
SUBMITTED = {
    "reference": "ch_39728149f97a46f1806a694dbb620b23",
    "amount": 1000,
    "fees": 3.5,
    "currency": "XOF",
    "transaction_date": "2024-08-18T11:43:47.380565+00:00",
    "ip_address": "172.18.0.1",
    "status": "success",
    "live_mode": False,
    "payment_method": "mobile_money",
    "provider": "orange_bf",
    "cancelled_at": None,
    "cancellation_reason": None,
    "confirmation_attempts": [
        {
            "ip_address": "172.18.0.1",
            "attempt_date": "2024-08-18T11:44:16.683423+00:00",
            "confirmation_status": "success",
        }
    ],
}
FETCHED = {
    **SUBMITTED,
    "fees": "3.50",
    "phone": "76000000",
    "created_at": "2024-08-18T12:52:33.572801Z",
    "updated_at": "2024-08-18T12:58:04.376754Z",
}
SETTLEMENT = {
    "reference": "d1b19637-3cce-45e7-898b-265ddfbc981c",
    "amount": 1000,
    "settlement_fees": 2,
    "currency": "XOF",
    "status": "processing",
    "live_mode": False,
    "created_at": "2023-07-30T19:23:01.658300Z",
    "updated_at": "2023-07-30T19:23:01.659013Z",
    "account_type": "bank",
    "iban": None,
    "rib": "YOUR RIB",
    "bank_name": None,
    "bank_address": None,
    "account_holder_name": None,
    "account_holder_address": None,
    "swift_bic_code": None,
    "provider": None,
    "phone": None,
    "usdt_wallet_address": None,
}
BALANCE = {
    "collection_balances": {"available": 18692.0, "pending": 5000.0, "currency": "XOF"},
    "transfer_balances": {
        "total_available": 3.5,
        "total_pending": 0.0,
        "orange_money_bf": {"available": 1.5, "pending": 0.0},
        "moov_money_bf": {"available": 2.0, "pending": 0.0},
        "sank_money_bf": {"available": 0.0, "pending": 0.0},
    },
}
"""The document's, with other transfer balances than its zeros."""


def test_the_printed_checkouts_are_understood() -> None:
    """All of their fields; the list is one of what is fetched."""
    begun = {
        "reference": "chk_de1ca053573c40a29a9fe95e7ad91d7e",
        "authorization_url": "https://api.senfenico.com/v1/checkout_payment/payment_page/chk_de1ca053/",
        "live_mode": False,
    }
    assert msgspec.structs.asdict(read_data(printed("Checkout initialized", begun), StartedCheckout)) == begun
    fetched = read_data(printed("Checkout details retrieved", CHECKOUT), Checkout)
    assert msgspec.structs.asdict(fetched) == CHECKOUT
    paid = {**CHECKOUT, "charge_reference": "822039fa-9cbc-447b-bd3a-b374e06faa40", "phone": "77xxxxxx"}
    (listed,) = read_data(printed("Checkout list retreived", [paid]), list[Checkout])
    assert msgspec.structs.asdict(listed) == paid


def test_the_printed_charges_are_understood() -> None:
    """All of their fields, with the fees exact whether they are a number or a text."""
    begun = {
        "reference": "ch_1ba1b4d1268b41079ee84c777e999f51",
        "status": "send_otp",
        "display_text": "Composez *144*4*6*500# pour obtenir un code OTP, ...",
        "live_mode": False,
    }
    assert msgspec.structs.asdict(read_data(printed("Charge attempted", begun), StartedCharge)) == begun
    submitted = read_data(printed("charge completed successfully", SUBMITTED), Charge, SUBMIT_REFUSALS)
    fetched = read_data(printed("Charge attempted", FETCHED), Charge)
    (listed,) = read_data(printed("Charge list retreived", [{**FETCHED, "fees": "2.00"}]), list[Charge])

    assert (submitted.fees, fetched.fees, listed.fees) == (Decimal("3.5"), Decimal("3.50"), Decimal("2.00"))
    assert (submitted.phone, fetched.phone) == (None, "76000000")
    assert msgspec.to_builtins(fetched) == {**FETCHED, "fees": "3.50"}
    assert fetched.confirmation_attempts == [
        ConfirmationAttempt(
            ip_address="172.18.0.1", attempt_date="2024-08-18T11:44:16.683423+00:00", confirmation_status="success"
        )
    ]


def test_the_printed_settlements_are_understood() -> None:
    """All of their fields, created, fetched, listed and cancelled alike."""
    for data in (SETTLEMENT, {**SETTLEMENT, "status": "cancelled"}):
        found = read_data(printed("Settlement created", data), Settlement)
        assert msgspec.structs.asdict(found) == {**data, "settlement_fees": Decimal(2)}
    (listed,) = read_data(printed("settlement list retrieved", [SETTLEMENT]), list[Settlement])
    assert listed.settlement_fees == 2


def test_the_printed_balances_are_understood() -> None:
    """What was collected too; fractions of a franc are rounded down."""
    found = read_statement(printed("Balance retrieved", BALANCE))

    assert (found.collected_minor, found.collecting_minor, found.currency) == (18_692, 5_000, "XOF")
    assert (found.available_minor, found.pending_minor) == (3, 0)
    assert [wallet.available_minor for wallet in found.wallets] == [1, 2, 0]


@pytest.mark.parametrize("missing", ["collection_balances", "total_available", "currency"])
def test_balances_that_lack_a_part_are_no_statement(missing: str) -> None:
    """Though the wallets alone can be read."""
    document = msgspec.json.decode(msgspec.json.encode(BALANCE))
    for part in (document, *list(document.values())):
        part.pop(missing, None)
    with pytest.raises(AmbiguousError, match=r"balances|something"):
        read_statement(printed("Balance retrieved", document))


def test_the_printed_requests_are_what_is_sent() -> None:
    """Keys in their order; what nobody says is left out."""
    assert msgspec.json.encode(PAGE) == (
        b'{"email":"customer@mail.com","amount":600,"success_url":"https://example.com/sucess",'
        b'"cancel_url":"https://example.com/cancel"}'
    )
    assert NewCharge(amount=500, phone="76000000", provider="orange_bf").body() == (
        b'{"amount":500,"currency":"XOF","payment_method":"mobile_money",'
        b'"payment_method_details":{"phone":"76000000","provider":"orange_bf"}}'
    )
    assert single_body(Order(100, "63000000")) == b'{"amount":100,"recipient_phone":"63000000"}'
    assert bulk_body([Order(100, "65000000", "orange_bf"), Order(100, "63000000", ext_id="x")]) == (
        b'{"transfers":[{"amount":100,"recipient_phone":"65000000","recipient_wallet":"orange_bf"},'
        b'{"amount":100,"recipient_phone":"63000000","ext_id":"x"}]}'
    )


@pytest.mark.parametrize(
    ("document", "refusals", "reason"),
    [
        (
            {"message": "Charge operation failed. The OTP is invalid. Please try again.", "error_code": "OTP_INVALID"},
            SUBMIT_REFUSALS,
            "otp_invalid",
        ),
        ({"message": "Charge not found"}, CHARGE_REFUSALS, "charge_not_found"),
        (
            {"message": "Validation error: [\"Settlement can only be cancelled if it's in 'processing' status.\"]"},
            CANCEL_REFUSALS,
            "settlement_not_processing",
        ),
    ],
)
def test_a_printed_refusal_is_believed_of_its_own_call_only(
    document: dict[str, Any], refusals: Any, reason: str
) -> None:
    """Of any other call it is a doubt."""
    with pytest.raises(RefusedError) as caught:
        read_data(answer({"status": False, **document}, 400), Charge, refusals)
    assert (caught.value.reason, caught.value.brake) == (reason, None)
    with pytest.raises(AmbiguousError):
        read_data(answer({"status": False, **document}, 400), Charge)


@pytest.mark.parametrize("code", [*envelope.SINGLE_REFUSALS, "Charge not found", "OTP_INVALID"])
def test_a_code_in_the_place_of_the_message_is_none(code: str) -> None:
    """And a message in the place of the code is none either."""
    everything = {**envelope.SINGLE_REFUSALS, **SUBMIT_REFUSALS, **CHARGE_REFUSALS}
    misplaced = {"message": code} if code.isupper() else {"message": "", "error_code": code}
    with pytest.raises(AmbiguousError):
        read_data(answer({"status": False, **misplaced}), Charge, everything)


def test_a_refused_key_with_errors_beside_it_is_a_doubt() -> None:
    """The document prints its words and nothing else."""
    told = {"status": False, "message": envelope.INVALID_KEY}
    with pytest.raises(RefusedError):
        read_data(answer(told, 401), Charge)
    for status in (200, 401):
        with pytest.raises(AmbiguousError) as caught:
            read_data(answer({**told, "errors": {"key": ["old"]}}, status), Charge)
        assert caught.value.brake is Brake.CREDENTIALS


@pytest.mark.parametrize("data", [None, [], {}, "x", {"reference": 5}, [{}]])
def test_a_yes_without_what_is_documented_is_a_doubt(data: object) -> None:
    """It says so under one reason, whatever was asked for."""
    for kind in (Charge, Checkout, Settlement, StartedCharge, StartedCheckout, FullTransfer):
        with pytest.raises(AmbiguousError) as caught:
            read_data(printed("", data), kind)
        assert caught.value.reason == "answer_unreadable"
        assert str(caught.value).endswith("does not show")
    broken = {**BALANCE, "collection_balances": {"available": "much", "pending": 0.0, "currency": "XOF"}}
    with pytest.raises(AmbiguousError) as caught:
        read_statement(printed("", broken))
    assert caught.value.reason == "answer_unreadable"


# ------------------------------------------------------------------------------------------------------------ codes


def test_all_sixteen_codes_have_both_descriptions() -> None:
    """And each is either a refusal of a transfer, or known to prove nothing."""
    assert len(DESCRIPTIONS) == 16
    assert set(DESCRIPTIONS) == {*envelope.REFUSALS, *envelope.DOUBTS}
    for code, told in DESCRIPTIONS.items():
        assert told.english and told.french
        assert (told.english == told.french) is (code == "UNSUPPORTED_PROVIDER")


def test_what_is_wrong_with_the_data_is_told() -> None:
    """The errors by field, without phones, and not where there are none."""
    document = {"status": False, "message": "no", "error_code": "INVALID_DATA"}
    wrong = {**document, "errors": {"amount": ["A valid integer is required."], "phone": ["76000000 is none"]}}
    with pytest.raises(AmbiguousError) as caught:
        read_data(answer(wrong), Charge)
    assert "INVALID_DATA: no" in str(caught.value) and "A valid integer" in str(caught.value)
    assert "76000000" not in str(caught.value)
    empty: tuple[object, ...] = ({}, [], None)
    for nothing in empty:
        with pytest.raises(AmbiguousError) as caught:
            read_data(answer({**document, "errors": nothing}), Charge)
        assert "no (its" in str(caught.value)


# ------------------------------------------------------------------------------------------------------- every call


async def test_a_customer_pays_a_checkout() -> None:
    """Opened, fetched, paid on the page, and listed newest first."""
    async with connected() as (client, server):
        begun = await client.initialize_checkout(PAGE)
        first = await client.fetch_checkout(begun.reference)
        other = await client.initialize_checkout(msgspec.structs.replace(PAGE, amount=5_000, email=msgspec.UNSET))
        control = f"{server.base_url}/_sandbox/checkouts"
        async with aiohttp.ClientSession() as session:
            for reference, status in ((begun.reference, 200), (other.reference, 200), (begun.reference, 400)):
                payer = {"provider": "moov_bf", "phone": "72000000"}
                async with session.post(f"{control}/{reference}/pay", json=payer) as answered:
                    assert answered.status == status
        checkouts = await client.checkouts()
        charge = await client.fetch_charge(str(checkouts[1].charge_reference))

    assert begun.authorization_url.startswith(server.base_url) and begun.reference in begun.authorization_url
    assert (first.status, first.phone, first.charge_reference, first.email) == ("pending", "", None, PAGE.email)
    assert [(one.amount, one.status, one.email) for one in checkouts] == [
        (5_000, "failed", None),
        (600, "success", PAGE.email),
    ]
    assert (charge.amount, charge.provider, charge.phone, charge.status) == (600, "moov_bf", "72000000", "success")


@pytest.mark.parametrize("provider", CHARGE_PROVIDERS)
async def test_a_charge_is_completed_by_its_code(provider: str) -> None:
    """For each test number of each provider, at the amount printed beside it; a wrong code is refused and kept."""
    async with connected() as (client, _):
        for phone, amount in TEST_ACCOUNTS[provider].items():
            begun = await client.create_charge(NewCharge(amount=amount, phone=phone, provider=provider))
            with pytest.raises(RefusedError) as caught:
                await client.submit_otp(begun.reference, "000000")
            done = await client.submit_otp(begun.reference, OTP)
            found = await client.fetch_charge(begun.reference)

            assert begun.status == "send_otp" and "OTP" in begun.display_text
            assert (f"*{amount}#" in begun.display_text) is (provider == "orange_bf")
            assert caught.value.reason == "otp_invalid" and "Charge operation failed." in str(caught.value)
            assert (done.status, done.amount, done.fees, done.phone) == ("success", amount, Decimal("3.5"), None)
            assert (found.fees, found.phone, found.provider) == (Decimal("3.50"), phone, provider)
            attempts = [attempt.confirmation_status for attempt in found.confirmation_attempts]
            assert attempts == ["failed", "success"]
        assert [charge.phone for charge in await client.charges()] == list(TEST_ACCOUNTS[provider])[::-1]


async def test_a_charge_that_cannot_be_is_refused_by_code() -> None:
    """Each in its own words; all but the printed one are doubts to whoever asks."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with connected(otp_seconds=60.0) as (client, _):
            wrong = {
                "unsupported_provider": NewCharge(amount=500, phone="76000000", provider="telecel_bf"),
                "invalid_account": NewCharge(amount=500, phone="76000001", provider="orange_bf"),
                "invalid_data": NewCharge(amount=0, phone="76000000", provider="orange_bf"),
            }
            for reason, new in wrong.items():
                with pytest.raises(AmbiguousError) as caught:
                    await client.create_charge(new)
                assert caught.value.reason == reason
            dear = await client.create_charge(NewCharge(amount=1_001, phone="76000000", provider="orange_bf"))
            late = await client.create_charge(NewCharge(amount=1_000, phone="76000000", provider="orange_bf"))
            reasons = []
            for reference, seconds in ((dear.reference, 0), (late.reference, 61), ("ch_nobody", 0)):
                time[0] += seconds
                with pytest.raises(AmbiguousError) as caught:
                    await client.submit_otp(reference, OTP)
                reasons.append(caught.value.reason)
            with pytest.raises(RefusedError) as missing:
                await client.fetch_charge("ch_nobody")
            failed = await client.fetch_charge(dear.reference)

    assert reasons == ["insufficient_funds", "otp_expired", "charge_not_found"]
    assert missing.value.reason == "charge_not_found"
    assert failed.status == "failed"


async def test_a_customer_may_confirm_without_a_code() -> None:
    """Offline: pending until then, and no code is taken."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with connected(offline_providers=["sank_bf"], settle_seconds=5.0) as (client, _):
            begun = await client.create_charge(NewCharge(amount=1_000, phone="72000000", provider="sank_bf"))
            with pytest.raises(RefusedError):
                await client.submit_otp(begun.reference, OTP)
            before = await client.fetch_charge(begun.reference)
            time[0] += 6.0
            after = await client.fetch_charge(begun.reference)

    assert (begun.status, before.status, after.status) == ("pay_offline", "pay_offline", "success")


async def test_collected_money_is_settled() -> None:
    """Charged, on the balance less the fee, on its way, there; or cancelled in time, and back."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with connected(settle_seconds=10.0) as (client, _):
            begun = await client.create_charge(NewCharge(amount=2_000, phone="65000000", provider="orange_bf"))
            await client.submit_otp(begun.reference, OTP)
            collected = (await client.statement()).collected_minor
            with pytest.raises(AmbiguousError) as too_much:
                await client.create_settlement(1_930)
            gone = await client.create_settlement(1_000)
            kept = await client.create_settlement(500)
            held = await client.statement()
            cancelled = await client.cancel_settlement(kept.reference)
            states = [gone.status]
            for _ in range(2):
                time[0] += 11.0
                states.append((await client.fetch_settlement(gone.reference)).status)
            with pytest.raises(RefusedError) as too_late:
                await client.cancel_settlement(gone.reference)
            left = await client.statement()
            listed = await client.settlements()

    assert collected == 2_000 - 70
    assert (too_much.value.reason, too_much.value.brake) == ("insufficient_funds", Brake.FUNDS)
    assert (held.collected_minor, held.collecting_minor) == (1_930 - 1_020 - 510, 1_020 + 510)
    assert states == ["processing", "in_transit", "success"]
    assert cancelled.status == "cancelled" and too_late.value.reason == "settlement_not_processing"
    assert (left.collected_minor, left.collecting_minor) == (1_930 - 1_020, 0)
    assert [(one.amount, one.status, one.rib, one.iban) for one in listed] == [
        (500, "cancelled", "YOUR RIB", None),
        (1_000, "success", "YOUR RIB", None),
    ]
    known = {*CHECKOUT_STATUSES, *CHARGE_STATUSES, *SETTLEMENT_STATUSES}
    assert {one.status for one in listed} <= known


async def test_a_transfer_without_wallet_or_id_goes_where_its_number_says() -> None:
    """As the document has it; every field of what was made can be read."""
    async with connected() as (client, server):
        made = await client.create(Order(100, "76000000"))
        bulk = await client.bulk_create([Order(100, "71000000"), Order(200, "58000000", ext_id="telecel")])
        found = await client.fetch(made.reference)
        complete = [one async for batch in client.transfers(complete=True) for one in batch]

        assert (made.recipient_wallet, made.ext_id, made.fees) == ("orange_bf", None, Decimal("1.5"))
        assert (found.fees, found.ip_address, found.live_mode) == (Decimal("1.50"), "127.0.0.1", False)
        assert [item.data.ext_id for item in bulk.refused or ()] == ["telecel"]
        assert all(isinstance(one, FullTransfer) for one in complete)
        assert [one.recipient_wallet for one in complete if isinstance(one, FullTransfer)] == ["moov_bf", "orange_bf"]
        assert server.calls["list"] == 1


def test_a_field_that_decides_nothing_hides_nothing() -> None:
    """A transfer whose fee, wallet or address nobody understands is shown all the same."""
    shown = {"reference": "tr_1", "amount": 100, "recipient_phone": "76000000", "status": "pending"}
    odd = read_data(printed("", {**shown, "fees": "much", "recipient_wallet": 5, "ip_address": {}}), FullTransfer)
    assert (odd.reference, odd.fees, odd.recipient_wallet, odd.ip_address) == ("tr_1", None, None, None)
    bare = read_data(printed("", shown), FullTransfer)
    assert (bare.fees, bare.recipient_wallet, bare.ip_address) == (None, None, None)


async def test_nothing_is_collected_twice_by_itself() -> None:
    """A lost answer is a doubt, and the call is not repeated."""
    async with connected(faults=[Fault(FaultKind.RESET_AFTER, "charge_create")]) as (client, server):
        with pytest.raises(AmbiguousError):
            await client.create_charge(NewCharge(amount=1_000, phone="76000000", provider="orange_bf"))
        assert server.calls["charge_create"] == 1
        assert len(await client.charges()) == 1


async def test_a_restarted_sandbox_knows_what_was_collected(tmp_path: Path) -> None:
    """In the file of the transfers."""
    path = tmp_path / "senfenico.db"
    async with connected(ledger=path) as (client, _):
        begun = await client.create_charge(NewCharge(amount=1_000, phone="76000000", provider="orange_bf"))
        await client.submit_otp(begun.reference, OTP)
        await client.create_settlement(500)
        await client.initialize_checkout(PAGE)
        before = await client.statement()
    async with connected(ledger=path) as (client, _):
        assert await client.statement() == before
        assert [len(await ask()) for ask in (client.charges, client.settlements, client.checkouts)] == [1, 1, 1]


def test_nothing_shows_a_phone_or_an_address() -> None:
    """No repr of what is asked for, or shown."""
    shown: list[object] = [
        PAGE,
        NewCharge(amount=1, phone="76000000", provider="orange_bf"),
        read_data(printed("", FETCHED), Charge),
        read_data(printed("", {**CHECKOUT, "phone": "76000000"}), Checkout),
        read_data(printed("", {**SETTLEMENT, "phone": "76000000"}), Settlement),
    ]
    for one in shown:
        assert "76000000" not in repr(one) and "customer@" not in repr(one)


# ------------------------------------------------------------------------------------------------ the official client


async def test_the_official_client_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    """senfenico 0.3.0 from PyPI builds checkouts, charges and settlements from exact keys; the sandbox has these."""
    import senfenico

    async with sandbox(settle_seconds=0.0) as server:
        send = requests.Session.send

        def redirected(self: Any, request: Any, **kwargs: Any) -> Any:
            request.url = request.url.replace("https://api.senfenico.com", server.base_url)
            return send(self, request, **kwargs)

        monkeypatch.setattr(requests.Session, "send", redirected)
        monkeypatch.setattr(senfenico, "api_key", "sk_test_official")

        def speak() -> dict[str, Any]:
            told: dict[str, Any] = {}
            page = {"success_url": "https://www.website.com/success", "cancel_url": "http://www.website.com/cancel"}
            told["begun"] = senfenico.Checkout.initialize(amount=100, **page)
            told["checkout"] = senfenico.Checkout.fetch(told["begun"].data.reference)
            told["checkouts"] = senfenico.Checkout.list()
            told["charge"] = senfenico.Charge.create(amount=2000, phone="65000000", provider="orange_bf")
            reference = told["charge"].data.reference
            told["wrong"] = senfenico.Charge.submit_otp(otp="1", charge_reference=reference)
            told["done"] = senfenico.Charge.submit_otp(otp="123456", charge_reference=reference)
            told["fetched"] = senfenico.Charge.fetch(charge_reference=reference)
            told["missing"] = senfenico.Charge.fetch(charge_reference="1c32d1c7-dc81-49c5-85b0-7f6f3498e4a2")
            told["charges"] = senfenico.Charge.list()
            told["settlement"] = senfenico.Settlement.create(amount=500)
            reference = told["settlement"].data.reference
            told["settled"] = senfenico.Settlement.fetch(settlement_reference=reference)
            told["settlements"] = senfenico.Settlement.list()
            told["cancelled"] = senfenico.Settlement.cancel(settlement_reference=reference)
            told["balance"] = senfenico.Balance.fetch()
            return told

        told = await anyio.to_thread.run_sync(speak)

    assert told["begun"].message == "Checkout initialized" and told["begun"].data.authorization_url
    assert (told["checkout"].data.status, told["checkout"].data.amount) == ("pending", 100)
    assert [one.reference for one in told["checkouts"].data] == [told["begun"].data.reference]
    assert told["charge"].data.status == "send_otp"
    assert (told["wrong"].status, told["wrong"].error_code) == (False, "OTP_INVALID")
    assert told["wrong"].message == "Charge operation failed. The OTP is invalid. Please try again."
    assert (told["done"].data.status, told["done"].data.fees) == ("success", 3.5)
    assert (told["fetched"].data.fees, told["fetched"].data.phone) == ("3.50", "65000000")
    assert [one.confirmation_status for one in told["fetched"].data.confirmation_attempts] == ["failed", "success"]
    assert (told["missing"].status, told["missing"].message) == (False, "Charge not found")
    assert len(told["charges"].data) == 1
    assert (told["settlement"].message, told["settlement"].data.settlement_fees) == ("Settlement created", 2)
    assert (told["settled"].data.status, len(told["settlements"].data)) == ("success", 1)
    assert told["cancelled"].message.startswith("Validation error:")
    assert told["balance"].data.collection_balances.available == 2_000 - 70 - 510
