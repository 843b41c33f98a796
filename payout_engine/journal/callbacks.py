"""What providers called to say, kept until somebody has asked the provider about it. No payout moves by it.

A table beside the log: nothing is decided by it, so nothing proves it. Rows are few and short: those that wait are
bounded by the server that stores them, and of those that were acted on only the latest are kept, to know a repetition.
Functions over one connection, run in the writer's thread inside a transaction; see `ports.journal.CallbackJournal`.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from payout_engine.domain import clock
from payout_engine.domain.limits import CALLBACK_SECONDS_MAX, CALLBACKS_KEPT
from payout_engine.domain.states import LETTERS, State
from payout_engine.journal.db import every, row, value
from payout_engine.journal.ids import chunk_id_of, parse_key
from payout_engine.ports.callbacks import Heard
from payout_engine.ports.journal import StoredCallback

_SENDING = LETTERS[State.SENDING]
_heard = msgspec.json.Decoder(tuple[tuple[str, ...], tuple[str, ...]])


def store(db: apsw.Connection, account: str, digest: bytes, heard: Heard) -> bool:
    """Store a call once, if it may speak of a payout of the account."""
    if value(db, "SELECT 1 FROM callbacks WHERE digest = ?", (digest,)):
        return False
    ours = [key for key in dict.fromkeys(heard.keys) if _letter(db, key, account) is not None]
    if not ours and (heard.keys or not heard.references):
        return False
    text = msgspec.json.encode((ours, list(dict.fromkeys(heard.references)))).decode()
    db.execute(
        "INSERT INTO callbacks (digest, account, heard, stored_at) VALUES (?, ?, ?, ?)",
        (digest, account, text, clock.now()),
    )
    return True


def stored(db: apsw.Connection, account: str, limit: int, after: int) -> tuple[Sequence[StoredCallback], int]:
    """Return calls that wait, without those about payouts whose dispatch is still being spoken."""
    page = list(
        every(
            db,
            "SELECT callback_no, heard FROM callbacks WHERE account = ? AND waiting AND callback_no > ?"
            " ORDER BY callback_no LIMIT ?",
            (account, after, limit),
        )
    )
    found = [StoredCallback(number, _read(text)) for number, text in page]
    spoken = [one for one in found if all(_letter(db, key, account) != _SENDING for key in one.heard.keys)]
    return spoken, page[-1][0] if len(page) == limit else 0


def settle(db: apsw.Connection, numbers: Sequence[int]) -> None:
    """Mark calls as acted on, and forget what is too old to be of use."""
    db.executemany("UPDATE callbacks SET waiting = 0, heard = '' WHERE callback_no = ?", [(one,) for one in numbers])
    db.execute(
        "DELETE FROM callbacks WHERE NOT waiting AND callback_no <= (SELECT max(callback_no) FROM callbacks) - ?",
        (CALLBACKS_KEPT,),
    )
    # In the order in which they came, which is that of their times but for a clock that was set.
    db.execute(
        "DELETE FROM callbacks WHERE callback_no <"
        " (SELECT callback_no FROM callbacks WHERE stored_at >= ? ORDER BY callback_no LIMIT 1)",
        (clock.now() - CALLBACK_SECONDS_MAX,),
    )


def count(db: apsw.Connection, account: str, limit: int) -> int:
    """Return how many calls of an account wait, as far as `limit`."""
    query = "SELECT count(*) FROM (SELECT 1 FROM callbacks WHERE account = ? AND waiting LIMIT ?)"
    return int(value(db, query, (account, limit)))


def _letter(db: apsw.Connection, key: str, account: str) -> str | None:
    """Return where the payout of a key stands; None if it is none of this account."""
    parsed = parse_key(key)
    number = None if parsed is None else value(db, "SELECT run_no FROM runs WHERE token = ?", (parsed.token,))
    if parsed is None or number is None:
        return None
    query = "SELECT account, states FROM chunks JOIN progress USING (chunk_id) WHERE chunk_id = ?"
    found = row(db, query, (chunk_id_of(number, parsed.chunk_no),))
    if found is None or found[0] != account or parsed.index >= len(found[1]):
        return None
    return str(found[1][parsed.index])


def _read(text: str) -> Heard:
    """Return what a row says it speaks of. The table is proved by nothing, so what cannot be read speaks of nothing."""
    try:
        return Heard(*_heard.decode(text))
    except (msgspec.DecodeError, TypeError):
        return Heard()
