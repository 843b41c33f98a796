"""Random payout files for simulations: good lines, bad lines and repeats, with what a correct engine makes of each.

`simulation.py` draws one or two of them for each seed; the second is a mended copy of the first with more lines.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from payout_engine.domain.model import Block, Payout

COLUMNS = ("reference", "phone", "amount")

FIRST_LINE = 2
"""Line 1 is the header."""

SIZES = (1, 3, 8, 15, 15, 30, 45)
PREFIXES = ("70", "74")  # Moov and Orange


class Line(msgspec.Struct, frozen=True):
    """One line as written, and whether our rules must refuse it."""

    reference: str
    phone: str
    amount: str
    good: bool = True


class RandomFile:
    """A `Source` in memory that can be read in every life anew.

    Attributes:
        has_references: False when the file has no column for them.
        lines: as written.
    """

    def __init__(self, name: str, lines: Sequence[Line], *, has_references: bool, block_rows: int) -> None:
        self.name = name
        self.digest = (name.encode().hex() * 64)[:64]
        self.has_references = has_references
        self.columns: Sequence[str] = COLUMNS if has_references else COLUMNS[1:]
        self.dialect: Mapping[str, str] = {"delimiter": ","}
        self.lines = lines
        self._block_rows = block_rows

    async def blocks(self) -> AsyncIterator[Block]:
        """Yield the lines in small blocks."""
        rows = [[line.reference, line.phone, line.amount] for line in self.lines]
        if not self.has_references:
            rows = [row[1:] for row in rows]
        for start in range(0, len(rows), self._block_rows):
            found = rows[start : start + self._block_rows]
            yield Block(range(FIRST_LINE + start, FIRST_LINE + start + len(found)), found)

    def identity(self, line: Line) -> str:
        """Return what makes two good lines one payment, by the rules of repeats."""
        return line.reference if self.has_references else f"{line.phone}|{line.amount}"

    def identity_of(self, payout: Payout) -> str:
        """Return the same of a payout that was read from this file."""
        return payout.reference if self.has_references else f"{payout.phone[3:]}|{payout.amount_minor}"

    def refused(self) -> set[int]:
        """Return the lines that our rules must refuse."""
        return {number for number, line in enumerate(self.lines, FIRST_LINE) if not line.good}

    def repeated(self) -> set[int]:
        """Return the good lines that repeat a good line above them."""
        seen: set[str] = set()
        again: set[int] = set()
        for number, line in enumerate(self.lines, FIRST_LINE):
            if line.good:
                identity = self.identity(line)
                if identity in seen:
                    again.add(number)
                seen.add(identity)
        return again


def random_files(chance: random.Random) -> Sequence[RandomFile]:
    """Draw the files of one simulation."""
    has_references = chance.random() < 0.75
    first = _lines(chance, 0, chance.choice(SIZES), PREFIXES)
    files = [RandomFile("first.csv", first, has_references=has_references, block_rows=chance.choice([1, 3, 20]))]
    if chance.random() < 0.3:
        kept = [line for line in first if chance.random() < 0.6]
        lines = [*kept, *_lines(chance, len(first), chance.choice(SIZES), PREFIXES)]
        chance.shuffle(lines)
        files.append(RandomFile("second.csv", lines, has_references=has_references, block_rows=5))
    return files


def rival_files(chance: random.Random) -> Sequence[RandomFile]:
    """Draw two files with the same references for other people, who are paid from another account."""
    size = chance.choice(SIZES)
    return [
        RandomFile(name, _lines(chance, 0, size, [prefix]), has_references=True, block_rows=20)
        for name, prefix in zip(("first.csv", "second.csv"), PREFIXES, strict=True)
    ]


def long_file(chance: random.Random) -> RandomFile:
    """Draw a file whose one lane is long enough for what only means something in large numbers."""
    lines = _lines(chance, 0, 150, PREFIXES[:1])
    return RandomFile("long.csv", lines, has_references=True, block_rows=20)


def _lines(chance: random.Random, start: int, count: int, prefixes: Sequence[str]) -> list[Line]:
    """Draw lines that differ in everything, some of them bad, some of them twice."""
    lines: list[Line] = []
    for number in range(start, start + count):
        line = Line(f"SAL-{number}", f"{chance.choice(prefixes)}{number:06d}", str(100 + number * 7))
        if chance.random() < 0.06:
            line = _spoilt(line, chance.random() < 0.5)
        lines.append(line)
        if line.good and chance.random() < 0.05:
            lines.append(line)
    return lines


def _spoilt(line: Line, by_phone: bool) -> Line:
    """Return a line that cannot be paid."""
    if by_phone:
        return Line(line.reference, "7012", line.amount, good=False)
    return Line(line.reference, line.phone, "12", good=False)  # below the wallet's smallest amount
