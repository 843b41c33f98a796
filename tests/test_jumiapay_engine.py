"""The whole engine pays credits through JumiaPay's sandbox: whatever goes wrong on the wire, nobody gets two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from payout_engine import Brake, Engine, Payout, Settings
from payout_engine.app.settings import AccountSettings
from payout_engine.payment import dispatch
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.jumiapay.sandbox import JumiaPaySandbox, sandbox

OPTIONS = {"business_area": "area", "credit_account": "account", "currency": "TND", "api_key": "jumiapay_test_key"}
PEOPLE = [Payout(f"r{n}", 1_000 + 10 * n, currency="TND", email=f"payee{n}@example.com") for n in range(30)]


@pytest.fixture(autouse=True)
def quick_after_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a call that went wrong the next one follows at once."""
    monkeypatch.setattr(dispatch, "TROUBLE_PAUSE_SECONDS", 0.01)


LOST = (FaultKind.RESET_BEFORE, FaultKind.RESET_AFTER, FaultKind.STATUS_BEFORE, FaultKind.STATUS_AFTER)


def engine_at(server: JumiaPaySandbox, folder: Path, **options: Any) -> Any:
    account = AccountSettings("jumiapay", {**OPTIONS, "base_url": server.base_url, "concurrency": 4, **options})
    settings = Settings(journal=folder / "p.db", accounts={"vouchers": account}, unknown_patience_seconds=3.0)
    return Engine.open(settings)


async def pay(engine: Engine, run_id: str) -> tuple[dict[str, str], list[Brake]]:
    """Pay to the end; return where each payout stands, and what stopped the account."""
    stream = engine.pay(run_id)
    async for _ in stream:
        pass
    journal = await engine.journal()
    states = {one.payout.reference: str(one.receipt.state) async for page in journal.entries(run_id) for one in page}
    assert (await engine.verify(run_id)).proven
    return states, [stop.brake for stop in stream.ending.stops]


def amounts(server: JumiaPaySandbox) -> list[tuple[int, int]]:
    return sorted(server.paid().values())


async def test_every_credit_is_given_once(tmp_path: Path) -> None:
    """With three decimals of ours and two of theirs, each to the minor unit."""
    async with sandbox(settle_seconds=0.0) as server, engine_at(server, tmp_path) as engine:
        run = (await engine.submit(PEOPLE)).run
        states, stops = await pay(engine, run.run_id)
        assert set(states.values()) == {"paid"} and not stops
        assert amounts(server) == [(1, payout.amount_minor) for payout in PEOPLE]


async def test_a_lost_answer_leaves_only_what_never_arrived_to_a_person(tmp_path: Path) -> None:
    """The key promises nothing, so what is not shown is neither sent again nor called absent."""
    async with sandbox(settle_seconds=0.0) as server, engine_at(server, tmp_path) as engine:
        server.faults.add(*(Fault(kind, "create") for kind in LOST))
        run = (await engine.submit(PEOPLE)).run
        states, _ = await pay(engine, run.run_id)
        assert sorted(states.values()) == ["paid"] * 28 + ["unknown"] * 2
        assert len(server.paid()) == 28 and {count for count, _ in server.paid().values()} == {1}
        assert server.calls["create"] == 30


async def test_where_a_key_is_refused_a_second_time_doubts_are_asked_about_by_sending_again(tmp_path: Path) -> None:
    """What never arrived is given, and what had arrived is refused, looked up, and given once."""
    async with (
        sandbox(settle_seconds=0.0) as server,
        engine_at(server, tmp_path, duplicates_refused=True) as engine,
    ):
        server.faults.add(*(Fault(kind, "create") for kind in LOST), Fault(FaultKind.LATE, "create", seconds=1.5))
        run = (await engine.submit(PEOPLE)).run
        states, _ = await pay(engine, run.run_id)
        assert set(states.values()) == {"paid"}
        assert amounts(server) == [(1, payout.amount_minor) for payout in PEOPLE]
        assert server.calls["create"] > 30


async def test_a_key_that_is_not_accepted_costs_no_doubt(tmp_path: Path) -> None:
    """The account stops, every payout is ready, and the right key pays them."""
    async with sandbox(settle_seconds=0.0, keys=["jumiapay_test_right"]) as server:
        async with engine_at(server, tmp_path) as engine:
            run = (await engine.submit(PEOPLE)).run
            states, stops = await pay(engine, run.run_id)
            assert set(states.values()) == {"ready"} and stops == [Brake.CREDENTIALS]
        async with engine_at(server, tmp_path, api_key="jumiapay_test_right") as engine:
            states, stops = await pay(engine, run.run_id)
            assert set(states.values()) == {"paid"} and not stops
        assert amounts(server) == [(1, payout.amount_minor) for payout in PEOPLE]


async def test_what_a_low_balance_failed_is_retried_after_a_top_up(tmp_path: Path) -> None:
    """201 was no promise: the balance is looked at later, and what failed can be paid again, as new credits."""
    async with (
        sandbox(settle_seconds=0.0, balances={"jumiapay_tn": 5}) as server,
        engine_at(server, tmp_path) as engine,
    ):
        run = (await engine.submit(PEOPLE)).run
        states, _ = await pay(engine, run.run_id)
        failed = sum(state == "failed" for state in states.values())
        assert failed >= 25 and failed + sum(state == "paid" for state in states.values()) == 30
        server.ledger.set_balance("TND", 10**9)
        again = (await engine.retry(run.run_id)).run
        states, _ = await pay(engine, again.run_id)
        assert len(states) == failed and set(states.values()) == {"paid"}
        assert amounts(server) == [(1, payout.amount_minor) for payout in PEOPLE]


@pytest.mark.parametrize("amount_minor", [1_005, 1])
async def test_an_amount_that_two_decimals_cannot_say_is_refused_with_the_remedy(
    tmp_path: Path, amount_minor: int
) -> None:
    """Nothing is rounded."""
    async with sandbox() as server, engine_at(server, tmp_path) as engine:
        payout = Payout("r", amount_minor, currency="TND", email="awa@example.com")
        submitted = await engine.submit([payout])
        states, _ = await pay(engine, submitted.run.run_id)
        assert states == {"r": "rejected"} and not server.calls
