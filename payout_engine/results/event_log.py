"""`events.jsonl`: every outcome as it happened, one JSON object on each line, in the order of the journal's log.

The file itself remembers how far it has come, so that after a crash delivery goes on exactly where it stopped: each
line holds the number `seq` of its log entry, and `more`, how many outcomes of that entry follow. An entry that is not
there to its end was cut by a crash and is removed when the file is opened. No line holds a phone number.

While paying goes on, `writing_events` carries the log into the file. Whatever fails there, the file or the reading of
the log, is told and tried again; it never stops money, nor cuts off what is on the wire.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
import msgspec

from payout_engine.domain import clock
from payout_engine.domain.errors import SinkError
from payout_engine.domain.limits import TEXT_LINE_BYTES_MAX
from payout_engine.domain.model import Outcome, Run
from payout_engine.domain.states import State
from payout_engine.ports.journal import Journal
from payout_engine.ports.observer import Observer, Waiting
from payout_engine.sinks.atomic_file import told_as_sink_error

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.5
"""How far the file may lag behind the journal."""

_TAIL_BYTES = 64 * 1024
"""Bytes read at a time from the end: the file is opened often, and its last lines are there."""

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
"""Whoever can put a link into a folder must not choose which of the user's files we add to."""

_OURS = b'{"seq":'
"""How every event begins."""

_ENCODER = msgspec.json.Encoder()


class _Mark(msgspec.Struct):
    """What we need of a line to know where we are."""

    seq: int
    more: int
    run_id: str


_MARKS = msgspec.json.Decoder(_Mark)


class _Event(msgspec.Struct, gc=False):
    """A line, its fields in their order. `seq` stands first, by which the file is known as ours (`_OURS`)."""

    seq: int
    more: int
    at: str
    run_id: str
    line: int
    reference: str
    status: State
    amount_minor: int
    currency: str
    account: str
    wallet: str
    reason: str
    message: str
    provider_reference: str


def _event(seq: int, more: int, outcome: Outcome) -> _Event:
    return _Event(
        seq,
        more,
        clock.text(outcome.at),
        outcome.run_id,
        outcome.line,
        outcome.reference,
        outcome.status,
        outcome.amount_minor,
        outcome.currency,
        outcome.account,
        outcome.wallet,
        outcome.reason,
        outcome.message,
        outcome.provider_reference,
    )


class EventLog:
    """An append-only file of outcomes. Opening it is cheap; only its last lines are read.

    Attributes:
        last_seq: the log entry of the last whole line; 0 for an empty file.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file (mode 0600) and remove an entry that a crash has cut.

        Raises:
            SinkError: it cannot be written, is a link, or is something else than an event file.
        """
        self.path = path
        with told_as_sink_error(path):
            if path.is_symlink():
                raise SinkError(
                    f"{path} is a link, through which nothing is written. Remove it, or choose another folder."
                )
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINKS, 0o600)
        try:
            last = self._mended()
        except BaseException:
            self.close()
            raise
        self.last_seq = last.seq if last else 0
        self._last_run_id = last.run_id if last else ""

    async def catch_up(self, journal: Journal, run: Run) -> None:
        """Append what the journal's log has beyond what the file has of this run.

        Raises:
            SinkError: the file cannot be written. Money is not affected.
        """
        after = self.last_seq
        if self._last_run_id not in ("", run.run_id):
            # The folder was used for another run before, whose numbers may come from another journal.
            after = await anyio.to_thread.run_sync(self._last_of, run.run_id)
        async for seq, outcomes in journal.outcomes(run.run_id, after=after):
            self.append(seq, outcomes)

    def append(self, seq: int, outcomes: Sequence[Outcome]) -> None:
        """Add the outcomes of one log entry, in one write.

        Raises:
            SinkError: they could not be written; the file is as it was.
        """
        if not outcomes:
            return
        count = len(outcomes)
        events = [_event(seq, count - number, outcome) for number, outcome in enumerate(outcomes, start=1)]
        data = _ENCODER.encode_lines(events)
        with told_as_sink_error(self.path):
            size = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, data)
            except OSError:
                os.ftruncate(self._descriptor, size)
                raise
            if written != len(data):
                os.ftruncate(self._descriptor, size)
                raise SinkError(f"{self.path} cannot be written: the disk is full.")
        self.last_seq = seq
        self._last_run_id = outcomes[-1].run_id

    def close(self) -> None:
        """Close the file. May be called more than once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _mended(self) -> _Mark | None:
        """Cut the file behind its last whole entry, and return that entry's last line."""
        with told_as_sink_error(self.path):
            size = os.fstat(self._descriptor).st_size
            for end, line in _lines_backwards(self._descriptor, size):
                mark = _mark(line)
                if mark is not None and mark.more == 0:
                    if end != size:
                        os.ftruncate(self._descriptor, end)
                    return mark
            self._refuse_foreign(size)
            os.ftruncate(self._descriptor, 0)
            return None

    def _refuse_foreign(self, size: int) -> None:
        """Refuse to empty a file that does not begin like ours."""
        # After a loss of power a file may end in NULs where the data never came to be written.
        start = os.pread(self._descriptor, len(_OURS), 0).rstrip(b"\0")
        if size and not _OURS.startswith(start):
            raise SinkError(f"{self.path} is not a file of events. Move it away, or choose another folder.")

    def _last_of(self, run_id: str) -> int:
        """Return the last log entry of one run in the file, or 0."""
        needle = _ENCODER.encode({"run_id": run_id})[1:-1]
        with told_as_sink_error(self.path):
            for _, line in _lines_backwards(self._descriptor, os.fstat(self._descriptor).st_size):
                if needle in line and (mark := _mark(line)) and mark.run_id == run_id:
                    return mark.seq
        return 0


def _mark(line: bytes) -> _Mark | None:
    try:
        return _MARKS.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _lines_backwards(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (where the next line begins, the line) for every line that has an end, the last first."""
    ended: int | None = None  # where the line end is that closes the line being collected
    start, data = size, b""
    while start and len(data) <= TEXT_LINE_BYTES_MAX:
        begin = max(0, start - _TAIL_BYTES)
        data = os.pread(descriptor, start - begin, begin) + data
        start, stop = begin, len(data)
        while (cut := data.rfind(b"\n", 0, stop)) >= 0:
            if ended is not None:
                yield ended + 1, data[cut + 1 : stop]
            ended, stop = start + cut, cut
        data = data[:stop]
    if ended is not None:
        yield ended + 1, data


# ------------------------------------------------------------------------------------------------- while paying goes on


@asynccontextmanager
async def writing_events(journal: Journal, run: Run, path: Path, notify: Observer) -> AsyncIterator[None]:
    """Keep the event file up to date while inside; a failure to do so is told and stops nothing."""
    done = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_keep_up, journal, run, path, done, notify)
        try:
            yield
        finally:
            done.set()


async def _keep_up(journal: Journal, run: Run, path: Path, done: anyio.Event, notify: Observer) -> None:
    """Keep the event file up to date until `done` is set, then bring it to its end. Nothing is raised: it is told."""
    complained = False
    while True:
        last_time = done.is_set()
        problem = await _catch_up(journal, run, path)
        if last_time:
            if problem:
                notify(Waiting("", f"{problem} Write the results again with: payout-engine results {run.run_id}"))
            return
        if problem and not complained:
            notify(Waiting("", f"{problem} Payment goes on; the file will be tried again."))
            complained = True
        with anyio.move_on_after(INTERVAL_SECONDS):
            await done.wait()


async def _catch_up(journal: Journal, run: Run, path: Path) -> str:
    """Bring the file to where the log is; return what went wrong, or an empty text."""
    try:
        with EventLog(path) as events:
            await events.catch_up(journal, run)
    except SinkError as error:
        return str(error)
    except Exception as error:
        # Money comes first: any failure that left this task would cut off the calls on the wire.
        logger.warning("%s could not be kept up to date: %s", path, type(error).__name__)
        return f"What happened could not be read from the journal, and {path} lacks it ({type(error).__name__})."
    return ""
