"""Jemeni's language: every printed sample, what each word proves, and the three ways to sign."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import msgspec
import pytest

from payout_engine.domain.errors import AmbiguousError, Brake
from payout_engine.domain.states import State
from payout_engine.providers._http import HttpAnswer
from payout_engine.providers.jemeni import wire
from payout_engine.providers.jemeni.signing import Keys, Scheme, Signable, signature, signed_headers

INITIATED = """{
    "status": "success", "message": "Payment initiated successfully.",
    "data": {
        "id": "01jz0p4y6g5jxe0abeazw12j55", "amount": 9000, "state": 1, "reference": "6862a8914c1d5bbabd99cf54",
        "created_at": "2025-06-30 15:09:05",
        "customer": {
            "id": "01jxk881aztej3mnd5aj4yt7hk", "first_name": "Kadiatou", "last_name": "Maiga",
            "email": "kmaiga@ktminnov.com", "phone": "78521436", "country_code": "ml"
        },
        "client": {
            "id": "01jwvrvjswcex8n3ajv0njfpx6", "name": "KTM SHOP", "client_type_code": "shop", "location": "Segou"
        },
        "payment": {
            "id": "01jz0p4y6g5jxe0abeazw12j55", "subscription_id": null, "amount": "500.00", "status": "pending",
            "payment_reference": "JP-ABC123456"
        }
    }
}"""
"""Section "Initiate a Transaction", without the comma that makes the printed one no JSON."""

VERIFIED = """{
    "status": "success", "message": "Transaction retrieved successfully.",
    "data": {
        "id": "132132132", "amount": "500.00", "state": 2,
        "customer": {
            "id": 45, "first_name": "John", "last_name": "Doe", "email": "john@example.com", "phone": "+22370000000",
            "country_code": 1
        },
        "client_merchants": [],
        "client": {"id": 8, "name": "Acme Corp", "status": 1},
        "payment": {
            "id": "xyz123", "subscription_id": "sub_456", "amount": "500.00", "due_at": "2024-11-22 19:57:14",
            "status": "completed", "payment_reference": "JP-XXXXXXXXXX"
        }
    }
}"""
"""Section "Check Transaction Status", with double quotes, and without commas and dots that are no JSON."""

SUBSCRIBED = """{
    "status": "success", "message": "Subscription created successfully",
    "data": {
        "id": "01ezezezezraezaez", "client_id": 3, "plan_id": 1, "customer_id": 2, "status": "active",
        "start_at": "2024-10-27 00:00:00", "expire_at": "2025-01-09 21:55:07", "archived": false,
        "renewal_date": null, "renewed": false
    }
}"""
PLANS = """{
    "status": "success", "message": "List of subscription plans",
    "data": [{
        "id": "01zedqfdfqsdfqfqfsqdf", "client_id": "01sdsd3123sdsdsdsd", "name": "Basic Plan", "price": "2000.00",
        "frequency_id": 1, "archived": false
    }]
}"""
DISABLED = """{
    "status": "success", "message": "Customer subscription disabled successfully",
    "data": {
        "id": "01zezezezerdfezdez", "first_name": "Awa", "last_name": "Sow", "email": "awa.sow@email.ml",
        "phone": "+22370000000", "country_code": "ml"
    }
}"""

REQUEST = wire.PaymentRequest(customer_phone="78521436", amount=9000)


def answer(body: str | bytes, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, body.encode() if isinstance(body, str) else body)


def verified(**changes: Any) -> wire.Transaction:
    """The printed look-up with changes: `state`, `amount`, or of the payment `status` and `paid`, or the `phone`."""
    document = msgspec.json.decode(VERIFIED)
    data = document["data"]
    data["payment"] |= {"status": changes.pop("status", "completed"), "amount": changes.pop("paid", "500.00")}
    data["customer"]["phone"] = changes.pop("phone", "+22370000000")
    data |= changes
    return wire.read(answer(msgspec.json.encode(document)), wire.Transaction)


# --------------------------------------------------------------------------------------------------------- samples


def test_the_printed_request_is_what_is_sent() -> None:
    """Key by key, in the printed order; what is optional comes behind it when it is said."""
    printed = b'{"customer_phone":"78000000","amount":9000,"device":"FCFA","country_code":"ml","notifiable":true}'
    assert wire.body_of(wire.PaymentRequest(customer_phone="78000000", amount=9000)) == printed
    told = wire.PaymentRequest(
        customer_phone="78000000", amount=9000, lang="fr", version="v1", return_url="https://example.com/back"
    )
    assert wire.body_of(told) == printed[:-1] + b',"lang":"fr","version":"v1","return_url":"https://example.com/back"}'


def test_the_printed_subscription_is_what_is_sent() -> None:
    """Key by key."""
    new = wire.NewSubscription(phone="+22370000000", plan_id=1, frequency_id=1, start_at="2024-10-27")
    assert wire.body_of(new) == b'{"phone":"+22370000000","plan_id":1,"frequency_id":1,"start_at":"2024-10-27"}'


def test_the_printed_answer_to_a_request_is_understood() -> None:
    """It was asked for, under the id that look-ups want; the other amount inside is not held against it."""
    transaction = wire.read(answer(INITIATED), wire.Transaction)

    receipt = wire.requested(transaction, REQUEST)
    assert (receipt.state, receipt.reason) == (State.ACCEPTED, "")
    assert receipt.provider_reference == "01jz0p4y6g5jxe0abeazw12j55"
    assert transaction.client == wire.Merchant(
        id="01jwvrvjswcex8n3ajv0njfpx6", name="KTM SHOP", client_type_code="shop", location="Segou"
    )
    assert (transaction.reference, transaction.created_at) == ("6862a8914c1d5bbabd99cf54", "2025-06-30 15:09:05")
    assert (transaction.payment.payment_reference, transaction.payment.subscription_id) == ("JP-ABC123456", None)


def test_the_printed_state_is_understood() -> None:
    """Completed, in state 2: paid, with the amount and the phone to compare."""
    transaction = wire.read(answer(VERIFIED), wire.Transaction)
    seen = wire.shown("key", transaction)

    assert (seen.key, seen.receipt.state, seen.amount_minor, seen.recipient) == ("key", State.PAID, 500, "22370000000")
    assert seen.receipt.provider_reference == "132132132"
    assert transaction.client == wire.Merchant(id=8, name="Acme Corp", status=1)
    assert (transaction.payment.due_at, transaction.payment.subscription_id) == ("2024-11-22 19:57:14", "sub_456")


def test_the_printed_answers_about_subscriptions_are_understood() -> None:
    """Ids are numbers here and texts there."""
    assert wire.read(answer(SUBSCRIBED), wire.Subscription) == wire.Subscription(
        id="01ezezezezraezaez",
        client_id=3,
        plan_id=1,
        customer_id=2,
        status="active",
        start_at="2024-10-27 00:00:00",
        expire_at="2025-01-09 21:55:07",
    )
    assert wire.read(answer(PLANS), list[wire.Plan]) == [
        wire.Plan(
            id="01zedqfdfqsdfqfqfsqdf",
            client_id="01sdsd3123sdsdsdsd",
            name="Basic Plan",
            price="2000.00",
            frequency_id=1,
        )
    ]
    assert wire.read(answer(DISABLED), wire.Customer).first_name == "Awa"


def test_what_an_answer_leaves_out_is_not_made_up() -> None:
    """Each field that decides nothing may be missing, and is None then."""

    def told(data: object, kind: Any) -> dict[str, Any]:
        found = wire.read(answer(msgspec.json.encode({"status": "success", "data": data})), kind)
        return {name: value for name, value in msgspec.structs.asdict(found).items() if value not in (None, [])}

    least = {"id": "01a", "amount": 500, "state": 1, "customer": {}, "payment": {"status": "pending"}}
    found = wire.read(answer(msgspec.json.encode({"status": "success", "data": least})), wire.Transaction)
    assert (found.client, found.reference, found.created_at, found.client_merchants) == (None, None, None, [])
    assert set(msgspec.structs.astuple(found.customer)) == {None}
    inner = msgspec.structs.asdict(found.payment)
    assert bytes(inner.pop("amount")) == b"null" and inner.pop("status") == "pending"
    assert set(inner.values()) == {None}
    assert wire.shown("key", found).recipient is None
    assert told({}, wire.Merchant) == {}
    assert told({"id": 1, "status": "active", "plan_id": 2}, wire.Subscription) == {
        "id": 1,
        "status": "active",
        "plan_id": 2,
        "archived": False,
        "renewed": False,
    }
    plan = {"id": 1, "name": "Basic Plan", "price": "2000.00", "frequency_id": 1}
    assert told(plan, wire.Plan) == {**plan, "archived": False}


# ---------------------------------------------------------------------------------------------- what a word proves


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({}, "paid", ""),
        ({"state": 1, "status": "pending"}, "accepted", ""),
        ({"state": 1}, "accepted", "status_not_documented"),
        ({"status": "pending"}, "accepted", "status_not_documented"),
        ({"state": 3, "status": "failed"}, "accepted", "status_not_documented"),
        ({"state": -1, "status": "Completed"}, "accepted", "status_not_documented"),
        ({"paid": "499.00"}, "accepted", "answer_disagrees"),
        ({"paid": None}, "accepted", "answer_disagrees"),
        ({"amount": "x", "paid": "x"}, "accepted", "answer_disagrees"),
        ({"phone": None}, "accepted", "answer_disagrees"),
        ({"phone": ""}, "accepted", "answer_disagrees"),
    ],
)
def test_only_both_words_and_one_amount_mean_paid(changes: dict[str, Any], state: str, reason: str) -> None:
    """Whatever else is said is accepted and kept for a person; nothing is failed."""
    receipt = wire.receipt_of(verified(**changes))
    assert (receipt.state, receipt.reason, bool(receipt.message)) == (state, reason, bool(reason))


@pytest.mark.parametrize("phone", ["6", "36", "521436", "+36", "unknown", " "])
def test_a_phone_that_is_too_short_agrees_with_nobodys(phone: str) -> None:
    """The end of a number is the end of many."""
    seen = wire.shown("key", verified(phone=phone))
    assert seen.recipient and not "22378521436".endswith(seen.recipient)


def test_a_word_that_nobody_documented_is_kept() -> None:
    """For the person who decides."""
    message = wire.receipt_of(verified(state=7, status="rejected")).message
    assert "7" in message and "rejected" in message


@pytest.mark.parametrize(
    ("phone", "amount", "state"),
    [
        ("78521436", 9000, "accepted"),
        ("+223 78 52 14 36", 9000, "accepted"),
        ("0022378521436", 9000, "accepted"),
        ("78521437", 9000, "unknown"),
        ("", 9000, "unknown"),
        ("36", 9000, "unknown"),
        ("78521436", 9001, "unknown"),
        ("78521436", "nine", "unknown"),
        ("78521436", 9000.5, "unknown"),
    ],
)
def test_an_answer_about_another_request_leaves_ours_unknown(phone: str, amount: Any, state: str) -> None:
    """Under the id that it names, so that a look-up shows the contradiction."""
    document = msgspec.json.decode(INITIATED)
    document["data"] |= {"amount": amount}
    document["data"]["customer"]["phone"] = phone
    transaction = wire.read(answer(msgspec.json.encode(document)), wire.Transaction)

    receipt = wire.requested(transaction, REQUEST)
    assert (receipt.state, receipt.provider_reference) == (state, transaction.id)
    assert (receipt.reason, "another" in receipt.message) == (
        ("answer_disagrees", True) if state == "unknown" else ("", False)
    )


@pytest.mark.parametrize(
    ("raw", "francs"),
    [
        (b"9000", 9000),
        (b'"500.00"', 500),
        (b"500.0", 500),
        (b'"500"', 500),
        (b"500.5", -1),
        (b"-500", -1),
        (b"5e2", -1),
        (b"null", -1),
        (b'"five"', -1),
        (b"true", -1),
        (b"9" * 16, -1),
        (b'"\xff"', -1),
    ],
)
def test_amounts_are_exact_or_nobodys(raw: bytes, francs: int) -> None:
    """No float on the way."""
    assert wire.whole_francs(msgspec.Raw(raw)) == francs


# -------------------------------------------------------------------------------------------------- what is a doubt


@pytest.mark.parametrize(
    ("status", "brake"),
    [
        (401, Brake.CREDENTIALS),
        (403, Brake.CREDENTIALS),
        (429, Brake.LIMIT),
        *((status, None) for status in (204, 301, 302, 304, 400, 404, 500, 501, 502, 503, 504)),
    ],
)
@pytest.mark.parametrize("body", [INITIATED, '{"status":"error","message":"no","code":4001}', "", "<html>"])
def test_no_documented_status_frees_anybody(status: int, brake: Brake | None, body: str) -> None:
    """The document describes them and prints no refusal: whatever stands in the body, it is a doubt."""
    with pytest.raises(AmbiguousError) as caught:
        wire.read(answer(body, status), wire.Transaction)
    assert caught.value.brake is brake


@pytest.mark.parametrize("code", [4001, 4002, 5001, 5002, 3000])
@pytest.mark.parametrize("place", ["code", "error_code", "status"])
def test_a_custom_code_has_no_documented_place(code: int, place: str) -> None:
    """So wherever it stands it is a doubt, and stops nobody else."""
    body = msgspec.json.encode({"status": "error", "message": "Invalid Input Data", place: code})
    with pytest.raises(AmbiguousError) as caught:
        wire.read(answer(body), wire.Transaction)
    assert caught.value.brake is None


@pytest.mark.parametrize(
    ("status", "word", "reason"),
    [
        (200, "error", "refusal_not_documented"),
        (202, "Success", "refusal_not_documented"),
        (400, "success", "http_400"),
        (500, "error", "http_500"),
        (401, "success", "credentials_in_doubt"),
    ],
)
def test_a_doubt_says_what_was_answered(status: int, word: str, reason: str) -> None:
    """Its reason is stable, and the provider's words are kept for people; full data does not make it a yes."""
    body = msgspec.json.encode({**msgspec.json.decode(INITIATED), "status": word, "message": "told so"})
    with pytest.raises(AmbiguousError) as caught:
        wire.read(answer(body, status), wire.Transaction)
    assert caught.value.reason == reason
    told = str(caught.value)
    assert f"HTTP {status}" in told and (reason == "credentials_in_doubt" or told.endswith(f"{word}: told so"))


@pytest.mark.parametrize("body", [b"", b"\xff\xfe{}", b"[" * 5_000, b"{}", b'{"status":"success"}', b"null", b"<html>"])
def test_what_is_no_answer_is_a_doubt_without_words(body: bytes) -> None:
    """Whatever the bytes are, and whatever HTTP status stands over them."""
    for status, reason in ((200, "answer_unreadable"), (502, "http_502")):
        with pytest.raises(AmbiguousError) as caught:
            wire.read(answer(body, status), wire.Transaction)
        assert caught.value.reason == reason
        assert "<" not in str(caught.value) and str(caught.value).endswith(("does not show", "HTTP 502", "success:"))


@pytest.mark.parametrize("status", [200, 201, 202])
def test_success_may_come_under_three_statuses(status: int) -> None:
    """As the document describes them."""
    assert wire.read(answer(INITIATED, status), wire.Transaction).state == 1


def test_nothing_that_is_shown_holds_a_full_phone_or_address() -> None:
    """Not in messages, and not in a repr."""
    body = '{"status":"error","message":"78521436 (kmaiga@ktminnov.com)\\nis unknown"}'
    with pytest.raises(AmbiguousError) as caught:
        wire.read(answer(body, 400), wire.Transaction)
    transaction = wire.read(answer(INITIATED), wire.Transaction)
    odd = wire.receipt_of(verified(state=3, status="78521436 kmaiga@ktminnov.com")).message
    new = wire.NewSubscription(phone="78521436", plan_id=1, frequency_id=1, start_at="2024-10-27")
    for text in (str(caught.value), repr(transaction), repr(transaction.customer), repr(REQUEST), repr(new), odd):
        assert "78521436" not in text and "kmaiga" not in text and "\n" not in text


# ------------------------------------------------------------------------------------------------------- signatures

KEYS = Keys("pk_test_37", "my secret", "my token")
URL = "https://jemeni.net/api/sandbox/send/payment"
BODY = b'{"data":"test"}'
AT = 1_700_000_000.9


def test_the_introductions_signature() -> None:
    """The printed formula, spelled out, with the printed time; the body of a GET is empty."""
    text = "my secret+my token+POST+" + URL + '+{"data":"test"}+1700000000'
    sent = signed_headers(Scheme.INTRODUCTION, KEYS, Signable("POST", URL, BODY), AT, sandbox=True)

    assert sent == {
        "Authorization": "Bearer my token",
        "auth-signature": hashlib.sha512(text.encode()).hexdigest(),
        "Timestamp": "1700000000",
    }
    empty = hashlib.sha512(f"my secret+my token+GET+{URL}++1700000000".encode()).hexdigest()
    assert signature(Scheme.INTRODUCTION, KEYS, Signable("GET", URL), "1700000000") == empty


def test_the_endpoints_signature() -> None:
    """The same formula under the headers of the endpoints, with date and time in UTC."""
    text = "my secret+my token+POST+" + URL + '+{"data":"test"}+2023-11-14 22:13:20'
    sent = signed_headers(Scheme.ENDPOINTS, KEYS, Signable("POST", URL, BODY), AT, sandbox=True)

    assert sent == {
        "auth-apiKey": "pk_test_37",
        "auth-timestamp": "2023-11-14 22:13:20",
        "auth-token": "my token",
        "auth-signature": hashlib.sha512(text.encode()).hexdigest(),
    }


def test_the_present_pages_signature() -> None:
    """Keyed, without signs between; of a POST the address without its query; the sandbox is named, and only it."""
    text = "my secretpk_test_37POST" + URL + '{"data":"test"}1700000000'
    signed = hmac.new(b"my secret", text.encode(), "sha512").hexdigest()
    for query in ("", "?a=1"):
        sent = signed_headers(Scheme.HMAC, KEYS, Signable("POST", URL + query, BODY), AT, sandbox=True)
        assert (sent["auth-signature"], sent["auth-timestamp"], sent["sandbox"]) == (signed, "1700000000", "true")
    assert "sandbox" not in signed_headers(Scheme.HMAC, KEYS, Signable("POST", URL, BODY), AT, sandbox=False)
    text = "my secretpk_test_37GET" + URL + "?a=11700000000"
    got = signature(Scheme.HMAC, KEYS, Signable("GET", URL + "?a=1"), "1700000000")
    assert got == hmac.new(b"my secret", text.encode(), "sha512").hexdigest()


def test_the_schemes_are_called_as_people_write_them() -> None:
    """In the configuration."""
    assert [scheme.value for scheme in Scheme] == ["introduction", "endpoints", "hmac"]


def test_what_signs_is_not_shown() -> None:
    """Neither the keys nor the body of a call."""
    assert repr(KEYS) == "Keys()"
    for text in (repr(KEYS), repr(Signable("POST", URL, BODY))):
        assert "my" not in text and "pk" not in text and "test" not in text
