"""Between the structs of `model` and the columns of the journal, and back. No SQL and no rules here.

The payouts of a chunk are stored by column, and so are its receipts: an array for each field, or one value where it is
the same for all. That is a third less to write than an array for each payout. Nothing is stored where there are no
receipts; where only some payouts of a chunk have one, they are stored one by one, null where there is nothing to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from payout_engine.domain.model import Lane, Outcome, Payout, Problem, Receipt
from payout_engine.domain.states import LETTERS, STATES_BY_LETTER, State

T = TypeVar("T")

INTERRUPTED = Receipt(
    State.UNKNOWN,
    "interrupted",
    "The program stopped while the call was on the wire; only a look-up can say whether the provider received it.",
)
"""What is recorded of a payout whose dispatch a crash left open."""


class _PayoutColumns(msgspec.Struct, omit_defaults=True, gc=False):
    """The payouts of a chunk, field by field: what is the same for all of them stands there once."""

    line: Sequence[int]
    reference: list[str] | str = ""
    amount_minor: list[int] | int = 0
    currency: list[str] | str = ""
    phone: list[str] | str = ""
    email: list[str] | str = ""
    account_number: list[str] | str = ""
    country: list[str] | str = ""
    wallet: list[str] | str = ""
    name: list[str] | str = ""
    bank: list[str] | str = ""
    document_type: list[str] | str = ""
    document_number: list[str] | str = ""
    otp: list[str] | str = ""


class ReceiptColumns(msgspec.Struct, omit_defaults=True, gc=False):
    """Receipts, field by field; without any list, one that stands for all."""

    state: list[State] | State
    reason: list[str] | str = ""
    message: list[str] | str = ""
    provider_reference: list[str] | str = ""
    at: list[float] | float = 0.0


assert sorted(_PayoutColumns.__struct_fields__) == sorted(Payout.__struct_fields__)
assert ReceiptColumns.__struct_fields__ == Receipt.__struct_fields__

_payout_columns: msgspec.json.Decoder[_PayoutColumns] = msgspec.json.Decoder(_PayoutColumns)
_receipts: msgspec.json.Decoder[list[Receipt | None] | ReceiptColumns] = msgspec.json.Decoder(
    list[Receipt | None] | ReceiptColumns
)
# Journals of format 4 and older hold one array for each payout, and so do chunks where some receipts are missing.
_payouts: msgspec.json.Decoder[list[Payout]] = msgspec.json.Decoder(list[Payout])
_indexes: msgspec.json.Decoder[list[int]] = msgspec.json.Decoder(list[int])

encode = msgspec.json.Encoder().encode

_FIELDS = Payout.__struct_fields__

read_rows = msgspec.json.Decoder(list[list[str]]).decode
"""Return the rows of a chunk."""

read_columns = msgspec.json.Decoder(list[str]).decode
"""Return the header of a run's input."""


def text(value: object) -> str:
    """Return `value` as JSON text; SQLite would take bytes for its own binary form of JSON."""
    return encode(value).decode()


def _column(values: tuple[Any, ...]) -> Any:
    """Return values as a column: one value if they are all the same."""
    first = values[0]
    return first if first == values[-1] and values.count(first) == len(values) else values


def _spread(column: list[T] | T, count: int) -> list[T]:
    """Return the values of a column.

    Raises:
        ValueError: it has another number of them.
    """
    if not isinstance(column, list):
        return [column] * count
    if len(column) != count:
        raise ValueError(f"a column of {len(column)} values for {count} payouts")
    return column


def payouts_text(payouts: Sequence[Payout]) -> str:
    """Return the stored form of a chunk's payouts."""
    columns = dict(zip(_FIELDS, zip(*map(msgspec.structs.astuple, payouts), strict=True), strict=True))
    stored = {field: _column(values) for field, values in columns.items()}
    stored["line"] = columns["line"]  # Always an array: its length says how many payouts there are.
    return text(_PayoutColumns(**stored))


def read_payouts(stored: str) -> list[Payout]:
    """Return the payouts of a chunk."""
    return list(map(Payout, *read_fields(stored, *_FIELDS)))


def read_fields(stored: str, *names: str) -> list[list[Any]]:
    """Return only some fields of a chunk's payouts, a list for each, at a fraction of the cost."""
    if stored.startswith("["):
        payouts = _payouts.decode(stored)
        return [[getattr(payout, name) for payout in payouts] for name in names]
    columns = _payout_columns.decode(stored)
    return [_spread(getattr(columns, name), len(columns.line)) for name in names]


def read_indexes(stored: str | None, count: int) -> Sequence[int]:
    """Return the payouts that a dispatch holds, out of `count`."""
    return range(count) if stored is None else _indexes.decode(stored)


def part(indexes: Sequence[int], count: int) -> list[int] | None:
    """Return payouts of a chunk as they are stored: None for all of it."""
    return None if len(indexes) == count else list(indexes)


def receipt_columns(receipts: Sequence[Receipt]) -> ReceiptColumns:
    """Return receipts by column, one for each payout or one that stands for all."""
    return ReceiptColumns(*map(_column, zip(*map(msgspec.structs.astuple, receipts), strict=True)))


def receipts_of(columns: ReceiptColumns) -> list[Receipt]:
    """Return receipts as they were before they were stored by column.

    Raises:
        ValueError: the columns are not of one length.
    """
    values = msgspec.structs.astuple(columns)
    count = max((len(column) for column in values if isinstance(column, list)), default=1)
    return list(map(Receipt, *[_spread(column, count) for column in values]))


def read_receipts(stored: str | None, count: int) -> Sequence[Receipt | None]:
    """Return one receipt, or None, for each of `count` payouts."""
    if stored is None:
        return [None] * count
    found = _receipts.decode(stored)
    receipts: Sequence[Receipt | None] = receipts_of(found) if isinstance(found, ReceiptColumns) else found
    return list(receipts) * count if len(receipts) == 1 else receipts


def receipts_text(receipts: Sequence[Receipt | None]) -> str | None:
    """Return the stored form of one receipt, or None, for each payout of a chunk."""
    known = [receipt for receipt in receipts if receipt is not None]
    if not known:
        return None
    return text(receipt_columns(known) if len(known) == len(receipts) else receipts)


def letters(states: Iterable[State]) -> str:
    """Return states as the journal stores them."""
    return "".join([LETTERS[state] for state in states])


def standing(letter: str, receipt: Receipt | None) -> Receipt:
    """Return where a payout stands, with what was last said of it."""
    return receipt if receipt is not None else Receipt(STATES_BY_LETTER[letter])


def stamped(receipts: Sequence[Receipt], at: float) -> list[Receipt]:
    """Return the receipts with `at` filled in where it is missing."""
    return [receipt if receipt.at else msgspec.structs.replace(receipt, at=at) for receipt in receipts]


def each(items: Sequence[T], count: int) -> Sequence[T]:
    """Return `count` items where one may stand for all.

    Raises:
        ValueError: it is neither one nor `count`. This is a fault of the caller.
    """
    if len(items) == count:
        return items
    if len(items) != 1:
        raise ValueError(f"{len(items)} receipts for {count} payouts")
    return list(items) * count


def receipt_of(problem: Problem, state: State, at: float) -> Receipt:
    """Return the receipt of a line that our own rules refused or held."""
    column = f" (column {problem.column})" if problem.column else ""
    return Receipt(state, problem.code, problem.message + column, at=at)


def outcome_of(run_id: str, lane: Lane, payout: Payout, receipt: Receipt, seq: int) -> Outcome:
    """Return what to tell the caller about a payout, as the entry `seq` of the log tells it."""
    return Outcome(
        run_id,
        payout.line,
        payout.reference,
        receipt.state,
        payout.amount_minor,
        payout.currency,
        lane.account,
        payout.wallet or lane.name,
        receipt.reason,
        receipt.message,
        receipt.provider_reference,
        receipt.at,
        seq,
    )
