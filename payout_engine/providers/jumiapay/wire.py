"""JumiaPay's language, pure: bodies out, answers in, and what each word about a credit proves.

Nothing here speaks to the network. Believed are only the HTTP statuses that the document prints for the call, and of a
credit only the status words that it prints. Nothing an answer says reaches a message with a full e-mail address in it.
Called by `client.py` and `adapter.py`.

Source of every fact, unless another is named: JumiaPay Credits API document (v1), read 2026-11-20; see NOTES.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import msgspec

from payout_engine.domain.errors import AmbiguousError, Brake, ProviderError, RefusedError
from payout_engine.domain.model import LookUpResult, Receipt, mask
from payout_engine.domain.money import DECIMALS
from payout_engine.domain.states import State
from payout_engine.providers._http import UNREADABLE, HttpAnswer, fit_to_show


class Market(msgspec.Struct, frozen=True):
    """What the document prints of one currency: whose it is, and how many digits after the point it may have."""

    country: str
    decimals: int


MARKETS: Mapping[str, Market] = {
    "NGN": Market("NG", 2),
    "EGP": Market("EG", 2),
    "GHS": Market("GH", 2),
    "KES": Market("KE", 2),
    "MAD": Market("MA", 2),
    "XOF": Market("CI", 0),
    "TND": Market("TN", 2),  # ISO 4217 has three, and so have we.
    "UGX": Market("UG", 0),
    "DZD": Market("DZ", 2),
}
"""The currencies that a credit may be in."""

NAME_CHARS_MAX = 50
DESCRIPTION_CHARS_MAX = 255

CREATED, SHOWN = 201, 200
"""The one status of success of a creation, and of every other call."""

REFUSES_CREDENTIALS = 401
NO_SUCH_CREDIT = 404

STATUSES: Mapping[str, State] = {
    "processing_delivery": State.ACCEPTED,
    "delivered": State.PAID,
    "failed": State.FAILED,
    # The credit is with the customer as long as it was not taken back.
    "processing_cancellation": State.PAID,
    "cancellation_failed": State.PAID,
    "expiration_failed": State.PAID,
}
"""What each status of a credit says of the payout."""

RETURNED = frozenset({"cancelled", "expired"})
"""The statuses in which what the customer had not spent went back to the Credit account."""

CALLBACK_TYPES = frozenset({"CREDIT_STATUS_CHANGE", "CREDIT_USAGE_UPDATE"})

PARTLY_RETURNED = "partly_returned"
"""The reason of a payout of which a part went back: it counts as paid, since `reversed` means payable again."""

AMOUNT_UNREADABLE = -1
"""Stands for an amount that is none in minor units: it equals no payout's amount, so nothing is matched by it."""

_AMOUNT_MAX = Decimal(10) ** 15
_EXPONENT_MIN = -20


# --------------------------------------------------------------------------------------------------------- messages


class NewCredit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A credit to give, as the document spells it. Its repr shows no full e-mail.

    Attributes:
        name: for the customer, at most 50 characters.
        description: for the business, at most 255 characters.
        amount: in the currency's major unit, with a point.
        currency: one of `MARKETS`.
        customer_email: who gets it.
        partner_credit_id: our key, unique within the Credit account.
        expiration_date: when what is unspent goes back, such as `2027-03-27T23:59:59Z`; None for never.
        callback_url: an https address that is told of changes; None for no calls.
    """

    name: str
    description: str
    amount: str
    currency: str
    customer_email: str
    partner_credit_id: str
    expiration_date: str | None = None
    callback_url: str | None = None

    def __repr__(self) -> str:
        return f"NewCredit({self.partner_credit_id!r}, {self.amount} {self.currency}, to={mask(self.customer_email)!r})"


class Sum(msgspec.Struct, frozen=True):
    """An amount as answers show it: a number of the major unit, read exactly."""

    value: Decimal
    currency: str


class CreditStatus(msgspec.Struct, frozen=True):
    """Where a credit stands."""

    id: str


class Credit(msgspec.Struct, frozen=True):
    """One credit as every answer shows it. Its repr shows no full e-mail.

    Attributes:
        uuid: the provider's id.
        amount: what was given.
        customer_email: who got it.
        status: one of `STATUSES` or `RETURNED`, or a word that nobody documented.
        partner_credit_id: our key.
        usage: what the customer has spent of it, or None where it is not said.
        name: for the customer.
        description: for the business.
        source_wallet_account_id: where the money comes from.
        in_approval: whether a person of the business has yet to agree; never for credits made by the API.
        expiration_date: when what is unspent goes back, or None.
        callback_url: who is told of changes, or None.
    """

    uuid: str
    amount: Sum
    customer_email: str
    status: CreditStatus
    partner_credit_id: str | None = None
    usage: Sum | None = None
    name: str | None = None
    description: str | None = None
    source_wallet_account_id: str | None = None
    in_approval: bool | None = None
    expiration_date: str | None = None
    callback_url: str | None = None

    def __repr__(self) -> str:
        return f"Credit({self.uuid!r}, {self.status.id!r}, to={mask(self.customer_email)!r})"


class _Called(msgspec.Struct, frozen=True):
    """Whose credit a callback is about: nothing else of it is read, since nothing of it is signed."""

    partner_credit_id: str | None = None


class _Call(msgspec.Struct, frozen=True):
    """A callback."""

    type: str
    credit: _Called


_ENCODER = msgspec.json.Encoder()
_CREDIT = msgspec.json.Decoder(Credit)
_CALL = msgspec.json.Decoder(_Call)


def body(credit: NewCredit) -> bytes:
    """Return the body that asks for a credit."""
    return _ENCODER.encode(credit)


def moment_of(expiration_date: str) -> float:
    """Return an expiry in seconds since 1970.

    Raises:
        ValueError: it is not written as the document wants it, in UTC to the second.
    """
    return datetime.strptime(expiration_date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


# ---------------------------------------------------------------------------------------------------------- answers


def read_credit(answer: HttpAnswer, success: int) -> Credit:
    """Understand an answer.

    Args:
        answer: as it came.
        success: the one HTTP status that the document prints for success of this call.

    Raises:
        RefusedError: the credentials are not accepted.
        AmbiguousError: it is anything else but a credit, with the reason `not_found` for HTTP 404.
    """
    if answer.status != success:
        raise _refused(answer)
    try:
        return _CREDIT.decode(answer.body)
    except UNREADABLE:
        raise AmbiguousError(
            "answer_unreadable", f"JumiaPay answered HTTP {answer.status} with a body that its document does not show"
        ) from None


def _refused(answer: HttpAnswer) -> ProviderError:
    """What an answer proves that is not of success."""
    status = answer.status
    if status == REFUSES_CREDENTIALS and _may_be_theirs(answer.body):
        return RefusedError(
            "credentials_refused",
            "JumiaPay does not accept the api_key or the business_area of this account (HTTP 401)",
            brake=Brake.CREDENTIALS,
        )
    if status == REFUSES_CREDENTIALS:
        return AmbiguousError(
            "credentials_in_doubt",
            "HTTP 401 came with a page that is not JumiaPay's, so what was sent is looked for; check the network "
            "between, the api_key and the business_area",
            brake=Brake.CREDENTIALS,
        )
    if status == NO_SUCH_CREDIT:
        return AmbiguousError("not_found", "JumiaPay answered HTTP 404: it shows no such credit, or no such account")
    words = _words(answer.body) if status == 400 else ""
    said = f": {words}" if words else ""
    return AmbiguousError(f"http_{status}", f"JumiaPay answered HTTP {status}{said}")


def _may_be_theirs(found: bytes) -> bool:
    """Whether a body is empty or a JSON object: the document prints no body for a refusal, a proxy sends a page."""
    try:
        return not found or isinstance(msgspec.json.decode(found), dict)
    except UNREADABLE:
        return False


def _words(found: bytes) -> str:
    """What a JSON body says, fit to be shown; the document prints none, so a page of a proxy is not repeated."""
    try:
        return fit_to_show(msgspec.json.encode(msgspec.json.decode(found)).decode()) if found else ""
    except UNREADABLE:
        return ""


def called_about(found: bytes) -> str:
    """Return the partner_credit_id that a callback is about; empty for what is none, or has none."""
    try:
        call = _CALL.decode(found)
    except UNREADABLE:
        return ""
    return call.credit.partner_credit_id or "" if call.type in CALLBACK_TYPES else ""


def minor_units(shown: Sum) -> int:
    """Return an amount in minor units, or `AMOUNT_UNREADABLE` where it is none in a currency that we know."""
    value, decimals = shown.value, DECIMALS.get(shown.currency)
    if decimals is None or not value.is_finite() or not 0 <= value < _AMOUNT_MAX:
        return AMOUNT_UNREADABLE
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < _EXPONENT_MIN:
        return AMOUNT_UNREADABLE
    scaled = Fraction(value) * 10**decimals  # A Decimal would be rounded on the way.
    return scaled.numerator if scaled.denominator == 1 else AMOUNT_UNREADABLE


def receipt(credit: Credit) -> Receipt:
    """Return what a credit's status says of the payout."""
    word = credit.status.id
    if word in RETURNED:
        return _returned(credit)
    state = STATUSES.get(word)
    if state is None:
        return Receipt(State.ACCEPTED, "status_not_documented", fit_to_show(word), credit.uuid)
    if state is State.FAILED:
        message = "JumiaPay states that it did not give the credit; it gives no reason (a low balance is one)."
        return Receipt(state, "failed_at_provider", message, credit.uuid)
    if state is State.PAID and word != "delivered":
        return Receipt(state, word, f"The credit is still with the customer; JumiaPay shows it as {word}.", credit.uuid)
    return Receipt(state, "", "", credit.uuid)


def _returned(credit: Credit) -> Receipt:
    """What a credit that was taken back says: payable again only if nothing of it was spent."""
    word, given = credit.status.id, credit.amount
    spent = AMOUNT_UNREADABLE if credit.usage is None else minor_units(credit.usage)
    whole = minor_units(given)
    if credit.usage is None or credit.usage.currency != given.currency or not 0 <= spent <= whole:
        message = f"JumiaPay shows it as {word}, but not how much of it the customer had spent."
        return Receipt(State.ACCEPTED, "usage_unreadable", message, credit.uuid)
    if not spent:
        return Receipt(State.REVERSED, word, f"JumiaPay took all of it back ({word}).", credit.uuid)
    message = (
        f"JumiaPay shows it as {word}: of {given.value:f} {given.currency} the customer had spent "
        f"{credit.usage.value:f}, the rest went back to the Credit account."
    )
    return Receipt(State.PAID, PARTLY_RETURNED, message, credit.uuid)


def result(key: str, credit: Credit, currency: str) -> LookUpResult:
    """Return what a look-up shows of a payout in `currency`."""
    shown = credit.amount.currency
    conflict = "" if shown == currency else f"the provider shows it in another currency ({fit_to_show(shown)[:10]})"
    return LookUpResult(key, receipt(credit), minor_units(credit.amount), credit.customer_email, conflict)
