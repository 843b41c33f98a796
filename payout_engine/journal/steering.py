"""What people ask of a run from another process, and withdrawing what was never sent.

Functions over one connection, run in the writer's thread inside a transaction. `SqliteJournal` calls them; `withdrawn`
is the pure rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from payout_engine import clock
from payout_engine.errors import IllegalMoveError
from payout_engine.journal import log, rows
from payout_engine.journal.ask import every, value
from payout_engine.journal.changes import move, run_no
from payout_engine.journal.deciding import DECIDED
from payout_engine.journal.keys import chunk_range
from payout_engine.journal.verdict import CONTRADICTION
from payout_engine.lifecycle import State
from payout_engine.model import Choice, Lane, Outcome, Receipt, Request, RequestKind

CANCEL_NOTE = f"asked_{RequestKind.CANCEL}"
"""The kind of the remark that stays in the log when a person asked to cancel a run, also when that is done."""


def ask(db: apsw.Connection, run_id: str, request: Request) -> None:
    """Record what a person asks; see `Journal.ask`."""
    number, at = run_no(db, run_id), request.at or clock.now()
    db.execute(
        "INSERT OR REPLACE INTO requests (run_no, kind, who, why, at, heard) VALUES (?, ?, ?, ?, ?, 0)",
        (number, request.kind.value, request.who, request.why, at),
    )
    log.note(db, at, number, f"asked_{request.kind}", str(request))


def requests(db: apsw.Connection, run_id: str) -> Sequence[Request]:
    """Return what is asked and not yet done."""
    found = every(
        db,
        "SELECT kind, who, why, at, heard FROM requests JOIN runs USING (run_no) WHERE run_id = ? ORDER BY kind",
        (run_id,),
    )
    return [Request(RequestKind(kind), who, why, at, bool(heard)) for kind, who, why, at, heard in found]


def answer(db: apsw.Connection, run_id: str, kind: RequestKind, done: bool) -> None:
    """Mark a request as heard, or remove it."""
    query = (
        "DELETE FROM requests WHERE run_no = ? AND kind = ?"
        if done
        else "UPDATE requests SET heard = 1 WHERE run_no = ? AND kind = ?"
    )
    db.execute(query, (run_no(db, run_id), kind.value))


def cancel(db: apsw.Connection, run_id: str, request: Request, after: int, limit: int) -> tuple[Sequence[Outcome], int]:
    """Withdraw what was never sent; see `Journal.cancel`."""
    number, at = run_no(db, run_id), clock.now()
    if value(db, "SELECT approved_at FROM runs WHERE run_no = ?", (number,)) is None:
        raise IllegalMoveError(f"nobody approved run {run_id}, so there is nothing to withdraw")
    first, last = chunk_range(number)
    found = list(
        every(
            db,
            "SELECT chunk_id, account, lane, currency, payouts, states, receipts FROM chunks JOIN progress"
            " USING (chunk_id) WHERE (instr(states, 'r') > 0 OR instr(states, 'h') > 0) AND chunk_id BETWEEN ? AND ?"
            " ORDER BY chunk_id LIMIT ?",
            (max(first, after + 1), last, limit),
        )
    )
    outcomes: list[Outcome] = []
    for chunk_id, account, lane, currency, stored, letters, known in found:
        payouts, sent = rows.read_payouts(stored), _sent(db, chunk_id, len(letters))
        standing = map(rows.standing, letters, rows.read_receipts(known, len(letters)))
        indexes = [index for index, receipt in enumerate(standing) if withdrawn(receipt, sent=index in sent)]
        if indexes:
            receipt = receipt_of(request, at)
            persons = [log.Person(request.who, Choice.CANCEL, request.why)] * len(indexes)
            whole = len(indexes) == len(letters)
            receipts = [receipt] * len(indexes)
            move(db, chunk_id, receipts, None if whole else indexes, at, log.DECISION, persons=persons)
            lane_of = Lane(account, lane, currency)
            outcomes += [rows.outcome_of(run_id, lane_of, payouts[index], receipt) for index in indexes]
    return outcomes, found[-1][0] if len(found) == limit else 0


def cancelled(db: apsw.Connection, number: int) -> Request | None:
    """Return who last asked to cancel a run, also when that is done; None if nobody ever did."""
    query = (
        "SELECT body ->> 'text' FROM log WHERE run_no = ? AND kind = 'note' AND body ->> 'kind' = ? ORDER BY seq DESC"
    )
    text = value(db, f"{query} LIMIT 1", (number, CANCEL_NOTE))
    return None if text is None else _cancellation(text)


def _cancellation(text: str) -> Request:
    """Read what `ask` wrote down."""
    who, _, why = text.partition(": ")
    return Request(RequestKind.CANCEL, who, why)


def withdrawn(known: Receipt, *, sent: bool) -> bool:
    """Tell whether a payout can be withdrawn: no provider can have it.

    What is `ready` was never sent, or provably never arrived. What is `held` may be held because of what a provider
    showed, so nothing less than never having been sent will do.

    Args:
        known: where it stands.
        sent: whether it was ever on the wire.
    """
    if known.state is State.HELD:
        return not sent and known.reason != CONTRADICTION
    return known.state is State.READY


def receipt_of(request: Request, at: float) -> Receipt:
    """Return the receipt of a payout that a person withdrew."""
    return Receipt(State.CANCELLED, DECIDED, f"Withdrawn by {request}", at=at)


def _sent(db: apsw.Connection, chunk_id: int, count: int) -> set[int]:
    """Return which payouts of a chunk were ever on the wire."""
    stored = every(db, "SELECT indexes FROM dispatches WHERE chunk_id = ?", (chunk_id,))
    return {index for (indexes,) in stored for index in rows.read_indexes(indexes, count)}
