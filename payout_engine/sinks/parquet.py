"""Parquet, for programs: every column is text, as it was read. Needs pyarrow, which is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from payout_engine.domain.cells import encodable
from payout_engine.domain.errors import ConfigError, SinkError
from payout_engine.sinks.atomic_file import AtomicFile
from payout_engine.sinks.jsonl import distinct

_GROUP_ROWS = 50_000
"""Rows held until they are written together: small groups make Parquet large and slow, large ones take memory."""


NEEDS_PYARROW = "Parquet needs pyarrow. Install it with: pip install 'payout-engine[parquet]', or choose csv or jsonl."


class ParquetSink:
    """Rows to a Parquet file."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Begin the file.

        Raises:
            ConfigError: pyarrow is not installed.
            SinkError: the file cannot be begun.
        """
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise ConfigError(NEEDS_PYARROW) from None
        self._path = path
        self._schema = pyarrow.schema([(name, pyarrow.string()) for name in distinct(columns)])
        self._rows: list[Sequence[str]] = []
        self._file = AtomicFile(path)
        self._writer = pyarrow.parquet.ParquetWriter(self._file.file, self._schema)

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        """Add rows.

        Raises:
            SinkError: they could not be written.
        """
        self._rows.extend(rows)
        if len(self._rows) >= _GROUP_ROWS:
            self._write_group()

    def commit(self) -> None:
        """Make the whole file visible at once, durably.

        Raises:
            SinkError: it could not be done.
        """
        try:
            if self._rows:
                self._write_group()
            self._writer.close()
        except OSError as error:
            self.abort()
            raise SinkError(f"{self._path} cannot be written: {error.strerror or error}.") from error
        self._file.commit()

    def abort(self) -> None:
        """Throw away what was written."""
        self._rows = []
        with suppress(OSError, ValueError):
            self._writer.close()  # else it writes its end when it is collected, to a file long closed
        self._file.abort()

    def _write_group(self) -> None:
        import pyarrow

        columns = [[encodable(cell) for cell in column] for column in zip(*self._rows, strict=True)]
        arrays = [pyarrow.array(column, pyarrow.string()) for column in columns]
        try:
            self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))
        except OSError as error:
            raise SinkError(f"{self._path} cannot be written: {error.strerror or error}.") from error
        self._rows = []
