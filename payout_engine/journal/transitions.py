"""What the rest of the journal shares: finding a run, reading a chunk, and moving payouts of it.

`move` is the one place that writes `progress` after intake, with the log entry beside it; only the intent of a whole
chunk, which has nothing to tell yet, is written by `dispatches.intend` itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apsw

from payout_engine.domain.errors import JournalError
from payout_engine.domain.model import Lane, Receipt
from payout_engine.domain.states import LETTERS
from payout_engine.journal import codec, log
from payout_engine.journal.db import every, only, row, value
from payout_engine.journal.ids import run_no_of


def run_no(db: apsw.Connection, run_id: str) -> int:
    """Return the number of a run.

    Raises:
        JournalError: there is no such run.
    """
    number = value(db, "SELECT run_no FROM runs WHERE run_id = ?", (run_id,))
    if number is None:
        raise JournalError(f"The journal has no run {run_id}. See the runs it has with: payout-engine runs")
    return int(number)


def validating(db: apsw.Connection, number: int, run_id: str) -> tuple[int, bytes]:
    """Return how much of a run was recorded, if it was this process that recorded it.

    Raises:
        JournalError: it was another process, whose knowledge of the run has gone with it.
    """
    found = row(db, "SELECT chunks, digest FROM validating WHERE run_no = ?", (number,))
    if found is None:
        raise JournalError(
            f"Run {run_id} was validated by another process and its comparison with earlier runs is gone. Nothing "
            "of it was sent; run its payout file again."
        )
    chunks, digest = found
    return chunks, digest


class ChunkRow(NamedTuple):
    """A chunk as the tables hold it; its payouts and receipts are still text, since not everybody reads them."""

    chunk_id: int
    lane: Lane
    payouts: str
    states: str
    receipts: str | None

    def standing(self) -> list[Receipt]:
        """Return where each payout stands, with what was last said of it."""
        receipts = codec.read_receipts(self.receipts, len(self.states))
        return [known or codec.standing(letter, known) for letter, known in zip(self.states, receipts, strict=True)]


CHUNK_COLUMNS = "chunk_id, account, lane, currency, payouts, states, receipts"
"""What `chunk_row` makes a `ChunkRow` of."""


def chunk_row(found: Sequence[Any]) -> ChunkRow:
    """Return a chunk, given its `CHUNK_COLUMNS`."""
    chunk_id, account, lane, currency, *rest = found
    return ChunkRow(chunk_id, Lane(account, lane, currency), *rest)


def chunk_rows(db: apsw.Connection, where: str, *bindings: object) -> Iterator[ChunkRow]:
    """Go through the chunks for which something is true."""
    # A chunk_id in the condition is that of the first table, whose partial indexes find what is open, ready or held.
    query = f"SELECT {CHUNK_COLUMNS} FROM progress JOIN chunks USING (chunk_id) WHERE {where}"  # noqa: S608
    return map(chunk_row, every(db, query, bindings))


def once_sent(db: apsw.Connection, chunk_id: int, count: int) -> set[int]:
    """Return which payouts of a chunk were ever on the wire: a call that provably never left was not."""
    spoken = "SELECT coalesce(spoken, indexes) FROM dispatches WHERE chunk_id = ? AND on_wire"
    stored = every(db, spoken, (chunk_id,))
    return {index for (indexes,) in stored for index in codec.read_indexes(indexes, count)}


def move(db: apsw.Connection, chunk_id: int, moved: log.Moved, at: float, kind: str) -> int:
    """Bring payouts of a chunk to the states of their receipts, and log it.

    Args:
        db: inside a transaction.
        chunk_id: the chunk.
        moved: which payouts, and their receipts; the time of these is filled in.
        at: the time of the log entry.
        kind: the kind of the log entry; empty before the run is sealed, when nothing is logged.

    Returns:
        The number of the log entry, 0 when nothing is logged.

    Raises:
        apsw.ConstraintError: the guard refuses a move.
    """
    columns = codec.receipt_columns(moved.receipts)
    stored: str | None = codec.text(columns)
    if moved.indexes is None:
        states = _whole(db, chunk_id, moved.receipts)
    else:
        states, stored = _part(db, chunk_id, moved.receipts, moved.indexes)
    db.execute(
        "UPDATE progress SET states = ?, receipts = ?, updated_at = ? WHERE chunk_id = ?",
        (states, stored, at, chunk_id),
    )
    if not kind:
        return 0
    return log.append(db, at, run_no_of(chunk_id), kind, log.moved_text(moved, columns), chunk_id)


def _whole(db: apsw.Connection, chunk_id: int, receipts: Sequence[Receipt]) -> str:
    if len(receipts) > 1:
        return codec.letters([receipt.state for receipt in receipts])
    count: int = value(db, "SELECT length(states) FROM progress WHERE chunk_id = ?", (chunk_id,))
    return LETTERS[receipts[0].state] * count


def _part(
    db: apsw.Connection, chunk_id: int, receipts: Sequence[Receipt], indexes: Sequence[int]
) -> tuple[str, str | None]:
    """Return the states and receipts of a chunk of which some payouts have moved."""
    before, stored = only(db, "SELECT states, receipts FROM progress WHERE chunk_id = ?", (chunk_id,))
    states, known = list(before), list(codec.read_receipts(stored, len(before)))
    for index, receipt in zip(indexes, codec.each(receipts, len(indexes)), strict=True):
        states[index] = LETTERS[receipt.state]
        known[index] = receipt
    return "".join(states), codec.receipts_text(known)
