"""The sandbox's truth: which transfers exist, what becomes of each, and what the balances hold.

A SQLite file, so that it outlives the process that serves it, or memory. Nothing runs in the background: whether a
transfer has settled follows from the time at which somebody looks. Tests read it to learn whether money moved twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from payout_engine.domain import clock
from payout_engine.providers._sandbox import NEVER, LedgerFile

PAGE_TRANSFERS = 2_000
"""Transfers read at a time, so that a ledger of any size can be listed."""

_SCHEMA = """
create table if not exists transfers (
    id integer primary key, reference text not null unique, amount integer not null, fee integer not null,
    fee_basis_points integer not null, wallet text not null, phone text not null, ext_id text, ip_address text not null,
    verdict text not null, created_at real not null, settles_at real not null, visible_at real not null,
    returned integer not null default 0
);
create index if not exists transfers_by_settling on transfers (settles_at);
create index if not exists transfers_to_return on transfers (settles_at) where verdict = 'failed' and returned = 0;
create table if not exists balances (wallet text primary key, available integer not null);
create table if not exists counters (name text primary key, value integer not null);
"""


class Fate(StrEnum):
    """What becomes of a transfer, decided when it is made."""

    SUCCEEDS = "succeeds"
    FAILS = "fails"  # the money comes back
    STAYS_PENDING = "stays_pending"  # for ever
    REFUSED = "refused"  # not queued: an error of the item
    SETTLES_LATE = "settles_late"
    UNDOCUMENTED_STATUS = "undocumented_status"  # settles with a word nobody documented
    NOT_LISTED = "not_listed"  # paid, and never shown in the list


class NewTransfer(msgspec.Struct, frozen=True):
    """A transfer about to be made. `fee` is in francs, on top of `amount`; times are in seconds since 1970."""

    reference: str
    amount: int
    fee: int
    fee_basis_points: int
    wallet: str
    phone: str
    ext_id: str | None
    ip_address: str
    verdict: str
    created_at: float
    settles_at: float
    visible_at: float


class LedgerTransfer(msgspec.Struct, frozen=True):
    """A transfer as the ledger holds it: its columns, in their order.

    Attributes:
        verdict: what it settles to, at `settles_at`.
        visible_at: when a list begins to show it.
        returned: 1 once the money of a failed one is back on its balance.
    """

    id: int
    reference: str
    amount: int
    fee: int
    fee_basis_points: int
    wallet: str
    phone: str
    ext_id: str | None
    ip_address: str
    verdict: str
    created_at: float
    settles_at: float
    visible_at: float
    returned: int

    def status(self, at: float) -> str:
        """Return the status word at a time."""
        return self.verdict if self.settles_at <= at else "pending"


class Ledger(LedgerFile):
    """Open or create a ledger.

    Args:
        path: the file, or None for memory.
        balances: francs each wallet holds at first; ignored by a ledger that already has balances.
    """

    def __init__(self, path: Path | None, balances: Mapping[str, int]) -> None:
        super().__init__(path, _SCHEMA)
        self._connection.executemany("insert or ignore into balances values (?, ?)", list(balances.items()))

    # -- what the API does

    def add(self, transfers: Sequence[NewTransfer]) -> None:
        """Make transfers and take their cost off the balances, all or none."""
        spent: dict[str, int] = {}
        for transfer in transfers:
            spent[transfer.wallet] = spent.get(transfer.wallet, 0) + transfer.amount + transfer.fee
        with self._connection:
            self._connection.executemany(
                "insert into transfers (reference, amount, fee, fee_basis_points, wallet, phone, ext_id, ip_address,"
                " verdict, created_at, settles_at, visible_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [msgspec.structs.astuple(transfer) for transfer in transfers],
            )
            self._connection.executemany(
                "update balances set available = available - ? where wallet = ?",
                [(cost, wallet) for wallet, cost in spent.items()],
            )

    def available(self) -> dict[str, int]:
        """Return what each wallet can spend now, in francs, after what failed has come back."""
        at = clock.now()
        with self._connection:
            returning = list(
                self._connection.execute(
                    "update transfers set returned = 1 where verdict = 'failed' and returned = 0 and settles_at <= ?"
                    " returning wallet, amount + fee",
                    (at,),
                )
            )
            for wallet, cost in returning:
                self._connection.execute(
                    "update balances set available = available + ? where wallet = ?", (cost, wallet)
                )
        return dict(self._connection.execute("select wallet, available from balances"))

    def pending(self) -> dict[str, int]:
        """Return what is on its way from each wallet, in francs."""
        return dict(
            self._connection.execute(
                "select wallet, sum(amount + fee) from transfers where settles_at > ? group by wallet", (clock.now(),)
            )
        )

    def fetch(self, reference: str) -> LedgerTransfer | None:
        """Return one transfer by its reference."""
        rows = self._connection.execute("select * from transfers where reference = ?", (reference,))
        return next((LedgerTransfer(*row) for row in rows), None)

    def pages(self) -> Iterator[Sequence[LedgerTransfer]]:
        """Yield the transfers that a list shows now, newest first, as they stood when the first page was read."""
        before, at = 2**62, clock.now()
        while True:
            rows = list(
                self._connection.execute(
                    "select * from transfers where id < ? and visible_at <= ? order by id desc limit ?",
                    (before, at, PAGE_TRANSFERS),
                )
            )
            if not rows:
                return
            before = rows[-1][0]
            yield [LedgerTransfer(*row) for row in rows]

    def count(self, name: str) -> None:
        """Add one to a counter."""
        self._connection.execute(
            "insert into counters values (?, 1) on conflict do update set value = value + 1", (name,)
        )

    # -- what tests and people ask

    def set_balance(self, wallet: str, available: int) -> None:
        """Top a wallet up, or drain it: it holds `available` francs from now on."""
        self._connection.execute("insert or replace into balances values (?, ?)", (wallet, available))

    def transfers(self) -> list[LedgerTransfer]:
        """Return every transfer, oldest first, listed or not."""
        return [LedgerTransfer(*row) for row in self._connection.execute("select * from transfers order by id")]

    def paid_by_ext_id(self) -> dict[str | None, int]:
        """Return how often money moves for each ext_id, now or when its transfers settle. 2 is a double payment."""
        return {ext_id: count for ext_id, count, _ in self._moving()}

    def paid(self) -> dict[str, tuple[int, int]]:
        """Return for each ext_id how often money moves, now or when its transfers settle, and how many francs."""
        return {ext_id: (count, amount) for ext_id, count, amount in self._moving() if ext_id is not None}

    def _moving(self) -> Iterator[tuple[str | None, int, int]]:
        yield from self._connection.execute(
            "select ext_id, count(*), sum(amount) from transfers where verdict = 'success' and settles_at < ?"
            " group by ext_id",
            (NEVER,),
        )

    def totals(self) -> dict[str, object]:
        """Return counts and sums by status, and the counters."""
        rows = self._connection.execute(
            "select iif(settles_at <= ?, verdict, 'pending'), count(*), sum(amount) from transfers group by 1",
            (clock.now(),),
        )
        by_status = {status: {"count": count, "amount": amount} for status, count, amount in rows}
        twice = self._connection.execute(
            "select count(*) from (select 1 from transfers where ext_id is not null and verdict = 'success'"
            " group by ext_id having count(*) > 1)"
        ).get
        return {
            "transfers": by_status,
            "ext_ids_paid_twice": twice,
            "available": self.available(),
            "counters": dict(self._connection.execute("select name, value from counters")),
        }


def created_text(at: float) -> str:
    """Return a time as Senfenico prints it, such as `2024-03-21T13:34:34.268389Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
