"""The numbers and names by which the journal addresses payouts: pure arithmetic, kept in one place.

A chunk id holds its run's number and its own number within the run; a position holds a chunk id and an index. A
provider key is `token-chunk-index`, where the token is random and belongs to the run. Keys are computed and never
stored, so resolving one is parsing it. The journal and the duplicate search use this module.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Iterable

import msgspec

from payout_engine.domain.limits import CHUNK_INDEX_BITS, RUN_CHUNK_BITS

CHUNKS_MAX = (1 << RUN_CHUNK_BITS) - 1
"""Chunks in one run; they are numbered from 1."""

CHUNK_PAYOUTS_MAX = 1 << CHUNK_INDEX_BITS
"""Payouts in one chunk."""

TOKEN_CHARS = 12
_TOKEN_ALPHABET = string.ascii_lowercase + string.digits
_KEY = re.compile(r"([a-z0-9]{12})-([1-9][0-9]{0,7})-(0|[1-9][0-9]{0,3})")


class ProviderKey(msgspec.Struct, frozen=True):
    """A provider key taken apart."""

    token: str
    chunk_no: int
    index: int


def chunk_id_of(run_no: int, chunk_no: int) -> int:
    """Return the id of a run's chunk; both numbers count from 1."""
    return run_no << RUN_CHUNK_BITS | chunk_no


def run_no_of(chunk_id: int) -> int:
    """Return the number of the run a chunk belongs to."""
    return chunk_id >> RUN_CHUNK_BITS


def chunk_no_of(chunk_id: int) -> int:
    """Return the number of a chunk within its run."""
    return chunk_id & CHUNKS_MAX


def chunk_range(run_no: int) -> tuple[int, int]:
    """Return the lowest and the highest chunk id that a run can have."""
    return chunk_id_of(run_no, 0), chunk_id_of(run_no, CHUNKS_MAX)


def position_of(chunk_id: int, index: int) -> int:
    """Return the position of a payout."""
    return chunk_id << CHUNK_INDEX_BITS | index


def split_position(position: int) -> tuple[int, int]:
    """Return the chunk id and the index of a position."""
    return position >> CHUNK_INDEX_BITS, position & (CHUNK_PAYOUTS_MAX - 1)


def position_range(run_no: int) -> tuple[int, int]:
    """Return the lowest and the highest position that a run can have."""
    first, last = chunk_range(run_no)
    return position_of(first, 0), position_of(last, CHUNK_PAYOUTS_MAX - 1)


def new_token() -> str:
    """Return a random token for a run: lower-case letters and digits, which every provider takes."""
    return "".join(secrets.choice(_TOKEN_ALPHABET) for _ in range(TOKEN_CHARS))


def provider_keys(token: str, chunk_id: int, indexes: Iterable[int]) -> list[str]:
    """Return the provider keys of payouts of one chunk."""
    start = f"{token}-{chunk_no_of(chunk_id)}-"
    return [f"{start}{index}" for index in indexes]


def parse_key(key: str) -> ProviderKey | None:
    """Take a provider key apart; None when it cannot be one of ours, to the letter."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    parsed = ProviderKey(found[1], int(found[2]), int(found[3]))
    return parsed if parsed.chunk_no <= CHUNKS_MAX and parsed.index < CHUNK_PAYOUTS_MAX else None


_INDEXES = {str(index): index for index in range(CHUNK_PAYOUTS_MAX)}


def split_key(key: str) -> tuple[str, int | None]:
    """Return what the keys of one chunk have in common, and the index; None when it is no index of ours.

    A sweep asks this of every transfer it sees, so it must cost next to nothing; `parse_key` looks at the first part.
    """
    start, _, index = key.rpartition("-")
    return start, _INDEXES.get(index)
