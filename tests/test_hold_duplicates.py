"""Which repeats are held and which are only told, and what is said of them; over the journal that found them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from payout_engine.domain.model import Chunk, Duplicate, DuplicateKind, Payout, Run
from payout_engine.domain.references import derived_start
from payout_engine.domain.states import State
from payout_engine.intake.duplicates import STRENGTH, hold_duplicates, must_hold
from payout_engine.journal import SqliteJournal
from payout_engine.testing.journal_lines import approved, chunk, run, states

DERIVED = f"{derived_start('0' * 64)}7"


def found(kind: DuplicateKind, ours: str, theirs: str, *, theirs_has: bool) -> Duplicate:
    payout = Payout(ours, 1_000, "XOF", phone="22670000001", line=9)
    return Duplicate(kind, 1, payout, "earlier", 4, State.PAID, 1.0, False, theirs, theirs_has)


def with_cells(made: Chunk, cell: str) -> Chunk:
    return Chunk(made.lane, made.payouts, [[cell, "x"]])


@pytest.mark.parametrize(
    ("ours_has", "ours", "theirs_has", "theirs"),
    [*product([True, False], ["A", DERIVED], [True, False], ["B", DERIVED])],
)
def test_equal_payee_and_amount_are_held_unless_both_have_references(
    ours_has: bool, ours: str, theirs_has: bool, theirs: str
) -> None:
    """References of the payer's own, both: one that we filled in says nothing, and nor does a column that is none."""
    both = ours_has and ours == "A" and theirs_has and theirs == "B"
    repeat = found(DuplicateKind.PAYEE_AMOUNT, ours, theirs, theirs_has=theirs_has)
    new: Run = run("new", has_references=ours_has)
    assert must_hold(repeat, new) is not both
    for kind in set(DuplicateKind) - {DuplicateKind.PAYEE_AMOUNT}:
        assert must_hold(found(kind, ours, theirs, theirs_has=theirs_has), new)


def test_every_kind_has_its_strength() -> None:
    """A kind without one could not be sorted, and its line would not be held."""
    assert sorted(STRENGTH) == sorted(DuplicateKind)


async def test_a_line_is_held_once_for_the_strongest_reason(tmp_path: Path) -> None:
    """However many ways it repeats others; what is held is not told as a warning too, and what is told names both."""
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await approved(journal, "earlier", chunk([1, 2]))
        await journal.begin(run("new", dialect={"reference_column": "matricule"}))
        again, other = chunk([1]), chunk([2], reference="another")
        first, alike = (
            chunk([5, 6], reference="SAME"),
            chunk([7], reference=" same", phone="22670000005", amount_minor=1_005),
        )
        await journal.add("new", [again, with_cells(other, "another"), first, with_cells(alike, "its own")])
        new = await journal.find("new")
        assert new is not None
        decided = await hold_duplicates(journal, new)
        assert {line: reason.code for line, reason in decided.held} == {
            1: "reference_already_used",
            6: "reference_repeated",
            7: "reference_alike",
        }
        assert len(decided.held) == 3
        (warning,) = decided.warnings
        assert (warning[0], warning[1].code) == (2, "payee_amount_twice")
        assert "run earlier, line 2" in warning[1].message and "ready" in warning[1].message
        told = dict(decided.held)
        assert [told[line].column for line in (1, 6, 7)] == ["matricule"] * 3
        assert "line 5 of this file" in told[7].message and "earlier" not in told[7].message
        await journal.seal("new")
        held = {line for line, state in (await states(journal, "new")).items() if state is State.HELD}
        assert held == {1, 6, 7}
        assert await hold_duplicates(journal, new) == type(decided)([], decided.warnings)


async def test_no_line_is_held_twice_or_told_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though what it repeats comes to light one by one: once it is held, it is no warning."""
    monkeypatch.setattr("payout_engine.journal.duplicates.PAGE", 1)
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await approved(journal, "earlier", chunk([1, 2]))
        await journal.begin(run("new"))
        again, other = chunk([1]), chunk([2], reference="another")
        await journal.add("new", [with_cells(again, "its own"), with_cells(other, "another")])
        new = await journal.find("new")
        assert new is not None
        decided = await hold_duplicates(journal, new)
        assert [line for line, _ in decided.held] == [1]
        assert [line for line, _ in decided.warnings] == [2]


async def test_the_cells_of_a_line_are_a_reason_of_their_own(tmp_path: Path) -> None:
    """Where another column was taken for the reference; a file without one names no column."""
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await approved(journal, "earlier", chunk([1]))
        cells = [["SAL-00001", "22670000001"]]
        same = chunk([9], reference="22670000001")
        await journal.begin(run("new"))
        await journal.add("new", [Chunk(same.lane, same.payouts, cells), chunk([1], phone="22670000077")])
        new = await journal.find("new")
        assert new is not None
        decided = await hold_duplicates(journal, new)
        assert {line: (why.code, why.column) for line, why in decided.held} == {
            1: ("reference_already_used", ""),
            9: ("line_repeated", ""),
        }
