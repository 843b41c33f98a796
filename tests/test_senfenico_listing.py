"""The list of transfers is read whole, wherever the network cuts it, and never taken for whole when it is not."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from payout_engine.domain.errors import AmbiguousError, RefusedError
from payout_engine.providers.senfenico import listing
from payout_engine.providers.senfenico.listing import OLDER_MIN, NewestFirst, TransferListReader
from payout_engine.providers.senfenico.shown import FullTransfer, Transfer

AWKWARD = ["},", '"},{"', "]}", '"data":[', "}" * 120, "\\", "{[", 'a"},{"b', "é}€,"]
texts = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=8))


def item(reference: str, ext_id: str | None = "k", **other: Any) -> dict[str, Any]:
    return {
        "reference": reference,
        "amount": 100,
        "fees": "1.50",
        "currency": "XOF",
        "status": "pending",
        "recipient_phone": "76000000",
        "ext_id": ext_id,
        **other,
    }


def envelope(items: list[Any], *, indent: bool = False) -> bytes:
    document = {"status": True, "message": 'Transfer "list", retrieved', "data": items}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 if indent else 0)


def read(body: bytes, size: int) -> list[str]:
    """Feed a body in pieces of `size` bytes and return the references that came out."""
    reader = TransferListReader(200)
    found: list[str] = []
    for start in range(0, len(body), size):
        found.extend(transfer.reference for transfer in reader.feed(body[start : start + size]))
    reader.close()
    return found


@settings(deadline=None)
@given(st.lists(texts, max_size=12), st.integers(1, 400), st.booleans())
@example(["},"] * 4, 1, False)
@example(["}" * 150] * 3, 7, True)
def test_every_transfer_comes_out_once_wherever_the_bytes_are_cut(names: list[str], size: int, indent: bool) -> None:
    """Names full of braces, brackets and quotes change nothing."""
    items = [item(f"{place}{name}", ext_id=name, note={"inner": [{"a": name}]}) for place, name in enumerate(names)]

    assert read(envelope(items, indent=indent), size) == [entry["reference"] for entry in items]


def test_every_single_cut() -> None:
    """Two pieces, cut at each byte of the document."""
    items = [item("a},b", ext_id="},{"), item("c", ext_id=None), item("d]}")]
    body = envelope(items)
    for cut in range(len(body) + 1):
        reader = TransferListReader(200)
        found = [*reader.feed(body[:cut]), *reader.feed(body[cut:])]
        reader.close()
        assert [transfer.reference for transfer in found] == ["a},b", "c", "d]}"]


ESCAPED = b"""{"status": true, "message": "list", "data": [
  {"reference": "a", "amount": 100, "status": "pending", "recipient_phone": "76000000", "ext_id": "x\\\\",
   "note": "\\" } ] { [ \\\\\\" , \\u007d"} , {"reference": "b", "note": [[{"deep": "\\\\"}], []], "amount": 100,
   "status": "pending", "recipient_phone": "76000001", "ext_id": "y"} ]}"""


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100, 10_000])
def test_escapes_and_spaces_change_nothing(size: int) -> None:
    """Quotes that end no string, brackets within one, spaces before a comma, wherever the bytes are cut."""
    assert read(ESCAPED, size) == ["a", "b"]


def test_a_transfer_with_more_strings_than_usual_comes_out() -> None:
    """However many there are, and though the list ends right behind them."""
    many = item("a", note=[f"text {number}" for number in range(5_000)])
    lacking = {"reference": "lacks what we need", "note": ["x"] * 5_000}
    assert read(envelope([many, lacking, item("b")]), 10**6) == ["a", "b"]


@pytest.mark.parametrize("inside", [b"}", b"{}}", b" } ", b"[]", b"[1]", b"{]}", b"{} {}", b"{},,{}"])
def test_brackets_that_do_not_balance_are_no_list(inside: bytes) -> None:
    """Whatever stands behind: it is never taken for a list that came to its end."""
    for end in (b"]}", b"}"):
        for size in (1, 10_000):
            with pytest.raises(AmbiguousError):
                read(b'{"status": true, "message": "list", "data": [' + inside + end, size)


@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_every_documented_field_comes_out_where_it_is_wanted(size: int) -> None:
    """However the list is cut."""
    body = envelope([item(str(place), recipient_wallet="moov_bf", ip_address="::1") for place in range(5)])
    reader = TransferListReader(200, complete=True)
    found = [one for start in range(0, len(body), size) for one in reader.feed(body[start : start + size])]
    reader.close()

    assert [(one.reference, type(one)) for one in found] == [(str(place), FullTransfer) for place in range(5)]
    for one in found:
        assert isinstance(one, FullTransfer)
        assert (str(one.fees), one.recipient_wallet, one.ip_address) == ("1.50", "moov_bf", "::1")


def test_a_list_that_breaks_off_is_never_complete() -> None:
    """What stood is handed out; the end says that there was more."""
    body = envelope([item("a"), item("b"), item("c")])
    for length in range(len(body)):
        reader = TransferListReader(200)
        reader.feed(body[:length])
        with pytest.raises(AmbiguousError) as caught:
            reader.close()
        in_the_list = body.index(b"[") < length <= body.rindex(b"]")
        assert caught.value.reason == ("answer_truncated" if in_the_list else "answer_unreadable")


def test_an_empty_list_is_a_list() -> None:
    """A new account has no transfers."""
    assert read(envelope([]), 3) == []


def test_the_envelope_may_go_on_after_the_list() -> None:
    """Keys have no order."""
    body = b'{"data" : [%s] , "message": "m", "status": true}' % orjson.dumps(item("a"))

    assert read(body, 5) == ["a"]


def test_transfers_that_lack_what_we_need_are_passed_over_alone() -> None:
    """An odd neighbour takes nobody with it."""
    items = [item("a"), {"reference": "odd"}, item("b", status=None), item("c")]

    assert read(envelope(items), 10_000) == ["a", "c"]
    assert read(envelope(items), 13) == ["a", "c"]


@pytest.mark.parametrize("data", [b"null", b"{}", b'"x"', b"1", b"[1, 2]", b'{"data": []}', b"[[]]"])
def test_anything_but_a_list_of_transfers_is_an_error(data: bytes) -> None:
    """An answer of another shape is not an empty list."""
    with pytest.raises(AmbiguousError) as caught:
        read(b'{"status": true, "message": "m", "data": ' + data + b"}", 10)
    assert caught.value.reason == "answer_unreadable"


def test_a_refusal_is_a_refusal() -> None:
    """Too fast, or a bad key, is told as such."""
    with pytest.raises(RefusedError):
        read(b'{"status": false, "message": "m", "error_code": "RATE_LIMIT_EXCEEDED"}', 10)
    with pytest.raises(AmbiguousError):
        read(b'{"data": [], "status": false, "message": "m"}', 10)


def test_a_piece_that_never_ends_is_given_up() -> None:
    """Memory is bounded even by a provider gone mad."""
    reader = TransferListReader(200)
    reader.feed(b'{"status": true, "data": [{"reference": "')
    with pytest.raises(AmbiguousError) as caught:
        for _ in range(20):
            reader.feed(b"x" * 1024 * 1024)
    assert caught.value.reason == "answer_too_long"


# ---------------------------------------------------------------------------------------------- what it costs to read


class Counted:
    """Counts the bytes that a pattern or a decoder looks at: what it was handed, or went over."""

    looked = 0

    def __init__(self, real: Any) -> None:
        self._real = real

    def decode(self, data: Any) -> Any:
        Counted.looked += len(bytes(data))
        return self._real.decode(data)

    def match(self, buffer: bytearray, at: int) -> Any:
        found = self._real.match(buffer, at)
        # One more than it took: the byte at which it stopped. A string without an end is looked at to the end.
        Counted.looked += len(buffer) - at if buffer[found.end() : found.end() + 1] == b'"' else found.end() - at + 1
        return found

    def search(self, buffer: bytearray, at: int) -> Any:
        found = self._real.search(buffer, at)
        Counted.looked += (found.end() if found else len(buffer)) - at
        return found


HEAD = b'{"status": true, "message": "m", "data": ['
FLOODS = {
    "closing braces": b"}" * 200_000,
    "opening braces": b"{" * 200_000,
    "braces in a text": b'{"reference": "' + b"}" * 200_000,
    "empty objects": b"{}" + b",{}" * 60_000,
    "objects within objects": (b'{"a":' * 90 + b"1" + b"}" * 90 + b",") * 300,
    "lists in an object": b'{"a":[' + b"[]," * 60_000,
    "one huge text": b'{"a":"' + b"x" * 200_000,
    "one text of escapes": b'{"a":"' + b'\\"' * 100_000,
    "a number without end": b"1" * 200_000,
    "spaces": b" " * 200_000,
    "broken objects": b'{"a"},' * 30_000,
}
BEFORE_THE_LIST = {
    "a message without end": b'{"message": "' + b"x" * 200_000,
    "many keys": b'{"data":1,' * 20_000,
    "spaces behind the key": b'{"data":' + b" " * 200_000,
    "nearly": b'"data" ' * 30_000,
}
LOOKS_MAX = 8
"""How often one byte may be looked at: for the cut, again where a text ended with the bytes, and in three decoders."""


@pytest.mark.parametrize("name", [*FLOODS, *BEFORE_THE_LIST])
@pytest.mark.parametrize("size", [100, 4_096, 1_000_000])
def test_no_bytes_cost_more_than_their_number(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is looked at a bounded number of times, whatever the bytes are and wherever they are cut."""
    for pattern in ("_START", "_OUTSIDE", "_INSIDE", "_TRANSFERS", "_ANY", "_ONE"):
        monkeypatch.setattr(listing, pattern, Counted(getattr(listing, pattern)))
    body = HEAD + FLOODS[name] if name in FLOODS else BEFORE_THE_LIST[name]
    Counted.looked, fed = 0, 0
    reader = TransferListReader(200)
    with suppress(AmbiguousError):
        for start in range(0, len(body), size):
            fed += len(body[start : start + size])
            reader.feed(body[start : start + size])
        reader.close()

    pieces = 1 + fed // size
    assert Counted.looked <= LOOKS_MAX * fed + 200 * pieces


@pytest.mark.parametrize("flood", [flood for name, flood in FLOODS.items() if name not in ("empty objects", "spaces")])
def test_a_flood_is_no_list(flood: bytes) -> None:
    """Whatever else it is, and also when it ends as a list does."""
    for end in (b"", b"]}"):
        with pytest.raises(AmbiguousError):
            read(HEAD + flood + end, 65_536)


# ------------------------------------------------------------------------------------------------------ what is older

SINCE = 1_800_000_000.0
"""2027-01-15T08:00:00Z."""
NEW, OLD, OLDER = "2027-01-15T08:00:01.000001Z", "2027-01-15T07:59:59Z", "2026-12-31T23:00:00.5Z"


def dated(*dates: str | None) -> list[Transfer]:
    """Return transfers of these dates."""
    return [Transfer("tr", Raw(b"1"), "76000000", "success", created_at=date) for date in dates]


def test_the_rest_of_a_list_is_older_when_many_in_a_row_are() -> None:
    """From newer ones down to a thousand older ones, wherever the pieces are cut."""
    order = NewestFirst(SINCE)
    assert not order.is_past(dated(NEW))
    assert not order.is_past(dated(NEW, OLD, *[OLDER] * (OLDER_MIN - 2)))
    assert order.is_past(dated(OLDER))


@pytest.mark.parametrize(
    "beginning",
    [
        [],  # nothing that is newer: the dates are of another clock, or all the same
        [NEW, OLD, NEW],  # groups
        [OLD, NEW],  # the oldest first
        [NEW, None],  # no date
        [NEW, "15/01/2027 07:59"],  # a date in other words
        [NEW, "2027-01-15T07:59:59+01:00"],  # a time of another zone
        ["", NEW],
        ["2027-01-15 08:00:01Z", "2027-01-15 08:00:00Z"],  # written otherwise
        ["2027-01-15T08:00:02+00Z", NEW],
    ],
)
def test_a_list_in_another_order_is_read_to_its_end(beginning: list[str | None]) -> None:
    """However many older ones follow, nothing is taken for older unseen."""
    for cut in range(1, len(beginning) + 1):
        order = NewestFirst(SINCE)
        if beginning[:cut]:
            assert not order.is_past(dated(*beginning[:cut]))
        assert not order.is_past(dated(*beginning[cut:], *[OLDER] * 3 * OLDER_MIN))
    order = NewestFirst(SINCE)
    assert not order.is_past(dated(*beginning, *[OLDER] * 3 * OLDER_MIN))
    assert not order.is_past(dated(OLDER))


def test_what_is_of_the_moment_itself_is_not_older() -> None:
    """Nor is it missing at the beginning: who lists only what is as old or older has shown what is as new."""
    order = NewestFirst(SINCE)
    same = "2027-01-15T08:00:00.999Z"
    assert not order.is_past(dated(*[same] * 2 * OLDER_MIN))
    assert not order.is_past(dated(*[same] * OLDER_MIN, OLD))
    assert order.is_past(dated(*[OLD] * OLDER_MIN))


def test_an_envelope_that_says_no_ends_no_list_early() -> None:
    """Only one that says success before its transfers may be left before its end."""
    for head, wanted in (('"status": true', True), ('"status": false', False), ('"message": "x"', False)):
        reader = TransferListReader(200)
        assert not reader.said_success()
        reader.feed(f'{{{head}, "message": "list", "data": ['.encode() + orjson.dumps(item("a")))
        assert reader.said_success() is wanted
