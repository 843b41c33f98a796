"""The two streams of the command line, and how it speaks: plainly, and in colour only on a terminal.

Whatever comes from a file, its name or a provider passes through `plain` on its way to a person: a terminal obeys some
characters, and would let a file's author move the cursor, hide a line or forge one.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
import unicodedata
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from payout_engine.model import masked

messages = Console(stderr=True, highlight=False)
data = Console(highlight=False)


_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""The categories of Unicode that steer instead of showing: controls, directions, line ends, halves of characters."""

_JOINERS = "\u200c\u200d"
"""These are controls too, and needed to write some names."""

_DOUBTFUL_BACKSLASHES = re.compile(r"\\+(?=\[|\Z)")


def visible(text: str) -> str:
    """Return `text` on one line, with what a terminal would obey written out, such as `\\x1b`."""
    shown = "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _OBEYED and character not in _JOINERS
        else character
        for character in text
    )
    # The markup cannot write every backslash before a bracket or at the end; this sign looks the same.
    return _DOUBTFUL_BACKSLASHES.sub(lambda found: "\u29f5" * len(found[0]), shown)


def plain(text: str) -> str:
    """Return foreign text as it may stand among our own markup: neither a terminal nor the markup obeys it."""
    return escape(visible(text))


def say(text: str) -> None:
    """Print a message for the person at the terminal."""
    messages.print(text, soft_wrap=True)


def fail(text: str) -> None:
    """Print an error."""
    messages.print(f"[bold red]Error:[/] {plain(text)}", soft_wrap=True)


def show_fault(error: BaseException) -> None:
    """Print where a fault of ours happened. What it says may hold a cell, so numbers are masked in it."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        messages.print(masked(visible(line)), markup=False, soft_wrap=True)


def emit(event: str, **fields: Any) -> None:
    """Print one JSON line for machines on stdout, at once."""
    try:
        line = msgspec.json.encode({"event": event, **fields}, enc_hook=str)
    except UnicodeEncodeError:
        # A file's name may hold bytes that are no text; JSON has no way to say them.
        line = msgspec.json.encode(_encodable({"event": event, **fields}))
    try:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever listened has left; that must not stop a payment. What follows goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _encodable(value: Any) -> Any:
    """Return a value without lone surrogates, which have no UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(part) for key, part in value.items()}
    return [_encodable(part) for part in value] if isinstance(value, list | tuple) else value
