"""A bulk answer of Senfenico is believed only where all that it says agrees: the count, the refused, the envelope."""

from __future__ import annotations

from itertools import product
from typing import Any

import orjson
import pytest

from payout_engine.domain.errors import AmbiguousError
from payout_engine.domain.states import State
from payout_engine.providers._http import HttpAnswer
from payout_engine.providers.senfenico import shown, wire

ORDERS = [wire.Order(1000 + n, f"7000000{n}", "orange_bf", f"token-1-{n}") for n in range(3)]


def item(number: int, *, strange: bool = False) -> dict[str, Any]:
    """Return what the answer repeats of a refused transfer; a strange one has another amount than ours."""
    order = ORDERS[number]
    data = {"amount": order.amount + 500 * strange, "recipient_phone": order.recipient_phone, "ext_id": order.ext_id}
    return {"data": data, "errors": {"recipient_phone": ["Not valid."]}}


def answered(accepted: bool, queued: int | None, refused: list[dict[str, Any]] | None) -> wire.BulkAnswer:
    """Return an answer as it is understood."""
    told = HttpAnswer(200, orjson.dumps({"status": True, "failed_transfers": refused}))
    items = wire.read_bulk(told).refused
    return wire.BulkAnswer(accepted, queued, items)


@pytest.mark.parametrize("refused", [None, [], [item(1)], [item(1, strange=True)], [item(0), item(1), item(2)]])
def test_what_is_accepted_adds_up(refused: list[dict[str, Any]] | None) -> None:
    """Accepted: the envelope says so, every item is understood, and queued and refused are all of them."""
    for accepted, queued in product((True, False), (None, 0, 1, 2, 3, 4)):
        receipts = wire.receipts(ORDERS, answered(accepted, queued, refused))
        states = [receipt.state for receipt in receipts]
        understood = (
            [] if refused is None else [entry for entry in refused if entry["data"]["amount"] in (1000, 1001, 1002)]
        )
        believed = [] if queued is not None and queued + len(understood) > 3 else understood
        clear = believed == (refused or []) and (refused is not None or queued is not None)
        agrees = accepted and clear and queued in (None, 3 - len(believed))
        failed = {entry["data"]["ext_id"] for entry in believed}
        rest = State.ACCEPTED if agrees else State.UNKNOWN
        assert states == [State.FAILED if order.ext_id in failed else rest for order in ORDERS], (accepted, queued)
        assert {receipt.reason for receipt in receipts if receipt.state is State.UNKNOWN} <= {"answer_disagrees"}


def test_a_yes_with_a_code_is_no_yes() -> None:
    """Also where items are refused beside it; and a no with a code of the whole call frees none of the items."""
    for document in (
        {"status": True, "error_code": "X", "failed_transfers": [item(1)]},
        {"status": True, "error_code": "INSUFFICIENT_FUNDS", "failed_transfers": [item(1)]},
        {"status": False, "error_code": "INTERNAL_ERROR", "failed_transfers": [item(1)]},
    ):
        with pytest.raises(AmbiguousError) as caught:
            wire.read_bulk(HttpAnswer(200, orjson.dumps(document)))
        assert caught.value.reason == "answer_disagrees"


@pytest.mark.parametrize("data", [b"null", b"[]", b'{"amount": 1}', b'"x"'])
def test_what_is_no_transfer_is_a_doubt(data: bytes) -> None:
    """A yes without the transfer that the document shows says nothing of any transfer."""
    for read in shown.read_created, shown.read_transfer:
        with pytest.raises(AmbiguousError) as caught:
            read(HttpAnswer(200, b'{"status": true, "data": ' + data + b"}"))
        assert caught.value.reason == "answer_unreadable"


def test_the_prefixes_are_the_printed_ones() -> None:
    """From the first to the last of each range, both included, in two digits."""
    orange, moov = " ".join(wire.PREFIXES["orange_bf"]), " ".join(wire.PREFIXES["moov_bf"])
    assert orange == "04 05 06 07 54 55 56 57 64 65 66 67 74 75 76 77"
    assert moov == "01 02 03 50 51 52 53 60 61 62 63 70 71 72 73"
