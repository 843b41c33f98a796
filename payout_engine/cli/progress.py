"""Progress while paying: bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from payout_engine import observe
from payout_engine.cli.console import messages, plain, say
from payout_engine.lifecycle import OPEN, State
from payout_engine.model import Outcome, Tally

PLAIN_EVERY_SECONDS = 5.0
"""How often a plain line is printed where there is no terminal."""

SETTLED = frozenset(State) - OPEN - {State.READY}


class Meter:
    """Counts what happens and shows it.

    Args:
        total: payouts that are ready or open when paying begins.
        already_sent: how many of them were sent before.
    """

    def __init__(self, total: int, already_sent: int, bars: Progress | None) -> None:
        self.total = total
        self.sent = already_sent
        self.settled = 0
        self._bars = bars
        self._spoken_at = time.monotonic()
        self._spoken = ""
        if bars is not None:
            self._sent_bar = bars.add_task("sent", total=total, completed=already_sent)
            self._settled_bar = bars.add_task("settled", total=total)

    def watch(self, event: observe.Event) -> None:
        """Take note of an event of the engine."""
        if isinstance(event, observe.Dispatched):
            self.sent += event.count
        elif isinstance(event, observe.Braked | observe.Waiting):
            where = "/".join(part for part in (event.account, getattr(event, "lane", "")) if part)
            say(f"[yellow]{plain(where)}[/] {plain(event.message)}")
        elif isinstance(event, observe.LookedUp) and event.problem:
            say(f"[yellow]{plain(event.account)}[/] {plain(event.problem)} Asking again later.")
        self._show()

    def settle(self, outcome: Outcome) -> None:
        """Take note of an outcome."""
        if outcome.status in SETTLED:
            self.settled += 1
        elif outcome.status is State.READY:
            self.sent -= 1

    def _show(self) -> None:
        if self._bars is not None:
            self._bars.update(self._sent_bar, completed=min(self.sent, self.total))
            self._bars.update(self._settled_bar, completed=min(self.settled, self.total))
        elif time.monotonic() - self._spoken_at >= PLAIN_EVERY_SECONDS:
            self._spoken_at = time.monotonic()
            line = f"{self.sent:,} of {self.total:,} sent, {self.settled:,} settled"
            if line != self._spoken:
                say(line)
            self._spoken = line


@contextmanager
def metered(tallies: Sequence[Tally], *, quiet: bool) -> Iterator[Meter]:
    """Show progress of paying what is ready and open, until the end of the block."""
    sent = sum(tally.count for tally in tallies if tally.state in OPEN)
    total = sent + sum(tally.count for tally in tallies if tally.state is State.READY)
    if quiet or not messages.is_terminal or not total:
        yield Meter(total, sent, None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:>8}"),
        BarColumn(bar_width=40, complete_style="cyan"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=messages, transient=False) as bars:
        meter = Meter(total, sent, bars)
        yield meter
        meter._show()


class LineCounter:
    """Shows how many lines of the input were judged so far."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._spoken_at = time.monotonic()

    def watch(self, event: observe.Event) -> None:
        """Take note of an event of the engine."""
        if isinstance(event, observe.LinesRead) and self._shown and time.monotonic() - self._spoken_at >= 0.2:
            self._spoken_at = time.monotonic()
            messages.print(f"{event.lines:,} lines judged", end="\r")
