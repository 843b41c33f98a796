"""What runs beside paying must not touch it: polls of the journal that fail, and callers who do not read.

The real engine over real HTTP with a real journal file. Failures are raised by SQLite's connection, on chosen queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import apsw
import msgspec
import pytest
from test_engine import assert_paid_once, collect, payouts

from payout_engine import Engine, JournalError, Outcome, State
from payout_engine.app import payment_stream
from payout_engine.ports.journal import Journal
from payout_engine.ports.observer import Event, Waiting
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox

Bank = Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]]
EngineFor = Callable[..., AbstractAsyncContextManager[Engine]]

THE_LOG = "FROM log JOIN chunks"
"""What the query of the log's outcomes holds, and no other."""
THE_REQUESTS = "FROM requests"
"""What the query of people's requests holds."""


class Failing:
    """Lets the journal's connection fail with an error of the disk on queries that hold a text."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, part: str, *, error: type[Exception] = apsw.IOError) -> None:
        self.on = True
        self.failed = 0
        self._part, self._error = part, error
        monkeypatch.setattr(apsw, "connection_hooks", [*apsw.connection_hooks, self._watch])

    def _watch(self, connection: apsw.Connection) -> None:
        def trace(cursor: object, sql: str, bindings: object) -> bool:
            if self.on and self._part in sql:
                self.failed += 1
                raise self._error("disk I/O error")
            return True

        connection.exec_trace = trace


def slow(calls: int, seconds: float = 0.7) -> list[Fault]:
    """Let the next paying calls take their time, so that some are on the wire whatever happens."""
    return [Fault(FaultKind.SLOW, "bulk", seconds=seconds, times=calls)]


async def states(engine: Engine, run_id: str) -> Counter[State]:
    """Count the payouts of a run by state."""
    counts = Counter[State]()
    for tally in await engine.tally(run_id):
        counts[tally.state] += tally.count
    return counts


# ------------------------------------------------------------------------------------------------------ failing polls


@pytest.mark.parametrize("error", [apsw.IOError, apsw.CorruptError, RuntimeError])
async def test_a_failing_poll_of_the_log_stops_no_payment(
    bank: Bank, engine_for: EngineFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """While the log cannot be read for `events.jsonl`, all is sent and lands; it is told once, and again at the end."""
    failing, told, wanted = Failing(monkeypatch, THE_LOG, error=error), list[Event](), payouts(800)
    async with bank(faults=slow(8)) as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run, events=tmp_path / "events.jsonl", watch=told.append)
        await collect(stream)
        assert await states(engine, run.run_id) == {State.PAID: 800}
        assert_paid_once(server, wanted)
    assert failing.failed > 2
    words = [event.message for event in told if isinstance(event, Waiting)]
    assert len(words) == 2
    assert "Payment goes on" in words[0]
    assert f"payout-engine results {run.run_id}" in words[1]


async def test_events_go_on_where_they_stopped_when_the_log_can_be_read_again(
    bank: Bank, engine_for: EngineFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that failed is made up for: in the end the file tells every outcome once."""
    failing = Failing(monkeypatch, THE_LOG)
    async with bank(faults=slow(4)) as server, engine_for(server) as engine:
        run = await engine.submit(payouts(400))
        stream = engine.pay(run, events=tmp_path / "events.jsonl")
        with anyio.fail_after(20):
            while failing.failed < 2:
                await anyio.sleep(0.05)
        failing.on = False
        await collect(stream)
    events = map(msgspec.json.decode, (tmp_path / "events.jsonl").read_bytes().splitlines())
    paid = [event["reference"] for event in events if event["status"] == "paid"]
    assert sorted(paid) == sorted(payout.reference for payout in payouts(400))


@pytest.mark.parametrize("error", [apsw.IOError, RuntimeError])
async def test_a_failing_look_at_peoples_requests_stops_politely(
    bank: Bank, engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Whether a person wants a pause cannot be read: nothing more is sent, what is on the wire lands, it is told."""
    failing, wanted = Failing(monkeypatch, THE_REQUESTS, error=error), payouts(3000)
    failing.on = False
    async with bank(faults=slow(20, seconds=1.0)) as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run)
        while not server.calls["bulk"]:
            await anyio.sleep(0.01)
        failing.on = True
        with pytest.raises(JournalError if error is apsw.IOError else RuntimeError, match="disk I/O"):
            await collect(stream)
        failing.on = False
        found = await states(engine, run.run_id)
        assert not found[State.UNKNOWN] and not found[State.SENDING]
        assert found[State.READY]
        await collect(engine.pay(run))
        assert_paid_once(server, wanted)


async def test_a_fault_of_ours_while_following_lets_the_wire_land(
    bank: Bank, engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting what is open fails in a way nobody foresaw: nothing more is sent, and no call is cut off."""
    wanted = payouts(3000)
    failing = Failing(monkeypatch, "FROM chunks JOIN progress USING (chunk_id) WHERE chunk_id BETWEEN", error=KeyError)
    failing.on = False
    async with bank(faults=slow(20, seconds=1.5)) as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run)
        while not server.calls["bulk"]:
            await anyio.sleep(0.01)
        failing.on = True
        with pytest.raises(KeyError):
            await collect(stream)
        failing.on = False
        found = await states(engine, run.run_id)
        assert not found[State.UNKNOWN] and not found[State.SENDING]
        await collect(engine.pay(run))
        assert_paid_once(server, wanted)


async def test_a_watcher_that_wants_to_leave_lets_the_wire_land(bank: Bank, engine_for: EngineFor) -> None:
    """Even `sys.exit` in a watcher, which a broken terminal may come to, cuts nothing off."""

    def leave(event: Event) -> None:
        raise SystemExit(1)

    wanted = payouts(300)
    async with bank(faults=slow(1)) as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        await collect(engine.pay(run, watch=leave))
        assert await states(engine, run.run_id) == {State.PAID: 300}
        assert_paid_once(server, wanted)


# ------------------------------------------------------------------------------------------------ callers and outcomes


async def in_order(journal: Journal, run_id: str, heard: Sequence[Outcome]) -> None:
    """Fail unless a caller heard exactly what the log tells: each outcome once, those of one payout in order."""
    told = [outcome async for _, outcomes in journal.outcomes(run_id) for outcome in outcomes]
    assert Counter(heard) == Counter(told)
    for reference in {outcome.reference for outcome in told}:
        assert [one for one in heard if one.reference == reference] == [
            one for one in told if one.reference == reference
        ]


async def test_paying_does_not_wait_for_a_caller_who_reads_nothing(bank: Bank, engine_for: EngineFor) -> None:
    """Waiting for the end without reading pays everything; reading afterwards still gives every outcome once."""
    wanted = payouts(2500)
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        stream = engine.pay(run)
        with anyio.fail_after(40):
            await stream.done.wait()
        assert await states(engine, run.run_id) == {State.PAID: 2500}
        assert_paid_once(server, wanted)
        await in_order(await engine.journal(), run.run_id, [outcome async for outcome in stream])


async def test_breaking_off_and_waiting_for_the_end_pays_everything(bank: Bank, engine_for: EngineFor) -> None:
    """`break` stops the reading and nothing else; what is left can be read later."""
    wanted = payouts(2500)
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        heard, stream = list[Outcome](), engine.pay(run)
        async for outcome in stream:
            heard.append(outcome)
            break
        with anyio.fail_after(40):
            await stream.done.wait()
        assert await states(engine, run.run_id) == {State.PAID: 2500}
        heard += [outcome async for outcome in stream]
        await in_order(await engine.journal(), run.run_id, heard)


@pytest.mark.parametrize("waiting_max", [1, 150, 10_000])
async def test_a_slow_caller_hears_each_outcome_once_and_holds_nothing_up(
    bank: Bank, engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch, waiting_max: int
) -> None:
    """However few outcomes may wait, whenever the caller pauses: paying ends first, and each is told exactly once."""
    monkeypatch.setattr(payment_stream, "OUTCOMES_WAITING_MAX", waiting_max)
    wanted, heard = payouts(1000), list[Outcome]()
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(wanted)
        stream, seen_after = engine.pay(run), 0
        async for outcome in stream:
            heard.append(outcome)
            if len(heard) % 100 == 1:
                await anyio.sleep(0.05)
            if len(heard) == 300:
                with anyio.fail_after(40):
                    await stream.done.wait()
                assert await states(engine, run.run_id) == {State.PAID: 1000}
                seen_after = len(heard)
        assert seen_after == 300
        await in_order(await engine.journal(), run.run_id, heard)


async def test_a_second_payment_of_a_run_tells_only_what_is_new(
    bank: Bank, engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier stream told is not read from the log again, also when this one's caller is slow."""
    monkeypatch.setattr(payment_stream, "OUTCOMES_WAITING_MAX", 1)
    async with bank() as server, engine_for(server) as engine:
        run = await engine.submit(payouts(1500))
        first, heard = engine.pay(run), list[Outcome]()
        async for outcome in first:
            heard.append(outcome)
            first.stop()
        second = engine.pay(run)
        await second.done.wait()
        rest = [outcome async for outcome in second]
        assert heard and rest
        await in_order(await engine.journal(), run.run_id, heard + rest)


async def test_a_log_that_cannot_be_read_holds_the_reader_up_and_not_the_payment(
    bank: Bank, engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's reading is tried again while paying goes on; when it is over, the failure is raised."""
    monkeypatch.setattr(payment_stream, "OUTCOMES_WAITING_MAX", 1)
    failing = Failing(monkeypatch, THE_LOG)
    async with bank(faults=slow(4)) as server, engine_for(server) as engine:
        run = await engine.submit(payouts(900))
        stream = engine.pay(run)
        with pytest.raises(JournalError):
            await collect(stream)
        assert stream.done.is_set() and failing.failed > 1
        assert await states(engine, run.run_id) == {State.PAID: 900}
