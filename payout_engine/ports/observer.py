"""What the engine tells those who watch: small frozen events, given to one callable.

Money never depends on a watcher: an exception from one is logged and swallowed. Events carry no phone and no secret.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from payout_engine.domain.errors import Brake, Holder

logger = logging.getLogger("payout_engine")


class LinesRead(msgspec.Struct, frozen=True):
    """Intake has validated this many lines so far."""

    lines: int


class Begun(msgspec.Struct, frozen=True):
    """Paying begins, with every right to it: `ready` payouts are to be sent, `sent` ones are followed."""

    ready: int
    sent: int


class Dispatched(msgspec.Struct, frozen=True):
    """A call was answered, or not: `count` payouts of `lane` were spoken of."""

    account: str
    lane: str
    count: int


class Braked(msgspec.Struct, frozen=True):
    """A brake stopped a lane (or the whole account, when `lane` is empty), and why."""

    account: str
    lane: str
    brake: Brake
    message: str


class LookedUp(msgspec.Struct, frozen=True):
    """A look-up ended; `changed` payouts moved. `problem` says what went wrong, or is empty."""

    account: str
    changed: int
    problem: str
    next_in_seconds: float


class Waiting(msgspec.Struct, frozen=True):
    """Something to wait for, in words: a refusal for the rate, a provider out of reach."""

    account: str
    message: str


class Queued(msgspec.Struct, frozen=True):
    """Another process holds what we need; we wait until it has ended.

    Attributes:
        message: who it is and what it does.
        holder: the same, for programs; None when it did not say.
        settled: how many payouts of its run have settled, as far as that can be seen.
        total: of how many; 0 when it cannot be seen.
    """

    message: str
    holder: Holder | None
    settled: int = 0
    total: int = 0


Event = LinesRead | Begun | Dispatched | Braked | LookedUp | Waiting | Queued
Observer = Callable[[Event], None]


def safe(watch: Observer | None) -> Observer:
    """Return a watcher that never raises."""

    def notify(event: Event) -> None:
        if watch is None:
            return
        try:
            watch(event)
        except (Exception, SystemExit):
            # One that wants to leave may not cut off what is on the wire either.
            logger.exception("a watcher failed on %s", type(event).__name__)

    return notify
