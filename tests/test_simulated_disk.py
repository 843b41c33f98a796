"""The simulated disk and death: what SQLite makes of a full disk, and what a killed process leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from simulation import virtual_time
from simulation.crashing import READS, Crash, CrashingJournal, Fuse, Moment, MortalWriter, Step
from simulation.disk import Disk
from simulation.mortal import living, mortal_locks

from payout_engine.domain.errors import JournalBusyError, JournalFullError
from payout_engine.domain.model import Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.testing.journal_lines import ORANGE, SOMEBODY, approved, chunk, inline, states
from payout_engine.testing.journal_resends import PAYS_ONCE


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Return a mounted disk."""
    mounted = Disk()
    with mounted.mounted():
        yield mounted


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ready": ("run", ORANGE, 0, 1),
    "ready_amounts": ("run", ORANGE, 0, 1),
    "resendable_chunks": ("run", ORANGE, PAYS_ONCE, 0.0, 0, 1),
    "open_queries": ("run", "bf", 1),
    "paid_queries": ("run", "bf", 1),
    "former_queries": ("run", "bf", 1),
    "runs": (),
    "find_digest": ("digest of run",),
    "trace": ("run", ["key"]),
}


def test_a_full_disk_refuses_every_write_and_no_read(disk: Disk, tmp_path: Path) -> None:
    """As the operating system's would; and when there is room again, nothing of what was refused is there."""

    async def main() -> None:
        async with inline(tmp_path / "payouts.db", 0.01) as journal:
            await approved(journal, "run", chunk([1]), chunk([2]))
            first, second = await journal.ready("run", ORANGE, 0, 2)
            disk.fill(3, lambda: None)
            with pytest.raises(JournalFullError):
                await journal.intend(first)
            for name in sorted(READS):
                await getattr(journal, name)(*ARGUMENTS.get(name, ("run",)))
            assert disk.full and disk.refusals
            disk.empty()
            await journal.intend(second)
            assert await states(journal, "run") == {1: State.READY, 2: State.SENDING}
            assert (await journal.verify("run")).findings == []

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("moment", "name", "left"),
    [
        (Moment.BEFORE, "record", {1: State.SENDING, 2: State.SENDING}),
        (Moment.INSIDE, "record", {1: State.SENDING, 2: State.SENDING}),
        (Moment.AFTER, "record", {1: State.PAID, 2: State.PAID}),
        (Moment.BETWEEN, "record", {1: State.SENDING, 2: State.SENDING}),
    ],
)
def test_a_killed_process_leaves_what_it_had_committed(
    disk: Disk, tmp_path: Path, moment: Moment, name: str, left: dict[int, State]
) -> None:
    """Before, inside, between, after: all of a transaction or nothing, and a free lock whose file lies about."""
    fuse = Fuse(Step(1, moment, name))
    writer = partial(MortalWriter, fuse=fuse, done=lambda *told: None, commit_seconds=0.01)
    path = tmp_path / "payouts.db"

    async def die() -> None:
        async with SqliteJournal.open(path, writer=writer) as real:
            journal: Any = CrashingJournal(real, fuse, disk)
            await approved(journal, "run", chunk([1]), chunk([2]))
            async with journal.lease("account bf", SOMEBODY):
                with pytest.raises(JournalBusyError):
                    async with inline(path) as other, other.lease("account bf", SOMEBODY):
                        pass
                one, two = [await journal.intend(ready) for ready in await journal.ready("run", ORANGE, 0, 2)]
                tasks = [
                    asyncio.ensure_future(journal.runs())
                ]  # While it is answered, the rest waits and is one group.
                await asyncio.sleep(0)
                tasks += [asyncio.ensure_future(journal.record(sent, [Receipt(State.PAID)])) for sent in (one, two)]
                await asyncio.gather(*tasks, return_exceptions=False)

    async def main() -> None:
        with pytest.raises(Crash), mortal_locks(), living(fuse):
            await die()
        assert fuse.dead
        await anyio.sleep(1.0)
        assert len(list(tmp_path.glob("*account_bf*.lock"))) == 1
        async with inline(path) as journal, journal.lease("account bf", SOMEBODY):
            assert await states(journal, "run") == left

    virtual_time.run(main())
