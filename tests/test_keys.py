"""A run goes on with the key it was begun with: another account's silence, or its "paid", would prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from payout_engine import Engine, Payout, Settings
from payout_engine.app.settings import AccountSettings
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Choice, Decision
from payout_engine.domain.states import State
from payout_engine.intake.route import Route
from payout_engine.providers._sandbox import Fault, FaultKind
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


async def test_what_a_person_released_goes_out_with_the_first_key(bank: BankMaker, engine_for: EngineMaker) -> None:
    """Sent again, it is ready like what was never sent; but with another key nobody would notice the first transfer."""
    async with bank() as server:
        async with engine_for(server) as engine:
            server.faults.add(Fault(FaultKind.RESET_BEFORE, server.paying_endpoint))
            run_id = await begun(engine)
            assert await statuses(engine, run_id) == {State.UNKNOWN: 5}
            keys = [entry.key async for entries in (await engine.journal()).entries(run_id) for entry in entries]
            await engine.decide(run_id, [Decision(key, Choice.SEND_AGAIN, "Awa", "ticket 7") for key in keys])
            assert await statuses(engine, run_id) == {State.READY: 5}
        async with engine_for(server, api_key="sk_test_another") as engine:
            with pytest.raises(ConfigError, match="begun with another key"):
                [outcome async for outcome in engine.pay(run_id)]
        assert not server.paid()
        async with engine_for(server) as engine:
            [outcome async for outcome in engine.pay(run_id)]
            assert await statuses(engine, run_id) == {State.PAID: 5}


async def test_a_key_that_was_never_accepted_is_simply_corrected(bank: BankMaker, engine_for: EngineMaker) -> None:
    """Nothing was sent with the wrong key, so the right one needs no word from anybody."""
    async with bank() as server:
        async with engine_for(server, api_key="wrong") as engine:
            run_id = await begun(engine)
            assert await statuses(engine, run_id) == {State.READY: 5}
        async with engine_for(server) as engine:
            [outcome async for outcome in engine.pay(run_id)]
            assert await statuses(engine, run_id) == {State.PAID: 5}


async def test_a_run_without_a_key_for_all_its_accounts_is_not_begun(bank: BankMaker, tmp_path: Path) -> None:
    """Not even where an account's lines are all held: a run that cannot be paid must not hold up others' references."""
    async with bank() as server:
        account = {"api_key": "sk_test_tests", "base_url": server.base_url}
        routes = [Route("orange", wallet="orange_bf"), Route("rest")]
        accounts = {name: AccountSettings("senfenico", account) for name in ("orange", "rest")}
        settings = Settings(journal=tmp_path / "payouts.db", accounts=accounts, routes=routes)
        async with Engine.open(settings) as engine:
            [outcome async for outcome in engine.pay(await engine.submit([Payout("A", 1000, phone="70500100")]))]
        without = AccountSettings("senfenico", account | {"api_key": {"env": "NOT_SET"}})
        async with Engine.open(msgspec.structs.replace(settings, accounts=accounts | {"rest": without})) as engine:
            run = await engine.submit([Payout("A", 1000, phone="70500100"), Payout("B", 1000, phone="74500100")])
            for attempt in (engine.check_accounts(run.run_id), anext(engine.pay(run))):
                with pytest.raises(ConfigError, match="NOT_SET is not set"):
                    await attempt
            assert (await engine.run(run.run_id)).approved_at is None
        assert len(server.paid()) == 1


async def test_a_retry_asks_the_account_that_was_paid_from(bank: BankMaker, engine_for: EngineMaker) -> None:
    """With another key nobody can ask what became of the lines: the retry is refused, unless the key was renewed."""
    async with bank() as server:
        async with engine_for(server) as engine:
            run_id = await begun(engine)
        async with engine_for(server, api_key="sk_test_another") as engine:
            with pytest.raises(ConfigError, match="another key of account bf"):
                await engine.retry(run_id)
            with pytest.raises(ConfigError, match="No line of run"):
                await engine.retry(run_id, key_renewed=True)
