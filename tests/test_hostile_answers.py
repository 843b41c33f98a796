"""Hostile answers: whatever a provider sends, nothing but what the contract names, and nobody paid without its word."""

from __future__ import annotations

import unicodedata

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from test_hostile import CELLS, MANY

from payout_engine.domain.errors import AmbiguousError, RefusedError
from payout_engine.domain.model import Receipt
from payout_engine.domain.states import State
from payout_engine.providers._http import HttpAnswer
from payout_engine.providers.senfenico import balances, shown, wire
from payout_engine.providers.senfenico.envelope import read_envelope
from payout_engine.providers.senfenico.listing import TransferListReader

ORDERS = [wire.Order(1000 + number, f"7012345{number}", "orange_bf", f"key-{number}") for number in range(4)]
ANSWER_WORDS = st.sampled_from(
    [
        "status",
        "message",
        "data",
        "failed_transfers",
        "errors",
        "error_code",
        "ext_id",
        "amount",
        "recipient_phone",
        "key-0",
        "key-1",
        "70123450",
        "success",
        "pending",
        "failed",
        "paid",
        "INSUFFICIENT_FUNDS",
        "4 transfers queued",
        "non_field_errors",
        "transfer_balances",
        "Insufficient balance for Orange",
        "orange_money_bf",
        "available",
    ]
)
ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANSWER_WORDS | CELLS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANSWER_WORDS | CELLS, inner, max_size=5),
    max_leaves=25,
)
ENVELOPES = st.fixed_dictionaries(
    {"status": st.booleans() | ANSWERS, "message": ANSWER_WORDS | CELLS, "data": ANSWERS},
    optional={
        "error_code": ANSWER_WORDS | CELLS,
        "failed_transfers": st.lists(
            st.fixed_dictionaries({"data": ANSWERS, "errors": st.dictionaries(ANSWER_WORDS, st.lists(ANSWER_WORDS))})
        )
        | ANSWERS,
    },
)
BODIES = st.binary(max_size=200) | st.one_of(ANSWERS, ENVELOPES).map(msgspec.json.encode)
STATUSES = st.sampled_from([200, 201, 202, 204, 301, 400, 401, 403, 404, 429, 500, 502, 503, 599])
READERS = (read_envelope, wire.read_bulk, shown.read_created, shown.read_transfer, balances.read_balances)


@MANY
@given(body=BODIES, status=STATUSES)
def test_any_answer_is_understood_or_ambiguous(body: bytes, status: int) -> None:
    """Every reader of answers: a documented error, or a value; and what it says shows no control character."""
    for understand in READERS:
        try:
            understand(HttpAnswer(status, body))
        except (AmbiguousError, RefusedError) as error:
            assert "\n" not in str(error)
            assert not any(unicodedata.category(character) == "Cc" for character in str(error)), repr(str(error))


@MANY
@given(body=BODIES, status=STATUSES)
def test_no_invented_answer_to_a_payment_is_paid_or_unsent(body: bytes, status: int) -> None:
    """Whatever a bulk answer says, each order has one receipt, none is paid, and only documented words free or fail."""
    try:
        found = wire.receipts(ORDERS, wire.read_bulk(HttpAnswer(status, body)))
    except (AmbiguousError, RefusedError):
        return
    assert len(found) == len(ORDERS)
    for order, receipt in zip(ORDERS, found, strict=True):
        assert isinstance(receipt, Receipt)
        assert receipt.state in (State.ACCEPTED, State.UNKNOWN, State.FAILED, State.READY)
        if receipt.state in (State.FAILED, State.READY):
            assert str(order.ext_id).encode() in body, "a refusal is believed only of an order that it names"


@MANY
@given(
    body=BODIES
    | st.lists(ANSWERS, max_size=4).map(lambda items: b'{"status":true,"data":' + msgspec.json.encode(items)),
    status=STATUSES,
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
)
def test_any_list_in_any_pieces(body: bytes, status: int, sizes: list[int]) -> None:
    """A list of transfers, cut anywhere: transfers or a documented error."""
    reader = TransferListReader(status)
    place = turn = 0
    try:
        while place < len(body):
            size = sizes[turn % len(sizes)]
            for seen in shown.results(reader.feed(body[place : place + size])):
                assert seen.receipt.state in (State.ACCEPTED, State.PAID, State.FAILED)
            place, turn = place + size, turn + 1
        reader.close()
    except (AmbiguousError, RefusedError) as error:
        assert "\n" not in str(error)
