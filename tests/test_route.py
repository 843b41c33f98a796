"""Routing: the right account and wallet, or a reason that says what to do."""

from __future__ import annotations

import msgspec
import pytest
from burkina import MOOV, ORANGE, SANK, WALLETS, router, served, wallet

from payout_engine.domain.countries import Phone, read_phone
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Lane, Problem
from payout_engine.intake.route import Destination, Recipient, Route, Router, same_operator
from payout_engine.ports.provider import ClosedWallet


def routed(router: Router, text: str, word: str = "", currency: str = "") -> Destination:
    found = find(router, text, word, currency)
    assert isinstance(found, Destination), found
    return found


def refused(router: Router, text: str, word: str = "", currency: str = "") -> Problem:
    found = find(router, text, word, currency)
    assert isinstance(found, Problem), found
    assert "{" not in found.message
    return found


def find(router: Router, text: str, word: str, currency: str) -> Destination | Problem:
    phone = read_phone(text, "BF")
    assert isinstance(phone, Phone), phone
    return router.find(Recipient("phone", phone.country, phone.operator, phone.national, word, currency))


@pytest.mark.parametrize(
    ("text", "code"),
    [("76123456", "orange_bf"), ("70123456", "moov_bf"), ("04123456", "orange_bf"), ("01123456", "moov_bf")],
)
def test_the_wallet_is_chosen_from_the_number(text: str, code: str) -> None:
    """By the provider's own list."""
    destination = routed(router(), text)
    assert destination.lane == Lane("bf", code, "XOF")


def test_without_a_list_the_operator_chooses() -> None:
    """Where the provider prints no prefixes, whose number it is decides."""
    orange = msgspec.structs.replace(ORANGE, prefixes=())
    assert routed(Router([served(wallets=(orange, MOOV))]), "44123456").wallet is orange


@pytest.mark.parametrize("word", ["", "orange_bf", "Orange Money"])
def test_a_number_that_the_list_lacks_is_refused_with_the_option_that_allows_it(word: str) -> None:
    """The numbering plan gives 44 to Orange, the provider's document does not: it may bounce, or land elsewhere."""
    found = refused(router(), "44123456", word)
    assert found.code == "prefix_not_served"
    assert 'extra_prefixes.orange_bf = ["44"]' in found.message and "[accounts.bf]" in found.message
    assert "sank_bf" in found.message

    orange = msgspec.structs.replace(ORANGE, prefixes=(*ORANGE.prefixes, "44"))
    assert routed(Router([served(wallets=(orange, MOOV))]), "44123456", word).wallet is orange
    assert routed(router(), "44123456", "sank").wallet is SANK


@pytest.mark.parametrize(
    "word", ["orange_bf", "Orange", "ORANGE MONEY", "orange-money", "OM", "om", "Orange BF", "orangé"]
)
def test_the_payers_word_for_a_wallet_is_understood(word: str) -> None:
    """Codes, titles, initials and operators, whatever their case and accents."""
    assert routed(router(), "76123456", word).wallet is ORANGE


def test_an_operator_without_a_wallet_is_refused_with_the_way_out() -> None:
    """Telecel numbers have no wallet of their own; the sentence says who is served and what may be named."""
    found = refused(router(), "78123456")
    assert found.code == "operator_not_served"
    assert all(word in found.message for word in ("Telecel Faso", "Orange", "Moov Africa", "sank_bf"))
    assert refused(router(), "78123456", "Telecel").code == "operator_not_served"
    assert routed(router(), "78123456", "sank").wallet is SANK


def test_a_wallet_that_does_not_agree_with_the_number_is_refused_where_numbers_stay() -> None:
    """Without portability an Orange wallet cannot hold a Moov number."""
    found = refused(router(), "70123456", "Orange Money")
    assert found.code == "wallet_mismatch"
    assert "Moov Africa" in found.message and "Orange Money" in found.message


def test_a_wallet_that_does_not_agree_is_a_warning_where_numbers_are_ported() -> None:
    """In Benin the prefix does not prove the operator any more."""
    mtn = wallet("mtn_bj", "MTN MoMo", country="BJ", operators=("MTN",))
    destination = routed(Router([served(wallets=(mtn,))]), "+2290195123456", "mtn")
    assert destination.warning is not None
    assert destination.warning.code == "wallet_mismatch_possible"


def test_an_unknown_wallet_lists_the_codes() -> None:
    """The clerk sees what may be written."""
    found = refused(router(), "70123456", "Wave")
    assert found.code == "wallet_unknown"
    assert all(one.code in found.message for one in WALLETS)


def test_a_word_that_could_mean_two_wallets_is_not_chosen_between() -> None:
    """`MM` could be Moov Money or MTN Money."""
    both = Router([served(wallets=(MOOV, wallet("mtn_bf", "MTN Money", operators=("MTN",))))])
    assert refused(both, "70123456", "MM").code == "wallet_unknown"


def test_other_countries_are_refused() -> None:
    """With the countries that are served."""
    found = refused(router(), "+2250701020304")
    assert found.code == "country_not_served"
    assert "Côte d'Ivoire" in found.message and "Burkina Faso" in found.message


def test_the_lines_currency_must_be_the_wallets() -> None:
    """XOF and FCFA are; KES is not; a made-up word is none."""
    assert routed(router(), "70123456", "", "fcfa").wallet is MOOV
    assert refused(router(), "70123456", "", "KES").code == "wrong_currency"
    assert refused(router(), "70123456", "", "cauris").code == "currency_unknown"


def test_a_stated_currency_chooses_between_wallets_that_differ_by_it() -> None:
    """Two wallets of one operator in two currencies."""
    francs = wallet("francs", "Airtel CDF", country="CD", currency="CDF", decimals=2, operators=("Airtel",))
    dollars = wallet("dollars", "Airtel USD", country="CD", currency="USD", decimals=2, operators=("Airtel",))
    congo = Router([served(wallets=(francs, dollars))])
    assert routed(congo, "+243991234567", "", "USD").wallet is dollars
    assert routed(congo, "+243991234567").wallet is francs


def test_recipient_kinds_are_the_providers() -> None:
    """A provider of mobile money does not pay to an e-mail."""
    found = router().find(Recipient("email", "BF"))
    assert isinstance(found, Problem) and found.code == "recipient_kind_not_served"


def test_a_wallet_that_has_to_be_named_is_asked_for() -> None:
    """Where nothing can be chosen from the number, the sentence lists the codes."""
    found = refused(Router([served(wallets=(SANK,))]), "70123456")
    assert found.code == "wallet_needed" and "sank_bf" in found.message


def test_the_first_route_that_fits_decides() -> None:
    """By operator, then by country; what no route fits is refused."""
    accounts = [served("one"), served("two", (MOOV,))]
    routes = [Route("two", operator="moov"), Route("one", country="BF", wallet="orange_bf")]
    both = Router(accounts, routes)
    assert routed(both, "70123456").lane.account == "two"
    assert routed(both, "76123456").lane.account == "one"
    assert refused(both, "+2250701020304").code == "route_missing"
    assert refused(both, "78123456", "sank_bf").code == "route_missing"


def test_without_routes_the_first_account_that_can_pay_does() -> None:
    """The order is the configuration's; the refusal is of the account that serves the country."""
    cameroon = served("cm", (wallet("mtn_cm", "MTN", country="CM", currency="XAF", operators=("MTN",)),))
    both = Router([cameroon, served()])
    assert routed(both, "70123456").lane.account == "bf"
    assert routed(both, "+237677123456").lane.account == "cm"
    assert refused(both, "78123456").code == "operator_not_served"


def test_a_route_looks_at_the_amount_in_its_currency() -> None:
    """Both bounds belong to it; an amount that cannot be read is left for the payer to mend."""
    small = Route("small", currency="XOF", max_amount=50_000)
    both = Router([served("small"), served("large")], [small, Route("large", currency="XOF", min_amount=50_001)])
    moov = Recipient("phone", "BF", "Moov Africa", "70123456")

    def account(amount_minor: int | Problem) -> str:
        found = both.find(moov, lambda currency: amount_minor)
        assert isinstance(found, Destination)
        return found.lane.account

    assert [account(amount) for amount in (1, 50_000, 50_001, 10**9)] == ["small", "small", "large", "large"]
    assert account(Problem("amount_not_a_number", "?")) == "small"


def test_a_route_looks_at_a_column_of_the_file() -> None:
    """However its cell is written; another cell goes on to the next rule."""
    both = Router([served("abidjan"), served("rest")], [Route("abidjan", column="Site", equals="Côte"), Route("rest")])
    assert both.columns == ["Site"]
    for cell, account in (("cote", "abidjan"), ("", "rest"), ("cotes", "rest")):
        found = both.find(Recipient("phone", "BF", "Moov Africa", "70123456", cells=[cell]))
        assert isinstance(found, Destination) and found.lane.account == account


def test_a_route_does_not_fit_what_its_account_cannot_pay() -> None:
    """A rule for a country passes an e-mail address on to the rule of the account that pays to one."""
    vouchers = served("vouchers", (wallet("voucher", "Voucher", recipient="email"),))
    for routes in ([Route("bf"), Route("vouchers")], [Route("vouchers", recipient="email"), Route("bf")]):
        both = Router([served(), vouchers], routes)
        found = both.find(Recipient("email", ""))
        assert isinstance(found, Destination) and found.lane.account == "vouchers"
        assert routed(both, "70123456").lane.account == "bf"


def test_an_address_that_two_accounts_would_serve_is_refused() -> None:
    """Without a rule between them nothing says which one is meant; a number goes to the first, as ever."""
    one = served("one", (wallet("voucher", "Voucher", recipient="email"),))
    two = served("two", (wallet("gift", "Gift", recipient="email"),))
    found = Router([one, two]).find(Recipient("email", ""))
    assert isinstance(found, Problem) and found.code == "wallet_ambiguous"
    assert "voucher of one" in found.message and "gift of two" in found.message
    ruled = Router([one, two], [Route("two")]).find(Recipient("email", ""))
    assert isinstance(ruled, Destination) and ruled.lane.account == "two"


def test_a_line_that_nobody_serves_names_who_would() -> None:
    """By the kind of recipient and the country."""

    def who(kind: str, country: str) -> list[str]:
        return ["CinetPay", "Unipesa"] if (kind, country) == ("phone", "CI") else []

    one = Router([served()], who_serves=who)
    assert "CinetPay and Unipesa would" in refused(one, "+2250701020304").message
    assert "would" not in refused(one, "+254712345678").message


def test_a_line_for_what_is_not_configured_says_what_to_configure() -> None:
    """By the number or the payer's word; what is configured is chosen as ever, and no line goes to what is not."""
    wave = wallet("wave_bf", "Wave", automatic=False)
    closed = [ClosedWallet(MOOV, "moov_id = 7"), ClosedWallet(wave, "wave_id = 8")]
    one = Router([msgspec.structs.replace(served("bf", (ORANGE,)), closed=closed)])
    assert routed(one, "76123456").wallet == ORANGE
    for text, word, remedy in (
        ("70123456", "", "moov_id = 7"),
        ("70123456", "moov", "moov_id"),
        ("76123456", "wave", "wave_id = 8"),
    ):
        found = refused(one, text, word)
        assert found.code == "wallet_closed" and remedy in found.message and "[accounts.bf]" in found.message
    assert refused(one, "58123456").code == "operator_not_served"
    assert refused(one, "76123456", "xyz").code == "wallet_unknown"
    assert refused(one, "+2250701020304").code == "country_not_served"


def test_an_account_number_without_a_country_is_not_guessed_at_where_more_could_be_configured() -> None:
    """The bank that is configured may not be the one that is meant."""
    bank = wallet("bank_bf", "Bank transfer", recipient="account_number")
    closed = [ClosedWallet(msgspec.structs.replace(bank, code="bank_ke", country="KE"), "bank_id = 1")]
    one = Router([msgspec.structs.replace(served("bf", (bank,)), closed=closed)])
    for country, code in (("", "wallet_ambiguous"), ("KE", "wallet_closed"), ("SN", "country_not_served")):
        found = one.find(Recipient("account_number", country))
        assert isinstance(found, Problem) and found.code == code
    known = one.find(Recipient("account_number", "BF"))
    named = one.find(Recipient("account_number", "", wallet_word="bank_bf"))
    assert isinstance(known, Destination) and isinstance(named, Destination)


def test_a_limit_of_a_day_is_a_warning() -> None:
    """It is told, and the line goes where it would; a warning about the wallet itself comes first."""
    limited = msgspec.structs.replace(ORANGE, daily_limit="200,000 XOF a day")
    found = routed(Router([served("bf", (limited, MOOV, SANK))]), "76123456")
    assert found.warning is not None and found.warning.code == "daily_limit" and "200,000 XOF" in found.warning.message
    assert routed(router(), "76123456").warning is None


@pytest.mark.parametrize(
    ("route", "word"),
    [
        *[(Route("nobody"), "nobody"), (Route("bf", country="XX"), "XX"), (Route("bf", wallet="wave"), "wave")],
        *[
            (Route("bf", recipient="fax"), "fax"),
            (Route("bf", column="Site"), "Site"),
            (Route("bf", equals="x"), "Site"),
        ],
        *[(Route("bf", min_amount=1), "currency"), (Route("bf", max_amount=1, currency="ABC"), "currency")],
    ],
)
def test_a_route_to_nowhere_is_a_configuration_error(route: Route, word: str) -> None:
    """It is found when the configuration is read, not when a line needs it."""
    with pytest.raises(ConfigError, match=word):
        Router([served()], [route])


def test_amounts_are_held_to_the_wallets_own_bounds() -> None:
    """Minimum, maximum, multiples, and cents where a wallet takes none."""
    bounded = wallet("b", "Bounded", amount_minor_max=1_000_000, multiple_of_minor=5)
    destination = routed(Router([served(wallets=(bounded,))]), "70123456")
    assert 100 in destination.amounts and 1_000_000 in destination.amounts
    refused = [amount for amount in (99, 102, 1_000_001, 1_000_005) if amount not in destination.amounts]
    assert [(amount, destination.refuse_amount(amount).code) for amount in refused] == [
        (99, "amount_below_minimum"),
        (102, "amount_multiple"),
        (1_000_001, "amount_above_limit"),
        (1_000_005, "amount_above_limit"),
    ]
    whole = wallet("w", "Whole", country="KE", currency="KES", decimals=0)
    kenya = routed(Router([served(wallets=(whole,))]), "+254712345678")
    assert 12_300 in kenya.amounts and 12_345 not in kenya.amounts
    assert kenya.refuse_amount(12_345).code == "amount_multiple"


def test_decisions_are_remembered_in_bounded_memory() -> None:
    """A file of ever new wallet words does not fill the memory."""
    one = router()
    for number in range(45_000):
        one.find(Recipient("phone", "BF", "Orange", "76123456", f"word {number}"))
    assert len(one._remembered) <= 20_000
    assert routed(one, "76123456").wallet is ORANGE


def test_operators_are_compared_by_whole_words() -> None:
    """`Moov` is `Moov Africa`; `Air` is not `Airtel`."""
    assert same_operator("moov", "Moov Africa")
    assert same_operator("MTN Cameroon", "mtn")
    assert not same_operator("Air", "Airtel")
    assert not same_operator("", "Orange")
