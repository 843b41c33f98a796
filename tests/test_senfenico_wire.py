"""Senfenico's words: what each answer proves, and that nothing undocumented proves anything."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payout_engine.domain.errors import AmbiguousError, Brake, ConfigError, ProviderError, RefusedError
from payout_engine.domain.model import Receipt
from payout_engine.domain.states import State
from payout_engine.providers._http import TEXT_CHARS_MAX, HttpAnswer
from payout_engine.providers.senfenico import balances, envelope, figures, shown, wire

ORDERS = [wire.Order(1_000 + n, f"7600000{n}", "orange_bf", f"key-{n}") for n in range(3)]
DOCUMENTED_CODES = {
    "BATCH_SIZE_LIMIT_EXCEEDED",
    "RATE_LIMIT_EXCEEDED",
    "UNSUPPORTED_PROVIDER",
    "OTP_INVALID",
    "OTP_EXPIRED",
    "OTP_STILL_VALID",
    "INSUFFICIENT_FUNDS",
    "INVALID_ACCOUNT",
    "NETWORK_ERROR",
    "CHARGE_NOT_FOUND",
    "INTERNAL_ERROR",
    "UNKNOWN_ERROR",
    "TRANSACTION_NOT_FOUND",
    "UNAUTHORIZED_CHARGE_PROVIDER",
    "EXTERNAL_API_ERROR",
    "INVALID_DATA",
}


def answer(document: object, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, document if isinstance(document, bytes) else orjson.dumps(document))


def refused_item(n: int, errors: dict[str, list[str]] | None = None, **other: Any) -> dict[str, Any]:
    order = ORDERS[n]
    data = {
        "amount": order.amount,
        "recipient_phone": order.recipient_phone,
        "recipient_wallet": None,
        "ext_id": order.ext_id,
        **other,
    }
    return {"data": data, "errors": {"recipient_phone": ["Not valid."]} if errors is None else errors}


def bulk(message: str, *items: dict[str, Any], status: bool = True, **other: Any) -> list[Receipt]:
    document = {"status": status, "message": message, "failed_transfers": list(items), **other}
    return list(wire.receipts(ORDERS, wire.read_bulk(answer(document))))


def states(receipts: list[Receipt]) -> list[str]:
    return [receipt.state.value for receipt in receipts]


def failure(document: object, status: int = 200) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        wire.read_bulk(answer(document, status))
    return caught.value


# --------------------------------------------------------------------------------------------------------- bodies


def test_a_bulk_body_is_what_the_document_prints() -> None:
    """Whole francs, national digits, the wallet and our key named for every transfer."""
    assert orjson.loads(wire.bulk_body(ORDERS[:1])) == {
        "transfers": [
            {"amount": 1000, "recipient_phone": "76000000", "recipient_wallet": "orange_bf", "ext_id": "key-0"}
        ]
    }


# ------------------------------------------------------------------------------------------------------- refusals


def test_every_documented_code_has_a_meaning() -> None:
    """The two tables together are the document's list, and none is in both."""
    assert set(envelope.REFUSALS) | set(envelope.DOUBTS) == DOCUMENTED_CODES
    assert not set(envelope.REFUSALS) & set(envelope.DOUBTS)


@pytest.mark.parametrize(
    ("code", "brake", "too_fast"),
    [("RATE_LIMIT_EXCEEDED", None, True), ("BATCH_SIZE_LIMIT_EXCEEDED", Brake.LIMIT, False)],
)
@pytest.mark.parametrize("status", [200, 400, 429])
def test_a_refusal_printed_for_bulk_calls_proves_that_nothing_was_done(
    code: str, brake: Brake | None, too_fast: bool, status: int
) -> None:
    """The body decides, whatever the HTTP status below 500."""
    error = failure({"status": False, "message": "no", "error_code": code}, status)

    assert isinstance(error, RefusedError)
    assert (error.brake, error.too_fast, error.final) == (brake, too_fast, False)
    assert error.reason == code.lower()


@pytest.mark.parametrize(
    ("code", "brake"),
    [
        ("INSUFFICIENT_FUNDS", Brake.FUNDS),
        ("UNSUPPORTED_PROVIDER", Brake.LIMIT),
        ("INVALID_DATA", Brake.LIMIT),
        ("INVALID_ACCOUNT", Brake.LIMIT),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_a_no_that_is_not_printed_for_bulk_calls_is_a_doubt_that_stops(code: str, brake: Brake, status: int) -> None:
    """Nobody says that none of a hundred transfers was made; so none is freed, and no other chunk follows."""
    error = failure({"status": False, "message": "no", "error_code": code}, status)

    assert isinstance(error, AmbiguousError)
    assert (error.reason, error.brake) == (code.lower(), brake)


def test_a_lack_of_funds_is_printed_for_a_single_creation_only() -> None:
    """The document's sample of the one call is no sample of the other, also when the other holds one transfer."""
    document = {"status": False, "message": "Insufficient balance for Sank BF.", "error_code": "INSUFFICIENT_FUNDS"}
    with pytest.raises(RefusedError) as single:
        shown.read_created(answer(document))
    assert single.value.brake is Brake.FUNDS
    for code in ("INVALID_DATA", "INVALID_ACCOUNT", "UNSUPPORTED_PROVIDER"):
        with pytest.raises(AmbiguousError):
            shown.read_created(answer({**document, "error_code": code}))
    with pytest.raises(AmbiguousError):
        wire.read_bulk(answer(document))
    with pytest.raises(AmbiguousError):
        shown.read_transfer(answer(document))


@pytest.mark.parametrize(
    "code",
    [*sorted(code for code, brake in envelope.DOUBTS.items() if not brake), "SOMETHING_NEW", "rate_limit_exceeded", ""],
)
def test_any_other_code_proves_nothing(code: str) -> None:
    """What says "try again later", belongs to another call, or is not documented, leaves the payouts unknown."""
    error = failure({"status": False, "message": "no", "error_code": code})

    assert isinstance(error, AmbiguousError) and error.brake is None


@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_a_key_that_is_not_accepted_frees_and_stops_in_the_documents_own_words(status: int) -> None:
    """The printed body, whatever the HTTP status."""
    error = failure({"status": False, "message": "Invalid API key"}, status)

    assert isinstance(error, RefusedError)
    assert error.brake is Brake.CREDENTIALS


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (b"<html>Unauthorized</html>", 401),
        (b"", 401),
        (b"{}", 401),
        ({"status": False, "message": "Unauthorized"}, 401),
        ({"status": False, "message": "Invalid API key", "error_code": "INVALID_DATA"}, 401),
        ({"status": False, "message": "Invalid API key", "failed_transfers": []}, 401),
        ({"status": True, "message": "Invalid API key"}, 401),
        ({"status": False, "message": "no", "error_code": "RATE_LIMIT_EXCEEDED"}, 401),
        ({"status": True, "message": "3 transfers queued for processing", "failed_transfers": []}, 401),
        ({"status": False, "message": "This API key is disabled"}, 403),
        ({"status": False, "message": "Invalid API key for this transfer"}, 200),
    ],
)
def test_other_words_about_the_key_stop_and_free_nobody(document: object, status: int) -> None:
    """A proxy's 401, or a sentence nobody printed, may come after the money moved."""
    error = failure(document, status)

    assert isinstance(error, AmbiguousError)
    assert error.brake is Brake.CREDENTIALS


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (b"<html>Forbidden</html>", 403),
        (b"<html>Too many</html>", 429),
        (b"<html>Bad gateway</html>", 502),
        ({"status": True, "message": "3 transfers queued for processing", "failed_transfers": []}, 500),
        ({"status": False, "message": "Invalid API key"}, 500),
        ({"status": False, "message": "no", "error_code": "RATE_LIMIT_EXCEEDED"}, 503),
        (b"", 200),
        (b"null", 200),
        (b'{"status": true', 200),
        (b'{"status": "true", "message": "3 transfers queued"}', 200),
        (b'{"status": 1}', 200),
        (b"\xff\xfe", 200),
        ({"status": False, "message": "Something else"}, 400),
        ({"status": True, "message": "3 transfers queued", "error_code": "INSUFFICIENT_FUNDS"}, 200),
        ({"status": True, "message": "3 transfers queued", "failed_transfers": {"a": 1}}, 200),
    ],
)
def test_what_the_document_does_not_show_is_ambiguous(document: object, status: int) -> None:
    """Proxies, crashes and surprises prove nothing."""
    error = failure(document, status)

    assert isinstance(error, AmbiguousError) and error.brake is None


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(100, 599))
def test_noise_is_never_a_receipt(body: bytes, status: int) -> None:
    """Random bytes raise one of our errors, and never one that says nothing was done."""
    with pytest.raises(AmbiguousError):
        wire.read_bulk(HttpAnswer(status, body))


# --------------------------------------------------------------------------------------------------- bulk answers


def test_all_queued_is_all_accepted_and_costs_one_receipt() -> None:
    """The plain case shares one receipt."""
    receipts = bulk("3 transfers queued for processing")

    assert states(receipts) == ["accepted"] * 3
    assert receipts[0] is receipts[2]


def test_refused_items_are_matched_by_ext_id() -> None:
    """The answer's order does not matter; the field and the words are kept."""
    receipts = bulk("1 transfers queued for processing", refused_item(2), refused_item(0))

    assert states(receipts) == ["failed", "accepted", "failed"]
    assert (receipts[0].reason, receipts[0].message) == ("refused_by_provider", "recipient_phone: Not valid.")


def test_a_refused_item_may_repeat_the_wallet() -> None:
    """Ours, or none; another one is another transfer."""
    ours = bulk("2 transfers queued", refused_item(0, recipient_wallet=ORDERS[0].recipient_wallet))
    assert states(ours) == ["failed", "accepted", "accepted"]
    other = bulk("2 transfers queued", refused_item(0, recipient_wallet="another"))
    assert states(other) == ["unknown"] * 3


def test_an_item_without_funds_stays_ready() -> None:
    """The document's own words for it."""
    text = "Insufficient balance for Moov BF transfer including fees."
    receipts = bulk("2 transfers queued for processing", refused_item(1, {"non_field_errors": [text]}))

    assert states(receipts) == ["accepted", "ready", "accepted"]
    assert receipts[1].reason == "insufficient_funds"


def test_an_item_without_funds_that_is_also_wrong_has_failed() -> None:
    """A top-up would not mend it."""
    errors = {"non_field_errors": ["Insufficient balance for Moov BF."], "amount": ["Too small."]}

    assert states(bulk("2 transfers queued", refused_item(1, errors)))[1] == "failed"


@pytest.mark.parametrize(
    "item",
    [
        refused_item(1, ext_id="somebody else"),
        refused_item(1, ext_id=None),
        refused_item(1, amount=1),
        refused_item(1, amount="1001.5"),
        refused_item(1, recipient_phone="70000000"),
        refused_item(1, recipient_wallet="moov_bf"),
        refused_item(1, {}),
    ],
)
def test_an_item_that_does_not_repeat_ours_makes_the_rest_unknown(item: dict[str, Any]) -> None:
    """Somebody was refused, and we cannot say who: nobody is accepted, and nobody is sent again."""
    assert states(bulk("2 transfers queued for processing", item)) == ["unknown"] * 3


def test_an_item_listed_twice_is_not_believed() -> None:
    """Two refusals of one transfer are a contradiction."""
    assert states(bulk("1 transfers queued", refused_item(1), refused_item(1))) == ["unknown"] * 3


def test_a_number_too_small_makes_the_rest_unknown() -> None:
    """One of them was not queued; the clear refusal stays."""
    assert states(bulk("1 transfers queued for processing", refused_item(0))) == ["failed", "unknown", "unknown"]


def test_a_number_that_leaves_no_room_for_the_refusal_makes_all_unknown() -> None:
    """Three queued of three contradicts one refused: it may have been paid."""
    assert states(bulk("3 transfers queued for processing", refused_item(0))) == ["unknown"] * 3


def test_a_message_without_a_number_is_not_held_against_the_answer() -> None:
    """Accepted is not paid: the list of transfers has the last word."""
    assert states(bulk("Queued")) == ["accepted"] * 3
    assert states(bulk("Queued", refused_item(0))) == ["failed", "accepted", "accepted"]


def test_an_answer_without_number_and_list_says_nothing() -> None:
    """Success alone does not say of what."""
    plain = wire.read_bulk(answer({"status": True, "message": "OK"}))
    counted = wire.read_bulk(answer({"status": True, "message": "3 transfers queued for processing"}))

    assert states(list(wire.receipts(ORDERS, plain))) == ["unknown"] * 3
    assert states(list(wire.receipts(ORDERS, counted))) == ["accepted"] * 3


def test_a_refusal_of_the_call_that_lists_items_is_believed_item_by_item() -> None:
    """What it lists is refused, the rest is unknown."""
    everything = [refused_item(n) for n in range(3)]

    assert states(bulk("No", *everything, status=False)) == ["failed"] * 3
    assert states(bulk("No", *everything[:2], status=False)) == ["failed", "failed", "unknown"]
    assert states(bulk("No", *everything, status=False, error_code="INVALID_DATA")) == ["failed"] * 3
    for code in ("INTERNAL_ERROR", "SOMETHING_NEW", "RATE_LIMIT_EXCEEDED"):
        with pytest.raises(AmbiguousError):
            bulk("No", *everything, status=False, error_code=code)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2), max_size=5),
    st.integers(0, 6),
    st.sampled_from([{"amount": 7}, {"ext_id": "x"}, {}]),
)
def test_what_is_not_clearly_refused_is_never_ready_or_failed(
    refused: list[int], queued: int, spoiled: dict[str, Any]
) -> None:
    """However the answer contradicts itself, only a payout that it names is released."""
    receipts = bulk(f"{queued} transfers queued", *(refused_item(n, None, **spoiled) for n in refused))

    for n, receipt in enumerate(receipts):
        if n not in refused or spoiled:
            assert receipt.state in (State.ACCEPTED, State.UNKNOWN)
        assert receipt.state is not State.PAID


# --------------------------------------------------------------------------------------------------------- look-ups


def transfer(**other: Any) -> shown.Transfer:
    document = {
        "reference": "tr_1",
        "amount": 1000,
        "fees": "1.50",
        "currency": "XOF",
        "status": "pending",
        "recipient_phone": "76000000",
        "ext_id": "key-0",
        **other,
    }
    return shown.read_transfer(answer({"status": True, "message": "m", "data": document}))


@pytest.mark.parametrize(("word", "state"), [("pending", "accepted"), ("success", "paid"), ("failed", "failed")])
def test_the_documented_statuses(word: str, state: str) -> None:
    """Three words; for a failure there is none but ours."""
    (result,) = shown.results([transfer(status=word)])

    reason = "failed_at_provider" if state == "failed" else ""
    assert (result.receipt.state, result.receipt.reason) == (State(state), reason)
    assert result.receipt.provider_reference == "tr_1"
    assert (result.key, result.amount_minor, result.recipient) == ("key-0", 1000, "76000000")


@settings(deadline=None)
@given(st.text().filter(lambda word: word not in shown.STATUSES))
def test_any_other_status_is_accepted_and_says_which(word: str) -> None:
    """Success, SUCCESS, reversed, paid: none of them is documented."""
    (result,) = shown.results([transfer(status=word)])

    assert result.receipt.state is State.ACCEPTED
    assert result.receipt.reason == "status_not_documented"
    assert result.receipt.message == envelope.scrubbed(word)


@pytest.mark.parametrize(
    ("key", "live_mode", "contradicts"),
    [
        ("sk_live_a", True, False),
        ("sk_live_a", False, True),
        ("sk_live_a", None, False),
        ("sk_test_a", True, True),
        ("sk_test_a", False, False),
        ("another", True, False),
        ("another", False, False),
    ],
)
def test_a_transfer_of_the_other_mode_is_a_contradiction(key: str, live_mode: bool | None, contradicts: bool) -> None:
    """A live key's payout is not paid by a transfer in test mode, and the other way round."""
    (result,) = shown.results([transfer(status="success", live_mode=live_mode)], shown.live_key(key))

    assert bool(result.conflict) is contradicts
    assert ("test mode" in result.conflict) is (contradicts and key == "sk_live_a")


@pytest.mark.parametrize("live", [True, False, None])
@pytest.mark.parametrize("live_mode", [True, False, None])
def test_what_is_not_known_is_no_other_mode(live: bool | None, live_mode: bool | None) -> None:
    """Two modes differ where both are known and are not the same."""
    assert shown.other_mode(transfer(live_mode=live_mode), live) is ({live, live_mode} == {True, False})


def test_an_ordinary_verdict_comes_without_words() -> None:
    """With the provider's reference, and nothing that reads like a reason."""
    (result,) = shown.results([transfer(status="success")])
    assert result.receipt == Receipt(State.PAID, provider_reference="tr_1")


@pytest.mark.parametrize("other", [{"ext_id": None}, {"ext_id": ""}, {"recipient_phone": ""}])
def test_a_transfer_that_cannot_be_matched_is_passed_over(other: dict[str, Any]) -> None:
    """Without our key it is not ours; an empty phone would agree with any."""
    assert shown.results([transfer(**other)]) == []


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        (b"500", 500),
        (b'"500"', 500),
        (b"500.0", 500),
        (b'"500.00"', 500),
        (b"5e2", 500),
        (b"9007199254740993.0", -1),
        (b"900719925474099.0", 900719925474099),
        (b"500.5", -1),
        (b"-500", -1),
        (b"0.0", -1),
        (b"null", -1),
        (b'"NaN"', -1),
        (b"1.0", 1),
        (b"0.5", -1),
        (b'"1_000"', -1),
        (b'"1,000"', -1),
        (b'""', -1),
        (b"1e99", -1),
        (b"[500]", -1),
        (b"true", -1),
    ],
)
def test_amounts_are_exact_or_agree_with_nothing(written: bytes, amount: int) -> None:
    """No float, no guess: an odd amount contradicts every payout."""
    assert figures.exact_amount(msgspec.Raw(written)) == amount


@pytest.mark.parametrize(
    ("number", "amount"), [(1, 1), (500, 500), (0, -1), (-5, -1), (10**15 - 1, 10**15 - 1), (10**15, -1), (10**20, -1)]
)
def test_a_number_that_is_no_amount_agrees_with_nothing(number: int, amount: int) -> None:
    """Also where a decoder found nothing but digits."""
    assert figures.exact_amount(number) == amount


def test_another_currency_agrees_with_nothing() -> None:
    """A thousand euros are not a thousand francs."""
    assert shown.results([transfer(currency="EUR")])[0].amount_minor == figures.AMOUNT_CONTRADICTION


# --------------------------------------------------------------------------------------------------- odds and ends


def test_balances_are_read_exactly_and_rounded_down() -> None:
    """The document prints floats; the text is what counts."""
    held = {"orange_money_bf": {"available": 1234.99, "pending": 0.0}, "moov_money_bf": {"available": 7, "pending": 1}}
    data = {"collection_balances": {"available": 1.0}, "transfer_balances": {"total_available": 0.0, **held}}

    shown = balances.read_balances(answer({"status": True, "message": "m", "data": data}))

    assert shown == [balances.WalletBalance("orange_bf", 1234, 0), balances.WalletBalance("moov_bf", 7, 1)]


@pytest.mark.parametrize(
    "data", [None, {}, {"transfer_balances": {"orange_money_bf": {"available": "a", "pending": 0}}}]
)
def test_unreadable_balances_are_an_error(data: object) -> None:
    """Nothing is guessed to be zero."""
    with pytest.raises(AmbiguousError):
        balances.read_balances(answer({"status": True, "message": "m", "data": data}))


@pytest.mark.parametrize(
    ("percent", "points"), [("1.5", 150), (1.5, 150), (2, 200), ("0", 0), ("0.29", 29), (1.005, 101), ("100", 10_000)]
)
def test_a_fee_becomes_basis_points(percent: str | int | float, points: int) -> None:
    """As written, and rounded up beyond a hundredth of a percent."""
    assert figures.fee_basis_points(percent) == points


@pytest.mark.parametrize("percent", ["", "a", "-1", "NaN", "Infinity", "100.01", -0.1])
def test_what_is_no_fee_is_refused(percent: str | float) -> None:
    """A configuration mistake is told before anything is planned."""
    with pytest.raises(ConfigError):
        figures.fee_basis_points(percent)


def test_no_phone_and_no_key_in_what_is_kept() -> None:
    """The provider's words are recorded and shown, so they are cleaned first."""
    text = envelope.scrubbed("63000001 and 22670123456\nare wrong, sk_live_abc-123 too " + "x" * 1_000)

    assert "63000001" not in text and "70123456" not in text and "abc-123" not in text
    assert "\n" not in text and len(text) <= TEXT_CHARS_MAX
    assert "76000000" not in repr(ORDERS[0]) + repr(transfer())


def test_a_masked_phone_says_nothing_and_a_wrong_one_contradicts() -> None:
    """The document's samples mask phones; a list that does so must not make every payout a contradiction."""
    raw = msgspec.Raw(b"100")
    masked, wrong, short = (
        shown.Transfer("tr_1", raw, phone, "success", "k-1-0") for phone in ("65xxxxxx", "70123456", "6xxx")
    )

    assert [result.recipient for result in shown.results([masked, wrong])] == [None, "70123456"]
    for other in ("+22670123456", "70 12 34 56", "65xxxx5x"):
        (result,) = shown.results([shown.Transfer("tr_1", raw, other, "success", "k-1-0")])
        assert result.recipient == other, "what is neither hidden nor ours contradicts"
    assert shown.results([short]) == []
