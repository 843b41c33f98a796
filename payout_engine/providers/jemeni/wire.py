"""Jemeni's language, pure: bodies out, answers in, and what each word about a payment proves.

It promises that only what the document prints for a payment that was made makes one paid, that nothing makes one
failed, and that no answer frees a payment to be asked for again: the document prints no refusal and knows no
reference of ours. Nothing that an answer says reaches a message with a full phone or e-mail in it.

Source of every fact, unless another is named: Jemeni API document, read 2026-11-20; sections in NOTES.md.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from payout_engine.domain.errors import AmbiguousError, Brake
from payout_engine.domain.model import LookUpResult, Receipt, mask
from payout_engine.domain.states import State
from payout_engine.providers._http import UNREADABLE, HttpAnswer, fit_to_show

CURRENCY = "XOF"
CURRENCY_WORD = "FCFA"
COUNTRY = "ml"
COUNTRY_DIGITS = "223"
PHONE_DIGITS = 8

SUCCESS = "success"
PENDING = (1, "pending")
COMPLETED = (2, "completed")
"""The two states that the document prints, each with the word of the payment inside."""

UNSTATED = -1
"""Stands for what is no amount of whole francs: it equals no payment's."""

_GIVEN = (200, 201, 202)
"""The HTTP statuses that the document gives to an answer with content which is no refusal."""

_AMOUNT = re.compile(r"([0-9]{1,15})(?:\.0{1,4})?")

Id = str | int
"""The samples show ids as texts here and as numbers there."""

Shape = TypeVar("Shape")


class PaymentRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A payment to ask a customer for, in the order of the printed sample. Its repr shows no full phone.

    Attributes:
        customer_phone: the table says with the country code, both samples of it are eight digits without.
        amount: in whole francs.
        device: the table calls it a device, the sample holds the currency: the French word for that is "devise".
        country_code: the table calls it a number, the sample is `ml`.
        notifiable: in the sample only: the customer is told in the app.
        lang: `en` or `fr`.
        version: of the API; `v1` where it is not said.
        return_url: called or opened after the payment.
    """

    customer_phone: str
    amount: int
    device: str | msgspec.UnsetType = CURRENCY_WORD
    country_code: Id = COUNTRY
    notifiable: bool | msgspec.UnsetType = True
    lang: str | msgspec.UnsetType = msgspec.UNSET
    version: str | msgspec.UnsetType = msgspec.UNSET
    return_url: str | msgspec.UnsetType = msgspec.UNSET

    def __repr__(self) -> str:
        return f"PaymentRequest({self.amount}, to={mask(self.customer_phone)!r})"


class NewSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription to create: who pays, which plan, how often, and from which day (`YYYY-MM-DD`)."""

    phone: str
    plan_id: Id
    frequency_id: Id
    start_at: str

    def __repr__(self) -> str:
        return f"NewSubscription({self.plan_id!r}, to={mask(self.phone)!r})"


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """Who pays. Its repr shows no full phone and no e-mail."""

    phone: str | None = None
    id: Id | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    country_code: Id | None = None

    def __repr__(self) -> str:
        return f"Customer({self.id!r}, {mask(self.phone or '')!r})"


class Merchant(msgspec.Struct, frozen=True, kw_only=True):
    """Who is paid, which the document calls the client."""

    id: Id | None = None
    name: str | None = None
    client_type_code: str | None = None
    location: str | None = None
    status: Id | None = None


class InnerPayment(msgspec.Struct, frozen=True, kw_only=True):
    """What a transaction holds of the payment itself. `amount` is the JSON value as written."""

    status: str
    amount: msgspec.Raw = msgspec.Raw(b"null")
    id: Id | None = None
    subscription_id: Id | None = None
    due_at: str | None = None
    payment_reference: str | None = None


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction as its creation or a look-up shows it. `amount` is the JSON value as written: 9000, or "500.00".

    Attributes:
        id: what it is looked up by.
        state: 1 while it is pending, 2 once it is completed; others are not documented.
        reference: another id of the provider's.
        client_merchants: never shown filled.
    """

    id: str
    amount: msgspec.Raw
    state: int
    customer: Customer
    payment: InnerPayment
    client: Merchant | None = None
    reference: str | None = None
    created_at: str | None = None
    client_merchants: list[msgspec.Raw] = []

    def __repr__(self) -> str:
        return f"Transaction({self.id!r}, state={self.state})"


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription: which customer pays which plan, from when to when."""

    id: Id
    status: str
    plan_id: Id
    customer_id: Id | None = None
    client_id: Id | None = None
    start_at: str | None = None
    expire_at: str | None = None
    archived: bool = False
    renewal_date: str | None = None
    renewed: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that customers can subscribe to. `price` is a text, such as `2000.00`."""

    id: Id
    name: str
    price: str
    frequency_id: Id
    client_id: Id | None = None
    archived: bool = False


class Envelope(msgspec.Struct, frozen=True):
    """What every answer has in common."""

    status: str
    message: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


def body_of(request: PaymentRequest | NewSubscription) -> bytes:
    """Return the body of a call, its keys in the printed order."""
    return msgspec.json.encode(request)


# --------------------------------------------------------------------------------------------------------- answers


def read(answer: HttpAnswer, kind: type[Shape]) -> Shape:
    """Return what an answer holds, if it is one that the document prints.

    Raises:
        AmbiguousError: it is anything else. The document describes HTTP statuses and codes, but prints no refusal, so
            none proves that nothing was done. 401 and 403 stop the account, and so does 429: the next call would be
            answered alike.
    """
    envelope = _decoded(answer.body, Envelope)
    if answer.status in (401, 403):
        raise AmbiguousError(
            "credentials_in_doubt",
            f"Jemeni seems not to accept the credentials of this account (HTTP {answer.status}); its document prints "
            "no such answer, so nobody knows what was done. Check the keys, the clock and the option signing.",
            brake=Brake.CREDENTIALS,
        )
    if answer.status not in _GIVEN or (envelope is not None and envelope.status != SUCCESS):
        words = fit_to_show(f"{envelope.status}: {envelope.message}") if envelope is not None else ""
        reason = "refusal_not_documented" if answer.status in _GIVEN else f"http_{answer.status}"
        message = f"Jemeni answered HTTP {answer.status} {words}".rstrip()
        raise AmbiguousError(reason, message, brake=Brake.LIMIT if answer.status == 429 else None)
    known = None if envelope is None else _decoded(bytes(envelope.data), kind)
    if known is None:
        raise AmbiguousError("answer_unreadable", "Jemeni answered with a body that its document does not show")
    return known


def _decoded(body: bytes, kind: type[Shape]) -> Shape | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE:
        return None


def requested(transaction: Transaction, request: PaymentRequest) -> Receipt:
    """Return what the answer to a request says of it. One that speaks of another leaves it unknown, to be looked at."""
    same_phone = phone_of(transaction).endswith(request.customer_phone)
    if not same_phone or whole_francs(transaction.amount) != request.amount:
        message = "Jemeni's answer names another amount or phone than was asked for"
        return Receipt(State.UNKNOWN, "answer_disagrees", message, transaction.id)
    return receipt_of(transaction)


def shown(key: str, transaction: Transaction) -> LookUpResult:
    """Return what a look-up by reference shows of a payment of ours."""
    return LookUpResult(key, receipt_of(transaction), whole_francs(transaction.amount), phone_of(transaction) or None)


def receipt_of(transaction: Transaction) -> Receipt:
    """Return what a transaction proves: paid, if all that the document prints for that agrees; else it is accepted."""
    words = (transaction.state, transaction.payment.status)
    if words == PENDING:
        return Receipt(State.ACCEPTED, "", "", transaction.id)
    if words != COMPLETED:
        message = fit_to_show(f"Jemeni shows state {words[0]} and payment {words[1]}, which its document does not list")
        return Receipt(State.ACCEPTED, "status_not_documented", message, transaction.id)
    amounts = {whole_francs(transaction.amount), whole_francs(transaction.payment.amount)}
    if len(amounts) != 1 or UNSTATED in amounts or not phone_of(transaction):
        message = "Jemeni shows it as completed, but not one amount throughout its answer, or no customer"
        return Receipt(State.ACCEPTED, "answer_disagrees", message, transaction.id)
    return Receipt(State.PAID, "", "", transaction.id)


def phone_of(transaction: Transaction) -> str:
    """Return the customer's phone in digits; what is too short to be one is masked, since it would agree with many."""
    stated = transaction.customer.phone or ""
    digits = "".join(filter(str.isdecimal, stated))
    return digits if len(digits) >= PHONE_DIGITS else mask(stated)


def whole_francs(raw: msgspec.Raw) -> int:
    """Return an amount (`9000`, `"500.00"`) in whole francs, never as a float; `UNSTATED` for anything else."""
    text = bytes(raw).decode("utf-8", "replace").removeprefix('"').removesuffix('"')
    found = _AMOUNT.fullmatch(text)
    return int(found[1]) if found else UNSTATED
