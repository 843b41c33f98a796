"""Payout files of any size: every line valid and unlike every other, and the total known.

The same number of lines always gives the same file. Orange and Moov numbers alternate, so that a file of a multiple of
200 lines makes only full calls. Used by every case; streams, so that ten million lines need no more memory than ten.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

HEADER = "reference,phone,amount,name\n"
COUNTRY_DIGITS = "226"
LINES_WRITTEN_AT_ONCE = 10_000
SUFFIXES = 1_000_000
SUFFIX_STEP = 611_953  # shares no factor with SUFFIXES, so that the suffixes are scattered and none comes twice

# Source: Senfenico API document, 'providers', read 2026-11-20: a part of each operator's list.
ORANGE = ("07", "54", "55", "56", "57", "64", "65", "66", "67", "74", "75", "76", "77")
MOOV = ("70", "71", "72", "73", "60", "61", "62", "63")
WALLETS = (("orange_bf", ORANGE), ("moov_bf", MOOV))
LINES_MAX = 2 * SUFFIXES * len(MOOV)

AMOUNT_MIN = 500
AMOUNT_SPREAD = 99_500
NAMES = ("Awa Ouedraogo", "Issa Sawadogo", "Mariam Kabore", "Salif Traore", "Fatimata Zongo", "Adama Compaore")


class Line(NamedTuple):
    """One payout: `phone` is the eight national digits, `amount` whole francs."""

    reference: str
    phone: str
    amount: int
    wallet: str


class PayoutFile(msgspec.Struct, frozen=True):
    """A generated file and what a ledger must hold once it is paid."""

    path: Path
    lines: int
    amount_minor: int


def lines(count: int) -> Iterator[Line]:
    """Yield `count` payouts, no recipient twice.

    Raises:
        ValueError: there are not that many recipients.
    """
    if not 0 < count <= LINES_MAX:
        raise ValueError(f"a file has 1 to {LINES_MAX} lines")
    for number in range(count):
        wallet, prefixes = WALLETS[number & 1]
        turn, prefix = divmod(number >> 1, len(prefixes))
        suffix = turn * SUFFIX_STEP % SUFFIXES
        amount = AMOUNT_MIN + number * 37 % AMOUNT_SPREAD
        yield Line(f"PAY-{number:08d}", f"{prefixes[prefix]}{suffix:06d}", amount, wallet)


def write_file(path: Path, count: int) -> PayoutFile:
    """Write a CSV file of `count` payouts and return what is in it."""
    total = 0
    waiting = [HEADER]
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, (reference, phone, amount, _wallet) in enumerate(lines(count)):
            total += amount
            waiting.append(f"{reference},{COUNTRY_DIGITS}{phone},{amount},{NAMES[number % len(NAMES)]}\n")
            if len(waiting) >= LINES_WRITTEN_AT_ONCE:
                file.write("".join(waiting))
                waiting.clear()
        file.write("".join(waiting))
    return PayoutFile(path, count, total)
