"""Senfenico's numbers, read as text and never as floats: amounts, balances, percentages. Pure.

Called by `wire.py` and by the sandbox, which reads its settings with it.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation

import msgspec

from payout_engine.domain.errors import ConfigError

AMOUNT_CONTRADICTION = -1
"""Stands for an amount that is no whole number of francs: it equals no payout's amount, so nothing is matched by it."""

_WHOLE = re.compile(rb"[0-9]{1,15}")
_NUMBER = re.compile(rb'"?(-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?)"?')


def exact_amount(raw: msgspec.Raw | int) -> int:
    """Return a JSON amount (`500`, `"500"`, `500.0`) as whole francs, without ever making it a float.

    Args:
        raw: as written; or the number, where a decoder found nothing but digits.

    Returns:
        `AMOUNT_CONTRADICTION` for anything that is not a whole, positive number.
    """
    if isinstance(raw, int):
        return raw if 0 < raw < 10**15 else AMOUNT_CONTRADICTION
    text = bytes(raw)
    if _WHOLE.fullmatch(text):
        return int(text)
    number = decimal(text)
    if number is None or number <= 0 or number != number.to_integral_value():
        return AMOUNT_CONTRADICTION
    return int(number)


def decimal(text: bytes) -> Decimal | None:
    """A JSON number, or a string that holds one, exactly; None for anything else or too large to be money."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    number = Decimal(found[1].decode("ascii"))
    return number if abs(number) < Decimal(10) ** 15 else None


def floor_francs(raw: msgspec.Raw) -> int:
    """Whole francs, rounded down: a fraction of a franc pays nobody.

    Raises:
        ValueError: it is no amount.
    """
    number = decimal(bytes(raw))
    if number is None:
        raise ValueError("not an amount")
    return int(number.to_integral_value(ROUND_FLOOR))


def fee_basis_points(percent: str | int | float) -> int:
    """Return a percentage as hundredths of a percent, rounded up: a fee expected too high only warns too early.

    Raises:
        ConfigError: it is not a percentage.
    """
    try:
        # A TOML number arrives as a float; its shortest text is what the user wrote, and is exact from here on.
        points = (Decimal(str(percent)) * 100).to_integral_value(ROUND_CEILING)
    except InvalidOperation:
        raise ConfigError("fee_percent must be a number, such as 1.5") from None
    if not points.is_finite() or not 0 <= points <= 10_000:
        raise ConfigError("fee_percent must be 0 to 100")
    return int(points)
