"""Steering a run: pause, cancel, money limits, the brakes that look at failures, the canary, and retries.

The real engine, a real journal file, and a sandbox over real HTTP whose ledger is the truth.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import msgspec
import pytest
from test_engine import assert_paid_once, collect, paid_at_the_bank, payouts

from payout_engine import Brake, ConfigError, Engine, Exit, Payout, Settings, State, summarize
from payout_engine.app import pay
from payout_engine.app.settings import AccountSettings
from payout_engine.app.submit import Submission
from payout_engine.app.workspace import Workspace
from payout_engine.domain.clock import now, replaced
from payout_engine.domain.errors import LimitError
from payout_engine.domain.model import (
    ControlKind,
    ControlRequest,
    Lane,
    LookUpResult,
    Outcome,
    Receipt,
    RunState,
    Tally,
)
from payout_engine.payment import stop_rules
from payout_engine.payment.poll import FollowPolicy
from payout_engine.payment.stop_rules import Canary, Failures, canary_of
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.senfenico.sandbox import FATES, SenfenicoSandbox

Bank = Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]]
MOOV = Lane("bf", "moov_bf", "XOF")


@pytest.fixture
def engine_with(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Engine]]:
    """Return a maker of engines with settings of their own; all share one journal file."""

    def open_engine(server: SenfenicoSandbox, *, rate: float = 500, **settings: object) -> object:
        account = {"api_key": "sk_test_tests", "base_url": server.base_url, "rate_per_second": rate}
        common = Settings(
            journal=tmp_path / "payouts.db",
            accounts={"bf": AccountSettings("senfenico", account)},
            unknown_patience_seconds=2.0,
        )
        return Engine.open(msgspec.structs.replace(common, **settings))

    return open_engine  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def quick_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the sandbox more often than a real provider: it settles at once."""

    def policy(workspace: Workspace) -> FollowPolicy:
        patience = workspace.settings.unknown_patience_seconds
        return FollowPolicy(first_seconds=0.1, longest_seconds=0.3, unknown_patience_seconds=patience)

    monkeypatch.setattr(pay, "follow_policy", policy)


EngineWith = Callable[..., AbstractAsyncContextManager[Engine]]


def failing(count: int, *, tag: str = "f", phone: str = "70") -> list[Payout]:
    """Return payouts that the bank takes and then fails."""
    return [
        Payout(reference=f"{tag}-{number}", amount_minor=500 + number, currency="XOF", phone=f"{phone}000001")
        for number in range(count)
    ]


async def states(engine: Engine, run_id: str) -> Counter[State]:
    """Count the payouts of a run by state."""
    counts = Counter[State]()
    for tally in await engine.tally(run_id):
        counts[tally.state] += tally.count
    return counts


# --------------------------------------------------------------------------------------------------- pause and cancel


async def test_a_pause_from_elsewhere_stops_politely_until_somebody_resumes(
    bank: Bank, engine_with: EngineWith
) -> None:
    """Exit 4 with the words, nothing unknown; paying again sends nothing as long as the pause is not lifted."""
    wanted = payouts(1200)
    async with bank(calls_per_second=5) as server, engine_with(server, rate=5) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run)
        await anext(stream)
        async with engine_with(server) as other, anyio.create_task_group() as tasks:
            tasks.start_soon(collect, stream)
            assert await other.pause(run.run_id, "awa", "the bank called")
        await stream.done.wait()
        counts = await states(engine, run.run_id)
        (stop,) = stream.ending.stops
        assert (stop.brake, stop.message) == (Brake.ASKED, "Paused by awa: the bank called.")
        assert summarize(run.run_id, await engine.tally(run.run_id), stream.ending).exit_code == Exit.BRAKE
        assert counts[State.READY] > 0
        assert counts[State.UNKNOWN] == counts[State.SENDING] == 0

        calls = server.calls["bulk"]
        again = engine.pay(run)
        await collect(again)
        assert server.calls["bulk"] == calls
        assert [stop.brake for stop in again.ending.stops] == [Brake.ASKED]


async def test_a_paused_run_goes_on_after_lifting(bank: Bank, engine_with: EngineWith) -> None:
    """A pause while nobody pays holds the next payment; lifted, everything is paid once."""
    wanted = payouts(120)
    async with bank() as server, engine_with(server) as engine:
        run = await engine.submit(wanted)
        await engine.approved(run.run_id)
        assert not await engine.pause(run.run_id, "awa")
        await collect(engine.pay(run))
        assert server.calls["bulk"] == 0
        await engine.unpause(run.run_id)
        await collect(engine.pay(run))
        assert_paid_once(server, wanted)
        with pytest.raises(ConfigError, match="finished"):
            await engine.pause(run.run_id, "awa")


async def test_cancelling_while_somebody_pays_withdraws_exactly_what_was_never_sent(
    bank: Bank, engine_with: EngineWith
) -> None:
    """What was sent is followed to its end, the rest is cancelled with who and why, and the sums agree."""
    wanted = payouts(1200)
    async with bank(calls_per_second=5) as server, engine_with(server, rate=5) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run)
        await anext(stream)
        async with engine_with(server) as other, anyio.create_task_group() as tasks:
            tasks.start_soon(collect, stream)
            done = await other.cancel(run.run_id, "awa", "wrong month")
        await stream.done.wait()
        counts = await states(engine, run.run_id)
        assert set(counts) == {State.PAID, State.CANCELLED}
        assert done.cancelled == counts[State.CANCELLED] > 0
        assert sum(done.others.values()) == counts[State.PAID] == sum(paid_at_the_bank(server).values())
        assert not stream.ending.stops
        assert (await engine.run(run.run_id)).state is RunState.FINISHED
        journal = await engine.journal()
        assert await journal.requests(run.run_id) == []
        withdrawn = [e async for batch in journal.entries(run.run_id, frozenset({State.CANCELLED})) for e in batch]
        assert {entry.receipt.message for entry in withdrawn} == {"Withdrawn by awa: wrong month"}
        await collect(engine.pay(run))
        assert sum(paid_at_the_bank(server).values()) == counts[State.PAID]
        assert (await engine.verify(run.run_id)).proven


async def test_cancelling_while_nobody_pays_acts_at_once(bank: Bank, engine_with: EngineWith) -> None:
    """An approved run that nobody pays is withdrawn whole, with its held lines, and cannot be paid afterwards."""
    wanted = [*payouts(150), *payouts(3)]
    async with bank() as server, engine_with(server) as engine:
        run = await engine.submit(wanted)
        with pytest.raises(ConfigError, match="never approved"):
            await engine.cancel(run.run_id, "awa")
        await engine.approved(run.run_id)
        done = await engine.cancel(run.run_id, "awa")
        assert (done.cancelled, done.others) == (153, {})
        assert (await engine.run(run.run_id)).state is RunState.FINISHED
        await collect(engine.pay(run))
        assert_paid_once(server, [])


async def test_a_cancel_whose_payer_died_is_carried_out_by_the_next(bank: Bank, engine_with: EngineWith) -> None:
    """A request that stands when paying begins is done before anything is sent."""
    async with bank() as server, engine_with(server) as engine:
        run = await engine.submit(payouts(120))
        journal, _ = await engine.approved(run.run_id)
        await journal.request(run.run_id, ControlRequest(ControlKind.CANCEL, "awa"))
        await journal.acknowledge(run.run_id, ControlKind.CANCEL, False)
        outcomes: dict[str, Outcome] = await collect(engine.pay(run))
        assert {outcome.status for outcome in outcomes.values()} == {State.CANCELLED}
        assert await journal.requests(run.run_id) == []
        assert_paid_once(server, [])


# ------------------------------------------------------------------------------------------------------- money limits


async def test_a_run_over_its_limit_is_refused_and_leaves_no_trace(
    bank: Bank, engine_with: EngineWith, tmp_path: Path
) -> None:
    """One franc over max_run_amount: no run, nothing sent, the plan says it; at the limit it is paid."""
    path = tmp_path / "pay.csv"
    path.write_text("reference,phone,amount\na,70123456,500\nb,70123457,501\n")
    async with bank() as server:
        async with engine_with(server, max_run_amount=1000) as engine:
            with pytest.raises(LimitError, match=r"1,001 XOF.*max_run_amount is 1,000 XOF"):
                await engine.submit(path)
            assert await engine.runs() == []
            assert "max_run_amount" in (await engine.plan(path)).over_limits[0]
        async with engine_with(server, max_run_amount=1001) as engine:
            assert not (await engine.plan(path)).over_limits
            await collect(engine.pay(await engine.submit(path)))
            assert sum(paid_at_the_bank(server).values()) == 2


async def test_the_day_limit_counts_what_was_approved_in_the_last_24_hours(bank: Bank, engine_with: EngineWith) -> None:
    """Yesterday's run no longer counts, today's does, and so does one approved between validating and paying."""
    one, two, three = (payouts(1, tag=tag) for tag in "abc")  # 1,000 francs each
    async with bank() as server, engine_with(server, max_day_amount=2000) as engine:
        yesterday = now() - 25 * 3600
        with replaced(lambda: yesterday):
            await collect(engine.pay(await engine.submit(one)))
        second = await engine.submit(two)
        third = await engine.submit(payouts(2, tag="d")[:1])
        fourth = await engine.submit(three)
        await collect(engine.pay(second))
        await collect(engine.pay(third))
        with pytest.raises(LimitError, match="max_day_amount"):
            await collect(engine.pay(fourth))
        with pytest.raises(LimitError, match="24 hours"):
            await engine.submit(payouts(1, tag="e"))
        assert sum(paid_at_the_bank(server).values()) == 3


# ------------------------------------------------------------------------------------------------------------- brakes


def test_the_share_of_failures_means_something_only_after_a_sample() -> None:
    """Below the sample nothing stops; beyond it, exactly more than the share does, and only that lane."""

    def outcomes(status: State, count: int, wallet: str = "moov_bf") -> list[Outcome]:
        return [Outcome("run", 1, "r", status, 1, "XOF", "bf", wallet)] * count

    failures = Failures(0.2)
    assert not failures.count(outcomes(State.FAILED, stop_rules.FAILURES_SAMPLE_MIN - 1))
    failures = Failures(0.2)
    assert not failures.count(outcomes(State.PAID, 80) + outcomes(State.FAILED, 20))
    assert list(failures.count(outcomes(State.FAILED, 1))) == [("bf", "moov_bf")]
    assert not failures.count(outcomes(State.FAILED, 1, "orange_bf"))
    assert not Failures(1.0).count(outcomes(State.FAILED, 500))


async def test_a_lane_where_too_many_fail_stops_and_others_go_on(bank: Bank, engine_with: EngineWith) -> None:
    """The failing lane keeps its unsent payouts ready, exit 4; resumed, it begins to count anew."""
    bad, good = failing(900), payouts(200, phone="7612", tag="orange")
    async with bank(calls_per_second=20) as server, engine_with(server, rate=8) as engine:
        run = await engine.submit(bad + good)
        stream = engine.pay(run)
        outcomes = await collect(stream)
        assert [(stop.brake, stop.lane) for stop in stream.ending.stops] == [(Brake.FAILURES, MOOV)]
        assert "max_failure_share (20%)" in stream.ending.stops[0].message
        assert {outcomes[payout.reference].status for payout in good} == {State.PAID}
        before = await states(engine, run.run_id)
        assert before[State.READY] > 0
        assert summarize(run.run_id, await engine.tally(run.run_id), stream.ending).exit_code == Exit.BRAKE

        again = engine.pay(run)
        await collect(again)
        after = await states(engine, run.run_id)
        assert after[State.FAILED] >= before[State.FAILED] + stop_rules.FAILURES_SAMPLE_MIN


# ------------------------------------------------------------------------------------------------------------- canary


def test_a_canary_is_known_by_what_the_journal_counts() -> None:
    """Each count of the first payouts leads to one answer."""

    def known(size: int = 3, **counts: int) -> tuple[Canary, int]:
        return canary_of(MOOV, [Tally(MOOV, State(word), count, count) for word, count in counts.items()], size)

    assert known(ready=10) == (Canary.PENDING, 3)
    assert known(ready=2) == (Canary.PENDING, 2)
    assert known(ready=9, paid=1) == (Canary.PENDING, 2)
    assert known(ready=7, paid=2, accepted=1) == (Canary.PENDING, 0)
    assert known(ready=7, paid=2, unknown=1) == (Canary.PENDING, 0)
    assert known(ready=7, paid=3) == (Canary.PASSED, 0)
    assert known(ready=7, paid=2, failed=1) == (Canary.FAILED, 0)
    assert known(paid=2, failed=1) == (Canary.NOT_NEEDED, 0)


async def test_a_canary_that_arrives_lets_the_rest_go(bank: Bank, engine_with: EngineWith) -> None:
    """The first N of each lane go alone; when they have arrived the rest follows, and all are paid once."""
    wanted = payouts(250) + payouts(130, phone="7612", tag="orange")
    settings = {"canary": 10, "unknown_patience_seconds": 30.0}
    async with bank(settle_seconds=0.3) as server, engine_with(server, **settings) as engine:
        run = await engine.submit(wanted)
        sizes: list[int] = []
        stream = engine.pay(run, watch=lambda event: sizes.append(getattr(event, "count", 0)))
        await collect(stream)
        sent = [size for size in sizes if size]
        assert sorted(sent[:2]) == [10, 10]
        assert sum(sent) == 380
        assert not stream.ending.stops
        assert_paid_once(server, wanted)


async def test_a_canary_that_dies_keeps_the_rest_back_until_a_person_has_looked(
    bank: Bank, engine_with: EngineWith
) -> None:
    """A failed canary stops its lane only, running again sends nothing more, and lifting lets the rest go."""
    bad = failing(1) + payouts(150)
    good = payouts(50, phone="7612", tag="orange")
    async with bank() as server, engine_with(server, unknown_patience_seconds=30.0) as engine:
        run = await engine.submit(bad + good)
        stream = engine.pay(run, canary=5)
        outcomes = await collect(stream)
        assert [(stop.brake, stop.lane) for stop in stream.ending.stops] == [(Brake.CANARY, MOOV)]
        assert {outcomes[payout.reference].status for payout in good} == {State.PAID}
        assert (await states(engine, run.run_id))[State.READY] == 146
        again = engine.pay(run)
        await collect(again)
        assert [stop.brake for stop in again.ending.stops] == [Brake.CANARY]
        assert (await states(engine, run.run_id))[State.READY] == 146
        await engine.unpause(run.run_id, "Awa")
        last = engine.pay(run)
        await collect(last)
        assert not last.ending.stops
        assert (await states(engine, run.run_id)) == {State.FAILED: 1, State.PAID: 200}


async def test_only_a_canary_that_arrived_is_said_to_have_passed(bank: Bank, engine_with: EngineWith) -> None:
    """What a person let go on is remembered as overruled, once and by whom; a lane with nothing left says nothing."""
    good = payouts(50, phone="7612", tag="orange")
    async with bank() as server, engine_with(server, unknown_patience_seconds=30.0) as engine:
        run = await engine.submit(failing(1) + payouts(150) + good)
        await collect(engine.pay(run, canary=5))
        for _ in range(2):
            await engine.unpause(run.run_id, "Awa")
            await collect(engine.pay(run))
        alone = await engine.submit(failing(3, tag="all"))
        await collect(engine.pay(alone, canary=5))
        notes = await (await engine.journal()).notes(run.run_id)
        told = [(kind, text) for _, kind, text in notes if kind.startswith("canary_")]
        assert told == [
            ("canary_passed", "bf/orange_bf"),
            (
                "canary_overruled",
                "bf/moov_bf: the rest may be sent although the canary did not pass; said by Awa",
            ),
        ]
        done = (await (await engine.journal()).facts(run.run_id)).canary_done
        assert {lane.name for lane in done} == {"orange_bf", "moov_bf"}
        assert (await (await engine.journal()).facts(alone.run_id)).canary_done == frozenset()


async def test_an_account_with_a_colon_in_its_name_passes_its_canary(bank: Bank, engine_with: EngineWith) -> None:
    """What a person says of a lane is about that lane, whatever its account is called."""
    async with bank() as server:
        options = {"api_key": "sk_test_tests", "base_url": server.base_url, "rate_per_second": 500}
        accounts = {"bf: main/salaries": AccountSettings("senfenico", options)}
        async with engine_with(server, accounts=accounts, unknown_patience_seconds=30.0) as engine:
            run = await engine.submit(failing(1) + payouts(150))
            await collect(engine.pay(run, canary=5))
            assert (await states(engine, run.run_id))[State.READY] == 146
            await engine.unpause(run.run_id, "Awa")
            await collect(engine.pay(run))
            assert (await states(engine, run.run_id)) == {State.FAILED: 1, State.PAID: 150}


async def test_a_canary_without_an_answer_is_a_brake(bank: Bank, engine_with: EngineWith) -> None:
    """A call that nobody heard leaves the canary unknown; the rest is not sent."""
    faults = [Fault(FaultKind.RESET_BEFORE, "bulk")]
    settings = {"canary": 4, "unknown_patience_seconds": 1.0}
    async with bank(faults=faults) as server, engine_with(server, **settings) as engine:
        run = await engine.submit(payouts(100))
        stream = engine.pay(run)
        await collect(stream)
        assert [stop.brake for stop in stream.ending.stops] == [Brake.CANARY]
        assert await states(engine, run.run_id) == {State.UNKNOWN: 4, State.READY: 96}


# -------------------------------------------------------------------------------------------------------------- retry


async def test_a_retry_pays_what_is_provably_unpaid_and_a_second_retry_pays_nobody_twice(
    bank: Bank, engine_with: EngineWith, tmp_path: Path
) -> None:
    """Failed lines are paid under their own references and new keys; what a retry has paid is left out of the next."""
    path = tmp_path / "pay.csv"
    path.write_text("phone,amount,note\n70000001,500,x\n70123456,600,y\n70000001,700,z\n7O,5,bad\n")
    async with bank() as server, engine_with(server) as engine:
        first = await engine.submit(path)
        before = await collect(engine.pay(first))
        failed = {reference for reference, outcome in before.items() if outcome.status is State.FAILED}
        assert len(failed) == 2

        retry = await engine.retry(first.run_id)
        assert retry.run.retry_of == first.run_id
        assert retry.findings is not None
        assert (retry.findings.accepted, retry.findings.held, retry.findings.rejected) == (2, 0, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.delitem(FATES, "000001")  # The recipients have opened their wallets since.
            after = await collect(engine.pay(retry))
        assert {reference: outcome.status for reference, outcome in after.items()} == dict.fromkeys(failed, State.PAID)
        assert {outcome.line for outcome in after.values()} == {2, 4}

        with pytest.raises(ConfigError, match=f"Run {retry.run_id} has paid 2"):
            await engine.retry(first.run_id)
        with pytest.raises(ConfigError, match="No line"):
            await engine.retry(retry.run_id)
        assert (await engine.submit(path)).known
        assert max(paid_at_the_bank(server).values()) == 1


async def test_an_unfinished_retry_has_to_be_finished_first(bank: Bank, engine_with: EngineWith) -> None:
    """While a retry may still pay a line, no other retry of it can begin."""
    async with bank() as server, engine_with(server) as engine:
        first = await engine.submit(failing(3))
        await collect(engine.pay(first))
        retry = await engine.retry(first.run_id)
        await engine.approved(retry.run_id)
        with pytest.raises(ConfigError, match=f"resume {retry.run_id}"):
            await engine.retry(first.run_id)
        assert sum(paid_at_the_bank(server).values()) == 0


async def test_a_retry_that_nobody_approved_leaves_nothing_behind(bank: Bank, engine_with: EngineWith) -> None:
    """A process died at the question: the next retry of the same run throws its validation away."""
    async with bank() as server, engine_with(server) as engine:
        first = await engine.submit(failing(3))
        await collect(engine.pay(first))
        async with engine_with(server) as died:
            await died.retry(first.run_id)
        again = await engine.retry(first.run_id)
        assert [run.run_id for run in await engine.runs()] == [again.run_id, first.run_id]
        await collect(engine.pay(again))


async def test_a_line_paid_by_another_run_since_is_held_in_a_retry(bank: Bank, engine_with: EngineWith) -> None:
    """A reference that any later run has paid is used up, whatever the retry says."""
    async with bank() as server, engine_with(server) as engine:
        first = await engine.submit(failing(2))
        await collect(engine.pay(first))
        mended = [Payout(reference="f-0", amount_minor=500, currency="XOF", phone="70123456")]
        await collect(engine.pay(await engine.submit(mended)))
        retry = await engine.retry(first.run_id)
        assert retry.findings is not None
        assert (retry.findings.accepted, retry.findings.held) == (1, 1)
        assert list(retry.findings.held_by_code) == ["reference_already_used"]


async def test_a_cancelled_run_can_be_retried(bank: Bank, engine_with: EngineWith) -> None:
    """What a person withdrew is provably unpaid, and a retry pays it once."""
    wanted = payouts(130)
    async with bank() as server, engine_with(server) as engine:
        first = await engine.submit(wanted)
        await engine.approved(first.run_id)
        await engine.cancel(first.run_id, "awa")
        await collect(engine.pay(await engine.retry(first.run_id)))
        assert_paid_once(server, wanted)


async def begun_without_references(engine: Engine, folder: Path) -> Submission:
    """Begin a file of three lines, two of them alike, that has no references of its own."""
    salaries = folder / "salaries.csv"
    salaries.write_text("phone,amount\n70123401,500\n70123401,500\n70123402,700\n")
    submission = await engine.submit(salaries)
    await engine.approved(submission.run_id)
    return submission


async def test_a_retry_holds_the_repeats_of_a_file_without_references_again(
    bank: Bank, engine_with: EngineWith, tmp_path: Path
) -> None:
    """The references of such a retry are ours, and do not say that two equal lines are two payments."""
    async with bank() as server, engine_with(server) as engine:
        first = await begun_without_references(engine, tmp_path)
        for _ in range(2):
            await engine.cancel(first.run_id, "awa")
            retry = await engine.retry(first.run_id)
            assert retry.findings is not None
            assert (retry.findings.accepted, list(retry.findings.held_by_code)) == (2, ["payee_amount_repeated"])
            await engine.approved(retry.run_id)
            first = retry
        await collect(engine.pay(retry))
        assert paid_at_the_bank(server) == {("70123401", 500): 1, ("70123402", 700): 1}


async def test_failed_lines_fed_back_hold_the_repeats_of_a_file_without_references(
    bank: Bank, engine_with: EngineWith, tmp_path: Path
) -> None:
    """`failed.csv` carries the references that we filled in; they do not make two payments of two equal lines."""
    async with bank() as server, engine_with(server) as engine:
        first = await begun_without_references(engine, tmp_path)
        await engine.cancel(first.run_id, "awa")
        await engine.results(first.run_id, tmp_path / "results")
        again = await engine.submit(tmp_path / "results" / "failed.csv")
        assert again.findings is not None
        assert (again.findings.accepted, list(again.findings.held_by_code)) == (2, ["payee_amount_repeated"])
        await collect(engine.pay(again))
        assert paid_at_the_bank(server) == {("70123401", 500): 1, ("70123402", 700): 1}


async def test_a_cancelled_line_that_the_provider_shows_is_not_paid_again(
    bank: Bank, engine_with: EngineWith, tmp_path: Path
) -> None:
    """An older copy, where nobody remembers the newer: what it withdraws was sent after all; the retry asks first."""
    wanted = payouts(20)
    async with bank() as server:
        async with engine_with(server) as engine:
            run = await engine.submit(wanted)
            await engine.approved(run.run_id)
        copy = (tmp_path / "payouts.db").read_bytes()
        async with engine_with(server) as engine:
            await collect(engine.pay(run.run_id))
        for path in tmp_path.glob("payouts.db*"):
            path.unlink()
        (tmp_path / "payouts.db").write_bytes(copy)
        shutil.rmtree(tmp_path / "state")  # As on another machine.
        async with engine_with(server) as engine:
            await engine.cancel(run.run_id, "awa")
            with pytest.raises(ConfigError, match="No line"):
                await engine.retry(run.run_id)
            assert await states(engine, run.run_id) == {State.HELD: 20}
        assert_paid_once(server, wanted)


@pytest.mark.parametrize("way", ["retry", "file"])
async def test_what_comes_to_light_before_the_approval_holds_the_line(
    bank: Bank, engine_with: EngineWith, way: str
) -> None:
    """An unpaid line is validated again, then the provider shows its transfer: it is held, and the caller is told."""
    wanted = payouts(3)
    async with bank() as server, engine_with(server) as engine:
        first = await engine.submit(wanted)
        journal, _ = await engine.approved(first.run_id)
        await engine.cancel(first.run_id, "awa")
        keys = [entry.key async for entries in journal.entries(first.run_id) for entry in entries]
        again = await (engine.retry(first.run_id) if way == "retry" else engine.submit(wanted))
        assert again.findings is not None and again.findings.accepted == 3
        await journal.reconcile([LookUpResult(keys[1], Receipt(State.PAID, "", "late", "tr_1"))])
        outcomes = await collect(engine.pay(again))
        assert {outcome.line: outcome.status for outcome in outcomes.values()} == {
            1: State.PAID,
            2: State.HELD,
            3: State.PAID,
        }
        assert len(server.paid()) == 2
