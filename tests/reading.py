"""Reading a whole file through its source, for the tests of sources, sinks and results."""

from __future__ import annotations

from pathlib import Path

import pytest

from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import BLOCK_ROWS
from payout_engine.ports.files import CountsLines
from payout_engine.sources import open_source

INPUTS = Path(__file__).parent / "inputs"


class Read:
    """Everything a source has."""

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.lines: list[int] = []
        self.rows: list[list[str]] = []
        self.ragged: dict[int, int] = {}
        self.unreadable: dict[int, str] = {}
        self.dialect: dict[str, str] = {}
        self.digest = ""
        self.blank_lines = 0
        self.continued_lines = 0


async def read(path: Path, **options: str) -> Read:
    """Return all of a file."""
    source = await open_source(path, format=options.get("format"), sheet=options.get("sheet"))
    found = Read()
    found.columns, found.dialect, found.digest = list(source.columns), dict(source.dialect), source.digest
    async for block in source.blocks():
        assert len(block.lines) == len(block.rows) <= BLOCK_ROWS
        assert {len(row) for row in block.rows} <= {len(source.columns)}
        found.lines += block.lines
        found.rows += map(list, block.rows)
        found.ragged |= block.ragged
        found.unreadable |= block.unreadable
        found.blank_lines += block.blank_lines
        found.continued_lines += block.continued_lines
    assert isinstance(source, CountsLines)
    assert source.data_lines == len(found.lines) + found.blank_lines + found.continued_lines
    return found


async def refusal(path: Path) -> str:
    """Return the words with which a file is refused, having found them to be one line naming the file."""
    with pytest.raises(InputError) as caught:
        await read(path)
    words = str(caught.value)
    assert path.name in words and "\n" not in words and words.endswith((".", "'", "first.", "CSV.")), words
    return words
