"""Brakes that look at how payouts end: too many failures in a lane, and the canary that is sent before the rest.

Pure: `run.py` feeds them outcomes and counts, and stops what they say. A lane that they stop leaves others alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from payout_engine.domain.model import Lane, Outcome, Tally
from payout_engine.domain.states import OPEN, State
from payout_engine.ports.journal import ReadyChunk

FAILURES_SAMPLE_MIN = 50
"""Settled payouts of a lane before its share of failures means anything."""

SETTLED = frozenset({State.PAID, State.FAILED})
SENT = OPEN | SETTLED | {State.REVERSED}


class Failures:
    """Counts how the payouts of each lane ended since paying began, so that a resumed run begins to count anew."""

    def __init__(self, share_max: float) -> None:
        """Prepare to count.

        Args:
            share_max: the share of failed payouts that is still tolerated; 1 tolerates all.
        """
        self._share_max = share_max
        self._counts: dict[tuple[str, str], Counter[State]] = {}

    def count(self, outcomes: Iterable[Outcome]) -> Mapping[tuple[str, str], str]:
        """Take in outcomes; return, by account and lane, why a lane must stop."""
        touched: set[tuple[str, str]] = set()
        for outcome in outcomes:
            if outcome.status in SETTLED:
                lane = outcome.account, outcome.wallet
                self._counts.setdefault(lane, Counter())[outcome.status] += 1
                touched.add(lane)
        return {lane: why for lane in touched if (why := self._reason(self._counts[lane]))}

    def _reason(self, counts: Counter[State]) -> str:
        failed, settled = counts[State.FAILED], counts.total()
        if settled < FAILURES_SAMPLE_MIN or failed <= self._share_max * settled:
            return ""
        return (
            f"{failed:,} of {settled:,} payouts failed, more than max_failure_share ({self._share_max:.0%}) allows. "
            "Find out why before the rest is sent."
        )


class Canary(StrEnum):
    """How the first few payouts of a lane are doing."""

    PENDING = "singing"  # they are being sent, or have no final answer yet
    PASSED = "well"  # all of them arrived
    FAILED = "dead"  # one of them failed or needs a person
    NOT_NEEDED = "moot"  # nothing waits for their word


def canary_of(lane: Lane, tallies: Sequence[Tally], size: int) -> tuple[Canary, int]:
    """Tell how a lane's first payouts fared, from what the journal counts alone, so that a crash forgets nothing.

    Args:
        lane: the lane.
        tallies: of its run.
        size: how many payouts are to arrive before the rest is sent.

    Returns:
        That, and how many payouts more belong to the canary and wait to be sent.
    """
    counts = Counter[State]()
    for tally in tallies:
        if tally.lane == lane:
            counts[tally.state] += tally.count
    if not counts[State.READY]:
        return Canary.NOT_NEEDED, 0
    sent = sum(counts[state] for state in SENT)
    if counts[State.FAILED] or counts[State.REVERSED]:
        return Canary.FAILED, 0
    left = min(size - sent, counts[State.READY])
    if left > 0:
        return Canary.PENDING, left
    return (Canary.PENDING if any(counts[state] for state in OPEN) else Canary.PASSED), 0


class Quota:
    """How many payouts of each lane may be sent for now; without any, all of them.

    Attributes:
        left: by lane; None for no bound.
    """

    def __init__(self, left: Mapping[Lane, int] | None = None) -> None:
        self.left = dict(left) if left is not None else None

    def take(self, chunk: ReadyChunk) -> ReadyChunk | None:
        """Return as much of a chunk as may be sent, or None, and count it as sent."""
        if self.left is None:
            return chunk
        count = min(self.left[chunk.lane], len(chunk.payouts))
        self.left[chunk.lane] -= count
        return first_of(chunk, 0, count) if count else None

    def give_back(self, lane: Lane, count: int) -> None:
        """Count payouts as not sent after all."""
        if self.left is not None:
            self.left[lane] += count


def first_of(chunk: ReadyChunk, start: int, count: int) -> ReadyChunk:
    """Return `count` payouts of a chunk, from `start` on."""
    end = start + count
    return msgspec.structs.replace(
        chunk,
        indexes=chunk.indexes[start:end],
        payouts=chunk.payouts[start:end],
        keys=chunk.keys[start:end],
    )
