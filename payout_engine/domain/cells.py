"""Cells of a text table that a spreadsheet would run as a formula: made harmless when written, restored when read.

A name such as `=HYPERLINK(...)` in somebody's payout file must not become a formula on the screen of whoever opens our
results. Such a cell gets an apostrophe in front, which spreadsheets take as "this is text". Plain numbers, also
negative ones and phone numbers with a plus, cannot do anything and stay as they are.

Our files are fed back: a reference that came back with an apostrophe would be another reference, and paid again. So the
readers of text tables take the apostrophe off again. A cell that had apostrophes of its own before such a text gets one
more, and loses one: `restored(harmless(cell)) == cell` for every cell there is, and no other cell is touched.

Source: OWASP ASVS 5.0, requirement 1.2.10 (leading = + - @, tab and NUL), and CWE-1236, read 2026-11-20. Line ends and
the full-width forms of the signs are added, since some spreadsheets take them alike, and whatever is blank or cannot be
seen before them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

APOSTROPHE = "'"

_BLANKS = " \x0b\x0c\x1c\x1d\x1e\x1f\x85\u00a0\u00ad\u1680\u180e\u3000\ufeff" + "".join(
    map(chr, (*range(0x2000, 0x2010), *range(0x2028, 0x2030), *range(0x205F, 0x2065)))
)
_ALWAYS = "=@＝＠\t\r\n\0"
_SIGNS = "+＋－-"  # the hyphen last, where a character class takes it for itself
_NUMBER = r"[0-9][0-9 .,()/\u00a0\u202f-]*(?:[eE][+-]?[0-9]+)?"

_RUNS = re.compile(f"{APOSTROPHE}*[{_BLANKS}]*(?:[{_ALWAYS}]|[{_SIGNS}](?!{_NUMBER}\\Z))")
_FIRST = frozenset(APOSTROPHE + _BLANKS + _ALWAYS + _SIGNS)
"""Whatever a cell begins with that `_RUNS` finds: looking at one character spares nearly every cell the pattern."""

FIRST_BYTES = frozenset(character.encode()[0] for character in _FIRST)
"""The first byte, in UTF-8, of every cell that `harmless` changes, and of some others."""

_MARK = b"'"
_FOLLOWED = re.compile(b"'(?:['=@+\\- \t\r\n\0\x0b\x0c\x1c-\x1f\xa0\xad\xc2\xe1-\xe3\xef]|\\Z)")
"""An apostrophe and the first byte of anything that `_RUNS` may find after it, in UTF-8 or CP1252."""


def harmless(cell: str) -> str:
    """Return `cell`, with an apostrophe in front if a spreadsheet could run it, or if it looks as if we had put one."""
    return APOSTROPHE + cell if _RUNS.match(cell) else cell


def harmless_rows(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """Return rows with every cell harmless; the same rows if all of them are, as nearly always."""
    found = {cell for row in rows for cell in row if cell[:1] in _FIRST and _RUNS.match(cell)}
    if not found:
        return rows
    return [[APOSTROPHE + cell if cell in found else cell for cell in row] for row in rows]


def restored(cell: str) -> str:
    """Return the cell that `harmless` made this one of: without the apostrophe, if it is ours."""
    return cell[1:] if cell.startswith(APOSTROPHE) and _RUNS.match(cell) else cell


def restored_rows(rows: Sequence[list[str]]) -> Sequence[list[str]]:
    """Return rows with every cell restored; the same rows if no cell begins with an apostrophe, as nearly always."""
    if "\n'" not in "\n".join(chain("\n", chain.from_iterable(rows))):
        return rows
    found = {cell for row in rows for cell in row if cell[:1] == APOSTROPHE and _RUNS.match(cell)}
    return [[cell[1:] if cell in found else cell for cell in row] for row in rows] if found else rows


def encodable(text: str) -> str:
    """Return a text that every format can hold and every reader takes: NULs and lone halves of characters spelt out."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def may_hold_ours(data: bytes) -> bool:
    """Tell whether a piece of a text file, in UTF-8 or CP1252, may hold a cell for `restored`; nearly always no."""
    return _MARK in data and _FOLLOWED.search(data) is not None
