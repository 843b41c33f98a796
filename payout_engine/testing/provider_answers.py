"""Answers that no document shows: warped copies of genuine ones, and garbage.

A warped answer is a genuine one with one thing wrong: a word nobody documented, another type, a key missing. That is
what a provider's next release looks like, and where a table with a careless default pays or fails somebody. Used by the
provider suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from hypothesis import strategies as st

INVENTED = "zz_invented"
"""A word that no provider's document lists."""

INVENTED_NUMBER = 77_777
"""A number that none lists, for those whose words are numbers. Too short to be taken for a phone and hidden."""

STRANGE: tuple[Any, ...] = (None, True, False, "", INVENTED, -1, 2**63, 1e30, [], {}, [[]], {INVENTED: INVENTED})
"""What a value is replaced with."""

PHONE_END_DIGITS = 7
"""So many digits at the end of a text tell that it is a certain phone, in whatever spelling."""

Path = tuple[str | int, ...]


def leaves(document: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value of a JSON document that holds no others, with the way to it."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from leaves(value, (*path, name))
    elif isinstance(document, list):
        for place, value in enumerate(document):
            yield from leaves(value, (*path, place))
    else:
        yield path, document


def replaced(document: Any, path: Path, value: Any) -> Any:
    """Return a copy of a document with another value in one place."""
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = replaced(document[path[0]], path[1:], value)
    return copy


def without(document: Any, path: Path) -> Any:
    """Return a copy of a document that lacks one place."""
    copy = document.copy()
    if len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = without(document[path[0]], path[1:])
    return copy


def decoded(body: bytes) -> Any:
    """Return the JSON document in `body`, or None if it is none: the suite then warps nothing but bytes."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def invented_words(body: bytes) -> Iterator[bytes]:
    """Yield copies of an answer, each with one of its texts or whole numbers replaced by one nobody documented."""
    document = decoded(body)
    for path, value in leaves(document):
        if isinstance(value, str):
            yield msgspec.json.encode(replaced(document, path, INVENTED))
        elif isinstance(value, int) and not isinstance(value, bool):
            yield msgspec.json.encode(replaced(document, path, INVENTED_NUMBER))


def all_words_invented(body: bytes) -> bytes:
    """Return an answer with all of its texts replaced."""
    document = decoded(body)
    for path, value in list(leaves(document)):
        if isinstance(value, str):
            document = replaced(document, path, INVENTED)
    return msgspec.json.encode(document)


def other_amounts(body: bytes, amount: Decimal) -> bytes:
    """Return an answer in which every number, or text of one, that is this amount is larger by one."""
    document = decoded(body)
    for path, value in list(leaves(document)):
        if not isinstance(value, bool) and _number(value) == amount:
            document = replaced(document, path, type(value)(amount + 1))
    return msgspec.json.encode(document)


def other_recipients(body: bytes, phone: str) -> Iterator[bytes]:
    """Yield an answer in which each text that ends as a phone does has another end, or nothing but its end."""
    document = decoded(body)
    end = phone[-PHONE_END_DIGITS:]
    found = [(path, value) for path, value in leaves(document) if isinstance(value, str) and value.endswith(end)]
    other, short = document, document
    for path, value in found:
        other = replaced(other, path, value[:-1] + str(9 - int(value[-1])))
        short = replaced(short, path, value[-2:])
    yield msgspec.json.encode(other)
    yield msgspec.json.encode(short)


def _number(value: object) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


def warps(body: bytes) -> Iterator[bytes]:
    """Yield copies of an answer with one thing wrong, each in every place, and the answer cut short."""
    document = decoded(body)
    for path, _ in leaves(document):
        for value in STRANGE:
            yield msgspec.json.encode(replaced(document, path, value))
        for depth in range(1, len(path) + 1):
            yield msgspec.json.encode(without(document, path[:depth]))
    yield msgspec.json.encode([document])
    for bytes_kept in range(0, len(body), max(1, len(body) // 16)):
        yield body[:bytes_kept]


HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_NAMES = st.sampled_from(["status", "message", "data", "code", "error", "error_code", "result", INVENTED])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=12,
)
_FIXED = st.sampled_from([b"", b"null", b"{}", b"[]", b"0", b'""', b"NaN", b"\xff\xfe{}", b"\x00" * 50, HTML])
GARBAGE = st.one_of(_FIXED, st.binary(max_size=100), _JSON.map(msgspec.json.encode))
"""Bodies that mean nothing."""

NESTED: tuple[bytes, ...] = (b"[" * 2_000, b'{"data":' * 2_000, b'{"status":true,"message":"","data":' + b"[" * 2_000)
"""JSON deeper than a decoder goes, which some report by another exception than all else."""

NOT_HTTP: tuple[bytes, ...] = (
    b"",
    b"\x00" * 200,
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n{}   ",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 307 Elsewhere\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
)
"""What may come back where an HTTP answer should."""
