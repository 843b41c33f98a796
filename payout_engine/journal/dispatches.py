"""The journal's side of payment: what is ready, the intent before a dispatch, and what became of it.

Functions over one connection, run in the writer's thread inside a transaction. `SqliteJournal` calls them. Look-ups
are in `lookups.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import apsw

from payout_engine.domain import clock
from payout_engine.domain.errors import IllegalMoveError
from payout_engine.domain.model import Dispatch, Lane, Outcome, Query, Receipt, RunState
from payout_engine.domain.states import LETTERS, STATES_BY_LETTER, State
from payout_engine.domain.states import move as checked_move
from payout_engine.journal import codec, log, resends
from payout_engine.journal.db import every, only, value
from payout_engine.journal.ids import chunk_range, position_of, provider_keys, run_no_of, split_position
from payout_engine.journal.last_sent import last_sent
from payout_engine.journal.transitions import ChunkRow, chunk_rows, move, once_sent, run_no
from payout_engine.ports.journal import OnWire, Ready, ReadyChunk

_READY, _SENDING = LETTERS[State.READY], LETTERS[State.SENDING]
_ASKABLE = (LETTERS[State.ACCEPTED], LETTERS[State.UNKNOWN])


def recover(db: apsw.Connection, run_id: str) -> Sequence[Outcome]:
    """Make every unfinished dispatch of a run unknown; see `Journal.recover`."""
    number, at = run_no(db, run_id), clock.now()
    receipts = codec.stamped([codec.INTERRUPTED], at)
    outcomes: list[Outcome] = []
    unfinished = list(
        every(
            db,
            "SELECT dispatch_id, chunk_id, indexes, account, lane, currency, payouts FROM dispatches"
            " JOIN chunks USING (chunk_id) WHERE ended_at IS NULL AND chunk_id BETWEEN ? AND ? ORDER BY dispatch_id",
            chunk_range(number),
        )
    )
    for dispatch_id, chunk_id, stored, account, lane, currency, payouts in unfinished:
        paid_to = codec.read_payouts(payouts)
        indexes = None if stored is None else codec.read_indexes(stored, len(paid_to))
        db.execute("UPDATE dispatches SET ended_at = ? WHERE dispatch_id = ?", (at, dispatch_id))
        seq = move(db, chunk_id, log.Moved(receipts, indexes, dispatch_id), at, log.RECOVER)
        outcomes += [
            codec.outcome_of(run_id, Lane(account, lane, currency), paid_to[index], receipts[0], seq)
            for index in codec.read_indexes(stored, len(paid_to))
        ]
    return outcomes


def ready(db: apsw.Connection, run_id: str, lane: Lane, after: int, limit: int) -> Sequence[ReadyChunk]:
    """Return chunks with ready payouts; see `Journal.ready`."""
    token = value(db, "SELECT token FROM runs WHERE run_no = ?", (run_no(db, run_id),))
    found = _ready_rows(db, run_id, lane, after, limit)
    return [_ready(chunk_id, lane, token, states, payouts) for chunk_id, states, payouts in found]


def ready_amounts(
    db: apsw.Connection, run_id: str, lane: Lane, after: int, limit: int
) -> Sequence[tuple[int, Sequence[int]]]:
    """Return the amounts of chunks with ready payouts; see `Journal.ready_amounts`."""
    found = _ready_rows(db, run_id, lane, after, limit)
    return [(chunk_id, _ready_only(payouts, states)) for chunk_id, states, payouts in found]


def _ready_only(payouts: str, states: str) -> list[int]:
    (amounts,) = codec.read_fields(payouts, "amount_minor")
    if states == _READY * len(states):
        return amounts
    return [amount for amount, letter in zip(amounts, states, strict=True) if letter == _READY]


def _ready_rows(db: apsw.Connection, run_id: str, lane: Lane, after: int, limit: int) -> Iterable[tuple[int, str, str]]:
    """Return id, states and payouts of chunks with ready payouts, in order."""
    first, last = chunk_range(run_no(db, run_id))
    return every(
        db,
        "SELECT chunk_id, states, payouts FROM progress JOIN chunks USING (chunk_id) WHERE instr(states, 'r') > 0"
        " AND chunk_id BETWEEN ? AND ? AND account = ? AND lane = ? AND currency = ? ORDER BY chunk_id LIMIT ?",
        (max(first, after + 1), last, lane.account, lane.name, lane.currency, limit),
    )


def _ready(chunk_id: int, lane: Lane, token: str, states: str, stored: str) -> ReadyChunk:
    payouts = codec.read_payouts(stored)
    indexes: Sequence[int] = range(len(states))
    if states != _READY * len(states):
        indexes = [index for index, letter in enumerate(states) if letter == _READY]
        payouts = [payouts[index] for index in indexes]
    return ReadyChunk(chunk_id, lane, indexes, payouts, provider_keys(token, chunk_id, indexes))


def intend(db: apsw.Connection, chunk: ReadyChunk) -> Dispatch:
    """Record that payouts are about to be sent; see `Journal.intend`."""
    chunk_id, at = chunk.chunk_id, clock.now()
    number = run_no_of(chunk_id)
    state = value(db, "SELECT state FROM runs WHERE run_no = ?", (number,))
    if state not in (RunState.PAYING, RunState.FINISHED):
        raise IllegalMoveError("nobody approved this run, so nothing of it may be sent")
    states = value(db, "SELECT states FROM progress WHERE chunk_id = ?", (chunk_id,)) or ""
    if not chunk.indexes or any(states[index : index + 1] != _READY for index in chunk.indexes):
        raise IllegalMoveError("a payout of this chunk is no longer ready, so the chunk may not be sent")
    indexes = codec.part(chunk.indexes, len(states))
    _, boot, up_seconds = clock.moment()
    db.execute(
        "INSERT INTO dispatches (chunk_id, indexes, begun_at, boot, up_seconds) VALUES (?, ?, ?, ?, ?)",
        (chunk_id, None if indexes is None else codec.text(indexes), at, boot, up_seconds),
    )
    dispatch_id = db.last_insert_rowid()
    _set_sending(db, chunk_id, states, indexes, at)
    entry = log.Intent(dispatch_id, indexes, boot, up_seconds)
    log.append(db, at, number, log.INTENT, codec.text(entry), chunk_id)
    if state == RunState.FINISHED:
        db.execute("UPDATE runs SET state = 'paying', finished_at = NULL WHERE run_no = ?", (number,))
    return Dispatch(dispatch_id, chunk_id, chunk.lane, chunk.indexes, chunk.payouts, chunk.keys)


def _set_sending(db: apsw.Connection, chunk_id: int, states: str, indexes: Sequence[int] | None, at: float) -> None:
    """Move payouts to sending, of which there is nothing to tell: what was said of an earlier attempt is in the log."""
    receipts = None
    if indexes is None:
        states = _SENDING * len(states)
    else:
        stored = value(db, "SELECT receipts FROM progress WHERE chunk_id = ?", (chunk_id,))
        known, letters = list(codec.read_receipts(stored, len(states))), list(states)
        for index in indexes:
            known[index], letters[index] = None, _SENDING
        states, receipts = "".join(letters), codec.receipts_text(known)
    db.execute(
        "UPDATE progress SET states = ?, receipts = ?, updated_at = ? WHERE chunk_id = ?",
        (states, receipts, at, chunk_id),
    )


def record(
    db: apsw.Connection, dispatch: Dispatch, receipts: Sequence[Receipt], *, on_wire: OnWire
) -> Sequence[Outcome]:
    """Record what became of a dispatch; see `Journal.record`."""
    at, chunk_id = clock.now(), dispatch.chunk_id
    receipts = codec.stamped(receipts, at)
    everyone = codec.each(receipts, len(dispatch.payouts))
    for state in {receipt.state for receipt in receipts}:
        if state is State.SENDING:
            raise IllegalMoveError("a receipt cannot leave a payout sending")
        checked_move(State.SENDING, state)
    said = dict(zip(dispatch.indexes, everyone, strict=True))
    if any(said[index].state is not State.READY for index in log.unspoken(dispatch.indexes, on_wire)):
        raise IllegalMoveError("what never left this machine can only be ready again")
    _end(db, dispatch, at, on_wire=on_wire)
    of = value(db, "SELECT length(states) FROM progress WHERE chunk_id = ?", (chunk_id,))
    moved = log.Moved(receipts, codec.part(dispatch.indexes, of), dispatch.dispatch_id, on_wire=on_wire)
    seq = move(db, chunk_id, moved, at, log.RECEIPTS)
    run_id = value(db, "SELECT run_id FROM runs WHERE run_no = ?", (run_no_of(chunk_id),))
    return [
        codec.outcome_of(run_id, dispatch.lane, payout, receipt, seq)
        for payout, receipt in zip(dispatch.payouts, everyone, strict=True)
    ]


def _end(db: apsw.Connection, dispatch: Dispatch, at: float, *, on_wire: OnWire) -> None:
    spoken = None if isinstance(on_wire, bool) else codec.text(on_wire)
    db.execute(
        "UPDATE dispatches SET ended_at = ?, on_wire = ?, spoken = ? WHERE dispatch_id = ? AND chunk_id = ?"
        " AND ended_at IS NULL",
        (at, bool(on_wire), spoken, dispatch.dispatch_id, dispatch.chunk_id),
    )
    if db.changes() != 1:
        raise IllegalMoveError("what became of this dispatch is already recorded")


def open_queries(
    db: apsw.Connection, run_id: str, account: str, limit: int, after: int, *, ready: Ready | None = None
) -> tuple[Sequence[Query], int]:
    """Return open payouts to ask about; see `Journal.open_queries`."""
    letters = (*_ASKABLE, _READY) if ready is not None else _ASKABLE
    number = run_no(db, run_id)
    token = value(db, "SELECT token FROM runs WHERE run_no = ?", (number,))
    first, last = chunk_range(number)
    queries: list[Query] = []
    # In these words, SQLite answers the usual question from an index of what is open.
    having = "(instr(states, 'a') > 0 OR instr(states, 'u') > 0)"
    having = f"({having} OR {_WAITING[ready]})" if ready is not None else having
    for chunk in chunk_rows(
        db,
        f"{having} AND chunk_id BETWEEN ? AND ? AND account = ? ORDER BY chunk_id",
        *(max(first, split_position(after)[0]), last, account),
    ):
        start = after - position_of(chunk.chunk_id, 0) + 1
        indexes = [index for index, letter in enumerate(chunk.states) if letter in letters and index >= start]
        if ready is Ready.ONCE_SENT:
            sent = once_sent(db, chunk.chunk_id, len(chunk.states))
            indexes = [index for index in indexes if chunk.states[index] != _READY or index in sent]
        indexes = indexes[: limit - len(queries)]
        queries += queries_of(db, token, chunk, indexes)
        if len(queries) == limit:
            return queries, position_of(chunk.chunk_id, indexes[-1])
    return queries, 0


_WAITING = {
    Ready.ALL: "instr(states, 'r') > 0",
    Ready.ONCE_SENT: "instr(states, 'r') > 0 AND chunk_id IN (SELECT chunk_id FROM dispatches)",
}


def open_since(db: apsw.Connection, run_id: str, account: str) -> float | None:
    """Return when the oldest call with an open payout was begun; see `Journal.open_since`."""
    first, last = chunk_range(run_no(db, run_id))
    # The first words are those of the index of what is open.
    begun_at: float | None = value(
        db,
        "SELECT min(begun_at) FROM progress JOIN chunks USING (chunk_id) JOIN dispatches USING (chunk_id)"
        " WHERE (instr(states, 'a') > 0 OR instr(states, 'u') > 0) AND chunk_id BETWEEN ? AND ? AND account = ?",
        (first, last, account),
    )
    return begun_at


def may_be_sent_since(db: apsw.Connection, run_id: str) -> float | None:
    """Return since when lines of a run may have been sent; see `Journal.may_be_sent_since`."""
    number = run_no(db, run_id)
    source, earliest = only(db, "SELECT max(source), min(position) FROM formerly WHERE run_no = ?", (number,))
    earliest = number if earliest is None else run_no_of(split_position(earliest)[0])
    approved = value(db, "SELECT body FROM log WHERE run_no = ? AND kind = 'approve' ORDER BY seq LIMIT 1", (number,))
    if approved is not None and log.read_approval(approved).former_accounts:
        return None  # Approved by another process, which alone knew what it was compared with.
    if source or clock.now() < resends.latest_logged(db, earliest) - resends.CLOCK_SLACK_SECONDS:
        return None
    begun_at: float = value(
        db, "SELECT min(created_at) FROM runs WHERE run_no >= ? AND run_no <= ?", (earliest, number)
    )
    return begun_at


def queries_of(db: apsw.Connection, token: str, chunk: ChunkRow, indexes: Sequence[int]) -> list[Query]:
    """Return what to ask about payouts of a chunk. What was never sent has no age."""
    if not indexes:
        return []
    never, standing, payouts = clock.moment(), chunk.standing(), codec.read_payouts(chunk.payouts)
    sent = last_sent(db, chunk.chunk_id, len(chunk.states))
    return [
        Query(
            key=key,
            provider_reference=standing[index].provider_reference,
            state=STATES_BY_LETTER[chunk.states[index]],
            sent=sent.get(index, never),
            payout=payouts[index],
        )
        for index, key in zip(indexes, provider_keys(token, chunk.chunk_id, indexes), strict=True)
    ]


def finish(db: apsw.Connection, run_id: str) -> None:
    """Mark a run finished; see `Journal.finish`."""
    number, at = run_no(db, run_id), clock.now()
    state = value(db, "SELECT state FROM runs WHERE run_no = ?", (number,))
    if state not in (RunState.PAYING, RunState.FINISHED):
        raise IllegalMoveError(f"run {run_id} is {state}, so it cannot be finished")
    db.execute("UPDATE runs SET state = 'finished', finished_at = ? WHERE run_no = ?", (at, number))
    log.append(db, at, number, log.FINISH, "{}")
