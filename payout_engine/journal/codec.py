"""Between the structs of `model` and the columns of the journal, and back. No SQL and no rules here.

Receipts of a chunk are stored in the shortest form: nothing when there is nothing to tell, one receipt alone when it
stands for every payout, and otherwise one for each payout, null where there is nothing to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

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


class _Amount(msgspec.Struct, array_like=True, gc=False):
    """The beginning of a stored payout; the rest of the array is passed over."""

    reference: msgspec.Raw
    amount_minor: int


class PaidTo(msgspec.Struct, array_like=True, gc=False):
    """The beginning of a stored payout up to its phone."""

    reference: msgspec.Raw
    amount_minor: int
    currency: msgspec.Raw
    phone: str = ""


class _Reference(msgspec.Struct, array_like=True, gc=False):
    """Less still of it."""

    reference: str


_references: msgspec.json.Decoder[list[_Reference]] = msgspec.json.Decoder(list[_Reference])
_amounts: msgspec.json.Decoder[list[_Amount]] = msgspec.json.Decoder(list[_Amount])
_paid_to: msgspec.json.Decoder[list[PaidTo]] = msgspec.json.Decoder(list[PaidTo])
_payouts: msgspec.json.Decoder[list[Payout]] = msgspec.json.Decoder(list[Payout])
_receipts: msgspec.json.Decoder[list[Receipt | None]] = msgspec.json.Decoder(list[Receipt | None])
_rows: msgspec.json.Decoder[list[list[str]]] = msgspec.json.Decoder(list[list[str]])
_indexes: msgspec.json.Decoder[list[int]] = msgspec.json.Decoder(list[int])

_columns: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(list[str])

encode = msgspec.json.Encoder().encode


def text(value: object) -> str:
    """Return `value` as JSON text; SQLite would take bytes for its own binary form of JSON."""
    return encode(value).decode()


def read_payouts(stored: str) -> list[Payout]:
    """Return the payouts of a chunk."""
    return _payouts.decode(stored)


def read_amounts(stored: str) -> list[int]:
    """Return only the amounts of a chunk's payouts, at a fraction of the cost."""
    return [payout.amount_minor for payout in _amounts.decode(stored)]


def read_paid_to(stored: str) -> list[PaidTo]:
    """Return only the amounts and phones of a chunk's payouts."""
    return _paid_to.decode(stored)


def read_references(stored: str) -> list[str]:
    """Return only the references of a chunk's payouts."""
    return [payout.reference for payout in _references.decode(stored)]


def read_rows(stored: str) -> list[list[str]]:
    """Return the rows of a chunk."""
    return _rows.decode(stored)


def read_columns(stored: str) -> list[str]:
    """Return the header of a run's input."""
    return _columns.decode(stored)


def read_indexes(stored: str | None, count: int) -> Sequence[int]:
    """Return the payouts that a dispatch holds, out of `count`."""
    return range(count) if stored is None else _indexes.decode(stored)


def read_receipts(stored: str | None, count: int) -> list[Receipt | None]:
    """Return one receipt, or None, for each of `count` payouts."""
    if stored is None:
        return [None] * count
    receipts = _receipts.decode(stored)
    return receipts * count if len(receipts) == 1 else receipts


def receipts_text(receipts: Sequence[Receipt | None]) -> str | None:
    """Return the stored form of one receipt, or None, for each payout of a chunk."""
    first = receipts[0]
    if first is None and not any(receipts):
        return None
    if first is not None and all(receipt is first for receipt in receipts):
        return text([first])
    return text(receipts)


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
