"""Payouts and receipts are stored by column; rows of earlier formats, one array for each payout, are read as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tampering import RUNS, a_life
from test_journal_file import BEFORE_DIRECTIONS

from payout_engine.domain.model import Payout, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal, codec, verify_file
from payout_engine.journal.log import Moved, moved_text, read_moved
from payout_engine.journal.schema import VERSION

words = st.sampled_from(["", "a", "b", "é", '"', "[", "{"])
amounts = st.integers(0, 3)
payouts = st.lists(st.builds(Payout, words, amounts, *[words] * 7, line=st.integers(1, 9)), min_size=1, max_size=4)
receipts = st.builds(Receipt, st.sampled_from(State), words, words, words, st.sampled_from([0.0, 1.5, 2.25]))

VIEWED = "line, reference, state, amount_minor, currency, phone, email, account_number, name, wallet, account, reason,"
VIEWED += " message, provider_reference, at > '2020'"


@given(payouts)
def test_payouts_come_back_from_both_forms(given: list[Payout]) -> None:
    """Whatever is the same for all, or for some, each payout is what it was."""
    for stored in codec.payouts_text(given), codec.text(given):
        assert codec.read_payouts(stored) == given
        expected = [payout.amount_minor for payout in given], [payout.reference for payout in given]
        assert tuple(codec.read_fields(stored, "amount_minor", "reference")) == expected


@given(st.lists(receipts | st.none(), min_size=1, max_size=4))
def test_receipts_come_back_from_both_forms(given: list[Receipt | None]) -> None:
    """One for each payout or none, in the order of the payouts; one that is stored alone stands for all."""
    for stored in codec.receipts_text(given), codec.text(given):
        assert list(codec.read_receipts(stored, len(given))) == given
    known = [receipt for receipt in given if receipt is not None]
    if known:
        given_for = Moved(known, list(range(len(known))))
        for columns in codec.receipt_columns(known), cast(Any, known):
            moved = read_moved(moved_text(given_for, columns))
            assert list(codec.each(moved.receipts, len(known))) == known


@pytest.mark.parametrize(
    "stored", ['{"line":[1,2],"reference":["a"]}', '{"line":[1],"amount_minor":[1,2]}', '{"reference":["a"]}']
)
def test_columns_of_unequal_length_are_no_payouts(stored: str) -> None:
    """Nobody is paid another one's amount because a value is missing in between."""
    with pytest.raises(ValueError):
        codec.read_payouts(stored)


def test_receipts_of_unequal_columns_are_refused() -> None:
    """Nothing is said of a payout that was said of another."""
    with pytest.raises(ValueError, match="column of 1"):
        codec.read_receipts('{"state":["paid","failed"],"reason":["a"]}', 2)


async def test_an_older_journal_is_read_shown_and_proved_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A life written in the older form, brought up to date: the same lines in the views, and every run is proved."""
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    await a_life(new)
    with monkeypatch.context() as older:
        older.setattr(codec, "payouts_text", codec.text)
        older.setattr(codec, "receipt_columns", list)
        kept = await a_life(old)
    first = Path(codec.__file__).with_name("migrations") / "1.sql"
    views = first.read_text(encoding="utf-8").partition("for people\n")[2]
    with apsw.Connection(str(old)) as db:
        complete = rows(old, "SELECT name, sql FROM sqlite_schema ORDER BY name")
        db.execute(f"DROP VIEW attention; DROP VIEW runs_summary; DROP VIEW payouts; {views}; PRAGMA user_version = 4")
        db.execute(BEFORE_DIRECTIONS)
    shown = [rows(new, f"SELECT run_id, {VIEWED} FROM payouts ORDER BY run_id, line"), summary(new)]
    assert [rows(old, f"SELECT run_id, {VIEWED} FROM payouts ORDER BY run_id, line"), summary(old)] == shown
    async with SqliteJournal.open(old):
        pass
    assert [rows(old, f"SELECT run_id, {VIEWED} FROM payouts ORDER BY run_id, line"), summary(old)] == shown
    assert rows(old, "SELECT name, sql FROM sqlite_schema ORDER BY name") == complete
    assert rows(old, "PRAGMA user_version") == [(VERSION,)]
    assert all(verify_file(old, run_id).proven for run_id in RUNS)
    assert verify_file(old, "run", kept).proven
    assert rows(old, "SELECT DISTINCT substr(payouts, 1, 1) FROM chunks") == [("[",)]
    assert rows(new, "SELECT DISTINCT substr(payouts, 1, 1) FROM chunks") == [("{",)]


def summary(path: Path) -> list[Any]:
    """Return what the view of all runs shows, apart from times."""
    query = "SELECT run_id, run_state, account, wallet, state, currency, count, amount_minor FROM runs_summary"
    return rows(path, f"{query} ORDER BY 1, 3, 4, 5, 6")


def rows(path: Path, query: str) -> list[Any]:
    """Return the rows of a query."""
    db = apsw.Connection(str(path))
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()
