"""Reading rows with their types left to the queries, which know them better than the library's own annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import apsw

Row = tuple[Any, ...]


def row(db: apsw.Connection, query: str, bindings: Sequence[Any] = ()) -> Row | None:
    """Return the first row, or None."""
    return cast("Row | None", db.execute(query, bindings).fetchone())


def only(db: apsw.Connection, query: str, bindings: Sequence[Any] = ()) -> Row:
    """Return the first row of a query that cannot come back empty."""
    found = row(db, query, bindings)
    assert found is not None
    return found


def every(db: apsw.Connection, query: str, bindings: Sequence[Any] | Mapping[str, Any] = ()) -> Iterator[Row]:
    """Go through the rows as they are read."""
    return cast("Iterator[Row]", db.execute(query, bindings))


def value(db: apsw.Connection, query: str, bindings: Sequence[Any] = ()) -> Any:
    """Return the first column of the first row, or None."""
    found = row(db, query, bindings)
    return None if found is None else found[0]
