"""Column names for formats that need one for each column, and each another."""

from __future__ import annotations

from collections.abc import Sequence


def distinct(columns: Sequence[str]) -> list[str]:
    """Return the columns with nameless ones called `column_3` by their place, and none called like another."""
    names: dict[str, None] = {}
    for number, column in enumerate(columns, start=1):
        name = column.strip() or f"column_{number}"
        while name in names:
            name = f"{name}_{number}"
        names[name] = None
    return list(names)
