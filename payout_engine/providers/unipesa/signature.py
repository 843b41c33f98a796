"""Unipesa's signature over a document of texts, numbers and nested documents, as its printed PHP makes it. Pure.

HMAC-SHA512 over every key and value one behind the other, in the order sent, nested keys as `parent.child`, without
what is called `signature`. The printed function returns a misspelt variable for nested documents, which is no text at
all; what is meant is beyond doubt, so here it is mended. Values are turned into texts as PHP does it, which matters for
what we receive; what we send are texts only.

Source: Unipesa gateway API document, section about signatures, read 2026-11-20; PHP manual, “Converting to string”.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

DEPTH_MAX = 16
"""Documents nested deeper than this are not signed. Source: the printed function."""

SIGNATURE = "signature"

_INT_MAX = 2**63 - 1


def sign(secret: str, document: Mapping[str, Any]) -> str:
    """Return the signature of a document, in lower-case hex.

    Raises:
        ValueError: it is nested too deep, or holds what cannot be written as UTF-8.
    """
    return hmac.new(secret.encode(), _text(document, "", 0).encode(), "sha512").hexdigest()


def verify_callback(secret: str, parsed: object) -> bool:
    """Return whether a callback (or a call) was signed with this secret. Takes the same time wherever it differs.

    Args:
        secret: the account's `secret_key`; an empty one verifies nothing.
        parsed: the body as decoded from JSON, its keys in the order received. A whole number must be an `int`, one
            with a point or an exponent a `float`, since PHP writes them differently.
    """
    if not secret or not isinstance(parsed, Mapping):
        return False
    stated = parsed.get(SIGNATURE)
    if not isinstance(stated, str):
        return False
    try:
        return hmac.compare_digest(sign(secret, parsed).encode(), stated.encode())
    except (ValueError, OverflowError):  # Too deep, no UTF-8, or a number without end: nobody signed that.
        return False


def _text(document: Mapping[str, Any] | list[Any], prefix: str, depth: int) -> str:
    """Write a document as its signature wants it. A list is a document whose keys are places."""
    if depth >= DEPTH_MAX:
        raise ValueError("nested too deep")
    pairs = document.items() if isinstance(document, Mapping) else enumerate(document)
    return "".join(
        _text(value, f"{prefix}{key}.", depth + 1)
        if isinstance(value, Mapping | list)
        else f"{prefix}{key}{php_text(value)}"
        for key, value in pairs
        if isinstance(value, Mapping | list) or key != SIGNATURE
    )


def php_text(value: object) -> str:
    """Return a JSON value other than a list or an object as PHP writes it into a text.

    `true` is 1, `false` and `null` are nothing; a number with a point has at most 14 digits, none of them in vain.
    """
    if value is None or value is False:
        return ""
    if value is True:
        return "1"
    if isinstance(value, int) and -_INT_MAX - 1 <= value <= _INT_MAX:
        return str(value)
    if isinstance(value, int | float):
        return _php_float(float(value))
    return str(value)


def _php_float(value: float) -> str:
    digits, exponential, exponent = f"{value:.14G}".partition("E")
    if not exponential:
        return digits
    return f"{digits if '.' in digits else digits + '.0'}E{exponent[0]}{int(exponent[1:])}"
