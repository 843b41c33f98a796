"""What people and results ask of the journal. Everything is read in pages, so that money never waits long for a reader.

Functions over one connection, run in the writer's thread. `SqliteJournal` calls them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

import apsw
import msgspec

from payout_engine.domain.facts import remark
from payout_engine.domain.model import Direction, Entry, Lane, Outcome, Query, Receipt, Run, RunState, Step, Tally
from payout_engine.domain.states import LETTERS, STATES_BY_LETTER, State
from payout_engine.journal import codec, log
from payout_engine.journal.db import Row, every, row, value
from payout_engine.journal.dispatches import queries_of
from payout_engine.journal.facts import read_fact
from payout_engine.journal.ids import chunk_id_of, chunk_range, parse_key, position_of, provider_keys, split_position
from payout_engine.journal.transitions import CHUNK_COLUMNS, ChunkRow, chunk_row, chunk_rows, run_no

TALLY_CHUNKS = 2_000
"""Chunks counted in one request."""

ENTRY_CHUNKS = 20
"""Chunks unfolded in one request: about 2,000 lines."""

LOG_PAGE = 50
"""Log entries replayed in one request: about 5,000 outcomes."""

TRACE_PAGE = 500
"""Log entries looked through in one request for what they say of a few payouts."""

_RUN_COLUMNS = (
    "run_id, name, digest, columns, dialect, has_references, sandbox, state, created_at, approved_at, finished_at,"
    " retry_of, direction"
)
_PAID = LETTERS[State.PAID]
_columns = msgspec.json.Decoder(list[str])
_dialect = msgspec.json.Decoder(dict[str, str])
_notes = msgspec.json.Decoder(log.Note)

Place = tuple[int, int]
"""A chunk and an index."""

Traces = dict[Place, list[Step]]
"""What the log says of payouts, by chunk and index."""


def runs(db: apsw.Connection) -> Sequence[Run]:
    """Return all runs, newest first."""
    return [_run(found) for found in every(db, f"SELECT {_RUN_COLUMNS} FROM runs ORDER BY run_no DESC")]  # noqa: S608


def find(db: apsw.Connection, run_id: str) -> Run | None:
    """Return the run with this id, or None."""
    found = row(db, f"SELECT {_RUN_COLUMNS} FROM runs WHERE run_id = ?", (run_id,))  # noqa: S608
    return _run(found) if found else None


def find_digest(db: apsw.Connection, digest: str) -> Run | None:
    """Return the run of this content, or None; see `Journal.find_digest`."""
    found = row(
        db,
        f"SELECT {_RUN_COLUMNS} FROM runs WHERE digest = ?"  # noqa: S608
        " ORDER BY approved_at IS NOT NULL DESC, run_no DESC LIMIT 1",
        (digest,),
    )
    return _run(found) if found else None


def _run(found: Row) -> Run:
    (
        run_id,
        name,
        digest,
        columns,
        dialect,
        has_references,
        sandbox,
        state,
        created_at,
        approved_at,
        finished_at,
        retry_of,
        direction,
    ) = found
    return Run(
        run_id=run_id,
        name=name,
        digest=digest,
        columns=_columns.decode(columns),
        has_references=bool(has_references),
        created_at=created_at,
        state=RunState(state),
        approved_at=approved_at,
        finished_at=finished_at,
        dialect=_dialect.decode(dialect),
        sandbox=bool(sandbox),
        retry_of=retry_of,
        direction=Direction(direction),
    )


class Totals:
    """Counts and sums by lane and state."""

    def __init__(self) -> None:
        self._sums: dict[tuple[Lane, State], tuple[int, int]] = {}

    def add(self, lane: Lane, state: State, count: int, amount_minor: int) -> None:
        """Count payouts that are alike."""
        before, sum_minor = self._sums.get((lane, state), (0, 0))
        self._sums[lane, state] = before + count, sum_minor + amount_minor

    def add_each(self, lane: Lane, states: Iterable[State], amounts_minor: Iterable[int]) -> None:
        """Count the payouts of a chunk."""
        for state, amount_minor in zip(states, amounts_minor, strict=True):
            self.add(lane, state, 1, amount_minor)

    def tallies(self) -> list[Tally]:
        """Return them in a stable order."""
        return [Tally(lane, state, *total) for (lane, state), total in sorted(self._sums.items())]


def tally(db: apsw.Connection, run_id: str, after: int, totals: Totals) -> int:
    """Add the next chunks to `totals`; return the last chunk's id, 0 at the end.

    Python sums, because the sum of a file of absurd amounts may be larger than SQLite's integers.
    """
    first, last = chunk_range(run_no(db, run_id))
    found = every(
        db,
        "SELECT chunk_id, account, lane, currency, count, amount_minor, states,"
        " CASE WHEN replace(states, substr(states, 1, 1), '') <> '' THEN payouts END"
        " FROM chunks JOIN progress USING (chunk_id) WHERE chunk_id BETWEEN ? AND ? ORDER BY chunk_id LIMIT ?",
        (max(first, after + 1), last, TALLY_CHUNKS),
    )
    read = last_read = 0
    for chunk_id, account, lane_name, currency, count, amount_minor, letters, payouts in found:
        lane, read, last_read = Lane(account, lane_name, currency), read + 1, chunk_id
        if payouts is None:
            totals.add(lane, STATES_BY_LETTER[letters[0]], count, amount_minor)
        else:
            states = [STATES_BY_LETTER[letter] for letter in letters]
            totals.add_each(lane, states, *codec.read_fields(payouts, "amount_minor"))
    return last_read if read == TALLY_CHUNKS else 0


Cursor = tuple[int, int]
"""The first line and the id of the chunk read last."""

START: Cursor = (-1, 0)


class EntryPage(NamedTuple):
    """Unfolded chunks.

    Attributes:
        entries: of these chunks, unsorted.
        cursor: where the next page begins.
        before: no later page has a line lower than this; None when this is the last page.
    """

    entries: Sequence[Entry]
    cursor: Cursor
    before: int | None


def entries(db: apsw.Connection, run_id: str, states: frozenset[State] | None, cursor: Cursor) -> EntryPage:
    """Unfold the next chunks of a run, in the order of their first lines; those without `states` are passed over."""
    number = run_no(db, run_id)
    token = value(db, "SELECT token FROM runs WHERE run_no = ?", (number,))
    wanted = "".join(sorted(LETTERS[state] for state in (states if states is not None else LETTERS)))
    found = list(
        every(
            db,
            f"SELECT first_line, rows, {CHUNK_COLUMNS} FROM chunks"  # noqa: S608
            " JOIN progress USING (chunk_id) WHERE run_no = ? AND (first_line, chunk_id) > (?, ?) AND states GLOB ?"
            " ORDER BY first_line, chunk_id LIMIT ?",
            (number, *cursor, f"*[{wanted}]*" if wanted else "", ENTRY_CHUNKS + 1),
        )
    )
    unfolded: list[Entry] = []
    for _, cells, *chunk in found[:ENTRY_CHUNKS]:
        unfolded += _entries(token, chunk_row(chunk), cells, wanted)
    if len(found) <= ENTRY_CHUNKS:
        return EntryPage(unfolded, cursor, None)
    last, _, last_id, *_ = found[ENTRY_CHUNKS - 1]
    return EntryPage(unfolded, (last, last_id), found[ENTRY_CHUNKS][0])


def _entries(token: str, chunk: ChunkRow, cells: str, wanted: str) -> list[Entry]:
    payouts, rows, letters = codec.read_payouts(chunk.payouts), codec.read_rows(cells), chunk.states
    keys = provider_keys(token, chunk.chunk_id, range(len(letters)))
    unfolded = map(Entry, payouts, rows, repeat(chunk.lane), chunk.standing(), keys)
    return [entry for entry, letter in zip(unfolded, letters, strict=True) if letter in wanted]


def paid_queries(db: apsw.Connection, run_id: str, account: str, limit: int, after: int) -> tuple[Sequence[Query], int]:
    """Return paid payouts to ask about once more; see `Journal.paid_queries`."""
    number = run_no(db, run_id)
    token = value(db, "SELECT token FROM runs WHERE run_no = ?", (number,))
    first, last = chunk_range(number)
    queries: list[Query] = []
    for chunk in chunk_rows(
        db,
        "instr(states, ?) > 0 AND chunk_id BETWEEN ? AND ? AND account = ? ORDER BY chunk_id",
        *(_PAID, max(first, split_position(after)[0]), last, account),
    ):
        start = after - position_of(chunk.chunk_id, 0) + 1
        indexes = [index for index, letter in enumerate(chunk.states) if letter == _PAID and index >= start]
        indexes = indexes[: limit - len(queries)]
        queries += queries_of(db, token, chunk, indexes)
        if len(queries) == limit:
            return queries, position_of(chunk.chunk_id, indexes[-1])
    return queries, 0


def notes(db: apsw.Connection, run_id: str) -> Sequence[tuple[float, str, str]]:
    """Return the remarks of a run, oldest first, with its facts as people are told of them."""
    found = every(
        db,
        "SELECT at, kind, body FROM log WHERE run_no = ? AND kind IN ('note', 'fact') ORDER BY seq",
        (run_no(db, run_id),),
    )
    return [(at, *(remark(read_fact.decode(body)) if kind == log.FACT else _note(body))) for at, kind, body in found]


def _note(body: str) -> tuple[str, str]:
    note = _notes.decode(body)
    return note.kind, note.text


def outcomes(db: apsw.Connection, run_id: str, after: int) -> Sequence[tuple[int, Sequence[Outcome]]]:
    """Return the next entries of the log that moved payouts, each as its sequence number and outcomes."""
    found = every(
        db,
        "SELECT seq, body, account, lane, currency, payouts FROM log JOIN chunks USING (chunk_id)"
        " WHERE log.run_no = ? AND seq > ? AND kind IN (?, ?, ?, ?, ?) ORDER BY seq LIMIT ?",
        (run_no(db, run_id), after, *log.MOVED_KINDS, LOG_PAGE),
    )
    return [
        (seq, _outcomes(run_id, Lane(account, lane, currency), body, payouts, seq))
        for seq, body, account, lane, currency, payouts in found
    ]


def _outcomes(run_id: str, lane: Lane, body: str, stored: str, seq: int) -> list[Outcome]:
    moved, payouts = log.read_moved(body), codec.read_payouts(stored)
    if moved.indexes is not None:
        payouts = [payouts[index] for index in moved.indexes]
    receipts: Sequence[Receipt] = codec.each(moved.receipts, len(payouts))
    return [
        codec.outcome_of(run_id, lane, payout, receipt, seq) for payout, receipt in zip(payouts, receipts, strict=True)
    ]


def places(db: apsw.Connection, run_id: str, keys: Collection[str]) -> Mapping[str, Place]:
    """Return the chunk and index of each provider key that is of this run."""
    number = run_no(db, run_id)
    token = value(db, "SELECT token FROM runs WHERE run_no = ?", (number,))
    parsed = {key: found for key in keys if (found := parse_key(key)) is not None and found.token == token}
    return {key: (chunk_id_of(number, found.chunk_no), found.index) for key, found in parsed.items()}


def by_chunk(wanted: Iterable[Place]) -> Mapping[int, Collection[int]]:
    """Return the indexes of each chunk."""
    chunks: dict[int, set[int]] = {}
    for chunk_id, index in wanted:
        chunks.setdefault(chunk_id, set()).add(index)
    return chunks


def trace(db: apsw.Connection, run_id: str, wanted: Mapping[int, Collection[int]], after: int, found: Traces) -> int:
    """Add what the next entries of the log say of these payouts; return the last entry's number, 0 at the end.

    The bodies of other chunks are passed over unread.
    """
    page = list(
        every(
            db,
            "SELECT seq, at, chunk_id, kind, body FROM log WHERE run_no = ? AND seq > ? ORDER BY seq LIMIT ?",
            (run_no(db, run_id), after, TRACE_PAGE),
        )
    )
    for _, at, chunk_id, kind, body in page:
        if chunk_id not in wanted or kind in log.ASIDE_KINDS:
            continue
        for index, receipt in _told(kind, body, wanted[chunk_id]):
            found.setdefault((chunk_id, index), []).append(Step(at, kind, receipt))
    return page[-1][0] if len(page) == TRACE_PAGE else 0


def _told(kind: str, body: str, wanted: Collection[int]) -> Iterator[tuple[int, Receipt | None]]:
    """Yield what an entry says of the payouts of its chunk that are wanted."""
    if kind in (log.INTENT, log.ASKED_AGAIN):
        chosen = (log.read_intent if kind == log.INTENT else log.read_asked_again)(body).indexes
        yield from ((index, None) for index in wanted if chosen is None or index in chosen)
    elif kind in log.MOVED_KINDS:
        moved = log.read_moved(body)
        places = None if moved.indexes is None else {index: place for place, index in enumerate(moved.indexes)}
        for index in wanted:
            place = index if places is None else places.get(index)
            if place is not None:
                yield index, moved.receipts[0 if len(moved.receipts) == 1 else place]
