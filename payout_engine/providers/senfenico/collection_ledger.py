"""The sandbox's truth about money that is collected: checkouts, charges, settlements, and the balance between them.

Beside the transfers, in the same file or in memory. Nothing runs in the background: how far a settlement or a charge
has come follows from the time at which somebody looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from payout_engine.domain import clock
from payout_engine.providers._sandbox import LedgerFile

_SCHEMA = """
create table if not exists checkouts (id integer primary key, reference text not null unique, entry blob not null);
create table if not exists charges (id integer primary key, reference text not null unique, entry blob not null);
create table if not exists settlements (id integer primary key, reference text not null unique, entry blob not null);
"""


class LedgerCheckout(msgspec.Struct, kw_only=True):
    """A checkout as the ledger holds it. Times are in seconds since 1970."""

    reference: str
    amount: int
    success_url: str
    cancel_url: str
    created_at: float
    updated_at: float
    email: str | None = None
    charge_reference: str | None = None
    phone: str = ""
    provider: str = ""
    status: str = "pending"


class LedgerAttempt(msgspec.Struct):
    """One time that a customer tried to confirm a charge."""

    at: float
    status: str


class LedgerCharge(msgspec.Struct, kw_only=True):
    """A charge as the ledger holds it. Times are in seconds since 1970.

    Attributes:
        settles_at: when it is paid without a code; 0 where one is needed.
    """

    reference: str
    amount: int
    fee: int
    phone: str
    provider: str
    ip_address: str
    created_at: float
    updated_at: float
    status: str = "send_otp"
    settles_at: float = 0.0
    attempts: list[LedgerAttempt] = []

    def state(self) -> str:
        """Return the status word as it is now."""
        return "success" if self.settles_at and self.settles_at <= clock.now() else self.status


class LedgerSettlement(msgspec.Struct, kw_only=True):
    """A settlement as the ledger holds it: it is in transit after a while, and there after twice as long."""

    reference: str
    amount: int
    fee: int
    created_at: float
    updated_at: float
    leaves_at: float
    arrives_at: float
    cancelled: bool = False

    def state(self) -> str:
        """Return the status word as it is now."""
        now = clock.now()
        if self.cancelled:
            return "cancelled"
        return "processing" if now < self.leaves_at else "in_transit" if now < self.arrives_at else "success"


Kept = TypeVar("Kept", LedgerCheckout, LedgerCharge, LedgerSettlement)

_TABLES = {LedgerCheckout: "checkouts", LedgerCharge: "charges", LedgerSettlement: "settlements"}


class CollectionLedger(LedgerFile):
    """Open or create it.

    Args:
        path: the file, which is that of the transfers, or None for memory.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__(path, _SCHEMA)

    def put(self, entry: LedgerCheckout | LedgerCharge | LedgerSettlement) -> None:
        """Record something new, or what became of something known."""
        self._connection.execute(
            f"insert into {_TABLES[type(entry)]} (reference, entry) values (?, ?)"  # noqa: S608 - our own words
            " on conflict (reference) do update set entry = excluded.entry",
            (entry.reference, msgspec.json.encode(entry)),
        )

    def find(self, kind: type[Kept], reference: str) -> Kept | None:
        """Return one of a kind by its reference."""
        query = f"select entry from {_TABLES[kind]} where reference = ?"  # noqa: S608 - our own words
        rows = self._connection.execute(query, (reference,))
        return next((msgspec.json.decode(row[0], type=kind) for row in rows), None)

    def balance(self) -> tuple[int, int]:
        """Return what was collected and can be settled, and what is being settled, in francs."""
        collected = sum(charge.amount - charge.fee for charge in self.all(LedgerCharge) if charge.state() == "success")
        settled = [settlement for settlement in self.all(LedgerSettlement) if not settlement.cancelled]
        going = [one for one in settled if one.state() != "success"]
        return collected - sum(one.amount + one.fee for one in settled), sum(one.amount + one.fee for one in going)

    def all(self, kind: type[Kept]) -> list[Kept]:
        """Return every one of a kind, newest first."""
        query = f"select entry from {_TABLES[kind]} order by id desc"  # noqa: S608 - our own words
        return [msgspec.json.decode(row[0], type=kind) for row in self._connection.execute(query)]
