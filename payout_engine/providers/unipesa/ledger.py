"""The sandbox's truth: which orders exist, what becomes of each, and what the balances hold.

A SQLite file, so that it outlives the process that serves it, or memory. Nothing runs in the background: whether an
order has settled follows from the time at which somebody looks. An order id is kept once, with the answer it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from payout_engine.domain import clock
from payout_engine.domain.money import DECIMALS
from payout_engine.providers._sandbox import NEVER, LedgerFile

_SCHEMA = """
create table if not exists orders (
    order_id text primary key, call text not null, place text not null, provider_id integer not null,
    country text not null, currency text not null, customer_id text not null, hundredths integer not null,
    callback_url text not null, transaction_id text not null, fate text not null, answer blob not null,
    settles_at real not null, visible_at real not null
);
create table if not exists balances (place text primary key, hundredths integer not null);
create table if not exists counters (name text primary key, value integer not null);
"""


class Fate(StrEnum):
    """What becomes of an order, decided when it is made."""

    SUCCEEDS = "succeeds"
    FAILS = "fails"
    CANCELLED = "cancelled"
    STAYS_IN_PROGRESS = "stays_in_progress"  # for ever, as every order of the simulator
    REFUSED = "refused"  # the call is answered with an error code, and nothing is made
    SETTLES_LATE = "settles_late"
    UNDOCUMENTED_STATUS = "undocumented_status"  # settles with a number that nobody documented
    NOT_FOUND = "not_found"  # paid, and never found by a status call
    AT_ONCE = "at_once"  # the payment itself is answered with success
    WAITS_FOR_CONFIRMATION = "waits_for_confirmation"  # for ever: nobody documents how to confirm


FINAL: Mapping[Fate, int] = {Fate.FAILS: 3, Fate.CANCELLED: 4, Fate.UNDOCUMENTED_STATUS: 7}
"""The status that an order settles with; all others settle with 2."""

PAYS: frozenset[Fate] = frozenset({Fate.SUCCEEDS, Fate.SETTLES_LATE, Fate.NOT_FOUND, Fate.AT_ONCE})


class LedgerOrder(msgspec.Struct, frozen=True, array_like=True):
    """An order as the ledger holds it: its columns, in their order.

    Attributes:
        call: `payment_b2c` or `payment_c2b`.
        place: the wallet's code; its balance pays.
        hundredths: the amount in hundredths of the major unit, as all amounts are sent.
        answer: the body that the payment was answered with, and every repetition is.
        visible_at: when a status call begins to find it.
    """

    order_id: str
    call: str
    place: str
    provider_id: int
    country: str
    currency: str
    customer_id: str
    hundredths: int
    callback_url: str
    transaction_id: str
    fate: Fate
    answer: bytes
    settles_at: float
    visible_at: float

    def status(self, at: float) -> int:
        """Return the status at a time."""
        return FINAL.get(self.fate, 2) if self.settles_at <= at else 1


class Ledger(LedgerFile):
    """Open or create a ledger.

    Args:
        path: the file, or None for memory.
        balances: by wallet, what it holds at first in whole units; ignored where the ledger knows one.
        balance_default: what all others hold.
    """

    def __init__(self, path: Path | None, balances: Mapping[str, int], balance_default: int) -> None:
        super().__init__(path, _SCHEMA)
        self._balance_default = balance_default
        for place, units in balances.items():
            self._connection.execute("insert or ignore into balances values (?, ?)", (place, units * 100))

    def find(self, order_id: str) -> LedgerOrder | None:
        """Return an order."""
        rows = self._connection.execute("select * from orders where order_id = ?", (order_id,))
        return next((msgspec.convert(row, LedgerOrder) for row in rows), None)

    def add(self, order: LedgerOrder) -> None:
        """Make an order, and take its amount off its balance if it is paid from one."""
        with self._connection:
            self._connection.execute(
                "insert into orders values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(order)
            )
            if order.call == "payment_b2c" and order.fate in PAYS:
                self._connection.execute(
                    "insert into balances values (?, ?) on conflict do update set hundredths = hundredths - ?",
                    (order.place, self._balance_default * 100 - order.hundredths, order.hundredths),
                )

    def available(self, place: str) -> int:
        """Return what a balance holds, in hundredths."""
        rows = self._connection.execute("select hundredths from balances where place = ?", (place,))
        return next((int(row[0]) for row in rows), self._balance_default * 100)

    def count(self, name: str) -> None:
        """Add one to a counter."""
        self._connection.execute(
            "insert into counters values (?, 1) on conflict do update set value = value + 1", (name,)
        )

    def paid(self) -> dict[str, tuple[int, int]]:
        """Return for each order id how often money moves, now or when it settles, and how much in minor units."""
        rows = self._connection.execute(
            "select order_id, hundredths, currency, fate from orders where settles_at < ?", (NEVER,)
        )
        return {
            order_id: (1, hundredths * 10 ** DECIMALS[currency] // 100)
            for order_id, hundredths, currency, fate in rows
            if fate in PAYS
        }

    def totals(self) -> dict[str, object]:
        """Return counts and sums by call and status, and the counters."""
        found: dict[str, dict[str, int | str]] = {}
        for call, fate, currency, count, hundredths in self._connection.execute(
            "select call, iif(settles_at <= ?, fate, 'in progress'), currency, count(*), sum(hundredths) from orders"
            " group by 1, 2, 3",
            (clock.now(),),
        ):
            amount = f"{hundredths // 100}.{hundredths % 100:02d}"
            found[f"{call} {fate} {currency}"] = {"count": count, "amount": amount}
        counters = dict(self._connection.execute("select name, value from counters"))
        return {"orders": found, "counters": counters}
