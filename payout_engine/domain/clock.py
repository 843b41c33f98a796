"""The clocks, in one place, so that a simulation can replace them.

The wall clock says when things happened, for people; anybody may set it. Where money depends on how long ago something
was, `least_age_seconds` says it by the time since the machine's last start, which nobody sets. Durations within one
process never come from here: they follow the event loop's own clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Moment(NamedTuple):
    """A moment by both clocks.

    Attributes:
        at: by the wall clock, in seconds since 1970.
        boot: which start of the machine the next counts from.
        up_seconds: how long the machine had been up, its sleep included.
    """

    at: float
    boot: str
    up_seconds: float


def _uptime() -> tuple[str, float]:
    """Return which start of the machine this is, and how long ago it was.

    Where the system does not say, this process's own first look counts as a start: ages are shorter then, never longer.
    """
    if _BOOT and hasattr(time, "CLOCK_BOOTTIME"):
        return _BOOT, time.clock_gettime(time.CLOCK_BOOTTIME)
    return _PROCESS, time.monotonic() - _STARTED_AT


try:
    _BOOT = _BOOT_ID.read_text(encoding="ascii").strip()
except (OSError, UnicodeDecodeError):
    _BOOT = ""
_PROCESS, _STARTED_AT = uuid4().hex, time.monotonic()

_read: Callable[[], float] = time.time  # noqa: TID251 - this is the one place
_up: Callable[[], tuple[str, float]] = _uptime


def now() -> float:
    """Return the wall-clock time in seconds since 1970-01-01 UTC."""
    return _read()


def moment() -> Moment:
    """Return the time by both clocks."""
    return Moment(now(), *_up())


def later(one: Moment, other: Moment) -> Moment:
    """Return the later of two moments: by the uptime where both count from one start, else by the wall clock."""
    if one.boot == other.boot:
        return max(one, other, key=lambda each: each.up_seconds)
    return max(one, other)


def least_age_seconds(then: Moment) -> float:
    """Return how long ago `then` was, at least, whatever was done to the wall clock since.

    After a restart of the machine it is the time since that start; or less, if the wall clock says less: the journal
    may have come from another machine, which was up when this one was.
    """
    here = moment()
    if then.boot == here.boot:
        return here.up_seconds - then.up_seconds
    return max(0.0, min(here.up_seconds, here.at - then.at))


@contextmanager
def replaced(read: Callable[[], float], up: Callable[[], tuple[str, float]] | None = None) -> Iterator[None]:
    """Let `read` tell the time while inside, and `up` the uptime: simulations live in a time of their own."""
    global _read, _up
    before, (_read, _up) = (_read, _up), (read, up or _up)
    try:
        yield
    finally:
        _read, _up = before


@lru_cache(maxsize=1024)  # what one answer brought shares its time, so the same text is asked for again and again
def text(at: float) -> str:
    """Return `at` as RFC 3339 UTC with milliseconds, such as `2026-11-20T22:53:00.125Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def minute(at: float) -> str:
    """Return `at` as people read it, such as `2026-11-20 22:53 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
