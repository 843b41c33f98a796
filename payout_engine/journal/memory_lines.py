"""What the journal in memory is made of: lines with all that is known of them, and runs; and how lines are compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from payout_engine.clock import Moment
from payout_engine.errors import IllegalMoveError
from payout_engine.journal.fresh import payee
from payout_engine.journal.keys import split_position
from payout_engine.journal.rows import outcome_of
from payout_engine.journal.steering import cancelled_by
from payout_engine.lifecycle import UNPAID, State
from payout_engine.model import (
    Lane,
    Outcome,
    Payout,
    Query,
    Receipt,
    RepeatKind,
    Request,
    RequestKind,
    Run,
    RunState,
    Step,
)
from payout_engine.ports import ReadyChunk


class Line(msgspec.Struct):
    """One payout with all that is known of it."""

    position: int
    payout: Payout
    row: Sequence[str]
    lane: Lane
    key: str
    receipt: Receipt
    sent: Moment | None = None
    first_sent_at: float | None = None
    steps: list[Step] = []


class RunLines(msgspec.Struct):
    """One run with its lines, by position."""

    run: Run
    number: int
    token: str
    lines: dict[int, Line] = {}
    chunks: int = 0
    sealed_no: int = 0
    approved_no: int = 0
    compared: int | None = None
    events: list[tuple[int, Sequence[Outcome]]] = []
    notes: list[tuple[float, str, str]] = []
    requests: dict[RequestKind, Request] = {}


def require(run: RunLines, state: RunState) -> None:
    """Raise IllegalMoveError unless a run is in `state`."""
    if run.run.state is not state:
        raise IllegalMoveError(f"run {run.run.run_id} is {run.run.state}, not {state}")


def in_chunks(lines: Iterable[Line], lane: Lane, after: int, limit: int) -> Sequence[ReadyChunk]:
    """Return the lines of a lane as chunks, in order: up to `limit` of those with chunk ids above `after`."""
    chunks: dict[int, list[Line]] = {}
    for line in lines:
        chunk_id = split_position(line.position)[0]
        if line.lane == lane and chunk_id > after:
            chunks.setdefault(chunk_id, []).append(line)
    return [
        ReadyChunk(
            chunk_id,
            lane,
            [split_position(line.position)[1] for line in chunks[chunk_id]],
            [line.payout for line in chunks[chunk_id]],
            [line.key for line in chunks[chunk_id]],
        )
        for chunk_id in sorted(chunks)[:limit]
    ]


def open_queries(run: RunLines, account: str, limit: int, after: int) -> tuple[Sequence[Query], int]:
    """Return what to ask about the open lines of an account; see `Journal.open_queries`."""
    found = [
        line
        for position, line in sorted(run.lines.items())
        if line.receipt.state in (State.ACCEPTED, State.UNKNOWN) and line.lane.account == account and position > after
    ][:limit]
    queries = [
        Query(line.key, line.receipt.provider_reference, line.receipt.state, line.sent, line.payout)
        for line in found
        if line.sent is not None
    ]
    return queries, found[-1].position if len(queries) == limit else 0


def steered(run: RunLines) -> bool:
    """Tell whether a person paused a run, or ever asked to cancel it."""
    return bool(run.requests) or cancelled_by(run.notes) is not None


def outcome(run: RunLines, line: Line, seq: int) -> Outcome:
    """Return what to tell the caller about a line."""
    return outcome_of(run.run.run_id, line.lane, line.payout, line.receipt, seq)


def alike(run: RunLines, line: Line, kind: RepeatKind) -> list[Line]:
    """Return the payouts of a run that say the same as `line` and may yet be paid, lowest line first."""
    found = [
        other
        for other in run.lines.values()
        if other.receipt.state not in UNPAID and _says(other.payout, kind) == _says(line.payout, kind)
    ]
    return sorted(found, key=lambda other: (other.payout.line, other.position))


def _says(payout: Payout, kind: RepeatKind) -> str:
    return payout.reference if kind is RepeatKind.REFERENCE else payee(payout)
