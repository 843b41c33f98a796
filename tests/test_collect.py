"""Collecting: a run in the other direction, by the same rules, and never mixed with paying."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from processes import call

from payout_engine import Engine
from payout_engine.app.settings import AccountSettings, Settings
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Direction
from payout_engine.domain.states import State
from payout_engine.intake.route import Route

MALI = [("A1", "+22370123456", "500"), ("A2", "+22365123456", "1500")]


def table(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("reference", "phone", "amount"), *rows])
    return path


async def test_what_people_owe_is_collected_once(tmp_path: Path) -> None:
    """Each line once; the same file again finishes the same run; the run keeps its direction."""
    file = table(tmp_path / "owed.csv", MALI)
    async with Engine.open(journal=tmp_path / "p.db", sandbox=True) as engine:
        run = await engine.submit(file, direction="collect")
        assert run.findings is not None and run.findings.accepted == 2
        assert run.forecast is not None and run.forecast.lanes[0].balance_minor is None
        outcomes = [outcome async for outcome in engine.pay(run)]
        assert {outcome.status for outcome in outcomes if outcome.status is State.PAID} == {State.PAID}
        assert (await engine.run(run.run_id)).direction is Direction.COLLECT
        again = await engine.submit(file, direction=Direction.COLLECT)
        assert again.known and again.run_id == run.run_id
        assert [outcome async for outcome in engine.pay(again)] == []
        assert (await engine.verify(run.run_id)).proven


async def test_paying_and_collecting_know_nothing_of_each_other(tmp_path: Path) -> None:
    """The same file may be paid and collected; neither repeats the other, and their limits count apart."""
    file = table(tmp_path / "both.csv", [("R1", "+2290142123456", "5000")])
    settings = Settings(accounts={"all": AccountSettings("unipesa")}, max_day_amount=5_000)
    async with Engine.open(settings, journal=tmp_path / "p.db", sandbox=True) as engine:
        runs = {}
        for direction in Direction:
            submitted = await engine.submit(file, direction=direction)
            assert submitted.findings is not None and (submitted.findings.accepted, submitted.findings.held) == (1, 0)
            async for _ in engine.pay(submitted):
                pass
            (tally,) = await engine.tally(submitted.run_id)
            assert tally.state is State.PAID
            runs[direction] = submitted.run_id
        assert len(set(runs.values())) == 2
        held = await engine.plan(table(tmp_path / "more.csv", [("R1", "+2290142123456", "5000")]), direction="collect")
        assert held.known or (held.findings is not None and held.findings.held == 1)


async def test_no_account_goes_the_other_way(tmp_path: Path) -> None:
    """An account that only pays collects nothing, the other way round, and no route leads there."""
    file = table(tmp_path / "owed.csv", MALI)
    only: Mapping[str, str] = {"pay": "senfenico", "collect": "jemeni"}
    for direction, other in (("pay", "collect"), ("collect", "pay")):
        accounts = {"one": AccountSettings(only[other])}
        async with Engine.open(Settings(accounts=accounts), journal=tmp_path / "p.db", sandbox=True) as engine:
            with pytest.raises(ConfigError, match="None of the configured accounts"):
                await engine.submit(file, direction=direction)
    accounts = {name: AccountSettings(name) for name in ("senfenico", "jemeni")}
    routed = Settings(accounts=accounts, routes=[Route("jemeni", country="ML")])
    async with Engine.open(routed, journal=tmp_path / "p.db", sandbox=True) as engine:
        with pytest.raises(ConfigError, match=r"\[accounts.jemeni\].*only collects"):
            await engine.plan(file)
    routed = Settings(accounts=accounts, routes=[Route("jemeni", Direction.COLLECT, country="ML")])
    async with Engine.open(routed, journal=tmp_path / "p.db", sandbox=True) as engine:
        planned = await engine.plan(file, direction="collect")
        assert planned.findings is not None and planned.findings.accepted == 2


def test_people_read_that_money_was_requested_and_collected(tmp_path: Path) -> None:
    """The command speaks of collecting; files and programs read the same states and columns as ever."""
    table(tmp_path / "owed.csv", MALI)
    planned = call(tmp_path, "plan", "owed.csv", "--collect", "--sandbox")
    assert planned.returncode == 0 and b"To request" in planned.stdout
    nobody = call(tmp_path, "collect", "owed.csv", "--sandbox")
    assert nobody.returncode == 2 and b"`collect --yes`" in nobody.stderr
    done = call(tmp_path, "collect", "owed.csv", "--sandbox", "--yes")
    assert done.returncode == 0 and b"collected" in done.stdout and b"the money came in" in done.stdout
    assert b"collects" in call(tmp_path, "runs", "--sandbox").stdout
    with (tmp_path / "owed.csv-results" / "results.csv").open(encoding="utf-8-sig") as file:
        assert [row["payout_status"] for row in csv.DictReader(file)] == ["paid", "paid"]
    summary = msgspec.json.decode((tmp_path / "owed.csv-results" / "summary.json").read_bytes())
    assert b"collects" in call(tmp_path, "show", summary["run_id"], "--sandbox").stdout
