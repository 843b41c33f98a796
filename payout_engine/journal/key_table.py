"""The keys that follow from the payouts of a run, compared with the table of keys: part of the proof.

Whoever takes a key out of the table lets the same line be paid again unnoticed, so every key must be there, and no
other. The expected ones are collected in a temporary table while the payouts are read, sorted, and merged with the keys
in the order in which these are stored. Memory does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apsw
import msgspec

from payout_engine.domain.limits import CHUNK_INDEX_BITS, RUN_CHUNK_BITS
from payout_engine.domain.model import Payout
from payout_engine.journal import codec
from payout_engine.journal.db import only, row, value
from payout_engine.journal.fingerprints import CELLS_KIND, HASHES_EACH, hashes, own_cells
from payout_engine.journal.ids import position_of, position_range


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

    def __init__(self, db: apsw.Connection, number: int) -> None:
        """Prepare for one run."""
        self._db = db
        found = row(db, "SELECT columns, has_references FROM runs WHERE run_no = ?", (number,))
        columns, self._references = found or ("[]", 0)
        try:
            self._kept = own_cells(codec.read_columns(columns))
        except msgspec.DecodeError:
            self._kept = None  # An altered header is a finding of its own: the seal has it.
        db.execute("CREATE TEMP TABLE expected (hash INTEGER NOT NULL, position INTEGER NOT NULL) STRICT")

    def expect(self, chunk_id: int, payouts: Sequence[Payout], cells: Sequence[Sequence[str]]) -> None:
        """Take in the payouts of a chunk of an approved run that were not refused, and their rows."""
        found = hashes(payouts, cells, self._kept)
        self._db.execute(
            "INSERT INTO temp.expected SELECT value, ? + key / ? FROM json_each(?) WHERE value & 3 <> ? OR ?",
            (position_of(chunk_id, 0), HASHES_EACH, codec.text(found), CELLS_KIND, self._references),
        )

    def gaps(self, number: int) -> Iterator[Gap]:
        """Yield what the table of keys lacks of a run, or holds beside it."""
        bounds = position_range(number)
        missing, first, last = only(self._db, f"{_SPAN} ({_EXPECTED} EXCEPT {_HELD} {_SORTED})", bounds)
        expected = value(self._db, "SELECT count(*) FROM temp.expected")
        if missing:
            yield Gap(
                f"{missing} of {expected} keys by which a repetition would be noticed are missing from the table keys: "
                "look for a second payment of these lines before paying anybody again",
                (first, last),
            )
        held, strays = only(self._db, _COUNTS, (*bounds, RUN_CHUNK_BITS + CHUNK_INDEX_BITS))
        if held != expected - missing:
            added, *_ = only(self._db, f"{_SPAN} ({_HELD} EXCEPT {_EXPECTED} {_SORTED})", bounds)
            yield Gap(f"the table keys holds {added} keys of the run that its payouts do not have")
        if strays:
            yield Gap(f"the table keys holds {strays} keys of no run that was approved")


# Sorted like this, SQLite merges the two sides row by row and holds neither.
_SPAN = "SELECT count(*), min(position), max(position) FROM"
_EXPECTED = "SELECT hash, position FROM temp.expected"
_HELD = "SELECT hash, position FROM keys WHERE position BETWEEN ? AND ?"
_SORTED = "ORDER BY hash, position"
_COUNTS = (
    "SELECT count(*) FILTER (WHERE position BETWEEN ? AND ?), count(*) FILTER (WHERE position >> ? NOT IN (SELECT"
    " run_no FROM runs WHERE approved_at IS NOT NULL)) FROM keys"
)
