"""Senfenico's balances, pure: one for each wallet that is paid from. Called by `client.py`.

Source: Senfenico API document, section "balance", read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from payout_engine.domain.errors import AmbiguousError
from payout_engine.providers._http import UNREADABLE, HttpAnswer
from payout_engine.providers.senfenico.envelope import read_envelope
from payout_engine.providers.senfenico.figures import floor_francs
from payout_engine.providers.senfenico.wire import BALANCE_KEYS


class WalletBalance(msgspec.Struct, frozen=True):
    """What one wallet's transfer balance holds, in whole francs, rounded down."""

    wallet: str
    available_minor: int
    pending_minor: int


class _Held(msgspec.Struct, frozen=True):
    available: msgspec.Raw
    pending: msgspec.Raw


class _Balances(msgspec.Struct, frozen=True):
    transfer_balances: dict[str, msgspec.Raw]


_BALANCES = msgspec.json.Decoder(_Balances)
_HELD = msgspec.json.Decoder(_Held)


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
