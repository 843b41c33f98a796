"""Amounts: read without a guess, written without a float."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payout_engine.domain.limits import AMOUNT_MINOR_MAX
from payout_engine.domain.model import Problem
from payout_engine.domain.money import (
    DECIMALS,
    currencies_named,
    decimals_of,
    format_amount,
    parse_amount,
    parse_minor,
    to_major,
)

currencies = st.sampled_from(sorted(DECIMALS))
amounts = st.integers(1, AMOUNT_MINOR_MAX)


def code_of(found: int | Problem) -> str:
    assert isinstance(found, Problem), found
    assert "{" not in found.message
    return found.code


@given(amounts, currencies)
def test_what_is_written_for_machines_reads_back(amount_minor: int, currency: str) -> None:
    """`to_major` and `parse_amount` are inverse, except where three decimals look like thousands."""
    text = to_major(amount_minor, currency)
    found = parse_amount(text, currency)
    if isinstance(found, Problem):
        assert found.code == "amount_ambiguous"
        assert decimals_of(currency) == 3
    else:
        assert found == amount_minor


@given(amounts, currencies)
def test_what_is_written_for_people_reads_back_or_is_doubted(amount_minor: int, currency: str) -> None:
    """A formatted amount is read as itself or refused as ambiguous: never as another amount."""
    found = parse_amount(format_amount(amount_minor, currency), currency)
    assert found == amount_minor or code_of(found) == "amount_ambiguous"


@given(st.text(max_size=30), currencies)
def test_any_text_gives_an_amount_in_bounds_or_a_reason(text: str, currency: str) -> None:
    """Nothing that can stand in a cell raises, and nothing comes out beyond the bounds."""
    found = parse_amount(text, currency)
    assert isinstance(found, Problem) or 1 <= found <= AMOUNT_MINOR_MAX


@given(
    st.from_regex(re.compile(r"[0-9]{1,4}([ .,'][0-9]{1,3}){0,3}([.,][0-9]{1,4})?", re.ASCII), fullmatch=True),
    currencies,
)
def test_separators_never_invent_or_lose_a_digit(text: str, currency: str) -> None:
    """An accepted figure has exactly the digits that were typed, up to zeros at its ends."""
    found = parse_amount(text, currency)
    if isinstance(found, int):
        assert str(found).strip("0") == re.sub(r"[^0-9]", "", text).strip("0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("150000", 150_000),
        (" 150000 ", 150_000),
        ("150 000", 150_000),
        ("150\u00a0000", 150_000),
        ("1\u202f500\u202f000", 1_500_000),
        ("1'500'000", 1_500_000),
        ("1’500’000", 1_500_000),
        ("1.500.000", 1_500_000),
        ("1,500,000", 1_500_000),
        ("150000.00", 150_000),
        ("150000,0", 150_000),
        ("1 500 000,00", 1_500_000),
        ("1,500.00", 1_500),
        ("1.500,00", 1_500),
        ("150000 FCFA", 150_000),
        ("F CFA 150 000", 150_000),
        ("150000F", 150_000),
        ("XOF 150000", 150_000),
        ("150000 francs CFA", 150_000),
        ("'150000", 150_000),
        ("0150000", 150_000),
    ],
)
def test_francs_are_read_as_people_write_them(text: str, expected: int) -> None:
    """Every unambiguous spelling is understood."""
    assert parse_amount(text, "XOF") == expected


@pytest.mark.parametrize(
    ("text", "currency", "code"),
    [
        ("", "XOF", "amount_missing"),
        ("  \u00a0", "XOF", "amount_missing"),
        ("0", "XOF", "amount_zero"),
        ("0,00", "KES", "amount_zero"),
        ("-500", "XOF", "amount_negative"),
        ("−500", "XOF", "amount_negative"),
        ("(500)", "XOF", "amount_negative"),
        ("10.000", "XOF", "amount_ambiguous"),
        ("10,000", "KES", "amount_ambiguous"),
        ("10,000", "TND", "amount_ambiguous"),
        ("150000.000", "XOF", "amount_ambiguous"),
        ("1,234.000", "KES", "amount_ambiguous"),
        ("1 234.000", "XOF", "amount_ambiguous"),
        ("187500,50", "XOF", "amount_decimals"),
        ("0.500", "XOF", "amount_decimals"),
        ("12.345,678", "KES", "amount_ambiguous"),
        ("12.3456", "KES", "amount_decimals"),
        ("150000 KES", "XOF", "wrong_currency"),
        ("$5", "XOF", "wrong_currency"),
        ("150000 FCFA", "KES", "wrong_currency"),
        ("99999999999999", "XOF", "amount_too_large"),
        ("9" * 9_999, "XOF", "amount_too_large"),
        *(
            (text, "XOF", "amount_not_a_number")
            for text in [
                "NaN",
                "Infinity",
                "1E5",
                "1e5",
                "1_000",
                "0x10",
                "١٢٣",
                "１２３",
                "²³",
                "5.",
                ".5",
                "+500",
                "5000x",
                "1.5E+05",
                "5-3",
                "50%",
            ]
        ),
        ("1 50 000", "XOF", "amount_not_a_number"),
        ("1.50.000", "XOF", "amount_not_a_number"),
        ("1 500.000.000", "XOF", "amount_not_a_number"),
        ("cent mille", "XOF", "amount_not_a_number"),
    ],
)
def test_a_doubtful_amount_is_refused_with_its_reason(text: str, currency: str, code: str) -> None:
    """Each way of not being an amount has its own code and a finished sentence."""
    assert code_of(parse_amount(text, currency)) == code


def test_an_ambiguous_amount_names_both_readings() -> None:
    """The clerk sees both meanings and how to write either."""
    found = parse_amount("10,500", "KES")
    assert isinstance(found, Problem)
    assert all(reading in found.message for reading in ("10500", "10.5", "10.50"))


@pytest.mark.parametrize("text", ["10500", "10.50", "10.1250"])
def test_the_remedy_of_an_ambiguous_amount_is_accepted(text: str) -> None:
    """What the sentence tells the clerk to write is not ambiguous any more."""
    found = parse_amount(text, "TND")
    assert isinstance(found, int)


def test_minor_units_are_plain_digits_only() -> None:
    """A column in minor units leaves nothing to interpret."""
    assert parse_minor("1250") == 1250
    assert [code_of(parse_minor(text)) for text in ("", "0", "-1", "1.0", "١", "9" * 5_000)] == [
        "amount_missing",
        "amount_zero",
        "amount_negative",
        "amount_not_a_number",
        "amount_not_a_number",
        "amount_too_large",
    ]


def test_amounts_are_shown_with_their_currency() -> None:
    """People see groups of thousands and the currency's own decimals."""
    assert format_amount(1_240_000, "XOF") == "1,240,000 XOF"
    assert format_amount(123_456, "KES") == "1,234.56 KES"
    assert format_amount(-5, "TND") == "-0.005 TND"
    assert to_major(1_240_000, "XOF") == "1240000"
    assert to_major(5, "KES") == "0.05"


def test_franc_words_stand_for_both_cfa_francs() -> None:
    """FCFA alone does not say which central bank."""
    assert currencies_named("F CFA") == {"XOF", "XAF"}
    assert currencies_named("ksh") == {"KES"}
    assert currencies_named("pesos") == frozenset()
