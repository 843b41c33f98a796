"""The bytes of an input: where they are, what they look like, and whether they stay as they were.

Standard input and pipes can be read once only, while the readers pass over their input several times: such input is
first copied to a temporary file that has no name, so that it is gone when the process is. Called by `open_source`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import SCAN_BYTES

STANDARD_INPUT = "-"

_SIGNATURES = (
    (b"PK\x03\x04", "xlsx", "a spreadsheet (XLSX) or another ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "xls", "an old spreadsheet (XLS)"),
    (b"PAR1", "parquet", "a Parquet file"),
    (b"%PDF", "", "a PDF document"),
    (b"\x89PNG", "", "a picture (PNG)"),
    (b"\xff\xd8\xff", "", "a picture (JPEG)"),
    (b"GIF8", "", "a picture (GIF)"),
    (b"\x1f\x8b", "", "a compressed file (GZIP); unpack it first"),
    (b"BZh", "", "a compressed file (BZIP2); unpack it first"),
    (b"\xfd7zXZ", "", "a compressed file (XZ); unpack it first"),
    (b"\x28\xb5\x2f\xfd", "", "a compressed file (ZSTD); unpack it first"),
    (b"7z\xbc\xaf", "", "an archive (7Z); unpack it first"),
    (b"Rar!", "", "an archive (RAR); unpack it first"),
    (b"SQLite format 3", "", "a SQLite database"),
    (b"{\\rtf", "", "a text document (RTF)"),
    (b"<!doctype html", "", "a web page (HTML)"),
    (b"<html", "", "a web page (HTML)"),
    (b"<?xml", "", "an XML document"),
)
"""How known kinds of file begin, which reader takes them ("" for none), and what people call them."""


class Content:
    """The bytes of one input, which may be opened again and again.

    Attributes:
        name: for people, such as `salaries.csv`.
        head: the first bytes.
    """

    def __init__(self, name: str, opener: Callable[[], BufferedReader]) -> None:
        # A file may be called by bytes that are no text, which neither the journal nor a result could hold.
        self.name = name.encode(errors="backslashreplace").decode()
        self._opener = opener
        with self.open() as file:
            self.head = file.read(4096)
            self._stamp = _stamp(file)
        if not self.head:
            raise InputError(f"{name} is empty. Give a file with a header line and at least one payout.")

    def open(self) -> BufferedReader:
        """Open the bytes from their start. Of standard input, only one copy may be open at a time.

        Raises:
            InputError: they cannot be read, or no longer.
        """
        try:
            return self._opener()
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error.strerror}.") from error

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""
        return self._stamp[0]

    def seems(self) -> tuple[str, str]:
        """Return the reader for a known kind of file and what people call it; empty words for anything else."""
        start = self.head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64]
        for signature, reader, words in _SIGNATURES:
            if self.head.startswith(signature) or start.lower().startswith(signature):
                return reader, words
        return "", ""

    def digest(self) -> str:
        """Return the SHA-256 of the bytes, in hex."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def must_be_unchanged(self) -> None:
        """Refuse an input that was written to while we read it: what was validated would not be what the digest names.

        Raises:
            InputError: it changed.
        """
        with self.open() as file:
            if _stamp(file) != self._stamp:
                raise InputError(f"{self.name} changed while it was being read. Save it, close it and try again.")


def content_of(path: Path) -> tuple[Content, Callable[[], None]]:
    """Return the bytes of a file, a pipe or `-`, and what to call when they are no longer needed.

    Raises:
        InputError: missing, a folder, unreadable or empty.
    """
    if str(path) == STANDARD_INPUT:
        return _spooled("standard input", sys.stdin.buffer)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a folder. Give the name of one file in it.")
        if not stat.S_ISREG(mode):
            with path.open("rb") as pipe:
                return _spooled(path.name, pipe)
        return Content(path.name, lambda: path.open("rb")), _nothing
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Check the name and the folder.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _spooled(name: str, stream: BinaryIO) -> tuple[Content, Callable[[], None]]:
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the content does
    try:
        shutil.copyfileobj(stream, spool, SCAN_BYTES)
        spool.flush()
        content = Content(name, lambda: _again(spool.fileno()))
    except BaseException:
        spool.close()
        raise
    # A caller that never reads or closes must not leave an open file behind.
    weakref.finalize(content, spool.close)
    return content, spool.close


def _again(descriptor: int) -> BufferedReader:
    """Open the same file once more from its start. The copies share one position, so only one may be read at a time."""
    copy = os.dup(descriptor)
    os.lseek(copy, 0, os.SEEK_SET)
    return os.fdopen(copy, "rb")


def _stamp(file: BufferedReader) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino


def _nothing() -> None:
    """A file that has a name needs no clearing away."""
