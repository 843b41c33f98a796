"""References that we fill in where a file has none: the same file gives the same ones."""

from __future__ import annotations

import re

_DIGEST_CHARS = 12
"""Of the file's digest in a derived reference: 48 bits, and short enough to be read aloud."""

_DERIVED = re.compile(rf"[0-9a-f]{{{_DIGEST_CHARS}}}-\d+")


def derived_start(digest: str) -> str:
    """Return what the derived references of a content begin with; the number of the line follows."""
    return f"{digest[:_DIGEST_CHARS]}-"


def is_derived(reference: str) -> bool:
    """Tell whether a reference looks like one of ours: filled in because a file had none, and perhaps fed back to us.

    It says which line of a file was meant, and nothing about whether two lines are two payments.
    """
    return _DERIVED.fullmatch(reference) is not None
