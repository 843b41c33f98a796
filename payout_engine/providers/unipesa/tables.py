"""The document's provider ids: whose each is, what it takes, and what it wants to be told. Pure.

`tables.json` beside this module holds what the document prints. Where it does not say to which id a limit table
belongs, every one of the country's tables without an id may be meant, so the strictest of them counts. Called by the
adapter, for the wallets of an account and the bodies of its calls, and by the sandbox, which asks for the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from importlib import resources

import msgspec

from payout_engine.domain.limits import AMOUNT_MINOR_MAX
from payout_engine.domain.model import Direction

B2C, C2B = "b2c", "c2b"
"""The document's words for paying people and for collecting from them."""

FACES: Mapping[Direction, str] = {Direction.PAY: B2C, Direction.COLLECT: C2B}


class LimitTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One limit table as printed: least and most in whole units, None for no limit; None where a face has no column.

    Attributes:
        ids: whose it is by the document; none: it does not say.
        daily: by face, a limit of a day, in words. Whose day (the recipient's or the merchant's) is not said.
    """

    c2b: tuple[int, int | None] | None = None
    b2c: tuple[int, int | None] | None = None
    ids: Sequence[int] = ()
    multiple_of: int = 1
    daily: Mapping[str, str] = {}
    note: str = ""

    def bounds(self, face: str) -> tuple[int, int | None] | None:
        """Return the least and the most of a face."""
        return self.b2c if face == B2C else self.c2b


class Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One operator of a country, as the document's provider table names it.

    Attributes:
        code: ours, such as `mtn`; an account names it as `CI/mtn`.
        serves: names as in `domain/countries.py` whose numbers it serves; none: the payer has to name it.
        faces: what it can do.
        needs: by face, cells that its ids want filled in, instead of the country's.
        needs_by_id: the same, of single ids.
        account_number: the faces whose customer is a bank account and no phone.
        unnamed: the faces in which it is meant although nobody names it and it serves no operator's numbers.
        phone_lead: what stands before the national number in `customer_id`; None: the country's dial code.
        bank_field: what the cell `bank` is called in its calls.
    """

    code: str
    title: str
    ids: Sequence[int]
    serves: Sequence[str] = ()
    faces: Sequence[str] = (B2C, C2B)
    needs: Mapping[str, Sequence[str]] | None = None
    needs_by_id: Mapping[str, Mapping[str, Sequence[str]]] = {}
    account_number: Sequence[str] = ()
    unnamed: Sequence[str] = ()
    phone_lead: str | None = None
    bank_field: str = "bank_code"


class CountryTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the document prints of one country.

    Attributes:
        listed: whether its currency is in the document's own table of currencies.
        needs: by face, cells that its ids want filled in.
        return_url: the faces that want an address to come back to.
    """

    currency: str
    operators: Sequence[Operator]
    limits: Sequence[LimitTable]
    note: str
    listed: bool = True
    needs: Mapping[str, Sequence[str]] = {}
    return_url: Sequence[str] = ()


class Limits(msgspec.Struct, frozen=True):
    """What one id takes in one face, in whole units of its currency.

    Attributes:
        most: None for no limit.
        sure: whether the document says so of this id, or of all of its country.
    """

    least: int = 0
    most: int | None = None
    multiple_of: int = 1
    sure: bool = False
    daily: str = ""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One provider id in one face: where money can go to, or come from."""

    id: int
    face: str
    country: str
    currency: str
    operator: Operator
    limits: Limits
    needs: Sequence[str]
    return_url: bool

    @property
    def code(self) -> str:
        """The wallet's code. It holds the id, so that no payout changes its id between two attempts."""
        return f"{self.operator.code}_{self.country.lower()}_{self.id}"

    @property
    def recipient(self) -> str:
        """The kind of its customers: `phone` or `account_number`."""
        return "account_number" if self.face in self.operator.account_number else "phone"


class _Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    simulator: int
    countries: Mapping[str, CountryTable]


def _load() -> _Tables:
    text = (resources.files("payout_engine.providers.unipesa") / "tables.json").read_bytes()
    return msgspec.json.decode(text, type=_Tables)


_TABLES = _load()
SIMULATOR: int = _TABLES.simulator
"""An id of any operator whose orders stay in progress for ever."""

COUNTRY_TABLES: Mapping[str, CountryTable] = _TABLES.countries
OPERATORS: Mapping[str, tuple[str, Operator]] = {
    f"{code}/{operator.code}": (code, operator)
    for code, table in COUNTRY_TABLES.items()
    for operator in table.operators
}
"""Every operator with its country's code, by the name that an account's option gives it, such as `CI/mtn`."""

IDS: Mapping[int, str] = {id: name for name, (_, operator) in OPERATORS.items() for id in operator.ids}
"""Every id of the document, with its operator's name."""


@cache
def place(name: str, id: int, face: str) -> Place:
    """Return the facts of an id of an operator (or the simulator's) in a face that the operator has."""
    code, operator = OPERATORS[name]
    table = COUNTRY_TABLES[code]
    needs = table.needs if operator.needs is None else operator.needs
    own = operator.needs_by_id.get(str(id), {})
    return Place(
        id=id,
        face=face,
        country=code,
        currency=table.currency,
        operator=operator,
        limits=_limits(table.limits, id, face),
        needs=own.get(face, needs.get(face, ())),
        return_url=face in table.return_url,
    )


def possible(tables: Sequence[LimitTable], id: int) -> Sequence[LimitTable]:
    """Return the limit tables that may be an id's: its own, else all that are nobody's, else all there are."""
    own = [table for table in tables if id in table.ids]
    return own or [table for table in tables if not table.ids] or tables


def _limits(tables: Sequence[LimitTable], id: int, face: str) -> Limits:
    """Return the strictest of the limits that may be an id's."""
    found = possible(tables, id)
    bounds = [table.bounds(face) for table in found]
    most = [upper for bound in bounds if bound is not None and (upper := bound[1]) is not None]
    return Limits(
        least=max((bound[0] for bound in bounds if bound is not None), default=0),
        most=min(most, default=None),
        multiple_of=math.lcm(*(table.multiple_of for table in found)),
        sure=len(found) == 1 and (id in found[0].ids or len(tables) == 1),
        daily="; ".join(dict.fromkeys(table.daily[face] for table in found if face in table.daily)),
    )


def takes(of: Place, amount: Decimal) -> bool:
    """Return whether any limit table that may be the id's takes an amount in whole units: what the sandbox asks.

    It is wider than the wallets of an account: whoever knows the id's real limits may say so in the account's options.
    """
    tables = possible(COUNTRY_TABLES[of.country].limits, of.id)
    bounds = [bound for table in tables if (bound := table.bounds(of.face)) is not None] or [(0, None)]
    shared = math.gcd(*(table.multiple_of for table in tables))
    return (shared < 2 or amount % shared == 0) and any(
        least <= amount <= (AMOUNT_MINOR_MAX if most is None else most) for least, most in bounds
    )
