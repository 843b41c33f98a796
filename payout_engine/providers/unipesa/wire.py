"""Unipesa's language, pure: signed bodies out, answers in, and what each word about an order proves.

It promises that only a status which the document lists pays or fails anybody, and only for the order that was asked
about; that a call which was answered with an error code leaves its order in doubt; and that nothing an answer says
reaches a message with a full phone number in it. Called by `client.py` and `adapter.py`.

Source of every fact, unless another is named: Unipesa gateway API document, read 2026-11-20; sections in NOTES.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from payout_engine.domain.errors import AmbiguousError, Brake
from payout_engine.domain.model import LookUpResult, Receipt, mask
from payout_engine.domain.states import State
from payout_engine.providers._http import TEXT_CHARS_MAX, UNREADABLE, HttpAnswer, fit_to_show
from payout_engine.providers.unipesa.signature import SIGNATURE, sign

AMOUNT_DECIMALS = 2
"""Digits after the point of every amount, whatever its currency has."""

ORDER_ID = re.compile(r"[A-Za-z0-9_\-:.]{1,128}")

STATUSES: Mapping[str, State] = {
    "0": State.ACCEPTED,  # initiated
    "1": State.ACCEPTED,  # in progress
    "2": State.PAID,
    "3": State.FAILED,
    "4": State.FAILED,  # cancelled
}
"""What each documented status proves. -1, undefined, is documented to prove nothing."""

UNDEFINED = "-1"
OK = "0"
AUTHENTICATION: Mapping[str, str] = {
    "10201": "merchant authentication error",
    "10105": "wrong merchant id",
}
"""The `result.code` of a call whose sender was not accepted. Neither is in the document: the first is in a generated
client of the provider, the second was seen in use; so what was sent is in doubt."""

URL_CHARS_MAX = 2_000

_WORD = re.compile(r"[A-Za-z0-9_\-]{1,40}")
_URL = re.compile(r"https://[!-~]+")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One payment to make or to ask for, as the document spells it. Its repr shows no full phone.

    Attributes:
        order_id: ours, unique for ever; it pays once.
        customer_id: the phone, in the form that the provider id wants, or the account number.
        amount: in the currency's major unit, with two decimals.
        provider_id: whose customer it is.
        country: ISO 3166 two-letter code.
        callback_url: where the provider tells how it ended, or empty.
        extra: further texts by the document's names, such as `customer_name`; empty ones are left out.
    """

    order_id: str
    customer_id: str
    amount: str
    currency: str
    provider_id: int
    country: str
    callback_url: str = ""
    extra: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"Order({self.order_id!r}, {self.amount} {self.currency}, to={mask(self.customer_id)!r})"


class Result(msgspec.Struct, frozen=True):
    """A code with its words, as `result` and `provider_result` hold them."""

    code: int | str | None = None
    message: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to any call, as far as it is used. Its repr shows no full phone.

    Attributes:
        order_id: the order it speaks of.
        transaction_id: the provider's own id, or nothing yet.
        status: a number in the document; compared as a text.
        confirm_type: anything but 0 means that the provider waits for a second call, which no document describes.
    """

    order_id: str | None = None
    transaction_id: str | int | None = None
    transaction_ref: str | int | None = None
    status: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    provider_result: msgspec.Raw = msgspec.Raw(b"null")
    confirm_type: int | str | None = None
    extra: msgspec.Raw = msgspec.Raw(b"null")

    def __repr__(self) -> str:
        return f"Answer({self.order_id!r}, status={self.status!r})"

    @property
    def code(self) -> str:
        """What became of the call itself: `0`, or an error's number; empty where it is not said."""
        found = _result(self.result).code
        return "" if found is None else str(found).strip()

    @property
    def word(self) -> str:
        """The status as a text; empty where there is none."""
        return "" if self.status is None else str(self.status).strip()

    @property
    def waits_for_confirmation(self) -> bool:
        """Whether the provider says that it does nothing until it is told more."""
        return self.confirm_type is not None and str(self.confirm_type).strip() not in ("0", "")


_ANSWER = msgspec.json.Decoder(Answer)
_RESULT = msgspec.json.Decoder(Result)
_EXTRA = msgspec.json.Decoder(dict[str, Any])

# ------------------------------------------------------------------------------------------------------------ bodies


def order_body(order: Order, merchant_id: str, secret: str) -> bytes:
    """Return the body that asks for a payment in either direction."""
    fields: dict[str, Any] = {
        "merchant_id": merchant_id,
        "customer_id": order.customer_id,
        "order_id": order.order_id,
        "amount": order.amount,
        "currency": order.currency,
        "country": order.country,
        "provider_id": str(order.provider_id),
        "callback_url": order.callback_url,
        "extra": order.extra,
    }
    return _signed(fields, secret)


def status_body(order_id: str, merchant_id: str, secret: str, *, customer_id: str = "", otp: str = "") -> bytes:
    """Return the body that asks about an order; with the two others, the one that hands in a one-time password."""
    fields = {"merchant_id": merchant_id, "order_id": order_id, "customer_id": customer_id, "extra": {"otp": otp}}
    return _signed(fields, secret)


def _signed(fields: Mapping[str, Any], secret: str) -> bytes:
    """Sort, leave out what is empty, sign, and write down.

    The document signs in the order sent, and some who use it sort: sorted texts are right by either reading, and no
    text is written differently by any language.
    """
    document = _sorted(fields)
    document[SIGNATURE] = sign(secret, document)
    return msgspec.json.encode(document)


def _sorted(fields: Mapping[str, Any]) -> dict[str, Any]:
    filled = {key: _sorted(value) if isinstance(value, Mapping) else value for key, value in sorted(fields.items())}
    return {key: value for key, value in filled.items() if value}


# ------------------------------------------------------------------------------------------------------------ answers


def read_answer(answer: HttpAnswer) -> Answer:
    """Understand an answer to any call.

    Raises:
        AmbiguousError: it is none that the document describes, or says that the sender was not accepted; with
            `Brake.CREDENTIALS` for the latter, in whatever words.
    """
    if answer.status >= 500:
        raise AmbiguousError(f"http_{answer.status}", f"Unipesa answered HTTP {answer.status}")
    if answer.status in (401, 403):
        raise _not_accepted(f"HTTP {answer.status}")
    try:
        read = _ANSWER.decode(answer.body)
    except UNREADABLE:
        raise AmbiguousError(
            "answer_unreadable", f"Unipesa answered HTTP {answer.status} with a body that its document does not show"
        ) from None
    if read.code in AUTHENTICATION:
        # Whatever status stands beside it: it may be that of the call, and not of the order.
        raise _not_accepted(f"{read.code}, {AUTHENTICATION[read.code]}")
    return read


def _not_accepted(said: str) -> AmbiguousError:
    return AmbiguousError(
        "merchant_in_doubt",
        f"Unipesa seems not to accept this account ({said}), which its document does not describe, so what was sent is "
        "looked for; check secret_key, merchant_id and public_id, and that this machine's address is on its list",
        brake=Brake.CREDENTIALS,
    )


def receipt(answer: Answer, order_id: str) -> Receipt:
    """Return what the answer to a payment says of it. Only a plain answer about this very order says anything."""
    if answer.order_id != order_id:
        return Receipt(State.UNKNOWN, "answer_disagrees", "Unipesa answered about another order than ours")
    if answer.waits_for_confirmation:
        # Before the code is looked at: the same order id sent again would be taken for the confirmation.
        return _confirmation_needed(answer)
    if answer.code != OK:
        return Receipt(State.UNKNOWN, _reason(answer.code), _said(answer))
    state = STATUSES.get(answer.word, State.UNKNOWN)
    if state is State.UNKNOWN:
        reason = "status_undefined" if answer.word == UNDEFINED else "status_not_documented"
        return Receipt(state, reason, _said(answer), _reference(answer))
    return _receipt(state, answer)


def look_up_result(answer: Answer, order_id: str) -> LookUpResult | None:
    """Return what the answer to a status call shows, or None where the provider says that it cannot tell.

    Here `result.code` only explains: the status rules. It states neither amount nor customer.

    Raises:
        AmbiguousError: it is about another order, or has no status.
    """
    if answer.order_id != order_id or not answer.word:
        raise AmbiguousError("answer_disagrees", "Unipesa did not answer about the order that was asked about")
    if answer.word == UNDEFINED:
        return None
    state = STATUSES.get(answer.word)
    if state is None:
        found = Receipt(State.ACCEPTED, "status_not_documented", _said(answer), _reference(answer))
    elif state is State.ACCEPTED and answer.waits_for_confirmation:
        found = _confirmation_needed(answer)
    else:
        found = _receipt(state, answer)
    return LookUpResult(order_id, found)


def _receipt(state: State, answer: Answer) -> Receipt:
    reference = _reference(answer)
    if state is State.PAID:
        return Receipt(state, provider_reference=reference)
    if state is State.FAILED:
        reason = "cancelled_at_provider" if answer.word == "4" else "failed_at_provider"
        return Receipt(state, reason, _said(answer), reference)
    reason, message = _to_do(answer)
    return Receipt(state, reason, message, reference)


def _confirmation_needed(answer: Answer) -> Receipt:
    message = (
        f"Unipesa waits for a confirmation of kind {fit_to_show(str(answer.confirm_type))}, which its document does "
        "not describe; ask the provider. It is not sent again."
    )
    return Receipt(State.ACCEPTED, "confirmation_needed", message, _reference(answer))


def _to_do(answer: Answer) -> tuple[str, str]:
    """What the payer of a collection has to do, as reason and message; nothing where nothing is said."""
    try:
        extra = _EXTRA.decode(answer.extra)
    except UNREADABLE:
        return "", ""
    url = extra.get("customer_redirect")
    if isinstance(url, str) and len(url) <= URL_CHARS_MAX and _URL.fullmatch(url):
        return "customer_redirect", url
    amount, number = extra.get("transfer_amount"), extra.get("account_number")
    if isinstance(amount, int | float | str) and isinstance(number, str) and number:
        # The account is the provider's own: the payer has to see it whole.
        names = (extra.get("account_name"), extra.get("bank_name"))
        whose = ", ".join(_printed(name) for name in names if isinstance(name, str))
        return "transfer_awaited", f"to transfer: {_printed(str(amount))} to account {_printed(number)} ({whose})"
    return "", ""


def _result(raw: msgspec.Raw) -> Result:
    """A code and its words; nothing of what is written otherwise, such as PHP's empty list."""
    try:
        return _RESULT.decode(raw)
    except UNREADABLE:
        return Result()


def _reference(answer: Answer) -> str:
    """The provider's own id of the order. `transaction_ref` comes with success only, so it would look like another."""
    return "" if answer.transaction_id is None else _printed(str(answer.transaction_id))


def _reason(code: str) -> str:
    return f"result_{code}" if _WORD.fullmatch(code) else "result_missing"


def _said(answer: Answer) -> str:
    """Everything the answer says of how it stands, fit to be shown."""
    own, operator = _result(answer.result), _result(answer.provider_result)
    parts = [f"status {answer.word or 'missing'}"]
    parts += [
        f"{whose} {'without a code' if found.code is None else found.code}: {found.message}"
        for whose, found in (("result", own), ("operator", operator))
        if found.message
    ]
    return fit_to_show("; ".join(parts))


def _printed(text: str) -> str:
    """Return `text` as `fit_to_show` does, but with its numbers: they are amounts, and ids of the provider's own."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())[:TEXT_CHARS_MAX]
