"""Finding payouts that repeat others, exactly, in time that grows with their number and in bounded memory.

Hashes that occur more than once make suspects; each suspect's payout is read once, in the order in which it is stored;
what the suspects really say is sorted, and the first of each kind is the original of the rest. Everything in between
lies in temporary tables, since a whole file may repeat another. `SqliteJournal.repeats` drives the steps one by one,
so that other requests come in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import groupby
from typing import NamedTuple

import apsw

from payout_engine import clock
from payout_engine.errors import IllegalMoveError
from payout_engine.journal import rows
from payout_engine.journal.ask import every, only, value
from payout_engine.journal.changes import judging, run_no
from payout_engine.journal.fresh import PAYEE_BIT, payee
from payout_engine.journal.keys import position_range, run_no_of, split_position
from payout_engine.lifecycle import LETTERS, STATES_BY_LETTER, UNPAID
from payout_engine.limits import REPEAT_WINDOW_SECONDS
from payout_engine.model import Payout, Repeat, RepeatKind

SUSPECTS_STEP = 10_000
"""Suspects compared in one request to the journal's thread."""

PAGE = 500
"""Repeats handed out at a time."""

_UNPAID = frozenset(LETTERS[state] for state in UNPAID)
_MAIN, _EARLIER = 0, 1


class Search(NamedTuple):
    """A search for the repeats of one run.

    Attributes:
        number: the run's number.
        references: whether references are compared.
        since: payee and amount are compared with runs approved at or after this time.
        compared: the last approval when the search began.
        sources: where earlier runs are: this journal, and perhaps the attached one.
    """

    number: int
    references: bool
    since: float
    compared: int
    sources: Sequence[int]


class Stored(NamedTuple):
    """A payout where it is stored, with its state's letter."""

    position: int
    payout: Payout
    letter: str


_CHUNK = {
    _MAIN: "SELECT payouts, states FROM main.chunks JOIN main.progress USING (chunk_id) WHERE chunk_id = ?",
    _EARLIER: "SELECT payouts, states FROM earlier.chunks JOIN earlier.progress USING (chunk_id) WHERE chunk_id = ?",
}
_STATES = {
    _MAIN: "SELECT states FROM main.progress WHERE chunk_id = ?",
    _EARLIER: "SELECT states FROM earlier.progress WHERE chunk_id = ?",
}
_RUN = {
    _MAIN: "SELECT run_id, approved_no, approved_at FROM main.runs WHERE run_no = ?",
    _EARLIER: "SELECT run_id, approved_no, approved_at FROM earlier.runs WHERE run_no = ?",
}
_OLDEST_RECENT = {
    _MAIN: "SELECT min(run_no) FROM main.runs WHERE approved_at >= ?",
    _EARLIER: "SELECT min(run_no) FROM earlier.runs WHERE approved_at >= ?",
}
# Grouping sorts the run's hashes, so that the keys are looked up in the order in which they are stored.
_DOUBTFUL = {
    _MAIN: "INSERT OR IGNORE INTO doubtful SELECT hash FROM fresh WHERE position BETWEEN :first AND :last"
    " AND (:references OR hash & 1) GROUP BY hash HAVING count(*) > 1 OR EXISTS (SELECT 1 FROM main.keys"
    " WHERE keys.hash = fresh.hash AND (NOT keys.hash & 1 OR keys.position >= :recent))",
    _EARLIER: "INSERT OR IGNORE INTO doubtful SELECT hash FROM fresh WHERE position BETWEEN :first AND :last"
    " AND (:references OR hash & 1) GROUP BY hash HAVING EXISTS (SELECT 1 FROM earlier.keys"
    " WHERE keys.hash = fresh.hash AND (NOT keys.hash & 1 OR keys.position >= :recent))",
}
_SUSPECTS = {
    _MAIN: "INSERT OR IGNORE INTO suspects SELECT 0, position FROM (SELECT keys.position FROM doubtful JOIN main.keys"
    " USING (hash) WHERE NOT hash & 1 OR keys.position >= :recent) ORDER BY position",
    _EARLIER: "INSERT OR IGNORE INTO suspects SELECT 1, position FROM (SELECT keys.position FROM doubtful"
    " JOIN earlier.keys USING (hash) WHERE NOT hash & 1 OR keys.position >= :recent) ORDER BY position",
}
assert PAYEE_BIT == 1  # as the queries above have it


def begin(db: apsw.Connection, run_id: str) -> Search:
    """Find the suspects of a run: all payouts, of it or earlier, whose hash occurs twice."""
    number = run_no(db, run_id)
    if value(db, "SELECT approved_at FROM runs WHERE run_no = ?", (number,)) is not None:
        raise IllegalMoveError(f"run {run_id} was approved, so it is no longer compared")
    judging(db, number, run_id)
    _clear(db)
    db.execute("DELETE FROM found WHERE run_no = ?", (number,))
    attached = value(db, "SELECT 1 FROM pragma_database_list WHERE name = 'earlier'")
    search = Search(
        number=number,
        references=bool(value(db, "SELECT has_references FROM runs WHERE run_no = ?", (number,))),
        since=clock.now() - REPEAT_WINDOW_SECONDS,
        compared=value(db, "SELECT coalesce(max(approved_no), 0) FROM main.runs"),
        sources=(_MAIN, _EARLIER) if attached else (_MAIN,),
    )
    bindings = [_bindings(db, search, source) for source in search.sources]
    for source in search.sources:
        db.execute(_DOUBTFUL[source], bindings[source])
    for source in search.sources:
        db.execute(_SUSPECTS[source], {"recent": bindings[source]["recent"]})
    db.execute(
        "INSERT OR IGNORE INTO suspects SELECT 0, position FROM (SELECT fresh.position FROM fresh JOIN doubtful"
        " USING (hash) WHERE fresh.position BETWEEN ? AND ?) ORDER BY position",
        position_range(number),
    )
    return search


def _bindings(db: apsw.Connection, search: Search, source: int) -> dict[str, int]:
    """What the searches for hashes need. Runs older than the window are passed over unread."""
    first, last = position_range(search.number)
    oldest = value(db, _OLDEST_RECENT[source], (search.since,))
    recent = position_range(oldest)[0] if oldest is not None else (1 << 63) - 1
    return {"first": first, "last": last, "references": search.references, "recent": recent}


def _clear(db: apsw.Connection) -> None:
    db.execute("DELETE FROM doubtful; DELETE FROM suspects; DELETE FROM faces; DELETE FROM originals")


def compare(db: apsw.Connection, search: Search, after: tuple[int, int]) -> tuple[int, int] | None:
    """Write down what the next suspects really say; return how far this came, or None at the end."""
    suspects = list(
        every(
            db,
            "SELECT source, position FROM suspects WHERE (source, position) > (?, ?) ORDER BY source, position LIMIT ?",
            (*after, SUSPECTS_STEP),
        )
    )
    for source in search.sources:
        positions = [position for origin, position in suspects if origin == source]
        db.executemany("INSERT INTO faces VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _faces(db, search, source, positions))
    return suspects[-1] if suspects else None


def _faces(
    db: apsw.Connection, search: Search, source: int, positions: Sequence[int]
) -> Iterator[tuple[str, str, bool, int, int, int, int, bool]]:
    """What each suspect says that may repeat, or be repeated."""
    for number, found in groupby(
        _read(db, source, positions), lambda stored: run_no_of(split_position(stored.position)[0])
    ):
        mine = source == _MAIN and number == search.number
        _, approved_no, approved_at = only(db, _RUN[source], (number,))
        for position, payout, letter in found:
            if letter in _UNPAID:
                continue
            rest = (mine, approved_no or 0, payout.line, position, source, letter == "r")
            if search.references:
                yield RepeatKind.REFERENCE.value, payout.reference, *rest
            if mine or approved_at >= search.since:
                yield RepeatKind.PAYEE_AMOUNT.value, payee(payout), *rest


def _read(db: apsw.Connection, source: int, positions: Sequence[int]) -> Iterator[Stored]:
    """Read payouts in order, each chunk once."""
    for chunk_id, group in groupby(positions, lambda position: split_position(position)[0]):
        stored, states = only(db, _CHUNK[source], (chunk_id,))
        payouts = rows.read_payouts(stored)
        for position in group:
            index = split_position(position)[1]
            yield Stored(position, payouts[index], states[index])


def conclude(db: apsw.Connection, search: Search) -> None:
    """Find the original of each kind, then every ready payout of the run that is not itself the original."""
    # The first of each group wins: the latest earlier run, the lowest line.
    db.execute(
        "INSERT OR IGNORE INTO originals SELECT kind, identity, mine, line, position, source FROM faces"
        " ORDER BY kind, identity, mine, approved_no DESC, line, position"
    )
    db.execute(
        "INSERT INTO found SELECT ?, faces.position, kind, originals.mine, originals.line, originals.position,"
        " originals.source FROM faces JOIN originals USING (kind, identity)"
        " WHERE faces.mine AND faces.ready AND (NOT originals.mine OR originals.position <> faces.position)"
        " ORDER BY faces.position, kind, originals.mine",
        (search.number,),
    )
    _clear(db)
    db.execute("UPDATE judging SET compared = ? WHERE run_no = ?", (search.compared, search.number))


def page(
    db: apsw.Connection, search: Search, after: tuple[int, str, int]
) -> tuple[Sequence[Repeat], tuple[int, str, int]]:
    """Return the next repeats, in the order of their positions, and how far this came."""
    found = list(
        every(
            db,
            "SELECT position, kind, same_run, earlier_line, earlier_position, source FROM found WHERE run_no = ?"
            " AND (position, kind, same_run) > (?, ?, ?) ORDER BY position, kind, same_run LIMIT ?",
            (search.number, *after, PAGE),
        )
    )
    if not found:
        db.execute("DELETE FROM found WHERE run_no = ?", (search.number,))
        return (), after
    payouts = _read(db, _MAIN, [position for position, *_ in found])
    origins = lru_cache(maxsize=PAGE)(partial(_origin, db))
    repeats = [
        _repeat(kind, stored, bool(same_run), line, origins(source, split_position(origin)[0]), origin)
        for (_, kind, same_run, line, origin, source), stored in zip(found, payouts, strict=True)
    ]
    return repeats, found[-1][:3]


class _Origin(NamedTuple):
    """The chunk of an original: whose it is, when that was approved, and how its payouts stand."""

    run_id: str
    approved_at: float
    states: str


def _origin(db: apsw.Connection, source: int, chunk_id: int) -> _Origin:
    run_id, _, approved_at = only(db, _RUN[source], (run_no_of(chunk_id),))
    return _Origin(run_id, approved_at, value(db, _STATES[source], (chunk_id,)))


def _repeat(kind: str, stored: Stored, same_run: bool, line: int, origin: _Origin, position: int) -> Repeat:
    return Repeat(
        kind=RepeatKind(kind),
        position=stored.position,
        payout=stored.payout,
        earlier_run_id=origin.run_id,
        earlier_line=line,
        earlier_state=STATES_BY_LETTER[origin.states[split_position(position)[1]]],
        earlier_at=0.0 if same_run else origin.approved_at,
        same_run=same_run,
    )
