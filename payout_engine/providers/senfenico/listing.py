"""Reads Senfenico's list of transfers as it arrives, in constant memory and in time that grows with its length alone.

The document knows no paging: one answer holds every transfer ever made. It is cut between transfers, where brackets
outside of strings balance, and each piece is decoded by the same typed decoder. Whatever the bytes are, each of them
is looked at no more than twice to find the cut and decoded at most five times; nothing is tried and tried again.

It promises that every transfer of a complete list is handed out once, wherever the network cut the bytes, and that a
list which did not come to its end, or whose envelope is not the documented one, is never taken for a complete one.
Called by `client.py`. Pure: bytes in, transfers out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError, ProviderError
from payout_engine.domain.limits import ANSWER_BYTES_MAX
from payout_engine.providers._http import UNREADABLE, HttpAnswer
from payout_engine.providers.senfenico.envelope import read_envelope
from payout_engine.providers.senfenico.shown import FullTransfer, Listed, PlainTransfer

OLDER_MIN = 1_000
"""So many transfers in a row must be older than a moment before the rest of the list is taken to be older too: a list
in groups, each newest first, would have to hold as many stragglers at the end of one."""

_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_SECOND_CHARS = len("2024-03-21T13:34:34")

DEPTH_MAX = 100
"""Objects and arrays within one another, in one transfer. The document's have none; no decoder goes much deeper."""

# Inside a JSON string the quotes would be escaped, so this matches the key only. Its length is bounded, so that a
# search that found nothing never has to begin again further back than that.
_START = re.compile(rb'"data"\s{0,64}:\s{0,64}\[')
_START_BYTES_MAX = len(b'"data":[') + 2 * 64
# What stands before the next bracket, whole strings included: as many at a time as a transfer may have, since a pattern
# remembers each of them. A string with an escape, or that has not ended yet, is left to `_INSIDE`. Possessive, so that
# neither goes back over what it has seen.
_OUTSIDE = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+"){0,500}')
_INSIDE = re.compile(rb'[^"\\]*+')
_PLAIN = msgspec.json.Decoder(list[PlainTransfer])
_TRANSFERS = msgspec.json.Decoder(list[FullTransfer])
_ANY = msgspec.json.Decoder(list[msgspec.Raw])
_ONE = msgspec.json.Decoder(FullTransfer)
_SPACE = b" \t\r\n"
_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST = b'"\\{}[]'
_BRACKETS = frozenset({_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST})


class TransferListReader:
    """Feed it the bytes of one answer in order; it hands out the transfers they complete.

    Args:
        status: the HTTP status of the answer.
        complete: hand out every documented field, where they can be read; it takes longer.
    """

    def __init__(self, status: int, *, complete: bool = False) -> None:
        self._status = status
        self._decoder: msgspec.json.Decoder[Any] = _TRANSFERS if complete else _PLAIN
        self._head: bytes | None = None
        self._buffer = bytearray()
        self._looked = 0  # Bytes of the buffer in which the beginning, or the next cut, was already looked for.
        self._in_string = False
        self._depth = 0
        self._cut_at = 0  # Behind the last whole transfer in the buffer.
        self._ended = False
        self._first = True

    def feed(self, chunk: bytes) -> Sequence[Listed]:
        """Return the transfers that `chunk` completes, in the order of the list.

        Raises:
            AmbiguousError: the bytes cannot be the documented list.
        """
        self._buffer += chunk
        if self._head is None:
            self._find_start()
        transfers: Sequence[Listed] = ()
        if self._head is not None and not self._ended:
            transfers = self._cut_quickly()
            if not transfers or not self._buffer.lstrip(_SPACE).startswith(b","):
                transfers = [*transfers, *self._cut()]
        if len(self._buffer) > ANSWER_BYTES_MAX:
            raise AmbiguousError("answer_too_long", "Senfenico's list holds a piece that is no transfer")
        return transfers

    def close(self) -> None:
        """Check that the list came to its end and that the envelope around it is the documented one.

        Raises:
            RefusedError, AmbiguousError: it did not, or it is not.
        """
        if self._head is None:
            read_envelope(HttpAnswer(self._status, bytes(self._buffer)))
            raise _not_the_list()
        if not self._ended:
            raise AmbiguousError("answer_truncated", "Senfenico's list of transfers broke off")
        # What stood around the transfers must be an envelope that says success.
        envelope = read_envelope(HttpAnswer(self._status, self._head + b"[]" + bytes(self._buffer)))
        if bytes(envelope.data) != b"[]":
            raise _not_the_list()

    def said_success(self) -> bool:
        """Tell whether what came before the transfers is an envelope that says success."""
        try:
            envelope = read_envelope(HttpAnswer(self._status, (self._head or b"") + b"[]}"))
        except ProviderError:
            return False
        return bytes(envelope.data) == b"[]"

    def _find_start(self) -> None:
        """Split off what stands before the first transfer."""
        found = _START.search(self._buffer, self._looked)
        if found is None:
            self._looked = max(0, len(self._buffer) - _START_BYTES_MAX)
            return
        end = found.end()
        self._head = bytes(self._buffer[: end - 1])
        del self._buffer[:end]
        self._looked = 0

    def _cut_quickly(self) -> Sequence[Listed]:
        """Take off the buffer all to its last brace, if that is what it should be: whole transfers, and nothing else.

        That they decode as a list proves that the cut is between two of them. Tried once with each byte.
        """
        end = self._buffer.rfind(b"}") + 1
        if self._looked or not end:
            return ()
        listed = self._between_brackets(bytes(self._buffer[:end]))
        if listed is None:
            return ()
        try:
            transfers: Sequence[Listed] = self._decoder.decode(listed)
        except UNREADABLE:
            try:
                transfers = _TRANSFERS.decode(listed)
            except UNREADABLE:
                return ()
        del self._buffer[:end]
        self._first = False
        return transfers

    def _cut(self) -> list[FullTransfer]:
        """Take the whole transfers off the buffer, and notice the end of the list."""
        self._look_on()
        transfers: list[FullTransfer] = []
        if self._cut_at:
            transfers = self._decoded(bytes(self._buffer[: self._cut_at]))
            self._first = False
        if self._ended:
            # The bracket that ended the list is the last byte looked at; the rest belongs to the envelope.
            if self._buffer[self._cut_at : self._looked - 1].strip(_SPACE):
                raise _not_the_list()
            del self._buffer[: self._looked]
        else:
            del self._buffer[: self._cut_at]
            if self._cut_at:
                # What began after the cut may end as it should, so it is looked at anew, and quickly.
                self._looked, self._depth, self._in_string = 0, 0, False
        self._cut_at = 0
        return transfers

    def _look_on(self) -> None:
        """Find where the last whole transfer ends, or the list, from where looking ended before."""
        buffer, at = self._buffer, self._looked
        while at < len(buffer) and not self._ended:
            at = _end_of(_INSIDE if self._in_string else _OUTSIDE, buffer, at)
            byte = buffer[at] if at < len(buffer) else None
            if byte == _QUOTE:
                self._in_string = not self._in_string
            elif self._in_string and byte == _BACKSLASH:
                if at + 1 == len(buffer):
                    break  # What it escapes has not come yet.
                at += 1
            elif byte in _BRACKETS:
                self._count(byte, at + 1)
            else:
                continue  # The end of what has come, or of what the pattern takes at a time.
            at += 1
        self._looked = at

    def _count(self, bracket: int, end: int) -> None:
        """Go one level in or out; `end` is behind the bracket."""
        if bracket in (_OPEN, _OPEN_LIST):
            self._depth += 1
            if self._depth > DEPTH_MAX or (self._depth == 1 and bracket == _OPEN_LIST):
                raise _not_the_list()
        elif self._depth == 0:
            if bracket == _CLOSE:
                raise _not_the_list()
            self._ended = True
        else:
            self._depth -= 1
            if self._depth == 0:
                self._cut_at = end

    def _between_brackets(self, piece: bytes) -> bytes | None:
        """Return transfers as a list, without the comma that parts them from what came before; None if it lacks."""
        piece = piece.lstrip(_SPACE)
        if not self._first:
            if not piece.startswith(b","):
                return None
            piece = piece[1:]
        return b"[" + piece + b"]"

    def _decoded(self, piece: bytes) -> list[FullTransfer]:
        """The transfers in a piece that ends where one of them ends."""
        listed = self._between_brackets(piece)
        if listed is None:
            raise _not_the_list()
        try:
            return _TRANSFERS.decode(listed)
        except UNREADABLE:
            pass
        # A transfer that lacks what we need is passed over alone, and the payout it may speak of stays open.
        try:
            items = _ANY.decode(listed)
        except UNREADABLE:
            raise _not_the_list() from None
        return [transfer for transfer in map(_one_or_none, items) if transfer is not None]


class NewestFirst:
    """Tells when a list has come to what is older than a moment, if it shows itself to be newest first.

    The document promises no order; its samples show the newest first. So the dates of all that was read must fall, from
    something newer than the moment to many that are older: a list in another order, or in groups, is read to its end.

    Args:
        since: the moment, in seconds since 1970.
    """

    def __init__(self, since: float) -> None:
        self._since = clock.text(since)[:_SECOND_CHARS]
        self._last = "9"
        self._falls = True
        self._newer = False
        self._older = 0

    def is_past(self, transfers: Sequence[Listed]) -> bool:
        """Take in the next transfers of the list; tell whether the rest is older."""
        written = [transfer.created_at or "" for transfer in transfers]
        dates = [date[:_SECOND_CHARS] for date in written]
        # Between two dates that are written as in the samples, whatever falls is written so too.
        understood = _DATE.fullmatch(written[0]) and _DATE.fullmatch(written[-1])
        self._falls &= bool(understood) and all(date[-1:] == "Z" for date in written)
        self._falls &= dates[0] <= self._last and dates == sorted(dates, reverse=True)
        self._last = dates[-1]
        self._newer |= dates[0] >= self._since
        if dates[-1] < self._since:
            self._older += sum(date < self._since for date in dates)
        return self._falls and self._newer and self._older >= OLDER_MIN


def _end_of(pattern: re.Pattern[bytes], buffer: bytearray, at: int) -> int:
    """Where a pattern that matches everywhere, if only nothing, ends."""
    found = pattern.match(buffer, at)
    return found.end() if found else at


def _not_the_list() -> AmbiguousError:
    return AmbiguousError("answer_unreadable", "Senfenico answered with a list that its document does not show")


def _one_or_none(item: msgspec.Raw) -> FullTransfer | None:
    try:
        return _ONE.decode(item)
    except UNREADABLE:
        return None
