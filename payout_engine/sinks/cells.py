"""Cells that a spreadsheet would run as a formula, made harmless.

A name such as `=HYPERLINK(...)` in somebody's payout file must not become a formula on the screen of whoever opens our
results. Such a cell gets an apostrophe in front, which spreadsheets take as "this is text". Plain numbers, also
negative ones and phone numbers with a plus, cannot do anything and stay as they are.

Source: OWASP ASVS 5.0, requirement 1.2.10 (leading = + - @, tab and NUL), and CWE-1236, read 2026-11-20. Line ends and
the full-width forms of the signs are added, since some spreadsheets take them alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_BLANKS = " \u00a0\u200b\u202f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
_ALWAYS = "=@＝＠\t\r\n\0"
_SIGNS = "+＋－-"  # the hyphen last, where a character class takes it for itself
_NUMBER = r"[0-9][0-9 .,()/\u00a0\u202f-]*(?:[eE][+-]?[0-9]+)?"

_RUNS = re.compile(f"[{_BLANKS}]*(?:[{_ALWAYS}]|[{_SIGNS}](?!{_NUMBER}\\Z))")
_FIRST = frozenset(_BLANKS + _ALWAYS + _SIGNS)
"""Whatever a cell begins with that `_RUNS` finds: looking at one character spares nearly every cell the pattern."""


def harmless(cell: str) -> str:
    """Return `cell`, with an apostrophe in front if a spreadsheet could run it."""
    return "'" + cell if _RUNS.match(cell) else cell


def harmless_rows(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """Return rows with every cell harmless; the same rows if all of them are, as nearly always."""
    found = {cell for row in rows for cell in row if cell[:1] in _FIRST and _RUNS.match(cell)}
    if not found:
        return rows
    return [["'" + cell if cell in found else cell for cell in row] for row in rows]
