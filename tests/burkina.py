"""An account in Burkina Faso for tests: three wallets, 100 payouts a call, five calls a second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from payout_engine.domain.errors import InputError
from payout_engine.domain.model import Block
from payout_engine.intake.route import AccountWallets, Router
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits, Wallet

ORANGE_PREFIXES = tuple(f"{first}{last}" for first in "0567" for last in "4567")
MOOV_PREFIXES = tuple(prefix for first in "0567" for prefix in (f"{first}{last}" for last in "0123") if prefix != "00")


def traits(**changes: object) -> Traits:
    """Traits of a bulk provider of mobile money, with changes."""
    facts: dict[str, object] = {
        "batch_limit": 100,
        "calls_per_second": 5.0,
        "concurrency": 4,
        "key_promise": KeyPromise.NONE,
        "key_lifetime_seconds": None,
        "look_up": LookUpKind.SWEEP,
        "absence_final_seconds": None,
    }
    return Traits(**{**facts, **changes})  # type: ignore[arg-type]


def wallet(code: str, title: str, **changes: object) -> Wallet:
    """A wallet in Burkina Faso, with changes."""
    facts: dict[str, object] = {
        "country": "BF",
        "currency": "XOF",
        "decimals": 0,
        "amount_minor_min": 100,
        "fee_basis_points": 150,
    }
    return Wallet(code=code, title=title, **{**facts, **changes})  # type: ignore[arg-type]


ORANGE = wallet("orange_bf", "Orange Money", operators=("Orange",), prefixes=ORANGE_PREFIXES)
MOOV = wallet("moov_bf", "Moov Money", operators=("Moov Africa",), prefixes=MOOV_PREFIXES)
SANK = wallet("sank_bf", "Sank Money", automatic=False)
WALLETS = (ORANGE, MOOV, SANK)


def served(account: str = "bf", wallets: Sequence[Wallet] = WALLETS, **changes: object) -> AccountWallets:
    """The account."""
    return AccountWallets(account, traits(**changes), wallets)


def router() -> Router:
    """A router to that one account."""
    return Router([served()])


class RowsSource:
    """A source of rows, for tests of intake."""

    def __init__(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        digest: str = "d1" * 32,
        block_rows: int = 1_000,
        breaks_at: int | None = None,
    ) -> None:
        self.name = "salaries.csv"
        self.digest = digest
        self.columns = columns
        self.dialect: Mapping[str, str] = {"delimiter": ";"}
        self._rows = rows
        self._block_rows = block_rows
        self._breaks_at = breaks_at

    async def blocks(self) -> AsyncIterator[Block]:
        """Yield the rows from line 2; fail after `breaks_at` of them."""
        for start in range(0, len(self._rows), self._block_rows):
            if self._breaks_at is not None and start >= self._breaks_at:
                raise InputError(f"{self.name}, line {start + 2}: a NUL byte; this is no text file.")
            rows = self._rows[start : start + self._block_rows]
            yield Block(range(start + 2, start + 2 + len(rows)), rows)
