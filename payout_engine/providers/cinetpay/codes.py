"""What surrounds every answer of CinetPay, and what each of its codes proves. Pure.

A code counts with its own word only, whether it is written as a number or as a text; and nothing but a refusal that is
documented for what was sent frees a payout. Everything else is a doubt (`AmbiguousError`). Called by `wire.py`.

Sources: [S] the CinetPay transfer document, [D] the annexe of codes on another page of CinetPay's documentation, both
read 2026-11-20; see NOTES.md, section 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from payout_engine.domain.errors import AmbiguousError, Brake, NotSentError, ProviderError, RefusedError
from payout_engine.providers._http import UNREADABLE, HttpAnswer, fit_to_show

OK_CODE, OK_WORD = "0", "OPERATION_SUCCES"
"""The only words of success, spelled as CinetPay does."""

NOT_FOUND, NOT_FOUND_WORD = "723", "NOT_FOUND"
ALREADY_CONTACT, ALREADY_CONTACT_WORD = "726", "ERROR_PHONE_ALREADY_MY_CONTACT"

_NOTHING = (b"", b"null", b"[]", b"{}")
_TOKENS = re.compile(r"(?=[\w-]*\d)[\w-]{24,}(?:\.[\w-]+)*")


class Refusal(msgspec.Struct, frozen=True):
    """A documented refusal: nothing was done of what it is said of.

    Attributes:
        words: its own word as CinetPay writes it, or phrases that its text contains. One of them must be there.
        whole: it refuses a whole call, whatever that holds. Any other is believed of one transfer only.
        brake: what stops with it.
        remedy: what a person can do, or empty.
    """

    words: tuple[str, ...]
    whole: bool = False
    brake: Brake | None = None
    remedy: str = ""

    def is_said(self, *texts: str) -> bool:
        """Whether one of the texts is its word, or contains one of its phrases."""
        return any(word == text.strip() or (" " in word and word in text) for text in texts for word in self.words)


_KEY = "Check the api_key and the password of this account, and that it may make transfers."

REFUSALS: Mapping[str, Refusal] = {
    "602": Refusal(("INSUFFICIENT_BALANCE",), whole=True, brake=Brake.FUNDS),
    "701": Refusal(("INVALID_CREDENTIALS",), whole=True, brake=Brake.CREDENTIALS, remedy=_KEY),
    "702": Refusal(("COULD_NOT_CREATE_TOKEN",), whole=True, brake=Brake.PROVIDER_DOWN),
    "703": Refusal(("INVALID_USER",), whole=True, brake=Brake.CREDENTIALS, remedy=_KEY),
    "704": Refusal(("INVALID_PARAM",), whole=True, brake=Brake.LIMIT),
    "705": Refusal(("EXPIRED_TOKEN",), whole=True, brake=Brake.CREDENTIALS),
    "706": Refusal(("INVALID_TOKEN",), whole=True, brake=Brake.CREDENTIALS),
    "707": Refusal(("CANT_REFRESH_TOKEN",), whole=True, brake=Brake.CREDENTIALS),
    "708": Refusal(("NOT_ALLOWED",), whole=True, brake=Brake.CREDENTIALS, remedy=_KEY),
    # [D] gives 709 and 710 one word, EXECUTION_ERROR, which says nothing; only the document's own words are believed.
    "709": Refusal(
        ("This IP is not allow",),
        whole=True,
        brake=Brake.CREDENTIALS,
        remedy="Ask CinetPay's technical support to allow the IP address of this machine: name the e-mail of the "
        "account, the address, and the reason.",
    ),
    "-1": Refusal(
        (
            "Undefined index: country",  # the number does not match the operators of its country, or is too long
            "ERROR_PM_AMOUNT",  # less than the country's smallest amount
            "belongs to a country not taken into account",
            "Error in the request",
        )
    ),
    "716": Refusal(("DATA_NOT_VALID",)),
    "717": Refusal(("ERROR_PHONE_NOT_PARTICULAR",)),
    "718": Refusal(("JSON_PARSE_ERROR",)),
    "719": Refusal(("AMOUNT_TOO_SMALL",)),
    "720": Refusal(("AMOUNT_TOO_LARGE",)),
    "721": Refusal(("OPERATOR_NOT_AVAILABLE",)),
    "724": Refusal(("ERROR_PHONE_NOT_MY_CONTACT",)),
    "725": Refusal(("MISSING_NOTIFY_URL",)),
    "801": Refusal(("INVALID_AMOUNT",)),
    "802": Refusal(("INVALID_PHONE",)),
}
"""Codes that mean: refused before anything was done. [S] prints -1, 602, 701, 706 and 709, [D] the others."""

TOKEN_CODES = frozenset({"705", "706", "707"})
"""The caller's token is not, or no longer, accepted: nothing was done, and a new token may be tried."""

DOUBTS: Mapping[str, str] = {
    "0": "answer_disagrees",
    "-1": "operation_error",
    "602": "answer_disagrees",
    "709": "execution_error",
    "710": "execution_error",
    "715": "unexpected_error",
    "723": "not_found",
    "726": "error_phone_already_my_contact",
    "804": "operator_unavailable",
    "805": "client_transaction_id_exist",
}
"""Codes with a name that prove nothing of a payment: by the code alone, or without the words that make it a refusal. Of
805 a look-up tells more, since CinetPay says that it has had the id."""


class Envelope(msgspec.Struct, frozen=True):
    """What every answer has in common. Its repr shows no data."""

    code: int | str
    message: str
    description: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")

    @property
    def number(self) -> str:
        """The code, however it was written."""
        return str(self.code)

    @property
    def refusal(self) -> Refusal | None:
        """What it refuses in documented words, if it is such an answer."""
        return refusal_of(self.number, self.message, self.description or "")

    def is_said(self, code: str, word: str) -> bool:
        """Whether it is this code with its own word."""
        return self.number == code and self.message.strip() == word

    def __repr__(self) -> str:
        return f"Envelope({self.number})"


_ENVELOPE = msgspec.json.Decoder(Envelope)


def refusal_of(code: str, *texts: str) -> Refusal | None:
    """Return what a code with its texts refuses; None where it is not documented, or not in its own words."""
    refusal = REFUSALS.get(code)
    return refusal if refusal is not None and refusal.is_said(*texts) else None


def reason_of(code: str) -> str:
    """Return a stable reason for a refusal with this code."""
    if code == "602":
        return "insufficient_funds"
    return {"-1": "operation_error", "709": "ip_not_allowed"}.get(code) or REFUSALS[code].words[0].lower()


TOKEN_REASONS = frozenset(map(reason_of, TOKEN_CODES))
"""The reasons of refusals for the token."""

ITEM_REASONS = frozenset({reason_of(code) for code, refusal in REFUSALS.items() if not refusal.whole} | {DOUBTS["726"]})
"""The reasons that are about one of several, so that asking for each alone tells which."""


def decoded(answer: HttpAnswer) -> Envelope:
    """Return the envelope, whatever it says.

    Raises:
        AmbiguousError: there is none, or the HTTP status belongs to no answer of CinetPay's own.
    """
    if answer.status >= 500:
        raise AmbiguousError(f"http_{answer.status}", f"CinetPay answered HTTP {answer.status}")
    try:
        envelope = _ENVELOPE.decode(answer.body)
    except UNREADABLE:
        envelope = None
    if answer.status == 401 and (envelope is None or envelope.refusal is None):
        raise AmbiguousError(
            "credentials_in_doubt",
            "CinetPay, or what stands before it, answered HTTP 401, but not in the words of its document; check the "
            "api_key and the password of this account",
            brake=Brake.CREDENTIALS,
        )
    if envelope is None:
        raise AmbiguousError(
            "answer_unreadable", f"CinetPay answered HTTP {answer.status} with a body that its document does not show"
        )
    return envelope


def succeeded(envelope: Envelope, count: int = 0) -> msgspec.Raw:
    """Return the data of an answer that says success in its own words.

    Args:
        envelope: the answer.
        count: how many transfers or contacts the call held. Of one alone more refusals are believed.

    Raises:
        RefusedError: it says, in documented words, that nothing was done.
        AmbiguousError: it says anything else.
    """
    if envelope.is_said(OK_CODE, OK_WORD):
        return envelope.data
    code, refusal = envelope.number, envelope.refusal
    words = shown(code, envelope.message, envelope.description or "")
    if refusal is None or bytes(envelope.data) not in _NOTHING:
        raise AmbiguousError(DOUBTS.get(code, "code_not_documented"), f"CinetPay answered: {words}")
    remedy = f" {refusal.remedy}" if refusal.remedy else ""
    if refusal.whole:
        raise RefusedError(reason_of(code), f"CinetPay refused the call: {words}.{remedy}", brake=refusal.brake)
    if count == 1:
        raise RefusedError(reason_of(code), f"CinetPay refused it: {words}", final=True)
    raise AmbiguousError(
        reason_of(code),
        f"CinetPay answered to a call of several: {words} (its document does not say that none of them was made, so "
        "they are looked for; with batch_limit = 1 it says which one it means)",
        brake=Brake.LIMIT,
    )


def unsent(error: ProviderError) -> ProviderError:
    """Return what an error of a call that moves no money means for the payment it was to prepare: that was not made."""
    if not isinstance(error, AmbiguousError):
        return error
    if error.brake is not None:
        return RefusedError(error.reason, str(error), brake=error.brake)
    return NotSentError(error.reason, f"{error}; no payment was asked for")


def shown(code: str, *texts: str) -> str:
    """Return a code and its texts, fit to be shown: nothing in them can be a token."""
    return fit_to_show(_TOKENS.sub("***", f"{code}: " + ", ".join(filter(None, texts))))
