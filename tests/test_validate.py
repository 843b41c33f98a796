"""Validating lines: every line in comes out once, with one reason that a clerk can act on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from burkina import ORANGE, router, served, traits, wallet
from hypothesis import example, given
from hypothesis import strategies as st

from payout_engine.domain import rejections
from payout_engine.domain.errors import ConfigError, InputError
from payout_engine.domain.limits import CHUNK_SIZE, CHUNK_SIZE_SINGLY
from payout_engine.domain.model import REJECTED_LANE, Block, Chunk, Payout, Problem
from payout_engine.domain.rejections import SENTENCES, problem
from payout_engine.intake.chunk import Packer, chunk_size
from payout_engine.intake.columns import Layout, find_layout
from payout_engine.intake.route import Route, Router
from payout_engine.intake.validate import Validated, Validator
from payout_engine.ports.provider import KeyPromise

DIGEST = "abcdef0123456789" * 4
COLUMNS = ("Référence", "Nom", "Téléphone", "Opérateur", "Montant", "Devise", "Pays")
GOOD = ("A-1", "Awa Traoré", "70123456", "", "150000", "", "")


def validator(columns: Sequence[str] = COLUMNS, router_: Router | None = None, **options: object) -> Validator:
    facts: dict[str, object] = {"default_country": "BF", "digest": DIGEST, **options}
    return Validator(find_layout(columns), router_ or router(), **facts)  # type: ignore[arg-type]


def validated(row: Sequence[str], one: Validator | None = None) -> Validated:
    return (one or validator()).validate(Block([2], [row]))


def payout(row: Sequence[str], one: Validator | None = None) -> Payout:
    found = validated(row, one)
    assert not found.refused, found.refused[0][2].message
    (batch,) = found.accepted.values()
    return batch.payouts[0]


def reason(row: Sequence[str], one: Validator | None = None) -> Problem:
    ((_, _, found),) = validated(row, one).refused
    assert "{" not in found.message
    return found


def changed(**cells: str) -> tuple[str, ...]:
    """A good row with some cells changed, by a short name of the column."""
    names = ("reference", "name", "phone", "wallet", "amount", "currency", "country")
    return tuple(cells.get(name, cell) for name, cell in zip(names, GOOD, strict=True))


def test_a_good_line_becomes_a_payout_with_everything_said() -> None:
    """What was implied by the number is written out."""
    assert payout(GOOD) == Payout(
        reference="A-1",
        amount_minor=150_000,
        currency="XOF",
        phone="22670123456",
        country="BF",
        wallet="moov_bf",
        name="Awa Traoré",
        line=2,
    )


@pytest.mark.parametrize(
    ("cells", "code", "column"),
    [
        ({"reference": " "}, "reference_missing", "Référence"),
        ({"reference": "x" * 129}, "reference_unreadable", "Référence"),
        ({"reference": "a\x07b"}, "reference_unreadable", "Référence"),
        ({"phone": ""}, "phone_missing", "Téléphone"),
        ({"phone": "2,26702E+10"}, "phone_rounded", "Téléphone"),
        ({"phone": "+2250701020304", "country": ""}, "country_not_served", "Téléphone"),
        ({"phone": "78123456"}, "operator_not_served", "Téléphone"),
        ({"country": "Atlantide"}, "country_unknown", "Pays"),
        ({"phone": "22670123456", "country": "Sénégal"}, "country_mismatch", "Pays"),
        ({"wallet": "Orange"}, "wallet_mismatch", "Opérateur"),
        ({"wallet": "Wave"}, "wallet_unknown", "Opérateur"),
        ({"currency": "KES"}, "wrong_currency", "Devise"),
        ({"currency": "???"}, "currency_unknown", "Devise"),
        ({"amount": ""}, "amount_missing", "Montant"),
        ({"amount": "10.000"}, "amount_ambiguous", "Montant"),
        ({"amount": "187500,50"}, "amount_decimals", "Montant"),
        ({"amount": "50"}, "amount_below_minimum", "Montant"),
        ({"amount": "150000 KES"}, "wrong_currency", "Montant"),
    ],
)
def test_each_fault_has_its_code_and_its_column(cells: dict[str, str], code: str, column: str) -> None:
    """One reason per line, at the column where it can be mended."""
    found = reason(changed(**cells))
    assert (found.code, found.column) == (code, column)


def test_the_most_fundamental_fault_comes_first() -> None:
    """Who is paid matters before where, and where before how much."""
    assert reason(changed(phone="x", wallet="Wave", amount="x")).code == "phone_unreadable"
    assert reason(changed(wallet="Wave", amount="x")).code == "wallet_unknown"


def test_what_the_source_could_not_read_is_refused() -> None:
    """Ragged and unreadable lines come out like any other."""
    found = validator().validate(Block([2, 3, 5], [GOOD, GOOD, GOOD], ragged={3: 9}, unreadable={5: "it is not JSON"}))
    assert [(payout.line, why.code) for payout, _, why in found.refused] == [(3, "line_ragged"), (5, "line_unreadable")]
    assert "9 cells" in found.refused[0][2].message
    assert "it is not JSON" in found.refused[1][2].message


def test_the_payers_own_limit_is_kept() -> None:
    """It is in major units of whatever currency the line is in."""
    limited = validator(max_payout_amount=200_000)
    assert payout(changed(amount="200000"), limited).amount_minor == 200_000
    assert reason(changed(amount="200001"), limited).code == "amount_above_limit"


def test_references_are_derived_from_content_and_line() -> None:
    """The same file gives the same references."""
    derived = validator(("phone", "amount"))
    assert payout(("70123456", "500"), derived).reference == "abcdef012345-2"


def test_lines_without_any_reference_are_not_taken_from_a_program() -> None:
    """There is no content to derive them from, so nothing would prevent a second payment."""
    with pytest.raises(InputError, match="references"):
        validator(("phone", "amount"), digest="")


def test_amounts_in_minor_units_are_taken_as_they_are() -> None:
    """Programs give integers."""
    kenya = Router([served(wallets=(wallet("mpesa", "M-Pesa", country="KE", currency="KES", decimals=2),))])
    columns = ("reference", "amount_minor", "phone")
    one = validator(columns, kenya, default_country="KE")
    assert payout(("a", "12345", "0712345678"), one).amount_minor == 12_345
    assert reason(("a", "123.45", "0712345678"), one).code == "amount_not_a_number"


def test_a_header_that_names_a_currency_is_believed() -> None:
    """`Montant (FCFA)` is fine for francs, and refuses lines that would be paid in shillings."""
    columns = ("reference", "phone", "Montant (KES)")
    assert reason(("a", "70123456", "500"), validator(columns)).code == "wrong_currency"
    assert payout(("a", "70123456", "500"), validator(("reference", "phone", "Montant (FCFA)"))).amount_minor == 500


NEEDS = ("name", "email", "bank", "document_type", "document_number", "otp")


def test_other_kinds_of_recipients() -> None:
    """The first that is filled in and served is paid; nothing else goes into the payout by mistake."""
    everywhere = Router(
        [served(wallets=(wallet("w", "Any", recipient="email"), wallet("b", "Bank", recipient="account_number")))]
    )
    columns = ("reference", "amount", "phone", "email", "iban")
    one = validator(columns, everywhere)
    by_email = payout(("a", "500", "70123456", "awa@example.com", ""), one)
    assert (by_email.recipient, by_email.phone) == ("awa@example.com", "")
    by_account = payout(("b", "500", "", "", "BF42 0840 0001 2345"), one)
    assert (by_account.recipient, by_account.email) == ("BF42084000012345", "")
    assert reason(("c", "500", "", "awa@", ""), one).code == "email_unreadable"
    assert reason(("d", "500", "", "", "#"), one).code == "account_number_unreadable"
    assert reason(("e", "500", "", "", ""), one).code == "recipient_missing"
    assert reason(("f", "500", "70123456", "", ""), one).code == "recipient_kind_not_served"
    assert reason(("g", "500", ""), validator(("reference", "amount", "email"), everywhere)).code == "email_missing"


def test_a_named_wallet_says_which_recipient_is_meant() -> None:
    """With a phone and an account number beside each other, the phone is paid unless the bank is named."""
    both = Router([served(wallets=(ORANGE, wallet("bank_bf", "Bank transfer", recipient="account_number")))])
    one = validator(("reference", "amount", "phone", "iban", "wallet", "email"), both)
    by_phone = payout(("a", "500", "74123456", "BF42084000012345", "", "a@example.com"), one)
    by_bank = payout(("b", "500", "74123456", "BF42084000012345", "bank", "a@example.com"), one)
    assert (by_phone.recipient, by_phone.account_number) == ("22674123456", "")
    assert (by_bank.recipient, by_bank.phone, by_bank.email) == ("BF42084000012345", "", "a@example.com")


def test_an_address_that_fits_two_wallets_is_refused() -> None:
    """Nothing in an e-mail address says whose it is; the payer says it."""
    two = Router([served(wallets=(wallet("one", "One", recipient="email"), wallet("two", "Two", recipient="email")))])
    columns = ("reference", "amount", "email", "wallet")
    assert reason(("a", "500", "awa@example.com", ""), validator(columns, two)).code == "wallet_ambiguous"
    assert payout(("a", "500", "awa@example.com", "two"), validator(columns, two)).wallet == "two"


@pytest.mark.parametrize("need", NEEDS)
def test_what_a_wallet_needs_is_asked_for(need: str) -> None:
    """Without it the line is refused, with the column and the remedy; with it, it rides along."""
    asking = Router([served(wallets=(wallet("w", "Any", needs=(need,)),))])
    one = validator(("reference", "amount", "phone", need), asking)
    said = reason(("a", "500", "70123456", " "), one)
    assert (said.code, said.column) == (f"{need}_needed", need)
    filled = payout(("a", "500", "70123456", "a@example.com"), one)
    assert getattr(filled, need) == "a@example.com"
    assert need in reason(("a", "500", "70123456"), validator(("reference", "amount", "phone"), asking)).message


def test_a_route_may_look_at_a_column_or_the_amount_of_a_line() -> None:
    """As they stand in the file; a file without the column is refused with its columns named."""
    routes = [Route("site", column="Site", equals="Koudougou"), Route("large", currency="XOF", min_amount=1_000)]
    accounts = [served("site"), served("large"), served("rest")]
    both = Router(accounts, [*routes, Route("rest")])
    one = validator(("reference", "amount", "phone", "Site "), both)
    for row, account in (
        (("a", "500", "70123456", "KOUDOUGOU"), "site"),
        (("b", "1 000", "70123456", ""), "large"),
        (("c", "999", "70123456", "Bobo"), "rest"),
    ):
        found = one.validate(Block([2], [row]))
        assert [batch.lane.account for batch in found.accepted.values()] == [account]
    with pytest.raises(InputError, match=r"Site.*“reference”, “amount”, “phone”"):
        validator(("reference", "amount", "phone"), both)


def test_a_refused_line_is_counted_with_what_could_be_read() -> None:
    """The sum of the file's amounts includes refused lines, so that a person can compare totals."""
    ((payout, row, _),) = validated(changed(phone="78123456")).refused
    assert (payout.reference, payout.amount_minor, payout.currency, payout.line) == ("A-1", 150_000, "XOF", 2)
    assert row == changed(phone="78123456")
    assert validated(changed(amount="10.000")).refused[0][0].amount_minor == 0


def test_a_name_is_one_line() -> None:
    """Line breaks from a cell do not reach a provider."""
    assert payout(changed(name=" Awa\nTraoré ")).name == "Awa Traoré"


@given(st.lists(st.tuples(*[st.text(max_size=12)] * len(COLUMNS)) | st.just(GOOD), max_size=30))
def test_every_line_comes_out_once(rows: list[tuple[str, ...]]) -> None:
    """Whatever the cells hold, nothing raises, is lost or is doubled."""
    found = validator().validate(Block(range(2, len(rows) + 2), rows))
    lines = [payout.line for batch in found.accepted.values() for payout in batch.payouts]
    lines += [payout.line for payout, _, _ in found.refused]
    assert sorted(lines) == list(range(2, len(rows) + 2))


# ------------------------------------------------------------------------------------------------------------- chunks


@given(
    st.lists(st.lists(st.sampled_from(["70123456", "76123456", "bad"]), max_size=250), max_size=6),
    st.sampled_from([1, 3, 100, 5_000]),
)
@example([["bad"] * 250, ["70123456", "bad", "76123456"] * 110], 100)
def test_packing_loses_and_doubles_nothing_and_keeps_limits(blocks: list[list[str]], batch_limit: int) -> None:
    """Each line is in one chunk of its lane, in order, with its own row; chunks keep the provider's limit."""
    one, packer = validator(("reference", "phone", "amount")), Packer({"bf": traits(batch_limit=batch_limit)})
    chunks: list[Chunk] = []
    expected: dict[int, Sequence[str]] = {}
    line = 2
    for phones in blocks:
        rows = [(f"r{line + index}", phone, "500") for index, phone in enumerate(phones)]
        expected |= {line + index: row for index, row in enumerate(rows)}
        chunks += packer.add(one.validate(Block(range(line, line + len(rows)), rows)))
        line += len(rows)
    chunks += packer.rest()
    seen = [(payout.line, row) for chunk in chunks for payout, row in zip(chunk.payouts, chunk.rows, strict=True)]
    assert len(seen) == len(expected) and dict(seen) == expected
    for lane in {chunk.lane for chunk in chunks}:
        mine = [chunk for chunk in chunks if chunk.lane == lane]
        lines = [payout.line for chunk in mine for payout in chunk.payouts]
        assert lines == sorted(lines)
        size = CHUNK_SIZE if lane == REJECTED_LANE else chunk_size(traits(batch_limit=batch_limit))
        assert all(len(chunk.payouts) == size for chunk in mine[:-1]) and 0 < len(mine[-1].payouts) <= size
        assert all(bool(chunk.problems) == (lane == REJECTED_LANE) for chunk in mine)


def test_refused_lines_leave_as_soon_as_they_fill_a_chunk() -> None:
    """A file of nothing but refusals needs no more memory than another."""
    one, packer = validator(("reference", "phone", "amount")), Packer({"bf": traits()})
    bad = [(f"r{line}", "bad", "500") for line in range(250)]
    assert [len(chunk.payouts) for chunk in packer.add(one.validate(Block(range(2, 252), bad)))] == [100, 100]
    assert [len(chunk.payouts) for chunk in packer.rest()] == [50]


def test_chunks_are_as_large_as_a_call_may_be() -> None:
    """Where a provider takes payouts singly, the chunk is what one intent covers, or only the journal's unit."""
    sizes = [chunk_size(traits(batch_limit=limit)) for limit in (1, 20, 100, 1_000)]
    assert sizes == [CHUNK_SIZE_SINGLY, 20, 100, CHUNK_SIZE]
    once = traits(batch_limit=1, key_promise=KeyPromise.IDEMPOTENT)
    assert chunk_size(once) == CHUNK_SIZE
    assert chunk_size(msgspec.structs.replace(once, absence_final_seconds=60.0)) == CHUNK_SIZE_SINGLY


# ------------------------------------------------------------------------------------------------------------ columns


@pytest.mark.parametrize(
    "columns",
    [
        ("Téléphone", "Montant"),
        ("TELEPHONE", "SALAIRE NET"),
        ("Numéro de téléphone", "Net à payer"),
        ("msisdn", "amount"),
        ("N° de téléphone", "Montant (FCFA)"),
        ("Phone Number", "Salary"),
        ("e-mail", "montant"),
        ("IBAN", "amount_minor"),
    ],
)
def test_needed_columns_are_found_by_their_headers(columns: tuple[str, str]) -> None:
    """English or French, whatever the case, accents and punctuation."""
    layout = find_layout(columns)
    assert max(layout.phone, layout.email, layout.account_number) == 0
    assert max(layout.amount, layout.amount_minor) == 1


def test_every_meaning_is_found() -> None:
    """References, currency, country, wallet, name and e-mail."""
    layout = find_layout(
        ("Matricule", "Nom complet", "Prénom", "Tél.", "Courriel", "Réseau", "Pays", "Devise", "Montant")
    )
    assert layout == Layout(
        columns=layout.columns, reference=0, name=1, phone=3, email=4, wallet=5, country=6, currency=7, amount=8
    )
    assert layout.has_references


def test_two_columns_with_one_meaning_are_not_chosen_between() -> None:
    """The message names both and how to say which; the mapping then decides."""
    columns = ("Téléphone", "Mobile", "Montant")
    with pytest.raises(InputError, match=r"“Téléphone” and “Mobile”.*\[columns\] phone"):
        find_layout(columns)
    assert find_layout(columns, {"phone": "Mobile"}).phone == 1


def test_what_we_added_to_our_own_results_is_not_what_the_payer_wrote() -> None:
    """A mended copy of `attention.csv` has one amount."""
    added = ("payout_line", "payout_status", "payout_amount", "payout_currency")
    layout = find_layout(("phone", "Montant", *added))
    assert (layout.amount, layout.currency) == (1, -1)
    assert find_layout(("phone", "payout_amount")).amount == 1


@pytest.mark.parametrize(("columns", "word"), [(("nom", "montant"), "phone"), (("nom", "tel"), "amount")])
def test_a_missing_column_is_named_with_the_headers_found(columns: tuple[str, str], word: str) -> None:
    """And how to map it."""
    with pytest.raises(InputError, match=rf"“nom”.*\[columns\] {word}"):
        find_layout(columns)


def test_a_mapping_to_nothing_is_an_error() -> None:
    """A header that the file does not have, or a meaning that does not exist."""
    with pytest.raises(InputError, match="Handy"):
        find_layout(("tel", "montant"), {"phone": "Handy"})
    with pytest.raises(ConfigError, match="fone"):
        find_layout(("tel", "montant"), {"fone": "tel"})


# ------------------------------------------------------------------------------------------------------------ reasons


def test_every_code_that_is_used_has_a_sentence_and_every_sentence_is_used() -> None:
    """The one table of reasons is complete and has nothing left over."""
    domain = Path(rejections.__file__).parent
    sources = [*(domain.parent / "intake").glob("*.py"), domain / "countries.py", domain / "money.py"]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    used = set(re.findall(r'"([a-z]+_[a-z_]+)"', text)) | {f"{need}_needed" for need in NEEDS}
    assert set(SENTENCES) <= used, sorted(set(SENTENCES) - used)
    called = set(re.findall(r'problem\(\s*"([a-z_]+)"', text))
    assert called <= set(SENTENCES), sorted(called - set(SENTENCES))


def test_a_sentence_without_its_facts_is_a_fault_of_ours() -> None:
    """It is found by the first test that uses it."""
    with pytest.raises(KeyError):
        problem("phone_length")


def test_hard_spaces_are_shown_as_spaces() -> None:
    """Not as the escapes of a programmer."""
    assert "'7O 11'" in problem("phone_unreadable", text="7O\u00a011", hint="").message
