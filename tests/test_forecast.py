"""The forecast: what paying will need, to the franc and to the line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from burkina import RowsSource, router, served, wallet

from payout_engine.domain.model import Balance, Lane
from payout_engine.intake.forecast import Forecast, forecast
from payout_engine.intake.intake import intake, prepare
from payout_engine.intake.route import Router
from payout_engine.journal import SqliteJournal

ORANGE, MOOV = Lane("bf", "orange_bf", "XOF"), Lane("bf", "moov_bf", "XOF")


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    """A journal on disk."""
    async with SqliteJournal.open(tmp_path / "payouts.db") as opened:
        yield opened


async def forecast_of(
    journal: SqliteJournal, phones: list[str], balances: dict[Lane, int], router_: Router | None = None
) -> Forecast:
    """Take in one payout of 999 francs for each phone, in this order, and forecast the run."""
    one = router_ or router()
    source = RowsSource(("reference", "phone", "amount"), [(f"r{i}", phone, "999") for i, phone in enumerate(phones)])
    run, validator = prepare(source, one)
    await intake(source, journal, run, validator)
    held = {lane: Balance(lane.name, available, 0, lane.currency) for lane, available in balances.items()}
    return await forecast(journal, run.run_id, one, held, {"other": "cannot be reached"})


def phones(count: int, prefix: str) -> list[str]:
    return [f"{prefix}{number:06}" for number in range(count)]


async def test_each_lane_says_what_it_needs(journal: SqliteJournal) -> None:
    """Fees are rounded up payout by payout: 1.5 % of 999 is 15, not 14.985."""
    found = await forecast_of(journal, [*phones(250, "76"), *phones(30, "70"), "bad"], {ORANGE: 300_000})
    moov, orange = found.lanes
    assert (orange.lane, orange.count, orange.amount_minor, orange.fee_minor) == (ORANGE, 250, 249_750, 3_750)
    assert (orange.need_minor, orange.balance_minor, orange.shortfall_minor) == (253_500, 300_000, 0)
    assert (orange.calls, orange.runs_out_at_line, orange.title) == (3, None, "Orange Money")
    assert (moov.count, moov.balance_minor, moov.shortfall_minor, moov.runs_out_at_line) == (30, None, 0, None)
    assert (found.count, found.totals_minor, found.fees_minor) == (280, {"XOF": 279_720}, {"XOF": 4_200})
    assert found.needs_minor == {"XOF": 283_920}
    assert found.balance_problems == {"other": "cannot be reached"}


async def test_the_line_at_which_money_runs_out_is_named(journal: SqliteJournal) -> None:
    """The first line that the balance does not cover, counted as a person counts lines."""
    each = 999 + 15
    found = await forecast_of(journal, phones(250, "76"), {ORANGE: 123 * each + each - 1})
    (orange,) = found.lanes
    assert orange.runs_out_at_line == 2 + 123
    assert orange.shortfall_minor == 250 * each - (124 * each - 1)


@pytest.mark.parametrize(("available", "line"), [(0, 2), (1_014, 3), (2 * 1_014, None)])
async def test_the_edges_of_a_balance(journal: SqliteJournal, available: int, line: int | None) -> None:
    """An exact balance covers its payouts and no more."""
    found = await forecast_of(journal, phones(2, "76"), {ORANGE: available})
    assert found.lanes[0].runs_out_at_line == line


async def test_the_time_is_that_of_the_documented_rate(journal: SqliteJournal) -> None:
    """Lanes of one account share its five calls a second."""
    found = await forecast_of(journal, [*phones(1_000, "76"), *phones(550, "70")], {})
    assert found.estimated_seconds == pytest.approx((10 + 6) / 5)


async def test_a_provider_without_a_documented_rate_has_no_estimate(journal: SqliteJournal) -> None:
    """And one that takes payouts singly needs a call for each."""
    single = Router([served(wallets=(wallet("any", "Any"),), batch_limit=1, calls_per_second=None)])
    found = await forecast_of(journal, phones(120, "76"), {}, single)
    assert found.estimated_seconds is None
    assert found.lanes[0].calls == 120


async def test_a_run_with_nothing_ready_needs_nothing(journal: SqliteJournal) -> None:
    """Every line was refused."""
    found = await forecast_of(journal, ["bad", ""], {})
    assert (found.count, list(found.lanes), found.totals_minor, found.estimated_seconds) == (0, [], {}, 0.0)
