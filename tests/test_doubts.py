"""A doubt that means no: the whole engine over real HTTP stops where the next call would only leave more in doubt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import orjson
import pytest

from payout_engine import Brake, Engine, Exit, Payout, State, summarize
from payout_engine.payment import dispatch
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox
from payout_engine.testing.provider_answers import HTML
from payout_engine.testing.provider_relay import http, relaying

Bank = Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]]
EngineFor = Callable[..., AbstractAsyncContextManager[Engine]]


def payouts(count: int, phone: str) -> list[Payout]:
    """Payouts to different people, with different amounts."""
    return [Payout(f"{phone}-{n}", 1000 + n, currency="XOF", phone=f"{phone}{n + 1000}") for n in range(count)]


def refusal(code: str) -> bytes:
    return http(400, orjson.dumps({"status": False, "message": "No.", "error_code": code}))


DOUBTS = {
    "INSUFFICIENT_FUNDS": (refusal("INSUFFICIENT_FUNDS"), Brake.FUNDS, 2),
    "INVALID_DATA": (refusal("INVALID_DATA"), Brake.LIMIT, 1),
    "INVALID_ACCOUNT": (refusal("INVALID_ACCOUNT"), Brake.LIMIT, 1),
    "UNSUPPORTED_PROVIDER": (refusal("UNSUPPORTED_PROVIDER"), Brake.LIMIT, 1),
    "HTTP 401 of a proxy": (http(401, HTML, content_type="text/html"), Brake.CREDENTIALS, 1),
    "HTTP 401 without a word": (http(401, b""), Brake.CREDENTIALS, 1),
}
"""An answer that comes after the money moved, the brake it means, and how many calls there are: one for each lane that
stops by itself, or one in all."""


@pytest.mark.parametrize("name", DOUBTS)
async def test_a_doubt_that_means_no_costs_one_call_and_frees_nobody(
    bank: Bank, engine_for: EngineFor, name: str
) -> None:
    """What was in that call is found paid, what was not stays ready, and nothing is sent a second time."""
    answer, brake, calls = DOUBTS[name]
    wanted = [*payouts(30, "7012"), *payouts(30, "7612")]
    async with bank() as server, relaying(server) as relay:
        relay.answer(lambda _: answer, "bulk")
        options = {"base_url": relay.base_url, "batch_limit": 10, "concurrency": 1}
        async with engine_for(server, **options) as engine:
            run = await engine.submit(wanted)
            stream = engine.pay(run)
            outcomes = {outcome.reference: outcome async for outcome in stream}
            counts = {tally.state: 0 for tally in await engine.tally(run.run_id)}
            for tally in await engine.tally(run.run_id):
                counts[tally.state] += tally.count
            summary = summarize(run.run_id, await engine.tally(run.run_id), stream.ending)

        assert server.calls["bulk"] == calls
        assert {count for count, _ in server.paid().values()} == {1}
        assert counts == {State.PAID: 10 * calls, State.READY: 60 - 10 * calls}
        assert {outcome.status for outcome in outcomes.values()} == {State.PAID}
        assert {stop.brake for stop in stream.ending.stops} == {brake}
        assert all((stop.lane is None) is (brake is not Brake.FUNDS) for stop in stream.ending.stops)
        assert summary.exit_code == Exit.BRAKE


async def test_answers_that_say_nothing_of_anybody_stop_the_account(
    bank: Bank, engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole answer, in which no payout can be found, is as useless as none: not every chunk is thrown after it."""
    monkeypatch.setattr(dispatch, "TROUBLE_PAUSE_SECONDS", 0.01)
    async with bank() as server, relaying(server) as relay:
        relay.answer(lambda _: http(200, b'{"status": true, "message": "OK"}'), "bulk")
        async with engine_for(server, base_url=relay.base_url, batch_limit=2, concurrency=1) as engine:
            run = await engine.submit(payouts(40, "7012"))
            stream = engine.pay(run)
            outcomes = {outcome.reference: outcome async for outcome in stream}

        assert server.calls["bulk"] == dispatch.TROUBLES_MAX
        assert {outcome.status for outcome in outcomes.values()} == {State.PAID}
        assert [stop.brake for stop in stream.ending.stops] == [Brake.PROVIDER_DOWN]


@pytest.mark.parametrize(("api_key", "shown"), [("sk_live_tests", False), ("sk_test_tests", True)])
async def test_a_key_of_the_other_mode_is_noticed(bank: Bank, engine_for: EngineFor, api_key: str, shown: bool) -> None:
    """Nobody is called paid by a transfer of the other mode, a person gets to see it, and paying stops meanwhile."""
    async with bank(keys=[api_key], live_mode=shown) as server:
        # Ten calls a second, so that there is much left to send when the first look-up comes.
        options = {"api_key": api_key, "batch_limit": 2, "concurrency": 1, "rate_per_second": 10}
        async with engine_for(server, **options) as engine:
            run = await engine.submit(payouts(200, "7012"))
            stream = engine.pay(run)
            outcomes = [outcome async for outcome in stream]
            states = {tally.state for tally in await engine.tally(run.run_id) if tally.count}

        assert server.calls["bulk"] < 60
        assert State.PAID not in states and not any(outcome.status is State.PAID for outcome in outcomes)
        assert {State.HELD, State.READY} <= states
        assert [stop.brake for stop in stream.ending.stops] == [Brake.CREDENTIALS]
        assert "live_mode" in stream.ending.stops[0].message
        assert all("live_mode" in outcome.message for outcome in outcomes if outcome.status is State.HELD)
