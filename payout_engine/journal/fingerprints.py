"""The hashes by which repeats are found: 63 bits each of a reference, of who is paid how much, and of a line's cells.

Equal hashes only make candidates, which are then compared exactly. The two lowest bits say which of the three a hash
is, so that a search may leave one kind out without looking. What is hashed and compared is what people mean: a file
that was saved again by another program is the same file, though its zeros, spaces or accents are written otherwise.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from zlib import crc32

from payout_engine.domain.model import Payout

KIND_MASK = 3
"""The bits of a hash that say of what it is."""

REFERENCE_KIND, PAYEE_KIND, CELLS_KIND = 0, 1, 2

HASHES_EACH = 3
"""Hashes for one payout: of its reference, its payee and amount, and its cells, in this order."""

OWN_PREFIX = "payout_"
"""How the columns begin that our own results add: they say what became of a line, and are no part of it."""

_PRIME = 2**61 - 1
"""Numbers below it leave room for the kind in 63 bits."""

_AMOUNT_FACTOR, _CELL_FACTOR = 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9

_ROW, _CELL = "\x1e", "\x1f"
"""Between rows and between cells while a whole chunk is rewritten at once; a cell that holds one goes the slow way."""

# What a spreadsheet adds or loses: every kind of space and apostrophe, quotation marks, a leading `=` or `+`.
_DROPPED = dict.fromkeys(
    map(ord, " \t\r\n\v\f'`\u00b4\u2018\u2019\u201b\u02bc\"\u201c\u201d\u00ab\u00bb=+\u200b\u200c\u200d\u2060\ufeff")
)
_LEADING_ZEROS = re.compile(r"(?:(?<=[\x1e\x1f])|\A)0+(?=[0-9])")
_NO_DECIMALS = re.compile(r"(?<=[0-9])[.,]0+(?=[\x1e\x1f]|\Z)")


def as_meant(text: str) -> str:
    """Return a cell, or several between separators, as a person means it: `0001` and `1`, `R 1` and `R1` are one.

    Unicode is composed and its case folded; spaces, apostrophes and quotation marks go, and so do zeros before a
    number and decimals that are nothing.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold().translate(_DROPPED)
    # Most texts hold nothing of the kind, and looking for two characters costs next to nothing.
    if text.startswith("0") or f"{_CELL}0" in text or f"{_ROW}0" in text:
        text = _LEADING_ZEROS.sub("", text)
    return _NO_DECIMALS.sub("", text) if ".0" in text or ",0" in text else text


def reference_as_meant(reference: str) -> str:
    """Return a reference as a person means it; one of nothing but signs stays as it is."""
    return as_meant(reference) or reference


def cells_as_meant(row: Sequence[str], kept: Sequence[int] | None) -> str:
    """Return the cells of a row as one text that is equal for lines with equal cells, in whatever order.

    Args:
        row: the cells.
        kept: which of them count, as from `own_cells`; None for all.
    """
    cells = row if kept is None else [row[index] for index in kept]
    return _CELL.join(sorted(filter(None, map(as_meant, cells))))


def own_cells(columns: Sequence[str]) -> Sequence[int] | None:
    """Return which cells of a row are the payer's own, or None for all of them."""
    added = {index for index, column in enumerate(columns) if column.strip().casefold().startswith(OWN_PREFIX)}
    return [index for index in range(len(columns)) if index not in added] if added else None


def payee(payout: Payout) -> str:
    """Return who is paid how much, as one text that is equal exactly when these are."""
    return f"{payout.phone or payout.recipient.lower()}|{payout.amount_minor}|{payout.currency}"


def hashes(payouts: Sequence[Payout], rows: Sequence[Sequence[str]], kept: Sequence[int] | None) -> list[int]:
    """Return three hashes for each payout of a chunk; see `HASHES_EACH`.

    Args:
        payouts: of the chunk.
        rows: the cells of each.
        kept: which cells of a row count; see `own_cells`.
    """
    found = [0] * (HASHES_EACH * len(payouts))
    found[REFERENCE_KIND::HASHES_EACH] = _reference_hashes([payout.reference for payout in payouts])
    found[PAYEE_KIND::HASHES_EACH] = [_payee_hash(payout) for payout in payouts]
    found[CELLS_KIND::HASHES_EACH] = _cells_hashes(rows, kept)
    return found


def _reference_hashes(references: Sequence[str]) -> list[int]:
    joined = as_meant(_CELL.join(references)).encode(errors="surrogatepass").split(_CELL.encode())
    if len(joined) != len(references) or not all(joined):
        joined = [reference_as_meant(reference).encode(errors="surrogatepass") for reference in references]
    return [_number(text) << 2 | REFERENCE_KIND for text in joined]


def _payee_hash(payout: Payout) -> int:
    if payout.phone.isdecimal():
        return (int(payout.phone) * _AMOUNT_FACTOR + payout.amount_minor) % _PRIME << 2 | PAYEE_KIND
    return _number(payee(payout).encode(errors="surrogatepass")) << 2 | PAYEE_KIND


def _cells_hashes(rows: Sequence[Sequence[str]], kept: Sequence[int] | None) -> list[int]:
    """Return hashes of rows whose cells may stand in any order: sums do not know an order."""
    if kept is not None:
        rows = [[row[index] for index in kept] for row in rows]
    cell = _CELL.encode()
    meant = as_meant(_ROW.join([_CELL.join(row) for row in rows])).encode(errors="surrogatepass").split(_ROW.encode())
    if len(meant) != len(rows):
        meant = [cells_as_meant(row, None).encode(errors="surrogatepass") for row in rows]
    # An empty cell adds nothing.
    return [sum(map(crc32, line.split(cell))) * _CELL_FACTOR % _PRIME << 2 | CELLS_KIND for line in meant]


def _number(text: bytes) -> int:
    """Return a number that two texts rarely share. Arithmetic is enough, since a hash only nominates."""
    return int.from_bytes(text, "little") % _PRIME
