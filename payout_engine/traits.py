"""What a provider promises, and where it can pay to: facts of its documents that change what the engine does.

Part of the contract in `ports.py`. A provider states them once, and the pipeline obeys them without knowing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class KeyPromise(StrEnum):
    """What the provider documents about our provider key."""

    NONE = "none"  # it is repeated back, nothing more: sending twice may pay twice
    IDEMPOTENT = "idempotent"  # a key pays once, in whatever call it comes: sending again under it is a way of asking


class LookUpKind(StrEnum):
    """How an open payout is found again."""

    SWEEP = "sweep"  # one call shows everything: ask once per interval, for all
    EACH = "each"  # one call per payout (or page of payouts)
    NONE = "none"  # cannot be asked: open payouts wait for a person


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine does differently for this provider; every field changes its behaviour.

    Attributes:
        pays_out: False for a provider that only collects; it is never routed to.
        batch_limit: payouts in one call.
        calls_per_second: of the paying call, documented; None when nothing is documented.
        concurrency: calls on the wire at once.
        key_promise: what our provider key is worth.
        key_lifetime_seconds: how long that holds, from the first call with the key; None means without end. A provider
            that documents no time must not be given None out of hope: then its key promises nothing.
        look_up: how open payouts are found again.
        absence_final_seconds: a look-up that does not show a payout this long after it was sent (`Query.age_seconds`)
            proves that it was never received; None means never proves anything.
        recipients: which kinds it pays: `phone`, `email`, `account_number`.
    """

    pays_out: bool
    batch_limit: int
    calls_per_second: float | None
    concurrency: int
    key_promise: KeyPromise
    key_lifetime_seconds: float | None
    look_up: LookUpKind
    absence_final_seconds: float | None
    recipients: Sequence[str]


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a provider lets money land, with the provider's own rules for it. One wallet is one lane.

    Attributes:
        code: the provider's word, such as `orange_bf`.
        title: for people, such as `Orange Money`.
        country: ISO 3166 two-letter code.
        currency: ISO 4217 code.
        decimals: digits after the point that the provider accepts.
        operators: names as in `countries.py` whose numbers it serves, or empty for any mobile number of the country.
        automatic: True when it may be chosen from the number; False when the payer has to name it.
        prefixes: the provider's own list of national prefixes, where its document prints one, with what the account's
            option `extra_prefixes` adds; empty otherwise. Other numbers are refused, also of an operator it serves.
        amount_minor_min: the smallest amount; 1 where none is documented.
        amount_minor_max: the largest amount; None where none is documented.
        multiple_of_minor: amounts must be a multiple of this.
        fee_basis_points: the fee on top, in hundredths of a percent, rounded up to the minor unit.
        source: where these facts come from.
    """

    code: str
    title: str
    country: str
    currency: str
    decimals: int
    operators: Sequence[str] = ()
    automatic: bool = True
    prefixes: Sequence[str] = ()
    amount_minor_min: int = 1
    amount_minor_max: int | None = None
    multiple_of_minor: int = 1
    fee_basis_points: int = 0
    source: str = ""

    def fee_minor(self, amount_minor: int) -> int:
        """Return the fee for one payout of `amount_minor`, rounded up."""
        return -(-amount_minor * self.fee_basis_points // 10_000)
