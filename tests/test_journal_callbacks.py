"""What the journal keeps of what providers called to say: little, and nothing that a tampered row could spoil."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from payout_engine.domain.model import Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal, callbacks
from payout_engine.ports.callbacks import Heard
from payout_engine.testing.journal_lines import approved, chunk, sent


async def test_what_was_acted_on_is_forgotten_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the latest are remembered, whatever comes; what waits is kept, until it is too old to be of use."""
    monkeypatch.setattr(callbacks, "CALLBACKS_KEPT", 10)
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await approved(journal, "run", chunk([1]))
        heard = Heard((await sent(journal, "run", Receipt(State.ACCEPTED))).keys)
        await journal.store_callback("bf", b"waits", heard)
        for number in range(40):
            await journal.store_callback("bf", b"%d" % number, heard)
            await journal.settle_callbacks([number + 2])
        again = [number for number in range(40) if await journal.store_callback("bf", b"%d" % number, heard)]
        assert again == list(range(30))
        assert await journal.count_callbacks("bf", 99) == 31
        with apsw.Connection(str(tmp_path / "payouts.db")) as db:
            db.execute("UPDATE callbacks SET stored_at = stored_at - 8 * 86400 WHERE callback_no < 45")
        await journal.settle_callbacks([45])
        found, _ = await journal.stored_callbacks("bf", 99)
        assert [one.number for one in found] == list(range(46, 72))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "[[1],[]]", '[["a"]]', "\x00", "[" * 5000, '[["1", "abcdefghijkl-1-0"],[]]']
)
async def test_a_row_that_somebody_wrote_speaks_of_nothing(tmp_path: Path, text: str) -> None:
    """It is read as a call about no payout, so that whoever acts on it is done with it."""
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await journal.store_callback("bf", b"one", Heard(references=("R1",)))
        with apsw.Connection(str(tmp_path / "payouts.db")) as db:
            db.execute("UPDATE callbacks SET heard = ?", (text,))
        found, _ = await journal.stored_callbacks("bf", 9)
        assert [one.heard for one in found] == [Heard()]


async def test_looking_for_what_waits_reads_nothing_else(tmp_path: Path) -> None:
    """However many calls were stored and acted on, what waits is found by an index, and a repetition as well."""
    async with SqliteJournal.open(tmp_path / "payouts.db"):
        pass
    with apsw.Connection(str(tmp_path / "payouts.db")) as db:
        waiting = "SELECT callback_no, heard FROM callbacks WHERE account = ? AND waiting AND callback_no > ?"
        for query, bindings in ((waiting, ("bf", 0)), ("SELECT 1 FROM callbacks WHERE digest = ?", (b"one",))):
            plan = " ".join(str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {query}", bindings))
            assert "SEARCH callbacks USING" in plan and "SCAN" not in plan
