"""Every table and column of the journal is proved by something: each row is altered and deleted, rows are added.

Nothing here names a table, and a column only in the short list of those that need no proof. So a column or a table that
somebody adds later fails here until something proves it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tampering import REFUSED, RUNS, a_life, altered, read

from payout_engine.journal import verify_file
from payout_engine.journal.schema import pristine

NEEDS_NO_PROOF = {
    "progress.updated_at": "nothing reads it; when a payout moved is in the log",
    "requests.heard": "a sign between two processes, for seconds; what was asked, by whom and when is proven",
}
"""Columns that may be altered unseen, each with the reason why nothing depends on it."""

NEEDS_NO_PROOF |= dict.fromkeys(
    (f"callbacks.{name}" for name in ("callback_no", "digest", "account", "heard", "stored_at", "waiting")),
    "a hint that leads to a look-up, by which no payout moves: one too few costs time, one too many a question",
)

MAY_GROW = {("sqlite_sequence", "runs")}
"""SQLite may remember more runs than there are, since an interrupted intake leaves its number unused; never fewer."""

TABLES = [name for (name,) in pristine().execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
COLUMNS = [
    (table, column)
    for table in TABLES
    for (column,) in pristine().execute("SELECT name FROM pragma_table_info(?)", (table,))
]

PROVED = [
    table for table in TABLES if any(f"{one}.{two}" not in NEEDS_NO_PROOF for one, two in COLUMNS if one == table)
]
"""The tables whose rows count: none may go missing or be added."""

ARCHITECTURE = (Path(__file__).parent.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "column"), COLUMNS, ids=lambda part: part)
def test_the_proof_of_every_column_is_written_down(name: str, column: str) -> None:
    """ARCHITECTURE says of each column what proves it, and of no other."""
    proofs = re.findall(rf"^\| `{name}` \| `([a-z_ ]+)` \| (.+) \|$", ARCHITECTURE, re.MULTILINE)
    named = [by for columns, by in proofs if column in columns.split()]
    assert len(named) == 1
    assert named[0].startswith("nothing: ") == (f"{name}.{column}" in NEEDS_NO_PROOF)
    assert {one for columns, _ in proofs for one in columns.split()} <= {one for table, one in COLUMNS if table == name}


class Table(NamedTuple):
    """What a table of a journal holds, and what its schema says of it."""

    name: str
    columns: Sequence[str]
    types: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    sql: str
    unique: Sequence[frozenset[str]]

    def where(self, row: tuple[Any, ...]) -> str:
        """Return the condition that is true of one row; its values are bindings."""
        return " AND ".join(f"{column} IS ?" for column in self.columns)

    def others(self, column: str, value: Any) -> Iterator[Any]:
        """Yield other values for a column: a little more, a little less, none, and what other rows have there."""
        place = self.columns.index(column)
        kind = self.types[place] or type(value).__name__.upper()
        if kind.startswith("INT"):
            yield from ((value or 0) + 1, (value or 0) - 1, (value or 0) + (1 << 40), 0)
        elif kind == "REAL":
            yield from ((value or 0.0) + 0.001, (value or 0.0) - 3600.0, 0.0)
        elif kind == "BLOB":
            yield bytes([value[0] ^ 1]) + value[1:]
        else:
            yield from ((value or "") + "x", (value or "x")[:-1], "")
            checked = re.search(rf"CHECK \({column} IN \(([^)]*)\)", self.sql)
            yield from re.findall(r"'(\w+)'", checked[1]) if checked else ()
        yield None
        yield from sorted({row[place] for row in self.rows} - {None})[:3]


def table(path: Path, name: str) -> Table:
    """Read a table."""
    info = read(path, f"SELECT name, type, pk FROM pragma_table_info('{name}')")
    indexes = read(path, f"SELECT name FROM pragma_index_list('{name}') WHERE \"unique\"")
    unique = [frozenset(column for column, _, pk in info if pk)]
    for (index,) in indexes:
        unique.append(frozenset(column for (column,) in read(path, f"SELECT name FROM pragma_index_info('{index}')")))
    return Table(
        name,
        [column for column, _, _ in info],
        [kind for _, kind, _ in info],
        read(path, f"SELECT * FROM {name}"),
        read(path, f"SELECT sql FROM sqlite_schema WHERE name = '{name}'")[0][0],
        [columns for columns in set(unique) if columns],
    )


TRIGGER = "TRIGGER extra AFTER INSERT ON log BEGIN UPDATE progress SET states = 'p'; END"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal file that nobody altered, with something in every table."""
    path = tmp_path_factory.mktemp("honest") / "payouts.db"
    asyncio.run(a_life(path))
    return path


@pytest.fixture(scope="module")
def kept(honest: Path) -> dict[str, str]:
    """The digest of each run, as it stood at the end."""
    return {run_id: verify_file(honest, run_id).digest for run_id in RUNS}


def told(path: Path, kept: dict[str, str] | None = None) -> bool:
    """Tell whether the proof of any run of a journal finds something."""
    return any(verify_file(path, run_id, (kept or {}).get(run_id, "")).found for run_id in reversed(RUNS))


def test_every_table_has_something_to_alter(honest: Path, kept: dict[str, str]) -> None:
    """The life that is tampered with fills every table, and is proven until somebody does."""
    assert [name for name in TABLES if not read(honest, f"SELECT 1 FROM {name}")] == []
    assert not told(honest)
    assert not told(honest, kept)


@pytest.mark.parametrize(("name", "column"), COLUMNS, ids=lambda part: part)
def test_every_column_of_every_row_is_proved(
    honest: Path, kept: dict[str, str], tmp_path: Path, name: str, column: str
) -> None:
    """Whatever the schema takes in place of what is there is found; beside a kept digest, too."""
    found, tried, missed = table(honest, name), 0, []
    place = found.columns.index(column)
    for row in found.rows:
        digests = None
        for other in dict.fromkeys(found.others(column, row[place])):
            if other == row[place] or ((name, row[0]) in MAY_GROW and column == "seq" and (other or 0) > row[1]):
                continue
            statement = f"UPDATE {name} SET {column} = ? WHERE {found.where(row)}"
            try:
                copy = altered(honest, tmp_path, (statement, (other, *row)))
            except REFUSED:
                continue
            tried += 1
            if not told(copy, digests):
                missed.append((row, other))
            digests = kept
    assert tried, f"nothing else fits into {name}.{column}: teach this test a value that does"
    if f"{name}.{column}" in NEEDS_NO_PROOF:
        assert missed, f"{name}.{column} is proved, so it need not be excused"
    else:
        assert missed == []


@pytest.mark.parametrize("name", PROVED)
@pytest.mark.parametrize("digest", [False, True], ids=["alone", "with a kept digest"])
def test_no_row_can_go_missing(honest: Path, kept: dict[str, str], tmp_path: Path, name: str, digest: bool) -> None:
    """Each row that is deleted, and all of them at once, are found."""
    found, digests = table(honest, name), kept if digest else None
    for row in found.rows:
        copy = altered(honest, tmp_path, (f"DELETE FROM {name} WHERE {found.where(row)}", row))
        assert told(copy, digests), row
    assert told(altered(honest, tmp_path, f"DELETE FROM {name}"), digests)


@pytest.mark.parametrize("name", PROVED)
@pytest.mark.parametrize("digest", [False, True], ids=["alone", "with a kept digest"])
def test_no_row_can_be_added(honest: Path, kept: dict[str, str], tmp_path: Path, name: str, digest: bool) -> None:
    """A row like another, apart from what must be unique, is found wherever the schema takes it."""
    found, tried, digests = table(honest, name), 0, kept if digest else None
    for row in found.rows:
        added = set()
        for changed in copies(found, row):
            statement = f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})"
            try:
                copy = altered(honest, tmp_path, (statement, changed))
            except REFUSED:
                continue
            tried += 1
            if not told(copy, digests):
                added.add(changed)
        assert added == set()
    assert tried, f"nothing can be added to {name}: teach this test how"


def copies(found: Table, row: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield copies of a row in which every set of columns that must be unique differs, in one column at least."""
    yield row
    for chosen in set(itertools.product(*(sorted(columns) for columns in found.unique))):
        names = sorted(set(chosen))
        choices = [list(dict.fromkeys(found.others(name, row[found.columns.index(name)])))[:6] for name in names]
        for values in itertools.zip_longest(*choices):
            changed = dict(zip(names, values, strict=True))
            yield tuple(changed.get(column, value) for column, value in zip(found.columns, row, strict=True))


@pytest.mark.parametrize("digest", [False, True], ids=["alone", "with a kept digest"])
def test_no_guard_view_or_index_can_be_removed_or_altered(
    honest: Path, kept: dict[str, str], tmp_path: Path, digest: bool
) -> None:
    """Each object of the schema that is gone or says something else is named; spaces and comments say nothing."""
    objects = read(honest, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND type <> 'table'")
    assert {kind for kind, _, _ in objects} == {"trigger", "view", "index"}
    for kind, name, sql in objects:
        drop = f"DROP {kind} {name}"
        for statements in ([drop], [drop, harmless(kind, sql)]):
            path = edited(honest, tmp_path, *statements)
            for run_id in RUNS:
                audit = verify_file(path, run_id, kept[run_id] if digest else "")
                assert any(f"{kind} {name}" in finding.what for finding in audit.findings), (kind, name, statements)
        assert not told(edited(honest, tmp_path, drop, f"{sql.replace(' ON ', '  ON  -- as before' + chr(10))}"))


def harmless(kind: str, sql: str) -> str:
    """Return what makes an object of the same name that does less, or shows less."""
    if kind == "trigger":
        return f"{sql.partition('BEGIN')[0]} BEGIN SELECT 1; END"
    return f"{sql.partition(' WHERE ')[0]} WHERE 0" if kind == "index" else sql.replace("SELECT", "SELECT DISTINCT", 1)


@pytest.mark.parametrize("added", ["TABLE extra (a)", "VIEW extra AS SELECT 1", "INDEX extra ON log (at)", TRIGGER])
def test_nothing_can_be_added_to_the_schema(honest: Path, tmp_path: Path, added: str) -> None:
    """What somebody added is named, with what to do about it."""
    (found,) = verify_file(edited(honest, tmp_path, f"CREATE {added}"), "run").findings
    assert "extra was added by somebody" in found.what
    assert f"DROP {added.split()[0]} extra" in found.what


def test_statistics_are_no_tampering(honest: Path, tmp_path: Path) -> None:
    """A person may let SQLite gather statistics for their own queries."""
    assert not told(edited(honest, tmp_path, "ANALYZE"))


def edited(path: Path, folder: Path, *statements: str) -> Path:
    """Return a copy of a journal after these statements about its schema."""
    copy = altered(path, folder)
    db = sqlite3.connect(copy)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()
    return copy
