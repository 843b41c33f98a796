"""The ports of files: where lines come from, and where results go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from payout_engine.domain.model import Block


class Source(Protocol):
    """Where lines come from. Opened once; read once.

    Attributes:
        name: for people, such as `salaries.csv`.
        digest: SHA-256 of the content in hex, or empty for an iterable.
        columns: the header as written.
        dialect: how it was written, for results in the input's own format.
    """

    name: str
    digest: str
    columns: Sequence[str]
    dialect: Mapping[str, str]

    def blocks(self) -> AsyncIterator[Block]:
        """Yield the rows in order, each as long as `columns`, blank lines left out; a block may have none.

        Raises:
            InputError: the rest cannot be read as a table; the message names the line.
        """
        ...


@runtime_checkable
class CountsLines(Protocol):
    """A source that knows at once, by another way than reading its rows, how many lines it has.

    Attributes:
        data_lines: lines of a text file, or rows of a sheet, below the header; blank ones among them, and each line of
            a cell that spans several.
    """

    data_lines: int


class Sink(Protocol):
    """Where results go: rows under one header. Nobody sees the result before `commit`."""

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        """Add rows, each as long as the header.

        Raises:
            SinkError: they could not be written.
        """
        ...

    def commit(self) -> None:
        """Make the whole result visible at once, durably.

        Raises:
            SinkError: it could not be done; what was there before is still there.
        """
        ...

    def abort(self) -> None:
        """Throw away what was written. May be called after a failure, and more than once."""
        ...
