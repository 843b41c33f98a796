"""Validating by column: whatever a file holds, the answer is that of the validator that looks at one line at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from burkina import WALLETS, router, served, wallet
from hypothesis import given, settings
from hypothesis import strategies as st

from payout_engine.domain.countries import COUNTRIES
from payout_engine.domain.model import Block, Payout
from payout_engine.intake.columns import find_layout
from payout_engine.intake.plain import BlockValidator
from payout_engine.intake.route import Destination, Route, Router
from payout_engine.intake.validate import Validated, Validator

DIGEST = "abcdef0123456789" * 4

MPESA = wallet(
    *("mpesa", "M-Pesa"), country="KE", currency="KES", decimals=0, amount_minor_min=0, multiple_of_minor=500
)
CENTS = wallet("airtel", "Airtel Money", country="KE", currency="KES", decimals=2, operators=("Airtel",))
ROUTERS = {
    "BF": router(),
    "BF and KE": Router(
        [served("bf", WALLETS), served("ke", (MPESA, CENTS), recipients=("phone", "email"))],
        [Route("ke", country="KE"), Route("bf")],
    ),
    "e-mail first": Router([served("bf", WALLETS, recipients=("email",))]),
}

PLAIN = {
    "reference": st.from_regex(r"PAY-[0-9]{1,6}", fullmatch=True),
    "phone": st.from_regex(r"(226)?(7[0-7]|5[4-7]|0[1-7])[0-9]{6}", fullmatch=True),
    "amount": st.integers(100, 500_000).map(str),
    "name": st.sampled_from(("Awa Traoré", "Issa Sawadogo", "")),
    "wallet": st.sampled_from(("", "", "moov", "Orange Money")),
    "currency": st.sampled_from(("", "XOF", "FCFA")),
    "country": st.sampled_from(("", "BF", "Burkina Faso")),
    "email": st.sampled_from(("", "awa@example.com")),
}
KENYAN = PLAIN | {
    "phone": st.from_regex(r"(254|0)?7[0-9]{8}", fullmatch=True),
    "wallet": st.sampled_from(("", "mpesa", "Airtel")),
    "currency": st.sampled_from(("", "KES", "ksh")),
    "country": st.sampled_from(("", "KE", "Kenya")),
}
ODD = {
    "reference": ("", "  ", " A-1 ", "a\x07b", "x" * 128, "x" * 129, "Réf 7", "a\u00a0b"),
    "phone": (
        *("", "+226 70 12 34 56", "70-12-34-56", "٧٠١٢٣٤٥٦", "7012345O", "78123456", "2507012345", "00226 70123456"),
        *(
            "701234567",
            "0712345678",
            "0733123456",
            "+254712345678",
            "70123456\n70123457",
            " 70123456",
            "2,267E+10",
            "x",
        ),
    ),
    "amount": (
        *("", "0", "-5", "50", "99", "100", "1 000", "1001", "10.000", "1500,50", "5,00", "1e5", "٥٠٠", "²", "007"),
        *(
            "150000 KES",
            " 500",
            "500\n",
            "9" * 8,
            "9" * 9,
            "9" * 10,
            "9" * 11,
            "9" * 13,
            "1" + "0" * 13,
            "9" * 20,
            "9" * 5_000,
            "x",
        ),
    ),
    "name": (" Awa  T ", "A\nB", "a\x07", " ", "\u200b", "Nom,\tavec"),
    "wallet": ("sank_bf", "Wave", "Orange", "Airtel", "MOOV", " moov ", "mpesa", "?"),
    "currency": ("KES", "???", " XOF ", "EUR", "f"),
    "country": ("SN", "Kenya", "Atlantide", " bf ", "225"),
    "email": ("no address", " awa@example.com ", "@", "a@b.c"),
}
HEADERS = {
    "amount": ("Montant", "Montant (FCFA)", "Montant (KES)", "amount_minor"),
    **{name: (name,) for name in ("reference", "phone", "name", "wallet", "currency", "country", "email")},
}


WORLDS = (
    *[("BF", "BF", PLAIN)] * 4,
    *[("BF and KE", "KE", KENYAN)] * 4,
    ("BF and KE", "BF", PLAIN),
    ("BF and KE", "", KENYAN | {"phone": st.from_regex(r"\+?(2547[0-9]{8}|2267[0-7][0-9]{6})", fullmatch=True)}),
    ("BF", "KE", PLAIN),
    ("e-mail first", "BF", PLAIN),
)
"""What is served, the country of the file, and what its plain lines hold."""


@st.composite
def files(draw: st.DrawFn, plain: Mapping[str, st.SearchStrategy[str]]) -> tuple[Sequence[str], Block]:
    """A header with some of the columns, in any order, and a block of plain lines and of lines with an odd cell."""
    left_out = draw(st.sets(st.sampled_from(("reference", "name", "wallet", "currency", "country", "email"))))
    meanings = draw(st.permutations([meaning for meaning in PLAIN if meaning not in left_out]))
    columns = [draw(st.sampled_from(HEADERS[meaning])) for meaning in meanings]
    rows = draw(st.lists(st.tuples(*(plain[meaning] for meaning in meanings)).map(list), min_size=1))
    for row in draw(st.lists(st.sampled_from(rows), max_size=5)):
        index = draw(st.sampled_from(range(len(row))))
        row[index] = draw(st.sampled_from(ODD[meanings[index]]))
    first = draw(st.integers(2, 9))
    lines = range(first, first + 2 * len(rows), 2)
    broken = st.dictionaries(st.sampled_from(lines), st.integers(1, 9), max_size=1)
    unreadable = dict.fromkeys(draw(broken), "it is not JSON")
    return columns, Block(lines, rows, ragged=draw(broken), unreadable=unreadable)


def flat(found: Validated) -> object:
    """Everything of an answer, down to the order of the lanes."""
    lanes = [(key, batch.lane, list(batch.payouts), list(batch.rows)) for key, batch in found.accepted.items()]
    return found.lines, lanes, found.refused, found.warnings


def agree(careful: Validator, block: Block) -> None:
    """Hold the two to the same answer, also once destinations are remembered."""
    by_column = BlockValidator(careful)
    expected = flat(careful.validate(block))
    assert flat(by_column.validate(block)) == expected
    assert flat(by_column.validate(block)) == expected


@settings(max_examples=300)
@given(st.sampled_from(WORLDS), st.sampled_from((None, 1_000)), st.data())
def test_by_column_and_line_by_line_give_the_same(
    world: tuple[str, str, Mapping[str, st.SearchStrategy[str]]], limit: int | None, data: st.DataObject
) -> None:
    """The same payouts, in the same lanes and order, the same refusals in the same words, the same warnings."""
    served_by, country, plain = world
    columns, block = data.draw(files(plain))
    careful = Validator(
        find_layout(columns), ROUTERS[served_by], default_country=country, digest=DIGEST, max_payout_amount=limit
    )
    agree(careful, block)


@pytest.mark.parametrize("amount", HEADERS["amount"])
@pytest.mark.parametrize(
    ("served_by", "country", "phone", "wallet_word"),
    [("BF", "BF", "70123456", ""), ("BF and KE", "KE", "0712345678", "mpesa"), ("BF and KE", "KE", "0733123456", "")],
)
def test_each_odd_cell_among_plain_ones(
    served_by: str, country: str, phone: str, wallet_word: str, amount: str
) -> None:
    """Every kind of oddness that we know, alone in its line, between two lines that have none."""
    plain = {"reference": "A-1", "phone": phone, "amount": "500", "wallet": wallet_word}
    meanings = ("reference", "phone", "amount", "wallet", "name", "currency", "country", "email")
    layout = find_layout([amount if meaning == "amount" else meaning for meaning in meanings])
    for limit in (None, 1_000):
        careful = Validator(layout, ROUTERS[served_by], default_country=country, digest=DIGEST, max_payout_amount=limit)
        row = [plain.get(meaning, "") for meaning in meanings]
        for index, meaning in enumerate(meanings):
            for cell in ODD[meaning]:
                agree(careful, Block([2, 3, 4], [row, [*row[:index], cell, *row[index + 1 :]], row]))


@given(st.sampled_from(sorted(COUNTRIES)), st.data())
def test_every_countrys_numbers_are_read_alike(code: str, data: st.DataObject) -> None:
    """With its code, its trunk prefix, a plus, a digit too many or too few."""
    country = COUNTRIES[code]
    wallets = [wallet(one.code, one.name, country=one.code, currency=one.currency) for one in COUNTRIES.values()]
    start = st.sampled_from(("", country.dial_code, "+" + country.dial_code, country.trunk_prefix, "00", "0"))
    kept, digits = st.integers(0, len(country.example)), st.text("0123456789", max_size=10)
    end = st.tuples(kept, digits).map(lambda drawn: country.example[: drawn[0]] + drawn[1]) | st.just(country.example)
    phones = data.draw(st.lists(st.tuples(start, end).map("".join), max_size=20))
    home = data.draw(st.sampled_from((code, "", "BF", "MW")))
    careful = Validator(
        find_layout(("phone", "amount")), Router([served(wallets=wallets)]), default_country=home, digest=DIGEST
    )
    block = Block(range(2, 2 + len(phones)), [[phone, "500"] for phone in phones])
    agree(careful, block)


def test_one_odd_line_leaves_the_others_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the odd line is looked at closely: a block of two thousand must not become slow for it. As people write
    numbers and amounts is not odd.
    """
    rows = [["70123456", "500"] for _ in range(100)]
    rows[40], rows[60] = ["70123456", "1000.50"], ["70 12 34 56", "1 000"]
    careful = Validator(find_layout(("phone", "amount")), router(), default_country="BF", digest=DIGEST)
    seen: list[int] = []
    look = careful.validate_line

    def looking(block: Block, place: int, found: Validated) -> tuple[Payout, Destination] | None:
        seen.append(place)
        return look(block, place, found)

    monkeypatch.setattr(careful, "validate_line", looking)
    found = BlockValidator(careful).validate(Block(range(2, 102), rows))
    assert seen == [40]
    assert [payout.line for payout in found.accepted["bf/moov_bf"].payouts] == [*range(2, 42), *range(43, 102)]
