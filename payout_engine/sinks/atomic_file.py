"""Files that appear whole or not at all.

Results hold people's names and numbers and are read by other programs while we write: so a file is written under a
temporary name beside its place, readable by its owner only, and takes its place in one step when it is complete and
safe on the disk. Used by the sinks and by the writer of the results folder.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from payout_engine.domain.errors import SinkError


@contextmanager
def told_as_sink_error(path: Path) -> Iterator[None]:
    """Turn what the operating system says while `path` is written into a `SinkError`."""
    try:
        yield
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {error.strerror or error}.") from error


class AtomicFile:
    """A file in the making. Nobody sees it before `commit`.

    Attributes:
        path: where it will be.
        file: open for writing bytes.
    """

    def __init__(self, path: Path) -> None:
        """Create the temporary file, with mode 0600.

        Raises:
            SinkError: the folder is missing or cannot be written.
        """
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        with told_as_sink_error(path):
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self.file: BinaryIO = os.fdopen(descriptor, "wb", buffering=1024 * 1024)
        self._done = False

    def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            SinkError: they could not be written.
        """
        with told_as_sink_error(self.path):
            self.file.write(data)

    def commit(self) -> None:
        """Put the whole file in its place, durably: a reader finds the old one or the new one, never half of one.

        Raises:
            SinkError: it could not be done; what was there before is still there.
        """
        try:
            with told_as_sink_error(self.path):
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()
                self._temporary.replace(self.path)
                self._done = True
                _sync_folder(self.path.parent)
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove the temporary file, unless it was committed. May be called more than once."""
        if self._done:
            return
        self._done = True
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self._temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Some systems cannot open a folder; there the rename itself is all that can be had."""
    with suppress(PermissionError, IsADirectoryError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
