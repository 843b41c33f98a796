"""Country rules: numbers are read without doubt or refused with a remedy."""

from __future__ import annotations

import re
from itertools import product

import msgspec
import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payout_engine.domain.countries import COUNTRIES, Phone, _read_digits, find_country, read_phone
from payout_engine.domain.model import Problem
from payout_engine.domain.money import DECIMALS

codes = st.sampled_from(sorted(COUNTRIES))


@st.composite
def mobiles(draw: st.DrawFn) -> tuple[str, str]:
    """A country and one of its national mobile numbers."""
    country = COUNTRIES[draw(codes)]
    # Hypothesis cannot build text from the look-ahead that holds our pattern to its lengths.
    pattern = re.compile(country.pattern.pattern.partition(")\\Z)")[2], re.ASCII)
    return country.code, draw(st.from_regex(pattern, fullmatch=True).filter(country.is_mobile))


def refused(text: str, country: str) -> Problem:
    found = read_phone(text, country)
    assert isinstance(found, Problem), found
    assert "{" not in found.message
    return found


def accepted(text: str, country: str) -> Phone:
    found = read_phone(text, country)
    assert isinstance(found, Phone), found
    return found


def test_the_twenty_five_countries_are_served() -> None:
    """Every country has a currency we know, an example that is its own, and operators."""
    assert len(COUNTRIES) == 25
    for country in COUNTRIES.values():
        assert country.currency in DECIMALS
        assert accepted(country.example, country.code).country == country.code
        assert country.operators
        assert find_country(country.name) is find_country(country.name_french) is country


@given(mobiles())
def test_patterns_agree_with_the_library_they_come_from(mobile: tuple[str, str]) -> None:
    """What we accept, the metadata's own library calls a mobile number (or cannot tell from a fixed line)."""
    code, national = mobile
    number = phonenumbers.parse(f"+{COUNTRIES[code].dial_code}{national}", None)
    kinds = phonenumbers.PhoneNumberType
    assert phonenumbers.number_type(number) in (kinds.MOBILE, kinds.FIXED_LINE_OR_MOBILE)


@given(mobiles(), codes)
def test_reading_is_idempotent_whatever_the_default_country(mobile: tuple[str, str], default: str) -> None:
    """An E.164 number reads as itself with `+`; without it, as itself or as a doubt, and never as another."""
    code, national = mobile
    digits = COUNTRIES[code].dial_code + national
    for text in (f"+{digits}", f"00{digits}"):
        assert accepted(text, default).digits == digits
        assert read_phone(text, default) == read_phone(text, "") == read_phone(text, code)
    for home in (code, ""):
        assert accepted(digits, home).digits == digits
    found = read_phone(digits, default)
    assert (isinstance(found, Phone) and found.digits == digits) or refused(digits, default).code == "phone_ambiguous"


@given(mobiles(), st.sampled_from([" ", "\u00a0", "\u202f", ".", "-", "/", "‑"]), st.integers(2, 3))
def test_separators_do_not_change_who_is_paid(mobile: tuple[str, str], separator: str, size: int) -> None:
    """A number with gaps is the number without them."""
    code, national = mobile
    spaced = separator.join(national[start : start + size] for start in range(0, len(national), size))
    for text in (spaced, f"+{COUNTRIES[code].dial_code}{separator}{spaced}"):
        found = read_phone(text, code)
        assert isinstance(found, Problem) or found.national == national
    assert accepted(f"+{COUNTRIES[code].dial_code} {national}", "").repaired
    trunk = COUNTRIES[code].trunk_prefix
    plain = read_phone(f"{trunk}{national}", code)
    if trunk and isinstance(plain, Phone):
        assert accepted(f"{trunk}{spaced}", code).digits == plain.digits


@given(mobiles(), st.integers(0, 9), st.data())
def test_a_number_with_a_wrong_digit_count_is_never_repaired(
    mobile: tuple[str, str], extra: int, data: st.DataObject
) -> None:
    """One digit more or less is refused, unless that is another documented spelling of a number of the country."""
    code, national = mobile
    cut = data.draw(st.integers(0, len(national) - 1))
    for text in (national[:cut] + national[cut + 1 :], f"{national}{extra}"):
        found = read_phone(text, code)
        if isinstance(found, Phone):
            country = COUNTRIES[code]
            assert found.country == code
            assert len(text) in (*country.lengths, country.old_length) or text.startswith(("0", country.dial_code))


@given(st.text(max_size=40), codes)
def test_any_text_gives_a_number_or_a_reason(text: str, country: str) -> None:
    """Nothing that can stand in a cell raises."""
    found = read_phone(text, country)
    assert isinstance(found, Phone | Problem)


def test_no_number_is_two_countries_at_once() -> None:
    """A national number is never also another country's number with its code, so the fast path hides no doubt."""
    for default, other in product(COUNTRIES.values(), repeat=2):
        clash = {len(other.dial_code) + length for length in other.lengths} & set(default.lengths)
        for length in clash:
            assert not default.is_mobile(other.dial_code + other.example) and length == 10, (default.code, other.code)


def test_a_number_that_two_countries_claim_is_refused() -> None:
    """Should a renumbering ever make two readings possible, neither is chosen."""
    nigeria = COUNTRIES["NG"]
    claiming = msgspec.structs.replace(nigeria, pattern=re.compile("220[0-9]{7}"))
    found = _read_digits("2203012345", "2203012345", claiming)
    assert isinstance(found, Problem)
    assert found.code == "phone_ambiguous"
    assert "Gambia" in found.message and "Nigeria" in found.message


@pytest.mark.parametrize(
    ("text", "country", "digits"),
    [
        ("70123456", "BF", "22670123456"),
        ("22670123456", "BF", "22670123456"),
        ("+226 70 12 34 56", "BF", "22670123456"),
        ("00226 70-12-34-56", "BF", "22670123456"),
        ("(226) 70.12.34.56", "BF", "22670123456"),
        ("'70123456", "BF", "22670123456"),
        ("22670123456.0", "BF", "22670123456"),
        ("2.2670123456E+10", "BF", "22670123456"),
        ("2,2670123456e10", "BF", "22670123456"),
        ("\u202a+22670123456\u202c", "BF", "22670123456"),
        ("0712345678", "KE", "254712345678"),
        ("0712 345 678", "KE", "254712345678"),
        ("0772 345-678", "UG", "256772345678"),
        ("+254 (0)712 345 678", "KE", "254712345678"),
        ("712345678.0", "KE", "254712345678"),
        ("97123456", "BJ", "2290197123456"),
        ("22997123456", "BJ", "2290197123456"),
        ("2250701020304", "BF", "2250701020304"),
    ],
)
def test_a_spelling_that_loses_nothing_is_understood(text: str, country: str, digits: str) -> None:
    """People's and spreadsheets' spellings are repaired where nothing is lost."""
    assert accepted(text, country).digits == digits


@pytest.mark.parametrize(
    "national", ["76000000", "77000000", "65000000", "70000000", "71000000", "72000000", "68000000", "75000000"]
)
def test_the_providers_own_test_numbers_pass(national: str) -> None:
    """Numbers printed in the Senfenico document for testing are mobile numbers of Burkina Faso."""
    assert accepted(national, "BF").national == national


@pytest.mark.parametrize(
    ("text", "country", "code"),
    [
        ("", "BF", "phone_missing"),
        (" \u00a0", "BF", "phone_missing"),
        ("2.26702E+10", "BF", "phone_rounded"),
        ("2,26702E+10", "BF", "phone_rounded"),
        ("2E10", "BF", "phone_rounded"),
        ("7012345", "BF", "phone_leading_zero"),
        ("7012345.0", "BF", "phone_leading_zero"),
        ("712345678", "CI", "phone_leading_zero"),
        ("197123456", "BJ", "phone_leading_zero"),
        ("70 12 34 5", "BF", "phone_length"),
        ("701234567", "BF", "phone_length"),
        ("2267012345", "BF", "phone_length"),
        ("07123456", "CI", "phone_old_plan"),
        ("22507123456", "BF", "phone_old_plan"),
        ("70123456/76123456", "BF", "phone_several"),
        ("2202000000", "MW", "phone_ambiguous"),
        ("2203012345", "GH", "phone_ambiguous"),
        ("70123456", "", "phone_country_missing"),
        ("25301234", "BF", "phone_not_mobile"),
        ("+226 25 30 12 34", "", "phone_not_mobile"),
        ("7O123456", "BF", "phone_unreadable"),
        ("70l23456", "BF", "phone_unreadable"),
        ("inconnu", "BF", "phone_unreadable"),
        ("٧٠١٢٣٤٥٦", "BF", "phone_unreadable"),
        ("７０１２３４５６", "BF", "phone_unreadable"),
        ("+226+70123456", "BF", "phone_unreadable"),
        ("7012345.6", "BF", "phone_unreadable"),
        ("=70123456", "BF", "phone_unreadable"),
        ("00", "BF", "phone_unreadable"),
        ("+33612345678", "BF", "country_not_served"),
        ("81234", "ZA", "phone_length"),
    ],
)
def test_a_doubtful_number_is_refused_with_its_reason(text: str, country: str, code: str) -> None:
    """Each way of not being a number has its own code and a finished sentence."""
    assert refused(text, country).code == code


def test_the_likely_number_is_named() -> None:
    """Where one number was probably meant, the sentence names it, and it can be pasted back."""
    assert "07012345" in refused("7012345", "BF").message
    assert "+22670123456" in refused("7O123456", "BF").message
    assert accepted("+22670123456", "BF").national == "70123456"


def test_neither_a_phone_nor_a_problem_shows_a_number_in_its_repr() -> None:
    """What ends in a log shows no full number."""
    assert "70123456" not in repr(accepted("70123456", "BF"))
    assert "70123456" not in repr(refused("7O123456", "BF"))


@pytest.mark.parametrize(
    ("national", "country", "operator"),
    [
        ("76123456", "BF", "Orange"),
        ("44123456", "BF", "Orange"),
        ("70123456", "BF", "Moov Africa"),
        ("78123456", "BF", "Telecel Faso"),
        ("0712345678", "CI", "Orange"),
        ("90123456", "TG", "Yas"),
        ("621234567", "TZ", "Halotel"),
        ("677123456", "CM", "MTN"),
    ],
)
def test_operators_are_known_by_prefix(national: str, country: str, operator: str) -> None:
    """The table's names are the present ones, by the longest prefix."""
    assert COUNTRIES[country].operator_of(national) == operator


@pytest.mark.parametrize("word", ["BF", "bf", "BFA", "Burkina Faso", "BURKINA-FASO", "burkina"])
def test_countries_are_found_by_what_people_write(word: str) -> None:
    """Codes and names, in any case and punctuation."""
    found = find_country(word)
    assert found is not None and found.code == "BF"
    assert find_country("Cote d'Ivoire") is COUNTRIES["CI"]
    assert find_country("Atlantis") is None
