"""CinetPay's language, pure: what is sent, what comes back, and what each word of it proves about a payout.

Nothing here speaks to the network. It promises that an answer is believed of a payout only where id, phone and amount
agree, and that a word the document does not list never pays and never fails anybody. What surrounds the answers is in
`codes.py`. Called by `client.py` and `adapter.py`.

Source of every fact, unless another is named: CinetPay transfer document, read 2026-11-20; see NOTES.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import TypeVar

import msgspec

from payout_engine.domain.countries import country_of
from payout_engine.domain.errors import AmbiguousError
from payout_engine.domain.model import LookUpResult, Query, Receipt, mask
from payout_engine.domain.money import SCALES
from payout_engine.domain.states import State
from payout_engine.providers._http import UNREADABLE, HttpAnswer, fit_to_show
from payout_engine.providers.cinetpay.codes import (
    ALREADY_CONTACT,
    ALREADY_CONTACT_WORD,
    NOT_FOUND,
    NOT_FOUND_WORD,
    OK_CODE,
    decoded,
    reason_of,
    refusal_of,
    shown,
    succeeded,
)

BATCH_LIMIT = 100
"""No limit is documented; this is the engine's own."""

MULTIPLE_OF = 5
"""Amounts are multiples of this, in whole units. Source: section "Good to know"."""

TOKEN_SECONDS = 300.0
"""How long a token lives. Source: section "How to generate a token"."""

WAVE: Mapping[str, str] = {"CI": "WAVECI", "SN": "WAVESN"}
"""By country, the wallet that a transfer may name. Source: section "Wallet Available"."""

PHONE_DIGITS_MIN = 8
"""A shorter number is nobody's: the document's shortest have eight digits."""

_AMOUNT_MAX = 10**15
_CONFLICTING_NUMBERS = "the provider states two numbers for its recipient that cannot be the same"
_CONFLICTING_AMOUNT = -1  # equals no payout's amount

T = TypeVar("T")


# ------------------------------------------------------------------------------------------------------------- asking


class Contact(msgspec.Struct, frozen=True):
    """Somebody who may be paid, as the document spells it. Its repr shows nobody.

    Attributes:
        prefix: the country's dial code, without a sign before it.
        phone: the national number.
        name: the family name.
        surname: the first name.
    """

    prefix: str
    phone: str
    name: str
    surname: str
    email: str

    def __repr__(self) -> str:
        return f"Contact({self.prefix!r}, {mask(self.phone)!r})"


class Transfer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One transfer to make, as the document spells it. Its repr shows no full phone.

    Attributes:
        amount: in whole units of the country's currency.
        payment_method: the wallet, or empty: the operator of the number.
    """

    prefix: str
    phone: str
    amount: int
    notify_url: str
    client_transaction_id: str
    payment_method: str = ""

    def __repr__(self) -> str:
        return f"Transfer({self.client_transaction_id!r}, {self.amount}, to={mask(self.phone)!r})"


def form(items: Sequence[Contact] | Sequence[Transfer]) -> Mapping[str, str]:
    """Return the form that holds contacts or transfers: one field, a JSON array."""
    return {"data": msgspec.json.encode(items).decode()}


# ------------------------------------------------------------------------------------------------ tokens and balances


class Funds(msgspec.Struct, frozen=True):
    """What the transfer balance holds, in whole units, rounded down.

    Attributes:
        amount: all of it.
        in_using: what transfers that are on their way hold of it.
        available: the rest.
        by_country: the same by two-letter code, as (available, in use), where the answer tells; not in the document.
    """

    amount: int
    in_using: int
    available: int
    by_country: Mapping[str, tuple[int, int]] = {}


class _Token(msgspec.Struct, frozen=True):
    token: str


class _Held(msgspec.Struct, frozen=True, rename="camel"):
    available: Decimal
    in_using: Decimal = Decimal(0)


class _Balance(msgspec.Struct, frozen=True, rename="camel"):
    amount: Decimal
    in_using: Decimal
    available: Decimal
    country_balance: dict[str, _Held] = {}


def read_token(answer: HttpAnswer) -> str:
    """Understand the answer to a login.

    Raises:
        RefusedError, AmbiguousError: as `codes.succeeded`; also for a token that could not stand in a query.
    """
    token = _as(succeeded(decoded(answer)), _Token).token
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise _unreadable()
    return token


def read_balance(answer: HttpAnswer) -> Funds:
    """Understand the balance.

    Raises:
        RefusedError, AmbiguousError: as `codes.succeeded`.
    """
    held = _as(succeeded(decoded(answer)), _Balance)
    by_country = {code: (_floor(one.available), _floor(one.in_using)) for code, one in held.country_balance.items()}
    return Funds(_floor(held.amount), _floor(held.in_using), _floor(held.available), by_country)


# ----------------------------------------------------------------------------------------------------------- contacts


class AddedContact(msgspec.Struct, frozen=True):
    """What was answered of one contact. One of the document's samples has neither code nor status nor lot."""

    prefix: str = ""
    phone: str = ""
    code: int | str | None = None
    status: str = ""
    lot: str | None = None

    def __repr__(self) -> str:
        return f"AddedContact({self.prefix!r}, {mask(self.phone)!r}, {self.code})"


def read_contacts(answer: HttpAnswer, count: int) -> Sequence[AddedContact]:
    """Understand the answer to `count` new contacts. That the one there is was added before is success.

    Raises:
        RefusedError, AmbiguousError: as `codes.succeeded`.
    """
    envelope = decoded(answer)
    if count == 1 and envelope.is_said(ALREADY_CONTACT, ALREADY_CONTACT_WORD):
        return ()
    return [_as(item, AddedContact) for item in _items(succeeded(envelope, count))]


def refused_contacts(added: Sequence[AddedContact]) -> Mapping[str, str]:
    """Return, by number (prefix and phone), why it is no contact now; of the others the payment itself will tell."""
    return {
        one.prefix + one.phone: shown(str(one.code), one.status)
        for one in added
        if one.code is not None and str(one.code) not in (OK_CODE, ALREADY_CONTACT)
    }


# ------------------------------------------------------------------------------------------------------------- paying


class SentTransfer(msgspec.Struct, frozen=True):
    """What was answered of one transfer. Its repr shows no full phone.

    Attributes:
        code: 0, or why it was refused.
        status: `success`, or the word that belongs to the code.
    """

    prefix: str
    phone: str
    amount: Decimal
    client_transaction_id: str
    code: int | str
    status: str = ""
    message: str = ""
    description: str | None = None
    treatment_status: str | None = None
    transaction_id: str | None = None
    lot: str | None = None

    def __repr__(self) -> str:
        return f"SentTransfer({self.client_transaction_id!r}, {self.code}, to={mask(self.phone)!r})"


def read_sent(answer: HttpAnswer, count: int) -> Sequence[SentTransfer]:
    """Understand the answer to a call of `count` transfers; what cannot be read of it is left out.

    Raises:
        RefusedError, AmbiguousError: as `codes.succeeded`.
    """
    found = []
    for item in _items(succeeded(decoded(answer), count)):
        try:
            found.append(msgspec.json.decode(item, type=SentTransfer))
        except UNREADABLE:
            continue
    return found


def receipts(transfers: Sequence[Transfer], sent: Sequence[SentTransfer]) -> list[Receipt]:
    """Return one receipt per transfer, in order. What the answer does not speak of once, and clearly, is unknown."""
    by_key = {one.client_transaction_id: one for one in sent}
    times = Counter(one.client_transaction_id for one in sent)
    return [
        _sent_receipt(by_key[key]) if times[key] == 1 and _repeats(by_key[key], transfer) else _DISAGREES
        for transfer in transfers
        for key in [transfer.client_transaction_id]
    ]


_DISAGREES = Receipt(
    State.UNKNOWN, "answer_disagrees", "CinetPay's answer does not say clearly what became of this transfer"
)
_ON_ITS_WAY = frozenset({"NEW", "REC"})


def _repeats(one: SentTransfer, transfer: Transfer) -> bool:
    return (one.prefix, one.phone, _whole(one.amount)) == (transfer.prefix, transfer.phone, transfer.amount)


def _sent_receipt(one: SentTransfer) -> Receipt:
    code, reference = str(one.code), one.transaction_id or ""
    if code == OK_CODE and one.status == "success":
        word = one.treatment_status or ""
        # Whatever the word: what became of it is said by a look-up, which says more than this.
        if word in _ON_ITS_WAY:
            return Receipt(State.ACCEPTED, provider_reference=reference)
        return Receipt(State.ACCEPTED, "status_not_documented", fit_to_show(word), reference)
    texts = (one.status, one.message, one.description or "")
    words = f"CinetPay answered: {shown(code, *texts)}"
    refusal = refusal_of(code, *texts)
    if refusal is None or reference or one.treatment_status:
        return Receipt(State.UNKNOWN, "answer_disagrees", words, reference)
    if code == "602":
        return Receipt(State.READY, reason_of(code), words)
    if refusal.whole:
        return Receipt(State.UNKNOWN, reason_of(code), words)
    return Receipt(State.FAILED, reason_of(code), words)


# --------------------------------------------------------------------------------------------------------- looking up


class CheckedTransfer(msgspec.Struct, frozen=True):
    """One transfer as a look-up shows it. Its repr shows no full phone.

    Attributes:
        receiver: the national number.
        receiver_e164: with `+` and the country's code.
        sending_status: `CONFIRM`, or `PENDING` until the account's owner has confirmed it by e-mail.
        transfer_valid: `Y`; the document shows and explains no other word.
        treatment_status: what became of it.
        validated_at: as written, or nothing.
    """

    transaction_id: str
    amount: Decimal
    receiver: str
    treatment_status: str
    client_transaction_id: str | None = None
    lot: str | None = None
    receiver_e164: str | None = None
    operator: str | None = None
    sending_status: str | None = None
    transfer_valid: str | None = None
    comment: str | None = None
    validated_at: str | None = None

    def __repr__(self) -> str:
        return f"CheckedTransfer({self.transaction_id!r}, {self.treatment_status!r}, to={mask(self.receiver)!r})"


def read_checked(answer: HttpAnswer) -> Sequence[CheckedTransfer]:
    """Understand the answer to a look-up; none where CinetPay finds none, which proves nothing.

    Raises:
        RefusedError, AmbiguousError: as `codes.succeeded`, and where any of the transfers cannot be read.
    """
    envelope = decoded(answer)
    if envelope.is_said(NOT_FOUND, NOT_FOUND_WORD):
        return ()
    return [_as(item, CheckedTransfer) for item in _items(succeeded(envelope))]


def results(checked: Sequence[CheckedTransfer], queries: Mapping[str, Query]) -> list[LookUpResult]:
    """Return what a look-up shows of the payouts that were asked about.

    Raises:
        AmbiguousError: one of them has no recipient that could be compared with ours.
    """
    times = Counter(one.client_transaction_id for one in checked)
    found = []
    for one in checked:
        key = one.client_transaction_id or ""
        if key in queries:
            recipient, conflict = _stated_recipient(one, queries[key].payout.phone)
            if times[key] > 1:
                conflict = f"the provider shows {times[key]} transfers under its id"
            whole, scale = _whole(one.amount), SCALES[queries[key].payout.currency]
            amount_minor = _CONFLICTING_AMOUNT if whole is None else whole * scale
            found.append(LookUpResult(key, _checked_receipt(one), amount_minor, recipient, conflict))
    return found


def _checked_receipt(one: CheckedTransfer) -> Receipt:
    word, reference = one.treatment_status, one.transaction_id
    comment = fit_to_show(one.comment or "")
    if word == "REJ":
        return Receipt(State.FAILED, "rejected_by_provider", comment or "CinetPay gives no reason", reference)
    if word == "VAL" and one.transfer_valid == "Y":
        return Receipt(State.PAID, provider_reference=reference)
    if one.sending_status == "PENDING":
        message = f"It waits until it is confirmed by e-mail at CinetPay ({fit_to_show(word)})"
        return Receipt(State.ACCEPTED, "awaiting_confirmation", message, reference)
    if word in _ON_ITS_WAY:
        return Receipt(State.ACCEPTED, provider_reference=reference)
    if word == "VAL":
        valid = fit_to_show(one.transfer_valid or "nothing")
        return Receipt(State.ACCEPTED, "transfer_not_valid", f"VAL, but transfer_valid says {valid}", reference)
    return Receipt(State.ACCEPTED, "status_not_documented", fit_to_show(word), reference)


def _stated_recipient(one: CheckedTransfer, ours: str) -> tuple[str, str]:
    """The number with the code of our recipient's country, and what speaks against it; all of it has to agree."""
    national, full = one.receiver, (one.receiver_e164 or "").removeprefix("+")
    if len(national) < PHONE_DIGITS_MIN or not national.isascii() or not national.isdigit():
        raise _unreadable()
    country = country_of(ours)
    stated = (country.dial_code if country else "") + national
    return stated, "" if full in ("", stated) else _CONFLICTING_NUMBERS


# ------------------------------------------------------------------------------------------------------------ reading


def _as(raw: msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNREADABLE:
        raise _unreadable() from None


def _items(raw: msgspec.Raw) -> Iterator[msgspec.Raw]:
    """The things of a list, or of the lists in it: CinetPay nests some of its answers and others not."""
    for item in _as(raw, list[msgspec.Raw]):
        if bytes(item).lstrip()[:1] == b"[":
            yield from _as(item, list[msgspec.Raw])
        else:
            yield item


def _unreadable() -> AmbiguousError:
    return AmbiguousError("answer_unreadable", "CinetPay answered success with data that its document does not show")


def _floor(amount: Decimal) -> int:
    if not amount.is_finite() or abs(amount) >= _AMOUNT_MAX:
        raise _unreadable()
    return int(amount.to_integral_value(ROUND_FLOOR))


def _whole(amount: Decimal) -> int | None:
    """An amount in whole units; None for one that is no positive whole number, or too large to be money."""
    if not amount.is_finite() or not 0 < amount < _AMOUNT_MAX or amount != amount.to_integral_value():
        return None
    return int(amount)
