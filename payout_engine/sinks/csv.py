"""CSV that any spreadsheet opens rightly and that cannot run anything there; line ends and quoting are RFC 4180's."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from payout_engine.domain.cells import encodable, harmless_rows
from payout_engine.sinks.atomic_file import AtomicFile


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
        if bom:
            self._file.write("\ufeff".encode())
        self.write([columns])

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        """Add rows, each as long as the header, with cells that a spreadsheet would run made harmless.

        Raises:
            SinkError: they could not be written.
        """
        text = StringIO()
        csv.writer(text, delimiter=self._delimiter).writerows(harmless_rows(rows))
        # No input holds what is not encodable; what a provider says may, and the row must come out.
        self._file.write(encodable(text.getvalue()).encode())

    def commit(self) -> None:
        """Make the whole file visible at once, durably.

        Raises:
            SinkError: it could not be done.
        """
        self._file.commit()

    def abort(self) -> None:
        """Throw away what was written."""
        self._file.abort()
