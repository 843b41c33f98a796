"""The two streams of the command line, and how it speaks: plainly, and in colour only on a terminal."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

messages = Console(stderr=True, highlight=False)
data = Console(highlight=False)


def say(text: str) -> None:
    """Print a message for the person at the terminal."""
    messages.print(text, soft_wrap=True)


def fail(text: str) -> None:
    """Print an error."""
    messages.print(f"[bold red]Error:[/] {escape(text)}", soft_wrap=True)


def emit(event: str, **fields: Any) -> None:
    """Print one JSON line for machines on stdout, at once."""
    line = msgspec.json.encode({"event": event, **fields}, enc_hook=str)
    try:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever listened has left; that must not stop a payment. What follows goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
