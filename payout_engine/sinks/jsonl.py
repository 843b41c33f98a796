"""JSONL: one object per row, for programs. Cells are written as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from payout_engine.domain.cells import encodable
from payout_engine.sinks.atomic_file import AtomicFile

_ENCODER = msgspec.json.Encoder()
_NUL = b"\\u0000"


class JsonlSink:
    """Rows to a JSONL file."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Begin the file.

        Raises:
            SinkError: it cannot be begun.
        """
        self._file = AtomicFile(path)
        self._names = distinct(columns)

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        """Add rows.

        Raises:
            SinkError: they could not be written.
        """
        names = self._names
        records = [dict(zip(names, row, strict=True)) for row in rows]
        try:
            data = _ENCODER.encode_lines(records)
            strange = _NUL in data
        except UnicodeEncodeError:
            strange = True
        if strange:
            data = _ENCODER.encode_lines([{name: encodable(cell) for name, cell in each.items()} for each in records])
        self._file.write(data)

    def commit(self) -> None:
        """Make the whole file visible at once, durably.

        Raises:
            SinkError: it could not be done.
        """
        self._file.commit()

    def abort(self) -> None:
        """Throw away what was written."""
        self._file.abort()


def distinct(columns: Sequence[str]) -> list[str]:
    """Return the columns with nameless ones called `column_3` by their place, and none called like another."""
    names: dict[str, None] = {}
    for number, column in enumerate(columns, start=1):
        name = column.strip() or f"column_{number}"
        while name in names:
            name = f"{name}_{number}"
        names[name] = None
    return list(names)
