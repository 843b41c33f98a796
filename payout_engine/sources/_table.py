"""What all readers share: a header that can be trusted, rows as long as it, and text for cells that were typed.

Every reader gives a `Table`, which is a `Source`; the work is done by a plain generator of blocks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from operator import itemgetter

import anyio.lowlevel
import msgspec

from payout_engine.domain.cells import encodable
from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import COLUMNS_MAX, FIELD_CHARS_MAX
from payout_engine.domain.model import Block, masked

FIRST = itemgetter(0)

EXACT_DIGITS = 15
"""Decimal digits that a double (and so a spreadsheet) keeps of any number."""


class Table:
    """A `Source` whose blocks come from a generator."""

    def __init__(
        self,
        name: str,
        digest: str,
        columns: Sequence[str],
        dialect: Mapping[str, str],
        read: Callable[[], Iterator[Block]],
        data_lines: int,
    ) -> None:
        """Make a source.

        Args:
            name: for people.
            digest: SHA-256 of the content.
            columns: the header.
            dialect: how it was written.
            read: begins to read the rows.
            data_lines: how many lines, or rows of a sheet, there are below the header, also blank ones.
        """
        self.name = name
        self.digest = digest
        self.columns = columns
        self.dialect = dialect
        self.data_lines = data_lines
        self._read = read

    async def blocks(self) -> AsyncIterator[Block]:
        """Yield the rows in order, each as long as `columns`, blank lines left out and counted.

        Reading stays on the loop: a block takes about a millisecond, and a thread would hold the interpreter longer.

        Raises:
            InputError: the rest cannot be read as a table; the message names the line.
        """
        with closing(self._read()) as blocks:  # type: ignore[type-var]
            for block in blocks:
                if block.rows or block.blank_lines:
                    yield block
                await anyio.lowlevel.checkpoint()


def check_header(name: str, line: int, columns: Sequence[str]) -> None:
    """Refuse a header that does not say which column is which.

    Raises:
        InputError: too many columns, a name that is too long, or two with the same name but for case and spaces.
    """
    where = f"{name}, line {line}"
    if len(columns) > COLUMNS_MAX:
        raise InputError(f"{where}: the header has {len(columns)} columns, and at most {COLUMNS_MAX} are read.")
    seen: dict[str, int] = {}
    for number, column in enumerate(columns, start=1):
        if len(column) > FIELD_CHARS_MAX:
            raise over_long(name, line)
        if encodable(column) != column:
            raise InputError(f"{where}: the name of column {number} holds a NUL or half a character. Rename it.")
        key = "".join(column.split()).casefold()
        if key and key in seen:
            called = masked(column.strip())
            raise InputError(
                f"{where}: columns {seen[key]} and {number} are both called {called!r}. Rename or remove one."
            )
        seen[key] = number


def no_lines(name: str) -> InputError:
    """Return the error for a header without anything below."""
    return InputError(f"{name} has a header and no lines below it. Add at least one payout.")


def no_header(name: str) -> InputError:
    """Return the error for an input of blank lines only."""
    return InputError(f"{name} has only blank lines. Give a file with a header line and at least one payout.")


def over_long(name: str, line: int) -> InputError:
    """Return the error for a cell over the bound."""
    return InputError(
        f"{name}, line {line}: a cell holds more than {FIELD_CHARS_MAX} characters. Shorten it, or check the quotation "
        "marks and separators around it."
    )


def check_cells(name: str, block: Block) -> Block:
    """Return `block` if none of its cells is over the bound; a row with what no file of ours could hold is unreadable.

    Raises:
        InputError: one is; the message names its line.
    """
    if max(map(len, chain.from_iterable(block.rows)), default=0) > FIELD_CHARS_MAX:
        for line, row in zip(block.lines, block.rows, strict=True):
            if max(map(len, row)) > FIELD_CHARS_MAX:
                raise over_long(name, line)
    if encodable(text := "".join(chain.from_iterable(block.rows))) != text:
        return _spelt_out(block)
    return block


def _spelt_out(block: Block) -> Block:
    """Return a block whose rows with a NUL or half a character are unreadable, and hold what people can look at."""
    rows = [list(map(encodable, row)) for row in block.rows]
    strange = [line for line, row, shown in zip(block.lines, block.rows, rows, strict=True) if list(row) != shown]
    why = dict.fromkeys(strange, "it holds a NUL or half a character")
    return msgspec.structs.replace(block, rows=rows, unreadable={**block.unreadable, **why})


def fitted(lines: Sequence[int], rows: Sequence[list[str]], width: int, heights: Sequence[int] = ()) -> Block:
    """Return rows as a block: blank ones left out, short ones filled, long ones folded and marked as ragged.

    Args:
        lines: where each row begins.
        rows: as read.
        width: how many columns the header has.
        heights: how many physical lines each row spans; empty when each is one. A row over several lines that is too
            short is ragged as well: a stray quotation mark may have swallowed other people's lines.
    """
    if set(map(len, rows)) == {width} and all(map(str.strip, map(FIRST, rows))):
        return Block(lines, rows, continued_lines=sum(heights) - len(rows) if heights else 0)
    kept_lines: list[int] = []
    kept_rows: list[list[str]] = []
    ragged: dict[int, int] = {}
    blank_lines = continued_lines = 0
    for index, (line, row) in enumerate(zip(lines, rows, strict=True)):
        height = heights[index] if heights else 1
        if not any(map(str.strip, row)):
            blank_lines += height
            continue
        continued_lines += height - 1
        found = len(row)
        surplus = found > width and any(map(str.strip, row[width:]))
        swallowed = found < width and height > 1
        if surplus or swallowed:
            ragged[line] = found
        kept_lines.append(line)
        if found > width:
            # The surplus stays in the last cell, so that the refused line comes out with all that was in it.
            row = [*row[: width - 1], ",".join(row[width - 1 :]) if surplus else row[width - 1]]
        kept_rows.append([*row, *[""] * (width - len(row))] if len(row) < width else row)
    return Block(kept_lines, kept_rows, ragged=ragged, blank_lines=blank_lines, continued_lines=continued_lines)


def number_text(number: float, digits: int = EXACT_DIGITS) -> str:
    """Return a number that a file stores as floating point, as a person would write it.

    A whole number of more digits than the file can keep has lost its last ones, so that it might now be another
    person's account: it comes out in exponent form (`1.23456789012346E+15`), as a spreadsheet shows it, and is refused.
    """
    if number != number:
        return ""
    if abs(number) >= 10**digits:
        return f"{number:.{digits - 1}E}"
    return str(int(number)) if number.is_integer() else repr(number)
