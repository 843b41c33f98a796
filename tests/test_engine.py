"""The whole engine against the Senfenico sandbox, over real HTTP and with a real journal file.

The sandbox's ledger is the truth: after each story it is compared with what the engine says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import pytest

from payout_engine import (
    Brake,
    ConfigError,
    Engine,
    Exit,
    InputError,
    JournalError,
    Outcome,
    PaymentStream,
    Payout,
    Settings,
    State,
    summarize,
)
from payout_engine.app.settings import AccountSettings
from payout_engine.domain.model import RunState
from payout_engine.payment import dispatch
from payout_engine.payment.poll import FollowPolicy
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox

Bank = Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]]
EngineFor = Callable[..., AbstractAsyncContextManager[Engine]]


def payouts(count: int, *, phone: str = "7012", tag: str = "p") -> list[Payout]:
    """Return Moov payouts to different people; every amount is different."""
    return [
        Payout(reference=f"{tag}-{number}", amount_minor=1000 + number, currency="XOF", phone=f"{phone}{number + 1000}")
        for number in range(count)
    ]


async def collect(stream: PaymentStream) -> dict[str, Outcome]:
    """Return the last outcome of each reference."""
    return {outcome.reference: outcome async for outcome in stream}


def paid_at_the_bank(server: SenfenicoSandbox) -> Counter[tuple[str, int]]:
    """Return how often the ledger paid each phone and amount."""
    return Counter(
        (transfer.phone, transfer.amount) for transfer in server.ledger.transfers() if transfer.verdict != "failed"
    )


def assert_paid_once(server: SenfenicoSandbox, expected: Iterable[Payout]) -> None:
    """The ledger paid exactly these, each exactly once."""
    wanted = Counter((payout.phone[-8:], payout.amount_minor) for payout in expected)
    assert paid_at_the_bank(server) == wanted


async def exit_of(engine: Engine, run_id: str, stream: PaymentStream) -> int:
    """Return the exit code that the command line would end with."""
    return summarize(run_id, await engine.tally(run_id), stream.ending).exit_code


async def test_every_payout_is_paid_once_and_comes_out(bank: Bank, engine_for: EngineFor) -> None:
    """The plain case: all paid, the ledger agrees, the exit code is 0."""
    wanted = payouts(250) + payouts(120, phone="7612", tag="orange")
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run)
        outcomes = await collect(stream)

        assert {outcome.status for outcome in outcomes.values()} == {State.PAID}
        assert set(outcomes) == {payout.reference for payout in wanted}
        assert all(outcome.provider_reference.startswith("tr_") for outcome in outcomes.values())
        assert await exit_of(engine, run.run_id, stream) == Exit.ALL_PAID
        assert server.calls["bulk"] == 3 + 2
        assert_paid_once(server, wanted)


async def test_an_async_iterable_is_as_good(bank: Bank, engine_for: EngineFor) -> None:
    """Payouts may come from anywhere that can be awaited."""

    async def coming() -> AsyncIterator[Payout]:
        for payout in payouts(7):
            await anyio.sleep(0)
            yield payout

    async with bank() as server, engine_for(server) as engine:
        outcomes = await collect(engine.pay(await engine.submit(coming())))

    assert len(outcomes) == 7


@pytest.mark.parametrize("kind", [FaultKind.RESET_AFTER, FaultKind.STATUS_AFTER, FaultKind.TRUNCATED])
async def test_a_lost_answer_is_found_again_and_never_sent_again(
    bank: Bank, engine_for: EngineFor, kind: FaultKind
) -> None:
    """The provider paid and we did not hear it: the list tells, and nobody is paid twice."""
    wanted = payouts(300)
    async with bank(faults=[Fault(kind, "bulk")]) as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run)
        outcomes = await collect(stream)

        assert {outcome.status for outcome in outcomes.values()} == {State.PAID}
        assert await exit_of(engine, run.run_id, stream) == Exit.ALL_PAID
        assert_paid_once(server, wanted)


@pytest.mark.parametrize("kind", [FaultKind.RESET_BEFORE, FaultKind.STATUS_BEFORE])
async def test_an_unheard_call_stays_unknown_and_is_left_for_a_person(
    bank: Bank, engine_for: EngineFor, kind: FaultKind
) -> None:
    """No answer and nothing in the list proves nothing: unknown, exit 3, and no second attempt, ever."""
    wanted = payouts(150)
    async with bank(faults=[Fault(kind, "bulk")]) as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run)
        outcomes = await collect(stream)
        again = engine.pay(run)
        await collect(again)

        assert Counter(outcome.status for outcome in outcomes.values()) in (
            {State.UNKNOWN: 100, State.PAID: 50},
            {State.UNKNOWN: 50, State.PAID: 100},
        )
        assert await exit_of(engine, run.run_id, again) == Exit.NEEDS_A_PERSON
        assert server.calls["bulk"] == 2
        paid = [payout for payout in wanted if outcomes[payout.reference].status is State.PAID]
        assert_paid_once(server, paid)


async def test_a_transfer_that_shows_up_late_is_waited_for(bank: Bank, engine_for: EngineFor) -> None:
    """A list that lags behind makes nobody unpaid and nobody paid twice."""
    wanted = payouts(60)
    async with bank(faults=[Fault(FaultKind.LATE, "bulk", seconds=1.5)]) as server, engine_for(server) as engine:
        outcomes = await collect(engine.pay(await engine.submit(wanted)))

        assert {outcome.status for outcome in outcomes.values()} == {State.PAID}
        assert_paid_once(server, wanted)


async def test_each_fate_becomes_its_state(bank: Bank, engine_for: EngineFor) -> None:
    """Failures, refusals, silence and invented words each end where they belong."""
    fates = {
        "70000001": State.FAILED,
        "70000002": State.ACCEPTED,
        "70000003": State.FAILED,
        "70000005": State.ACCEPTED,
        "70000000": State.PAID,
    }
    wanted = [Payout(reference=phone, amount_minor=500, currency="XOF", phone=phone) for phone in fates]
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run, follow_for_seconds=2.5)
        outcomes = await collect(stream)

        assert {reference: outcome.status for reference, outcome in outcomes.items()} == fates
        assert outcomes["70000003"].reason == "refused_by_provider"
        assert await exit_of(engine, run.run_id, stream) == Exit.NOT_SETTLED


async def test_a_lane_without_money_pauses_and_the_others_go_on(bank: Bank, engine_for: EngineFor) -> None:
    """Exit 4, what to top up is known, and after the top-up the same run pays the rest, once."""
    moov, orange = payouts(150), payouts(150, phone="7612", tag="orange")
    async with bank(balances={"orange_bf": 10**9, "moov_bf": 50_000}) as server, engine_for(server) as engine:
        run = await engine.submit(moov + orange)
        assert run.forecast is not None
        lane = next(lane for lane in run.forecast.lanes if lane.lane.name == "moov_bf")
        assert lane.shortfall_minor == lane.need_minor - 50_000
        first = engine.pay(run)
        outcomes = await collect(first)

        assert [stop.brake for stop in first.ending.stops] == [Brake.FUNDS]
        assert {outcomes[payout.reference].status for payout in orange} == {State.PAID}
        assert await exit_of(engine, run.run_id, first) == Exit.BRAKE
        still = await engine.forecast(run.run_id)
        assert still.lanes[0].shortfall_minor > 0

        server.ledger.set_balance("moov_bf", 10**9)
        second = engine.pay(run)
        await collect(second)
        assert await exit_of(engine, run.run_id, second) == Exit.ALL_PAID
        assert_paid_once(server, moov + orange)


async def test_a_key_that_is_not_accepted_stops_the_account_at_once(bank: Bank, engine_for: EngineFor) -> None:
    """One paying call at most is made with a wrong key; everything stays ready."""
    async with bank(keys=["sk_test_another"]) as server, engine_for(server, concurrency=1) as engine:
        run = await engine.submit(payouts(300))
        stream = engine.pay(run)
        await collect(stream)

        assert [stop.brake for stop in stream.ending.stops] == [Brake.CREDENTIALS]
        assert await exit_of(engine, run.run_id, stream) == Exit.BRAKE
        assert server.calls["bulk"] == 1
        assert_paid_once(server, [])


async def test_a_provider_out_of_reach_brakes_and_loses_nothing(
    bank: Bank, engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed port proves that nothing was sent: everything is ready again, and resume pays it once."""
    monkeypatch.setattr(dispatch, "TROUBLE_PAUSE_SECONDS", 0.01)
    wanted = payouts(120)
    async with bank() as server:
        port = int(server.base_url.rsplit(":", 1)[1])
        async with engine_for(server, concurrency=1) as engine:
            run = await engine.submit(wanted)
            await server.aclose()
            stream = engine.pay(run)
            await collect(stream)
            assert [stop.brake for stop in stream.ending.stops] == [Brake.PROVIDER_DOWN]
            tallies = await engine.tally(run.run_id)
            assert [(tally.state, tally.count) for tally in tallies] == [(State.READY, 120)]
    async with bank(port=port) as server, engine_for(server) as engine:
        await collect(engine.pay(run.run_id))
        assert_paid_once(server, wanted)


async def test_refusals_for_the_rate_are_retried_and_slow_the_pace(bank: Bank, engine_for: EngineFor) -> None:
    """A call refused for the rate was not processed; it is sent again, and all end paid once."""
    wanted = payouts(300)
    async with bank(faults=[Fault(FaultKind.RATE_LIMITED, "bulk", times=2)]) as server, engine_for(server) as engine:
        outcomes = await collect(engine.pay(await engine.submit(wanted)))

        assert {outcome.status for outcome in outcomes.values()} == {State.PAID}
        assert_paid_once(server, wanted)


async def test_stopping_finishes_the_wire_and_resuming_finishes_the_run(bank: Bank, engine_for: EngineFor) -> None:
    """A polite stop leaves no unknown; what was not sent is sent by the next payment."""
    wanted = payouts(400)
    async with bank(calls_per_second=5) as server, engine_for(server, rate_per_second=5) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run)
        async for _ in stream:
            stream.stop()
        states = Counter({tally.state: tally.count for tally in await engine.tally(run.run_id)})
        assert stream.ending.interrupted
        assert states[State.READY] > 0
        assert states[State.UNKNOWN] == states[State.SENDING] == 0
        assert await exit_of(engine, run.run_id, stream) == Exit.INTERRUPTED

        again = engine.pay(run)
        await collect(again)
        assert await exit_of(engine, run.run_id, again) == Exit.ALL_PAID
        assert server.limiter.refused == 0
        assert_paid_once(server, wanted)


async def test_leaving_the_loop_early_is_safe(bank: Bank, engine_for: EngineFor) -> None:
    """A caller who breaks off leaves a run that can be finished."""
    wanted = payouts(300)
    async with bank() as server:
        async with engine_for(server) as engine:
            run = await engine.submit(wanted)
            async for _ in engine.pay(run):
                break
        async with engine_for(server) as engine:
            await collect(engine.pay(run.run_id))
        assert_paid_once(server, wanted)


async def test_an_error_in_the_callers_loop_arrives_as_itself(bank: Bank, engine_for: EngineFor) -> None:
    """What goes wrong in the user's code is not wrapped, and nothing is left unknown by it."""
    async with bank() as server:
        with pytest.raises(ZeroDivisionError):
            async with engine_for(server) as engine:
                run = await engine.submit(payouts(10))
                async for _ in engine.pay(run):
                    raise ZeroDivisionError
        async with engine_for(server) as engine:
            states = {tally.state for tally in await engine.tally(run.run_id)}
            assert State.UNKNOWN not in states


async def test_the_same_file_is_the_same_run(bank: Bank, engine_for: EngineFor, tmp_path: Path) -> None:
    """A file is known by its content under any name; submitting it again pays nobody again."""
    lines = [f"70{number:06},{1000 + number}" for number in range(500_100, 500_200)]
    first, second = tmp_path / "one.csv", tmp_path / "two.csv"
    for path in (first, second):
        path.write_text("phone,amount\n" + "\n".join(lines) + "\n")
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(first)
        await collect(engine.pay(run))
        again = await engine.submit(second)
        assert again.known
        assert again.run_id == run.run_id
        await collect(engine.pay(again))
        assert server.calls["bulk"] == 1


async def test_a_mended_copy_without_references_does_not_pay_everyone_again(
    bank: Bank, engine_for: EngineFor, tmp_path: Path
) -> None:
    """Without references, equal recipients and amounts of the last days are held, and only the new line is paid."""
    lines = [f"70{number:06},{1000 + number}" for number in range(500_100, 500_110)]
    path, mended = tmp_path / "one.csv", tmp_path / "mended.csv"
    path.write_text("\n".join(["phone,amount", *lines, "7O999999,500"]) + "\n")
    mended.write_text("\n".join(["phone,amount", *lines, "70999999,500"]) + "\n")
    async with bank() as server, engine_for(server) as engine:
        await collect(engine.pay(await engine.submit(path)))
        again = await engine.submit(mended)
        assert again.findings is not None
        assert (again.findings.accepted, again.findings.held) == (1, 10)
        await collect(engine.pay(again))
        assert max(paid_at_the_bank(server).values()) == 1
        assert sum(paid_at_the_bank(server).values()) == 11


async def test_a_plan_says_what_submit_says_and_records_nothing(
    bank: Bank, engine_for: EngineFor, tmp_path: Path
) -> None:
    """Plan and submit find the same; after a plan there is no run and no call that pays."""
    path = tmp_path / "mixed.csv"
    path.write_text("ref,phone,amount\na,70123456,500\nb,79123456,500\nc,70123457,50\na,70123458,600\n")
    async with bank() as server, engine_for(server) as engine:
        planned = await engine.plan(path)
        assert not engine.settings.journal.exists()
        submitted = await engine.submit(path)
        assert planned.findings is not None
        assert submitted.findings is not None
        assert submitted.forecast == planned.forecast
        for field in ("lines", "accepted", "rejected", "held", "rejected_by_code", "held_by_code", "warnings_by_code"):
            assert getattr(planned.findings, field) == getattr(submitted.findings, field)
        assert (planned.findings.accepted, planned.findings.rejected, planned.findings.held) == (1, 2, 1)
        assert server.calls["bulk"] == 0


async def test_unusable_input_leaves_no_trace(bank: Bank, engine_for: EngineFor, tmp_path: Path) -> None:
    """A file that cannot be used is an error, and the journal has no run."""
    path = tmp_path / "broken.csv"
    path.write_text("phone,amount\n70123456,500\n70123457,5\x0000\n")
    async with bank() as server, engine_for(server) as engine:
        with pytest.raises(InputError, match="NUL"):
            await engine.submit(path)
        assert await engine.runs() == []


async def test_two_engines_never_pay_for_one_account_at_once(bank: Bank, engine_for: EngineFor) -> None:
    """The second payer of an account is told who holds it, and sends nothing."""
    async with bank(calls_per_second=5) as server, engine_for(server, rate_per_second=5) as first:
        run = await first.submit(payouts(600))
        stream = first.pay(run)
        await anext(stream)
        async with engine_for(server) as second:
            with pytest.raises(JournalError):
                await collect(second.pay(run.run_id))
        stream.stop()
        await collect(stream)
        assert max(paid_at_the_bank(server).values()) == 1


async def test_an_account_that_is_gone_is_named(bank: Bank, engine_for: EngineFor, tmp_path: Path) -> None:
    """A run whose account was taken out of the configuration cannot be paid by guess."""
    async with bank() as server:
        async with engine_for(server) as engine:
            run = await engine.submit(payouts(5))
            await engine.approved(run.run_id)
        other = AccountSettings("senfenico", {"api_key": "sk_test_tests", "base_url": server.base_url})
        async with Engine.open(Settings(journal=tmp_path / "payouts.db", accounts={"other": other})) as engine:
            with pytest.raises(ConfigError, match="bf"):
                await collect(engine.pay(run.run_id))


async def test_a_journal_restored_from_a_copy_pays_nobody_again(
    bank: Bank, engine_for: EngineFor, tmp_path: Path
) -> None:
    """Where a person says that it goes on, the provider is asked first; the transfers that it shows hold the lines."""
    wanted = payouts(50)
    async with bank() as server:
        async with engine_for(server) as engine:
            run = await engine.submit(wanted)
            await engine.approved(run.run_id)
        copy = (tmp_path / "payouts.db").read_bytes()
        async with engine_for(server) as engine:
            await collect(engine.pay(run.run_id))
        for path in tmp_path.glob("payouts.db*"):
            path.unlink()
        (tmp_path / "payouts.db").write_bytes(copy)
        async with engine_for(server) as engine:
            stream = engine.pay(run.run_id, journal_lost=True)
            await collect(stream)
            assert {tally.state for tally in await engine.tally(run.run_id)} == {State.HELD}
            assert await exit_of(engine, run.run_id, stream) == Exit.NEEDS_A_PERSON
        assert_paid_once(server, wanted)


async def test_following_an_interrupted_run_does_not_finish_it(bank: Bank, engine_for: EngineFor) -> None:
    """A run with payouts that wait to be sent is never called finished."""
    async with bank(calls_per_second=5) as server, engine_for(server, rate_per_second=5) as engine:
        run = await engine.submit(payouts(400))
        stream = engine.pay(run)
        async for _ in stream:
            stream.stop()
        await collect(engine.pay(run, send=False))
        assert (await engine.run(run.run_id)).state is RunState.PAYING


async def test_a_stop_is_heard_while_waiting_for_the_pace(bank: Bank, engine_for: EngineFor) -> None:
    """With one call per ten seconds a stop takes effect at once, not at the next turn."""
    async with bank() as server, engine_for(server, rate_per_second=0.01) as engine:
        run = await engine.submit(payouts(400))
        stream = engine.pay(run)
        started_at = anyio.current_time()
        async for _ in stream:
            stream.stop()
        assert anyio.current_time() - started_at < 50
        assert stream.ending.interrupted


async def test_endless_refusals_for_the_rate_are_a_brake(
    bank: Bank, engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that refuses every call as too fast stops the account instead of being called for ever."""
    monkeypatch.setattr(dispatch, "REFUSALS_MAX", 3)
    async with bank(faults=[Fault(FaultKind.RATE_LIMITED, "bulk", times=99)]) as server, engine_for(server) as engine:
        run = await engine.submit(payouts(10))
        stream = engine.pay(run)
        await collect(stream)
        assert [stop.brake for stop in stream.ending.stops] == [Brake.LIMIT]
        assert await exit_of(engine, run.run_id, stream) == Exit.BRAKE


async def test_unknowns_nobody_could_look_for_are_not_given_up(bank: Bank, engine_for: EngineFor) -> None:
    """A look-up that fails has looked for nobody: patience lasts longer, and the run stays open when the time ends."""
    faults = [Fault(FaultKind.RESET_AFTER, "bulk"), Fault(FaultKind.STATUS_BEFORE, "list", times=99)]
    async with bank(faults=faults) as server, engine_for(server) as engine:
        run = await engine.submit(payouts(10))
        stream = engine.pay(run, follow_for_seconds=4.0)
        await collect(stream)
        assert stream.ending.timed_out
        assert (await engine.run(run.run_id)).state is RunState.PAYING
        server.faults.clear()
        await collect(engine.pay(run))
        assert {tally.state for tally in await engine.tally(run.run_id)} == {State.PAID}


async def test_looking_for_unknowns_ends_however_many_look_ups_fail(bank: Bank, engine_for: EngineFor) -> None:
    """With no end to the follow-up time, failing look-ups stretch patience only so far; the run stays open."""
    faults = [Fault(FaultKind.RESET_AFTER, "bulk"), Fault(FaultKind.STATUS_BEFORE, "list", times=10**6)]
    async with bank(faults=faults) as server, engine_for(server, patience_seconds=0.5) as engine:
        run = await engine.submit(payouts(10))
        began_at, stream = anyio.current_time(), engine.pay(run, follow_for_seconds=None)
        with anyio.fail_after(30):
            await collect(stream)
        assert anyio.current_time() - began_at >= 0.5 * FollowPolicy().patiences_max
        assert await exit_of(engine, run.run_id, stream) == Exit.NEEDS_A_PERSON
        assert (await engine.run(run.run_id)).state is RunState.PAYING
        server.faults.clear()
        await collect(engine.pay(run))
        assert {tally.state for tally in await engine.tally(run.run_id)} == {State.PAID}


async def test_one_payout_per_call_where_the_account_says_so(bank: Bank, engine_for: EngineFor) -> None:
    """A smaller batch limit is kept whatever the chunks were packed for."""
    wanted = payouts(7)
    async with bank() as server, engine_for(server, batch_limit=1) as engine:
        await collect(engine.pay(await engine.submit(wanted)))
        assert server.calls["bulk"] == 7
        assert_paid_once(server, wanted)


async def test_a_cancelled_caller_leaves_nothing_unknown(bank: Bank, engine_for: EngineFor) -> None:
    """A cancellation from around the whole engine lets the calls on the wire land."""
    async with bank(faults=[Fault(FaultKind.SLOW, "bulk", seconds=1.0, times=3)]) as server:

        async def leave(scope: anyio.CancelScope) -> None:
            while not server.calls["bulk"]:
                await anyio.sleep(0.01)
            scope.cancel()

        run_id = ""
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                tasks.start_soon(leave, scope)
                async with engine_for(server) as engine:
                    run_id = (await engine.submit(payouts(300))).run_id
                    await collect(engine.pay(run_id))
        assert scope.cancelled_caught
        async with engine_for(server) as engine:
            assert State.UNKNOWN not in {tally.state for tally in await engine.tally(run_id)}
