"""The two streams of the command line, and how it speaks: plainly, and in colour only on a terminal.

Whatever comes from a file, its name or a provider passes through `plain` on its way to a person: a terminal obeys some
characters, and would let a file's author move the cursor, hide a line or forge one.
"""

from __future__ import annotations

import re
import sys
import traceback
import unicodedata
from typing import IO, Any, cast

import anyio
import msgspec
from rich.console import Console
from rich.markup import escape

from payout_engine.cli.outlet import outlets
from payout_engine.domain.model import masked

_output, _errors = outlets(sys.stdout, sys.stderr)

messages = Console(file=cast("IO[str]", _errors), highlight=False)
data = Console(file=cast("IO[str]", _output), highlight=False)


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
    """Print one JSON line for machines on stdout, without waiting for who reads it; see `room`."""
    try:
        line = msgspec.json.encode({"event": event, **fields}, enc_hook=str)
    except UnicodeEncodeError:
        # A file's name may hold bytes that are no text; JSON has no way to say them.
        line = msgspec.json.encode(_encodable({"event": event, **fields}))
    _output.put(line + b"\n")


async def room(over: anyio.Event | None = None) -> None:
    """Wait, between many lines, for whoever reads them; once `over` is set (or at once), not for somebody who does not.

    Nothing else waits meanwhile: the event loop goes on, and Ctrl-C is heard.
    """
    await _output.room(over)


def hurry() -> None:
    """A person asked to stop: wait only for a reader who reads."""
    _output.hurry()
    _errors.hurry()


def leave() -> None:
    """A person asked to stop at once: wait for no reader."""
    _output.leave()


def settle() -> None:
    """Let everything come out that was printed, before somebody is asked."""
    _errors.settle()


def finish() -> bool:
    """Let the rest come out, if anybody reads it; False when a person interrupted that."""
    _output.finish()
    if _output.left_out:
        say("Nobody took everything that was printed for programs; the journal and the results hold it all.")
    _errors.finish()
    return not (_output.left_out and _output.hurried)


def _encodable(value: Any) -> Any:
    """Return a value without lone surrogates, which have no UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(part) for key, part in value.items()}
    return [_encodable(part) for part in value] if isinstance(value, list | tuple) else value
