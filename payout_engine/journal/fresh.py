"""The hashes by which repeats are found: 64 bits of a reference, and 64 bits of who is paid how much.

Equal hashes only make candidates, which are then compared exactly. The lowest bit says which of the two a hash is, so
that a search may leave one kind out without looking.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

from payout_engine.model import Payout

PAYEE_BIT = 1
"""Set in the hashes of payee and amount, clear in those of references."""

_PHONE_FACTOR, _AMOUNT_FACTOR = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
_MASK, _HALF = 2**64 - 1, 2**63


def hashes(payouts: Sequence[Payout]) -> list[int]:
    """Return two signed hashes for each payout: of its reference, then of its payee and amount."""
    digests = [blake2b(payout.reference.encode(), digest_size=8).digest() for payout in payouts]
    references = struct.unpack(f"<{len(digests)}q", b"".join(digests))
    found = [0] * (2 * len(digests))
    found[::2] = [number & -2 for number in references]
    found[1::2] = [_payee_hash(payout) for payout in payouts]
    return found


def _payee_hash(payout: Payout) -> int:
    """A number that two payouts rarely share unless payee and amount agree. Arithmetic is enough: it only nominates."""
    if payout.phone.isdecimal():
        mixed = int(payout.phone) * _PHONE_FACTOR + payout.amount_minor * _AMOUNT_FACTOR
        return (mixed & _MASK) - _HALF | PAYEE_BIT
    digest = blake2b(payee(payout).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) | PAYEE_BIT


def payee(payout: Payout) -> str:
    """Return who is paid how much, as one text that is equal exactly when these are."""
    return f"{payout.phone or payout.recipient.lower()}|{payout.amount_minor}|{payout.currency}"
