"""Asking again: sending unknown payouts once more under their keys, where the provider promises that a key pays once.

It may move money, if the first call was never heard. So it is written down before it leaves, like a dispatch, and
allowed only while it is certain that the provider still knows the key. `refusal`, `latest_of` and `resendable` are pure
rules, obeyed by the journal and by the proof; the rest carries it out in the file, in the writer's thread inside a
transaction. What comes back is a look-up result: see `lookups.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import apsw

from payout_engine.domain import clock
from payout_engine.domain.errors import IllegalMoveError
from payout_engine.domain.model import Dispatch, Lane, Receipt
from payout_engine.domain.states import LETTERS, State
from payout_engine.journal import codec, log
from payout_engine.journal.db import every, row, value
from payout_engine.journal.facts import cancelled
from payout_engine.journal.ids import chunk_range, provider_keys, run_no_of
from payout_engine.journal.transitions import chunk_rows, run_no
from payout_engine.ports.journal import ReadyChunk
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits

KEY_LIFE_SHARE = 0.5
"""How much of a key's documented life is used. The other half is for what no clock of ours sees: a call that lies on
the wire or at the provider before it is carried out, a provider that tidies up early, a clock that was set right."""

CLOCK_SLACK_SECONDS = 1.0
"""A clock that goes back by less than this was corrected, not set back; the unused half of a key's life covers it."""

CONTROLLED = "a person paused or cancelled this run, so nothing of it is sent again, not even to ask"
MOVED = "a payout of this chunk is no longer unknown, so it is not sent again to ask"
SET_BACK = (
    "The clock of this machine was set back since the run began, so nobody can say whether the provider still knows "
    "its keys. What is unknown is not sent again to ask; look-ups go on, and a person decides about the rest."
)

_UNKNOWN = LETTERS[State.UNKNOWN]


def refusal(promise: str, lifetime_seconds: float | None, first_sent_at: float | None, at: float) -> str:
    """Return why a payout may not be resent to ask, or an empty text.

    Args:
        promise: what the provider promises about the key.
        lifetime_seconds: how long that holds; None for without end.
        first_sent_at: when the payout was first sent under its key, whatever became of that; the provider can have
            known the key since then, and forget it so much earlier. None if it was never sent.
        at: the time, in seconds since 1970.
    """
    if promise != KeyPromise.IDEMPOTENT:
        return "the provider does not promise that a key pays once"
    if first_sent_at is None:
        return "it was never sent"
    if lifetime_seconds is not None and not 0 <= at - first_sent_at <= lifetime_seconds * KEY_LIFE_SHARE:
        return "the provider may have forgotten its key, or be about to"
    return ""


def latest_of(times: Iterable[float], latest: float = float("-inf")) -> float:
    """Return the latest of times that follow `latest` in this order, or infinity if the clock was ever set back.

    An age is a difference of two readings, and too small if the clock was set back between them.
    """
    for time in times:
        latest = max(latest, time) if time >= latest - CLOCK_SLACK_SECONDS else float("inf")
    return latest


def resendable(known: Receipt, first_sent_at: float | None, traits: Traits, before: float, at: float) -> bool:
    """Tell whether a payout may be asked about again, and has been unknown since `before`.

    What the provider gave a reference is known there, and a look-up says more of it than a repetition.
    """
    if known.state is not State.UNKNOWN or known.at > before:
        return False
    if known.provider_reference and traits.look_up is not LookUpKind.NONE:
        return False
    return not refusal(traits.key_promise, traits.key_lifetime_seconds, first_sent_at, at)


def resendable_chunks(
    db: apsw.Connection, run_id: str, lane: Lane, traits: Traits, before: float, after: int
) -> Iterator[ReadyChunk]:
    """Yield chunks with payouts that may be asked about again; see `Journal.resendable_chunks`."""
    number, at = run_no(db, run_id), clock.now()
    if _controlled(db, number):
        return
    token = value(db, "SELECT token FROM runs WHERE run_no = ?", (number,))
    first, last = chunk_range(number)
    for chunk in chunk_rows(
        db,
        "instr(states, 'u') > 0 AND chunk_id BETWEEN ? AND ? AND account = ? AND lane = ? AND currency = ?"
        " ORDER BY chunk_id",
        *(max(first, after + 1), last, lane.account, lane.name, lane.currency),
    ):
        chunk_id, sent = chunk.chunk_id, _first_sent(db, chunk.chunk_id, len(chunk.states))
        indexes = [i for i, known in enumerate(chunk.standing()) if resendable(known, sent.get(i), traits, before, at)]
        if indexes:
            payouts = codec.read_payouts(chunk.payouts)
            chosen = [payouts[index] for index in indexes]
            yield ReadyChunk(chunk_id, lane, indexes, chosen, provider_keys(token, chunk_id, indexes))


def intend_resend(db: apsw.Connection, chunk: ReadyChunk, traits: Traits) -> Dispatch:
    """Record that unknown payouts are about to be sent again; see `Journal.intend_resend`."""
    chunk_id, at, number = chunk.chunk_id, clock.now(), run_no_of(chunk.chunk_id)
    if _controlled(db, number):
        raise IllegalMoveError(CONTROLLED)
    states = value(db, "SELECT states FROM progress WHERE chunk_id = ?", (chunk_id,)) or ""
    if not chunk.indexes or any(states[index : index + 1] != _UNKNOWN for index in chunk.indexes):
        raise IllegalMoveError(MOVED)
    promise, lifetime_seconds = traits.key_promise, traits.key_lifetime_seconds
    sent = _first_sent(db, chunk_id, len(states))
    reasons = [why for i in chunk.indexes if (why := refusal(promise, lifetime_seconds, sent.get(i), at))]
    if reasons:
        raise IllegalMoveError(f"a payout may not be sent again to ask: {reasons[0]}")
    if lifetime_seconds is not None and at < latest_logged(db, number) - CLOCK_SLACK_SECONDS:
        raise IllegalMoveError(SET_BACK)
    indexes = codec.part(chunk.indexes, len(states))
    moment = clock.moment()
    entry = log.AskedAgain(promise, lifetime_seconds, indexes, moment.boot, moment.up_seconds)
    log.append(db, at, number, log.ASKED_AGAIN, codec.text(entry), chunk_id)
    last = value(db, "SELECT max(dispatch_id) FROM dispatches WHERE chunk_id = ?", (chunk_id,))
    return Dispatch(last, chunk_id, chunk.lane, chunk.indexes, chunk.payouts, chunk.keys)


def _first_sent(db: apsw.Connection, chunk_id: int, count: int) -> Mapping[int, float]:
    """Return when each payout of a chunk that was ever sent was sent first."""
    first: dict[int, float] = {}
    for stored, begun_at in every(db, "SELECT indexes, begun_at FROM dispatches WHERE chunk_id = ?", (chunk_id,)):
        for index in codec.read_indexes(stored, count):
            first[index] = min(begun_at, first.get(index, begun_at))
    return first


def latest_logged(db: apsw.Connection, number: int) -> float:
    """Return `latest_of` everything that was logged since a run was sealed, of all runs.

    The log is read once: how far it was read, and what came of it, is kept for as long as the journal is open.
    """
    seq, latest = row(db, "SELECT seq, latest FROM clock_read WHERE run_no = ?", (number,)) or (
        value(db, "SELECT min(seq) - 1 FROM log WHERE run_no = ?", (number,)) or 0,
        float("-inf"),
    )
    until = value(db, "SELECT max(seq) FROM log") or 0
    times = every(db, "SELECT at FROM log WHERE seq > ? AND seq <= ? ORDER BY seq", (seq, until))
    latest = latest_of((at for (at,) in times), latest)
    db.execute("INSERT OR REPLACE INTO clock_read (run_no, seq, latest) VALUES (?, ?, ?)", (number, until, latest))
    return latest


def _controlled(db: apsw.Connection, number: int) -> bool:
    """Tell whether a person paused a run, or ever asked to cancel it."""
    standing = value(db, "SELECT 1 FROM requests WHERE run_no = ?", (number,))
    return standing is not None or cancelled(db, number) is not None
