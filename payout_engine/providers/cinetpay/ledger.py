"""The sandbox's truth: which transfers and contacts exist, what becomes of each, and what each country's balance holds.

A SQLite file, so that it outlives the process that serves it, or memory. Nothing runs in the background: whether a
transfer has settled follows from the time at which somebody looks. Tests read it to learn whether money moved twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from payout_engine.domain import clock
from payout_engine.domain.countries import COUNTRIES
from payout_engine.domain.money import SCALES
from payout_engine.providers._sandbox import NEVER, LedgerFile

_SCHEMA = """
create table if not exists transfers (
    id integer primary key, transaction_id text not null unique, client_id text, lot text not null,
    country text not null, prefix text not null, phone text not null, amount integer not null, method text not null,
    notify_url text not null, verdict text not null, valid text not null, created_at real not null,
    settle_seconds real not null, settles_at real not null, visible_at real not null, confirmed integer not null,
    returned integer not null default 0
);
create index if not exists transfers_by_client_id on transfers (client_id);
create index if not exists transfers_by_lot on transfers (lot);
create index if not exists transfers_to_return on transfers (settles_at) where verdict = 'REJ' and returned = 0;
create index if not exists transfers_to_confirm on transfers (id) where confirmed = 0;
create table if not exists contacts (number text primary key) without rowid;
create table if not exists balances (country text primary key, available integer not null);
"""


class Fate(StrEnum):
    """What becomes of a transfer, decided when it is made."""

    SUCCEEDS = "succeeds"
    FAILS = "fails"  # the money comes back
    STAYS = "stays"  # in progress, for ever
    REFUSED = "refused"  # an error of the item
    SETTLES_LATE = "settles_late"
    UNDOCUMENTED_STATUS = "undocumented_status"  # settles with a word nobody documented
    NOT_SHOWN = "not_shown"  # paid, and never found by a look-up
    NO_CONTACT = "no_contact"  # refused as a contact, so never sent
    NOT_VALID = "not_valid"  # VAL with another `transfer_valid` than Y: nobody is paid


class NewTransfer(msgspec.Struct, frozen=True):
    """A transfer about to be made, in whole units; times are in seconds since 1970.

    Attributes:
        verdict: what it settles to.
        valid: its `transfer_valid`.
        settle_seconds: how long that takes from its confirmation.
        visible_at: when look-ups begin to show it.
        confirmed: 1 unless it waits for the account's owner.
    """

    transaction_id: str
    client_id: str | None
    lot: str
    country: str
    prefix: str
    phone: str
    amount: int
    method: str
    notify_url: str
    verdict: str
    valid: str
    created_at: float
    settle_seconds: float
    settles_at: float
    visible_at: float
    confirmed: int


class LedgerTransfer(NewTransfer, frozen=True):
    """A transfer as the ledger holds it: its columns but the first. `returned`: its money is back on the balance."""

    returned: int = 0

    def status(self, at: float) -> str:
        """Return the treatment status at a time."""
        if not self.confirmed:
            return "NEW"
        return self.verdict if self.settles_at <= at else "REC"


class Ledger(LedgerFile):
    """Open or create a ledger.

    Args:
        path: the file, or None for memory.
        balances: whole units by country that it holds at first; ignored by a ledger that already has them.
    """

    def __init__(self, path: Path | None, balances: Mapping[str, int]) -> None:
        super().__init__(path, _SCHEMA)
        self._connection.executemany("insert or ignore into balances values (?, ?)", list(balances.items()))

    def add(self, transfers: Sequence[NewTransfer]) -> None:
        """Make transfers and take their amounts off the balances, all or none."""
        names = NewTransfer.__struct_fields__
        with self._connection:
            self._connection.executemany(
                f"insert into transfers ({', '.join(names)}) values ({', '.join('?' * len(names))})",  # noqa: S608
                [msgspec.structs.astuple(transfer) for transfer in transfers],
            )
            self._connection.executemany(
                "update balances set available = available - ? where country = ?",
                [(transfer.amount, transfer.country) for transfer in transfers],
            )

    def confirm(self) -> Sequence[LedgerTransfer]:
        """Confirm all transfers that wait for it, and return them."""
        rows = self._connection.execute(
            "update transfers set confirmed = 1, settles_at = settle_seconds + ? where confirmed = 0 returning *",
            (clock.now(),),
        )
        return [LedgerTransfer(*row[1:]) for row in rows]

    def available(self) -> dict[str, int]:
        """Return what each country's balance can spend now, after what was rejected has come back."""
        with self._connection:
            returning = list(
                self._connection.execute(
                    "update transfers set returned = 1 where verdict = 'REJ' and returned = 0 and settles_at <= ?"
                    " returning amount, country",
                    (clock.now(),),
                )
            )
            self._connection.executemany("update balances set available = available + ? where country = ?", returning)
        return dict(self._connection.execute("select country, available from balances"))

    def in_using(self) -> dict[str, int]:
        """Return what transfers that are on their way hold of each balance."""
        return dict(
            self._connection.execute(
                "select country, sum(amount) from transfers where settles_at > ? group by country", (clock.now(),)
            )
        )

    def find(self, column: str, text: str) -> Sequence[LedgerTransfer]:
        """Return what a look-up shows now, by `transaction_id`, `client_id` or `lot`."""
        assert column in ("transaction_id", "client_id", "lot")
        return self._read(f"where {column} = ? and visible_at <= ? order by id", (text, clock.now()))

    def add_contacts(self, numbers: Collection[str]) -> None:
        """Remember contacts, by prefix and phone."""
        self._connection.executemany("insert or ignore into contacts values (?)", [(each,) for each in numbers])

    def is_contact(self, number: str) -> bool:
        """Whether somebody was added."""
        return bool(self._connection.execute("select 1 from contacts where number = ?", (number,)).get)

    def has_had(self, client_id: str) -> bool:
        """Whether a transfer was made under an id of the caller's."""
        return bool(self._connection.execute("select 1 from transfers where client_id = ?", (client_id,)).get)

    # -- what tests and people ask

    def set_balance(self, country: str, available: int) -> None:
        """Top a balance up, or drain it."""
        self._connection.execute("insert or replace into balances values (?, ?)", (country, available))

    def transfers(self) -> Sequence[LedgerTransfer]:
        """Return every transfer, oldest first, shown or not."""
        return self._read("order by id", ())

    def paid(self) -> dict[str, tuple[int, int]]:
        """Return for each id of the caller's how often money moves, now or by itself, and how many minor units."""
        rows = self._connection.execute(
            "select client_id, country, count(*), sum(amount) from transfers where verdict = 'VAL' and valid = 'Y'"
            " and settles_at < ? and client_id is not null group by client_id, country",
            (NEVER,),
        )
        found: dict[str, tuple[int, int]] = {}
        for key, country, count, amount in rows:
            earlier, earlier_minor = found.get(key, (0, 0))
            found[key] = earlier + count, earlier_minor + amount * SCALES[COUNTRIES[country].currency]
        return found

    def totals(self) -> dict[str, object]:
        """Return counts and sums by status."""
        rows = self._connection.execute(
            "select iif(confirmed = 0, 'NEW', iif(settles_at <= ?, verdict, 'REC')), count(*), sum(amount)"
            " from transfers group by 1",
            (clock.now(),),
        )
        return {
            "transfers": {status: {"count": count, "amount": amount} for status, count, amount in rows},
            "ids_paid_twice": sum(count > 1 for count, _ in self.paid().values()),
            "available": self.available(),
        }

    def _read(self, where: str, values: tuple[object, ...]) -> Sequence[LedgerTransfer]:
        rows = self._connection.execute(f"select * from transfers {where}", values)  # noqa: S608
        return [LedgerTransfer(*row[1:]) for row in rows]
