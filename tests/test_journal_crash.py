"""A process is killed in the middle of paying: what the journal knows afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.testing.journal_lines import ORANGE, SOMEBODY, replay, states

KILLED_SCRIPT = """
import asyncio, os, signal, sys
from pathlib import Path
from payout_engine.journal import SqliteJournal
from payout_engine.domain.states import State
from payout_engine.domain.model import Receipt
from payout_engine.testing.journal_lines import ORANGE, SOMEBODY, approved, chunk

async def main():
    async with SqliteJournal.open(Path(sys.argv[1])) as journal, journal.lease("account bf", SOMEBODY):
        await approved(journal, "run", chunk([1, 2]), chunk([3, 4]), chunk([5, 6]))
        first, second, third = await journal.ready("run", ORANGE, 0, 3)
        await journal.record(await journal.intend(first), [Receipt(State.PAID, provider_reference="T1")])
        await journal.intend(second)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.crash
async def test_a_kill_between_intent_and_receipt_leaves_unknown(tmp_path: Path) -> None:
    """What was recorded stays, what was on the wire is unknown, what was not begun is ready, and the lease is free."""
    path = tmp_path / "payouts.db"
    killed = subprocess.run([sys.executable, "-c", KILLED_SCRIPT, path], timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL
    async with SqliteJournal.open(path) as journal, journal.lease("account bf", SOMEBODY):
        outcomes = await journal.recover("run")
        assert [(outcome.line, outcome.reason) for outcome in outcomes] == [(3, "interrupted"), (4, "interrupted")]
        assert await states(journal, "run") == {
            1: State.PAID,
            2: State.PAID,
            3: State.UNKNOWN,
            4: State.UNKNOWN,
            5: State.READY,
            6: State.READY,
        }
        assert [list(ready.indexes) for ready in await journal.ready("run", ORANGE, 0, 10)] == [[0, 1]]
        assert len(await replay(journal, "run")) == 4
