"""The log: what happened, in order, each entry sealed by the hash of the one before it.

Nothing is written before a run is sealed. From then on the entries of a run are enough to prove, by replay alone, that
no payout had a second dispatch without proof between, and that every state follows from a recorded receipt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import apsw
import msgspec

from payout_engine.domain.model import Receipt
from payout_engine.journal import codec
from payout_engine.journal.db import row, value
from payout_engine.ports.journal import Mark, OnWire

SEAL = "seal"
"""A run is validated: its name, its control totals and the digest of its payouts."""
HOLD = "hold"
APPROVE = "approve"
DISCARD = "discard"
INTENT = "intent"
"""A dispatch is about to be spoken."""
RECEIPTS = "receipts"
"""What became of a dispatch."""
RECOVER = "recover"
"""A dispatch was found unfinished after a crash."""
ASKED_AGAIN = "asked_again"
"""Unknown payouts are about to be sent again under their keys, which is a way of asking. They stay where they are."""
SIGHTING = "sighting"
"""A look-up, the answer to resending, or a contradiction in one of them, moved payouts."""
DECISION = "decision"
"""A person moved payouts, and said who and why."""
ANSWERED = "answered"
"""What a person asked of a run is done: its kind. The asking itself is a fact."""
FINISH = "finish"
NOTE = "note"
"""A remark for people, which nothing reads back."""
FACT = "fact"
"""What is decided by later; the body is one of `domain.facts.Fact`."""
CARRIED = "carried"
"""A fact that was told in remarks alone, in older journals; written when such a journal was brought up to date."""

ASIDE_KINDS = (NOTE, FACT, CARRIED, ANSWERED)
"""The entries that move nothing, and may stand anywhere, also before the seal."""

MOVED_KINDS = (HOLD, RECEIPTS, RECOVER, SIGHTING, DECISION)
"""The entries whose body is `Moved`."""

GENESIS = bytes(32)
"""The hash before the first entry."""


class Person(msgspec.Struct, frozen=True):
    """Who decided, what, and why: one for each payout of a decision."""

    who: str
    choice: str
    why: str


class Moved(msgspec.Struct, frozen=True):
    """Payouts of one chunk went to the states of these receipts.

    Attributes:
        receipts: one for each payout, or one that stands for all.
        indexes: which payouts; None for the whole chunk.
        dispatch: the dispatch that ended with this, or None.
        persons: of a decision, who decided each payout; otherwise empty.
        on_wire: what of the dispatch may have left this machine, as in `ports.journal.OnWire`.
    """

    receipts: Sequence[Receipt]
    indexes: Sequence[int] | None = None
    dispatch: int | None = None
    persons: Sequence[Person] = ()
    on_wire: bool | Sequence[int] = True


class Approval(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody said yes to a run.

    Attributes:
        approved_no: counts approvals over all runs.
        former_accounts: whether lines of it may have been sent before, by earlier runs that count them as unpaid.
            Stored as `formerly`.
    """

    approved_no: int
    former_accounts: bool = msgspec.field(default=False, name="formerly")


class Intent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A dispatch of payouts of one chunk began.

    Attributes:
        dispatch: its number.
        indexes: which payouts; None for the whole chunk.
        boot: of the moment, as in `clock.Moment`; None in entries that are older than this field.
        up_seconds: likewise.
    """

    dispatch: int
    indexes: Sequence[int] | None = None
    boot: str | None = None
    up_seconds: float | None = None


class AskedAgain(msgspec.Struct, frozen=True, omit_defaults=True):
    """Payouts of one chunk are sent again under their keys; None for the whole chunk.

    Attributes:
        promise: what was relied upon: the provider's promise about the key, as in `ports.KeyPromise`.
        lifetime_seconds: how long that holds; None for without end.
        indexes: which payouts; None for the whole chunk.
        boot: of the moment, as in `clock.Moment`.
        up_seconds: likewise.
    """

    promise: str
    lifetime_seconds: float | None
    indexes: Sequence[int] | None = None
    boot: str = ""
    up_seconds: float = 0.0


class Note(msgspec.Struct, frozen=True):
    """A remark for people. `kind` is free."""

    kind: str
    text: str


class AskedRemark(Note, frozen=True):
    """How older journals told that a person asked something of a run; who and why are None in the oldest of these."""

    who: str | None = None
    why: str | None = None


class Answered(msgspec.Struct, frozen=True):
    """The body of an `answered` entry: what was asked, as in `model.RequestKind`."""

    kind: str


class _StoredMoved(msgspec.Struct, frozen=True, omit_defaults=True):
    """`Moved` as it is stored. Entries of format 4 and older have an array for each receipt."""

    receipts: codec.ReceiptColumns | list[Receipt]
    indexes: Sequence[int] | None = None
    dispatch: int | None = None
    persons: Sequence[Person] = ()
    on_wire: bool | Sequence[int] = True


_moved = msgspec.json.Decoder(_StoredMoved)

read_approval = msgspec.json.Decoder(Approval).decode
read_intent = msgspec.json.Decoder(Intent).decode
read_asked_again = msgspec.json.Decoder(AskedAgain).decode


def read_moved(body: str) -> Moved:
    """Return the body of an entry of `MOVED_KINDS`."""
    stored = _moved.decode(body)
    receipts = stored.receipts if isinstance(stored.receipts, list) else codec.receipts_of(stored.receipts)
    return Moved(receipts, stored.indexes, stored.dispatch, stored.persons, stored.on_wire)


def moved_text(moved: Moved, receipts: codec.ReceiptColumns) -> str:
    """Return the body of an entry of `MOVED_KINDS`, given its receipts by column."""
    return codec.text(_StoredMoved(receipts, moved.indexes, moved.dispatch, moved.persons, moved.on_wire))


def unspoken(indexes: Sequence[int], on_wire: OnWire) -> Sequence[int]:
    """Return which payouts of a dispatch provably never left this machine."""
    if isinstance(on_wire, bool):
        return () if on_wire else indexes
    return [index for index in indexes if index not in on_wire]


def chained(before: bytes, at: float, run_no: int, chunk_id: int | None, kind: str, body: str) -> bytes:
    """Return the hash of an entry that follows the entry with the hash `before`."""
    text = f"{at!r}|{run_no}|{'' if chunk_id is None else chunk_id}|{kind}|{body}"
    return hashlib.sha256(before + text.encode()).digest()


def append(db: apsw.Connection, at: float, run_no: int, kind: str, body: str, chunk_id: int | None = None) -> int:
    """Add an entry and return its number. The last hash is read each time: another process may have written since."""
    before = value(db, "SELECT hash FROM log ORDER BY seq DESC LIMIT 1") or GENESIS
    db.execute(
        "INSERT INTO log (at, run_no, chunk_id, kind, body, hash) VALUES (?, ?, ?, ?, ?, ?)",
        (at, run_no, chunk_id, kind, body, chained(before, at, run_no, chunk_id, kind, body)),
    )
    return db.last_insert_rowid()


def mark(db: apsw.Connection, seq: int | None = None) -> Mark | None:
    """Return the last entry, or the one with a number; see `Journal.mark`.

    A journal is known by the hash of its first entry, which seals the random token of its first run: every copy has it,
    no other journal does, and `verify` has it among what it proves.
    """
    where, bindings = ("ORDER BY seq DESC LIMIT 1", ()) if seq is None else ("WHERE seq = ?", (seq,))
    found = row(db, f"SELECT seq, hash, at FROM log {where}", bindings)  # noqa: S608
    if found is None:
        return None
    identity = value(db, "SELECT hash FROM log ORDER BY seq LIMIT 1")
    return Mark(identity.hex(), found[0], found[1].hex(), found[2])


def note(db: apsw.Connection, at: float, run_no: int, kind: str, text: str, chunk_id: int | None = None) -> None:
    """Add a remark for people."""
    append(db, at, run_no, NOTE, msgspec.json.encode(Note(kind, text)).decode(), chunk_id)
