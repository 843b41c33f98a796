"""Progress while paying: bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from payout_engine.cli.console import emit, messages, plain, say
from payout_engine.domain.errors import Holder
from payout_engine.domain.model import Outcome
from payout_engine.domain.states import OPEN, State
from payout_engine.ports import observer

PLAIN_EVERY_SECONDS = 5.0
"""How often a plain line is printed where there is no terminal."""

NOT_MOVING = frozenset(State) - OPEN - {State.READY}


class Meter:
    """Counts what happens and shows it.

    Args:
        bars: where bars are drawn, or None for plain lines.
        json: tell programs whom we wait for.
    """

    def __init__(self, bars: Progress | None, *, json: bool) -> None:
        self.total = 0
        self.sent = 0
        self.settled = 0
        self._bars = bars
        self._ids: dict[str, TaskID] = {}
        self._queue = Queue(json=json)
        self._spoken_at = time.monotonic()
        self._spoken = ""

    def watch(self, event: observer.Event) -> None:
        """Take note of an event of the engine."""
        if isinstance(event, observer.Queued):
            self._queue.watch(event)
            self._bar("waiting", event.settled, event.total)
            return
        if isinstance(event, observer.Begun):
            self._queue.end()
            self._drop("waiting")
            self.total, self.sent = event.ready + event.sent, event.sent
        elif isinstance(event, observer.Dispatched):
            self.sent += event.count
        elif isinstance(event, observer.Braked | observer.Waiting):
            where = "/".join(part for part in (event.account, getattr(event, "lane", "")) if part)
            say(f"[yellow]{plain(where)}[/] {plain(event.message)}")
        elif isinstance(event, observer.LookedUp) and event.problem:
            say(f"[yellow]{plain(event.account)}[/] {plain(event.problem)} Asking again later.")
        self.show()

    def settle(self, outcome: Outcome) -> None:
        """Take note of an outcome."""
        if outcome.status in NOT_MOVING:
            self.settled += 1
        elif outcome.status is State.READY:
            self.sent -= 1

    def show(self) -> None:
        """Show how far it is."""
        self._bar("sent", self.sent, self.total)
        self._bar("settled", self.settled, self.total)
        if self._bars is None and time.monotonic() - self._spoken_at >= PLAIN_EVERY_SECONDS:
            self._spoken_at = time.monotonic()
            line = f"{self.sent:,} of {self.total:,} sent, {self.settled:,} settled"
            if line != self._spoken:
                say(line)
            self._spoken = line

    def _bar(self, name: str, done: int, total: int) -> None:
        """Draw a bar; one of nothing is not drawn."""
        if self._bars is None or not total:
            return
        if name not in self._ids:
            self._ids[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._ids[name], completed=min(done, total), total=total)

    def _drop(self, name: str) -> None:
        if self._bars is not None and name in self._ids:
            self._bars.remove_task(self._ids.pop(name))


class Queue:
    """Says whom we wait for: once in full, then how far that one is.

    Args:
        json: tell programs, too.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._holder: Holder | None = None
        self._waiting = False
        self._spoken_at = time.monotonic()

    def watch(self, event: observer.Queued) -> None:
        """Take note that somebody else has what we need."""
        if not self._waiting or event.holder != self._holder:
            say(f"{plain(event.message)}. Waiting until it has ended; Ctrl-C ends this waiting and nothing else.")
            if self._json:
                emit("waiting", holder=event.holder, settled=event.settled, total=event.total)
        elif time.monotonic() - self._spoken_at < PLAIN_EVERY_SECONDS or not event.total:
            return
        elif not messages.is_terminal:
            say(f"Still waiting: {event.settled:,} of its {event.total:,} payouts have settled.")
        self._waiting, self._holder, self._spoken_at = True, event.holder, time.monotonic()

    def end(self) -> None:
        """Say that the waiting is over, if there was any."""
        if self._waiting:
            say("The other process has ended; going on.")
        self._waiting = False


@contextmanager
def metered(*, json: bool) -> Iterator[Meter]:
    """Show progress of paying until the end of the block."""
    if json or not messages.is_terminal:
        yield Meter(None, json=json)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:>8}"),
        BarColumn(bar_width=40, complete_style="cyan"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=messages, transient=False) as bars:
        meter = Meter(bars, json=json)
        yield meter
        meter.show()


class LineCounter:
    """Shows how many lines of the input were validated so far."""

    def __init__(self, *, json: bool) -> None:
        self._shown = not json and sys.stderr.isatty()
        self._queue = Queue(json=json)
        self._spoken_at = time.monotonic()

    def watch(self, event: observer.Event) -> None:
        """Take note of an event of the engine."""
        if isinstance(event, observer.Queued):
            self._queue.watch(event)
        elif isinstance(event, observer.LinesRead):
            self._queue.end()
            self._show(event)

    def _show(self, event: observer.LinesRead) -> None:
        if self._shown and time.monotonic() - self._spoken_at >= 0.2:
            self._spoken_at = time.monotonic()
            messages.print(f"{event.lines:,} lines validated", end="\r")
