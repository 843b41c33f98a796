"""Reads Senfenico's list of transfers as it arrives, in constant memory.

The document knows no paging: one answer holds every transfer ever made. It is cut into pieces between transfers, and
each piece is decoded by the same typed decoder. A cut is found by trying: the bytes up to some closing brace, between
square brackets, decode only if the brace ended a transfer, since anywhere else a string or an object is left open.

It promises that every transfer of a complete list is handed out once, wherever the network cut the bytes, and that a
list which did not come to its end, or whose envelope is not the documented one, is never taken for a complete one.
Called by `client.py`. Pure: bytes in, transfers out.
"""

from __future__ import annotations

import re

import msgspec

from payout_engine.errors import AmbiguousError
from payout_engine.limits import ANSWER_BYTES_MAX
from payout_engine.providers._http import Answer
from payout_engine.providers.senfenico.wire import UNREADABLE, Transfer, read_envelope

CUTS_TRIED_MAX = 100
"""Closing braces tried per piece before more bytes are awaited: names may hold braces, but not by the hundred."""

# Inside a JSON string the quotes would be escaped, so this matches the key only.
_START = re.compile(rb'"data"\s*:\s*\[')
_TRANSFERS = msgspec.json.Decoder(list[Transfer])
_ANY = msgspec.json.Decoder(list[msgspec.Raw])
_ONE = msgspec.json.Decoder(Transfer)
_SPACE = b" \t\r\n"


class TransferListReader:
    """Feed it the bytes of one answer in order; it hands out the transfers they complete."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._head: bytes | None = None
        self._buffer = b""
        self._ended = False
        self._first = True

    def feed(self, chunk: bytes) -> list[Transfer]:
        """Return the transfers that `chunk` completes, in the order of the list.

        Raises:
            AmbiguousError: the bytes cannot be the documented list.
        """
        self._buffer += chunk
        if len(self._buffer) > ANSWER_BYTES_MAX:
            raise AmbiguousError("answer_too_long", "Senfenico's list holds a piece that is no transfer")
        if self._head is None and not self._find_start():
            return []
        return [] if self._ended else self._cut()

    def close(self) -> None:
        """Check that the list came to its end and that the envelope around it is the documented one.

        Raises:
            RefusedError, AmbiguousError: it did not, or it is not.
        """
        if self._head is None:
            read_envelope(Answer(self._status, self._buffer))
            raise _not_the_list()
        if not self._ended:
            raise AmbiguousError("answer_truncated", "Senfenico's list of transfers broke off")
        # What stood around the transfers must be an envelope that says success.
        envelope = read_envelope(Answer(self._status, self._head + b"[]" + self._buffer))
        if bytes(envelope.data) != b"[]":
            raise _not_the_list()

    def _find_start(self) -> bool:
        """Split off what stands before the first transfer."""
        found = _START.search(self._buffer)
        if found is None:
            return False
        self._head = self._buffer[: found.end() - 1]
        self._buffer = self._buffer[found.end() :]
        return True

    def _cut(self) -> list[Transfer]:
        """Take the longest run of whole transfers off the buffer."""
        transfers: list[Transfer] = []
        end = len(self._buffer)
        for _ in range(CUTS_TRIED_MAX):
            end = self._buffer.rfind(b"}", 0, end)
            if end < 0:
                break
            decoded = self._decoded(end + 1)
            if decoded is not None:
                transfers = decoded
                self._buffer = self._buffer[end + 1 :]
                self._first = False
                break
        self._notice_end()
        return transfers

    def _decoded(self, end: int) -> list[Transfer] | None:
        """The transfers up to `end`, or None if that is not the end of one."""
        piece = self._buffer[:end].lstrip(_SPACE)
        if not self._first:
            if not piece.startswith(b","):
                return None
            piece = piece[1:]
        listed = b"[" + piece + b"]"
        try:
            return _TRANSFERS.decode(listed)
        except UNREADABLE:
            pass
        # Either a wrong cut, or a transfer that lacks what we need: the latter is passed over alone, and the payout
        # it may speak of stays open.
        try:
            items = _ANY.decode(listed)
        except UNREADABLE:
            return None
        return [transfer for transfer in map(_one_or_none, items) if transfer is not None]

    def _notice_end(self) -> None:
        """Once the closing bracket is next, the rest belongs to the envelope."""
        rest = self._buffer.lstrip(_SPACE)
        if rest.startswith(b"]"):
            self._ended = True
            self._buffer = rest[1:]


def _not_the_list() -> AmbiguousError:
    return AmbiguousError("answer_unreadable", "Senfenico answered with a list that its document does not show")


def _one_or_none(item: msgspec.Raw) -> Transfer | None:
    try:
        return _ONE.decode(item)
    except UNREADABLE:
        return None
