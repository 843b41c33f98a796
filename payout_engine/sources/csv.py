"""CSV as people and spreadsheets write it: any usual separator, any usual encoding, quoting, line ends in cells.

Rows come at about the speed of `csv.reader` itself: everything here is done once for each block of rows, and row by row
only in blocks that need it. Quoting is read strictly. A lenient reader makes one cell of everything between two stray
quotation marks, and the people in between are silently not paid; we refuse the file and name the line instead.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from itertools import islice
from typing import NamedTuple

from payout_engine.domain.cells import restored, restored_rows
from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import BLOCK_ROWS, FIELD_CHARS_MAX
from payout_engine.domain.model import Block
from payout_engine.sources._content import Content
from payout_engine.sources._swallowed import breaks, check_swallowed
from payout_engine.sources._table import Table, check_cells, check_header, fitted, no_header, no_lines, over_long
from payout_engine.sources._text import Text, examine

DELIMITERS = ",;\t|"
"""The separators that are noticed, the likeliest first."""

_SAMPLE_CHARS = 64 * 1024
_SAMPLE_ROWS = 50
_DECLARATION = "sep="
"""A first line `sep=;` is a spreadsheet's way of naming the separator; it is not a header."""


class _Shape(NamedTuple):
    """How the table lies in the text: its separator, header, and how many lines and records end with that."""

    delimiter: str
    columns: Sequence[str]
    header_end: int
    records_before: int


def open_csv(content: Content, delimiter: str | None = None) -> Table:
    """Return a CSV file as a source.

    Args:
        content: the bytes.
        delimiter: the separator; None means: noticed.

    Raises:
        InputError: it cannot be used as a table.
    """
    text = examine(content)
    shape = _shape(content, text, delimiter)
    dialect = {**text.dialect("csv"), "delimiter": shape.delimiter}
    data_lines = text.lines - shape.header_end
    return Table(content.name, text.digest, shape.columns, dialect, lambda: _blocks(content, text, shape), data_lines)


def _shape(content: Content, text: Text, delimiter: str | None) -> _Shape:
    with text.open(content) as file:
        sample = file.read(_SAMPLE_CHARS)
    delimiter = delimiter or _declared(sample) or _noticed(sample)
    columns: Sequence[str] = ()
    header_end = records_before = 0
    with text.open(content) as file, _explained(content, text, delimiter):
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        for count, row in enumerate(reader, start=1):
            if not any(map(str.strip, row)) or (count == 1 and _declared(sample)):
                continue
            if columns:
                return _Shape(delimiter, columns, header_end, records_before)
            columns, header_end, records_before = list(map(restored, row)), reader.line_num, count
            header_line = header_end - breaks(row)
            check_swallowed(content.name, header_line, row, delimiter, len(row))
            check_header(content.name, header_line, columns)
    raise no_lines(content.name) if columns else no_header(content.name)


def _declared(sample: str) -> str:
    """Return the separator that the first line declares, or nothing."""
    first = sample.partition("\n")[0].rstrip("\r").strip('"')
    declares = first[: len(_DECLARATION)].lower() == _DECLARATION and len(first) == len(_DECLARATION) + 1
    return first[-1] if declares else ""


def _noticed(sample: str) -> str:
    """Return the separator by which most of the first rows are as long as the header; a comma when none parts it."""

    def fitness(delimiter: str) -> tuple[float, int]:
        rows = _sampled(sample, delimiter)
        width = len(rows[0]) if rows else 0
        if width < 2:
            return (0.0, 0)
        return (sum(len(row) == width for row in rows) / len(rows), width)

    # The header alone would always agree with itself; with `max`, the earlier of two equals wins.
    return max(DELIMITERS, key=fitness)


def _sampled(sample: str, delimiter: str) -> list[list[str]]:
    """Return the first rows that are not blank; the last of a full sample may be cut and is left out."""
    reader = csv.reader(StringIO(sample, newline=""), delimiter=delimiter)
    rows: list[list[str]] = []
    try:
        rows.extend(islice(filter(None, reader), _SAMPLE_ROWS))
    except csv.Error:
        return rows
    return rows[:-1] if len(sample) == _SAMPLE_CHARS and 1 < len(rows) < _SAMPLE_ROWS else rows


def _blocks(content: Content, text: Text, shape: _Shape) -> Iterator[Block]:
    width = len(shape.columns)
    with text.open(content) as file, _explained(content, text, shape.delimiter):
        reader = csv.reader(file, delimiter=shape.delimiter, strict=True)
        for _ in islice(reader, shape.records_before):
            pass
        done = reader.line_num
        while rows := _taken(reader, text):
            first, done = done + 1, reader.line_num
            lines: Sequence[int] = range(first, done + 1)
            heights: Sequence[int] = ()
            if len(lines) != len(rows):
                heights = [1 + breaks(row) for row in rows]
                assert sum(heights) == len(lines), "every line belongs to one row"
                lines = _starts(first, heights)
                for line, row, height in zip(lines, rows, heights, strict=True):
                    if height > 1:
                        check_swallowed(content.name, line, row, shape.delimiter, width)
            if text.marked:
                yield check_cells(content.name, fitted(lines, restored_rows(rows), width, heights))
            else:
                yield fitted(lines, rows, width, heights)
    content.must_be_unchanged()


def _taken(reader: Iterator[list[str]], text: Text) -> list[list[str]]:
    """Return the next rows. The limit of the csv module is global to the process, so it is lent and given back."""
    before = csv.field_size_limit(_field_chars_max(text))
    try:
        return list(islice(reader, BLOCK_ROWS))
    finally:
        csv.field_size_limit(before)


def _field_chars_max(text: Text) -> int:
    """Return the bound of one cell; the apostrophe that we put before one does not count."""
    return FIELD_CHARS_MAX + text.marked


def _starts(first: int, heights: Sequence[int]) -> list[int]:
    """Return the line on which each row begins."""
    starts = []
    for height in heights:
        starts.append(first)
        first += height
    return starts


@contextmanager
def _explained(content: Content, text: Text, delimiter: str) -> Iterator[None]:
    """Turn an error of the csv module into one that names the line on which the record begins."""
    try:
        yield
    except csv.Error as error:
        raise _explanation(content, text, delimiter) from error


def _explanation(content: Content, text: Text, delimiter: str) -> InputError:
    """Read again, row by row, to find where the record begins that cannot be read."""
    line = 0
    with text.open(content) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        before = csv.field_size_limit(_field_chars_max(text))
        try:
            for _ in reader:
                line = reader.line_num
        except csv.Error as error:
            return _worded(content.name, line + 1, str(error), reader.line_num - line)
        finally:
            csv.field_size_limit(before)
    return InputError(f"{content.name} changed while it was being read. Save it, close it and try again.")


def _worded(name: str, line: int, said: str, height: int) -> InputError:
    """Say what is wrong with the record that begins on `line` and was read for `height` lines."""
    if "unexpected end" in said or ("field larger" in said and height > 1):
        return InputError(
            f"{name}, line {line}: a quotation mark opens here and is never closed. Remove it, or close it."
        )
    if "field larger" in said:
        return over_long(name, line)
    return InputError(
        f"{name}, line {line}: text follows a closing quotation mark. Remove the mark, or double it inside the cell."
    )
