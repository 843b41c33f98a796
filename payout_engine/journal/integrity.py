"""The frame of a journal, on which all its runs stand: its schema with the guards, its fixed tables, its counts.

No log tells of it. It is compared with an empty journal made afresh, with what each run's seal says of the journal, and
with itself. Part of the proof; `verify.py` calls it over one snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import NamedTuple

import apsw

from payout_engine.journal.db import Row, every, value
from payout_engine.journal.runs import meta_facts
from payout_engine.journal.schema import pristine

DAMAGES_MAX = 20
"""Faults of the file itself that are told."""

FIXED = {"words": "SELECT letter, word, birth FROM words", "moves": "SELECT source, target FROM moves"}
"""Tables that are filled when a journal is made, from lifecycle.py, and never again."""

STATISTICS = ("sqlite_stat1", "sqlite_stat4")
"""What SQLite gathers when a person lets it; it says nothing of payouts."""

# What separates words in SQL is kept as one space, texts and quoted names as they are: comments may be mended.
_BETWEEN = re.compile(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")|(?:--[^\n]*|\s)+")


class _Frame(NamedTuple):
    """What an untouched journal has."""

    objects: Mapping[tuple[str, str], tuple[str, str]]
    fixed: Mapping[str, frozenset[Row]]
    meta: frozenset[str]


@cache
def _untouched() -> _Frame:
    db = pristine()
    fixed = {table: frozenset(every(db, query)) for table, query in FIXED.items()}
    return _Frame(_objects(db), fixed, frozenset(meta_facts(db)))


def _objects(db: apsw.Connection) -> dict[tuple[str, str], tuple[str, str]]:
    """Return what each table, index, trigger and view is made on, and by which words."""
    found = every(db, "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema")
    return {
        (kind, name): (on, _words(sql))
        for kind, name, on, sql in found
        if (kind, name) not in {("table", statistics) for statistics in STATISTICS}
    }


@lru_cache(maxsize=200)
def _words(sql: str) -> str:
    return _BETWEEN.sub(lambda part: part[1] or " ", sql).strip()


def damages(db: apsw.Connection) -> Iterator[str]:
    """Yield damage of SQLite's own structures, in which rows could hide."""
    for (said,) in every(db, f"PRAGMA integrity_check({DAMAGES_MAX})"):
        if said != "ok":
            yield f"the file is damaged: {said}"


def alterations(db: apsw.Connection) -> Iterator[str]:
    """Yield what is not as in an untouched journal: guards, views, indexes and tables, and the rows of fixed tables."""
    objects, expected = _objects(db), _untouched().objects
    for kind, name in sorted(expected.keys() - objects.keys()):
        guards = " that guards the journal" if kind == "trigger" else ""
        yield f"the {kind} {name}{guards} was removed, so what it prevents may have been done"
    for kind, name in sorted(objects.keys() - expected.keys()):
        yield f"the {kind} {name} was added by somebody; if you know what it is, remove it: DROP {kind.upper()} {name}"
    for kind, name in sorted(expected.keys() & objects.keys()):
        if expected[kind, name] != objects[kind, name]:
            yield f"the {kind} {name} is not as payout_engine made it"
    for table, rows in _untouched().fixed.items():
        if table_rows(db, FIXED[table]) != rows:
            yield f"the table {table} does not hold the states and moves of the lifecycle, that the guards go by"


def table_rows(db: apsw.Connection, query: str) -> frozenset[Row]:
    """Return the rows of a small table."""
    return frozenset(every(db, query))


def contradictions(db: apsw.Connection, sealed: Mapping[str, str] | None, sandbox: object) -> Iterator[str]:
    """Yield what does not fit what the journal was when a run was sealed.

    Args:
        db: the journal.
        sealed: its `meta` as the run's seal has it; None for seals that are older than that.
        sandbox: whether the run's seal says that it is of the sandbox.
    """
    meta = meta_facts(db)
    if meta.keys() != _untouched().meta:
        yield f"the table meta does not hold exactly {', '.join(sorted(_untouched().meta))}"
    if meta.get("sandbox") != str(int(bool(sandbox))):
        yield "the journal is not of the kind (sandbox or not) that the run was sealed in"
    for name in sorted(meta.keys() & (sealed or {}).keys()):
        if meta[name] != (sealed or {})[name]:
            yield f"the {name} of the journal is not the one that was sealed with the run"


def strays(db: apsw.Connection) -> Iterator[str]:
    """Yield rows that belong to nothing."""
    counts: dict[tuple[str, str], int] = {}
    for table, _, parent, _ in every(db, "PRAGMA foreign_key_check"):
        counts[table, parent] = counts.get((table, parent), 0) + 1
    for (table, parent), count in sorted(counts.items()):
        yield f"the table {table} holds {count} rows that belong to nothing in {parent}"
    if value(db, "SELECT 1 FROM requests WHERE run_no NOT IN (SELECT run_no FROM runs)"):
        yield "the table requests holds something that was asked of no run"


def miscounts(db: apsw.Connection, entries: int, last_seq: int, last_run: int) -> Iterator[str]:
    """Yield what does not fit SQLite's own memory of how many entries and runs there ever were.

    Args:
        db: the journal.
        entries: how many entries its log has.
        last_seq: the number of the last one.
        last_run: the highest number of a run that the log speaks of.
    """
    found = list(every(db, "SELECT name, seq FROM sqlite_sequence"))
    remembered: dict[str, int] = dict(found)
    highest = max(last_run, value(db, "SELECT max(run_no) FROM runs") or 0)
    if sorted(str(name) for name, _ in found) != (["log", "runs"] if entries else sorted(remembered)):
        yield "SQLite's own count of the entries and runs (sqlite_sequence) was removed or altered"
        return
    log_seq, run_seq = remembered.get("log", last_seq), remembered.get("runs", highest)
    if log_seq != last_seq:
        yield f"the log ends at entry {last_seq}, but entry {log_seq} was written once"
    if not isinstance(run_seq, int) or run_seq < highest:
        yield f"SQLite remembers {run_seq} runs (sqlite_sequence), but there is a run number {highest}"
