"""Sinks: files that appear whole or not at all, and cells that run nothing."""

from __future__ import annotations

import csv
import re
import stat
from pathlib import Path

import msgspec
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import read

from payout_engine.domain.cells import harmless, harmless_rows, may_hold_ours, restored, restored_rows
from payout_engine.domain.errors import ConfigError, InputError, SinkError
from payout_engine.sinks import FORMATS, open_sink
from payout_engine.sinks.csv import written as careful

CELLS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.text("=+-@＝＋－＠ \t\r\n\"',;|0129.E\u00a0\u3000é", max_size=8),
)


def written(path: Path, columns: list[str], rows: list[list[str]], format: str = "csv", **dialect: str) -> Path:
    """Write a file through its sink."""
    sink = open_sink(path, columns, format=format, dialect=dialect)
    sink.write(rows)
    sink.commit()
    return path


RUNS = (
    *("=1+1", "+cmd|' /C calc'!A0", "-A1", "@SUM(A1)", "\tx", "\rx", "\nx", "  =1", "\u3000=1", "＝1", "＋A", "－A"),
    *("＠A", "\0=1", "+", "-", "+226 A", "-1+cmd()", "\ufeff=1", "+1;=1", "-2\n=3"),
)


@pytest.mark.parametrize("cell", RUNS)
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(cell: str, tmp_path: Path) -> None:
    """In any place of a row, and also as a header."""
    assert harmless(cell) == "'" + cell
    path = written(tmp_path / "cells.csv", ["a", cell, "c"], [[cell, "b", cell], ["a", "b", cell]])
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    safe = "'" + cell.replace("\0", "\\x00")
    assert rows == [["a", safe, "c"], [safe, "b", safe], ["a", "b", safe]]


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "-5",
        "+22670123456",
        "+226 70 12 34 56",
        "-1 000,50",
        "+226-70.12/34",
        "-1E5",
        "a=1",
        "2026-11-20",
        "'5",
        "'",
        "'+22670123456",
        "O'=1",
        "5",
    ],
)
def test_plain_cells_stay_as_they_are(cell: str, tmp_path: Path) -> None:
    """Numbers and phones are data, and files must stay fit to be run again."""
    assert harmless(cell) == cell
    for delimiter in ",;\t|":
        path = written(tmp_path / "cells.csv", ["a", "b"], [[cell, cell]], delimiter=delimiter)
        with path.open(newline="") as file:
            assert list(csv.reader(file, delimiter=delimiter))[1] == [cell, cell]


APOSTROPHES = st.builds(str.__add__, st.text("'", max_size=3), CELLS)


@settings(max_examples=1_000, deadline=None)
@given(cell=APOSTROPHES)
def test_what_was_made_harmless_is_restored(cell: str) -> None:
    """Every cell comes back, also one that had apostrophes already; what is written runs nowhere; no other changes."""
    safe = harmless(cell)
    assert restored(safe) == cell
    assert (safe == cell) == (restored(cell) == cell and harmless(cell.lstrip("'")) == cell.lstrip("'"))
    assert not safe[:1] or safe[0] == "'" or harmless(safe) == safe


@settings(max_examples=400, deadline=None)
@given(rows=st.lists(st.lists(APOSTROPHES, min_size=3, max_size=3), max_size=4))
def test_restoring_a_whole_block_overlooks_nothing(rows: list[list[str]]) -> None:
    """Many rows at once come out as cell by cell, and the bytes of a file tell beforehand where there is nothing."""
    expected = [[restored(cell) for cell in row] for row in rows]
    assert [list(row) for row in restored_rows(rows)] == expected
    for encoding in ("utf-8", "cp1252"):
        data = "\n".join(cell for row in rows for cell in row).encode(encoding, errors="replace")
        if encoding == "utf-8" and expected != rows:
            assert may_hold_ours(data)
    for names in ("N'Guessan Awa,d'été\r\nO'Neil", "plain"):
        assert not may_hold_ours(names.encode())


@settings(max_examples=400, deadline=None)
@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=4))
def test_looking_at_a_whole_block_overlooks_nothing(rows: list[list[str]]) -> None:
    """Many rows at once come out as cell by cell."""
    assert [list(row) for row in harmless_rows(rows)] == [[harmless(cell) for cell in row] for row in rows]


KINDS_OF_ODD = [CELLS, *(st.text(characters, max_size=3) for characters in ("é\0", "é\ud800", 'é"', "é',;| -=\n"))]


@st.composite
def odd_rows(draw: st.DrawFn) -> list[list[str]]:
    """Draw a few rows of one width whose cells are odd in one way: one reason for care must not hide another."""
    start, cell, width = draw(st.sampled_from(["", "é"])), draw(st.sampled_from(KINDS_OF_ODD)), draw(st.integers(1, 3))
    return draw(st.lists(st.lists(cell.map(start.__add__), min_size=width, max_size=width), min_size=1, max_size=4))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd=odd_rows(), plain=st.integers(0, 110), delimiter=st.sampled_from([*",;\t| '-", "\xa6"]), bom=st.booleans())
def test_rows_are_joined_only_where_that_gives_what_care_gives(
    tmp_path: Path, odd: list[list[str]], plain: int, delimiter: str, bom: bool
) -> None:
    """Whatever the cells hold, the file has the bytes of the careful writer, of odd rows and of those beside them."""
    header, *rows = odd + [["N'Guessan", "22670000000", "2026-11-20"][: len(odd[0])]] * plain + odd
    path = written(tmp_path / "odd.csv", header, rows, delimiter=delimiter, bom="yes" if bom else "no")
    start = b"\xef\xbb\xbf" if bom else b""
    assert path.read_bytes() == start + careful([header], delimiter) + careful(rows, delimiter)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t|"),
    bom=st.sampled_from(["yes", "no"]),
)
async def test_any_text_comes_back_through_sink_and_source(
    tmp_path: Path, rows: list[list[str]], delimiter: str, bom: str
) -> None:
    """What we write we read again, blank lines left out; or it looks like swallowed lines, and is refused as that."""
    columns = ["reference", "phone", "amount"]
    path = written(tmp_path / "round.csv", columns, [*rows, ["1", "2", "3"]], delimiter=delimiter, bom=bom)
    try:
        found = await read(path)
    except InputError as refused:
        assert "looks like lines" in str(refused)
        assert any(delimiter in cell and re.search("[\r\n]", cell) for row in rows for cell in row)
        return
    assert found.columns == columns
    assert found.rows == [row for row in [*rows, ["1", "2", "3"]] if any(map(str.strip, row))]
    assert (found.dialect["delimiter"], found.dialect["bom"]) == (delimiter, bom)


@pytest.mark.parametrize("format", FORMATS)
def test_nobody_sees_a_file_before_it_is_whole(format: str, tmp_path: Path) -> None:
    """What was there stays until commit, then is replaced in one step; abort leaves no trace; only the owner reads."""
    path = tmp_path / f"results.{format}"
    path.write_text("before")
    sink = open_sink(path, ["a", "b"], format=format)
    sink.write([["1", "2"]])
    assert path.read_text() == "before"
    sink.abort()
    sink.abort()
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    written(path, ["a", "b"], [["1", "2"], ["3", "4"]], format)
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_that_cannot_be_written_is_a_sink_error(format: str, tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(SinkError, match="results"):
        open_sink(tmp_path / "missing" / "results", ["a"], format=format)


def test_an_unknown_format_is_a_matter_of_configuration(tmp_path: Path) -> None:
    """It is told before anything is written."""
    with pytest.raises(ConfigError, match="csv, jsonl, parquet"):
        open_sink(tmp_path / "results.doc", ["a"], format="doc")


def test_programs_get_cells_as_they_are(tmp_path: Path) -> None:
    """JSONL and Parquet run nothing; nameless and equal columns get names of their own; no text is too strange."""
    columns, rows = ["a", "", "a", ""], [["=1", "é", "\ud800", ""]]
    names = ["a", "column_2", "a_3", "column_4"]
    expected = dict(zip(names, ["=1", "é", "\\ud800", ""], strict=True))
    path = written(tmp_path / "results.jsonl", columns, rows, "jsonl")
    assert msgspec.json.decode(path.read_bytes()) == expected
    path = written(tmp_path / "results.parquet", columns, rows, "parquet")
    assert pyarrow.parquet.read_table(path).to_pylist() == [expected]
    path = written(tmp_path / "results.csv", columns, rows)
    assert "é,\\ud800" in path.read_text(encoding="utf-8")


def test_parquet_is_written_in_groups(tmp_path: Path) -> None:
    """Memory holds one group, whatever the number of rows; none at all is a file with a header."""
    sink = open_sink(tmp_path / "many.parquet", ["a"], format="parquet")
    for start in range(0, 120_000, 2_000):
        sink.write([[str(number)] for number in range(start, start + 2_000)])
    sink.commit()
    file = pyarrow.parquet.ParquetFile(tmp_path / "many.parquet")
    assert (file.metadata.num_rows, file.metadata.num_row_groups) == (120_000, 3)
    written(tmp_path / "none.parquet", ["a"], [], "parquet")
    assert pyarrow.parquet.read_table(tmp_path / "none.parquet").column_names == ["a"]
