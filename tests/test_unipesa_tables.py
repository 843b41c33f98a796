"""Unipesa's provider ids: all that the document prints, the strictest where it does not say whose a limit is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from payout_engine.domain.countries import COUNTRIES
from payout_engine.domain.model import Direction
from payout_engine.domain.money import DECIMALS
from payout_engine.intake.route import amounts_of
from payout_engine.ports.provider import Wallet
from payout_engine.providers.unipesa import tables
from payout_engine.providers.unipesa.options import closed_wallets, wallets
from payout_engine.providers.unipesa.tables import B2C, C2B, FACES, IDS, OPERATORS, SIMULATOR, place

CURRENCIES = {"extra_currencies": ["GHS", "SLE", "XAF", "ZAR"], "return_url": "https://example.com/back"}


def of_every_id(direction: Direction) -> dict[int, Wallet]:
    """Every id of the document as a wallet, each from an account that names it."""
    found = {}
    for id, name in IDS.items():
        if FACES[direction] in OPERATORS[name][1].faces:
            (found[id],) = [
                wallet
                for wallet in wallets({**CURRENCIES, "provider_ids": {name: id}}, direction)
                if wallet.code.endswith(f"_{id}")
            ]
    return found


PAID_TO, COLLECTED_FROM = of_every_id(Direction.PAY), of_every_id(Direction.COLLECT)


def test_every_id_of_the_document_is_there() -> None:
    """109 ids of 19 countries; cards are collected from only."""
    assert len(IDS) == 109 and len(tables.COUNTRY_TABLES) == 19
    assert set(COLLECTED_FROM) == set(IDS)
    assert set(IDS) - set(PAID_TO) == {707, 9123}
    assert SIMULATOR == 14 and SIMULATOR not in IDS


@pytest.mark.parametrize(
    ("id", "least", "most", "step"),
    [
        (9210, 100, 1_000_000, 1),
        (9209, 200, 1_000_000, 5),
        (9062, 500, 500_000, 1),
        (702, 500, 500_000, 1),
        (2197, 100, 1_500_000, 1),
        (9227, 10, None, 1),
        (2303, 500, 550_000, 5),
        (9199, 500, 550_000, 5),
        (2087, 50, 750_000, 1),
        (2311, 100, 400_000, 1),
        (2314, 350, 15_000, 1),
        (2354, 200, 500_000, 5),
        (2353, None, None, 1),
        (2361, None, None, 1),
        (2352, 100, 10_000_000, 1),
        (2403, 7_500, 3_000_000, 1),
        (2405, 7_500, 3_000_000, 1),
        (2357, 500, 1_000_000, 1),
        (2358, 5, 1_000_000, 1),
        (2359, 100, 500_000, 1),
        (2360, 500, 500_000, 1),
        (2105, 900, 4_000_000, 1),
        (808, 900, 4_000_000, 1),
        (2372, 1, 20_000, 1),
        (2390, 250, 8_500, 1),
        (704, 10, 1_000, 1),
        (980, 1, 2_000, 1),
        (981, 10, 25_000, 1),
    ],
)
def test_limits_of_paying(id: int, least: int | None, most: int | None, step: int) -> None:
    """Those printed for the id, those of the country where it has one table only, else the strictest."""
    wallet = PAID_TO[id]
    unit = 10 ** DECIMALS[wallet.currency]
    assert wallet.amount_minor_min == (1 if least is None else least * unit)
    assert wallet.amount_minor_max == (None if most is None else most * unit)
    assert wallet.multiple_of_minor == (1 if step == 1 else step * unit)


@pytest.mark.parametrize(
    ("id", "least", "most"),
    [(2303, 300, 550_000), (2357, 200, 1_000_000), (981, 100, None), (2359, 100, 1_000_000), (707, 100, 200_000)],
)
def test_limits_of_collecting_are_its_own(id: int, least: int, most: int | None) -> None:
    """The document prints them in columns of their own."""
    wallet = COLLECTED_FROM[id]
    unit = 10 ** DECIMALS[wallet.currency]
    assert wallet.amount_minor_min == least * unit
    assert wallet.amount_minor_max == (None if most is None else most * unit)


@pytest.mark.parametrize("face", [B2C, C2B])
def test_what_a_wallet_takes_no_table_refuses_that_may_be_its_own(face: str) -> None:
    """The strictest is stricter than each; and where only one may be meant, it says so."""
    for id, name in IDS.items():
        of = place(name, id, face)
        printed = tables.COUNTRY_TABLES[of.country].limits
        found = [table for table in tables.possible(printed, id) if table.bounds(face) is not None]
        for table in found:
            least, most = table.bounds(face) or (0, None)
            assert of.limits.least >= least and of.limits.multiple_of % table.multiple_of == 0
            assert most is None or (of.limits.most is not None and of.limits.most <= most)
        assert of.limits.sure == (len(printed) == 1 or any(id in table.ids for table in printed))


@pytest.mark.parametrize("found", [PAID_TO, COLLECTED_FROM], ids=["pays", "collects"])
def test_every_wallet_takes_some_amount_and_says_where_its_limits_are_from(found: Mapping[int, Wallet]) -> None:
    """However strict; and what is uncertain is called so."""
    for id, wallet in found.items():
        assert len(amounts_of(wallet)) > 100
        sure = place(IDS[id], id, B2C).limits.sure
        assert ("is not said" in wallet.source) == (not sure)


def test_what_ids_want_to_be_told() -> None:
    """By direction, as the document prints it."""
    name, both = ["name"], ["name", "email"]
    paying = {2303: name, 2087: name, 2352: name, 2403: name, 2105: name, 2357: name, 2358: name, 2359: [], 2390: []}
    paying |= {2311: ["name", "email", "bank"], 2312: ["name", "email", "bank"], 2405: ["name", "bank"], 9209: []}
    collecting = {2303: [], 9197: ["otp"], 9209: ["otp"], 2087: [], 2352: both, 2403: both, 2105: both, 2357: name}
    collecting |= {2358: both, 2359: [], 2313: name, 2405: ["name", "bank"], 2311: []}
    assert {id: list(PAID_TO[id].needs) for id in paying} == paying
    assert {id: list(COLLECTED_FROM[id].needs) for id in collecting} == collecting


def test_an_account_number_is_paid_where_the_document_pays_banks() -> None:
    """All others are known by their phones."""
    assert {id for id, wallet in PAID_TO.items() if wallet.recipient == "account_number"} == {
        *(2311, 706, 9122, 9143, 9231, 2312, 9230, 2405)
    }
    assert {id for id, wallet in COLLECTED_FROM.items() if wallet.recipient == "account_number"} == {2405}


def test_operators_are_those_that_numbers_are_known_by() -> None:
    """A wallet is chosen from a number only where its operator is one that the numbering plan knows."""
    for wallet in PAID_TO.values():
        assert set(wallet.operators) <= set(COUNTRIES[wallet.country].operators), wallet.code
    named = {wallet.code for wallet in PAID_TO.values() if not wallet.automatic}
    assert {code.split("_")[0] for code in named} == {"wave", "opay", "emoney", "bank", "mtn"}
    assert {code for code in named if code.startswith(("bank", "mtn"))} == {"bank_za_2353", "mtn_ke_700", "mtn_ke_9125"}


def test_a_limit_of_a_day_is_told_and_not_kept() -> None:
    """The document does not say whose day it is."""
    assert {id for id, wallet in PAID_TO.items() if wallet.daily_limit} == {2351, 2352, 2358, 2359, 2360}
    assert {id for id, wallet in COLLECTED_FROM.items() if wallet.daily_limit} == {2358, 2359, 2360}


def test_what_is_not_configured_is_closed_with_its_remedy() -> None:
    """Every operator is open or closed, never both and never neither."""
    for direction in Direction:
        open_names = {tuple(wallet.code.split("_")[:2]) for wallet in wallets({}, direction)}
        closed = {one.wallet.code: one.remedy for one in closed_wallets({}, direction)}
        assert not open_names & {tuple(code.split("_")) for code in closed}
        all_names = [name for name, (_, operator) in OPERATORS.items() if FACES[direction] in operator.faces]
        assert len(open_names) + len(closed) == len(all_names)
        assert 'provider_ids = { "CI/mtn" = ID }' in closed["mtn_ci"] and "2333" in closed["mtn_ci"]
        assert 'extra_currencies = ["XAF"]' in closed["mtn_cm"]
    assert "return_url" in {one.wallet.code: one.remedy for one in closed_wallets({}, Direction.COLLECT)}["orange_eg"]
    once = closed_wallets({"extra_currencies": ["XAF"]}, Direction.PAY)
    assert "provider_ids" in {one.wallet.code: one.remedy for one in once}["mtn_cm"]
