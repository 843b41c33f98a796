"""What surrounds every answer of Senfenico: did it say yes, did it say no, and is a no to be believed. Pure.

It promises that only a refusal which the document prints for the call frees a payout: everything else that is not a
plain yes is a doubt (`AmbiguousError`). A doubt in words that mean “no” carries the brake which stops paying, so that
not one chunk after another is left in doubt. Called by `wire.py` and `listing.py`.

Source of every fact, unless another is named: Senfenico API document, read 2026-11-20; sections in NOTES.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from payout_engine.domain.errors import AmbiguousError, Brake, ProviderError, RefusedError
from payout_engine.providers._http import UNREADABLE, HttpAnswer, fit_to_show

INVALID_KEY = "Invalid API key"
"""The document's words for a key that is not accepted, under “Exemple de Réponse pour Clé API Invalide”."""

Shape = TypeVar("Shape")

_API_KEY = "api key"
_KEYS = re.compile(r"\b(sk_(?:test|live)_)[\w-]+")


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


class Envelope(msgspec.Struct, frozen=True):
    """What every answer has in common. `errors` say what is wrong with what was sent, by field; no sample shows any."""

    status: bool
    message: str = ""
    error_code: str | None = None
    errors: msgspec.Raw = msgspec.Raw(b"null")
    data: msgspec.Raw = msgspec.Raw(b"null")
    failed_transfers: list[RefusedItem] | None = None


_ENVELOPE = msgspec.json.Decoder(Envelope)


# --------------------------------------------------------------------------------------------------------- refusals


class Refusal(msgspec.Struct, frozen=True):
    """What a code proves that the document prints as a refusal of the whole call: that nothing was done.

    Where a sample shows a message and no code, the message stands for one, and `reason` names it.
    """

    brake: Brake | None = None
    too_fast: bool = False
    reason: str = ""


REFUSALS: Mapping[str, Refusal] = {
    "RATE_LIMIT_EXCEEDED": Refusal(too_fast=True),
    "BATCH_SIZE_LIMIT_EXCEEDED": Refusal(brake=Brake.LIMIT),
}
"""The codes that refuse a whole call before anything is done. NOTES.md, section 5, says why each is believed."""

SINGLE_REFUSALS: Mapping[str, Refusal] = {**REFUSALS, "INSUFFICIENT_FUNDS": Refusal(brake=Brake.FUNDS)}
"""For the creation of a single transfer the document prints one more."""

DOUBTS: Mapping[str, Brake | None] = {
    # "No", by their description; but where many transfers were sent nothing says that none of them was made. The same
    # call, and probably the next one, would be answered alike: paying stops.
    "INSUFFICIENT_FUNDS": Brake.FUNDS,
    "UNSUPPORTED_PROVIDER": Brake.LIMIT,
    "INVALID_DATA": Brake.LIMIT,
    "INVALID_ACCOUNT": Brake.LIMIT,
    # The document says of these "please try again later"; doing so could pay twice, since none says that nothing was
    # queued.
    "NETWORK_ERROR": None,
    "INTERNAL_ERROR": None,
    "UNKNOWN_ERROR": None,
    "EXTERNAL_API_ERROR": None,
    # Codes of other endpoints: in answer to a transfer they mean that we do not understand.
    "OTP_INVALID": None,
    "OTP_EXPIRED": None,
    "OTP_STILL_VALID": None,
    "CHARGE_NOT_FOUND": None,
    "TRANSACTION_NOT_FOUND": None,
    "UNAUTHORIZED_CHARGE_PROVIDER": None,
}
"""The documented codes that prove nothing about a transfer, with the brake. What nobody documented has none."""


def read_envelope(answer: HttpAnswer, refusals: Mapping[str, Refusal] = REFUSALS) -> Envelope:
    """Return the envelope of an answer that says `status: true`.

    Args:
        answer: the answer.
        refusals: the codes that the document prints as refusals of this call.

    Raises:
        RefusedError: it says, in words printed for this call, that nothing was done.
        AmbiguousError: it says anything else, or is not an answer that the document describes.
    """
    return succeeded(decoded(answer), answer, refusals)


def read_data(answer: HttpAnswer, kind: type[Shape], refusals: Mapping[str, Refusal] = REFUSALS) -> Shape:
    """Return what an answer holds that says `status: true`.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    envelope = read_envelope(answer, refusals)
    try:
        return msgspec.json.decode(envelope.data, type=kind)
    except UNREADABLE:
        raise AmbiguousError(
            "answer_unreadable", "Senfenico answered with something that its document does not show"
        ) from None


def decoded(answer: HttpAnswer) -> Envelope:
    """Return the envelope, whatever it says.

    Raises:
        AmbiguousError: there is none, or its HTTP status contradicts any.
    """
    if answer.status >= 500:
        raise AmbiguousError(f"http_{answer.status}", f"Senfenico answered HTTP {answer.status}")
    try:
        envelope = _ENVELOPE.decode(answer.body)
    except UNREADABLE:
        envelope = None
    if answer.status == 401 and (envelope is None or not _refuses_key(envelope)):
        raise _key_in_doubt(answer)
    if envelope is None:
        raise AmbiguousError(
            "answer_unreadable", f"Senfenico answered HTTP {answer.status} with a body that its document does not show"
        )
    return envelope


def succeeded(envelope: Envelope, answer: HttpAnswer, refusals: Mapping[str, Refusal] = REFUSALS) -> Envelope:
    """Let through what says success and nothing else. Raises as `read_envelope`."""
    if not envelope.status:
        raise _refused(envelope, answer, refusals)
    if envelope.error_code is not None:
        raise AmbiguousError("answer_disagrees", f"Senfenico answered success with the code {said(envelope)}")
    return envelope


def _refused(envelope: Envelope, answer: HttpAnswer, refusals: Mapping[str, Refusal]) -> ProviderError:
    """What a `status: false` proves."""
    code, words = envelope.error_code, said(envelope)
    if _refuses_key(envelope):
        return RefusedError(
            "invalid_api_key",
            f"Senfenico does not accept the API key of this account (HTTP {answer.status})",
            brake=Brake.CREDENTIALS,
        )
    refusal = refusals.get(envelope.message if code is None else code)
    # A code that only stands in the message is none, and a message that stands as a code is no message.
    if refusal is not None and bool(refusal.reason) == (code is None):
        return RefusedError(
            refusal.reason or str(code).lower(),
            f"Senfenico refused the call: {words}",
            brake=refusal.brake,
            too_fast=refusal.too_fast,
            retry_after_seconds=answer.retry_after_seconds if refusal.too_fast else None,
        )
    if code is None:
        if _API_KEY in envelope.message.casefold():
            return _key_in_doubt(answer)
        return AmbiguousError("refusal_not_documented", f"Senfenico answered: {words}")
    if code not in DOUBTS:
        return AmbiguousError("code_not_documented", f"Senfenico answered: {words}")
    message = f"Senfenico answered: {words}"
    if DOUBTS[code] is not None:
        message += " (its document does not say that none of the call's transfers was made, so they are looked for)"
    return AmbiguousError(code.lower(), message, brake=DOUBTS[code])


def _refuses_key(envelope: Envelope) -> bool:
    """Whether it says what the document prints for a key that is not accepted, and nothing else."""
    told_more = (envelope.error_code, envelope.failed_transfers) != (None, None) or bytes(envelope.errors) != b"null"
    return not envelope.status and not told_more and envelope.message.strip() == INVALID_KEY


def _key_in_doubt(answer: HttpAnswer) -> AmbiguousError:
    return AmbiguousError(
        "api_key_in_doubt",
        f"Senfenico seems not to accept the API key of this account (HTTP {answer.status}), but does not say so in the "
        "words of its document, so what was sent is looked for; check the key",
        brake=Brake.CREDENTIALS,
    )


def said(envelope: Envelope) -> str:
    """The answer's own words, fit to be shown."""
    wrong = bytes(envelope.errors).decode("utf-8", "replace")
    told = envelope.message if wrong in ("null", "{}", "[]") else f"{envelope.message} {wrong}"
    return scrubbed(f"{envelope.error_code}: {told}" if envelope.error_code else told)


def scrubbed(text: str) -> str:
    """Return `text` as `fit_to_show` does, without keys too."""
    return fit_to_show(_KEYS.sub(r"\1***", text))
