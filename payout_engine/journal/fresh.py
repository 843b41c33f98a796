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


def hashes(payouts: Sequence[Payout]) -> list[int]:
    """Return two signed hashes for each payout: of its reference, then of its payee and amount."""
    digests = [
        blake2b(text.encode(), digest_size=8).digest()
        for payout in payouts
        for text in (f"r|{payout.reference}", f"p|{payee(payout)}")
    ]
    return [
        number & -2 | which & 1 for which, number in enumerate(struct.unpack(f"<{len(digests)}q", b"".join(digests)))
    ]


def payee(payout: Payout) -> str:
    """Return who is paid how much, as one text that is equal exactly when these are."""
    return f"{payout.phone or payout.recipient.lower()}|{payout.amount_minor}|{payout.currency}"
