"""The sandbox's truth: which payments were asked for, what becomes of each, and who subscribed.

A SQLite file, so that it outlives the process that serves it, or memory. Nothing runs in the background: whether a
customer has paid follows from the time at which somebody looks. Tests read it to learn whether anybody was asked twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from payout_engine.domain import clock
from payout_engine.providers._sandbox import LedgerFile

_SCHEMA = """
create table if not exists payments (
    id text primary key, request_id text, reference text not null, payment_reference text not null,
    phone text not null, amount integer not null, fate text not null, created_at real not null, settles_at real not null
);
create index if not exists payments_by_request on payments (request_id);
create table if not exists subscriptions (
    id text primary key, phone text not null, plan_id text not null, frequency_id text not null,
    start_at text not null, disabled integer not null default 0
);
"""


class Fate(StrEnum):
    """What becomes of a payment, decided when it is asked for."""

    PAID = "paid"
    NEVER_CONFIRMED = "never_confirmed"  # the customer does nothing, for ever
    SETTLES_LATE = "settles_late"
    UNDOCUMENTED_STATE = "undocumented_state"  # ends in a state that the document does not list, unpaid
    WORDS_DISAGREE = "words_disagree"  # the state says completed, the payment does not; it is unpaid
    REFUSED = "refused"  # not made, in words that the document does not place
    NOT_SHOWN = "not_shown"  # paid, and never found by its id


MOVING = (Fate.PAID, Fate.SETTLES_LATE, Fate.NOT_SHOWN)
"""The fates that move money."""


class LedgerPayment(msgspec.Struct, frozen=True):
    """A payment as the ledger holds it: its columns, in their order. Times are in seconds since 1970."""

    id: str
    request_id: str | None
    reference: str
    payment_reference: str
    phone: str
    amount: int
    fate: Fate
    created_at: float
    settles_at: float

    @property
    def words(self) -> tuple[int, str]:
        """Its state, and the word of the payment inside, as they are now."""
        if self.settles_at > clock.now():
            return 1, "pending"
        found: Mapping[Fate, tuple[int, str]] = {
            Fate.UNDOCUMENTED_STATE: (3, "cancelled"),
            Fate.WORDS_DISAGREE: (2, "pending"),
        }
        return found.get(self.fate, (2, "completed"))


class Ledger(LedgerFile):
    """Open or create a ledger in a file, or in memory."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(path, _SCHEMA)

    def add(self, payment: LedgerPayment) -> None:
        """Record a payment that is asked for."""
        self._connection.execute(
            "insert into payments values (?, ?, ?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(payment)
        )

    def fetch(self, payment_id: str) -> LedgerPayment | None:
        """Return one payment by its id."""
        return next(iter(self._payments("where id = ?", payment_id)), None)

    def payments(self) -> list[LedgerPayment]:
        """Return every payment, in the order in which they were asked for."""
        return self._payments("order by rowid")

    def paid(self) -> dict[str, tuple[int, int]]:
        """Return for each request id how often money moves, now or when it settles, and how many francs."""
        found: dict[str, tuple[int, int]] = {}
        for payment in self._payments("where request_id is not null"):
            if payment.fate in MOVING:
                count, amount = found.get(str(payment.request_id), (0, 0))
                found[str(payment.request_id)] = (count + 1, amount + payment.amount)
        return found

    def subscribe(self, subscription_id: str, phone: str, plan_id: str, frequency_id: str, start_at: str) -> None:
        """Record a subscription."""
        self._connection.execute(
            "insert into subscriptions values (?, ?, ?, ?, ?, 0)",
            (subscription_id, phone, plan_id, frequency_id, start_at),
        )

    def disable(self, phone: str) -> bool:
        """End the subscriptions of a phone that are active, and tell whether there were any."""
        self._connection.execute("update subscriptions set disabled = 1 where phone = ? and disabled = 0", (phone,))
        return bool(self._connection.changes())

    def totals(self) -> dict[str, object]:
        """Return counts and sums by status, and how many requests are paid more than once."""
        by_status: dict[str, dict[str, int]] = {}
        for payment in self.payments():
            sums = by_status.setdefault(payment.words[1], {"count": 0, "amount": 0})
            sums["count"] += 1
            sums["amount"] += payment.amount
        twice = sum(count > 1 for count, _ in self.paid().values())
        return {"payments": by_status, "requests_paid_twice": twice}

    def _payments(self, which: str, *values: str) -> list[LedgerPayment]:
        rows = self._connection.execute(f"select * from payments {which}", values)  # noqa: S608 - our own words
        return [msgspec.convert(row, LedgerPayment) for row in map(_named, rows)]


def _named(row: tuple[object, ...]) -> dict[str, object]:
    return dict(zip(LedgerPayment.__struct_fields__, row, strict=True))
