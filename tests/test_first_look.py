"""Look before you send: what may have been sent before is asked about first, widely enough to show it.

The real engine, a real journal file, and a sandbox over real HTTP whose ledger is the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import pytest
from test_engine import collect, paid_at_the_bank, payouts
from test_steering import failing, states

from payout_engine import Brake, ConfigError, Engine, Payout, Settings, State
from payout_engine.app.settings import AccountSettings
from payout_engine.domain.errors import UnansweredError
from payout_engine.payment import first_look
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox

Bank = Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]]
EngineFor = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again sooner than a real provider would like."""
    monkeypatch.setattr(first_look, "PAUSES_SECONDS", (0.05, 0.1))


def comes_to_light(server: SenfenicoSandbox) -> None:
    """Let the bank take its word back: what it called failed was paid."""
    server.ledger._connection.execute("UPDATE transfers SET verdict = 'success' WHERE verdict = 'failed'")


def bulk_and_list(server: SenfenicoSandbox) -> tuple[int, int]:
    """Return how many calls paid and how many listed."""
    return server.calls["bulk"], server.calls["list"]


async def all_failed(engine: Engine, file: Path | list[Payout]) -> str:
    """Pay a file whose lines all fail; return its run."""
    run = await engine.submit(file)
    await collect(engine.pay(run))
    assert set(await states(engine, run.run_id)) == {State.FAILED}
    return run.run_id


def write(path: Path, lines: list[Payout]) -> Path:
    """Write payouts as a file."""
    rows = [f"{line.reference},{line.phone},{line.amount_minor}" for line in lines]
    path.write_text("\n".join(["reference,phone,amount", *rows]) + "\n")
    return path


async def test_a_few_known_references_do_not_stand_for_the_list(
    bank: Bank, engine_for: EngineFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four lines, funds for two, the rest paid from a copy: the copy before it asks for the list, and sends nothing."""
    wanted = payouts(4)
    funds = sum(payout.amount_minor + 16 for payout in wanted[:2])
    path = tmp_path / "payouts.db"
    async with bank(balances={"moov_bf": funds}, settle_seconds=3_600) as server:
        async with engine_for(server, batch_limit=2) as engine:
            run = await engine.submit(wanted)
            await collect(engine.pay(run, follow_for_seconds=2))
            assert await states(engine, run.run_id) == {State.ACCEPTED: 2, State.READY: 2}
        copy = path.read_bytes()
        server.ledger.set_balance("moov_bf", 10**6)
        async with engine_for(server, batch_limit=2) as engine:
            await collect(engine.pay(run.run_id, follow_for_seconds=0))
        for left in tmp_path.glob("payouts.db*"):
            left.unlink()
        path.write_bytes(copy)
        # As on another machine, where nothing is remembered of this journal.
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
        async with engine_for(server, batch_limit=2) as engine:
            await collect(engine.pay(run.run_id, follow_for_seconds=0))
            assert await states(engine, run.run_id) == {State.ACCEPTED: 2, State.HELD: 2}
        assert set(paid_at_the_bank(server).values()) == {1}


async def test_the_same_file_again_is_preceded_by_a_look(bank: Bank, engine_for: EngineFor, tmp_path: Path) -> None:
    """Every line failed, says the bank; before the file is paid again it is asked, and says otherwise."""
    path = write(tmp_path / "salaries.csv", failing(3))
    async with bank() as server, engine_for(server) as engine:
        await all_failed(engine, path)
        comes_to_light(server)
        paying, listing = bulk_and_list(server)
        again = await engine.submit(path)
        assert again.findings is not None
        assert again.findings.accepted == 3
        await collect(engine.pay(again))
        assert await states(engine, again.run_id) == {State.HELD: 3}
        assert server.calls["bulk"] == paying
        assert server.calls["list"] > listing
        assert (await engine.verify(again.run_id)).proven


async def test_failed_csv_is_preceded_by_a_look(bank: Bank, engine_for: EngineFor, tmp_path: Path) -> None:
    """What results hand back as safe to pay is asked about first; what stayed failed is paid."""
    path = write(tmp_path / "salaries.csv", failing(3))
    async with bank() as server, engine_for(server) as engine:
        run_id = await all_failed(engine, path)
        files = await engine.results(run_id, tmp_path / "results")
        server.ledger._connection.execute("UPDATE transfers SET verdict = 'success' WHERE amount = 501")
        again = await engine.submit(files.failed)
        await collect(engine.pay(again))
        assert await states(engine, again.run_id) == {State.HELD: 1, State.FAILED: 2}
        assert server.calls["bulk"] == 2


async def test_a_retry_looks_after_the_yes_as_well(bank: Bank, engine_for: EngineFor) -> None:
    """What comes to light between the plan and the yes holds the line."""
    async with bank() as server, engine_for(server) as engine:
        run_id = await all_failed(engine, failing(3))
        retry = await engine.retry(run_id)
        comes_to_light(server)
        await collect(engine.pay(retry))
        assert await states(engine, retry.run_id) == {State.HELD: 3}
        assert server.calls["bulk"] == 1


async def test_a_run_that_goes_on_looks_for_what_earlier_runs_sent(bank: Bank, engine_for: EngineFor) -> None:
    """A retry that was approved and killed before it sent anything asks again before it does."""
    async with bank() as server:
        async with engine_for(server) as engine:
            run_id = await all_failed(engine, failing(3))
            retry = await engine.retry(run_id)
            await engine.approved(retry.run_id)
        comes_to_light(server)
        async with engine_for(server) as engine:
            outcomes = await collect(engine.pay(retry.run_id))
            assert await states(engine, retry.run_id) == {State.HELD: 3}
            assert {outcome.status for outcome in outcomes.values()} == {State.HELD}
        assert server.calls["bulk"] == 1


async def test_nothing_is_asked_where_nothing_was_sent(bank: Bank, engine_for: EngineFor) -> None:
    """A new file costs no list before its first call."""
    async with bank() as server, engine_for(server) as engine:
        await collect(engine.pay(await engine.submit(payouts(3))))
        told: list[object] = []
        await collect(engine.pay(await engine.submit(payouts(3, tag="q", phone="7013")), watch=told.append))
        assert not [event for event in told if "Asking the provider first" in str(event)]


async def test_one_refusal_for_the_rate_does_not_end_the_run(bank: Bank, engine_for: EngineFor) -> None:
    """A look-up that fails is tried again, within reason."""
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(payouts(3))
        await engine.approved(run.run_id)
        server.faults.add(Fault(FaultKind.RATE_LIMITED, "list"), Fault(FaultKind.STATUS_BEFORE, "list"))
        await collect(engine.pay(run))
        assert await states(engine, run.run_id) == {State.PAID: 3}


async def test_nothing_is_sent_when_the_provider_cannot_say(bank: Bank, engine_for: EngineFor, tmp_path: Path) -> None:
    """A run that goes on stops with a brake; one that only begins is not approved."""
    path = write(tmp_path / "salaries.csv", failing(3))
    async with bank() as server, engine_for(server) as engine:
        first = await engine.submit(payouts(3))
        await engine.approved(first.run_id)
        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "list", times=3))
        stream = engine.pay(first, follow_for_seconds=0)
        await collect(stream)
        assert [stop.brake for stop in stream.ending.stops] == [Brake.PROVIDER_DOWN]
        assert "could not say what it already has" in stream.ending.stops[0].message
        assert server.calls["bulk"] == 0

        await all_failed(engine, path)
        again = await engine.submit(path)
        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "list", times=3))
        with pytest.raises(UnansweredError, match="account bf could not say"):
            await collect(engine.pay(again))
        assert (await engine.run(again.run_id)).approved_at is None
        assert server.calls["bulk"] == 1


@pytest.mark.parametrize("resumed", [True, False])
async def test_a_look_hears_who_asks_to_stop(bank: Bank, engine_for: EngineFor, tmp_path: Path, resumed: bool) -> None:
    """Ctrl-C ends it at once; nothing was sent, and what was not begun is not begun."""
    path = write(tmp_path / "salaries.csv", failing(2))
    async with bank() as server, engine_for(server) as engine:
        await all_failed(engine, path)
        run = await engine.submit(path)
        if resumed:
            await engine.approved(run.run_id)
        server.faults.add(Fault(FaultKind.SLOW_BEFORE, "list", seconds=30, times=9))
        listed = server.calls["list"]
        stream = engine.pay(run)
        with anyio.fail_after(10):
            while server.calls["list"] == listed:
                await anyio.sleep(0.02)
            stream.stop()
            await collect(stream)
        assert stream.ending.interrupted
        assert ((await engine.run(run.run_id)).approved_at is not None) is resumed
        assert server.calls["bulk"] == 1


async def test_a_look_hears_a_pause(bank: Bank, engine_for: EngineFor) -> None:
    """Somebody at another terminal need not wait until the provider answers."""
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(payouts(2))
        await engine.approved(run.run_id)
        server.faults.add(Fault(FaultKind.SLOW_BEFORE, "list", seconds=30, times=9))
        stream = engine.pay(run)
        with anyio.fail_after(20):
            while not server.calls["list"]:
                await anyio.sleep(0.02)
            async with engine_for(server) as other:
                assert await other.pause(run.run_id, "awa", "wait")
            await collect(stream)
        assert [stop.message for stop in stream.ending.stops] == ["Paused by awa: wait."]
        assert server.calls["bulk"] == 0


async def test_a_look_takes_no_longer_than_is_allowed(
    bank: Bank, engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that never ends stops the run, in words; `--follow-for` allows more."""
    monkeypatch.setattr(first_look, "FIRST_LOOK_SECONDS_MIN", 0.3)
    assert first_look.seconds_allowed(0) == 0.3
    assert first_look.seconds_allowed(60) == 60
    assert first_look.seconds_allowed(None) == first_look.seconds_allowed(10**6) == 15 * 60
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(payouts(2))
        await engine.approved(run.run_id)
        server.faults.add(Fault(FaultKind.SLOW_BEFORE, "list", seconds=30, times=9))
        stream = engine.pay(run, follow_for_seconds=0)
        with anyio.fail_after(10):
            await collect(stream)
        assert "longer than 0 seconds" in stream.ending.stops[0].message
        assert server.calls["bulk"] == 0


async def test_an_account_that_sent_the_lines_before_has_to_be_there(
    bank: Bank, engine_for: EngineFor, tmp_path: Path
) -> None:
    """Lines that another account was sent once cannot be paid while nobody can ask it."""
    path = write(tmp_path / "salaries.csv", failing(2))
    async with bank() as server:
        async with engine_for(server) as engine:
            await all_failed(engine, path)
        other = AccountSettings("senfenico", {"api_key": "sk_test_other", "base_url": server.base_url})
        async with Engine.open(Settings(journal=tmp_path / "payouts.db", accounts={"other": other})) as engine:
            run = await engine.submit(path)
            with pytest.raises(ConfigError, match="sent from account “bf” before"):
                await collect(engine.pay(run))
        assert server.calls["bulk"] == 1
