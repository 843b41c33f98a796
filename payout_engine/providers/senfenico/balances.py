"""Senfenico's balances, pure: of each wallet that is paid from, and of what was collected. Called by `client.py`.

Source: Senfenico API document, section "balance", read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from payout_engine.domain.errors import AmbiguousError
from payout_engine.providers._http import UNREADABLE, HttpAnswer
from payout_engine.providers.senfenico.envelope import read_data
from payout_engine.providers.senfenico.figures import floor_francs
from payout_engine.providers.senfenico.wire import BALANCE_KEYS


class WalletBalance(msgspec.Struct, frozen=True):
    """What one wallet's transfer balance holds, in whole francs, rounded down."""

    wallet: str
    available_minor: int
    pending_minor: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """All that the document shows of an account's money, in whole francs, rounded down.

    Attributes:
        collected_minor: what was collected and can be settled.
        collecting_minor: what was collected and is not there yet, or is being settled.
        currency: of what was collected.
        available_minor: what all wallets together can pay, as stated.
        pending_minor: what is on its way from all of them, as stated.
        wallets: what each wallet holds.
    """

    collected_minor: int
    collecting_minor: int
    currency: str
    available_minor: int
    pending_minor: int
    wallets: Sequence[WalletBalance]


class _Held(msgspec.Struct, frozen=True):
    available: msgspec.Raw
    pending: msgspec.Raw


class _Collected(_Held, frozen=True):
    currency: str


class _Paying(msgspec.Struct, frozen=True):
    transfer_balances: dict[str, msgspec.Raw]


class _Both(_Paying, frozen=True):
    collection_balances: _Collected


def read_balances(answer: HttpAnswer) -> Sequence[WalletBalance]:
    """Understand what the wallets hold. One that the answer does not show holds nothing we know of and is left out.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    shown = read_data(answer, _Paying)
    with _understood():
        return _wallets(shown)


def read_statement(answer: HttpAnswer) -> Statement:
    """Understand all that is told of the account's money.

    Raises:
        RefusedError, AmbiguousError: as `read_envelope`.
    """
    shown = read_data(answer, _Both)
    with _understood():
        return Statement(
            collected_minor=floor_francs(shown.collection_balances.available),
            collecting_minor=floor_francs(shown.collection_balances.pending),
            currency=shown.collection_balances.currency,
            available_minor=floor_francs(shown.transfer_balances["total_available"]),
            pending_minor=floor_francs(shown.transfer_balances["total_pending"]),
            wallets=_wallets(shown),
        )


def _wallets(shown: _Paying) -> Sequence[WalletBalance]:
    found = shown.transfer_balances
    return [_wallet_balance(wallet, found[key]) for wallet, key in BALANCE_KEYS.items() if key in found]


def _wallet_balance(wallet: str, raw: msgspec.Raw) -> WalletBalance:
    held = msgspec.json.decode(raw, type=_Held)
    return WalletBalance(wallet, floor_francs(held.available), floor_francs(held.pending))


@contextmanager
def _understood() -> Iterator[None]:
    """Tell what is no balance as an answer that nobody understands."""
    try:
        yield
    except (*UNREADABLE, KeyError, ValueError):
        raise AmbiguousError(
            "answer_unreadable", "Senfenico answered with balances that its document does not show"
        ) from None
