"""Lines that a stray quotation mark made part of a cell.

Of two stray marks in a file, the first opens a cell and the second closes it, some lines later. Read by the rules, what
is between them is one lawful cell; the people in it are not paid, and the first line may be paid with the phone and the
amount of the last. Only what the cell holds tells: a table cut out of its lines has their separators, and their phones
or amounts next to them. A cell that only looks so refuses a file that was right, which costs a minute; the other
mistake costs money. Called by the readers of CSV and of workbooks, which a CSV may have been saved as.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from payout_engine.domain.errors import InputError

_LINE_END = re.compile("\r\n|\r|\n")
_NOT_DIGITS = re.compile(r"\D")
_AMOUNT = re.compile(r"\W*\d[\d\s.,'’]*\W*")
_AMOUNT_DIGITS_MIN = 3  # A house has a number of its own.
_PHONE_DIGITS_MIN = 7
_PARTS_MIN = 3


def breaks(row: Sequence[str]) -> int:
    """Return how many line ends the cells of one row hold, as a text editor counts them."""
    return sum(cell.count("\n") + cell.count("\r") - cell.count("\r\n") for cell in row)


def check_swallowed(name: str, line: int, row: Sequence[str], delimiter: str, width: int) -> None:
    """Refuse a row of a text file if one of its cells seems to have swallowed lines of the file.

    Args:
        name: of the file.
        line: where the row begins.
        row: its cells, of which some hold line ends.
        delimiter: between the cells of the file.
        width: how many columns the file has.

    Raises:
        InputError: one has; the message names its first and its last line.
    """
    for cell in row:
        last = line + breaks([cell])
        if last > line and _seems_lines(cell, delimiter, min(width, len(row))):
            raise InputError(
                f"{name}, lines {line} to {last}: a quotation mark opens on line {line} and closes on line {last}, and "
                "what is between looks like lines of this file, which would not be paid. Remove the marks that do not "
                "belong there; if it really is one cell, write it on one line."
            )
        line = last


def check_pasted(name: str, row_number: int, row: Sequence[str], delimiters: str) -> None:
    """Refuse a row of a workbook if one of its cells holds lines of a text file, phones or amounts among them.

    Raises:
        InputError: one does.
    """
    for cell in row:
        if not breaks([cell]):
            continue
        if any(_is_tabular(cell, mark, len(row)) and _holds_payouts(cell, mark) for mark in delimiters):
            raise InputError(
                f"{name}, line {row_number}: one cell holds what looks like several lines of a text file, which would "
                "not be paid. Look for stray quotation marks in the file that this workbook was made from; if it "
                "really is one cell, write it on one line."
            )


def _seems_lines(cell: str, delimiter: str, width: int) -> bool:
    return delimiter in cell and (_is_tabular(cell, delimiter, width) or _holds_payouts(cell, delimiter))


def _is_tabular(cell: str, delimiter: str, width: int) -> bool:
    """Tell whether a cell has as many separators as the lines it was cut out of, or one line nearly as many as a row.

    A cell from the middle of one line to the same place of a later one holds the separators of one line for each line
    end, wherever that place is.
    """
    lines = _LINE_END.split(cell)
    counts = [line.count(delimiter) for line in lines]
    return 0 < (len(lines) - 1) * (width - 1) <= sum(counts) or max(counts) + 1 >= max(_PARTS_MIN, width - 1)


def _holds_payouts(cell: str, delimiter: str) -> bool:
    """Tell whether a part beside a separator could be a phone, an e-mail or an account number, or after one an amount.

    Whoever is paid has one of them on the line, and of the first and the last line at least one is in the cell.
    """
    for line in _LINE_END.split(cell):
        for place, part in enumerate(line.split(delimiter) if delimiter in line else ()):
            digits = len(_NOT_DIGITS.sub("", part))
            amount = place > 0 and digits >= _AMOUNT_DIGITS_MIN and _AMOUNT.fullmatch(part)
            if amount or digits >= _PHONE_DIGITS_MIN or "@" in part:
                return True
    return False
