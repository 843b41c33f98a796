"""Unipesa's language: what is sent, what each answer of the document means, and what no answer may mean."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from payout_engine.domain.errors import AmbiguousError, Brake
from payout_engine.domain.states import State
from payout_engine.providers._http import HttpAnswer
from payout_engine.providers.unipesa import verify_callback, wire

SECRET = "unipesa_test_secret"
ORDER = wire.Order(
    order_id="16280954971628095497",
    customer_id="254000000000",
    amount="100.00",
    currency="KES",
    provider_id=14,
    country="KE",
    callback_url="https://my.callback.url",
    extra={"otp": "5647", "customer_name": "Name Lastname", "customer_email": ""},
)

SIMULATOR = {
    "order_id": "54321",
    "transaction_id": "12345",
    "transaction_ref": "",
    "status": 1,
    "result": {"code": 0, "message": "OK"},
    "provider_result": {"code": -8888, "message": "Good"},
    "service_id": 1,
    "service_version": "1.03/1.14|1.0/1.26|1.0/1.0|1.01/1.01|1.01/1.01||1.01/1.27",
    "service_date_time": "2023-05-15 10:00:00.000000",
    "confirm_type": 0,
}
"""The document's samples, as printed; their other orders end alike."""

PAID = {
    "order_id": "16280954971628095497",
    "transaction_id": "532007056722",
    "transaction_ref": "",
    "status": 2,
    "result": {"code": 0, "message": "OK"},
    "provider_result": {"code": 0, "message": "OK"},
    "service_id": 11,
    "service_version": 11.1,
    "service_date_time": "2020-11-25 10:08:32.832969",
    "confirm_type": 0,
}
SHOWN = {
    **{key: value for key, value in PAID.items() if key != "confirm_type"},
    "transaction_id": "732007046722",
    "transaction_ref": "MP.33234.342.CP33",
    "service_id": 1,
}
BANK = {
    "order_id": "90900000001",
    "transaction_id": "",
    "transaction_ref": "",
    "status": 1,
    "result": {"code": 0, "message": "OK"},
    "provider_result": {"code": -8888, "message": ""},
    "service_id": 1,
    "service_version": "1.03/1.14|1.0/2.0|1.0/1.0|1.01/1.0|1.01/2.0||1.02/1.27",
    "service_date_time": "2024-04-20 01:08:42.797957",
    "extra": {
        "transfer_amount": 100,
        "account_name": "Test Ltd / Test Limited",
        "account_number": "4000000000",
        "bank_name": "Premium Trust Bank",
    },
    "confirm_type": 0,
}


def answered(document: object, status: int = 200) -> wire.Answer:
    return wire.read_answer(HttpAnswer(status, msgspec.json.encode(document)))


def paying(document: dict[str, Any], **changes: Any) -> Any:
    """What the answer to a payment of the sample's own order says, with changes to the answer."""
    return wire.receipt(answered({**document, **changes}), document["order_id"])


def asking(document: dict[str, Any], **changes: Any) -> Any:
    """What a status call about it shows, with changes to the answer."""
    found = wire.look_up_result(answered({**document, **changes}), document["order_id"])
    return None if found is None else found.receipt


# ------------------------------------------------------------------------------------------------------------ bodies


def test_a_body_holds_texts_in_order_and_a_signature_that_verifies() -> None:
    """Sorted at every level, so that it is right for who sorts before verifying, and no value can be cast otherwise."""
    body = wire.order_body(ORDER, "e0fecd91fcb24f348048193b3fb34875ba3722b4", SECRET)
    document = msgspec.json.decode(body)

    names = [name for name in document if name != "signature"]
    assert names == sorted(names) and list(document["extra"]) == sorted(document["extra"])
    assert {type(value) for name, value in document.items() if name != "extra"} == {str}
    assert document["extra"] == {"customer_name": "Name Lastname", "otp": "5647"}
    assert document["provider_id"] == "14" and document["amount"] == "100.00"
    assert document["callback_url"] == "https://my.callback.url"
    assert verify_callback(SECRET, document) and SECRET.encode() not in body


def test_what_is_empty_is_left_out() -> None:
    """An empty text would be signed, and sent for nothing."""
    order = msgspec.structs.replace(ORDER, callback_url="", extra={})
    assert set(msgspec.json.decode(wire.order_body(order, "m", SECRET))) == {
        *("merchant_id", "customer_id", "order_id", "amount", "currency", "country", "provider_id", "signature")
    }
    assert set(msgspec.json.decode(wire.status_body("o", "m", SECRET))) == {"merchant_id", "order_id", "signature"}


def test_a_one_time_password_is_handed_in_by_a_status_call() -> None:
    """The shape of the document's own example of it."""
    body = wire.status_body("55584tty848rt", "m", SECRET, customer_id="2250768000000", otp="7374")
    document = msgspec.json.decode(body)
    assert document.pop("signature") and document == {
        "merchant_id": "m",
        "order_id": "55584tty848rt",
        "customer_id": "2250768000000",
        "extra": {"otp": "7374"},
    }


# -------------------------------------------------------------------------------------------------- printed samples


def test_the_printed_answers_to_payments() -> None:
    """The simulator's is in progress, the other two paid and awaited."""
    assert paying(SIMULATOR) == wire.receipt(answered(SIMULATOR), "54321")
    assert (paying(SIMULATOR).state, paying(SIMULATOR).provider_reference) == (State.ACCEPTED, "12345")
    assert (paying(PAID).state, paying(PAID).provider_reference) == (State.PAID, "532007056722")
    bank = paying(BANK)
    assert (bank.state, bank.reason, bank.provider_reference) == (State.ACCEPTED, "transfer_awaited", "")
    assert "100 to account 4000000000 (Test Ltd / Test Limited, Premium Trust Bank)" in bank.message


def test_the_printed_answer_to_a_status_call() -> None:
    """Paid, under the provider's own id."""
    assert (asking(SHOWN).state, asking(SHOWN).provider_reference) == (State.PAID, "732007046722")


def test_the_provider_s_reference_does_not_change_with_success() -> None:
    """`transaction_ref` comes with success only: taken for the id, it would look like a second transfer."""
    waiting = asking({**SHOWN, "transaction_ref": ""}, status=1)
    assert waiting.provider_reference == asking(SHOWN).provider_reference != SHOWN["transaction_ref"]


# ---------------------------------------------------------------------------------------------------------- statuses

LISTED = {0: State.ACCEPTED, 1: State.ACCEPTED, 2: State.PAID, 3: State.FAILED, 4: State.FAILED}


@pytest.mark.parametrize("status", [-1, *range(10), 22, 10201])
@pytest.mark.parametrize("written", [int, str])
def test_only_listed_statuses_say_something(status: int, written: type) -> None:
    """Number or text: 2 pays, 3 and 4 fail, 0 and 1 wait; all others decide nothing, and their number is kept."""
    told, shown = paying(PAID, status=written(status)), asking(SHOWN, status=written(status))
    if status in LISTED:
        assert told.state is shown.state is LISTED[status]
        return
    assert told.state is State.UNKNOWN and str(status) in told.message
    assert told.reason == ("status_undefined" if status == -1 else "status_not_documented")
    if status == -1:
        assert shown is None
    else:
        assert (shown.state, shown.reason) == (State.ACCEPTED, "status_not_documented")
        assert f"status {status}" in shown.message


@pytest.mark.parametrize("status", [2.0, True, None, "", " ", "two", "2.0", "02", [2], {"code": 2}])
def test_a_status_in_another_shape_pays_nobody(status: object) -> None:
    """Not even one that a kind language would take for 2."""
    for say in (paying, asking):
        try:
            said = say(PAID, status=status)
        except AmbiguousError:
            continue
        assert said.state in (State.UNKNOWN, State.ACCEPTED)


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("other", ["", "16280954971628095498", "16280954971628095497 ", None])
def test_another_order_than_ours_says_nothing_of_ours(status: int, other: str | None) -> None:
    """Whatever became of it."""
    assert (
        wire.receipt(answered({**PAID, "status": status, "order_id": other}), str(PAID["order_id"])).state
        is State.UNKNOWN
    )
    with pytest.raises(AmbiguousError):
        wire.look_up_result(answered({**SHOWN, "status": status, "order_id": other}), str(SHOWN["order_id"]))


# -------------------------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize("status", [-1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("code", [1, 2, 3, 10301, 10401, -8888, "10401", "zero", "", None, "00"])
def test_an_error_code_leaves_a_payment_in_doubt_and_explains_a_status(status: int, code: object) -> None:
    """The payment may have been made before the error, so even "failed" beside it is not believed."""
    result = {"code": code, "message": "MSISDN INCORRECT"}
    told = paying(PAID, status=status, result=result)
    assert told.state is State.UNKNOWN and "MSISDN INCORRECT; operator 0: OK" in told.message
    assert told.reason == ("result_missing" if code in (None, "") else f"result_{code}")
    shown = asking(SHOWN, status=status, result=result)
    assert shown is None if status == -1 else shown.state is LISTED[status]
    if status in (3, 4):
        assert "MSISDN INCORRECT" in shown.message
        assert shown.reason == ("failed_at_provider" if status == 3 else "cancelled_at_provider")


def test_zero_is_ok_as_a_number_and_as_a_text() -> None:
    """And an answer to a payment without a code says nothing."""
    assert paying(PAID, result={"code": "0"}).state is State.PAID
    results: list[Any] = [None, [], {}, "OK", {"code": False}, {"code": 0.0}, {"message": "OK"}]
    for result in results:
        assert paying(PAID, result=result).state is State.UNKNOWN


@pytest.mark.parametrize("status", [None, -1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("code", [10201, "10201", 10105])
def test_a_sender_who_is_not_accepted_is_in_doubt_and_stops(status: int | None, code: object) -> None:
    """In answer to any call, whatever status stands beside it: it may be the status of the call, not of the order."""
    with pytest.raises(AmbiguousError) as caught:
        answered({**PAID, "status": status, "result": {"code": code, "message": "MERCHANT AUTHENTICATION ERROR"}})
    assert caught.value.brake is Brake.CREDENTIALS


def test_it_is_enough_that_the_result_says_so() -> None:
    """An answer of nothing else stops as well."""
    with pytest.raises(AmbiguousError) as caught:
        answered({"result": {"code": 10201}})
    assert caught.value.brake is Brake.CREDENTIALS


@pytest.mark.parametrize("status", [401, 403])
def test_a_gateway_that_lets_nobody_in_stops_whatever_it_says(status: int) -> None:
    """Access goes by a list of addresses: the next call would fare no better."""
    with pytest.raises(AmbiguousError) as caught:
        answered(PAID, status)
    assert caught.value.brake is Brake.CREDENTIALS


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_failing_gateway_says_nothing(status: int) -> None:
    """Not even in the printed words."""
    with pytest.raises(AmbiguousError) as caught:
        answered(PAID, status)
    assert caught.value.brake is None


# ------------------------------------------------------------------------------------------------- what people must do


@pytest.mark.parametrize("confirm_type", [1, 2, "1", -1, "otp"])
@pytest.mark.parametrize("code", [0, 7])
def test_a_payment_that_waits_for_a_confirmation_is_never_sent_again(confirm_type: object, code: int) -> None:
    """Accepted, with its reason: the same order id sent again would be the confirmation, which nobody describes."""
    for status in (0, 1, 2, 3, -1, 9):
        told = paying(PAID, confirm_type=confirm_type, status=status, result={"code": code})
        assert (told.state, told.reason) == (State.ACCEPTED, "confirmation_needed")
        assert f"of kind {confirm_type}" in told.message
    shown = asking(SHOWN, confirm_type=confirm_type, status=1)
    assert (shown.state, shown.reason) == (State.ACCEPTED, "confirmation_needed")
    assert asking(SHOWN, confirm_type=confirm_type).state is State.PAID


@pytest.mark.parametrize("confirm_type", [0, "0", "", None])
def test_no_confirmation_is_needed_where_none_is_named(confirm_type: object) -> None:
    """The collecting calls' answers do not have the field."""
    assert paying(PAID, confirm_type=confirm_type).state is State.PAID


def test_the_page_to_send_the_payer_to_is_the_message() -> None:
    """Whole, since it is of no use in parts; and no longer once the order has its verdict."""
    url = "https://pay.example/order?id=732007046722&token=abcdefgh"
    for say, sample in ((paying, PAID), (asking, SHOWN)):
        said = say(sample, status=1, extra={"customer_redirect": url})
        assert (said.state, said.reason, said.message) == (State.ACCEPTED, "customer_redirect", url)
        assert say(sample, status=2, extra={"customer_redirect": url}).message == ""


@pytest.mark.parametrize(
    "url", ["", "javascript:alert(1)", "http://pay.example", "https://a b", 7, None, ["https://x"]]
)
def test_what_is_no_address_is_not_shown_as_one(url: object) -> None:
    """Somebody is going to open it."""
    said = asking(SHOWN, status=1, extra={"customer_redirect": url})
    assert (said.state, said.reason, said.message) == (State.ACCEPTED, "", "")


EXTRAS: list[object] = [
    *(None, [], {}, "text", 3),
    *({"transfer_amount": 5}, {"account_number": "1"}, {"transfer_amount": 5, "account_number": ""}),
    *({"transfer_amount": 5, "account_number": 7}, {"transfer_amount": [5], "account_number": "1"}),
    {"customer_redirect": "https://pay.example/" + "x" * wire.URL_CHARS_MAX},
]


@pytest.mark.parametrize("extra", EXTRAS)
def test_extra_in_any_other_shape_says_nothing_and_breaks_nothing(extra: object) -> None:
    """PHP writes an empty object as a list; and half of an address or an account is worse than none."""
    said = paying(PAID, status=1, extra=extra)
    assert (said.state, said.reason, said.message) == (State.ACCEPTED, "", "")


def test_a_status_call_without_a_status_shows_nothing() -> None:
    """An answer about our order that does not say how it stands is no answer."""
    for status in (None, "", " "):
        with pytest.raises(AmbiguousError):
            asking(SHOWN, status=status)
    with pytest.raises(AmbiguousError):
        wire.look_up_result(answered({"order_id": "x"}), "x")


def test_an_answer_without_an_id_of_the_provider_s_has_no_reference() -> None:
    """It may come later."""
    assert paying(PAID, transaction_id=None).provider_reference == ""
    assert paying(PAID, transaction_id=732007046722).provider_reference == "732007046722"


# ------------------------------------------------------------------------------------------------------------- privacy


def test_no_phone_and_no_control_character_reaches_a_message() -> None:
    """The provider's words may repeat whom the payment was for."""
    said = asking(SHOWN, status=3, result={"code": 10401, "message": "MSISDN 254712345678\r\nINCORRECT a@example.com"})
    assert "254712345678" not in said.message and "a@example.com" not in said.message
    assert said.message.isprintable() and "INCORRECT" in said.message
    assert "254000000000" not in repr(ORDER) and "254000000000" not in repr(answered(PAID))
