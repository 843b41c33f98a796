"""Transfers as Senfenico shows them, pure: what a creation, a fetch or the list says, and what each word proves.

It promises what `wire.py` promises of the words that decide: an unlisted status never makes a payout paid or failed.
Called by `client.py`, `listing.py` and `adapter.py`.

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
from payout_engine.providers.senfenico.envelope import SINGLE_REFUSALS, Envelope, read_envelope, scrubbed
from payout_engine.providers.senfenico.figures import AMOUNT_CONTRADICTION, exact_amount
from payout_engine.providers.senfenico.wire import CURRENCY, PHONE_DIGITS

STATUSES: Mapping[str, State] = {"pending": State.ACCEPTED, "success": State.PAID, "failed": State.FAILED}

OTHER_MODE: Mapping[bool, str] = {
    False: "the provider shows it in test mode (live_mode: false), but the key is a live one: no money may have moved",
    True: "the provider shows it in live mode (live_mode: true), but the key is a test key: money may have moved",
}
"""What a transfer contradicts that was made in this mode, by a key of the other one."""

_HIDDEN = re.compile(r"\d{0,6}[xX*]{2,}\d{0,4}")


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


_TRANSFER = msgspec.json.Decoder(Transfer)


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
