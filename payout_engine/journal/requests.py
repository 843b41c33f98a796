"""What people ask of a run from another process, and withdrawing what was never sent.

Functions over one connection, run in the writer's thread inside a transaction. `SqliteJournal` calls them; `withdrawn`
is the pure rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from payout_engine.domain import clock
from payout_engine.domain.errors import IllegalMoveError
from payout_engine.domain.facts import Asked
from payout_engine.domain.model import Choice, ControlKind, ControlRequest, Outcome, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import codec, log
from payout_engine.journal.db import every, value
from payout_engine.journal.decisions import DECIDED
from payout_engine.journal.ids import chunk_range
from payout_engine.journal.rules import CONTRADICTION
from payout_engine.journal.transitions import chunk_rows, move, once_sent, run_no

ONCE_SENT_REASON = "sent_before"
ONCE_SENT = (
    "It was sent before, so the provider may have it and it cannot be withdrawn: ask the provider, then say failed or "
    "paid."
)
"""What is said of a payout that waited to be sent again when its run was cancelled."""


def ask(db: apsw.Connection, run_id: str, request: ControlRequest) -> None:
    """Record what a person asks; see `Journal.request`."""
    number, at = run_no(db, run_id), request.at or clock.now()
    db.execute(
        "INSERT OR REPLACE INTO requests (run_no, kind, who, why, at, heard) VALUES (?, ?, ?, ?, ?, 0)",
        (number, request.kind.value, request.who, request.why, at),
    )
    log.append(db, at, number, log.FACT, codec.text(Asked(request)))


def requests(db: apsw.Connection, run_id: str) -> Sequence[ControlRequest]:
    """Return what is asked and not yet done."""
    found = every(
        db,
        "SELECT kind, who, why, at, heard FROM requests JOIN runs USING (run_no) WHERE run_id = ? ORDER BY kind",
        (run_id,),
    )
    return [ControlRequest(ControlKind(kind), who, why, at, bool(heard)) for kind, who, why, at, heard in found]


def answer(db: apsw.Connection, run_id: str, kind: ControlKind, done: bool) -> None:
    """Mark a request as heard; or remove it, which the log tells from a request that somebody took out of the table."""
    number = run_no(db, run_id)
    if not done:
        db.execute("UPDATE requests SET heard = 1 WHERE run_no = ? AND kind = ?", (number, kind.value))
        return
    db.execute("DELETE FROM requests WHERE run_no = ? AND kind = ?", (number, kind.value))
    if db.changes():
        log.append(db, clock.now(), number, log.ANSWERED, codec.text(log.Answered(kind.value)))


def cancel(
    db: apsw.Connection, run_id: str, request: ControlRequest, after: int, limit: int
) -> tuple[Sequence[Outcome], int]:
    """Withdraw what was never sent; see `Journal.cancel`."""
    number, at = run_no(db, run_id), clock.now()
    if value(db, "SELECT approved_at FROM runs WHERE run_no = ?", (number,)) is None:
        raise IllegalMoveError(f"nobody approved run {run_id}, so there is nothing to withdraw")
    first, last = chunk_range(number)
    waiting = (
        "(instr(states, 'r') > 0 OR instr(states, 'h') > 0) AND chunk_id BETWEEN ? AND ? ORDER BY chunk_id LIMIT ?"
    )
    found = list(chunk_rows(db, waiting, max(first, after + 1), last, limit))
    outcomes: list[Outcome] = []
    for chunk in found:
        chunk_id, payouts = chunk.chunk_id, codec.read_payouts(chunk.payouts)
        sent = once_sent(db, chunk_id, len(payouts))
        receipts = {
            index: receipt
            for index, known in enumerate(chunk.standing())
            if (receipt := withdrawal(known, request, at, sent=index in sent)) is not None
        }
        if receipts:
            persons = [log.Person(request.who, Choice.CANCEL, request.why)] * len(receipts)
            indexes = codec.part(list(receipts), len(payouts))
            moved = log.Moved(list(receipts.values()), indexes, persons=persons)
            seq = move(db, chunk_id, moved, at, log.DECISION)
            for index, one in receipts.items():
                outcomes.append(codec.outcome_of(run_id, chunk.lane, payouts[index], one, seq))
    return outcomes, found[-1].chunk_id if len(found) == limit else 0


def withdrawal(known: Receipt, request: ControlRequest, at: float, *, sent: bool) -> Receipt | None:
    """Return what becomes of a payout when its run is cancelled, or None if it stays as it is.

    `cancelled` means that no provider can have it. What was ever on the wire is never withdrawn, whatever was said of
    it since: it waits for a person, who asks the provider.

    Args:
        known: where it stands.
        request: who cancels, and why.
        at: when.
        sent: whether it was ever on the wire.
    """
    if known.state is State.READY and sent:
        message = f"{ONCE_SENT} Cancelled by {request}."
        return Receipt(State.HELD, ONCE_SENT_REASON, message, known.provider_reference, at)
    if known.state is State.READY or (known.state is State.HELD and not sent and known.reason != CONTRADICTION):
        return Receipt(State.CANCELLED, DECIDED, f"Withdrawn by {request}", at=at)
    return None
