"""Packing validated lines into chunks: payouts of one lane, in the order of their lines, at most what a call may hold.

What is left over at the end of one block waits for the next, so that chunks are full whatever the blocks were. Nothing
is lost and nothing is doubled; intake asks and counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from payout_engine.domain.limits import CHUNK_SIZE, CHUNK_SIZE_SINGLY
from payout_engine.domain.model import REJECTED_LANE, Chunk, Payout, Problem
from payout_engine.intake.validate import Batch, Validated
from payout_engine.ports.provider import Traits


class Packer:
    """Holds at most one unfinished chunk per lane."""

    def __init__(self, traits: Mapping[str, Traits]) -> None:
        """Prepare to pack.

        Args:
            traits: by account, what its provider takes in one call.
        """
        self._sizes = {account: chunk_size(promised) for account, promised in traits.items()}
        self._waiting: dict[str, Batch] = {}
        self._refused: list[tuple[Payout, Sequence[str], Problem]] = []

    def add(self, validated: Validated) -> list[Chunk]:
        """Take in the lines of one block and return the chunks that are now full."""
        chunks: list[Chunk] = []
        for key, batch in validated.accepted.items():
            waiting = self._waiting.get(key)
            if waiting is None:
                waiting = self._waiting[key] = Batch(batch.lane, [], [])
            waiting.payouts += batch.payouts
            waiting.rows += batch.rows
            self._cut(waiting, self._sizes[batch.lane.account], chunks)
        self._refused += validated.refused
        self._cut_refused(CHUNK_SIZE, chunks)
        return chunks

    def rest(self) -> list[Chunk]:
        """Return what is left at the end, in chunks that need not be full."""
        chunks = [Chunk(batch.lane, batch.payouts, batch.rows) for batch in self._waiting.values() if batch.payouts]
        self._cut_refused(1, chunks)
        self._waiting.clear()
        return chunks

    def _cut(self, batch: Batch, size: int, chunks: list[Chunk]) -> None:
        """Move full chunks out of a batch."""
        full = len(batch.payouts) - len(batch.payouts) % size
        for start in range(0, full, size):
            end = start + size
            chunks.append(Chunk(batch.lane, batch.payouts[start:end], batch.rows[start:end]))
        del batch.payouts[:full]
        del batch.rows[:full]

    def _cut_refused(self, least: int, chunks: list[Chunk]) -> None:
        """Move refused lines out while there are at least `least` of them."""
        while len(self._refused) >= least:
            payouts, rows, problems = zip(*self._refused[:CHUNK_SIZE], strict=True)
            chunks.append(Chunk(REJECTED_LANE, payouts, rows, problems))
            del self._refused[:CHUNK_SIZE]


def chunk_size(traits: Traits) -> int:
    """Return how many payouts a chunk holds: as many as one call takes.

    Where a provider takes payouts singly the chunk is only the journal's unit: small if each has an intent of its own,
    which writes the chunk's row anew, and as large as any if one intent covers the chunk.
    """
    if traits.batch_limit == 1 and not traits.intent_covers_calls:
        return CHUNK_SIZE_SINGLY
    return CHUNK_SIZE if traits.intent_covers_calls else min(traits.batch_limit, CHUNK_SIZE)
