"""One run from its beginning to its end, by the rules of `payment/run.py`: brakes, people, canaries, time.

A real journal in simulated time, and providers that answer as scripted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import msgspec
import pytest
from simulation import virtual_time
from simulation.bank import STARTED_AT
from test_asking_again import LOST, SAFE, Answer, Scripted

from payout_engine.domain import clock
from payout_engine.domain.ending import Ending, Stop
from payout_engine.domain.errors import Brake, JournalError, ProviderError, RefusedError
from payout_engine.domain.model import (
    Chunk,
    ControlKind,
    ControlRequest,
    Dispatch,
    LookUpResult,
    Outcome,
    Query,
    Receipt,
    RunState,
)
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.payment.poll import FollowPolicy
from payout_engine.payment.rate_limiter import Pace
from payout_engine.payment.run import Payer, Payment, Terms
from payout_engine.ports import observer
from payout_engine.ports.provider import KeyPromise, LookUpKind
from payout_engine.testing.journal_lines import (
    IVORY,
    MOOV,
    ORANGE,
    approved,
    chunk,
    dispatched,
    inline,
    refused,
    sent,
    states,
)

POLICY = FollowPolicy(unknown_patience_seconds=60.0)
EACH = msgspec.structs.replace(
    SAFE, look_up=LookUpKind.EACH, key_promise=KeyPromise.NONE, concurrency=1, batch_limit=10
)
BLIND = msgspec.structs.replace(EACH, look_up=LookUpKind.NONE)
WRONG_KEY = RefusedError("unauthorized", "The key is not accepted.", brake=Brake.CREDENTIALS)


class Bank(Scripted):
    """A provider that settles by itself: what it was sent is shown as `verdict` so many seconds later.

    Attributes:
        failure: what a look-up raises, if anything.
        says: what a call is answered, instead of what is scripted.
        verdicts: how payouts settle, by key, that do not settle as all do.
    """

    def __init__(self, *answers: Answer, settles_seconds: float = 3.0, verdict: State | None = State.PAID) -> None:
        super().__init__(EACH, *(answers or (State.ACCEPTED,)))
        self.failure: ProviderError | None = None
        self.says: Callable[[Dispatch], State] | None = None
        self.verdicts: dict[str, State] = {}
        self._settles_seconds, self._verdict = settles_seconds, verdict

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Answer as scripted, or as `says` has it."""
        scripted = await super().send(dispatch)
        return scripted if self.says is None else [Receipt(self.says(dispatch))] * len(dispatch.keys)

    async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show what has settled."""
        self.looked_up_at.append(anyio.current_time())
        if self.failure is not None:
            raise self.failure
        due = anyio.current_time() - self._settles_seconds
        settled = {key for at, keys in self.calls for key in keys if at <= due}
        if self._verdict is not None:
            yield [
                LookUpResult(query.key, Receipt(self.verdicts.get(query.key, self._verdict)))
                for query in queries
                if query.key in settled
            ]


class World:
    """One approved run, the banks of its accounts, and all that was told of it."""

    def __init__(self, *chunks: Chunk, **banks: Scripted) -> None:
        self.journal: SqliteJournal
        self.banks = banks or {"bf": Bank()}
        self.told: list[Any] = []
        self.outcomes: list[Outcome] = []
        self.payment: Payment
        self.ended_at = 0.0
        self._chunks = chunks

    async def pay(self, journal: Any = None, **changes: Any) -> Ending:
        """Pay the run, or go on with it."""
        options: dict[str, Any] = {"policy": POLICY, "follow_for_seconds": 3600.0, "send": True, **changes}
        payers = {name: Payer(name, bank, Pace(None)) for name, bank in self.banks.items()}
        begun_at = anyio.current_time()
        made = Payment(journal or self.journal, "run", payers, Terms(**options), self._listen, self.told.append)
        self.payment = made
        ending = await made.run()
        self.ended_at = anyio.current_time() - begun_at
        return ending

    def live(self, life: Callable[[], Awaitable[Any]]) -> Any:
        """Let something happen in simulated time; return what it returns."""

        async def main(folder: Path) -> Any:
            with clock.replaced(lambda: STARTED_AT + anyio.current_time()):
                async with inline(folder / "payouts.db") as self.journal:
                    await approved(self.journal, "run", *self._chunks)
                    found = await life()
                    assert (await self.journal.verify("run")).findings == []
                    return found

        with TemporaryDirectory() as folder:
            return virtual_time.run(main(Path(folder)))

    async def after(self, seconds: float, do: Callable[[], Any], **changes: Any) -> Ending:
        """Pay, and do something when so much time has passed."""
        endings: list[Ending] = []

        async def paying() -> None:
            endings.append(await self.pay(**changes))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(paying)
            await anyio.sleep(seconds)
            done = do()
            if isinstance(done, Awaitable):
                await done
        return endings[0]

    async def ask(self, kind: ControlKind) -> None:
        """Let a person at another terminal ask for something."""
        await self.journal.request("run", ControlRequest(kind, "awa", "wait"))

    async def states(self) -> list[State]:
        return list((await states(self.journal, "run")).values())

    async def is_finished(self) -> bool:
        run = await self.journal.find("run")
        assert run is not None
        return run.state is RunState.FINISHED

    def events(self, kind: type) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    async def _listen(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes += outcomes


def test_what_there_is_to_do_is_told_and_done() -> None:
    """Counted by what is to be sent and what is followed; what a crash left open is told as unknown."""
    ours, theirs = Bank(), Bank(verdict=None)
    world = World(chunk([1, 2]), chunk([3], MOOV), chunk([4], IVORY), refused([5]), bf=ours, ci=theirs)

    async def life() -> None:
        before = await sent(world.journal, "run", Receipt(State.ACCEPTED), MOOV)
        ours.calls.append((-10.0, tuple(before.keys)))
        await dispatched(world.journal, "run", IVORY)
        assert await world.pay() == Ending([], timed_out=False, interrupted=False)
        assert world.told[0] == observer.Begun(2, 2)
        assert await world.states() == [State.PAID] * 3 + [State.UNKNOWN, State.REJECTED]
        assert (world.outcomes[0].line, world.outcomes[0].status) == (4, State.UNKNOWN)
        assert await world.is_finished(), "what is unknown was looked for"
        assert [len(keys) for _, keys in ours.calls[1:]] == [2]
        assert not (await world.journal.facts("run")).canary_done, "there was none"
        assert theirs.calls == []

    world.live(life)


# ----------------------------------------------------------------------------------------------------------- its end


@pytest.mark.parametrize("verdict", [State.PAID, None])
def test_a_run_is_finished_when_nothing_is_open(verdict: State | None) -> None:
    """Whoever does not wait leaves what is open for later: it is said so, and nothing is said where all has settled."""
    world = World(chunk([1]), bf=Bank(verdict or State.ACCEPTED))

    async def life() -> None:
        ending = await world.pay(follow_for_seconds=0.0)
        assert ending.timed_out is (verdict is None)
        assert not ending.interrupted
        assert await world.is_finished() is (verdict is not None)

    world.live(life)


def test_the_time_to_follow_counts_from_the_last_call() -> None:
    """However long the sending takes; it ends as soon as nothing is open."""
    bank = Bank(settles_seconds=1.0)
    bank._takes_seconds = 10.0
    world = World(*(chunk([line]) for line in range(1, 6)), bf=bank)

    async def life() -> None:
        ending = await world.pay(follow_for_seconds=5.0)
        assert (ending.timed_out, await world.states()) == (False, [State.PAID] * 5)
        assert 50.0 <= world.ended_at < 55.0

    world.live(life)
    slow = World(chunk([1]), bf=Bank(settles_seconds=1e6))

    async def in_vain() -> None:
        assert (await slow.pay(follow_for_seconds=5.0)).timed_out
        assert slow.ended_at == pytest.approx(5.2, abs=0.1)
        assert not await slow.is_finished()

    slow.live(in_vain)


@pytest.mark.parametrize("follow_for_seconds", [None, 1e6])
def test_who_follows_without_end_is_stopped_by_a_person(follow_for_seconds: float | None) -> None:
    """At once; that is no end of its time."""
    world = World(chunk([1]), bf=Bank(settles_seconds=1e9))

    async def life() -> None:
        ending = await world.after(9_999.0, lambda: world.payment.stop(), follow_for_seconds=follow_for_seconds)
        assert ending == Ending([], timed_out=False, interrupted=True)
        assert world.ended_at == pytest.approx(9_999.0, abs=0.1)
        assert not await world.is_finished()

    world.live(life)


def test_a_run_of_which_something_is_unknown_is_not_finished_by_who_is_stopped() -> None:
    """Nobody has looked for it long enough; whoever goes on does."""
    world = World(chunk([1]), bf=Bank(State.UNKNOWN, verdict=None))

    async def life() -> None:
        ending = await world.after(20.0, lambda: world.payment.stop())
        assert ending == Ending([], timed_out=False, interrupted=True)
        assert not await world.is_finished()
        assert await world.pay() == Ending([], timed_out=False, interrupted=False)
        assert await world.is_finished()

    world.live(life)


def test_when_look_ups_keep_failing_it_is_said_that_nobody_has_looked() -> None:
    """The run is not finished then: whoever goes on may be luckier."""
    world = World(chunk([1]), bf=Bank(State.UNKNOWN, verdict=None))
    bank = world.banks["bf"]
    assert isinstance(bank, Bank)
    bank.failure = LOST

    async def life() -> None:
        assert await world.pay() == Ending([], timed_out=True, interrupted=False)
        assert not await world.is_finished()

    world.live(life)


def test_time_that_was_over_stays_over() -> None:
    """For one account, though a person stopped another later."""
    slow = Bank(settles_seconds=1e9)
    slow._takes_seconds = 10.0
    waiting = Bank(settles_seconds=1e9)
    world = World(*(chunk([line]) for line in range(1, 20)), chunk([21], IVORY), bf=slow, ci=waiting)

    async def life() -> None:
        ending = await world.after(50.0, lambda: world.payment.stop(), follow_for_seconds=5.0)
        assert ending == Ending([], timed_out=True, interrupted=True)
        assert max(waiting.looked_up_at) < 7.0

    world.live(life)


# --------------------------------------------------------------------------------------------------------- people


def test_who_is_stopped_sends_nothing_more() -> None:
    """What is on the wire lands; it is told as stopped, and is no brake."""
    bank = Bank()
    bank._takes_seconds = 2.0
    world = World(*(chunk([line]) for line in range(1, 6)), bf=bank)

    async def life() -> None:
        ending = await world.after(3.0, lambda: world.payment.stop())
        assert ending == Ending([], timed_out=False, interrupted=True)
        assert await world.states() == [State.ACCEPTED] * 2 + [State.READY] * 3
        assert world.ended_at == pytest.approx(4.0, abs=0.1)
        (told,) = world.events(observer.Braked)
        assert (told.account, told.lane, told.brake) == ("bf", "", Brake.ASKED)
        assert not await world.is_finished()

    world.live(life)


@pytest.mark.parametrize("before", [True, False])
def test_a_pause_is_heard_and_stays(before: bool) -> None:
    """Asked before or meanwhile: sent is what was on the wire, said is who asked; it waits to be lifted."""
    bank = Bank()
    bank._takes_seconds = 2.0
    world = World(*(chunk([line]) for line in range(1, 6)), bf=bank)

    async def life() -> None:
        if before:
            await world.ask(ControlKind.PAUSE)
            ending = await world.pay()
        else:
            ending = await world.after(3.1, lambda: world.ask(ControlKind.PAUSE))
        assert ending == Ending([Stop("", None, Brake.ASKED, "Paused by awa: wait.")], False, False)
        told = [event for event in world.events(observer.Braked) if not event.account]
        assert told == [observer.Braked("", "", Brake.ASKED, "Paused by awa: wait.")]
        assert await world.states() == [State.ACCEPTED] * (0 if before else 2) + [State.READY] * (5 if before else 3)
        (request,) = await world.journal.requests("run")
        assert request.acknowledged
        assert not await world.is_finished()

    world.live(life)


def test_who_only_follows_need_not_pause() -> None:
    """Nothing would be sent anyway: the pause is for whoever sends, and is left for that one to hear."""
    world = World(chunk([1]), chunk([2]))

    async def life() -> None:
        await world.pay(follow_for_seconds=0.0)
        await world.ask(ControlKind.PAUSE)
        assert await world.pay(send=False) == Ending([], False, False)
        assert await world.states() == [State.PAID] * 2
        (request,) = await world.journal.requests("run")
        assert not request.acknowledged

    world.live(life)


def test_who_only_follows_sends_nothing() -> None:
    """However much waits to be sent; what was sent is followed to its end, and the rest is for who goes on."""
    world = World(chunk([1]), chunk([2]))

    async def life() -> None:
        before = await sent(world.journal, "run", Receipt(State.ACCEPTED))
        world.banks["bf"].calls.append((-10.0, tuple(before.keys)))
        assert await world.pay(send=False) == Ending([], False, False)
        assert await world.states() == [State.PAID, State.READY]
        assert len(world.banks["bf"].calls) == 1
        assert not await world.is_finished()

    world.live(life)


@pytest.mark.parametrize("before", [True, False])
def test_what_was_not_sent_when_it_is_cancelled_never_is(before: bool) -> None:
    """Withdrawn and told, all of it, once what is on the wire has landed; what was sent is followed to its end."""
    bank = Bank(settles_seconds=30.0)
    bank._takes_seconds = 2.0
    world = World(*(chunk([line]) for line in range(1, 151)), bf=bank)

    async def life() -> None:
        if before:
            await world.ask(ControlKind.CANCEL)
            ending = await world.pay()
        else:
            ending = await world.after(3.1, lambda: world.ask(ControlKind.CANCEL))
        assert ending == Ending([], False, False)
        paid = 0 if before else 2
        assert await world.states() == [State.PAID] * paid + [State.CANCELLED] * (150 - paid)
        withdrawn = [outcome.line for outcome in world.outcomes if outcome.status is State.CANCELLED]
        assert sorted(withdrawn) == list(range(paid + 1, 151))
        assert max(outcome.at for outcome in world.outcomes if outcome.status is State.CANCELLED) < STARTED_AT + 6.0
        words = "Cancelled by awa: wait. What was sent is followed to its end."
        assert world.events(observer.Waiting) == [observer.Waiting("", words)]
        assert await world.journal.requests("run") == []
        notes = [text for _, kind, text in await world.journal.notes("run") if kind == "cancelled"]
        assert notes == [f"{150 - paid} payouts withdrawn by awa: wait"]
        assert await world.is_finished()

    world.live(life)


def test_what_comes_back_from_the_wire_after_the_cancel_waits_for_nothing() -> None:
    """Refused, so that it could be sent again: but nothing is sent any more, and a person sees what was sent once."""
    bank = Bank(State.ACCEPTED, RefusedError("fast", "Slowly.", too_fast=True))
    bank._takes_seconds = 2.0
    world = World(*(chunk([line]) for line in range(1, 6)), bf=bank)

    async def life() -> None:
        ending = await world.after(2.5, lambda: world.ask(ControlKind.CANCEL))
        assert ending == Ending([], False, False)
        assert await world.states() == [State.PAID, State.HELD] + [State.CANCELLED] * 3
        assert len(bank.calls) == 2
        assert await world.is_finished()

    world.live(life)


def test_an_account_that_is_not_cleared_sends_nothing() -> None:
    """Nor does it end the others; what it sent before is followed. A person's stop is no brake of its own."""
    for brake in (Brake.PROVIDER_DOWN, Brake.ASKED):
        ours, theirs = Bank(), Bank()
        world = World(chunk([1]), chunk([2]), chunk([3], IVORY), bf=ours, ci=theirs)
        stop = Stop("bf", None, brake, "Nobody knows.")

        async def life(world: World = world, ours: Bank = ours, theirs: Bank = theirs, stop: Stop = stop) -> None:
            before = await sent(world.journal, "run", Receipt(State.ACCEPTED))
            ours.calls.append((-10.0, tuple(before.keys)))
            ending = await world.pay(uncleared={"bf": stop})
            braked = stop.brake is not Brake.ASKED
            assert list(ending.stops) == [stop] * braked
            assert world.events(observer.Braked) == [observer.Braked("bf", "", stop.brake, stop.message)] * braked
            assert await world.states() == [State.PAID, State.READY, State.PAID]
            assert (len(ours.calls), len(theirs.calls)) == (1, 1)
            assert not await world.is_finished()

        world.live(life)


# --------------------------------------------------------------------------------------------------------- brakes


@pytest.mark.parametrize("lines", [100, 50])
def test_a_lane_in_which_too_many_fail_stops(lines: int) -> None:
    """Another lane goes on; and a lane that had sent everything when that was seen was not stopped."""
    orange = [chunk(range(at, at + 10)) for at in range(0, lines, 10)]
    bank, answers = Bank(), iter([State.FAILED, State.PAID] * 20)
    bank.says = lambda dispatch: State.PAID if dispatch.lane == MOOV else next(answers)
    world = World(*orange, *(chunk([900 + at], MOOV) for at in range(12)), bf=bank)

    async def life() -> None:
        ending = await world.pay(max_failure_share=0.5)
        assert [(stop.account, stop.lane, stop.brake) for stop in ending.stops] == (
            [("bf", ORANGE, Brake.FAILURES)] if lines == 100 else []
        )
        assert (await world.states())[-12:] == [State.PAID] * 12
        assert (await world.states()).count(State.READY) == lines - 50
        assert await world.is_finished() is (lines == 50)

    world.live(life)


def test_a_key_that_a_look_up_finds_refused_pays_nobody_more() -> None:
    """Told once, however often it is found; other accounts go on."""
    ours, theirs = Bank(), Bank()
    ours.failure = WRONG_KEY
    ours._takes_seconds = 2.0
    world = World(*(chunk([line]) for line in range(1, 9)), chunk([9], IVORY), bf=ours, ci=theirs)

    async def life() -> None:
        ending = await world.pay()
        assert ending.stops == [Stop("bf", None, Brake.CREDENTIALS, str(WRONG_KEY))]
        assert await world.states() == [State.ACCEPTED] * 2 + [State.READY] * 6 + [State.PAID]
        again = await world.pay(send=False)
        assert again.stops == [Stop("bf", None, Brake.CREDENTIALS, str(WRONG_KEY))]
        held = await world.pay(uncleared={"bf": Stop("bf", None, Brake.PROVIDER_DOWN, "Nobody knows.")})
        assert [stop.brake for stop in held.stops] == [Brake.PROVIDER_DOWN]

    world.live(life)


def test_each_account_stops_for_its_own_key() -> None:
    """That another one's was refused before is no reason not to say it of this one."""
    ours, theirs = Bank(), Bank(WRONG_KEY)
    ours.failure = WRONG_KEY
    world = World(chunk([1]), chunk([2], IVORY), bf=ours, ci=theirs)

    async def life() -> None:
        ending = await world.pay()
        assert {(stop.account, stop.brake) for stop in ending.stops} == {
            ("bf", Brake.CREDENTIALS),
            ("ci", Brake.CREDENTIALS),
        }

    world.live(life)


def test_a_lane_without_funds_does_not_stop_the_key_from_being_found_refused() -> None:
    """The lane's brake is not the account's."""
    bank = Bank(RefusedError("funds", "Empty.", brake=Brake.FUNDS), State.ACCEPTED)
    bank.failure = WRONG_KEY
    world = World(chunk([1]), chunk([2], MOOV), bf=bank)

    async def life() -> None:
        ending = await world.pay()
        assert [(stop.lane, stop.brake) for stop in ending.stops] == [(MOOV, Brake.FUNDS), (None, Brake.CREDENTIALS)]
        assert await world.states() == [State.ACCEPTED, State.READY]

    world.live(life)


# --------------------------------------------------------------------------------------------------------- canaries


def test_the_rest_is_sent_when_the_canary_has_arrived() -> None:
    """In each lane by itself; a lane in which one fails stops, and what passed once is not asked again."""
    bank = Bank(settles_seconds=5.0)
    world = World(chunk(range(1, 8)), chunk(range(11, 18), MOOV), bf=bank)

    async def life() -> None:
        async def fails() -> None:
            for _, keys in bank.calls:
                if len(keys) == 2 and "-2-" in keys[0]:
                    bank.verdicts[keys[0]] = State.FAILED

        ending = await world.after(1.0, fails, canary=2)
        assert [len(keys) for _, keys in bank.calls] == [2, 2, 5]
        assert bank.calls[2][0] - bank.calls[0][0] == pytest.approx(7.0, abs=2.0)
        assert [(stop.account, stop.lane, stop.brake) for stop in ending.stops] == [("bf", MOOV, Brake.CANARY)]
        assert "Not every payout" in ending.stops[0].message
        assert world.events(observer.Braked) == [
            observer.Braked("bf", "moov_bf", Brake.CANARY, ending.stops[0].message)
        ]
        assert await world.states() == [State.PAID] * 7 + [State.FAILED, State.PAID] + [State.READY] * 5
        facts = await world.journal.facts("run")
        assert (set(facts.canary_done), set(facts.canary_stopped)) == ({ORANGE}, {MOOV})
        assert not await world.is_finished()

    world.live(life)


def test_a_canary_without_a_word_stops_its_lane_after_the_patience() -> None:
    """Nothing else is sent of it, and a person is told to look."""
    bank = Bank(settles_seconds=1e9)
    world = World(chunk(range(1, 8)), bf=bank)

    async def life() -> None:
        ending = await world.pay(canary=2, follow_for_seconds=10.0)
        assert [(stop.lane, stop.brake) for stop in ending.stops] == [(ORANGE, Brake.CANARY)]
        assert "no final answer" in ending.stops[0].message
        assert world.ended_at == pytest.approx(70.0, abs=2.0)
        assert [len(keys) for _, keys in bank.calls] == [2]
        bank._settles_seconds = 0.0
        assert (await world.pay(canary=2)).stops == []
        assert [len(keys) for _, keys in bank.calls] == [2, 5], "it has arrived since"
        assert await world.states() == [State.PAID] * 7

    world.live(life)


def test_a_lane_that_is_all_canary_waits_for_nobody() -> None:
    """There is no rest that would have to wait: it is followed like any other."""
    world = World(chunk([1, 2]), chunk([3], MOOV), bf=Bank(settles_seconds=1e9))

    async def life() -> None:
        ending = await world.pay(canary=2, follow_for_seconds=10.0)
        assert ending == Ending([], timed_out=True, interrupted=False)
        assert world.ended_at < 15.0

    world.live(life)


def test_a_key_that_is_refused_with_the_canary_is_used_no_more() -> None:
    """The account's brake keeps the rest of all its lanes back."""
    world = World(chunk(range(1, 8)), chunk(range(11, 18), MOOV), bf=Bank(WRONG_KEY, State.ACCEPTED))

    async def life() -> None:
        ending = await world.pay(canary=2)
        assert [(stop.lane, stop.brake) for stop in ending.stops] == [(None, Brake.CREDENTIALS)]
        assert [len(keys) for _, keys in world.banks["bf"].calls] == [2]
        assert await world.states() == [State.READY] * 14

    world.live(life)


def test_who_stops_while_a_canary_is_out_is_heard_at_once() -> None:
    """The lane was not stopped by its canary; the rest waits."""
    world = World(chunk(range(1, 8)), bf=Bank(settles_seconds=1e9))

    async def life() -> None:
        ending = await world.after(10.0, lambda: world.payment.stop(), canary=2)
        assert ending == Ending([], timed_out=False, interrupted=True)
        assert world.ended_at == pytest.approx(10.0, abs=0.1)
        assert (await world.states()).count(State.READY) == 5

    world.live(life)


def test_a_lane_that_stopped_is_not_waited_for() -> None:
    """Its canary could not be sent: the other lane's is, and its rest."""
    bank = Bank(RefusedError("funds", "Empty.", brake=Brake.FUNDS), State.ACCEPTED)
    world = World(chunk(range(1, 8)), chunk(range(11, 18), MOOV), bf=bank)

    async def life() -> None:
        ending = await world.pay(canary=2)
        assert [(stop.lane, stop.brake) for stop in ending.stops] == [(MOOV, Brake.FUNDS)]
        assert await world.states() == [State.PAID] * 7 + [State.READY] * 7
        assert world.ended_at < 30.0

    world.live(life)


# --------------------------------------------------------------------------------------------------------- trouble


class Failing:
    """A journal one of whose methods fails from its so-manieth call on."""

    def __init__(self, journal: SqliteJournal, method: str, calls: int) -> None:
        self._journal, self._method, self._calls = journal, method, calls

    def __getattr__(self, name: str) -> Any:
        if name != self._method:
            return getattr(self._journal, name)
        self._calls -= 1
        if self._calls < 0:
            raise JournalError("The disk is gone.")
        return getattr(self._journal, name)


@pytest.mark.parametrize(
    ("method", "calls", "sent_at_most"),
    [("requests", 2, 1), ("open_queries", 0, 1), ("tally", 1, 1), ("ready", 0, 0), ("ready", 1, 3), ("finish", 0, 3)],
)
def test_when_the_journal_fails_what_is_on_the_wire_lands(method: str, calls: int, sent_at_most: int) -> None:
    """Nothing more is sent, what was answered is recorded, and the caller is told."""
    bank = Bank()
    bank._takes_seconds = 3.0
    world = World(*(chunk([line]) for line in range(1, 4)), bf=bank)

    async def life() -> None:
        with pytest.raises(JournalError, match="The disk is gone"):
            await world.pay(Failing(world.journal, method, calls))
        calls_made = len(bank.calls)
        assert calls_made <= sent_at_most
        assert (await world.states()).count(State.READY) == 3 - calls_made
        assert State.SENDING not in await world.states()

    world.live(life)
