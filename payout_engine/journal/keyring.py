"""The keys that follow from the payouts of a run, compared with the table of keys: part of the proof.

Whoever takes a key out of the table lets the same line be paid again unnoticed, so every key must be there, and no
other. The expected ones are collected in a temporary table while the payouts are read, and sorted, so that the keys are
looked up in the order in which they are stored; then one walk through the table counts. Memory does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apsw

from payout_engine.journal import rows
from payout_engine.journal.ask import only, value
from payout_engine.journal.fresh import hashes
from payout_engine.journal.keys import position_of, position_range
from payout_engine.limits import CHUNK_INDEX_BITS, RUN_CHUNK_BITS
from payout_engine.model import Payout


class Gap(NamedTuple):
    """Something that is wrong with the keys of a run.

    Attributes:
        what: one sentence.
        positions: the first and the last payout that it may concern, or None.
    """

    what: str
    positions: tuple[int, int] | None = None


class Keyring:
    """What the table of keys must hold of one run."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        db.execute("CREATE TEMP TABLE expected (hash INTEGER NOT NULL, position INTEGER NOT NULL) STRICT")

    def expect(self, chunk_id: int, payouts: Sequence[Payout]) -> None:
        """Take in the payouts of a chunk of an approved run that were not refused."""
        found = hashes(payouts)
        self._db.execute(
            "INSERT INTO temp.expected SELECT value, ? + key / ? FROM json_each(?)",
            (position_of(chunk_id, 0), len(found) // len(payouts), rows.text(found)),
        )

    def gaps(self, number: int) -> Iterator[Gap]:
        """Yield what the table of keys lacks of a run, or holds beside it."""
        expected, present, first, last = only(
            self._db,
            "SELECT count(*), total(there), min(position) FILTER (WHERE NOT there), max(position) FILTER"
            " (WHERE NOT there) FROM (SELECT position, EXISTS (SELECT 1 FROM keys WHERE keys.hash = expected.hash"
            " AND keys.position = expected.position) AS there FROM (SELECT hash, position FROM temp.expected"
            " GROUP BY hash, position) AS expected)",
        )
        if present < expected:
            yield Gap(
                f"{expected - int(present)} of {expected} keys by which a repetition would be noticed are missing from"
                " the table keys: look for a second payment of these lines before paying anybody again",
                (first, last),
            )
        held = value(self._db, "SELECT count(*) FROM keys WHERE position BETWEEN ? AND ?", position_range(number))
        if held > present:
            yield Gap(f"the table keys holds {held - int(present)} keys of the run that its payouts do not have")
        strays = value(
            self._db,
            "SELECT count(*) FROM keys WHERE NOT EXISTS (SELECT 1 FROM runs WHERE run_no = position >> ?"
            " AND approved_at IS NOT NULL)",
            (RUN_CHUNK_BITS + CHUNK_INDEX_BITS,),
        )
        if strays:
            yield Gap(f"the table keys holds {strays} keys of no run that was approved")
