"""What a person says of lines that wait for one: read from a table, and matched with the payouts that are meant.

Called by the command `resolve`; `Engine.decide` records what comes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from payout_engine.domain.errors import UserError
from payout_engine.domain.model import Choice, Decision, Entry
from payout_engine.domain.states import State
from payout_engine.journal.decisions import PROBLEMS_SHOWN, refused
from payout_engine.ports.journal import Journal
from payout_engine.sources import open_source

LINE = "line:"
"""How a line is named where its reference does not say which is meant."""

WORDS: Mapping[str, Choice] = {
    "paid": Choice.PAID,
    "failed": Choice.FAILED,
    "send again": Choice.SEND_AGAIN,
    "cancel": Choice.CANCEL,
    "cancelled": Choice.CANCEL,
}
"""What may stand in the column `decision`; case, hyphens and underscores do not matter."""


class DecisionInput(msgspec.Struct, frozen=True):
    """What a person said of one line, before it is known which payout is meant.

    Attributes:
        reference: the payer's reference, or `line:57`, or empty.
        line: the line's number, or 0 if only a reference is given.
        choice: what was decided.
        note: what was said of this line alone.
    """

    reference: str
    line: int
    choice: Choice
    note: str = ""

    def __str__(self) -> str:
        return f"line {self.line}" if not self.reference else self.reference


async def decisions_meant(
    journal: Journal, run_id: str, said: Sequence[DecisionInput], who: str, why: str
) -> Sequence[Decision]:
    """Find the payout that each word means: of several with one reference, the one that waits for a person.

    Raises:
        DecisionError: a word means no payout, or it is not clear which; all of these are named.
    """
    references, lines = {word.reference for word in said} - {""}, {_line_of(word) for word in said} - {0}
    found: list[Entry] = []
    async for entries in journal.entries(run_id):
        found += [entry for entry in entries if entry.payout.reference in references or entry.payout.line in lines]
    decisions: list[Decision] = []
    problems: list[str] = []
    for word in said:
        chosen = _meant(word, found)
        if len(chosen) == 1 and any(chosen[0].key == decision.key for decision in decisions):
            problems.append(f"{word}: it is decided twice")
        elif len(chosen) == 1:
            reason = f"{why} ({word.note})" if word.note else why
            decisions.append(Decision(chosen[0].key, word.choice, who, reason))
        elif chosen:
            places = ", ".join(f"{LINE}{entry.payout.line} ({entry.receipt.state})" for entry in chosen)
            problems.append(f"{word}: several lines have this reference; say which: {places}")
        else:
            problems.append(f"{word}: the run has no such line")
    if problems:
        raise refused(problems)
    return decisions


def _line_of(word: DecisionInput) -> int:
    number = word.reference.removeprefix(LINE)
    return int(number) if not word.line and number != word.reference and number.isdecimal() else word.line


def _meant(word: DecisionInput, found: Sequence[Entry]) -> Sequence[Entry]:
    named = [entry for entry in found if entry.payout.reference == word.reference]
    line = _line_of(word)
    if line and (word.line or not named):
        both = [entry for entry in found if entry.payout.line == line]
        return [entry for entry in both if not word.line or word.reference in ("", entry.payout.reference)]
    waiting = [entry for entry in named if entry.receipt.state in (State.HELD, State.UNKNOWN)]
    return waiting if len(waiting) == 1 else named


async def read_table(path: Path) -> Sequence[DecisionInput]:
    """Read decisions from a table: `decision`, and `reference` or `line`, and perhaps `note`.

    Raises:
        UserError: it has no such columns, or holds something that is no decision; all of these are named.
    """
    found: list[DecisionInput] = []
    problems: list[str] = []
    async with AsyncExitStack() as stack:
        source = await open_source(str(path), stack=stack)
        places = {column.strip().casefold(): place for place, column in reversed(list(enumerate(source.columns)))}
        # In a copy of attention.csv the columns that we added are ours; others may have been the payer's own.
        reference = places.get("payout_reference", places.get("reference"))
        line = places.get("payout_line", places.get("line"))
        if "decision" not in places or (reference is None and line is None):
            raise UserError(
                f"{path} needs a column “decision”, and a column “reference” or “line”. Nothing was recorded."
            )
        async for block in source.blocks():
            for number, row in zip(block.lines, block.rows, strict=True):
                cells = [row[place].strip() if place is not None else "" for place in (reference, line)]
                said = " ".join(row[places["decision"]].casefold().replace("-", " ").replace("_", " ").split())
                if not said:
                    continue
                if said not in WORDS or not any(cells) or not (cells[1] or "0").isdecimal():
                    problems.append(f"line {number}: write paid, failed, send again or cancel, and which line is meant")
                    continue
                note = row[places["note"]].strip() if "note" in places else ""
                found.append(DecisionInput(cells[0], int(cells[1] or 0), WORDS[said], note))
    if problems:
        raise UserError(
            f"{path} cannot be carried out, and nothing was recorded. {'; '.join(problems[:PROBLEMS_SHOWN])}."
        )
    return found
