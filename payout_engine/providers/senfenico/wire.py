"""Senfenico's language, pure: bodies out, answers in, and what each word proves.

Nothing here speaks to the network. It promises that the HTTP status never makes a payout paid or failed (the body
decides), that a word the document does not list never does either, and that nothing an answer says reaches a message
with a key or a full phone number in it. Called by `client.py` and `adapter.py`.

Source of every fact, unless another is named: Senfenico API document, read 2026-11-20; sections in NOTES.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation

import msgspec

from payout_engine.errors import AmbiguousError, Brake, ConfigError, ProviderError, RefusedError
from payout_engine.lifecycle import State
from payout_engine.model import Receipt, Sighting, mask, masked
from payout_engine.providers._http import Answer

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

STATUSES: Mapping[str, State] = {"pending": State.ACCEPTED, "success": State.PAID, "failed": State.FAILED}

TEXT_CHARS_MAX = 300
"""The provider's own words are cut to this before they are recorded."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoder raises of bytes that are not what is documented; the last, of JSON nested a thousand deep."""

AMOUNT_CONTRADICTION = -1
"""Stands for an amount that is no whole number of francs: it equals no payout's amount, so nothing is matched by it."""

_FUNDS_WORDS = "insufficient balance"
_INVALID_KEY = "invalid api key"
_FIELDS = frozenset({"amount", "recipient_phone", "recipient_wallet", "ext_id"})
_QUEUED = re.compile(r"\s*(\d{1,9}) transfers? queued")
_KEYS = re.compile(r"\b(sk_(?:test|live)_)[\w-]+")
_HIDDEN = re.compile(r"\d{0,6}[xX*]{2,}\d{0,4}")
_WHOLE = re.compile(rb"[0-9]{1,15}")
_NUMBER = re.compile(rb'"?(-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?)"?')


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
    """

    reference: str
    amount: msgspec.Raw
    recipient_phone: str
    status: str
    ext_id: str | None = None
    currency: str | None = CURRENCY

    def __repr__(self) -> str:
        return f"Transfer({self.reference!r}, {self.status!r}, to={mask(self.recipient_phone)!r})"


class RefusedOrder(msgspec.Struct, frozen=True):
    """What a bulk answer repeats of a transfer it did not queue."""

    amount: msgspec.Raw = msgspec.Raw(b"null")
    recipient_phone: str | None = None
    recipient_wallet: str | None = None
    ext_id: str | None = None

    def __repr__(self) -> str:
        return f"RefusedOrder({self.ext_id!r})"


class RefusedItem(msgspec.Struct, frozen=True):
    """One entry of `failed_transfers`: errors by field, or under `non_field_errors`."""

    data: RefusedOrder
    errors: dict[str, list[str]]


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


class Envelope(msgspec.Struct, frozen=True):
    """What every answer has in common."""

    status: bool
    message: str = ""
    error_code: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    failed_transfers: list[RefusedItem] | None = None


class _Bulk(msgspec.Struct, frozen=True):
    transfers: Sequence[Order]


class _Held(msgspec.Struct, frozen=True):
    available: msgspec.Raw
    pending: msgspec.Raw


class _Balances(msgspec.Struct, frozen=True):
    transfer_balances: dict[str, msgspec.Raw]


_ENCODER = msgspec.json.Encoder()
_ENVELOPE = msgspec.json.Decoder(Envelope)
_TRANSFER = msgspec.json.Decoder(Transfer)
_BALANCES = msgspec.json.Decoder(_Balances)
_HELD = msgspec.json.Decoder(_Held)


def single_body(order: Order) -> bytes:
    """Return the body that asks for one transfer."""
    return _ENCODER.encode(order)


def bulk_body(orders: Sequence[Order]) -> bytes:
    """Return the body that asks for many transfers in one call."""
    return _ENCODER.encode(_Bulk(orders))


# --------------------------------------------------------------------------------------------------------- refusals


class Refusal(msgspec.Struct, frozen=True):
    """What an error code proves: that nothing was created, and what that asks of us."""

    brake: Brake | None = None
    too_fast: bool = False
    final: bool = False


REFUSALS: Mapping[str, Refusal] = {
    "RATE_LIMIT_EXCEEDED": Refusal(too_fast=True),
    "INSUFFICIENT_FUNDS": Refusal(brake=Brake.FUNDS),
    "BATCH_SIZE_LIMIT_EXCEEDED": Refusal(brake=Brake.LIMIT),
    "UNSUPPORTED_PROVIDER": Refusal(final=True),
    "INVALID_DATA": Refusal(final=True),
    "INVALID_ACCOUNT": Refusal(final=True),
}
"""The codes after which nothing was created. NOTES.md, section 5, says why each is believed."""

AMBIGUOUS_CODES: frozenset[str] = frozenset(
    {
        # The document says of these "please try again later"; doing so could pay twice, since none says that
        # nothing was queued.
        "NETWORK_ERROR",
        "INTERNAL_ERROR",
        "UNKNOWN_ERROR",
        "EXTERNAL_API_ERROR",
        # Codes of other endpoints: in answer to a transfer they mean that we do not understand.
        "OTP_INVALID",
        "OTP_EXPIRED",
        "OTP_STILL_VALID",
        "CHARGE_NOT_FOUND",
        "TRANSACTION_NOT_FOUND",
        "UNAUTHORIZED_CHARGE_PROVIDER",
    }
)
"""The documented codes that prove nothing about a transfer. A code nobody documented is treated alike."""


def read_envelope(answer: Answer) -> Envelope:
    """Return the envelope of an answer that says `status: true`.

    Raises:
        RefusedError: it says, in documented words, that nothing was done.
        AmbiguousError: it is not an answer that the document describes.
    """
    return _succeeded(_decoded(answer), answer)


def _decoded(answer: Answer) -> Envelope:
    """The envelope, whatever it says."""
    if answer.status >= 500:
        raise AmbiguousError(f"http_{answer.status}", f"Senfenico answered HTTP {answer.status}")
    try:
        envelope = _ENVELOPE.decode(answer.body)
        if answer.status == 401 and not envelope.status:
            raise _invalid_key(answer)
        return envelope
    except UNREADABLE:
        if answer.status == 401:
            raise _invalid_key(answer) from None
        raise AmbiguousError(
            "answer_unreadable", f"Senfenico answered HTTP {answer.status} with a body that its document does not show"
        ) from None


def _succeeded(envelope: Envelope, answer: Answer) -> Envelope:
    """Let through what says success and nothing else."""
    if not envelope.status:
        raise _refused(envelope, answer)
    if envelope.error_code is not None:
        raise AmbiguousError("answer_disagrees", f"Senfenico answered success with the code {said(envelope)}")
    return envelope


def _refused(envelope: Envelope, answer: Answer) -> ProviderError:
    """What a `status: false` proves."""
    code = envelope.error_code
    words = said(envelope)
    if code is None:
        message = envelope.message.strip().casefold()
        if message.startswith(_INVALID_KEY) or (answer.status == 403 and "api key" in message):
            return _invalid_key(answer)
        return AmbiguousError("refusal_not_documented", f"Senfenico answered: {words}")
    refusal = REFUSALS.get(code)
    if refusal is None:
        documented = code in AMBIGUOUS_CODES
        return AmbiguousError(code.lower() if documented else "code_not_documented", f"Senfenico answered: {words}")
    return RefusedError(
        code.lower(),
        f"Senfenico refused the call: {words}",
        brake=refusal.brake,
        too_fast=refusal.too_fast,
        retry_after_seconds=answer.retry_after_seconds if refusal.too_fast else None,
        final=refusal.final,
    )


def _invalid_key(answer: Answer) -> RefusedError:
    return RefusedError(
        "invalid_api_key",
        f"Senfenico does not accept the API key of this account (HTTP {answer.status})",
        brake=Brake.CREDENTIALS,
    )


def said(envelope: Envelope) -> str:
    """The answer's own words, fit to be shown."""
    return scrubbed(f"{envelope.error_code}: {envelope.message}" if envelope.error_code else envelope.message)


def scrubbed(text: str) -> str:
    """Return `text` without keys and full phone numbers, in plain characters, and not longer than is useful."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(masked(_KEYS.sub(r"\1***", shown)).split())[:TEXT_CHARS_MAX]


# ------------------------------------------------------------------------------------------------------- paying


def read_bulk(answer: Answer) -> BulkAnswer:
    """Understand the answer to a bulk call.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    envelope = _decoded(answer)
    listed = envelope.failed_transfers and envelope.error_code not in AMBIGUOUS_CODES
    if envelope.status or not listed:
        _succeeded(envelope, answer)
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


def read_transfer(answer: Answer) -> Transfer:
    """Understand the answer to a single creation or a fetch.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    envelope = read_envelope(answer)
    try:
        return _TRANSFER.decode(envelope.data)
    except UNREADABLE:
        raise AmbiguousError(
            "answer_unreadable", "Senfenico answered with a transfer that its document does not show"
        ) from None


def sightings(transfers: Sequence[Transfer]) -> list[Sighting]:
    """Return what a look-up shows of the transfers that carry an ext_id; the others cannot be ours."""
    return [
        Sighting(transfer.ext_id, _receipt(transfer), _stated_amount(transfer), _stated_phone(transfer))
        for transfer in transfers
        # An empty phone would agree with any: such a transfer is passed over, and stays open.
        if transfer.ext_id and len(transfer.recipient_phone) >= PHONE_DIGITS
    ]


def _receipt(transfer: Transfer) -> Receipt:
    state = STATUSES.get(transfer.status)
    if state is None:
        return Receipt(State.ACCEPTED, "status_not_documented", scrubbed(transfer.status), transfer.reference)
    if state is State.FAILED:
        return Receipt(
            state, "failed_at_provider", "Senfenico states that it did not pay; it gives no reason.", transfer.reference
        )
    return Receipt(state, "", "", transfer.reference)


def _stated_phone(transfer: Transfer) -> str | None:
    """The phone, or None where its digits are hidden, as the document's own samples show them (`65xxxxxx`)."""
    return None if _HIDDEN.fullmatch(transfer.recipient_phone) else transfer.recipient_phone


def _stated_amount(transfer: Transfer) -> int:
    return exact_amount(transfer.amount) if transfer.currency == CURRENCY else AMOUNT_CONTRADICTION


def exact_amount(raw: msgspec.Raw) -> int:
    """Return a JSON amount (`500`, `"500"`, `500.0`) as whole francs, without ever making it a float.

    Returns:
        `AMOUNT_CONTRADICTION` for anything that is not a whole, positive number.
    """
    text = bytes(raw)
    if _WHOLE.fullmatch(text):
        return int(text)
    number = _decimal(text)
    if number is None or number <= 0 or number != number.to_integral_value():
        return AMOUNT_CONTRADICTION
    return int(number)


def _decimal(text: bytes) -> Decimal | None:
    """A JSON number, or a string that holds one, exactly; None for anything else or too large to be money."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    number = Decimal(found[1].decode("ascii"))
    return number if abs(number) < Decimal(10) ** 15 else None


# ------------------------------------------------------------------------------------------------------- balances


def read_balances(answer: Answer) -> Sequence[WalletBalance]:
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
    return WalletBalance(wallet, _floor_francs(held.available), _floor_francs(held.pending))


def _floor_francs(raw: msgspec.Raw) -> int:
    """Whole francs, rounded down: a fraction of a franc pays nobody."""
    number = _decimal(bytes(raw))
    if number is None:
        raise ValueError("not an amount")
    return int(number.to_integral_value(ROUND_FLOOR))


def fee_basis_points(percent: str | int | float) -> int:
    """Return a percentage as hundredths of a percent, rounded up: a fee expected too high only warns too early.

    Raises:
        ConfigError: it is not a percentage.
    """
    try:
        # A TOML number arrives as a float; its shortest text is what the user wrote, and is exact from here on.
        points = (Decimal(str(percent)) * 100).to_integral_value(ROUND_CEILING)
    except InvalidOperation:
        raise ConfigError("fee_percent must be a number, such as 1.5") from None
    if not points.is_finite() or not 0 <= points <= 10_000:
        raise ConfigError("fee_percent must be 0 to 100")
    return int(points)
