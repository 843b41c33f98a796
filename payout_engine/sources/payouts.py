"""Payouts given from Python, one by one: any iterable or async iterable of `Payout`.

They become rows like those of a file, so that one intake validates both. Amounts stay in minor units, which intake
knows by their column, so that nothing is converted and a payout may leave its currency to the wallet that serves it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from itertools import chain

import anyio.lowlevel

from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import BLOCK_ROWS
from payout_engine.domain.model import Block, Payout
from payout_engine.sources._table import check_cells

COLUMNS = (
    *("reference", "amount_minor", "currency", "phone", "email", "account_number", "country", "wallet", "name"),
    *("bank", "document_type", "document_number", "otp"),
)
"""The columns of the rows that payouts become."""

_ONLY_TEXT = {str}


class PayoutsSource:
    """A `Source` of payouts that a program gives; lines are positions, counted from 1. Read once."""

    def __init__(self, items: Iterable[Payout] | AsyncIterable[Payout], name: str) -> None:
        self.name = name
        self.digest = ""
        self.columns: Sequence[str] = COLUMNS
        self.dialect: Mapping[str, str] = {"format": "payouts", "delimiter": ",", "bom": "no"}
        self._items = items

    async def blocks(self) -> AsyncIterator[Block]:
        """Yield the payouts as rows.

        Raises:
            InputError: there are none, an item is not a `Payout`, or it holds another type than a `Payout` says.
        """
        rows: list[list[str]] = []
        first = 1
        async for item in _each(self._items):
            rows.append(self._row(item, first + len(rows)))
            if len(rows) == BLOCK_ROWS:
                yield self._block(first, rows)
                first, rows = first + len(rows), []
        if rows:
            yield self._block(first, rows)
        elif first == 1:
            raise InputError(f"{self.name} gave no payouts. Give at least one.")

    def _row(self, item: object, position: int) -> list[str]:
        if not isinstance(item, Payout):
            raise InputError(f"{self.name}, item {position}: a {type(item).__name__} is not a Payout.")
        if type(item.amount_minor) is not int:
            raise InputError(f"{self.name}, item {position}: amount_minor must be an int, in minor units.")
        return [
            item.reference,
            str(item.amount_minor),
            item.currency,
            item.phone,
            item.email,
            item.account_number,
            item.country,
            item.wallet,
            item.name,
            item.bank,
            item.document_type,
            item.document_number,
            item.otp,
        ]

    def _block(self, first: int, rows: Sequence[list[str]]) -> Block:
        if not _ONLY_TEXT.issuperset(map(type, chain.from_iterable(rows))):
            for position, row in enumerate(rows, start=first):
                for column, cell in zip(COLUMNS, row, strict=True):
                    if type(cell) is not str:
                        raise InputError(f"{self.name}, item {position}: {column} must be text (str).")
        return check_cells(self.name, Block(range(first, first + len(rows)), rows))


def payouts_source(items: Iterable[Payout] | AsyncIterable[Payout], name: str = "payouts") -> PayoutsSource:
    """Return payouts from a program as a source.

    Args:
        items: read once, in order, never held whole.
        name: what to call them in messages and results.
    """
    return PayoutsSource(items, name)


async def _each(items: Iterable[Payout] | AsyncIterable[Payout]) -> AsyncIterator[Payout]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for count, item in enumerate(items):
        if count % BLOCK_ROWS == 0:
            await anyio.lowlevel.checkpoint()
        yield item
