"""Finding payouts that repeat others, exactly, in time that grows with their number and in bounded memory.

Hashes that occur more than once make suspects; each suspect's payout is read once, in the order in which it is stored;
what the suspects really say is sorted, and the first of each kind is the original of the rest. Everything in between
lies in temporary tables, since a whole file may repeat another. `SqliteJournal.repeats` drives the steps one by one,
so that other requests come in between.

A run that is only validated is compared with itself and with all approved runs. One that was approved is compared again
before it goes on, with the runs approved before it: only what still waits, and nothing that a person released.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import groupby
from typing import NamedTuple

import apsw

from payout_engine.domain.limits import CHUNK_INDEX_BITS, RUN_CHUNK_BITS
from payout_engine.domain.model import Duplicate, DuplicateKind, Payout, Query
from payout_engine.domain.references import is_derived
from payout_engine.domain.states import LETTERS, STATES_BY_LETTER, UNPAID, State
from payout_engine.journal import codec, log
from payout_engine.journal.db import Row, every, only, value
from payout_engine.journal.dispatches import queries_of
from payout_engine.journal.fingerprints import (
    CELLS_KIND,
    KIND_MASK,
    PAYEE_KIND,
    REFERENCE_KIND,
    cells_as_meant,
    own_cells,
    payee,
    reference_as_meant,
)
from payout_engine.journal.ids import chunk_range, position_of, position_range, run_no_of, split_position
from payout_engine.journal.last_sent import LastSent
from payout_engine.journal.runs import remember
from payout_engine.journal.transitions import CHUNK_COLUMNS, chunk_row, run_no, validating

SUSPECTS_STEP = 10_000
"""Suspects compared in one request to the journal's thread."""

PAGE = 500
"""Repeats handed out at a time."""

MAIN, EARLIER = 0, 1
"""Where an earlier payout is: in this journal, or in the one attached as `earlier`."""

SCHEMAS = ("main", "earlier")

_READY = LETTERS[State.READY]
_UNPAID = frozenset(LETTERS[state] for state in UNPAID)


class Search(NamedTuple):
    """A search for the repeats of one run.

    Attributes:
        number: the run's number.
        references: whether the run has references of its own.
        before: only runs approved before this one count; their number.
        own: whether the run's payouts are compared with each other.
        compared: the last approval when the search began.
        sources: where earlier runs are: this journal, and perhaps the attached one.
        decided: positions of the run on which a person has spoken.
        direction: only runs of the same direction count: who is paid by us may well owe us the same.
    """

    number: int
    direction: str
    references: bool
    before: int
    own: bool
    compared: int
    sources: Sequence[int]
    decided: frozenset[int] = frozenset()


class Stored(NamedTuple):
    """A payout where it is stored.

    Attributes:
        position: its address.
        payout: the payout.
        letter: of its state.
        cells: as they were read, if they are needed.
        kinds: of its hashes that made it a suspect.
        lately: whether it was, or may still be, sent lately, if that is needed.
    """

    position: int
    payout: Payout
    letter: str
    cells: Sequence[str]
    kinds: Sequence[int]
    lately: bool


def _both(query: str) -> tuple[str, str]:
    """Return a query for this journal and for the attached one."""
    return query.format(schema=SCHEMAS[MAIN]), query.format(schema=SCHEMAS[EARLIER])


_CHUNK = _both(
    "SELECT payouts, states, rows FROM {schema}.chunks JOIN {schema}.progress USING (chunk_id) WHERE chunk_id = ?"
)
_ORIGIN = _both(
    "SELECT payouts, states FROM {schema}.chunks JOIN {schema}.progress USING (chunk_id) WHERE chunk_id = ?"
)
_RUN = _both(
    "SELECT run_id, direction, approved_no, approved_at, has_references, columns FROM {schema}.runs WHERE run_no = ?"
)
# Grouping sorts the run's hashes, so that the keys are looked up in the order in which they are stored. A hash of payee
# and amount only says something of what was, or may still be, sent lately.
_DOUBTFUL = _both(
    "INSERT OR IGNORE INTO doubtful SELECT hash FROM fresh WHERE position BETWEEN :first AND :last"
    " AND (:references OR hash & 3 <> 0) GROUP BY hash HAVING (:own AND count(*) > 1)"
    " OR EXISTS (SELECT 1 FROM {schema}.keys WHERE keys.hash = fresh.hash"
    " AND keys.position NOT BETWEEN :skip AND :until"
    " AND (keys.hash & 3 <> 1 OR keys.position >> 34 IN (SELECT run_no FROM recent WHERE source = :source)))"
)
_SUSPECTS = _both(
    "INSERT OR IGNORE INTO suspects SELECT :source, position, kind FROM (SELECT keys.position, keys.hash & 3 AS kind"
    " FROM doubtful JOIN {schema}.keys USING (hash) WHERE keys.position NOT BETWEEN :skip AND :until"
    " AND (keys.hash & 3 <> 1 OR keys.position >> 34 IN (SELECT run_no FROM recent WHERE source = :source)))"
    " ORDER BY position"
)
# An equal payee and amount alone, under references of their own, are two payments.
_FORMERLY = (
    "INSERT OR IGNORE INTO formerly SELECT ?, theirs.source, theirs.position FROM faces AS theirs"
    " JOIN faces AS ours USING (kind, identity) WHERE theirs.unpaid AND ours.mine AND ours.ready"
    " AND (kind <> 'payee_amount' OR ours.bare OR theirs.bare)"
)
assert (KIND_MASK, REFERENCE_KIND, PAYEE_KIND, DuplicateKind.PAYEE_AMOUNT) == (3, 0, 1, "payee_amount")  # as above
assert CHUNK_INDEX_BITS + RUN_CHUNK_BITS == 34


def begin(db: apsw.Connection, run_id: str) -> Search | None:
    """Find the suspects of a run: all payouts, of it or earlier, whose hash occurs twice; None if there can be none."""
    number = run_no(db, run_id)
    query = "SELECT direction, approved_no, has_references FROM runs WHERE run_no = ?"
    direction, approved_no, references = only(db, query, (number,))
    attached = value(db, "SELECT 1 FROM pragma_database_list WHERE name = 'earlier'")
    search = Search(
        number=number,
        direction=direction,
        references=bool(references),
        before=approved_no or (1 << 62),
        own=approved_no is None,
        compared=value(db, "SELECT coalesce(max(approved_no), 0) FROM main.runs"),
        sources=(MAIN, EARLIER) if attached else (MAIN,),
    )
    _clear(db)
    db.execute("DELETE FROM found WHERE run_no = ?", (number,))
    if search.own:
        validating(db, number, run_id)
        db.execute("DELETE FROM formerly WHERE run_no = ?", (number,))
    elif _may_have_come_up(db, number, approved_no):
        _remember_waiting(db, number)
        search = search._replace(decided=_decided(db, number))
    else:
        return None
    for source in search.sources:
        numbers = LastSent(db, SCHEMAS[source]).runs()
        db.executemany("INSERT INTO recent VALUES (?, ?)", [(source, one) for one in numbers])
    for source in search.sources:
        db.execute(_DOUBTFUL[source], _bindings(search, source))
    for source in search.sources:
        db.execute(_SUSPECTS[source], _bindings(search, source))
    db.execute(
        "INSERT OR IGNORE INTO suspects SELECT 0, position, kind FROM (SELECT fresh.position, hash & 3 AS kind"
        " FROM fresh JOIN doubtful USING (hash) WHERE fresh.position BETWEEN ? AND ?) ORDER BY position",
        position_range(number),
    )
    return search


def _bindings(search: Search, source: int) -> dict[str, int]:
    """Return what the searches for hashes need. In the attached journal, no position is the run's own."""
    first, last = position_range(search.number)
    skip, until = (first, last) if source == MAIN else (-1, -1)
    own = search.own and source == MAIN
    return {
        **{"first": first, "last": last, "skip": skip, "until": until},
        **{"references": search.references, "own": own, "source": source},
    }


def _clear(db: apsw.Connection) -> None:
    db.execute(
        "DELETE FROM recent; DELETE FROM doubtful; DELETE FROM suspects; DELETE FROM faces; DELETE FROM originals"
    )


def _may_have_come_up(db: apsw.Connection, number: int, approved_no: int) -> bool:
    """Tell whether a run that was approved has to be compared again.

    So it has if lines of it may have been sent before, or if anything of an earlier run came to light, or was decided,
    since it was approved.
    """
    query = "SELECT seq, body FROM log WHERE run_no = ? AND kind = 'approve' ORDER BY seq LIMIT 1"
    seq, body = only(db, query, (number,))
    query = "SELECT 1 FROM log JOIN runs USING (run_no) WHERE seq > ? AND approved_no < ? AND kind IN (?, ?) LIMIT 1"
    moved = value(db, query, (seq, approved_no, log.SIGHTING, log.DECISION)) is not None
    return moved or log.read_approval(body).former_accounts


def _remember_waiting(db: apsw.Connection, number: int) -> None:
    """Hash the chunks of an approved run in which something still waits."""
    kept = own_cells(codec.read_columns(value(db, "SELECT columns FROM runs WHERE run_no = ?", (number,))))
    db.execute("DELETE FROM fresh WHERE position BETWEEN ? AND ?", position_range(number))
    for chunk_id, payouts, cells in list(
        every(
            db,
            "SELECT chunk_id, payouts, rows FROM progress JOIN chunks USING (chunk_id)"
            " WHERE instr(states, 'r') > 0 AND chunk_id BETWEEN ? AND ?",
            chunk_range(number),
        )
    ):
        remember(db, chunk_id, codec.read_payouts(payouts), codec.read_rows(cells), kept)


def _decided(db: apsw.Connection, number: int) -> frozenset[int]:
    """Return the positions of a run on which a person has spoken: what was released is not held for the same again."""
    found: set[int] = set()
    for chunk_id, count, body in every(
        db,
        "SELECT chunk_id, count, body FROM log JOIN chunks USING (chunk_id) WHERE log.run_no = ? AND kind = 'decision'",
        (number,),
    ):
        indexes = log.read_moved(body).indexes
        found |= {position_of(chunk_id, index) for index in (range(count) if indexes is None else indexes)}
    return frozenset(found)


def compare(db: apsw.Connection, search: Search, after: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """Write down what the next suspects really say; return how far this came, or None at the end."""
    suspects = list(
        every(
            db,
            "SELECT source, position, kind FROM suspects WHERE (source, position, kind) > (?, ?, ?)"
            " ORDER BY source, position, kind LIMIT ?",
            (*after, SUSPECTS_STEP),
        )
    )
    for source in search.sources:
        found = [(position, kind) for origin, position, kind in suspects if origin == source]
        db.executemany(
            "INSERT INTO faces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _candidates(db, search, source, found)
        )
    return suspects[-1] if suspects else None


Candidate = tuple[str, str, bool, int, int, int, int, bool, bool, bool]
"""A row of the table of that name."""


def _candidates(
    db: apsw.Connection, search: Search, source: int, suspects: Sequence[tuple[int, int]]
) -> Iterator[Candidate]:
    """Yield what each suspect says that may repeat, or be repeated, or was perhaps sent before."""
    by_run = groupby(_read(db, source, suspects), lambda stored: run_no_of(split_position(stored.position)[0]))
    for number, found in by_run:
        mine = source == MAIN and number == search.number
        _, direction, approved_no, _, references, columns = only(db, _RUN[source], (number,))
        if not mine and (approved_no >= search.before or direction != search.direction):
            continue
        kept = own_cells(codec.read_columns(columns))
        for stored in found:
            unpaid = stored.letter in _UNPAID
            if mine and (unpaid or stored.position in search.decided):
                continue
            bare = not references or is_derived(stored.payout.reference)
            where = (stored.payout.line, stored.position, source)
            rest = (mine, approved_no or 0, *where, stored.letter == _READY, bare, unpaid)
            for kind, identity in _identities(stored, kept):
                yield kind.value, identity, *rest


def _identities(stored: Stored, kept: Sequence[int] | None) -> Iterator[tuple[DuplicateKind, str]]:
    """Yield by what a payout may be the same as another: as far as its hashes have nominated it."""
    payout = stored.payout
    if REFERENCE_KIND in stored.kinds:
        yield DuplicateKind.REFERENCE, payout.reference
        yield DuplicateKind.REFERENCE_ALIKE, f"{reference_as_meant(payout.reference)}|{payee(payout)}"
    if PAYEE_KIND in stored.kinds and stored.lately:
        yield DuplicateKind.PAYEE_AMOUNT, payee(payout)
    if CELLS_KIND in stored.kinds and (cells := cells_as_meant(stored.cells, kept)):
        yield DuplicateKind.CELLS, cells


def _read(db: apsw.Connection, source: int, suspects: Sequence[tuple[int, int]]) -> Iterator[Stored]:
    """Read payouts in order, each chunk once."""
    lately = LastSent(db, SCHEMAS[source])
    for chunk_id, group in groupby(suspects, lambda suspect: split_position(suspect[0])[0]):
        by_position = {
            position: [kind for _, kind in same] for position, same in groupby(group, lambda suspect: suspect[0])
        }
        stored, states, cells = only(db, _CHUNK[source], (chunk_id,))
        payouts = codec.read_payouts(stored)
        needs_cells = any(CELLS_KIND in kinds for kinds in by_position.values())
        lines = codec.read_rows(cells) if needs_cells else [()] * len(payouts)
        recent = lately.of_chunk(chunk_id, states) if any(PAYEE_KIND in kinds for kinds in by_position.values()) else ()
        for position, kinds in by_position.items():
            index = split_position(position)[1]
            yield Stored(position, payouts[index], states[index], lines[index], kinds, index in recent)


def conclude(db: apsw.Connection, search: Search) -> None:
    """Find the original of each kind, then every ready payout of the run that is not itself the original."""
    # The first of each group wins: the latest earlier run, the lowest line.
    db.execute(
        "INSERT OR IGNORE INTO originals SELECT kind, identity, mine, line, position, source FROM faces"
        " WHERE NOT unpaid AND (NOT mine OR ?) ORDER BY kind, identity, mine, approved_no DESC, line, position",
        (search.own,),
    )
    db.execute(
        "INSERT INTO found SELECT ?, faces.position, kind, originals.mine, originals.line, originals.position,"
        " originals.source FROM faces JOIN originals USING (kind, identity)"
        " WHERE faces.mine AND faces.ready AND (NOT originals.mine OR originals.position <> faces.position)"
        " ORDER BY faces.position, kind, originals.mine",
        (search.number,),
    )
    if value(db, "SELECT 1 FROM faces WHERE unpaid LIMIT 1") is not None:
        db.execute(_FORMERLY, (search.number,))
    _clear(db)
    if search.own:
        db.execute("UPDATE validating SET compared = ? WHERE run_no = ?", (search.compared, search.number))
    else:
        db.execute("DELETE FROM fresh WHERE position BETWEEN ? AND ?", position_range(search.number))


def former_accounts(db: apsw.Connection, run_id: str) -> Sequence[str]:
    """Return the accounts that may have been sent lines of a run before; see `Journal.formerly`."""
    found = every(
        db,
        "SELECT DISTINCT account FROM formerly JOIN chunks ON chunk_id = position >> ? WHERE formerly.run_no = ?"
        " AND source = ? ORDER BY account",
        (CHUNK_INDEX_BITS, run_no(db, run_id), MAIN),
    )
    return [account for (account,) in found]


def former_queries(
    db: apsw.Connection, run_id: str, account: str, limit: int, after: int
) -> tuple[Sequence[Query], int]:
    """Return what to ask an account about lines that a run pays again; see `Journal.former_queries`."""
    found = list(
        every(
            db,
            f"SELECT position, token, {CHUNK_COLUMNS} FROM formerly"  # noqa: S608
            " JOIN chunks ON chunk_id = position >> ? JOIN progress USING (chunk_id)"
            " JOIN runs ON runs.run_no = chunks.run_no"
            " WHERE formerly.run_no = ? AND source = ? AND position > ? AND account = ? ORDER BY position LIMIT ?",
            (CHUNK_INDEX_BITS, run_no(db, run_id), MAIN, after, account, limit),
        )
    )
    queries: list[Query] = []
    for (token, *chunk), same in groupby(found, lambda row: row[1:]):
        indexes = [split_position(position)[1] for position, *_ in same]
        queries += queries_of(db, token, chunk_row(chunk), indexes)
    return queries, found[-1][0] if len(found) == limit else 0


def page(
    db: apsw.Connection, search: Search, after: tuple[int, str, int]
) -> tuple[Sequence[Duplicate], tuple[int, str, int]]:
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
    read = _read(db, MAIN, [(position, REFERENCE_KIND) for position in sorted({position for position, *_ in found})])
    payouts = {stored.position: stored.payout for stored in read}
    origins = lru_cache(maxsize=PAGE)(partial(_first_match, db))
    repeats = [_duplicate(one, payouts[one[0]], origins(one[-1], split_position(one[-2])[0])) for one in found]
    return repeats, found[-1][:3]


class _FirstMatch(NamedTuple):
    """The chunk of an original: whose it is, when that was approved, its references, and how its payouts stand."""

    run_id: str
    approved_at: float
    has_references: bool
    references: Sequence[str]
    states: str


def _first_match(db: apsw.Connection, source: int, chunk_id: int) -> _FirstMatch:
    run_id, _, _, approved_at, has_references, _ = only(db, _RUN[source], (run_no_of(chunk_id),))
    payouts, states = only(db, _ORIGIN[source], (chunk_id,))
    (references,) = codec.read_fields(payouts, "reference")
    return _FirstMatch(run_id, approved_at or 0.0, bool(has_references), references, states)


def _duplicate(found: Row, payout: Payout, origin: _FirstMatch) -> Duplicate:
    position, kind, same_run, line, earlier_position, _ = found
    index = split_position(earlier_position)[1]
    return Duplicate(
        kind=DuplicateKind(kind),
        position=position,
        payout=payout,
        earlier_run_id=origin.run_id,
        earlier_line=line,
        earlier_state=STATES_BY_LETTER[origin.states[index]],
        earlier_at=origin.approved_at,
        same_run=bool(same_run),
        earlier_reference=origin.references[index],
        earlier_has_references=origin.has_references,
    )
