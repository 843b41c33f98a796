"""Senfenico's language when transfers are asked for, pure: bodies out, and what each word of the answer proves.

What surrounds every answer is in `envelope.py`, numbers are in `figures.py`, transfers as they are shown are in
`shown.py`. Nothing here speaks to the network. It promises that the HTTP status never makes a payout paid or failed
(the body decides), that a word the document does not list never does either, and that nothing an answer says reaches a
message with a key or a full phone number in it. Called by `client.py` and `adapter.py`.

Source of every fact, unless another is named: Senfenico API document, read 2026-11-20; sections in NOTES.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from payout_engine.domain.errors import AmbiguousError
from payout_engine.domain.model import Receipt, mask
from payout_engine.domain.states import State
from payout_engine.providers._http import HttpAnswer
from payout_engine.providers.senfenico.envelope import (
    DOUBTS,
    RefusedItem,
    RefusedOrder,
    decoded,
    said,
    scrubbed,
    succeeded,
)
from payout_engine.providers.senfenico.figures import exact_amount

CURRENCY = "XOF"
COUNTRY_DIGITS = "226"
PHONE_DIGITS = 8
BATCH_LIMIT = 100
CALLS_PER_SECOND = 5.0

BALANCE_KEYS: Mapping[str, str] = {
    "orange_bf": "orange_money_bf",
    "moov_bf": "moov_money_bf",
    "sank_bf": "sank_money_bf",
}
"""Wallet code to the key of its balance: the document spells them differently."""


def _spelled(ranges: str) -> tuple[str, ...]:
    """Spell out ranges such as `04-07`, as the document prints them."""
    spans = [span.split("-") for span in ranges.split()]
    return tuple(f"{prefix:02d}" for first, last in spans for prefix in range(int(first), int(last) + 1))


PREFIXES: Mapping[str, Sequence[str]] = {
    "orange_bf": _spelled("04-07 54-57 64-67 74-77"),
    "moov_bf": _spelled("01-03 50-53 60-63 70-73"),
}
"""Wallet code to the beginnings of the numbers it may be paid at, where the document prints them. It prints no 44-46,
which numbering plans give to Orange. Source: section "Note on Provider Constraints"."""

_ByKey = dict[str | msgspec.UnsetType, Receipt]

_FUNDS_WORDS = "insufficient balance"
_FIELDS = frozenset({"amount", "recipient_phone", "recipient_wallet", "ext_id"})
_QUEUED = re.compile(r"\s*(\d{1,9}) transfers? queued")


# --------------------------------------------------------------------------------------------------------- messages


class Order(msgspec.Struct, frozen=True, gc=False):
    """One transfer to make, as the document spells it. Its repr shows no full phone.

    Attributes:
        amount: in whole francs, 100 at the least.
        recipient_phone: 8 digits without the country code.
        recipient_wallet: where the money lands; left out, Senfenico chooses by the number.
        ext_id: the caller's own id, repeated back; left out, nothing tells one transfer of a bulk call from another.

    The adapter leaves neither out.
    """

    amount: int
    recipient_phone: str
    recipient_wallet: str | msgspec.UnsetType = msgspec.UNSET
    ext_id: str | msgspec.UnsetType = msgspec.UNSET

    def __repr__(self) -> str:
        return f"Order({self.ext_id!r}, {self.amount}, to={mask(self.recipient_phone)!r})"


class BulkAnswer(msgspec.Struct, frozen=True):
    """A bulk answer whose envelope was understood.

    Attributes:
        queued: the number in the message "N transfers queued for processing", or None if it names none.
        refused: the transfers that were not queued, or None if the answer holds no such list.
        accepted: the envelope's `status`.
    """

    accepted: bool
    queued: int | None
    refused: Sequence[RefusedItem] | None


class _Bulk(msgspec.Struct, frozen=True):
    transfers: Sequence[Order]


_ENCODER = msgspec.json.Encoder()


def single_body(order: Order) -> bytes:
    """Return the body that asks for one transfer."""
    return _ENCODER.encode(order)


def bulk_body(orders: Sequence[Order]) -> bytes:
    """Return the body that asks for many transfers in one call."""
    return _ENCODER.encode(_Bulk(orders))


# ------------------------------------------------------------------------------------------------------- paying


def read_bulk(answer: HttpAnswer) -> BulkAnswer:
    """Understand the answer to a bulk call.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    envelope = decoded(answer)
    if envelope.status or not envelope.failed_transfers:
        succeeded(envelope, answer)
    elif envelope.error_code is not None and DOUBTS.get(envelope.error_code) is None:
        raise AmbiguousError("answer_disagrees", f"Senfenico refused the call and some of its items: {said(envelope)}")
    found = _QUEUED.match(envelope.message)
    return BulkAnswer(envelope.status, int(found[1]) if found else None, envelope.failed_transfers)


_ACCEPTED = Receipt(State.ACCEPTED)
_DISAGREES = Receipt(
    State.UNKNOWN, "answer_disagrees", "Senfenico's answer does not say clearly what became of this transfer"
)


def receipts(orders: Sequence[Order], bulk: BulkAnswer) -> Sequence[Receipt]:
    """Return one receipt per order, in order.

    A refusal is believed if it repeats our ext_id, amount and phone, once, and if the number of queued transfers
    leaves room for it. The rest are accepted if that number agrees too, and otherwise unknown: accepted and unknown
    are both looked up later, and neither is ever sent again without proof.
    """
    if bulk.accepted and bulk.refused == [] and bulk.queued in (None, len(orders)):
        return [_ACCEPTED] * len(orders)
    refused, understood = _matched(orders, bulk.refused or ())
    if bulk.queued is not None and bulk.queued + len(refused) > len(orders):
        # It says queued of a transfer that it also says it refused.
        refused, understood = {}, False
    if not bulk.accepted:
        # Nothing was queued, says the envelope; it is believed only of the items that say so too.
        agrees = False
    elif bulk.queued is None:
        agrees = understood and bulk.refused is not None
    else:
        agrees = understood and bulk.queued + len(refused) == len(orders)
    rest = _ACCEPTED if agrees else _DISAGREES
    return [refused.get(order.ext_id, rest) for order in orders]


def _matched(orders: Sequence[Order], items: Sequence[RefusedItem]) -> tuple[_ByKey, bool]:
    """Return the clearly refused by ext_id, and whether every item was understood."""
    by_key = {order.ext_id: order for order in orders}
    refused: _ByKey = {}
    doubted: set[str] = set()
    understood = True
    for item in items:
        key = item.data.ext_id or ""
        order = by_key.get(key)
        receipt = _item_receipt(item)
        if order is None or key in refused or receipt is None or not _repeats(item.data, order):
            understood = False
            doubted.add(key)
        else:
            refused[key] = receipt
    return {key: receipt for key, receipt in refused.items() if key not in doubted}, understood


def _repeats(data: RefusedOrder, order: Order) -> bool:
    """Whether a refused item speaks of this order. The wallet may come back as null even where it was named."""
    return (
        exact_amount(data.amount) == order.amount
        and data.recipient_phone == order.recipient_phone
        and data.recipient_wallet in (None, order.recipient_wallet)
    )


def _item_receipt(item: RefusedItem) -> Receipt | None:
    """What the errors of one refused item prove; None when it holds none."""
    texts = [f"{field}: {text}" if field in _FIELDS else text for field, found in item.errors.items() for text in found]
    if not texts:
        return None
    message = scrubbed("; ".join(texts))
    if all(text.strip().casefold().startswith(_FUNDS_WORDS) for text in texts):
        return Receipt(State.READY, "insufficient_funds", message)
    return Receipt(State.FAILED, "refused_by_provider", message)
