"""CinetPay's words: every printed sample is read, and each code proves what its document says and nothing more."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError, Brake, NotSentError, ProviderError, RefusedError
from payout_engine.domain.model import LookUpResult, Payout, Query
from payout_engine.domain.states import State
from payout_engine.journal.rules import same_recipient
from payout_engine.providers._http import HttpAnswer
from payout_engine.providers.cinetpay import codes, wire

CONTACTS_SENT = """[{
    "prefix": "225",
    "phone": "01020304",
    "name": "Test A",
    "surname": "Test B",
    "email": "testa@exemple.com"
},{
    "prefix": "225",
    "phone": "01020304",
    "name": "Test C",
    "surname": "Test D",
    "email": "testb@exemple.com"
}]"""

TRANSFERS_SENT = """[{
    "prefix": "225",
    "phone": "0102324373",
    "amount": 500,
    "client_transaction_id": "TEST-ID1",
    "notify_url": "http://yourdomain.com/transfer/notify"
}, {
    "prefix": "225",
    "phone": "0102324373",
    "amount": 2000,
    "client_transaction_id": "MYMERCHANTID2",
    "notify_url": "http://yourdomain.com/transfer/notify",
    "payment_method": "WAVECI"
}]"""

CONTACTS_AS_PRINTED = b"""{
    "code": 0,
        "message": "OPERATION_SUCCES",
        "data": [
    [
    {
    "prefix": "225",
        "phone": "53798590",
        "name": "Test A",
        "surname": "Test B",
        "email": "testa@exemple.com",
        "code": 0,
        "status": "success",
        "lot": "0044557641201530021279"
    },
    {
        "prefix": "225",
        "phone": "77895086",
        "name": "Test C",
        "surname": "Test D",
        "email": "testb@exemple.com",
    ] }
    } ]
    "code": 0,
    "status": "success",
    "lot": "0044557641201530021279"
}"""

CONTACT = {"prefix": "225", "phone": "53798590", "name": "Test A", "surname": "Test B", "email": "testa@exemple.com"}
BARE_CONTACT = {**CONTACT, "phone": "77895086", "name": "Test C", "surname": "Test D", "email": "testb@exemple.com"}
CONTACT_DONE = {**CONTACT, "code": 0, "status": "success", "lot": "0044557641201530021279"}

FIRST = {
    "prefix": "225",
    "phone": "0102324373",
    "amount": 500,
    "client_transaction_id": "TEST-ID1",
    "notify_url": "https://webhook.site/a38f92c3-7304-4540-82af-db48f06d2000",
    "code": 0,
    "status": "success",
    "treatment_status": "NEW",
    "transaction_id": "EA211005.065802.Z794810",
    "lot": "0069229938091633417082",
}
SECOND = {
    "prefix": "225",
    "phone": "0102324373",
    "amount": 350,
    "client_transaction_id": "MYMERCHANTID2",
    "notify_url": "http://93fd59a2.ngrok.io",
    "payment_method": "WAVECI",
    "code": 0,
    "status": "success",
    "treatment_status": "NEW",
    "transaction_id": "EA180627.122754.Y707825",
}

CHECKED = {
    "transaction_id": "EA180627.122753.M279245",
    "client_transaction_id": "MYMERCHANTID1",
    "lot": "0044557641201530102473",
    "amount": "500",
    "receiver": "07895086",
    "receiver_e164": "+22507895086",
    "operator": "OM",
    "sending_status": "CONFIRM",
    "transfer_valid": "Y",
    "treatment_status": "VAL",
    "comment": "Transfert effectué avec succès",
    "validated_at": "2018-06-27 12:53:26",
}

BAD_KEY = (
    '{"code": "701", "message": "INVALID_CREDENTIALS", "description": "Identifiant de connexion incorrect", "data": []}'
)
BAD_TOKEN = '{"code": "706", "message": "INVALID_TOKEN", "description": "Votre token est invalide", "data": []}'
NO_FUNDS = """{
    "code": 602,
    "message": "INSUFFICIENT_BALANCE",
    "description": "Fonds Insuffisant :disponible 4 233,00, Total de l'operation \u00e0 effectuer : 32 000,00",
    "data": []
}"""
NOTHING_FOUND = """{
     "code": 723,
    "message": "NOT_FOUND",
    "description": "Aucun element trouv\u00e9",
    "data": []
}"""

PRINTED_PREFIX = 'The prefix "XXX" belongs to a country not taken into account'
PRINTED_IP = "This IP is not allow to execute this action"

WHOLE: list[tuple[object, str, str, Brake]] = [
    (602, "INSUFFICIENT_BALANCE", "", Brake.FUNDS),
    ("701", "INVALID_CREDENTIALS", "", Brake.CREDENTIALS),
    ("702", "COULD_NOT_CREATE_TOKEN", "", Brake.PROVIDER_DOWN),
    ("703", "INVALID_USER", "", Brake.CREDENTIALS),
    ("704", "INVALID_PARAM", "", Brake.LIMIT),
    ("705", "EXPIRED_TOKEN", "", Brake.CREDENTIALS),
    ("706", "INVALID_TOKEN", "", Brake.CREDENTIALS),
    ("707", "CANT_REFRESH_TOKEN", "", Brake.CREDENTIALS),
    ("708", "NOT_ALLOWED", "", Brake.CREDENTIALS),
    (709, "EXECUTION_ERROR", PRINTED_IP, Brake.CREDENTIALS),
]
OF_ONE: list[tuple[object, str, str]] = [
    (-1, "OPERATION_ERROR", "Undefined index: country"),
    (-1, "ERROR_PM_AMOUNT", ""),
    (-1, "OPERATION_ERROR", PRINTED_PREFIX),
    (-1, "Error in the request", ""),
    (716, "DATA_NOT_VALID", ""),
    (717, "ERROR_PHONE_NOT_PARTICULAR", ""),
    (718, "JSON_PARSE_ERROR", ""),
    (719, "AMOUNT_TOO_SMALL", ""),
    (720, "AMOUNT_TOO_LARGE", ""),
    (721, "OPERATOR_NOT_AVAILABLE", ""),
    (724, "ERROR_PHONE_NOT_MY_CONTACT", ""),
    (725, "MISSING_NOTIFY_URL", ""),
    (801, "INVALID_AMOUNT", ""),
    (802, "INVALID_PHONE", ""),
]
PROVE_NOTHING: list[tuple[object, str, str]] = [
    (-1, "OPERATION_ERROR", ""),
    (-1, "OPERATION_ERROR", "Undefined index: operator"),
    (709, "EXECUTION_ERROR", ""),
    (710, "EXECUTION_ERROR", ""),
    (710, "EXECUTION_ERROR", PRINTED_IP),
    (715, "UNEXPECTED_ERROR", ""),
    (723, "NOT_FOUND", ""),
    (726, "ERROR_PHONE_ALREADY_MY_CONTACT", ""),
    (804, "OPERATOR_UNAVAILABLE", ""),
    (805, "CLIENT_TRANSACTION_ID_EXIST", ""),
    (999, "INSUFFICIENT_BALANCE", ""),
    (0, "OPERATION_SUCCESS", ""),
    (0, "INSUFFICIENT_BALANCE", ""),
]


def transfer(key: str = "TEST-ID1", amount: int = 500, phone: str = "0102324373") -> wire.Transfer:
    return wire.Transfer("225", phone, amount, "https://yourdomain.com/notify", key)


def body(code: object, message: str, description: str = "", data: object = ()) -> HttpAnswer:
    document = {"code": code, "message": message, "description": description, "data": data}
    return HttpAnswer(200, orjson.dumps(document))


def success(data: object) -> HttpAnswer:
    return body(0, "OPERATION_SUCCES", data=data)


def raised(answer: HttpAnswer, count: int) -> ProviderError:
    """What an answer to a call of so many transfers raises."""
    with pytest.raises(ProviderError) as caught:
        wire.read_sent(answer, count)
    return caught.value


def states(transfers: list[wire.Transfer], *items: object, nested: bool = True) -> list[State]:
    """What becomes of transfers by an answer that holds these items."""
    sent = wire.read_sent(success([items] if nested else list(items)), len(transfers))
    return [receipt.state for receipt in wire.receipts(transfers, sent)]


def query(key: str = "MYMERCHANTID1", phone: str = "22507895086", amount: int = 500) -> Query:
    return Query(key, "", State.UNKNOWN, clock.moment(), Payout("R", amount, "XOF", phone))


def looked_up(*transfers: Any) -> list[LookUpResult]:
    checked = wire.read_checked(success(list(transfers)))
    return wire.results(checked, {"MYMERCHANTID1": query()})


# ----------------------------------------------------------------------------------------------- the printed samples


def test_the_printed_requests_are_what_is_sent() -> None:
    """One field, a JSON array, with the printed names; what is optional is left out."""
    contacts = [
        wire.Contact("225", "01020304", "Test A", "Test B", "testa@exemple.com"),
        wire.Contact("225", "01020304", "Test C", "Test D", "testb@exemple.com"),
    ]
    url = "http://yourdomain.com/transfer/notify"
    transfers = [
        wire.Transfer("225", "0102324373", 500, url, "TEST-ID1"),
        wire.Transfer("225", "0102324373", 2000, url, "MYMERCHANTID2", "WAVECI"),
    ]

    for made, printed in ((wire.form(contacts), CONTACTS_SENT), (wire.form(transfers), TRANSFERS_SENT)):
        assert list(made) == ["data"]
        assert orjson.loads(made["data"]) == orjson.loads(printed)


def test_the_printed_login_gives_a_token() -> None:
    answer = HttpAnswer(200, b'{"code": 0, "message": "OPERATION_SUCCES", "data": {"token": "YOUR_TOKEN_HERE"}}')

    assert wire.read_token(answer) == "YOUR_TOKEN_HERE"


@pytest.mark.parametrize("token", ["", "with space", "line\nbreak", "é", None, 5])
def test_what_could_not_stand_in_a_query_is_no_token(token: object) -> None:
    """A token is one word of plain letters."""
    with pytest.raises(AmbiguousError):
        wire.read_token(success({"token": token}))


def test_the_printed_balance_is_read() -> None:
    """And the countries' own where they are told."""
    assert wire.read_balance(success({"amount": 663, "inUsing": 0, "available": 663})) == wire.Funds(663, 0, 663)
    countries = {"CI": {"available": "400.9", "inUsing": 10}, "SN": {"available": 253}}
    told = success({"amount": 663, "inUsing": 10, "available": "653.5", "countryBalance": countries})
    assert wire.read_balance(told) == wire.Funds(663, 10, 653, {"CI": (400, 10), "SN": (253, 0)})


@pytest.mark.parametrize("amount", ["NaN", "Infinity", 1e30, None, True, "x"])
def test_a_balance_that_is_no_number_is_none(amount: object) -> None:
    with pytest.raises(AmbiguousError):
        wire.read_balance(success({"amount": 1, "inUsing": 0, "available": amount}))


def test_the_printed_contacts_are_read_once_they_are_json() -> None:
    """As printed they are none; mended, the entry without a code refuses nobody."""
    with pytest.raises(AmbiguousError):
        wire.read_contacts(HttpAnswer(200, CONTACTS_AS_PRINTED), 2)
    for data in ([[CONTACT_DONE, BARE_CONTACT]], [CONTACT_DONE, BARE_CONTACT]):
        added = wire.read_contacts(success(data), 2)
        assert [one.phone for one in added] == ["53798590", "77895086"]
        assert wire.refused_contacts(added) == {}


def test_the_printed_transfers_are_accepted() -> None:
    """The second sample has no lot."""
    ours = [transfer(), transfer("MYMERCHANTID2", 350)]
    sent = wire.read_sent(success([[FIRST, SECOND]]), 2)
    receipts = wire.receipts(ours, sent)

    assert [one.lot for one in sent] == ["0069229938091633417082", None]
    assert [(receipt.state, receipt.reason) for receipt in receipts] == [(State.ACCEPTED, "")] * 2
    assert [receipt.provider_reference for receipt in receipts] == [FIRST["transaction_id"], SECOND["transaction_id"]]


def test_the_printed_look_up_is_paid() -> None:
    (seen,) = looked_up(CHECKED)

    assert (seen.key, seen.receipt.state, seen.amount_minor) == ("MYMERCHANTID1", State.PAID, 500)
    assert (seen.recipient, seen.conflict) == ("22507895086", "")
    assert seen.receipt.provider_reference == "EA180627.122753.M279245"


@pytest.mark.parametrize(
    ("printed", "reason", "brake"),
    [
        (BAD_KEY, "invalid_credentials", Brake.CREDENTIALS),
        (BAD_TOKEN, "invalid_token", Brake.CREDENTIALS),
        (NO_FUNDS, "insufficient_funds", Brake.FUNDS),
    ],
)
def test_the_printed_refusals_are_believed(printed: str, reason: str, brake: Brake) -> None:
    error = raised(HttpAnswer(200, printed.encode()), 3)

    assert isinstance(error, RefusedError) and not error.final
    assert (error.reason, error.brake) == (reason, brake)


def test_the_printed_nothing_found_shows_nothing_and_proves_nothing() -> None:
    """In answer to a payment it is a doubt."""
    answer = HttpAnswer(200, NOTHING_FOUND.encode())

    assert wire.read_checked(answer) == ()
    assert isinstance(raised(answer, 1), AmbiguousError)


# ------------------------------------------------------------------------------------------------------- whole calls


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("code", "word", "text", "brake"), WHOLE)
def test_what_refuses_a_whole_call_is_believed(code: object, word: str, text: str, brake: Brake, count: int) -> None:
    """However the code is written, and however many transfers the call held; with the brake that stops the next one."""
    for written in (str(code), int(str(code))):
        error = raised(body(written, word, text), count)
        assert isinstance(error, RefusedError) and not error.final and error.brake is brake


def test_an_address_that_is_not_allowed_is_told_with_what_to_do() -> None:
    """Whom to ask, and for what."""
    error = raised(body(709, "EXECUTION_ERROR", PRINTED_IP), 3)

    assert error.reason == "ip_not_allowed" and "support" in str(error) and "IP address" in str(error)


@pytest.mark.parametrize(("code", "word", "text"), OF_ONE)
def test_what_refuses_one_is_believed_of_one_alone(code: object, word: str, text: str) -> None:
    """Of a call of several it says nothing, and stops the account, since the next would be answered alike."""
    for written in (str(code), int(str(code))):
        alone = raised(body(written, word, text), 1)
        assert isinstance(alone, RefusedError) and alone.final
        several = raised(body(written, word, text), 2)
        assert isinstance(several, AmbiguousError) and several.brake is Brake.LIMIT


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("code", "word", "text"), PROVE_NOTHING)
def test_what_proves_nothing_is_a_doubt(code: object, word: str, text: str, count: int) -> None:
    """Also of a call of one."""
    assert isinstance(raised(body(code, word, text), count), AmbiguousError)


@pytest.mark.parametrize(("code", "word", "text"), [(*row[:3],) for row in WHOLE] + OF_ONE)
def test_a_code_counts_with_its_own_word_only(code: object, word: str, text: str) -> None:
    """Another word, another code, or data beside it: a doubt."""
    for wrong in (
        body(code, "zz_invented", "zz_invented"),
        body(code, word[::-1], text[::-1]),
        body(f"{code}0", word, text),
        body(f" {code}", word, text),
        body(code, word, text, data=[FIRST]),
    ):
        assert isinstance(raised(wrong, 1), AmbiguousError), wrong.body


@pytest.mark.parametrize("status", [200, 400, 403, 417, 429])
def test_the_http_status_decides_nothing_below_500(status: int) -> None:
    """A body in documented words counts under any; nothing else does."""
    assert isinstance(raised(HttpAnswer(status, NO_FUNDS.encode()), 3), RefusedError)
    assert isinstance(raised(HttpAnswer(status, b"<html>no</html>"), 3), AmbiguousError)


@pytest.mark.parametrize("printed", [NO_FUNDS, BAD_KEY])
def test_the_http_statuses_of_proxies_prove_nothing(printed: str) -> None:
    for status in (500, 502):
        error = raised(HttpAnswer(status, printed.encode()), 1)
        assert isinstance(error, AmbiguousError) and error.reason == f"http_{status}"


@pytest.mark.parametrize("text", ["", "<html>", "{}", '{"code": 706, "message": "Unauthorized"}', "[]", "null"])
def test_credentials_refused_in_other_words_are_a_doubt_that_stops_the_account(text: str) -> None:
    error = raised(HttpAnswer(401, text.encode()), 1)

    assert isinstance(error, AmbiguousError) and error.brake is Brake.CREDENTIALS
    assert isinstance(raised(HttpAnswer(401, BAD_TOKEN.encode()), 1), RefusedError)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '{"code": true, "message": "OPERATION_SUCCES"}', '{"code": 0}', '{"message": "x"}']
)
def test_a_body_that_is_not_as_printed_is_a_doubt(text: str) -> None:
    assert isinstance(raised(HttpAnswer(200, text.encode()), 1), AmbiguousError)


def test_what_prepares_a_payment_leaves_no_doubt_of_it() -> None:
    """Whatever went wrong before it, the payment was not asked for."""
    braked = codes.unsent(AmbiguousError("x", "y", brake=Brake.CREDENTIALS))
    refusal = RefusedError("x", "y")

    assert isinstance(codes.unsent(AmbiguousError("timeout", "y")), NotSentError)
    assert isinstance(braked, RefusedError) and braked.brake is Brake.CREDENTIALS
    assert codes.unsent(refusal) is refusal


def test_no_token_no_phone_and_no_address_in_what_is_kept() -> None:
    """The provider's words may repeat what nobody may read; a code's own word stays."""
    token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOjF9.abc-DEF_9"
    text = codes.shown("724", "ERROR_PHONE_NOT_MY_CONTACT", f"22507895086 {token} testa@exemple.com")

    assert text.startswith("724: ERROR_PHONE_NOT_MY_CONTACT, ")
    assert not any(secret in text for secret in ("07895086", "eyJ0", "DEF_9", "testa@"))
    shown = [transfer(), wire.Contact("225", "0102324373", "A", "B", "c@example.com"), codes.Envelope(0, token)]
    shown += [*wire.read_sent(success([FIRST]), 1), *wire.read_checked(success([CHECKED]))]
    shown += wire.read_contacts(success([CONTACT_DONE]), 1)
    assert not any(hidden in repr(shown) for hidden in ("0102324373", "07895086", "53798590", "example", "eyJ0"))


# ------------------------------------------------------------------------------------------------------------- items


def test_items_are_matched_by_our_id_nested_or_flat() -> None:
    """In any order, however deep."""
    ours = [transfer(), transfer("MYMERCHANTID2", 350)]

    assert states(ours, SECOND, FIRST) == states(ours, SECOND, FIRST, nested=False) == [State.ACCEPTED] * 2
    assert states(ours, FIRST) == [State.ACCEPTED, State.UNKNOWN]
    assert states(ours) == [State.UNKNOWN, State.UNKNOWN]


@pytest.mark.parametrize(
    "change",
    [
        {"phone": "0102324374"},
        {"prefix": "221"},
        {"amount": 505},
        {"amount": "500.5"},
        {"amount": "sNaN"},
        {"amount": None},
        {"client_transaction_id": "TEST-ID2"},
        {"client_transaction_id": None},
        {"code": None},
        {"code": False},
        {"status": "failure"},
        {"status": None},
    ],
)
def test_an_item_that_does_not_agree_is_believed_of_nobody(change: dict[str, object]) -> None:
    """Neither its success nor its refusal, and the others are believed all the same."""
    refusal = {"code": 724, "status": "ERROR_PHONE_NOT_MY_CONTACT", "transaction_id": None, "treatment_status": None}
    ours = [transfer(), transfer("MYMERCHANTID2", 350)]

    assert states(ours, {**FIRST, **change}, SECOND) == [State.UNKNOWN, State.ACCEPTED]
    assert states(ours, {**FIRST, **refusal, **change}, SECOND) == [State.UNKNOWN, State.ACCEPTED]


def test_an_id_that_comes_twice_is_believed_of_nobody() -> None:
    refusal = {**FIRST, "code": 724, "status": "ERROR_PHONE_NOT_MY_CONTACT", "transaction_id": None}

    assert states([transfer()], FIRST, refusal) == states([transfer()], FIRST, FIRST) == [State.UNKNOWN]


@pytest.mark.parametrize("amount", [500, "500", "500.00", 500.0])
def test_an_amount_is_one_however_it_is_written(amount: object) -> None:
    assert states([transfer()], {**FIRST, "amount": amount}) == [State.ACCEPTED]


@pytest.mark.parametrize("word", ["VAL", "REJ", "NOS", "", None, "zz_invented"])
def test_other_treatments_of_what_was_just_sent_are_left_to_a_look_up(word: str | None) -> None:
    """It neither paid nor failed by the answer to the payment."""
    assert states([transfer()], {**FIRST, "treatment_status": word}) == [State.ACCEPTED]


def refused_item(code: object, word: str, text: str = "", **more: object) -> dict[str, object]:
    bare = {name: value for name, value in FIRST.items() if name not in ("treatment_status", "transaction_id", "lot")}
    return {**bare, "code": code, "status": word, "description": text, **more}


@pytest.mark.parametrize(("code", "word", "text"), OF_ONE)
def test_a_refused_item_has_failed(code: object, word: str, text: str) -> None:
    """In its own words, wherever they stand; with a transaction or a treatment beside them it is in doubt."""
    assert states([transfer()], refused_item(code, word, text)) == [State.FAILED]
    assert states([transfer()], refused_item(str(code), "error", text, message=word)) == [State.FAILED]
    for doubt in (
        refused_item(code, "success", "zz_invented"),
        refused_item(code, word, text, transaction_id="EA1"),
        refused_item(code, word, text, treatment_status="NEW"),
    ):
        assert states([transfer()], doubt) == [State.UNKNOWN]


def test_an_item_without_funds_may_be_sent_again() -> None:
    sent = wire.read_sent(success([[refused_item(602, "INSUFFICIENT_BALANCE")]]), 1)
    (receipt,) = wire.receipts([transfer()], sent)

    assert (receipt.state, receipt.reason) == (State.READY, "insufficient_funds")


@pytest.mark.parametrize(("code", "word", "text"), [*PROVE_NOTHING, *[(*row[:3],) for row in WHOLE[1:]]])
def test_an_item_with_a_code_that_proves_nothing_of_it_is_in_doubt(code: object, word: str, text: str) -> None:
    """Also one that would refuse a whole call: the call was not refused."""
    assert states([transfer()], refused_item(code, word, text)) == [State.UNKNOWN]


# ---------------------------------------------------------------------------------------------------------- contacts


def test_a_contact_that_is_one_already_is_success() -> None:
    """As an item, and of a call of one; of several it does not say which."""
    answer = body(726, "ERROR_PHONE_ALREADY_MY_CONTACT")
    item = {**CONTACT, "code": "726", "status": "ERROR_PHONE_ALREADY_MY_CONTACT"}

    assert wire.refused_contacts(wire.read_contacts(success([[item]]), 1)) == {}
    assert wire.read_contacts(answer, 1) == ()
    with pytest.raises(AmbiguousError) as caught:
        wire.read_contacts(answer, 2)
    assert caught.value.reason in codes.ITEM_REASONS


def test_a_contact_that_is_refused_is_told_by_its_number() -> None:
    item = {**CONTACT, "code": 802, "status": "INVALID_PHONE"}

    refused = wire.refused_contacts(wire.read_contacts(success([[item, BARE_CONTACT]]), 2))
    assert refused == {"22553798590": "802: INVALID_PHONE"}


# -------------------------------------------------------------------------------------------------------- looking up


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        ({}, State.PAID, ""),
        ({"sending_status": "PENDING"}, State.PAID, ""),
        ({"transfer_valid": "N"}, State.ACCEPTED, "transfer_not_valid"),
        ({"transfer_valid": None}, State.ACCEPTED, "transfer_not_valid"),
        ({"transfer_valid": "y"}, State.ACCEPTED, "transfer_not_valid"),
        ({"treatment_status": "NEW"}, State.ACCEPTED, ""),
        ({"treatment_status": "REC"}, State.ACCEPTED, ""),
        ({"treatment_status": "REJ"}, State.FAILED, "rejected_by_provider"),
        ({"treatment_status": "NOS"}, State.ACCEPTED, "status_not_documented"),
        ({"treatment_status": "val"}, State.ACCEPTED, "status_not_documented"),
        ({"treatment_status": ""}, State.ACCEPTED, "status_not_documented"),
        ({"treatment_status": "NEW", "sending_status": "PENDING"}, State.ACCEPTED, "awaiting_confirmation"),
        ({"treatment_status": "NOS", "sending_status": "PENDING"}, State.ACCEPTED, "awaiting_confirmation"),
        ({"treatment_status": "NEW", "sending_status": "pending"}, State.ACCEPTED, ""),
    ],
)
def test_the_words_of_a_look_up(change: dict[str, object], state: State, reason: str) -> None:
    """Paid by VAL and Y alone, failed by REJ alone; any other word is kept for people."""
    (seen,) = looked_up({**CHECKED, **change})

    assert (seen.receipt.state, seen.receipt.reason) == (state, reason)
    if reason == "status_not_documented":
        assert seen.receipt.message == change["treatment_status"]
    if state is State.FAILED:
        assert seen.receipt.message == CHECKED["comment"]


@pytest.mark.parametrize("amount", ["505", "500.5", "0", "-500", "NaN", "sNaN", 1e30, "1E+999999999", "Infinity"])
def test_another_amount_is_never_ours(amount: object) -> None:
    (seen,) = looked_up({**CHECKED, "amount": amount})

    assert seen.amount_minor != 500


@pytest.mark.parametrize(
    "change",
    [
        {"receiver": ""},
        {"receiver": "5086"},
        {"receiver": "xxxxxxxx"},
        {"receiver": "٠٧٨٩٥٠٨٦"},
        {"receiver": None},
        {"amount": None},
        {"amount": True},
        {"treatment_status": None},
        {"transaction_id": None},
    ],
)
def test_a_transfer_that_cannot_be_compared_shows_nothing(change: dict[str, object]) -> None:
    """A look-up that cannot be read has failed: it is not one that found nothing."""
    with pytest.raises(AmbiguousError):
        looked_up({**CHECKED, **change})


def test_two_numbers_or_two_transfers_are_for_a_person() -> None:
    """A recipient stated twice must be one; and so must the transfers of an id."""
    for change in ({"receiver": "07895087"}, {"receiver_e164": "+22107895086"}, {"receiver_e164": "+225x"}):
        (seen,) = looked_up({**CHECKED, **change})
        assert seen.conflict
    both = looked_up(CHECKED, {**CHECKED, "treatment_status": "REJ", "transaction_id": "EA2"})
    assert len(both) == 2 and all(each.conflict for each in both)


def test_the_countrys_code_may_be_missing() -> None:
    """Then it is that of our recipient, so that a number that is cut short agrees with nobody's."""
    (seen,) = looked_up({**CHECKED, "receiver_e164": None})
    assert (seen.recipient, seen.conflict) == ("22507895086", "")
    short = wire.results(
        wire.read_checked(success([{**CHECKED, "receiver_e164": None}])),
        {"MYMERCHANTID1": query(phone="2250107895086")},
    )
    assert not same_recipient("2250107895086", short[0].recipient or "")


def test_the_transfers_of_others_are_passed_over() -> None:
    assert looked_up({**CHECKED, "client_transaction_id": None}, {**CHECKED, "client_transaction_id": "OTHER"}) == []
    assert len(wire.read_checked(success([[CHECKED]]))) == 1


def test_amounts_are_whole_units_of_the_countrys_currency() -> None:
    """500 is 500 francs, and 50,000 centimes where a currency has them."""
    cents = Query("MYMERCHANTID1", "", State.UNKNOWN, clock.moment(), Payout("R", 50_000, "CDF", "243812345678"))
    (seen,) = wire.results(wire.read_checked(success([CHECKED])), {"MYMERCHANTID1": cents})
    assert seen.amount_minor == 50_000
