"""A run goes on with the key it was begun with: another account's silence, or its "paid", would prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from payout_engine import Engine, Payout
from payout_engine.errors import ConfigError
from payout_engine.lifecycle import State
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox

BankMaker = Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]]
EngineMaker = Callable[..., AbstractAsyncContextManager[Engine]]

PAYOUTS = [Payout(f"K-{number}", 1000 + number, phone=f"70{500_100 + number}") for number in range(5)]


async def begun(engine: Engine, **terms: Any) -> str:
    """Pay the payouts as far as the terms go; return the run."""
    run = await engine.submit(PAYOUTS)
    async for _ in engine.pay(run, **terms):
        pass
    return run.run_id


async def statuses(engine: Engine, run_id: str) -> dict[State, int]:
    """Return how many payouts of a run are in each state."""
    return {tally.state: tally.count for tally in await engine.tally(run_id)}


async def test_another_key_does_not_go_on_with_what_was_sent(bank: BankMaker, engine_for: EngineMaker) -> None:
    """Not to send and not to follow: the error says what may have happened and what to do; the first key goes on."""
    async with bank(settle_seconds=0.5) as server:
        async with engine_for(server) as engine:
            run_id = await begun(engine, follow_for_seconds=0)
            assert await statuses(engine, run_id) == {State.ACCEPTED: 5}
        async with engine_for(server, api_key="sk_test_another") as engine:
            for send in (True, False):
                with pytest.raises(ConfigError, match=r"begun with another key of account bf.*--key-renewed"):
                    [outcome async for outcome in engine.pay(run_id, send=send)]
        async with engine_for(server) as engine:
            [outcome async for outcome in engine.pay(run_id)]
            assert await statuses(engine, run_id) == {State.PAID: 5}


async def test_a_person_may_say_that_the_key_was_renewed(bank: BankMaker, engine_for: EngineMaker) -> None:
    """Said once, it is remembered: the new key goes on, now and later, and the old one no longer does."""
    async with bank(settle_seconds=0.5) as server:
        async with engine_for(server) as engine:
            run_id = await begun(engine, follow_for_seconds=0)
        for first in (True, False):
            async with engine_for(server, api_key="sk_test_renewed") as engine:
                [
                    outcome
                    async for outcome in engine.pay(run_id, follow_for_seconds=0 if first else None, key_renewed=first)
                ]
        async with engine_for(server) as engine:
            assert await statuses(engine, run_id) == {State.PAID: 5}
            with pytest.raises(ConfigError, match="another key"):
                [outcome async for outcome in engine.pay(run_id)]


async def test_a_key_that_was_never_accepted_is_simply_corrected(bank: BankMaker, engine_for: EngineMaker) -> None:
    """Nothing was sent with the wrong key, so the right one needs no word from anybody."""
    async with bank() as server:
        async with engine_for(server, api_key="wrong") as engine:
            run_id = await begun(engine)
            assert await statuses(engine, run_id) == {State.READY: 5}
        async with engine_for(server) as engine:
            [outcome async for outcome in engine.pay(run_id)]
            assert await statuses(engine, run_id) == {State.PAID: 5}
