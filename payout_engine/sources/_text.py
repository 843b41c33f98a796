"""Which encoding a text file is in, noticed rather than asked for, and proven for the whole file.

One pass at open hashes the bytes and decodes all of them, because an encoding guessed from the first lines fails on a
name in the last ones, when half a payroll has been read. UTF-8 is tried first: text in another encoding almost never
passes for it. What fails it is taken for CP1252, as spreadsheets in West Africa and Europe write. Called by the CSV
and JSONL readers.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from payout_engine.domain.cells import may_hold_ours
from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import SCAN_BYTES, TEXT_LINE_BYTES_MAX
from payout_engine.sources._content import Content

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


_CR_ALONE = re.compile(b"\r(?!\n)")


class Text(NamedTuple):
    """How to read a content as text.

    Attributes:
        encoding: a codec's name.
        skipped_bytes: the length of the byte order mark.
        digest: SHA-256 of the bytes, in hex.
        lines: how many there are, as a text editor counts them, a last one without an end among them.
        marked: there may be cells that we made harmless; most files have none, and their rows need no second look.
    """

    encoding: str
    skipped_bytes: int
    digest: str = ""
    lines: int = 0
    marked: bool = False

    @contextmanager
    def open(self, content: Content, newline: str = "") -> Iterator[io.TextIOWrapper]:
        """Open the content as text, after its byte order mark.

        Raises:
            InputError: it no longer decodes as it did.
        """
        with content.open() as raw:
            raw.seek(self.skipped_bytes)
            with io.TextIOWrapper(raw, encoding=self.encoding, newline=newline) as file:
                try:
                    yield file
                except UnicodeDecodeError:
                    content.must_be_unchanged()
                    raise

    def dialect(self, kind: str) -> dict[str, str]:
        """Return how the input was written, for results in its own format.

        Results are UTF-8; a spreadsheet needs the mark to see that, unless the input shows that it does not.
        """
        plain = self.encoding == "utf-8" and not self.skipped_bytes
        return {"format": kind, "encoding": self.encoding, "bom": "no" if plain else "yes"}


def examine(content: Content) -> Text:
    """Notice the encoding, decode the whole content once, and hash it.

    Raises:
        InputError: it is not text.
    """
    _, words = content.seems()
    if words:
        raise InputError(f"{content.name} is not a text file: it seems to be {words}. Save it as CSV UTF-8 or as XLSX.")
    encoding, skipped = _marked(content.head)
    try:
        return _decoded(content, encoding, skipped)
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or skipped:
            raise _undecodable(content, Text(encoding, skipped)) from error
    try:
        return _decoded(content, "cp1252", 0)
    except UnicodeDecodeError as error:
        raise _undecodable(content, Text("cp1252", 0)) from error


def _marked(head: bytes) -> tuple[str, int]:
    """Return the encoding and the length of its mark; UTF-16 without a mark shows by every second byte being NUL."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    even, odd, half = head[0::2].count(0), head[1::2].count(0), len(head) / 2
    if odd > 0.7 * half and even < 0.1 * half:
        return "utf-16-le", 0
    if even > 0.7 * half and odd < 0.1 * half:
        return "utf-16-be", 0
    return "utf-8", 0


def _decoded(content: Content, encoding: str, skipped: int) -> Text:
    """Return the content as text, having decoded every byte and found neither a NUL nor a line without end."""
    hashed = hashlib.sha256()
    decoder = codecs.getincrementaldecoder(encoding)()
    wide = encoding.startswith("utf-16")
    marked = wide  # The bytes of UTF-16 are not looked at more closely.
    waiting = False  # a character is cut by the end of the last block
    unbroken = 0
    counted = _Lines()
    with content.open() as file:
        hashed.update(file.read(skipped))
        while data := file.read(SCAN_BYTES):
            hashed.update(data)
            # Decoding can be spared where each byte is a character of its own.
            if wide or waiting or not data.isascii() or b"\0" in data:
                text = decoder.decode(data)
                if "\0" in text:
                    raise _with_nul(content, Text(encoding, skipped))
                waiting = bool(decoder.getstate()[0])
            counted.add(text.encode(errors="replace") if wide else data)
            marked = marked or may_hold_ours(data)
            unbroken = 0 if b"\n" in data or b"\r" in data else unbroken + len(data)
            if unbroken > TEXT_LINE_BYTES_MAX:
                raise InputError(f"{content.name} has a line of over {TEXT_LINE_BYTES_MAX} bytes: it is not a table.")
    decoder.decode(b"", final=True)
    return Text(encoding, skipped, hashed.hexdigest(), counted.total(), marked)


class _Lines:
    """Counts lines over blocks of bytes, independently of what the table reader will make of them."""

    def __init__(self) -> None:
        self._ends = 0
        self._last = b""

    def add(self, data: bytes) -> None:
        self._ends += data.count(b"\n")
        if b"\r" in data:
            self._ends += len(_CR_ALONE.findall(data))
        if self._last == b"\r" and data.startswith(b"\n"):
            self._ends -= 1
        self._last = data[-1:] or self._last

    def total(self) -> int:
        return self._ends + (self._last not in (b"\n", b"\r", b""))


def _with_nul(content: Content, text: Text) -> InputError:
    line = _line_of(content, text, "\0")
    return InputError(
        f"{content.name}, line {line}: there is a NUL byte, so this is not a text file or it is damaged. "
        "Save it again as CSV UTF-8."
    )


def _undecodable(content: Content, text: Text) -> InputError:
    line = _line_of(content, text, "\ufffd")
    return InputError(
        f"{content.name}, line {line}: there are bytes that are no text in {text.encoding.upper()}. "
        "Save it again as CSV UTF-8."
    )


def _line_of(content: Content, text: Text, character: str) -> int:
    """Return the first line that holds `character`, with undecodable bytes read as U+FFFD."""
    with content.open() as raw:
        raw.seek(text.skipped_bytes)
        with io.TextIOWrapper(raw, encoding=text.encoding, errors="replace", newline="") as file:
            return next((number for number, line in enumerate(file, start=1) if character in line), 0)
