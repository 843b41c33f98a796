"""The lifecycle: the table that decides is the page that people read, and the letters on disks stay what they are."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from payout_engine.domain.errors import IllegalMoveError
from payout_engine.domain.states import (
    ATTENTION,
    EDGES,
    INITIAL_STATES,
    LETTERS,
    MOVES,
    OPEN,
    STATES_BY_LETTER,
    UNPAID,
    State,
    move,
)

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "lifecycle.md").read_text(encoding="utf-8")
ARROWS = re.findall(r"^\| [A-Z]+ \| `(\w+)` \| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
STATES = re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \| (.*) \|$", PAGE, re.MULTILINE)


def counted_as(words: str) -> set[str]:
    """Return the states that the page counts as something."""
    return {state for state, _, kinds in STATES if words in kinds}


def test_the_arrows_are_those_of_the_page() -> None:
    """With what each needs; a state that the page does not have does not exist."""
    assert [(edge.source, edge.target, edge.needs) for edge in EDGES] == ARROWS
    assert [state.value for state in State] == [state for state, _, _ in STATES]


def test_the_groups_are_those_of_the_page() -> None:
    """Where a line may begin, what may still be asked about, what is provably unpaid, and what waits for a person."""
    assert {state for state, begins, _ in STATES if begins == "yes"} == INITIAL_STATES
    assert counted_as("still open at the provider") == OPEN
    assert counted_as("provably not paid") == UNPAID
    assert counted_as("needs a person") == ATTENTION


@pytest.mark.parametrize(("source", "target"), [*product(State, State)])
def test_a_payout_goes_only_along_an_arrow(source: State, target: State) -> None:
    """Or stays where it is; any other move is a fault of ours."""
    allowed = (source, target) in {(before, after) for before, after, _ in ARROWS}
    assert ((source, target) in MOVES) is allowed
    if allowed or source is target:
        assert move(source, target) is target
    else:
        with pytest.raises(IllegalMoveError, match=f"from {source} to {target}"):
            move(source, target)


def test_the_letters_are_those_of_every_journal_that_was_written() -> None:
    """One that changed would give payouts of older journals another state."""
    words = {state.value: letter for state, letter in LETTERS.items()}
    assert words == {
        "ready": "r",
        "sending": "s",
        "accepted": "a",
        "unknown": "u",
        "held": "h",
        "paid": "p",
        "failed": "f",
        "rejected": "x",
        "cancelled": "c",
        "reversed": "v",
    }
    assert {letter: state for state, letter in LETTERS.items()} == STATES_BY_LETTER
