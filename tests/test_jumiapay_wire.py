"""JumiaPay's language: the samples as its document prints them, and what each answer proves and does not prove."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from payout_engine.domain.errors import AmbiguousError, Brake, ProviderError, RefusedError
from payout_engine.domain.states import State
from payout_engine.providers._http import HttpAnswer
from payout_engine.providers.jumiapay import wire

CREATE_REQUEST = b"""{
  "name": "Credit 123", "description": "Example description", "amount": "10", "currency": "NGN",
  "customer_email": "[email protected]", "expiration_date": "2021-03-27T23:59:59Z",
  "callback_url": "https://example.com/callback", "partner_credit_id": "HCgfE"
}"""
"""The printed request. The document's pages hide its e-mail addresses so."""

CREATED = b"""{
  "uuid": "f74f6658-0168-447e-8b15-b468ec792278", "partner_credit_id": "HCgfE", "name": "Credit 123",
  "description": "Example description",
  "source_wallet_account_id": "AAE2wHesP7tcrYrrLccZss_XJq8FEucQsj-k_I4o2PDvwR7X2",
  "amount": {"value": 10, "currency": "NGN", "symbol": "NGN", "formatted_value": "NGN 10"},
  "usage": {"value": 0, "currency": "NGN", "symbol": "NGN", "formatted_value": "NGN 0"},
  "customer_email": "[email protected]",
  "status": {"id": "processing_delivery", "label": "Processing Delivery"},
  "in_approval": false, "expiration_date": null, "callback_url": "https://example.com/callback",
  "created": {}, "updated": {}, "submitted": {}, "approved": null, "declined": null, "cancelled": null
}"""
"""The printed answer to a creation, which is also that of both look-ups."""

CANCELLING = CREATED.replace(b"processing_delivery", b"processing_cancellation").replace(
    b'"https://example.com/callback"', b"null"
)
"""The printed answer to a cancellation, but for `cancelled`, of which only the braces are printed."""

STATUS_CHANGED = b"""{
  "type": "CREDIT_STATUS_CHANGE", "datetime": "2021-05-13T08:21:59.265720Z", "old_status": "processing_delivery",
  "new_status": "delivered", "status": null,
  "credit": {
    "uuid": "f74f6658-0168-447e-8b15-b468ec792278", "partner_credit_id": "HCgfE", "name": "Credit 123",
    "description": "Example description",
    "source_wallet_account_id": "AAE2wHesP7tcrYrrLccZss_XJq8FEucQsj-k_I4o2PDvwR7X2",
    "amount": {"value": 10, "currency": "NGN", "symbol": "NGN", "formatted_value": "NGN 10"},
    "usage": {"value": 5, "currency": "NGN", "symbol": "NGN", "formatted_value": "NGN 5"},
    "old_usage": null, "new_usage": null, "customer_email": "[email protected]",
    "status": {"id": "delivered", "label": "Delivered"}, "expiration_date": null, "error_message": null
  }
}"""

USAGE_UPDATED = b"""{
  "type": "CREDIT_USAGE_UPDATE", "datetime": "2021-05-13T08:21:59.265720Z", "status": "delivered",
  "old_status": null, "new_status": null,
  "credit": {
    "uuid": "f74f6658-0168-447e-8b15-b468ec792278", "partner_credit_id": "HCgfE", "name": "Credit 123",
    "description": "Example description",
    "source_wallet_account_id": "AAE2wHesP7tcrYrrLccZss_XJq8FEucQsj-k_I4o2PDvwR7X2",
    "amount": {"value": 10, "currency": "NGN", "symbol": "NGN"}, "formatted_value": "NGN 10", "usage": null,
    "old_usage": {"value": 10, "currency": "NGN", "symbol": "NGN", "formatted_value": "NGN 0"},
    "new_usage": {"value": 0, "currency": "NGN", "symbol": "NGN", "formatted_value": "NGN 0"},
    "customer_email": "[email protected]", "status": {"id": "delivered", "label": "Delivered"},
    "expiration_date": null, "error_message": null
  }
}"""


def credit(status: str = "delivered", *, usage: Any = ("0", "NGN"), amount: str = "10", currency: str = "NGN") -> Any:
    """The printed credit with another status, amount or usage."""
    document = msgspec.json.decode(CREATED)
    document["status"]["id"] = status
    document["amount"] = {"value": msgspec.Raw(amount.encode()), "currency": currency}
    document["usage"] = usage and {"value": msgspec.Raw(usage[0].encode()), "currency": usage[1]}
    return wire.read_credit(HttpAnswer(200, msgspec.json.encode(document)), 200)


def error_of(status: int, body: bytes = b"", *, success: int = 201) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        wire.read_credit(HttpAnswer(status, body), success)
    return caught.value


# --------------------------------------------------------------------------------------------------- printed samples


def test_the_printed_request_is_what_we_send() -> None:
    """Key for key; what is optional and not said is left out."""
    asked = wire.NewCredit(**msgspec.json.decode(CREATE_REQUEST))
    assert msgspec.json.decode(wire.body(asked)) == msgspec.json.decode(CREATE_REQUEST)
    bare = msgspec.structs.replace(asked, expiration_date=None, callback_url=None)
    assert msgspec.json.decode(wire.body(bare)).keys() == msgspec.json.decode(CREATE_REQUEST).keys() - {
        "expiration_date",
        "callback_url",
    }


@pytest.mark.parametrize(
    ("body", "success", "state"),
    [(CREATED, 201, State.ACCEPTED), (CREATED, 200, State.ACCEPTED), (CANCELLING, 200, State.PAID)],
    ids=["created", "looked_up", "cancelling"],
)
def test_the_printed_answers_are_understood(body: bytes, success: int, state: State) -> None:
    """Of each call, with the status that is printed for its success."""
    found = wire.read_credit(HttpAnswer(success, body), success)
    assert found.uuid == "f74f6658-0168-447e-8b15-b468ec792278"
    assert (found.partner_credit_id, found.name, found.in_approval) == ("HCgfE", "Credit 123", False)
    assert wire.minor_units(found.amount) == 1_000 and found.usage is not None and wire.minor_units(found.usage) == 0
    assert wire.receipt(found).state is state


@pytest.mark.parametrize(("body", "spent"), [(STATUS_CHANGED, 500), (USAGE_UPDATED, None)], ids=["status", "usage"])
def test_the_credit_of_a_printed_callback_is_understood(body: bytes, spent: int | None) -> None:
    """The simplified credit that callbacks carry, with its usage left out in one of them."""
    told = msgspec.convert(msgspec.json.decode(body)["credit"], wire.Credit)
    assert (told.partner_credit_id, told.status.id) == ("HCgfE", "delivered")
    assert (told.usage and wire.minor_units(told.usage)) == spent
    assert wire.called_about(body) == "HCgfE"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 5_000,
        b"\xff",
        CREATED,
        STATUS_CHANGED.replace(b"CREDIT_STATUS_CHANGE", b"CREDIT_INVENTED"),
        STATUS_CHANGED.replace(b'"HCgfE"', b"null"),
        STATUS_CHANGED.replace(b'"HCgfE"', b"17"),
    ],
)
def test_what_is_no_printed_callback_is_about_nothing(body: bytes) -> None:
    """Anybody may call; what is not understood leads to no question."""
    assert wire.called_about(body) == ""


# ----------------------------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ("processing_delivery", State.ACCEPTED, ""),
        ("delivered", State.PAID, ""),
        ("failed", State.FAILED, "failed_at_provider"),
        ("processing_cancellation", State.PAID, "processing_cancellation"),
        ("cancellation_failed", State.PAID, "cancellation_failed"),
        ("expiration_failed", State.PAID, "expiration_failed"),
        ("Delivered", State.ACCEPTED, "status_not_documented"),
        ("declined", State.ACCEPTED, "status_not_documented"),
        ("", State.ACCEPTED, "status_not_documented"),
    ],
)
def test_every_status_has_its_meaning(status: str, state: State, reason: str) -> None:
    """As the notes have it; a word that is not printed decides nothing and is kept."""
    said = wire.receipt(credit(status))
    assert (said.state, said.reason) == (state, reason)
    assert reason != "status_not_documented" or said.message == status


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_what_was_taken_back_is_payable_again_only_if_nothing_was_spent(status: str) -> None:
    """`reversed` means payable again, so one kobo that was spent keeps it paid, with both amounts said."""
    assert wire.receipt(credit(status)).state is State.REVERSED
    assert wire.receipt(credit(status, usage=("0.00", "NGN"))).state is State.REVERSED
    for spent in ("0.01", "9.99", "10"):
        said = wire.receipt(credit(status, usage=(spent, "NGN")))
        assert (said.state, said.reason) == (State.PAID, "partly_returned")
        assert f"of 10 NGN the customer had spent {spent}" in said.message


@pytest.mark.parametrize(
    "usage",
    [None, ("0", "KES"), ("0", "XXX"), ("-1", "NGN"), ("10.01", "NGN"), ("0.001", "NGN"), ('"NaN"', "NGN")],
    ids=str,
)
def test_what_was_taken_back_with_no_readable_usage_decides_nothing(usage: Any) -> None:
    """Not said, in another currency, negative, more than was given: neither paid nor payable again."""
    said = wire.receipt(credit("cancelled", usage=usage))
    assert (said.state, said.reason) == (State.ACCEPTED, "usage_unreadable")


# ------------------------------------------------------------------------------------------------------------ amounts


@pytest.mark.parametrize(
    ("value", "currency", "minor"),
    [
        ("10", "NGN", 1_000),
        ("100.99", "NGN", 10_099),
        ('"100.99"', "NGN", 10_099),
        ("1e3", "XOF", 1_000),
        ("10.50", "TND", 10_500),
        ("0.29", "KES", 29),
        ("10.005", "NGN", wire.AMOUNT_UNREADABLE),
        ("9.99999999999999999", "NGN", wire.AMOUNT_UNREADABLE),
        ("10.5", "XOF", wire.AMOUNT_UNREADABLE),
        ("-10", "NGN", wire.AMOUNT_UNREADABLE),
        ("1e400", "NGN", wire.AMOUNT_UNREADABLE),
        ("1e-400", "NGN", wire.AMOUNT_UNREADABLE),
        ('"Infinity"', "NGN", wire.AMOUNT_UNREADABLE),
        ("10", "JMD", wire.AMOUNT_UNREADABLE),
    ],
)
def test_amounts_are_exact_or_none(value: str, currency: str, minor: int) -> None:
    """No number is rounded to one of ours."""
    assert wire.minor_units(credit(amount=value, currency=currency).amount) == minor


def test_a_credit_in_another_currency_is_no_payout_of_ours() -> None:
    """Ten of something else is a contradiction, not an agreement."""
    seen = wire.result("key", credit(currency="KES"), "NGN")
    assert seen.amount_minor == 1_000 and "another currency (KES)" in seen.conflict
    assert not wire.result("key", credit(), "NGN").conflict


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("body", [b"", b"{}", b'{"message":"Invalid authentication credentials"}'])
def test_401_refuses_the_credentials(body: bytes) -> None:
    """The document says so of the status itself: nothing was done, and the account stops."""
    error = error_of(401, body)
    assert isinstance(error, RefusedError) and error.brake is Brake.CREDENTIALS and not error.final


@pytest.mark.parametrize("body", [b"<html>401</html>", b"401", b'"no"', b"[]", b"\xff", b"[" * 5_000])
def test_401_from_somebody_else_is_a_doubt_that_stops(body: bytes) -> None:
    """A page of a proxy says nothing of the money."""
    error = error_of(401, body)
    assert isinstance(error, AmbiguousError) and error.brake is Brake.CREDENTIALS


@pytest.mark.parametrize("status", [200, 202, 204, 301, 400, 403, 404, 409, 422, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"", b"{}", b'{"message":"Duplicated partner_credit_id"}', CREATED])
def test_every_other_answer_to_a_creation_is_a_doubt(status: int, body: bytes) -> None:
    """Also 400, which may be our own earlier call, and a credit under a status that is not printed."""
    assert isinstance(error_of(status, body), AmbiguousError)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", CREATED[:-20], b"<html></html>"])
def test_success_without_a_credit_is_a_doubt(body: bytes) -> None:
    """The printed status with a body that is not printed."""
    assert error_of(201, body).reason == "answer_unreadable"


def test_words_of_a_refusal_are_told_without_the_address() -> None:
    """The document prints none, so people get to see them, but nobody's address."""
    error = error_of(400, b'{"details":[{"message":"customer_email awa.traore@example.com is unknown"}]}')
    assert "is unknown" in str(error) and "awa.traore" not in str(error)
    assert str(error_of(500, b"<html>nginx</html>")) == "JumiaPay answered HTTP 500"


def test_no_repr_shows_the_address() -> None:
    """Neither of what is asked for nor of what is shown."""
    asked = wire.NewCredit("n", "d", "10", "NGN", "awa.traore@example.com", "HCgfE")
    shown = msgspec.structs.replace(credit(), customer_email="awa.traore@example.com")
    assert "awa.traore" not in repr(asked) + repr(shown)


@pytest.mark.parametrize("text", ["2027-03-27", "2027-03-27T23:59:59", "2027-03-27T23:59:59+01:00", "tomorrow"])
def test_an_expiry_is_written_as_printed_or_not_at_all(text: str) -> None:
    """In UTC, to the second."""
    with pytest.raises(ValueError, match=r"does not match|unconverted"):
        wire.moment_of(text)
    assert wire.moment_of("1970-01-02T00:00:00Z") == 86_400.0
