"""The sandbox's truth: which credits exist, what became of each, and what the Credit accounts hold.

A SQLite file, so that it outlives the process that serves it, or memory. Nothing runs in the background: what time
brings about (delivery, cancellation, expiry) is worked out when somebody looks. Tests read it to learn whether money
moved twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from payout_engine.domain import clock
from payout_engine.providers._sandbox import NEVER, LedgerFile

STATUS_UNDOCUMENTED = "in_review"
"""A status word that the document does not list, for the credits that get one."""

_SCHEMA = """
create table if not exists credits (
    id integer primary key, uuid text not null unique, account text not null, partner_credit_id text,
    name text not null, description text not null, amount_minor integer not null, currency text not null,
    customer_email text not null, expiration_date text, callback_url text, fate text not null,
    status text not null default 'processing_delivery', usage_minor integer not null default 0,
    due_at real not null, expires_at real not null, visible_at real not null,
    cancelled integer not null default 0, moved integer not null default 0,
    unique (account, partner_credit_id)
);
create index if not exists credits_due on credits (due_at);
create index if not exists credits_expiring on credits (expires_at);
create table if not exists balances (currency text primary key, available_minor integer not null);
"""


class Fate(StrEnum):
    """What becomes of a credit, decided when it is made."""

    SUCCEEDS = "succeeds"
    FAILS = "fails"  # at its delivery
    STAYS_PROCESSING = "stays_processing"  # for ever
    REFUSED = "refused"  # 400, and no credit is made
    SETTLES_LATE = "settles_late"
    UNDOCUMENTED_STATUS = "undocumented_status"  # settles with a word nobody documented
    NOT_SHOWN = "not_shown"  # delivered, and no look-up shows it
    RETURNED = "returned"  # delivered, and expired unspent at once
    PARTLY_RETURNED = "partly_returned"  # delivered, half spent, and expired at once
    KEPT = "kept"  # delivered; whether cancelled or expired, that fails


class StoredCredit(msgspec.Struct, frozen=True):
    """A credit as the ledger holds it: its columns, in their order. Times are in seconds since 1970.

    Attributes:
        due_at: when what is being processed is done.
        visible_at: when look-ups begin to show it.
        cancelled: 1 once somebody asked to cancel it.
        moved: 1 once it was delivered.
    """

    id: int
    uuid: str
    account: str
    partner_credit_id: str | None
    name: str
    description: str
    amount_minor: int
    currency: str
    customer_email: str
    expiration_date: str | None
    callback_url: str | None
    fate: str
    status: str
    usage_minor: int
    due_at: float
    expires_at: float
    visible_at: float
    cancelled: int
    moved: int


class Ledger(LedgerFile):
    """Open or create a ledger.

    Args:
        path: the file, or None for memory.
        balances: minor units by currency at first; ignored by a ledger that already has balances.
    """

    def __init__(self, path: Path | None, balances: Mapping[str, int]) -> None:
        super().__init__(path, _SCHEMA)
        self._connection.executemany("insert or ignore into balances values (?, ?)", list(balances.items()))

    # -- what the API does

    def add(self, fields: Mapping[str, str | float | None]) -> StoredCredit | None:
        """Make a credit from its columns; None where its Credit account knows its partner_credit_id already."""
        columns = ", ".join(fields)
        marks = ", ".join("?" * len(fields))
        known = self._connection.execute(
            f"insert or ignore into credits ({columns}) values ({marks}) returning id",  # noqa: S608 - our own names
            tuple(fields.values()),
        ).get
        return None if known is None else self._one("id = ?", known)

    def fetch(self, account: str, uuid: str) -> StoredCredit | None:
        """Return a credit by the provider's id, if it is shown by now."""
        return self._shown("account = ? and uuid = ?", account, uuid)

    def find(self, account: str, partner_credit_id: str) -> StoredCredit | None:
        """Return a credit by the partner's id, if it is shown by now."""
        return self._shown("account = ? and partner_credit_id = ?", account, partner_credit_id)

    def current(self, uuid: str) -> StoredCredit | None:
        """Return a credit as it is now, whether look-ups show it or not."""
        self._advance()
        return self._one("uuid = ?", uuid)

    def cancel(self, uuid: str, due_at: float) -> StoredCredit | None:
        """Begin to cancel a delivered credit; None if it is not delivered."""
        self._advance()
        self._connection.execute(
            "update credits set status = 'processing_cancellation', cancelled = 1, due_at = ?"
            " where uuid = ? and status = 'delivered'",
            (due_at, uuid),
        )
        changed = self._connection.changes()
        return self._one("uuid = ?", uuid) if changed else None

    def _shown(self, where: str, *values: str) -> StoredCredit | None:
        self._advance()
        found = self._one(where, *values)
        return found if found is not None and found.visible_at <= clock.now() else None

    def _one(self, where: str, *values: str | float) -> StoredCredit | None:
        return next(iter(self._all(where, *values)), None)

    # -- what time does

    def _advance(self) -> None:
        """Deliver, cancel and expire what is due, in the order of its time."""
        at = clock.now()
        with self._connection:
            for credit in self._all("status = 'processing_delivery' and due_at <= ? order by due_at, id", at):
                self._deliver(credit)
            for credit in self._all("status = 'processing_cancellation' and due_at <= ?", at):
                self._take_back(credit, "cancelled", "cancellation_failed")
            for credit in self._all("status = 'delivered' and expires_at <= ?", at):
                self._take_back(credit, "expired", "expiration_failed")

    def _all(self, where: str, *values: str | float) -> list[StoredCredit]:
        rows = self._connection.execute(f"select * from credits where {where}", values)  # noqa: S608 - our own words
        return [StoredCredit(*row) for row in rows]

    def _deliver(self, credit: StoredCredit) -> None:
        if credit.fate == Fate.UNDOCUMENTED_STATUS:
            self._set(credit, STATUS_UNDOCUMENTED)
        elif credit.fate == Fate.FAILS or not self._take(credit):
            self._set(credit, "failed")
        else:
            self._set(credit, "delivered", moved=1)
            if credit.fate in (Fate.RETURNED, Fate.PARTLY_RETURNED):
                used = credit.amount_minor // 2 if credit.fate == Fate.PARTLY_RETURNED else 0
                self._connection.execute(
                    "update credits set usage_minor = ?, expires_at = 0 where id = ?", (used, credit.id)
                )

    def _take(self, credit: StoredCredit) -> bool:
        """Take a credit from its balance; False if that is too low."""
        self._connection.execute(
            "update balances set available_minor = available_minor - ? where currency = ? and available_minor >= ?",
            (credit.amount_minor, credit.currency, credit.amount_minor),
        )
        return self._connection.changes() == 1

    def _take_back(self, credit: StoredCredit, done: str, not_done: str) -> None:
        if credit.fate == Fate.KEPT:
            self._set(credit, not_done)
            return
        self._set(credit, done)
        self._connection.execute(
            "update balances set available_minor = available_minor + ? where currency = ?",
            (credit.amount_minor - credit.usage_minor, credit.currency),
        )

    def _set(self, credit: StoredCredit, status: str, *, moved: int | None = None) -> None:
        self._connection.execute(
            "update credits set status = ?, moved = ? where id = ?",
            (status, credit.moved if moved is None else moved, credit.id),
        )

    # -- what tests and people do and ask

    def use(self, partner_credit_id: str, usage_minor: int) -> bool:
        """Let the customer have spent so much in all; False if no delivered credit has that id, and so much."""
        self._advance()
        self._connection.execute(
            "update credits set usage_minor = ? where partner_credit_id = ? and status = 'delivered'"
            " and ? between 0 and amount_minor",
            (usage_minor, partner_credit_id, usage_minor),
        )
        return self._connection.changes() > 0

    def expire(self, partner_credit_id: str) -> bool:
        """Let a delivered credit expire now; False if no delivered credit has that id."""
        self._advance()
        self._connection.execute(
            "update credits set expires_at = 0 where partner_credit_id = ? and status = 'delivered'",
            (partner_credit_id,),
        )
        return self._connection.changes() > 0

    def relent(self, partner_credit_id: str) -> bool:
        """Let a cancellation or expiry that failed succeed after all, as the document says that it may."""
        found = self._one("partner_credit_id = ? and status like '%_failed'", partner_credit_id)
        if found is None:
            return False
        with self._connection:
            done = "cancelled" if found.cancelled else "expired"
            self._take_back(msgspec.structs.replace(found, fate=Fate.SUCCEEDS), done, "")
        return True

    def set_balance(self, currency: str, available_minor: int) -> None:
        """Top a Credit account up, or drain it."""
        self._advance()
        self._connection.execute("insert or replace into balances values (?, ?)", (currency, available_minor))

    def available(self) -> dict[str, int]:
        """Return what can be given now, in minor units by currency."""
        self._advance()
        return dict(self._connection.execute("select currency, available_minor from balances"))

    def credits(self) -> list[StoredCredit]:
        """Return every credit, oldest first, shown or not."""
        self._advance()
        return self._all("true order by id")

    def paid(self) -> dict[str, tuple[int, int]]:
        """Return for each partner_credit_id how often money moved, or will by itself, and how many minor units.

        Of what is still to be delivered, what the balance suffices for by now.
        """
        left = self.available()
        found: dict[str, tuple[int, int]] = {}
        for credit in self.credits():
            waits = credit.status == "processing_delivery" and credit.due_at < NEVER
            if waits and credit.fate not in (Fate.FAILS, Fate.UNDOCUMENTED_STATUS):
                waits = left.get(credit.currency, 0) >= credit.amount_minor
                left[credit.currency] = left.get(credit.currency, 0) - (credit.amount_minor if waits else 0)
            else:
                waits = False
            if credit.partner_credit_id is not None and (credit.moved or waits):
                count, amount_minor = found.get(credit.partner_credit_id, (0, 0))
                found[credit.partner_credit_id] = count + 1, amount_minor + credit.amount_minor
        return found

    def totals(self) -> dict[str, object]:
        """Return counts and sums by status and currency, and the balances in minor units."""
        available = self.available()
        rows = self._connection.execute(
            "select status, currency, count(*), sum(amount_minor) from credits group by 1, 2 order by 1, 2"
        )
        credits = [
            {"status": status, "currency": currency, "count": count, "amount_minor": amount_minor}
            for status, currency, count, amount_minor in rows
        ]
        return {"credits": credits, "available_minor": available}
