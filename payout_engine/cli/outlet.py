"""The way out for what is printed: a thread of its own for each of the two streams, or one where both are one file.

A pipe that nobody reads blocks whoever writes into it. Here that is only the thread: paying goes on, and Ctrl-C is
heard. What waits is kept until the reader takes it; loops that print much `await` room first, so that memory stays
bounded. A reader who has left, or who takes nothing when all is over, gets nothing more.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TextIO

import anyio

WAITING_BYTES_MAX = 1 << 20
"""With more than this waiting, `room` waits for the reader."""

WRITE_BYTES = 4096
"""Written at a time, so that it is seen when a slow reader has taken something. A pipe takes so much, or nothing."""

PATIENCE_SECONDS = 60.0
"""When all is over, a reader who takes nothing for this long is not waited for any more."""

HURRIED_SECONDS = 5.0
"""The same after Ctrl-C."""

LOOK_SECONDS = 0.05


class Outlet:
    """A stream that can be written to without waiting. It has what `rich` wants of a file.

    Attributes:
        encoding: of text.
        hurried: True once a person asked to stop.
        left_out: True once something was left out because nobody took it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.hurried = False
        self.left_out = False
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._gone = self._descriptor is None
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._taken_at = time.monotonic()
        # Since when, and how long, a reader who takes nothing is still waited for; at first for as long as it takes.
        self._patient_since: float | None = None
        self._patience_seconds = PATIENCE_SECONDS

    # ---------------------------------------------------------------------------------------------------- as a file

    def write(self, text: str) -> int:
        """Print text."""
        self.put(text.encode(self.encoding, "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes at once."""

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            OSError: there is none.
        """
        if self._descriptor is None:
            raise OSError("the stream is closed")
        return self._descriptor

    # ----------------------------------------------------------------------------------------------------- to its end

    def put(self, data: bytes) -> None:
        """Print bytes. This never waits and never fails."""
        with self._changed:
            if self._gone:
                return
            if not self._size:
                self._taken_at = time.monotonic()
            self._parts.append(data)
            self._size += len(data)
            if self._thread is None:
                # A daemon: the program may end while a write hangs.
                self._thread = threading.Thread(target=self._serve, name="payout-engine-output", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    async def room(self, over: anyio.Event | None = None) -> None:
        """Wait while much is waiting: as long as it takes until `over` is set, then only for a reader who reads."""
        while self._size > WAITING_BYTES_MAX and not self._given_up():
            if over is None or over.is_set():
                self._be_patient(PATIENCE_SECONDS)
            await anyio.sleep(LOOK_SECONDS)
        if not self.hurried:
            self._patient_since = None

    def hurry(self) -> None:
        """A person asked to stop: a reader who takes nothing is not waited for much longer."""
        self.hurried = True
        self._be_patient(HURRIED_SECONDS)

    def leave(self) -> None:
        """Print nothing more, and wait for nobody."""
        with self._changed:
            self.left_out = self.left_out or bool(self._size)
            self._drop()

    def settle(self, seconds: float = HURRIED_SECONDS) -> None:
        """Wait until everything is written, but not longer than this."""
        with self._changed:
            self._changed.wait_for(lambda: not self._size, seconds)

    def finish(self) -> None:
        """Wait until everything is written, or nobody takes it, or a person interrupts."""
        self._be_patient(PATIENCE_SECONDS)
        try:
            while self._size and not self._given_up():
                self.settle(LOOK_SECONDS)
        except KeyboardInterrupt:
            self.hurried = True
            self.leave()

    def _be_patient(self, seconds: float) -> None:
        if self._patient_since is None or seconds < self._patience_seconds:
            self._patient_since, self._patience_seconds = time.monotonic(), seconds

    def _given_up(self) -> bool:
        """Leave a reader who has taken nothing for too long; tell whether there is no reader any more."""
        with self._changed:
            if self._gone or self._patient_since is None:
                return self._gone
            waited_seconds = time.monotonic() - max(self._patient_since, self._taken_at)
            if waited_seconds < self._patience_seconds:
                return False
        self.leave()
        return True

    def _drop(self) -> None:
        self._gone, self._size = True, 0
        self._parts.clear()
        self._changed.notify_all()

    # ------------------------------------------------------------------------------------------------- in the thread

    def _serve(self) -> None:
        assert self._descriptor is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._parts)
                data = self._parts.popleft()
                while self._parts and len(data) < WRITE_BYTES:
                    data += self._parts.popleft()
            if not self._write(self._descriptor, data):
                return

    def _write(self, descriptor: int, data: bytes) -> bool:
        """Write all of it; False when the reader has left, which stops nothing: what follows goes nowhere."""
        view = memoryview(data)
        while view:
            try:
                count = os.write(descriptor, view[:WRITE_BYTES])
            except BlockingIOError:
                time.sleep(LOOK_SECONDS)  # Somebody made the pipe so that it does not block.
                continue
            except OSError:
                with self._changed:
                    self._drop()
                return False
            view = view[count:]
            with self._changed:
                if self._gone:
                    return False
                self._size -= count
                self._taken_at = time.monotonic()
                self._changed.notify_all()
        return True


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None


def outlets(output: TextIO | None, messages: TextIO | None) -> tuple[Outlet, Outlet]:
    """Return the outlets of both streams: one and the same for one file or terminal, where the order matters."""
    first, second = _descriptor(output), _descriptor(messages)
    one = Outlet(output)
    if first is not None and second is not None and os.path.sameopenfile(first, second):
        return one, one
    return one, Outlet(messages)
