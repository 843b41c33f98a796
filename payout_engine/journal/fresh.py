"""The hashes by which repeats are found: 64 bits each of a reference, of who is paid how much, and of a line's cells.

Equal hashes only make candidates, which are then compared exactly. The two lowest bits say which of the three a hash
is, so that a search may leave one kind out without looking. What is hashed and compared is what people mean: a file
that was saved again by another program is the same file, though its zeros, spaces or accents are written otherwise.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from zlib import crc32

from payout_engine.model import Payout

KIND_MASK = 3
"""The bits of a hash that say of what it is."""

REFERENCE_KIND, PAYEE_KIND, CELLS_KIND = 0, 1, 2

HASHES_EACH = 3
"""Hashes for one payout: of its reference, its payee and amount, and its cells, in this order."""

OWN_PREFIX = "payout_"
"""How the columns begin that our own results add: they say what became of a line, and are no part of it."""

_PHONE_FACTOR, _AMOUNT_FACTOR, _CELL_FACTOR = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_MASK, _HALF = 2**64 - 1, 2**63

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
    return _NO_DECIMALS.sub("", _LEADING_ZEROS.sub("", text))


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
    """Return three signed hashes for each payout of a chunk; see `HASHES_EACH`.

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
    return [
        _of_kind(int.from_bytes(blake2b(text, digest_size=8).digest(), "little"), REFERENCE_KIND) for text in joined
    ]


def _payee_hash(payout: Payout) -> int:
    """A number that two payouts rarely share unless payee and amount agree. Arithmetic is enough: it only nominates."""
    if payout.phone.isdecimal():
        return _of_kind(int(payout.phone) * _PHONE_FACTOR + payout.amount_minor * _AMOUNT_FACTOR, PAYEE_KIND)
    digest = blake2b(payee(payout).encode(), digest_size=8).digest()
    return _of_kind(int.from_bytes(digest, "little"), PAYEE_KIND)


def _cells_hashes(rows: Sequence[Sequence[str]], kept: Sequence[int] | None) -> list[int]:
    """Return hashes of rows whose cells may stand in any order: sums do not know an order."""
    if kept is not None:
        rows = [[row[index] for index in kept] for row in rows]
    meant = as_meant(_ROW.join([_CELL.join(row) for row in rows])).encode(errors="surrogatepass").split(_ROW.encode())
    if len(meant) != len(rows) or any(
        line.count(_CELL.encode()) != len(row) - 1 for line, row in zip(meant, rows, strict=True)
    ):
        meant = [cells_as_meant(row, None).encode(errors="surrogatepass") for row in rows]
    nothing, cell = crc32(b""), _CELL.encode()
    return [
        _of_kind(sum([crc32(part) for part in line.split(cell) if part]) * _CELL_FACTOR + nothing, CELLS_KIND)
        for line in meant
    ]


def _of_kind(number: int, kind: int) -> int:
    """Return 64 signed bits of a number, the two lowest of which say the kind."""
    return ((number & _MASK & ~KIND_MASK) | kind) - (_HALF << 1 if number & _HALF else 0)
