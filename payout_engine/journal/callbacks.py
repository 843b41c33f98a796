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
from payout_engine.domain.model import Query
from payout_engine.domain.states import LETTERS, State
from payout_engine.journal.db import every, row, value
from payout_engine.journal.dispatches import queries_of
from payout_engine.journal.ids import chunk_id_of, parse_key
from payout_engine.journal.transitions import chunk_rows
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
    found: list[StoredCallback] = []
    for number, text in page:
        heard = _read(text)
        letters = {key: _letter(db, key, account) for key in heard.keys}
        if _SENDING not in letters.values():
            ours = tuple(key for key, letter in letters.items() if letter is not None)
            found.append(StoredCallback(number, Heard(ours, heard.references)))
    return found, page[-1][0] if len(page) == limit else 0


def queries(db: apsw.Connection, account: str, keys: Sequence[str]) -> Sequence[Query]:
    """Return what to ask about payouts, by key."""
    chunks: dict[tuple[str, int], list[int]] = {}
    for key in dict.fromkeys(keys):
        parsed, chunk_id = parse_key(key), _chunk_of(db, key)
        if parsed is not None and chunk_id is not None:
            chunks.setdefault((parsed.token, chunk_id), []).append(parsed.index)
    found: list[Query] = []
    for (token, chunk_id), indexes in chunks.items():
        for chunk in chunk_rows(db, "chunk_id = ? AND account = ?", chunk_id, account):
            spoken = [index for index in indexes if index < len(chunk.states) and chunk.states[index] != _SENDING]
            found += queries_of(db, token, chunk, spoken)
    return found


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
    parsed, query = parse_key(key), "SELECT account, states FROM chunks JOIN progress USING (chunk_id)"
    found = row(db, f"{query} WHERE chunk_id = ?", (_chunk_of(db, key),))
    if parsed is None or found is None or found[0] != account or parsed.index >= len(found[1]):
        return None
    return str(found[1][parsed.index])


def _chunk_of(db: apsw.Connection, key: str) -> int | None:
    """Return the chunk that a key belongs to, if there is its run."""
    parsed = parse_key(key)
    number = None if parsed is None else value(db, "SELECT run_no FROM runs WHERE token = ?", (parsed.token,))
    return None if parsed is None or number is None else chunk_id_of(number, parsed.chunk_no)


def _read(text: str) -> Heard:
    """Return what a row says it speaks of. The table is proved by nothing, so what cannot be read speaks of nothing."""
    try:
        return Heard(*_heard.decode(text))
    except (msgspec.DecodeError, TypeError):
        return Heard()
