"""Validating by column: whatever a file holds, the answer is that of the validator that looks at one line at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from burkina import WALLETS, router, served, wallet
from hypothesis import given, settings
from hypothesis import strategies as st

from payout_engine.domain.countries import COUNTRIES, Phone, read_phone
from payout_engine.domain.model import Block, Payout, Problem
from payout_engine.domain.money import PLAIN_DIGITS_MAX
from payout_engine.intake.columns import find_layout
from payout_engine.intake.plain import BlockValidator
from payout_engine.intake.route import Destination, Recipient, Route, Router
from payout_engine.intake.validate import Validated, Validator

DIGEST = "abcdef0123456789" * 4

MPESA = wallet(
    *("mpesa", "M-Pesa"), country="KE", currency="KES", decimals=0, amount_minor_min=0, multiple_of_minor=500
)
CENTS = wallet("airtel", "Airtel Money", country="KE", currency="KES", decimals=2, operators=("Airtel",))
VOUCHER = wallet("voucher", "Voucher", recipient="email")
NAMED = wallet("named_bf", "Named", needs=("name",))
ROUTERS = {
    "BF": router(),
    "BF and KE": Router(
        [served("bf", WALLETS), served("ke", (MPESA, CENTS, VOUCHER))],
        [Route("ke", country="KE"), Route("bf")],
    ),
    "a name is needed": Router([served("bf", (NAMED,))]),
    "e-mail first": Router([served("bf", (VOUCHER,))]),
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
    "bank": st.just(""),
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
    "bank": ("ABNGNGLA", " ", "a\x07"),
}
HEADERS = {
    "amount": ("Montant", "Montant (FCFA)", "Montant (KES)", "amount_minor"),
    **{name: (name,) for name in ("reference", "phone", "name", "wallet", "currency", "country", "email", "bank")},
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
    left_out = draw(st.sets(st.sampled_from(("reference", "name", "wallet", "currency", "country", "email", "bank"))))
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
    ("served_by", "country", "phone", "wallet_word", "first"),
    [
        ("BF", "BF", "70123456", "", "reference"),
        ("BF and KE", "KE", "0712345678", "mpesa", "reference"),
        ("BF and KE", "KE", "0733123456", "", "amount"),
        ("BF and KE", "KE", "0733123456", "", "country"),
        ("e-mail first", "BF", "70123456", "", "reference"),
    ],
)
def test_each_odd_cell_among_plain_ones(
    served_by: str, country: str, phone: str, wallet_word: str, first: str, amount: str
) -> None:
    """Every kind of oddness that we know, alone in its line, between two lines that have none."""
    plain = {"reference": "A-1", "phone": phone, "amount": "500", "wallet": wallet_word, "email": "awa@example.com"}
    meanings = sorted(PLAIN, key=lambda meaning: meaning != first)
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


@pytest.mark.parametrize("ragged", [{}, {3: 1}])
@pytest.mark.parametrize("unreadable", [{}, {3: "it is not JSON"}, {4: "it is not JSON"}])
def test_what_the_source_could_not_read_is_refused(ragged: dict[int, int], unreadable: dict[int, str]) -> None:
    """However plain the cells of such a line look: they may be those of another column, or of another line."""
    careful = Validator(find_layout(("phone", "amount")), router(), default_country="BF", digest=DIGEST)
    block = Block([2, 3, 4], [["70123456", "500"]] * 3, ragged=ragged, unreadable=unreadable)
    agree(careful, block)
    assert {payout.line for payout, _, _ in BlockValidator(careful).validate(block).refused} == {*ragged, *unreadable}


def test_a_block_without_lines_has_no_payouts() -> None:
    """A source may give one, such as of a workbook's sheet that ends in empty rows."""
    columns = ("reference", "phone", "amount", "country")
    agree(Validator(find_layout(columns), router(), default_country="BF", digest=DIGEST), Block([], []))


@pytest.mark.parametrize("prefixes", [2, 5])
@pytest.mark.parametrize("code", sorted(COUNTRIES))
def test_numbers_that_begin_nearly_alike_go_each_where_they_belong(code: str, prefixes: int) -> None:
    """What is remembered of a number is what decides: the operator's digits, or those of a wallet that looks further.

    With fewer, the second of two would be paid through the wallet of the first.
    """
    country = COUNTRIES[code]
    starts = sorted({*country.operators_by_prefix, country.example[:3]})
    numbers = [start + other + country.example[len(start) + 1 :] for start in starts for other in "0123456789"]
    by_operator = [
        wallet(f"w{at}", name, country=code, currency=country.currency, operators=(name,))
        for at, name in enumerate(country.operators)
    ]
    by_prefix = [
        wallet(f"w{last}", f"W{last}", country=code, currency=country.currency, prefixes=tuple(found))
        for last in "0123456789"
        if (found := {number[:prefixes] for number in numbers if number[prefixes - 1] == last})
    ]
    for wallets in filter(None, (by_operator, by_prefix)):
        careful = Validator(
            find_layout(("phone", "amount")), Router([served(wallets=wallets)]), default_country=code, digest=DIGEST
        )
        agree(careful, Block(range(2, 2 + len(numbers)), [[number, "500"] for number in numbers]))


def test_where_numbers_go_is_decided_once_for_all_that_begin_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each payee: a million of them must fit into memory. Beyond a bound it is asked anew."""
    careful = Validator(find_layout(("phone", "amount")), router(), default_country="BF", digest=DIGEST)
    by_column, asked, find = BlockValidator(careful), list[str](), careful.router.find

    def finding(recipient: Recipient, amount: object = None) -> Destination | Problem:
        asked.append(recipient.national)
        return find(recipient)

    monkeypatch.setattr(careful.router, "find", finding)
    alike = Block(range(2, 1_002), [[f"70{number:06}", "500"] for number in range(1_000)])
    others = [
        Block([2, 3], [[f"7{one}123456", "500"], [f"7{other}123456", "500"]]) for one, other in ("12", "34", "13")
    ]
    by_column.validate(alike)
    assert len(asked) == 1
    monkeypatch.setattr("payout_engine.intake.plain._REMEMBERED_MAX", 4)
    for block in (*others, alike, *others):
        assert flat(by_column.validate(block)) == flat(careful.validate(block))


PLAINLY = (
    ("BF", "BF", ("reference", "phone", "amount"), [("x" * 128, "70123456", "500000"), ("A-2", "22654123456", "100")]),
    ("BF", "BF", ("country", "amount", "phone"), [("Burkina Faso", "500", "70123456"), ("", "501", "+22670123456")]),
    ("BF", "BF", ("name", "Montant (FCFA)", "phone"), [("Awa Traoré", "1000", "70123456"), ("", "500", "70123457")]),
    ("BF", "BF", ("amount", "phone", "otp"), [("500", "70123456", ""), ("7500", "70123457", "")]),
    ("BF", "BF", ("amount", "phone"), [("500".zfill(PLAIN_DIGITS_MAX), "70123456"), ("7500", "70123457")]),
    ("BF and KE", "", ("phone", "amount"), [("22670123456", "500"), ("+254733123456", "500")]),
    ("BF and KE", "KE", ("phone", "amount_minor"), [("0733123456", "50000"), ("254733123456", "100")]),
)


@pytest.mark.parametrize(("served_by", "country", "columns", "rows"), PLAINLY)
def test_what_is_written_plainly_is_not_looked_at_closely(
    served_by: str, country: str, columns: Sequence[str], rows: Sequence[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that reads a single cell is asked about such lines, so that a file of them is read quickly."""
    block = Block(range(2, 2 + len(rows)), rows)
    limit = 1_000 if "Montant (FCFA)" in columns else None
    careful = Validator(
        find_layout(columns), ROUTERS[served_by], default_country=country, digest=DIGEST, max_payout_amount=limit
    )
    expected = flat(careful.validate(block))

    def closely(*_: object) -> None:
        pytest.fail("looked at closely")

    monkeypatch.setattr(careful, "validate_line", closely)
    for reader in ("read_phone", "parse_amount", "parse_minor", "tidy_name", "email_beside"):
        monkeypatch.setattr(f"payout_engine.intake.plain.{reader}", closely)
    judged = BlockValidator(careful).validate(block)
    assert flat(judged) == expected
    assert sum(len(batch.payouts) for batch in judged.accepted.values()) == len(rows)


def test_odd_lines_leave_the_others_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the odd lines are looked at closely: a block of two thousand must not become slow for them. As people write
    numbers and amounts is not odd.
    """
    rows = [[f"P-{number}", "70123456", "500", "BF"] for number in range(100)]
    rows[10], rows[20] = ["a\x07b", "70123456", "500", "BF"], ["P-20", "70123456", "500", "Kenya"]
    rows[40], rows[60] = ["P-40", "70123456", "1000.50", "BF"], ["P-60", "70 12 34 56", "1 000", ""]
    careful = Validator(
        find_layout(("reference", "phone", "amount", "country")), router(), default_country="BF", digest=DIGEST
    )
    seen: list[int] = []
    typed: list[str] = []
    look = careful.validate_line

    def looking(block: Block, place: int, found: Validated) -> tuple[Payout, Destination] | None:
        seen.append(place)
        return look(block, place, found)

    def reading(text: str, country: str) -> Phone | Problem:
        typed.append(text)
        return read_phone(text, country)

    monkeypatch.setattr(careful, "validate_line", looking)
    monkeypatch.setattr("payout_engine.intake.plain.read_phone", reading)
    judged = BlockValidator(careful).validate(Block(range(2, 102), rows, ragged={32: 3}))
    assert seen == [10, 20, 30, 40]
    assert typed == ["70 12 34 56"]
    paid = [place for place in range(100) if place not in seen]
    assert [payout.line - 2 for payout in judged.accepted["bf/moov_bf"].payouts] == paid
