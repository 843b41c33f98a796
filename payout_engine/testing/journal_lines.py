"""Runs, chunks and payouts for the journal suites, and short ways to bring them where a test wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from payout_engine.domain import clock
from payout_engine.domain.errors import Holder
from payout_engine.domain.model import (
    REJECTED_LANE,
    Chunk,
    Dispatch,
    Duplicate,
    DuplicateKind,
    Entry,
    Lane,
    Outcome,
    Payout,
    Problem,
    Receipt,
    Run,
)
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.journal.writer import InlineWriter
from payout_engine.ports.journal import Journal

T = TypeVar("T")
JournalFactory = Callable[[], AbstractAsyncContextManager[Journal]]

ORANGE = Lane("bf", "orange_bf", "XOF")
MOOV = Lane("bf", "moov_bf", "XOF")
IVORY = Lane("ci", "orange_ci", "XOF")

SOMEBODY = Holder(pid=4711, task="paying", journal="payouts.db", run_id="2026-11-abcde", name="salaries.csv", since=1e9)
"""Who holds a lease in these suites."""


def inline(path: Path, commit_seconds: float = 0.0) -> AbstractAsyncContextManager[SqliteJournal]:
    """Open the real journal for a world of virtual time: carried out in the event loop, without a thread."""
    return SqliteJournal.open(path, writer=partial(InlineWriter, commit_seconds=commit_seconds))


def payout(line: int, **changes: object) -> Payout:
    """Return a payout of 1,000 francs and its line number to a recipient of its own."""
    made = Payout(f"SAL-{line:05d}", 1_000 + line, "XOF", phone=f"226{70_000_000 + line}", line=line)
    return msgspec.structs.replace(made, **changes)


def chunk(lines: Sequence[int], lane: Lane = ORANGE, **changes: object) -> Chunk:
    """Return a chunk of payouts for these lines."""
    payouts = [payout(line, **changes) for line in lines]
    return Chunk(lane, payouts, [[item.reference, item.phone] for item in payouts])


def refused(lines: Sequence[int]) -> Chunk:
    """Return a chunk of lines that were refused for their amount."""
    good = chunk(lines, REJECTED_LANE)
    return Chunk(
        REJECTED_LANE, good.payouts, good.rows, [Problem("amount_zero", "It is zero.", "montant")] * len(lines)
    )


def run(run_id: str, **changes: object) -> Run:
    """Return a new run."""
    made = Run(
        run_id=run_id,
        name=f"{run_id}.csv",
        digest=f"digest of {run_id}",
        columns=["reference", "phone"],
        has_references=True,
        created_at=clock.now(),
        dialect={"delimiter": ";"},
    )
    return msgspec.structs.replace(made, **changes)


async def validated(journal: Journal, run_id: str, *chunks: Chunk, **changes: object) -> None:
    """Record a run and end its intake."""
    await journal.begin(run(run_id, **changes))
    await journal.add(run_id, chunks)
    await journal.seal(run_id)


async def approved(journal: Journal, run_id: str, *chunks: Chunk, **changes: object) -> None:
    """Record a run that may be paid."""
    await validated(journal, run_id, *chunks, **changes)
    assert await journal.approve(run_id)


async def dispatched(journal: Journal, run_id: str, lane: Lane = ORANGE) -> Dispatch:
    """Begin the first dispatch of a lane."""
    ready = await journal.ready(run_id, lane, 0, 1)
    return await journal.intend(ready[0])


async def sent(journal: Journal, run_id: str, receipt: Receipt, lane: Lane = ORANGE) -> Dispatch:
    """Send the first ready chunk of a lane, with one receipt for all."""
    dispatch = await dispatched(journal, run_id, lane)
    await journal.record(dispatch, [receipt])
    return dispatch


async def every(batches: AsyncIterator[Sequence[T]]) -> list[T]:
    """Return all items of all batches."""
    return [item async for batch in batches for item in batch]


async def replay(journal: Journal, run_id: str, after: int = 0) -> list[Outcome]:
    """Return all outcomes in the log."""
    return [outcome async for _, outcomes in journal.outcomes(run_id, after) for outcome in outcomes]


async def states(journal: Journal, run_id: str) -> dict[int, State]:
    """Return the state of each line."""
    return {entry.payout.line: entry.receipt.state for entry in await every(journal.entries(run_id))}


async def entry(journal: Journal, run_id: str, line: int) -> Entry:
    """Return one line."""
    return next(entry for entry in await every(journal.entries(run_id)) if entry.payout.line == line)


def said(duplicates: Sequence[Duplicate]) -> set[tuple[int, DuplicateKind, str, int, bool]]:
    """Return repeats as (line, kind, earlier run, earlier line, same run)."""
    return {(r.payout.line, r.kind, r.earlier_run_id, r.earlier_line, r.same_run) for r in duplicates}
