"""Amounts: integer minor units with a currency, read from what people type and written for people and providers.

There is no float here. An amount that could mean two things is refused with both readings named, because a guess is
off by a factor of a thousand. Intake reads amounts with `parse_amount`; providers and reports write them with
`to_major` and `format_amount`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from payout_engine.domain.limits import AMOUNT_MINOR_MAX
from payout_engine.domain.model import Problem
from payout_engine.domain.rejections import problem

# Source: ISO 4217 list one, as generated into Firefox's CurrencyDataGenerated.js of 2026-01-01 (searchfox.org), which
# lists the currencies that do not have two decimals; read 2026-11-20.
DECIMALS: Mapping[str, int] = {
    "XOF": 0,
    "XAF": 0,
    "GNF": 0,
    "RWF": 0,
    "UGX": 0,
    "TND": 3,
    "CDF": 2,
    "DZD": 2,
    "EGP": 2,
    "EUR": 2,
    "GHS": 2,
    "GMD": 2,
    "KES": 2,
    "MAD": 2,
    "MWK": 2,
    "NGN": 2,
    "SLE": 2,
    "TZS": 2,
    "USD": 2,
    "ZAR": 2,
    "ZMW": 2,
}
"""The currencies of the countries and providers we serve, with the digits after the point."""

_WORDS: Mapping[str, frozenset[str]] = {
    **{code: frozenset({code}) for code in DECIMALS},
    **dict.fromkeys(
        ("FCFA", "CFA", "F", "FRS", "FR", "FRANCS", "FRANC", "FRSCFA", "FRANCSCFA", "FRANCCFA"),
        frozenset({"XOF", "XAF"}),
    ),
    **dict.fromkeys(("KSH", "KSHS"), frozenset({"KES"})),
    **dict.fromkeys(("TSH", "TSHS"), frozenset({"TZS"})),
    **dict.fromkeys(("USH", "USHS"), frozenset({"UGX"})),
    "₦": frozenset({"NGN"}),
    "GH₵": frozenset({"GHS"}),
    "€": frozenset({"EUR"}),
    "$": frozenset({"USD"}),
}
"""What people write beside an amount, and the currencies it can stand for."""

_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\t": " ", "’": "'", "−": "-"})
_WITH_WORDS = re.compile(
    r"(?P<before>[^\W\d_]+(?: [^\W\d_]+)*|[₦€$]|GH₵)? ?(?P<figure>[-(]?[0-9][0-9 .,']*\)?)(?P<after>.*)"
)
_PLAIN = re.compile(r"[0-9]+")
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?P<group>[ '.,])[0-9]{3}(?:(?P=group)[0-9]{3})*")
_DIGITS_MAX = len(str(AMOUNT_MINOR_MAX))
PLAIN_DIGITS_MAX = _DIGITS_MAX - 4  # so short that no scale brings it over the bound
SCALES: Mapping[str, int] = {currency: 10**decimals for currency, decimals in DECIMALS.items()}


def decimals_of(currency: str) -> int:
    """Return how many digits after the point `currency` has.

    Raises:
        KeyError: not a currency we know; ask `currency in DECIMALS` first.
    """
    return DECIMALS[currency]


def currencies_named(text: str) -> frozenset[str]:
    """Return the currencies that a word such as `XOF`, `FCFA` or `KSh` can stand for; empty when it is no such word."""
    return _WORDS.get(text.replace(" ", "").replace(".", "").upper(), frozenset())


def to_major(amount_minor: int, currency: str) -> str:
    """Return the amount in the currency's major unit for machines: `1240000` in XOF, `12.50` in KES."""
    return _pointed(amount_minor, DECIMALS[currency], "")


def to_decimals(amount_minor: int, currency: str, decimals: int) -> str:
    """Return the amount in the currency's major unit with exactly `decimals` digits after the point: `1500.00`.

    Raises:
        ValueError: so few digits cannot say it.
    """
    ours = DECIMALS[currency]
    scaled, rest = divmod(abs(amount_minor) * 10**decimals, 10**ours)
    if rest:
        raise ValueError(f"an amount in {currency} cannot be written with {decimals} decimals")
    return _pointed(-scaled if amount_minor < 0 else scaled, decimals, "")


def format_amount(amount_minor: int, currency: str) -> str:
    """Return the amount for people: `1,240,000 XOF`."""
    return f"{_pointed(amount_minor, DECIMALS[currency], ',')} {currency}"


def _pointed(amount_minor: int, decimals: int, group: str) -> str:
    """Write minor units with a point, and with `group` between thousands."""
    sign = "-" if amount_minor < 0 else ""
    whole, rest = divmod(abs(amount_minor), 10**decimals)
    digits = f"{whole:,}" if group else str(whole)
    return f"{sign}{digits}.{rest:0{decimals}}" if decimals else f"{sign}{digits}"


def parse_amount(text: str, currency: str) -> int | Problem:
    """Read an amount in major units as people type it.

    Groups of three (by spaces, apostrophes, points or commas), decimals with a point or a comma, and the currency's
    own word before or after are understood. What could mean two things is not.

    Args:
        text: the cell.
        currency: a key of `DECIMALS`; the currency the amount has to be in.

    Returns:
        The amount in minor units, from 1 to `AMOUNT_MINOR_MAX`, or why it is none.
    """
    # `isdigit` alone would let digits of other scripts through.
    if text.isdigit() and text.isascii() and len(text) <= PLAIN_DIGITS_MAX:
        return int(text) * SCALES[currency] or problem("amount_zero")
    figure = _without_currency(text, currency)
    if isinstance(figure, Problem):
        return figure
    if figure.startswith(("-", "(")):
        return problem("amount_negative", text=text)
    split = _split(figure, text, currency)
    if isinstance(split, Problem):
        return split
    return _minor(*split, text, currency)


def parse_minor(text: str) -> int | Problem:
    """Read an amount that is already in minor units: digits only, nothing to interpret."""
    if not text:
        return problem("amount_missing")
    if text.startswith("-"):
        return problem("amount_negative", text=text)
    if not (text.isascii() and text.isdigit()):
        return problem("amount_not_a_number", text=text)
    if len(text.lstrip("0")) > _DIGITS_MAX or int(text) > AMOUNT_MINOR_MAX:
        return problem("amount_too_large", text=text[:40])
    return int(text) or problem("amount_zero")


def _without_currency(text: str, currency: str) -> str | Problem:
    """Return the figure alone, if the words beside it name `currency` or nothing."""
    tidy = text.translate(_SPACES).strip().removeprefix("'").strip()
    if not tidy:
        return problem("amount_missing")
    negative = tidy.startswith("-")
    match = _WITH_WORDS.fullmatch(tidy[1:].lstrip() if negative else tidy)
    if match is None:
        return problem("amount_not_a_number", text=text[:40])
    for word in (match["before"], match["after"]):
        if not word or not word.strip(" ."):
            continue
        named = currencies_named(word)
        if not named:
            return problem("amount_not_a_number", text=text[:40])
        if currency not in named:
            return problem("wrong_currency", stated=word.strip(), wallet="the recipient's wallet", currency=currency)
    figure = match["figure"].strip()
    return f"-{figure}" if negative else figure


def _split(figure: str, text: str, currency: str) -> tuple[str, str] | Problem:
    """Return the digits before and after the decimal separator, or why that cannot be told."""
    if _PLAIN.fullmatch(figure):
        return figure, ""
    grouped = _GROUPED.fullmatch(figure)
    if grouped is not None:
        group = grouped["group"]
        if group in " '" or figure.count(group) > 1:
            return figure.replace(group, ""), ""
        return _ambiguous(text, *figure.split(group))
    head, separator, tail = _last_separator(figure)
    if not separator or not _PLAIN.fullmatch(tail):
        return problem("amount_not_a_number", text=text[:40])
    whole = head
    if not _PLAIN.fullmatch(head):
        grouped = _GROUPED.fullmatch(head)
        if grouped is None or grouped["group"] == separator:
            return problem("amount_not_a_number", text=text[:40])
        whole = head.replace(grouped["group"], "")
    if len(tail) == 3 and DECIMALS[currency] != 3 and not whole.startswith("0"):
        # Three digits at the end of an unusual grouping may as well be one more group of thousands.
        return _ambiguous(text, whole, tail)
    return whole, tail


def _last_separator(figure: str) -> tuple[str, str, str]:
    """Split at the last point or comma; the separator is empty when there is none."""
    at = max(figure.rfind("."), figure.rfind(","))
    return (figure[:at], figure[at], figure[at + 1 :]) if at >= 0 else (figure, "", "")


def _ambiguous(text: str, whole: str, tail: str) -> Problem:
    """Name both readings, and how to write each so that it has only one."""
    cents = tail.rstrip("0")
    thousands, decimal = whole + tail, f"{whole}.{cents}" if cents else whole
    # Two decimals, or four, cannot be taken for a group of thousands.
    plain = f"{whole}.{cents.ljust(2, '0') if len(cents) < 3 else cents + '0'}" if cents else whole
    return problem("amount_ambiguous", text=text[:40], thousands=thousands, decimal=decimal, plain=plain)


def _minor(whole: str, rest: str, text: str, currency: str) -> int | Problem:
    """Put the two halves together in minor units and hold them to the bounds."""
    decimals = DECIMALS[currency]
    if rest[decimals:].strip("0"):
        allowed = f"at most {decimals} decimals" if decimals else "a whole number"
        return problem("amount_decimals", text=text[:40], currency=currency, allowed=allowed)
    digits = (whole + rest[:decimals].ljust(decimals, "0")).lstrip("0")
    if len(digits) > _DIGITS_MAX or int(digits or "0") > AMOUNT_MINOR_MAX:
        return problem("amount_too_large", text=text[:40])
    return int(digits) if digits else problem("amount_zero")
