"""Transfers as Senfenico shows them, pure: what a creation, a fetch or the list says, and what each word proves.

It promises what `wire.py` promises of the words that decide: an unlisted status never makes a payout paid or failed.
Called by `client.py`, `listing.py` and `adapter.py`.

Source of every fact, unless another is named: Senfenico API document, read 2026-11-20; sections in NOTES.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from payout_engine.domain.model import LookUpResult, Receipt, mask
from payout_engine.domain.states import State
from payout_engine.providers._http import UNREADABLE, HttpAnswer
from payout_engine.providers.senfenico.envelope import SINGLE_REFUSALS, read_data, scrubbed
from payout_engine.providers.senfenico.figures import AMOUNT_CONTRADICTION, decimal, exact_amount
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


_UNSAID = msgspec.Raw(b"null")


class FullTransfer(Transfer, frozen=True, gc=False):
    """A `Transfer` with the fields of the document that decide nothing, so that none of them can hide it."""

    stated_fees: msgspec.Raw = msgspec.field(default=_UNSAID, name="fees")
    stated_wallet: msgspec.Raw = msgspec.field(default=_UNSAID, name="recipient_wallet")
    stated_address: msgspec.Raw = msgspec.field(default=_UNSAID, name="ip_address")

    __repr__ = Transfer.__repr__

    @property
    def fees(self) -> Decimal | None:
        """The fee on top in percent, exactly; None where it is not said as a number."""
        return decimal(bytes(self.stated_fees))

    @property
    def recipient_wallet(self) -> str | None:
        """Where the money lands, which Senfenico chooses where nobody says it."""
        return _text(self.stated_wallet)

    @property
    def ip_address(self) -> str | None:
        """From where it was asked for."""
        return _text(self.stated_address)


Listed = Transfer | PlainTransfer
"""A transfer as a list shows it."""


def read_created(answer: HttpAnswer) -> FullTransfer:
    """Understand the answer to the creation of a single transfer, of which the document prints one more refusal.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    return read_data(answer, FullTransfer, SINGLE_REFUSALS)


def read_transfer(answer: HttpAnswer) -> FullTransfer:
    """Understand the answer to a fetch.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    return read_data(answer, FullTransfer)


def _text(raw: msgspec.Raw) -> str | None:
    try:
        return msgspec.json.decode(raw, type=str)
    except UNREADABLE:
        return None


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
