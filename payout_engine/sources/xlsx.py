"""Spreadsheets: XLSX, and the older XLS and OpenDocument, read by calamine.

Cells are typed there; they come out as the text that a person would have written. A phone number kept as a number is
exact up to fifteen digits. Text that the spreadsheet itself has rounded (`2.26702E+10`) stays as it is, for intake to
refuse. A workbook is loaded whole, so its size is bounded before that.
"""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from io import BytesIO
from itertools import islice
from typing import Any

from python_calamine import CalamineSheet, CalamineWorkbook, SheetVisibleEnum

from payout_engine.domain.cells import restored, restored_rows
from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import BLOCK_ROWS, WORKBOOK_BYTES_MAX
from payout_engine.domain.model import Block
from payout_engine.sources._content import Content
from payout_engine.sources._swallowed import check_pasted
from payout_engine.sources._table import Table, check_cells, check_header, fitted, no_header, no_lines, number_text
from payout_engine.sources._workbook_size import check_workbook_size, too_large
from payout_engine.sources.csv import DELIMITERS


def open_workbook(content: Content, sheet: str | None = None) -> Table:
    """Return one sheet of a workbook as a source.

    Args:
        content: the bytes.
        sheet: its name; None means the only one with data, hidden ones left out.

    Raises:
        InputError: it is no workbook, is too large, has no such sheet, several that could be meant, or no table in it.
    """
    data = _loaded(content)
    found, named = _sheet(content, data, sheet)
    digest = sha256(data).hexdigest()
    if named:
        # Two sheets of one workbook are two payout files, so the name takes part where there is a choice.
        digest = sha256(f"{digest}|{named}".encode()).hexdigest()
    header_line, columns = _header(content.name, found)
    check_header(content.name, header_line, columns)
    data_lines = 0 if found.end is None else found.end[0] + 1 - header_line
    if data_lines <= 0:
        raise no_lines(content.name)
    # Spreadsheet programs see that a file is UTF-8 by its byte order mark, and this payer uses one.
    dialect = {"format": "xlsx", "delimiter": ",", "bom": "yes"}
    blocks = partial(_blocks, content.name, found, header_line, len(columns))
    return Table(content.name, digest, columns, dialect, blocks, data_lines)


def _header(name: str, sheet: CalamineSheet) -> tuple[int, list[str]]:
    """Return the first row that is not blank, and its number."""
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        columns = [restored(_text(cell)) for cell in cells]
        if any(map(str.strip, columns)):
            check_pasted(name, number, columns, DELIMITERS)
            return number, columns
    raise no_header(name)


def _blocks(name: str, sheet: CalamineSheet, header_line: int, width: int) -> Iterator[Block]:
    numbered = islice(enumerate(sheet.iter_rows(), start=1), header_line, None)
    while taken := list(islice(numbered, BLOCK_ROWS)):
        rows = restored_rows([list(map(_text, cells)) for _, cells in taken])
        for (number, _), row in zip(taken, rows, strict=True):
            if "\n" in "".join(row):
                check_pasted(name, number, row, DELIMITERS)
        yield check_cells(name, fitted([number for number, _ in taken], rows, width))


def _sheet(content: Content, data: bytes, sheet: str | None) -> tuple[CalamineSheet, str]:
    try:
        return _chosen(content.name, CalamineWorkbook.from_filelike(BytesIO(data)), sheet)
    except InputError:
        raise
    except BaseException as error:
        # calamine is Rust: what it did not foresee arrives as a PanicException, which is no Exception.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise _unusable(content, error) from error
        raise


def _chosen(name: str, workbook: CalamineWorkbook, sheet: str | None) -> tuple[CalamineSheet, str]:
    """Return the sheet that is meant, and its name where there are others with data."""
    if sheet is not None and sheet not in workbook.sheet_names:
        raise InputError(f"{name} has no sheet {sheet!r}. Its sheets are: {', '.join(workbook.sheet_names)}.")
    visible = [found.name for found in workbook.sheets_metadata if found.visible == SheetVisibleEnum.Visible]
    filled = [title for title in visible if workbook.get_sheet_by_name(title).start is not None]
    if sheet is not None:
        return workbook.get_sheet_by_name(sheet), sheet if filled != [sheet] else ""
    if len(filled) > 1:
        raise InputError(
            f"{name} has {len(filled)} sheets with data ({', '.join(filled)}). Say which one is to be paid, such as: "
            f"--sheet {filled[0]!r}."
        )
    if not filled:
        raise InputError(f"{name} has no sheet with data. Give a sheet with a header line and at least one payout.")
    return workbook.get_sheet_by_name(filled[0]), ""


def _unusable(content: Content, error: BaseException) -> InputError:
    if type(error).__name__ == "PasswordError":
        return InputError(f"{content.name} is protected by a password. Save a copy without one.")
    reader, words = content.seems()
    seems = f": it seems to be {words}" if words and not reader else ""
    return InputError(f"{content.name} cannot be read as a spreadsheet{seems}. Save it again as XLSX or as CSV UTF-8.")


def _loaded(content: Content) -> bytes:
    """Return the bytes of a workbook that will fit in memory. All that follows is done with these bytes.

    Raises:
        InputError: it is too large, or was written to meanwhile.
    """
    with content.open() as file:
        data = file.read(WORKBOOK_BYTES_MAX + 1)
    if len(data) > WORKBOOK_BYTES_MAX:
        raise too_large(content.name, f"over {WORKBOOK_BYTES_MAX // 1024**2} MB")
    content.must_be_unchanged()
    if zipfile.is_zipfile(BytesIO(data)):
        try:
            check_workbook_size(content.name, BytesIO(data))
        except InputError:
            raise
        except Exception as error:
            # The standard library's reader of archives promises no closed list of what damage makes it raise.
            raise _unusable(content, error) from error
    return data


def _text(cell: Any) -> str:
    """Return a typed cell as the text that a person would have written."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return number_text(cell)
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell)
