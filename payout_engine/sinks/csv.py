"""CSV that any spreadsheet opens rightly and that cannot run anything there; line ends and quoting are RFC 4180's.

Nearly no row needs quotation marks or an apostrophe. So rows are joined, a hundred at a time, and kept so if it
can be shown from the joined bytes that nothing in them needed care; else Python's own writer writes these rows. Both
ways give the same bytes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from payout_engine.domain.cells import FIRST_BYTES, encodable, harmless_rows
from payout_engine.sinks.atomic_file import AtomicFile

_ROWS_JOINED = 100
"""Rows joined and looked at together: one odd row sends no more than these to the careful writer."""

_ENDS, _STARTS, _CARE = 1, 2, 3
"""What a byte is to a joined table: it ends a cell; it may begin a cell that a spreadsheet runs; it needs care."""
_MAY_RUN = bytes((_ENDS, _STARTS))


class CsvSink:
    """Rows to a CSV file in UTF-8."""

    def __init__(self, path: Path, columns: Sequence[str], delimiter: str = ",", *, bom: bool = False) -> None:
        """Begin the file with its header.

        Args:
            path: where it will be once committed.
            columns: the header.
            delimiter: between cells.
            bom: begin with a byte order mark, by which spreadsheets see that it is UTF-8.

        Raises:
            SinkError: the file cannot be begun.
        """
        self._file = AtomicFile(path)
        self._delimiter = delimiter
        self._kinds = _kinds(delimiter)
        if bom:
            self._file.write("\ufeff".encode())
        self.write([columns])

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        """Add rows, each as long as the header, with cells that a spreadsheet would run made harmless.

        Raises:
            SinkError: they could not be written.
        """
        for start in range(0, len(rows), _ROWS_JOINED):
            few = rows[start : start + _ROWS_JOINED]
            self._file.write(self._joined(few) or written(few, self._delimiter))

    def commit(self) -> None:
        """Make the whole file visible at once, durably.

        Raises:
            SinkError: it could not be done.
        """
        self._file.commit()

    def abort(self) -> None:
        """Throw away what was written."""
        self._file.abort()

    def _joined(self, rows: Sequence[Sequence[str]]) -> bytes:
        """Return what `written` would, or nothing where that cannot be shown."""
        text = "\r\n".join([self._delimiter.join(row) for row in rows])
        try:
            data = b"\r\n%b\r\n" % text.encode()
        except UnicodeEncodeError:
            return b""
        kinds = data.translate(self._kinds)
        # A cell with a delimiter or a line end of its own would make one end more than the cells have.
        ends = sum(map(len, rows)) + len(rows) + 2
        if kinds.count(_ENDS) != ends or _CARE in kinds or len(rows[0]) < 2:
            return b""
        if _MAY_RUN in kinds and harmless_rows(rows) is not rows:
            return b""
        return data[2:]


def written(rows: Sequence[Sequence[str]], delimiter: str) -> bytes:
    """Return rows as CSV, written with all care."""
    text = StringIO()
    csv.writer(text, delimiter=delimiter).writerows(harmless_rows(rows))
    # No input holds what is not encodable; what a provider says may, and the row must come out.
    return encodable(text.getvalue()).encode()


def _kinds(delimiter: str) -> bytes:
    """Return what each byte of a joined table is, as a table for `bytes.translate`."""
    kinds = bytearray(256)
    for byte in FIRST_BYTES:
        kinds[byte] = _STARTS
    for byte in b"\r\n" + delimiter.encode():
        kinds[byte] = _ENDS
    for byte in b'"\0':
        kinds[byte] = _CARE
    return bytes(kinds)
