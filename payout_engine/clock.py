"""The wall clock, in one place, so that a simulation can replace it.

Durations never come from here: they follow the event loop's own clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> float:
    """Return the wall-clock time in seconds since 1970-01-01 UTC."""
    return time.time()  # noqa: TID251 - this is the one place


def text(at: float) -> str:
    """Return `at` as RFC 3339 UTC with milliseconds, such as `2026-11-20T22:53:00.125Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
