"""The wall clock, in one place, so that a simulation can replace it.

Durations never come from here: they follow the event loop's own clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

_read: Callable[[], float] = time.time  # noqa: TID251 - this is the one place


def now() -> float:
    """Return the wall-clock time in seconds since 1970-01-01 UTC."""
    return _read()


@contextmanager
def replaced(read: Callable[[], float]) -> Iterator[None]:
    """Let `read` tell the time while inside; for simulations, which live in a time of their own."""
    global _read
    before, _read = _read, read
    try:
        yield
    finally:
        _read = before


def text(at: float) -> str:
    """Return `at` as RFC 3339 UTC with milliseconds, such as `2026-11-20T22:53:00.125Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
