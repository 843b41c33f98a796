"""The hashes by which repeats are found say what people mean, and each payout's are its own."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from payout_engine.domain.model import Payout
from payout_engine.journal.fingerprints import (
    CELLS_KIND,
    HASHES_EACH,
    KIND_MASK,
    PAYEE_KIND,
    REFERENCE_KIND,
    cells_as_meant,
    hashes,
    reference_as_meant,
)

SEPARATORS = "\x1c\x1d\x1e\x1f"
CELLS = st.one_of(
    st.sampled_from(
        ["", "0", "007", "7", "7.0", "7,00", "'", '"', " ", "Awa É", "0\x1f0", "\x1e01", "a\x1fb", ".0", ",0"]
    ),
    st.text(alphabet=f"01.,'é\u0301 A\udc80{SEPARATORS}", max_size=5),
)
LINES = st.lists(st.tuples(CELLS, st.lists(CELLS, min_size=2, max_size=2)), min_size=1, max_size=4)


def a_payout(reference: str) -> Payout:
    return Payout(reference, 1_000, "XOF", phone="22670000001")


@given(LINES)
def test_the_hashes_of_many_are_those_of_each(lines: list[tuple[str, list[str]]]) -> None:
    """Whatever its neighbours say: what is hashed together, for speed, is hashed apart."""
    payouts = [a_payout(reference) for reference, _ in lines]
    together = hashes(payouts, [row for _, row in lines], None)
    apart = [hashes([one], [row], None) for one, (_, row) in zip(payouts, lines, strict=True)]
    assert together == [found for each in apart for found in each]
    assert [found & KIND_MASK for found in together] == [REFERENCE_KIND, PAYEE_KIND, CELLS_KIND] * len(lines)
    assert all(0 <= found < 2**63 for found in together)


@given(LINES, st.sampled_from(SEPARATORS))
def test_lines_with_equal_cells_have_equal_hashes(lines: list[tuple[str, list[str]]], between: str) -> None:
    """Otherwise they would never be compared; also where a cell holds what we put between cells."""
    rows = [row for _, row in lines] + [[between.join(row), "x"] for _, row in lines]
    found = hashes([a_payout("R")] * len(rows), rows, None)[2::HASHES_EACH]
    by_cells = list(zip([cells_as_meant(row, None) for row in rows], found, strict=True))
    assert len(set(by_cells)) == len({cells for cells, _ in by_cells})


@given(LINES, st.permutations([0, 1]))
def test_cells_are_known_in_any_order_and_company(lines: list[tuple[str, list[str]]], order: list[int]) -> None:
    """Columns that change places, and columns of ours beside them, change no hash of the cells."""
    payouts = [a_payout(reference) for reference, _ in lines]
    rows = [row for _, row in lines]
    moved = [[*(row[at] for at in order), "ours"] for row in rows]
    assert hashes(payouts, rows, None)[2::HASHES_EACH] == hashes(payouts, moved, [0, 1])[2::HASHES_EACH]


def test_a_number_is_the_same_however_a_program_writes_it() -> None:
    """In a reference and in a cell, at the beginning of a line, within it and in a later one."""
    plain, written = ["7", "8", "9"], ["007", "8.0", "9,00"]
    for ours, theirs in (plain, written), (plain[::-1], written[::-1]):
        mine, other = ([a_payout(text) for text in texts] for texts in (ours, theirs))
        assert hashes(mine, [[text, "x"] for text in ours], None) == hashes(
            other, [[text, "x"] for text in theirs], None
        )
        assert hashes(mine, [["x", text] for text in ours], None) == hashes(
            other, [["x", text] for text in theirs], None
        )


def test_references_of_nothing_but_signs_are_what_they_are() -> None:
    """They mean nothing else, so that two of them are two."""
    assert reference_as_meant("'") != reference_as_meant('"')
    quotes = [hashes([a_payout(text)], [["x"]], None)[0] for text in ("'", '"', " ")]
    assert len(set(quotes)) == 3


def test_who_is_paid_how_much_is_told_apart() -> None:
    """Another amount, phone or address is another hash; a currency is compared when the payouts are read."""
    awa = a_payout("R")
    others: list[dict[str, Any]] = [
        {"amount_minor": 1_001},
        {"phone": "22670000002"},
        {"phone": "", "email": "a@b.c"},
        {"phone": "", "email": "x@b.c"},
        {"phone": "", "email": "\udc80"},
    ]
    for email in ("a@b.c", "\udc80"):
        made_of = hashes([msgspec.structs.replace(awa, phone="", email=email)], [["x"]], None)
        assert [found & KIND_MASK for found in made_of] == [REFERENCE_KIND, PAYEE_KIND, CELLS_KIND]
        assert all(0 <= found < 2**63 for found in made_of)
    made = [awa, *(msgspec.structs.replace(awa, **change) for change in others)]
    assert len({hashes([one], [["x"]], None)[1] for one in made}) == len(made)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1, max_size=4))
def test_rows_of_unequal_length_do_not_lend_each_other_cells(rows: list[list[str]]) -> None:
    """The hash of a short row is its own, whatever longer rows stand beside it."""
    payouts = [a_payout("R")] * len(rows)
    apart = [hashes([a_payout("R")], [row], None) for row in rows]
    assert hashes(payouts, rows, None) == [found for each in apart for found in each]
