"""How much memory a spreadsheet would take, found before it is loaded: its reader takes what a file asks for.

A few kilobytes can ask for gigabytes: one cell far outside the table, cells without a place, a text that many cells
share, a row that says it is there a million times. Every part of the archive is looked at twice at most: quickly, by
its bytes, which is enough for nearly every workbook, and, where that leaves a doubt, exactly, element by element. What
is unpacked is measured, not what the archive says of itself. Called by the reader of workbooks.
"""

from __future__ import annotations

import re
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from copy import copy
from typing import BinaryIO
from xml.parsers import expat

import msgspec

from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import (
    SCAN_BYTES,
    WORKBOOK_CELLS_MAX,
    WORKBOOK_PIECE_BYTES_MAX,
    WORKBOOK_TAGS_MAX,
    WORKBOOK_TEXT_BYTES_MAX,
    WORKBOOK_UNPACKED_BYTES_MAX,
)

_COLUMN = re.compile(rb"""r=["']([A-Za-z]{1,9})[0-9]""")
_ROW = re.compile(rb"""r=["'][A-Za-z]{0,9}([0-9]{1,20})""")
_BLANKS = b" \t\r\n"  # XML allows any number of them around the equals sign; without them the patterns are complete
_OVERLAP_BYTES = 128  # longer than what the patterns match, so that the end of a block hides nothing
_CUT_BYTES = 64  # longer than what the next pattern matches; less than the overlap
_UNUSUAL = re.compile(rb'<(?:c(?! r="[A-Z]{1,3}[0-9]{1,7}"|[A-Za-z])|[^<>\s:]{1,40}:(?:c|si)[\s/>]|!\[)')
_REPEATED = (b"number-rows-repeated", b"number-columns-repeated")  # apart: a pattern with one beginning is found faster
"""A cell that does not begin with its place, a name with a prefix, repeated rows: to be counted element by element."""

_MARKS = (b"sheetData", b"table:table", b"<sst", b":sst")
"""Without one of them, no reader finds a cell in a part."""

_CELL = b"<c r="
_SHARED = b"<si"
_FAR = "one cell far outside the table, or more cells than memory should hold"
_LONG = "more text than memory should hold"

_OTHER, _TEXT, _ROW_BEGINS, _CELL_BEGINS = "other", "text", "row", "cell"
_KINDS = {
    "si": _TEXT,
    **dict.fromkeys(("row", "table:table-row"), _ROW_BEGINS),
    **dict.fromkeys(("c", "table:table-cell", "table:covered-table-cell"), _CELL_BEGINS),
}
"""What the elements are to us that a reader holds in memory; those of XLSX may have a prefix before their names."""
_PLACE = re.compile(r"([A-Za-z]{1,9})([0-9]{1,20})")
_VALUE_CHARS_MAX = 20
_NAMES_MAX = 10_000


class _Part(msgspec.Struct):
    """What the bytes of one part of the archive tell.

    Attributes:
        size_bytes: unpacked.
        tags: how many elements begin or end.
        rows: the farthest row that is named.
        columns: the farthest column that is named.
        cells: how many begin with their place.
        shared: how many texts it may hold for cells to share.
        longest_bytes: no text to be shared is longer, if it holds any.
        holds_cells: it may be a sheet, or the texts that sheets share; not a picture or a list of styles.
        unusual: there is something that the bytes do not tell.
    """

    size_bytes: int = 0
    tags: int = 0
    rows: int = 0
    columns: int = 0
    cells: int = 0
    shared: int = 0
    longest_bytes: int = 0
    holds_cells: bool = False
    unusual: bool = False


def check_workbook_size(name: str, file: BinaryIO) -> None:
    """Refuse an archive whose workbook would not fit in memory.

    Raises:
        InputError: it would not.
        Exception: it is damaged; neither of the readers used promises a closed list of what that makes it raise.
    """
    with zipfile.ZipFile(file) as archive:
        parts: list[_Part] = []
        unpacked = 0
        for entry in archive.infolist():
            # Any part may be a sheet, whatever it is called.
            parts.append(_scanned(name, _unpacked(name, archive, entry, unpacked)))
            unpacked += parts[-1].size_bytes
            if max(parts[-1].rows * parts[-1].columns, parts[-1].cells, parts[-1].shared) > WORKBOOK_CELLS_MAX:
                raise too_large(name, _FAR)
        longest = max((part.longest_bytes for part in parts), default=0)
        most = max((part.cells for part in parts), default=0)
        largest = max((part.size_bytes for part in parts), default=0)
        unusual = any(part.unusual and part.holds_cells for part in parts)
        if unusual or max(longest * most, largest) > WORKBOOK_TEXT_BYTES_MAX:
            _check_exactly(name, archive, parts)


def too_large(name: str, why: str) -> InputError:
    """Return the error for a workbook over a bound."""
    return InputError(f"{name} is too large for a spreadsheet reader ({why}). Save the sheet as CSV.")


def _unpacked(name: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, before: int) -> Iterator[bytes]:
    """Yield what a part really unpacks to, within the bound of all of them."""
    honest = copy(entry)
    honest.file_size = WORKBOOK_UNPACKED_BYTES_MAX  # What the entry says of its size may be a lie.
    with archive.open(honest) as opened:
        while data := opened.read(SCAN_BYTES):
            before += len(data)
            if before > WORKBOOK_UNPACKED_BYTES_MAX:
                raise too_large(name, f"over {WORKBOOK_UNPACKED_BYTES_MAX // 1024**2} MB when unpacked")
            yield data


def _scanned(name: str, blocks: Iterator[bytes]) -> _Part:
    """Return what the bytes of a part tell. The reader reserves rows times columns; one far cell ends the process."""
    part, columns = _Part(), set[bytes]()
    tail = close = b""
    piece = since_shared = 0
    for data in blocks:
        part.size_bytes += len(data)
        block = tail + data
        part.holds_cells = part.holds_cells or any(mark in block for mark in _MARKS)
        # What the end of the block cuts is looked at again with the next.
        unusual = None if part.unusual else _UNUSUAL.search(block)
        part.unusual = part.unusual or (unusual is not None and unusual.start() < len(block) - _CUT_BYTES)
        part.unusual = part.unusual or any(mark in block for mark in _REPEATED)
        part.cells += block.count(_CELL) - tail.count(_CELL)
        part.shared += block.count(_SHARED) - tail.count(_SHARED)
        part.tags += data.count(b"<")
        # A block is shorter than the bound, so that only a piece over several can be longer.
        first, last = data.find(b"<"), data.rfind(b"<")
        if piece + (len(data) if first < 0 else first) > WORKBOOK_PIECE_BYTES_MAX:
            raise too_large(name, _LONG)
        piece = piece + len(data) if first < 0 else len(data) - last
        pieces = list(map(len, data.split(_SHARED))) if _SHARED in data else [len(data)]
        part.longest_bytes = max(part.longest_bytes, since_shared + pieces[0], *pieces[1:])
        since_shared = pieces[-1] + (since_shared if len(pieces) == 1 else 0)
        close += data.translate(None, _BLANKS)
        columns.update(_COLUMN.findall(close))
        part.rows = max(part.rows, max(map(int, set(_ROW.findall(close))), default=0))
        tail, close = block[-_OVERLAP_BYTES:], close[-_OVERLAP_BYTES:]
    part.unusual = part.unusual or _UNUSUAL.search(tail) is not None
    part.columns = max(map(_column_number, columns), default=0)
    if not part.shared:
        part.longest_bytes = 0
    return part


# ------------------------------------------------------------------------------------------------- element by element


def _check_exactly(name: str, archive: zipfile.ZipFile, parts: Sequence[_Part]) -> None:
    """Count what each part would take, texts that cells share as often as they do.

    Raises:
        InputError: it is too much.
        ExpatError: a part that may be a sheet is no XML.
    """
    lengths = array("L")
    for texts in (True, False):
        for entry, part in zip(archive.infolist(), parts, strict=True):
            if not part.holds_cells and part.size_bytes > WORKBOOK_TEXT_BYTES_MAX:
                raise too_large(name, _LONG)
            if not part.holds_cells or (texts and not (part.shared or part.unusual)):
                continue
            if part.unusual and part.tags > WORKBOOK_TAGS_MAX:
                raise too_large(name, _FAR)
            counted = _Counted(name, part, lengths, texts=texts)
            counted.read(_unpacked(name, archive, entry, 0))


class _Counted:
    """Counts the cells of one part, and the text that they will hold."""

    def __init__(self, name: str, part: _Part, lengths: array[int], *, texts: bool) -> None:
        self._name = name
        self._part = part
        self._lengths = lengths
        self._texts = texts  # Only what is there to be shared is collected; cells are counted when all of it is known.
        self._rows = self._columns = self._cells = self._text = 0
        self._row = self._column = self._row_times = self._cell_times = 0
        self._in_row = self._row_text = self._here = 0
        self._filled = self._is_shared = False
        self._value = ""
        self._kinds = dict(_KINDS)

    def read(self, blocks: Iterator[bytes]) -> None:
        """Read a part to its end, or to where it is too much."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._refuse
        for data in blocks:
            parser.Parse(data, False)
        parser.Parse(b"", True)

    def _kind(self, name: str) -> str:
        """Return what an element is, remembering it for all of that name."""
        if len(self._kinds) > _NAMES_MAX:
            raise too_large(self._name, "it holds more kinds of elements than any workbook")
        return self._kinds.setdefault(name, _KINDS.get(name.rpartition(":")[2], _OTHER))

    def _refuse(self, *_: object) -> None:
        raise too_large(self._name, "it declares a document type, which no workbook does")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        kind = self._kinds.get(name) or self._kind(name)
        if kind == _OTHER:
            return
        if kind == _TEXT:
            self._here = 0
        elif kind == _ROW_BEGINS:
            self._row += max(1, self._row_times)
            if (number := attributes.get("r", "")).isdecimal():
                self._row = int(number)
            self._row_times = _times(attributes, "table:number-rows-repeated")
            self._column = self._in_row = self._row_text = 0
        else:
            if place := _PLACE.fullmatch(attributes.get("r", "")):
                self._column, self._row = _column_number(place[1].encode()) - 1, int(place[2])
            self._cell_times = _times(attributes, "table:number-columns-repeated")
            self._column += self._cell_times
            self._is_shared = attributes.get("t") == "s"
            self._filled = name == "c" or "office:value-type" in attributes or "table:formula" in attributes
            self._here, self._value = 0, ""

    def _characters(self, data: str) -> None:
        self._here += len(data)
        self._filled = self._filled or not data.isspace()
        if self._is_shared and len(self._value) < _VALUE_CHARS_MAX:
            self._value += data

    def _end(self, name: str) -> None:
        kind = self._kinds[name]
        if kind == _TEXT and self._texts:
            self._lengths.append(self._here)
            self._check(self._here, len(self._lengths))
        elif kind == _CELL_BEGINS and not self._texts and self._filled:
            value = self._value.strip()
            shared = self._is_shared and value.isdecimal() and int(value) < len(self._lengths)
            length = self._lengths[int(value)] if shared else self._here
            times = max(1, self._row_times)
            self._rows, self._columns = max(self._rows, self._row + times - 1), max(self._columns, self._column)
            self._cells += times * self._cell_times
            self._check(times * self._cell_times * length, self._cells)

    def _check(self, text: int, cells: int) -> None:
        self._text += text
        if self._text > WORKBOOK_TEXT_BYTES_MAX:
            raise too_large(self._name, _LONG)
        area = max(self._rows, self._part.rows) * max(self._columns, self._part.columns)
        if max(cells, area) > WORKBOOK_CELLS_MAX:
            raise too_large(self._name, _FAR)


def _times(attributes: dict[str, str], name: str) -> int:
    """Return how often an element says that it is there."""
    said = attributes.get(name, "").strip()
    return max(1, int(said)) if said.isdecimal() and len(said) <= _VALUE_CHARS_MAX else 1


def _column_number(letters: bytes) -> int:
    """Return 1 for A, 27 for AA."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - ord("A") + 1
    return number
