"""What is cleared before a run is sent, asked of `app/clearing.py` itself: who is asked, what is held, who must wait.

A real journal in simulated time, with real leases, and providers that show what they are told to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from simulation import virtual_time
from simulation.bank import STARTED_AT
from test_following import DOWN, WRONG_KEY, Asked

from payout_engine.app.accounts import Accounts
from payout_engine.app.clearing import Clearing, Looking, accounts_to_send
from payout_engine.app.settings import AccountSettings, Settings
from payout_engine.domain import clock
from payout_engine.domain.ending import Stop
from payout_engine.domain.errors import Brake, ConfigError, Holder, JournalBusyError, UnansweredError
from payout_engine.domain.model import ControlKind, ControlRequest, Direction, Outcome, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.testing.journal_lines import (
    IVORY,
    SOMEBODY,
    approved,
    chunk,
    dispatched,
    inline,
    refused,
    sent,
    states,
    validated,
)


class Scene:
    """A journal, accounts with their providers, and one run that is to be cleared."""

    def __init__(self, path: Any, *names: str) -> None:
        self.journal: SqliteJournal
        self.clearing: Clearing
        self.path = path
        self.providers = {name: Asked() for name in names or ("bf", "ci")}
        self.halted = anyio.Event()
        self.published: list[Outcome] = []

    def live(self, life: Callable[[], Awaitable[None]]) -> None:
        """Let something happen in simulated time."""

        async def main() -> None:
            with clock.replaced(lambda: STARTED_AT + anyio.current_time()):
                async with inline(self.path) as self.journal, AsyncExitStack() as self.held:
                    await life()

        virtual_time.run(main())

    async def prepare(self, leased: Iterable[str] = ("bf",), *, seconds: float = 600.0) -> Clearing:
        """Return what clears the run named `run`."""
        settings = Settings(journal=self.path, accounts=dict.fromkeys(self.providers, AccountSettings("senfenico")))
        accounts = Accounts(settings, self.held, only=None, sandbox=False)
        accounts._connections.update({(name, Direction.PAY): one for name, one in self.providers.items()})  # type: ignore[misc]
        run = await self.journal.find("run")
        assert run is not None

        async def publish(outcomes: Any) -> None:
            self.published += outcomes

        looking = Looking(publish, lambda _event: None, seconds, self.halted)
        self.clearing = Clearing(self.journal, accounts, run, leased, self.held, looking)
        return self.clearing

    async def holder(self, account: str) -> Holder | None:
        """Return who holds the lease of an account."""
        try:
            async with self.journal.lease(f"account {account}", SOMEBODY):
                return None
        except JournalBusyError as busy:
            return busy.holder

    @property
    def asked(self) -> dict[str, int]:
        """How many pages each account was asked for."""
        return {name: len(provider.at) for name, provider in self.providers.items()}


@pytest.fixture
def scene(tmp_path: Any) -> Scene:
    return Scene(tmp_path / "payouts.db")


async def all_failed(journal: SqliteJournal, run_id: str, lines: list[int], lane: Any = IVORY) -> list[str]:
    """Pay lines of which each fails; return their keys."""
    await approved(journal, run_id, chunk(lines, lane))
    return list((await sent(journal, run_id, Receipt(State.FAILED), lane)).keys)


def test_who_sent_the_lines_before_is_asked_with_its_lease(scene: Scene) -> None:
    """What comes to light is held, as many times as it takes until nothing new comes up; each account is asked once."""

    async def life() -> None:
        keys = await all_failed(scene.journal, "earlier", [1, 2, 3])
        await validated(scene.journal, "run", chunk([1, 2, 3, 4, 5]))
        await approved(scene.journal, "other", chunk([5]))
        scene.providers["ci"].shows = {keys[1]: Receipt(State.PAID)}
        clearing = await scene.prepare()
        await clearing.must_clear()
        assert scene.asked == {"bf": 0, "ci": 1}
        assert clearing.late == {2, 5}, "before and after it was asked"
        assert (await states(scene.journal, "run"))[2] is State.HELD
        who = await scene.holder("ci")
        assert who is not None and (who.task, who.run_id, who.journal) == ("looking after", "run", "")
        await clearing.clear(["bf"])
        assert scene.asked == {"bf": 1, "ci": 1}
        assert await scene.holder("bf") is None, "that one was ours already"
        assert set(clearing.looked) == {"bf", "ci"} and clearing.uncleared(["bf"]) == {}

    scene.live(life)


def test_a_new_run_asks_nobody(scene: Scene) -> None:
    """Nothing of it was sent; but what repeats another run is held."""

    async def life() -> None:
        await validated(scene.journal, "run", chunk([1, 2]))
        await approved(scene.journal, "other", chunk([2]))
        clearing = await scene.prepare()
        await clearing.clear()
        assert scene.asked == {"bf": 0, "ci": 0}
        assert clearing.late == {2}

    scene.live(life)


def test_what_came_up_while_one_was_asked_is_asked_about(scene: Scene) -> None:
    """Another run failed meanwhile, at another account: that one is asked as well."""

    async def life() -> None:
        await all_failed(scene.journal, "earlier", [1], IVORY)
        await validated(scene.journal, "run", chunk([1, 2]))

        async def meanwhile() -> None:
            if await scene.journal.find("later") is None:
                await approved(scene.journal, "later", chunk([2]))
                await sent(scene.journal, "later", Receipt(State.FAILED))

        scene.providers["ci"].meanwhile = meanwhile
        clearing = await scene.prepare()
        await clearing.clear()
        assert set(clearing.looked) == {"bf", "ci"}

    scene.live(life)


def test_accounts_are_asked_at_once(scene: Scene) -> None:
    """Together they take as long as the slowest."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]), chunk([2], IVORY))
        for provider in scene.providers.values():
            provider.takes_seconds = 100.0
        clearing = await scene.prepare(["bf", "ci"])
        await clearing.clear(["bf", "ci"])
        assert anyio.current_time() == pytest.approx(100.0, abs=0.1)
        assert scene.asked == {"bf": 1, "ci": 1}

    scene.live(life)


def test_an_account_that_cannot_be_asked_pays_nobody(tmp_path: Any) -> None:
    """It is not configured, or another process has its lease; the error names it."""
    scene = Scene(tmp_path / "payouts.db", "bf")

    async def life() -> None:
        await all_failed(scene.journal, "earlier", [1])
        await validated(scene.journal, "run", chunk([1]))
        clearing = await scene.prepare()
        with pytest.raises(ConfigError, match="sent from account “ci” before"):
            await clearing.clear()
        await scene.held.aclose()
        async with scene.journal.lease("account ci", SOMEBODY):
            with pytest.raises(JournalBusyError, match="account ci"):
                await (await scene.prepare()).clear()
        assert scene.asked == {"bf": 0}

    scene.live(life)


@pytest.mark.parametrize(("failure", "brake"), [(DOWN, Brake.PROVIDER_DOWN), (WRONG_KEY, Brake.CREDENTIALS)])
def test_who_could_not_say_stops_the_accounts_that_it_concerns(scene: Scene, failure: Exception, brake: Brake) -> None:
    """One of the run itself, that one alone; one that sent the lines before, all of them. A new run is not begun."""

    async def life() -> None:
        await all_failed(scene.journal, "earlier", [1])
        await validated(scene.journal, "run", chunk([1]))
        scene.providers["ci"].fails = failure
        clearing = await scene.prepare()
        with pytest.raises(UnansweredError, match=f"account ci could not say what it already has .*: {failure}"):
            await clearing.must_clear()
        message = f"Nothing was sent, because the provider could not say what it already has: {failure}"
        assert clearing.uncleared(["ci"]) == {"ci": Stop("ci", None, brake, message)}
        assert clearing.uncleared(["bf", "ci"]) == {"ci": Stop("ci", None, brake, message)}
        assert clearing.uncleared(["bf"]) == {"bf": Stop("bf", None, brake, message)}
        assert clearing.uncleared(["bf", "gh"]) == {name: Stop(name, None, brake, message) for name in ("bf", "gh")}

    scene.live(life)


def test_each_account_stops_for_its_own_reason(scene: Scene) -> None:
    """What another said is no reason for one that said something itself."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]), chunk([2], IVORY))
        scene.providers["bf"].fails, scene.providers["ci"].fails = DOWN, WRONG_KEY
        clearing = await scene.prepare(["bf", "ci"])
        await clearing.clear(["bf", "ci"])
        stops = clearing.uncleared(["bf", "gh"])
        assert {name: stop.brake for name, stop in stops.items()} == {
            "bf": Brake.PROVIDER_DOWN,
            "gh": Brake.PROVIDER_DOWN,
        }
        assert {name: stop.brake for name, stop in clearing.uncleared(["bf", "ci"]).items()} == {
            "bf": Brake.PROVIDER_DOWN,
            "ci": Brake.CREDENTIALS,
        }

    scene.live(life)


@pytest.mark.parametrize("kind", ControlKind)
def test_a_person_need_not_wait_for_the_answer(scene: Scene, kind: ControlKind) -> None:
    """To pause or to cancel from another process ends the looking within a moment."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        scene.providers["bf"].takes_seconds = 500.0
        clearing = await scene.prepare()

        async def ask() -> None:
            await anyio.sleep(10.0)
            await scene.journal.request("run", ControlRequest(kind, "awa"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await clearing.clear(["bf"])
        assert 10.0 <= anyio.current_time() <= 10.6
        assert scene.halted.is_set()
        assert [looked.brake for looked in clearing.looked.values()] == [Brake.ASKED]

    scene.live(life)


def test_a_look_takes_no_longer_than_its_caller_wants(scene: Scene) -> None:
    """And is then no answer."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        scene.providers["bf"].takes_seconds = 500.0
        clearing = await scene.prepare(seconds=40.0)
        await clearing.clear(["bf"])
        assert anyio.current_time() == pytest.approx(40.0, abs=0.1)
        assert "longer than 40 seconds" in clearing.looked["bf"].problem

    scene.live(life)


def test_what_a_look_shows_is_published(scene: Scene) -> None:
    """As any look-up's results are."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        dispatch = await sent(scene.journal, "run", Receipt(State.UNKNOWN))
        scene.providers["bf"].shows = {dispatch.keys[0]: Receipt(State.PAID)}
        await (await scene.prepare()).clear(["bf"])
        assert [(outcome.line, outcome.status) for outcome in scene.published] == [(1, State.PAID)]

    scene.live(life)


def test_accounts_that_have_something_to_send(scene: Scene) -> None:
    """Of a run that goes on, only those."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]), chunk([2], IVORY), refused([3]))
        run = await scene.journal.find("run")
        assert run is not None
        assert await accounts_to_send(scene.journal, run) == ["bf", "ci"]
        await dispatched(scene.journal, "run")
        assert await accounts_to_send(scene.journal, run) == ["ci"]

    scene.live(life)
