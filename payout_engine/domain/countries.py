"""The countries we serve: their mobile numbers, operators and currencies, and how a typed phone number is read.

Patterns come from the `phonenumbers` metadata and are compiled once; nothing here parses a number with that library
row by row. Names, currencies, operators and corrections are data beside this module, each with its source. A number
is repaired silently only where that cannot change who is paid; otherwise the answer names the number that was probably
meant. Intake calls `read_phone` for every line; the command line lists `COUNTRIES`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import phonenumbers
from phonenumbers import PhoneMetadata

from payout_engine.domain.model import Problem, mask
from payout_engine.domain.rejections import problem


def fold(text: str) -> str:
    """Return `text` without case, accents, spaces and punctuation, for comparing what people write."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if letter.isalnum())


class Country(msgspec.Struct, frozen=True, kw_only=True):
    """What we know of one country.

    Attributes:
        code: ISO 3166 two-letter code.
        alpha_3: ISO 3166 three-letter code.
        name: in English.
        name_french: in French.
        other_names: further names that people write.
        currency: ISO 4217 code.
        dial_code: the international code, without `+`.
        trunk_prefix: what is dialled before the national number within the country, or empty.
        lengths: how many digits a national mobile number may have.
        example: a national mobile number of the right shape.
        ports_numbers: True where a subscriber may have taken the number to another operator.
        operators: the national prefixes first given to each operator.
        pattern: matches exactly the national mobile numbers.
        read_plain: matches a number of this country as plain digits, with or without its code or trunk prefix, or with
            `+` and its code; the national number is group 1.
        old_length: the length of numbers before a renumbering, or 0.
        old_prepend: what the renumbering put in front of every old number; empty when that is not known.
        operators_by_prefix: the same as `operators`, turned round.
        prefix_lengths: the lengths of those prefixes, longest first.
    """

    code: str
    alpha_3: str
    name: str
    name_french: str
    other_names: Sequence[str]
    currency: str
    dial_code: str
    trunk_prefix: str
    lengths: Sequence[int]
    example: str
    ports_numbers: bool
    operators: Mapping[str, Sequence[str]]
    pattern: re.Pattern[str]
    read_plain: Callable[[str], re.Match[str] | None]
    old_length: int
    old_prepend: str
    operators_by_prefix: Mapping[str, str]
    prefix_lengths: Sequence[int]

    def operator_of(self, national: str) -> str:
        """Return the operator that the number was first given to, or empty when the metadata does not say."""
        for length in self.prefix_lengths:
            operator = self.operators_by_prefix.get(national[:length])
            if operator is not None:
                return operator
        return ""

    def is_mobile(self, national: str) -> bool:
        """Return True for a national mobile number of this country."""
        return self.pattern.fullmatch(national) is not None


class Phone(NamedTuple):
    """A mobile number that was read without doubt.

    Attributes:
        digits: E.164 without `+`.
        country: ISO 3166 two-letter code.
        national: the national number.
        operator: the operator it was first given to, or empty.
        repaired: True when the cell held more than plain digits of the number.
    """

    digits: str
    country: str
    national: str
    operator: str
    repaired: bool

    def __repr__(self) -> str:
        return f"Phone({mask(self.digits)!r}, {self.country}, {self.operator!r})"


# ------------------------------------------------------------------------------------------------------------- tables


def _load(name: str) -> Any:
    """Read one of the data files."""
    return msgspec.json.decode((resources.files("payout_engine.domain") / "data" / name).read_bytes())


def _operators(code: str, table: Mapping[str, Sequence[str]], corrections: Any) -> dict[str, Sequence[str]]:
    """Return a country's operators under their present names."""
    names = {entry["operator"]: entry["becomes"] for entry in corrections["names"] if entry["country"] == code}
    renamed: dict[str, Sequence[str]] = {}
    for name, prefixes in table.items():
        present = names.get(name, name)
        renamed[present] = sorted([*renamed.get(present, ()), *prefixes])
    return renamed


def _correction(kind: str, code: str, corrections: Any) -> Mapping[str, Any]:
    """Return the correction of a kind for a country, or nothing."""
    return next((entry for entry in corrections[kind] if entry["country"] == code), {})


def _country(code: str, facts: Mapping[str, Any], table: Mapping[str, Sequence[str]], corrections: Any) -> Country:
    """Put one country together from the metadata and the data files."""
    metadata: Any = PhoneMetadata.metadata_for_region(code)
    lengths = _correction("lengths", code, corrections).get("lengths", list(metadata.mobile.possible_length))
    sizes = "|".join(f"[0-9]{{{length}}}" for length in lengths)
    renumbered = _correction("renumbered", code, corrections)
    operators = _operators(code, table, corrections)
    pattern = rf"(?=(?:{sizes})\Z)(?:{metadata.mobile.national_number_pattern})"
    lead = "|".join(filter(None, (rf"\+?{metadata.country_code}", metadata.national_prefix)))
    by_prefix = {prefix: name for name, prefixes in operators.items() for prefix in prefixes}
    return Country(
        code=code,
        **facts,
        dial_code=str(metadata.country_code),
        trunk_prefix=metadata.national_prefix or "",
        lengths=lengths,
        example=metadata.mobile.example_number,
        ports_numbers=bool(metadata.mobile_number_portable_region),
        operators=operators,
        pattern=re.compile(pattern, re.ASCII),
        read_plain=re.compile(f"(?:{lead})?({pattern})", re.ASCII).fullmatch,
        old_length=renumbered.get("old_length", 0),
        old_prepend=renumbered.get("prepend") or "",
        operators_by_prefix=by_prefix,
        prefix_lengths=sorted({len(prefix) for prefix in by_prefix}, reverse=True),
    )


def _countries() -> Mapping[str, Country]:
    """Read the data files once, when the package is imported."""
    tables, corrections = _load("operators.json")["countries"], _load("corrections.json")
    facts = _load("countries.json")["countries"]
    return MappingProxyType({code: _country(code, facts[code], tables[code], corrections) for code in sorted(facts)})


COUNTRIES: Mapping[str, Country] = _countries()
"""The countries we serve, by two-letter code."""

DIAL_CODE_DIGITS_MAX = 3
"""Digits of the longest dial code that there is."""

_BY_DIAL_CODE: Mapping[str, Country] = {country.dial_code: country for country in COUNTRIES.values()}
_BY_NAME: Mapping[str, Country] = {
    fold(name): country
    for country in COUNTRIES.values()
    for name in (country.code, country.alpha_3, country.name, country.name_french, *country.other_names)
}


def find_country(text: str) -> Country | None:
    """Return the country that `text` names (a code, or a name in English or French), or None."""
    return COUNTRIES.get(text) or _BY_NAME.get(fold(text))


# ------------------------------------------------------------------------------------------------------ reading phones


# Numbers copied from a telephone's contacts carry marks for the direction of writing.
_INVISIBLE = dict.fromkeys((*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF))
_ODD_SPACES = str.maketrans(dict.fromkeys("\u00a0\u202f\u2009\t\r\n", " ") | dict.fromkeys("‐‑‒–—−", "-") | {"’": "'"})
_SEPARATORS = str.maketrans("", "", " .-/(),")
_LOOKALIKES = str.maketrans("OoIl", "0011")
_TYPED = re.compile(r"\+?[0-9(][0-9 .\-/()]*")
_COMMA_GROUPS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
_SCIENTIFIC = re.compile(r"([0-9])(?:[.,]([0-9]+))?[eE]\+?([0-9]{1,2})")
_FLOAT = re.compile(r"(\+?[0-9]{6,15})[.,]0+")
_FRACTION = re.compile(r"[0-9]{5,}[.,][0-9]+")
_PLAIN = re.compile(r"[0-9]+")
_E164_DIGITS_MIN = 7
_E164_DIGITS_MAX = 15


def read_phone(text: str, default_country: str) -> Phone | Problem:
    """Read a mobile number as people and spreadsheets write it.

    Args:
        text: the cell.
        default_country: two-letter code of the country whose national numbers are meant, or empty.

    Returns:
        The number, or why it cannot be read without a doubt. The problem may name the number that was probably meant.
    """
    country = COUNTRIES.get(default_country)
    if country is not None:
        plain = country.read_plain(text)
        if plain is not None:
            national = plain[1]
            return Phone(
                country.dial_code + national,
                default_country,
                national,
                country.operator_of(national),
                text.startswith("+"),
            )
    return _read_typed(text, default_country)


def _read_typed(text: str, default_country: str) -> Phone | Problem:
    """Read anything that is not plain digits of the default country."""
    tidy = text.translate(_INVISIBLE).translate(_ODD_SPACES).strip().removeprefix("'").strip()
    if not tidy:
        return problem("phone_missing")
    scientific = _SCIENTIFIC.fullmatch(tidy)
    if scientific is not None:
        # Digits are lost unless the mantissa has as many decimals as the exponent says there are.
        if len(scientific[2] or "") != int(scientific[3]):
            return problem("phone_rounded", text=text.strip())
        tidy = scientific[1] + scientific[2]
    float_artefact = _FLOAT.fullmatch(tidy)
    if float_artefact is not None:
        tidy = float_artefact[1]
    typed = _TYPED.fullmatch(tidy) or _COMMA_GROUPS.fullmatch(tidy)
    if typed is None or _FRACTION.fullmatch(tidy):
        return _unreadable(text, tidy, default_country)
    return _read_digits(text, tidy.translate(_SEPARATORS), COUNTRIES.get(default_country))


def _unreadable(text: str, tidy: str, default_country: str) -> Problem:
    """Refuse the cell, naming the number that letters probably stand for."""
    likely = tidy.translate(_LOOKALIKES)
    meant = read_phone(likely, default_country) if likely != tidy else None
    hint = f" Perhaps {_shown(meant)} is meant." if isinstance(meant, Phone) else ""
    return problem("phone_unreadable", text=text.strip()[:40], hint=hint)


def _shown(phone: Phone) -> str:
    """Write a number so that it can be copied into a cell and read again."""
    return f"+{phone.digits}"


def _read_digits(text: str, digits: str, default: Country | None) -> Phone | Problem:
    """Find every country in which the digits are a mobile number; only a single one is an answer."""
    international = digits.startswith(("+", "00"))
    digits = digits.removeprefix("+") if digits.startswith("+") else digits.removeprefix("00")
    found: dict[tuple[str, str], Country] = {}
    if default is not None and not international:
        _collect(found, default, digits)
    abroad = country_of(digits)
    if abroad is not None:
        _collect(found, abroad, digits.removeprefix(abroad.dial_code))
    names = [country.name for country in found.values()]
    told_abroad = abroad is not default and abroad in found.values()
    if told_abroad and not international and _one_digit_too_many(default, digits):
        # 220 200 0000 is a Gambian number, and what a slip of the finger makes of 220 200 000 in Malawi.
        names.append(f"{default.name if default is not None else ''} with a digit too many")
    if len(names) > 1:
        return problem("phone_ambiguous", text=text.strip()[:40], country=names[0], other=names[1])
    if not found:
        return _explain(text, digits, default, abroad, international)
    ((_, national), country) = found.popitem()
    repaired = not (_PLAIN.fullmatch(text) and text.endswith(national))
    return Phone(country.dial_code + national, country.code, national, country.operator_of(national), repaired)


def _collect(found: dict[tuple[str, str], Country], country: Country, national: str) -> None:
    """Add the reading of `national` in `country`, if there is one."""
    candidates = [national]
    if country.trunk_prefix:
        candidates.append(national.removeprefix(country.trunk_prefix))
    if country.old_prepend and len(national) == country.old_length:
        candidates.append(country.old_prepend + national)
    for candidate in candidates:
        if country.is_mobile(candidate):
            found[country.code, candidate] = country


def _one_digit_too_many(country: Country | None, digits: str) -> bool:
    """Return True when leaving out one digit makes a national mobile number of `country`."""
    if country is None or len(digits) - 1 not in country.lengths:
        return False
    return any(country.is_mobile(digits[:index] + digits[index + 1 :]) for index in range(len(digits)))


def country_of(digits: str) -> Country | None:
    """Return the country whose dial code the digits begin with. No dial code begins with another."""
    return _BY_DIAL_CODE.get(digits[:3]) or _BY_DIAL_CODE.get(digits[:2])


def _explain(text: str, digits: str, default: Country | None, abroad: Country | None, international: bool) -> Problem:
    """Say why the digits are no mobile number, for the country that was most probably meant."""
    shown = text.strip()[:40]
    if len(digits) > _E164_DIGITS_MAX:
        return problem("phone_several")
    if abroad is not None and (international or default is None or _nearly(abroad, digits)):
        return _explain_in(abroad, shown, digits.removeprefix(abroad.dial_code), bare=False)
    if international and len(digits) >= _E164_DIGITS_MIN:
        return problem(
            "country_not_served", country=_region(digits), served="those of `payout-engine countries`", hint=""
        )
    if international:
        return problem("phone_unreadable", text=shown, hint="")
    if default is None:
        return problem("phone_country_missing")
    return _explain_in(default, shown, digits, bare=True)


def _nearly(country: Country, digits: str) -> bool:
    """Return True when the digits have a country code's length, give or take one."""
    rest = len(digits) - len(country.dial_code)
    return any(abs(rest - length) <= 1 for length in (*country.lengths, country.old_length or country.lengths[0]))


def _region(digits: str) -> str:
    """Name the country of an international number that we do not serve."""
    for length in (1, 2, 3):
        region = phonenumbers.region_code_for_country_code(int(digits[:length] or 0))
        if region != "ZZ":
            return f"{region} (+{digits[:length]})"
    return f"a country that does not exist (+{digits[:3]})"


def _explain_in(country: Country, shown: str, national: str, *, bare: bool) -> Problem:
    """Say why `national` is no mobile number of `country`; `bare` when no country code stood before it."""
    if len(national) == country.old_length and not country.old_prepend:
        return problem("phone_old_plan", text=shown, country=country.name)
    # A spreadsheet drops a leading zero only of a plain number with nothing before it; a person types gaps.
    plain = bare and shown.removesuffix(".0").isdigit()
    if plain and not country.trunk_prefix and country.is_mobile("0" + national):
        return problem("phone_leading_zero", text=shown, likely="0" + national)
    if len(national) not in country.lengths:
        expected = " or ".join(map(str, country.lengths))
        return problem("phone_length", found=len(national), country=country.name, expected=expected)
    return problem("phone_not_mobile", text=shown, country=country.name)
