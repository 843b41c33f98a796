"""Senfenico's language, pure: bodies out, answers in, and what each word about a transfer proves.

What surrounds every answer is in `envelope.py`, numbers are in `figures.py`. Nothing here speaks to the network. It
promises that the HTTP status never makes a payout paid or failed (the body decides), that a word the document does not
list never does either, and that nothing an answer says reaches a message with a key or a full phone number in it.
Called by `client.py` and `adapter.py`.

Source of every fact, unless another is named: Senfenico API document, read 2026-11-20; sections in NOTES.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from payout_engine.domain.errors import AmbiguousError
from payout_engine.domain.model import LookUpResult, Receipt, mask
from payout_engine.domain.states import State
from payout_engine.providers._http import UNREADABLE, HttpAnswer
from payout_engine.providers.senfenico.envelope import (
    DOUBTS,
    SINGLE_REFUSALS,
    Envelope,
    RefusedItem,
    RefusedOrder,
    decoded,
    read_envelope,
    said,
    scrubbed,
    succeeded,
)
from payout_engine.providers.senfenico.figures import AMOUNT_CONTRADICTION, exact_amount, floor_francs

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

STATUSES: Mapping[str, State] = {"pending": State.ACCEPTED, "success": State.PAID, "failed": State.FAILED}

OTHER_MODE: Mapping[bool, str] = {
    False: "the provider shows it in test mode (live_mode: false), but the key is a live one: no money may have moved",
    True: "the provider shows it in live mode (live_mode: true), but the key is a test key: money may have moved",
}
"""What a transfer contradicts that was made in this mode, by a key of the other one."""

_FUNDS_WORDS = "insufficient balance"
_FIELDS = frozenset({"amount", "recipient_phone", "recipient_wallet", "ext_id"})
_QUEUED = re.compile(r"\s*(\d{1,9}) transfers? queued")
_HIDDEN = re.compile(r"\d{0,6}[xX*]{2,}\d{0,4}")


# --------------------------------------------------------------------------------------------------------- messages


class Order(msgspec.Struct, frozen=True, gc=False):
    """One transfer to make, as the document spells it. Its repr shows no full phone."""

    amount: int
    recipient_phone: str
    recipient_wallet: str
    ext_id: str

    def __repr__(self) -> str:
        return f"Order({self.ext_id!r}, {self.amount}, to={mask(self.recipient_phone)!r})"


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """One transfer as a list, a fetch or a creation shows it: the keys we use. Its repr shows no full phone.

    Attributes:
        amount: the JSON value as written, since the document shows whole numbers here and strings elsewhere.
        live_mode: whether real money moves, or None where it is not said.
        created_at: as written, or None where it is not said.
    """

    reference: str
    amount: msgspec.Raw
    recipient_phone: str
    status: str
    ext_id: str | None = None
    currency: str | None = CURRENCY
    live_mode: bool | None = None
    created_at: str | None = None

    def __repr__(self) -> str:
        return f"Transfer({self.reference!r}, {self.status!r}, to={mask(self.recipient_phone)!r})"


class PlainTransfer(msgspec.Struct, frozen=True, gc=False):
    """A `Transfer` whose amount is written as a whole number, as the document's samples have it: quicker to decode."""

    reference: str
    amount: int
    recipient_phone: str
    status: str
    ext_id: str | None = None
    currency: str | None = CURRENCY
    live_mode: bool | None = None
    created_at: str | None = None

    __repr__ = Transfer.__repr__


Listed = Transfer | PlainTransfer
"""A transfer as a list shows it."""


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


class WalletBalance(msgspec.Struct, frozen=True):
    """What one wallet's transfer balance holds, in whole francs, rounded down."""

    wallet: str
    available_minor: int
    pending_minor: int


class _Bulk(msgspec.Struct, frozen=True):
    transfers: Sequence[Order]


class _Held(msgspec.Struct, frozen=True):
    available: msgspec.Raw
    pending: msgspec.Raw


class _Balances(msgspec.Struct, frozen=True):
    transfer_balances: dict[str, msgspec.Raw]


_ENCODER = msgspec.json.Encoder()
_TRANSFER = msgspec.json.Decoder(Transfer)
_BALANCES = msgspec.json.Decoder(_Balances)
_HELD = msgspec.json.Decoder(_Held)


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


def _matched(orders: Sequence[Order], items: Sequence[RefusedItem]) -> tuple[dict[str, Receipt], bool]:
    """Return the clearly refused by ext_id, and whether every item was understood."""
    by_key = {order.ext_id: order for order in orders}
    refused: dict[str, Receipt] = {}
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


# ---------------------------------------------------------------------------------------------------- looking up


def read_created(answer: HttpAnswer) -> Transfer:
    """Understand the answer to the creation of a single transfer, of which the document prints one more refusal.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    return _transfer(read_envelope(answer, SINGLE_REFUSALS))


def read_transfer(answer: HttpAnswer) -> Transfer:
    """Understand the answer to a fetch.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    return _transfer(read_envelope(answer))


def _transfer(envelope: Envelope) -> Transfer:
    try:
        return _TRANSFER.decode(envelope.data)
    except UNREADABLE:
        raise AmbiguousError(
            "answer_unreadable", "Senfenico answered with a transfer that its document does not show"
        ) from None


def live_key(api_key: str) -> bool | None:
    """Whether a key moves real money; None for one of neither documented kind."""
    return True if api_key.startswith("sk_live_") else False if api_key.startswith("sk_test_") else None


def other_mode(transfer: Listed, live: bool | None) -> bool:
    """Whether a transfer was made in the mode that the key, by its name, does not have."""
    return None not in (live, transfer.live_mode) and transfer.live_mode is not live


def results(transfers: Sequence[Listed], live: bool | None = None) -> list[LookUpResult]:
    """Return what a look-up shows of the transfers that carry an ext_id; the others cannot be ours.

    Args:
        transfers: as listed.
        live: what `live_key` says of the key that asked. A transfer of the other mode is a contradiction.
    """
    return [
        LookUpResult(
            transfer.ext_id,
            _receipt(transfer),
            _stated_amount(transfer),
            transfer.recipient_phone if transfer.recipient_phone.isdecimal() else _stated_phone(transfer),
            OTHER_MODE[not live] if transfer.live_mode is not live and other_mode(transfer, live) else "",
        )
        for transfer in transfers
        # An empty phone would agree with any: such a transfer is passed over, and stays open.
        if transfer.ext_id and len(transfer.recipient_phone) >= PHONE_DIGITS
    ]


def _receipt(transfer: Listed) -> Receipt:
    state = STATUSES.get(transfer.status)
    if state is None:
        return Receipt(State.ACCEPTED, "status_not_documented", scrubbed(transfer.status), transfer.reference)
    if state is State.FAILED:
        return Receipt(
            state, "failed_at_provider", "Senfenico states that it did not pay; it gives no reason.", transfer.reference
        )
    return Receipt(state, "", "", transfer.reference)


def _stated_phone(transfer: Listed) -> str | None:
    """The phone, or None where its digits are hidden, as the document's own samples show them (`65xxxxxx`)."""
    return None if _HIDDEN.fullmatch(transfer.recipient_phone) else transfer.recipient_phone


def _stated_amount(transfer: Listed) -> int:
    return exact_amount(transfer.amount) if transfer.currency == CURRENCY else AMOUNT_CONTRADICTION


# ------------------------------------------------------------------------------------------------------- balances


def read_balances(answer: HttpAnswer) -> Sequence[WalletBalance]:
    """Understand the balances. A wallet that the answer does not show holds nothing we know of and is left out.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    envelope = read_envelope(answer)
    try:
        shown = _BALANCES.decode(envelope.data).transfer_balances
        return [_wallet_balance(wallet, shown[key]) for wallet, key in BALANCE_KEYS.items() if key in shown]
    except (*UNREADABLE, ValueError):
        raise AmbiguousError(
            "answer_unreadable", "Senfenico answered with balances that its document does not show"
        ) from None


def _wallet_balance(wallet: str, raw: msgspec.Raw) -> WalletBalance:
    held = _HELD.decode(raw)
    return WalletBalance(wallet, floor_francs(held.available), floor_francs(held.pending))
