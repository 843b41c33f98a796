"""JSONL: one JSON object on each line; its keys are the columns.

Numbers keep the text they were written in, so that no amount and no phone number ever passes through floating point.
A first pass collects the keys, because an object may bring a new one on the last line. A line that is no object is a
bad line, not a bad file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec

from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import BLOCK_ROWS, COLUMNS_MAX
from payout_engine.domain.model import Block
from payout_engine.sources._content import Content
from payout_engine.sources._table import Table, check_cells, check_header, no_header
from payout_engine.sources._text import Text, examine

_PLAIN = msgspec.json.Decoder(dict[str, str | int | None])
"""Takes nearly every line, and fast; others (with decimals, truths, nested values) are taken by `_OBJECT`."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_NULL = msgspec.Raw(b"null")
_QUOTE = ord('"')
_UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError)


def open_jsonl(content: Content) -> Table:
    """Return a JSONL file as a source.

    Raises:
        InputError: it is not text, or its first line is not a JSON object.
    """
    text = examine(content)
    columns, data_lines = _columns(content, text)
    dialect = {**text.dialect("jsonl"), "delimiter": ","}
    return Table(content.name, text.digest, columns, dialect, lambda: _blocks(content, text, columns), data_lines)


def _columns(content: Content, text: Text) -> tuple[Sequence[str], int]:
    """Return the keys of all objects in the order of their first appearance, and how many lines there are."""
    columns: dict[str, None] = {}
    first_line = number = 0
    with text.open(content, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            try:
                record = _OBJECT.decode(line)
            except _UNREADABLE:
                if not first_line:
                    raise _not_jsonl(content.name, number, line) from None
                continue
            first_line = first_line or number
            if not record.keys() <= columns.keys():
                columns.update(dict.fromkeys(record))
                if len(columns) > COLUMNS_MAX:
                    break
    if not first_line:
        raise no_header(content.name)
    if not columns:
        raise InputError(f"{content.name} holds objects without keys. Give each payout a phone and an amount.")
    check_header(content.name, first_line, tuple(columns))
    return tuple(columns), number


def _not_jsonl(name: str, number: int, line: str) -> InputError:
    remedy = "Write each payout as one JSON object on a line of its own."
    if line.lstrip().startswith("["):
        return InputError(f"{name}, line {number}: this is a JSON array. {remedy}")
    return InputError(f"{name}, line {number}: this is not a JSON object on one line. {remedy}")


def _blocks(content: Content, text: Text, columns: Sequence[str]) -> Iterator[Block]:
    with text.open(content, newline="\n") as file:
        numbered = enumerate(file, start=1)
        while taken := list(islice(numbered, BLOCK_ROWS)):
            yield check_cells(content.name, _block(taken, columns))
    content.must_be_unchanged()


def _block(taken: Sequence[tuple[int, str]], columns: Sequence[str]) -> Block:
    lines: list[int] = []
    rows: list[list[str]] = []
    unreadable: dict[int, str] = {}
    for number, line in taken:
        if line.isspace():
            continue
        try:
            rows.append(_row(line, columns))
        except _UNREADABLE:
            rows.append([""] * len(columns))
            unreadable[number] = "it is not a JSON object"
        lines.append(number)
    return Block(lines, rows, unreadable=unreadable, blank_lines=len(taken) - len(lines))


def _row(line: str, columns: Sequence[str]) -> list[str]:
    """Return the values of one line as text.

    Raises:
        msgspec.MsgspecError, RecursionError, ValueError: it is not an object.
    """
    try:
        plain = _PLAIN.decode(line).get
    except msgspec.ValidationError:
        get = _OBJECT.decode(line).get
        return [_text(get(column, _NULL)) for column in columns]
    cells = map(plain, columns)
    return [cell if type(cell) is str else "" if cell is None else str(cell) for cell in cells]


def _text(value: msgspec.Raw) -> str:
    """Return a JSON value as text: strings decoded, null as nothing, anything else exactly as it was written."""
    data = bytes(value)
    if data[0] == _QUOTE:
        return _STRING.decode(data) if b"\\" in data else data[1:-1].decode()
    return "" if data == b"null" else data.decode()
