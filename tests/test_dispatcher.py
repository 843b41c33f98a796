"""The dispatcher alone: what each kind of answer does to the payouts of its call, and to the calls after it.

A real journal in simulated time, and a provider that answers as scripted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import anyio
import msgspec
import pytest
from simulation import virtual_time
from test_asking_again import LOST, SAFE, Answer, Scripted

from payout_engine.domain.errors import AmbiguousError, Brake, NotSentError, RefusedError
from payout_engine.domain.model import Dispatch, Lane, Outcome, Problem, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.journal.ids import position_of
from payout_engine.payment.context import Context
from payout_engine.payment.dispatch import REFUSALS_MAX, TROUBLES_MAX, Dispatcher
from payout_engine.payment.first_send import FirstSend
from payout_engine.payment.rate_limiter import WITHOUT_A_RATE_SECONDS, Pace
from payout_engine.ports import observer
from payout_engine.ports.journal import ReadyChunk
from payout_engine.testing.journal_lines import MOOV, ORANGE, approved, chunk, inline, states

ALONE = msgspec.structs.replace(SAFE, concurrency=1)
FAST = RefusedError("too_fast", "Slowly.", too_fast=True, retry_after_seconds=3.0)
SHORT = Receipt(State.READY, "insufficient_funds", "The balance is too low.")
BUSY = Receipt(State.READY, "busy", "Later, please.")
OTHER = Lane("bf", "other_bf", "XOF")


class Meddled:
    """A journal in which somebody holds the first payout between its being loaded and its being sent."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal, self._meddled = journal, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def intend(self, chunk: ReadyChunk) -> Dispatch:
        """Hold it, and go on."""
        if not self._meddled:
            self._meddled = True
            await self._journal.hold("run", {position_of(chunk.chunk_id, 0): Problem("repeated", "Again.")})
        return await self._journal.intend(chunk)


class Told:
    """What a dispatcher did with a run of one payout in each chunk."""

    def __init__(
        self,
        *answers: Answer,
        lanes: Sequence[Lane] = (ORANGE,),
        each: int = 3,
        balances: Mapping[str, str] | None = None,
        quota: Mapping[Lane, int] | None = None,
        meddling: bool = False,
    ) -> None:
        self.provider = Scripted(ALONE, *answers)
        self._balances = balances or {}
        self.events: list[Any] = []
        self.outcomes: list[Outcome] = []
        self._lanes, self._each, self._quota, self._meddling = list(lanes), each, quota, meddling
        with TemporaryDirectory() as folder:
            virtual_time.run(self._pay(Path(folder)))

    async def _pay(self, folder: Path) -> None:
        async with inline(folder / "payouts.db") as journal:
            lines = iter(range(1, 1000))
            chunks = [chunk([next(lines)], lane) for lane in self._lanes for _ in range(self._each)]
            await approved(journal, "run", *chunks)
            self.dispatcher = self._made(journal)
            await self.dispatcher.run()
            self.states = list((await states(journal, "run")).values())
            assert (await journal.verify("run")).proven

    def _made(self, journal: SqliteJournal) -> Dispatcher:
        async def publish(outcomes: Sequence[Outcome]) -> None:
            self.outcomes += outcomes

        spoken_to = cast(SqliteJournal, Meddled(journal)) if self._meddling else journal
        context = Context(spoken_to, self.provider, "run", "bf", publish, self.events.append, self._balances)
        return Dispatcher(context, FirstSend(context, self._quota), self._lanes, Pace(None))

    @property
    def brakes(self) -> list[tuple[str, Lane | None, Brake]]:
        """What stopped it, which was also told each time."""
        told = [(event.account, event.lane, event.brake) for event in self.events if isinstance(event, observer.Braked)]
        stops = [(stop.account, stop.lane, stop.brake) for stop in self.dispatcher.stops]
        assert told == [(account, lane.name if lane else "", brake) for account, lane, brake in stops]
        return stops

    @property
    def waiting(self) -> list[str]:
        """What was told of what is waited for."""
        return [event.message for event in self.events if isinstance(event, observer.Waiting)]

    @property
    def gaps_seconds(self) -> list[float]:
        """How long it waited between the end of a call and the next one."""
        return [round(later - earlier - 0.2, 3) for (earlier, _), (later, _) in pairwise(self.provider.calls)]


def test_everything_is_sent_once_the_lanes_in_turn() -> None:
    """Each payout in one call, one lane after the other, each outcome told."""
    told = Told(State.ACCEPTED, lanes=(ORANGE, MOOV))
    assert told.states == [State.ACCEPTED] * 6
    assert [int(keys[0].split("-")[1]) for _, keys in told.provider.calls] == [1, 4, 2, 5, 3, 6]
    assert sorted(outcome.line for outcome in told.outcomes) == [1, 2, 3, 4, 5, 6]
    assert [event.count for event in told.events if isinstance(event, observer.Dispatched)] == [1] * 6
    assert told.brakes == []
    assert told.gaps_seconds == [0.0] * 5


def test_calls_without_an_answer_grow_rare_and_end() -> None:
    """Each leaves a payout in doubt, so the pauses grow; after a few in a row nothing more is sent."""
    told = Told(LOST, each=9)
    assert told.states == [State.UNKNOWN] * TROUBLES_MAX + [State.READY] * (9 - TROUBLES_MAX)
    assert told.brakes == [("bf", None, Brake.PROVIDER_DOWN)]
    assert told.gaps_seconds == [1.0, 2.0, 4.0, 8.0]
    assert "5 calls in a row" in told.dispatcher.stops[0].message
    assert str(LOST) in told.dispatcher.stops[0].message
    assert told.waiting == [str(LOST)] * TROUBLES_MAX


@pytest.mark.parametrize("usable", [State.ACCEPTED, RefusedError("no", "No.", final=True)])
def test_a_usable_answer_ends_the_doubt(usable: Answer) -> None:
    """Four without one, then one, then four again stop nobody; a refusal is an answer."""
    told = Told(*[LOST] * 4, usable, *[LOST] * 4, State.PAID, each=10)
    assert told.brakes == []
    assert told.states.count(State.UNKNOWN) == 8
    assert told.gaps_seconds == [1.0, 2.0, 4.0, 8.0, 0.0, 1.0, 2.0, 4.0, 8.0]


def test_an_answer_that_says_nothing_of_anybody_is_none() -> None:
    """Receipts that are all unknown leave as much doubt as silence."""
    told = Told(State.UNKNOWN, each=9)
    assert told.states.count(State.UNKNOWN) == TROUBLES_MAX
    assert told.brakes == [("bf", None, Brake.PROVIDER_DOWN)]


def test_what_never_left_is_sent_again() -> None:
    """The same payout, until the provider is there; or nothing is sent to one that stays away."""
    told = Told(NotSentError("refused", "Nobody listens."), NotSentError("refused", "Nobody listens."), State.PAID)
    assert told.states == [State.PAID] * 3
    assert len(told.provider.calls) == 5
    gone = Told(NotSentError("refused", "Nobody listens."))
    assert gone.states == [State.READY] * 3
    assert len(gone.provider.calls) == TROUBLES_MAX
    assert gone.brakes == [("bf", None, Brake.PROVIDER_DOWN)]


def test_too_fast_is_slowed_down_and_in_the_end_stopped() -> None:
    """Nobody is in doubt; the provider is waited for as long as it says; whom no pace pleases is left alone."""
    told = Told(FAST, State.PAID, each=1)
    assert (told.states, told.brakes) == ([State.PAID], [])
    assert [outcome.reason for outcome in told.outcomes] == ["too_fast", ""]
    assert told.gaps_seconds[0] == pytest.approx(3.0, abs=0.01)
    unsaid = Told(RefusedError("too_fast", "Slowly.", too_fast=True), State.PAID, each=1)
    assert unsaid.gaps_seconds[0] == pytest.approx(WITHOUT_A_RATE_SECONDS, abs=0.01)
    assert told.waiting == [f"{FAST} The engine calls more slowly from now on."]
    for final in (False, True):
        never = Told(RefusedError("too_fast", "Slowly.", too_fast=True, final=final), each=1)
        assert never.states == [State.READY]
        assert len(never.provider.calls) == REFUSALS_MAX
        assert never.brakes == [("bf", None, Brake.LIMIT)]
    twice = Told(*[FAST] * (REFUSALS_MAX - 1), State.PAID, *[FAST] * (REFUSALS_MAX - 1), State.PAID, each=2)
    assert (twice.states, twice.brakes) == ([State.PAID] * 2, [])


@pytest.mark.parametrize(
    ("answer", "state", "reason", "brake"),
    [
        (RefusedError("closed", "Closed.", final=True), State.FAILED, "closed", None),
        (RefusedError("limit", "Too many.", brake=Brake.LIMIT), State.READY, "limit", (None, Brake.LIMIT)),
        (RefusedError("odd", "Odd."), State.READY, "odd", (None, Brake.LIMIT)),
        (RefusedError("key", "Bad key.", brake=Brake.CREDENTIALS), State.READY, "key", (None, Brake.CREDENTIALS)),
        (RefusedError("funds", "Empty.", brake=Brake.FUNDS), State.READY, "funds", (ORANGE, Brake.FUNDS)),
        (AmbiguousError("funds", "Empty?", brake=Brake.FUNDS), State.UNKNOWN, "funds", (ORANGE, Brake.FUNDS)),
        (AmbiguousError("key", "Key?", brake=Brake.CREDENTIALS), State.UNKNOWN, "key", (None, Brake.CREDENTIALS)),
        ([SHORT], State.READY, "insufficient_funds", (ORANGE, Brake.FUNDS)),
        ([], State.UNKNOWN, "adapter_failed", (None, Brake.PROVIDER_DOWN)),
        ([SHORT, SHORT], State.UNKNOWN, "adapter_failed", (None, Brake.PROVIDER_DOWN)),
        (ValueError("secret"), State.UNKNOWN, "adapter_failed", (None, Brake.PROVIDER_DOWN)),
    ],
    ids=str,
)
def test_each_kind_of_no(answer: Answer, state: State, reason: str, brake: tuple[Lane | None, Brake] | None) -> None:
    """Where it leaves the payout, with which reason, and what it stops: the lane for its funds, else the account."""
    told = Told(answer, State.PAID, lanes=(ORANGE, MOOV), each=2)
    assert (told.outcomes[0].status, told.outcomes[0].reason) == (state, reason)
    assert "secret" not in told.outcomes[0].message + str(told.dispatcher.stops)
    if brake is None:
        assert (told.states, told.brakes) == ([state, State.PAID, State.PAID, State.PAID], [])
        return
    assert told.brakes == [("bf", *brake)]
    assert ("fault in payout_engine" in told.dispatcher.stops[0].message) is (reason == "adapter_failed")
    others = State.READY if brake[0] is None else State.PAID
    assert told.states == [state, State.READY, others, others]
    assert told.dispatcher.lanes == ([ORANGE, MOOV] if brake[0] is None else [MOOV])


def test_what_was_refused_for_another_reason_only_goes_back() -> None:
    """It is sent again and its lane goes on; who never takes any of it is asked more and more rarely, then left."""
    told = Told([BUSY], State.PAID, each=2)
    assert (told.states, told.brakes) == ([State.PAID] * 2, [])
    assert len(told.provider.calls) == 3
    never = Told([BUSY], each=2)
    assert never.states == [State.READY] * 2
    assert never.gaps_seconds == [1.0, 2.0, 4.0, 8.0]
    assert never.brakes == [("bf", None, Brake.PROVIDER_DOWN)]
    assert "Later, please." in never.dispatcher.stops[0].message
    four: list[Answer] = [[BUSY]] * 4
    between = Told(*four, State.PAID, *four, State.PAID, each=3)
    assert (between.states, between.brakes) == ([State.PAID] * 3, [])


@pytest.mark.parametrize("empty", [[SHORT], RefusedError("funds", "Empty.", brake=Brake.FUNDS)], ids=str)
def test_lanes_that_share_a_balance_stop_together(empty: Answer) -> None:
    """What one cannot draw the other cannot either; a lane with a balance of its own goes on."""
    balances = {ORANGE.name: "main", MOOV.name: "main"}
    told = Told(empty, State.PAID, lanes=(ORANGE, OTHER, MOOV), each=2, balances=balances)
    assert told.brakes == [("bf", ORANGE, Brake.FUNDS), ("bf", MOOV, Brake.FUNDS)]
    assert told.states == [State.READY] * 2 + [State.PAID] * 2 + [State.READY] * 2
    assert told.dispatcher.lanes == [OTHER]


def test_other_brakes_stop_one_lane() -> None:
    """How the payouts of a lane end says nothing of the balance that it shares."""
    told = Told(State.PAID, lanes=(ORANGE, MOOV), balances={ORANGE.name: "main", MOOV.name: "main"})
    told.dispatcher.stop(ORANGE, Brake.FAILURES, "Too many.")
    assert told.brakes == [("bf", ORANGE, Brake.FAILURES)]


def test_who_may_send_only_so_many_sends_as_many() -> None:
    """What came back unsent, or was held by somebody meanwhile, does not count; and no more than that is sent."""
    quota = {ORANGE: 1, MOOV: 2}
    assert Told(State.PAID, lanes=(ORANGE, MOOV), quota=quota).states == [
        *(State.PAID, State.READY, State.READY),
        *(State.PAID, State.PAID, State.READY),
    ]
    for answer in (FAST, NotSentError("refused", "Nobody listens.")):
        assert Told(answer, answer, State.PAID, quota={ORANGE: 2}).states.count(State.PAID) == 2
    assert Told(State.PAID, quota={ORANGE: 1}, meddling=True).states == [State.HELD, State.PAID, State.READY]
    assert Told(State.PAID, meddling=True).states == [State.HELD, State.PAID, State.PAID]


def test_too_fast_is_never_final() -> None:
    """Whatever else is said of the call: it was not carried out, and is sent again."""
    told = Told(RefusedError("too_fast", "Slowly.", too_fast=True, final=True), State.PAID, each=1)
    assert (told.states, told.brakes) == ([State.PAID], [])


def test_a_brake_is_told_once() -> None:
    """A lane that is out is not stopped again, and nothing is after the account; a lane can go before the account."""
    told = Told(State.PAID, lanes=(ORANGE, MOOV))
    stop = told.dispatcher.stop
    for _ in range(2):
        stop(ORANGE, Brake.FUNDS, "Empty.")
    stop(None, Brake.LIMIT, "Enough.")
    for lane in (MOOV, ORANGE, None):
        stop(lane, Brake.CREDENTIALS, "Too late.")
    assert told.brakes == [("bf", ORANGE, Brake.FUNDS), ("bf", None, Brake.LIMIT)]


def test_who_is_stopped_waits_for_nothing() -> None:
    """A pause before the next call ends at once when a person stops the account."""
    provider = Scripted(ALONE, LOST, LOST, LOST, LOST)

    async def main(folder: Path) -> float:
        async def publish(_outcomes: Sequence[Outcome]) -> None:
            """Hear of outcomes."""

        async with inline(folder / "payouts.db") as journal:
            await approved(journal, "run", *(chunk([line]) for line in range(1, 9)))
            context = Context(journal, provider, "run", "bf", publish, lambda _event: None)
            dispatcher = Dispatcher(context, FirstSend(context), [ORANGE], Pace(None))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(dispatcher.run)
                await anyio.sleep(4 * 0.2 + 1.0 + 2.0 + 4.0 + 1.0)  # Into the fourth pause, of 8 seconds.
                dispatcher.stop(None, Brake.LIMIT, "Enough.")
            return anyio.current_time()

    with TemporaryDirectory() as folder:
        assert virtual_time.run(main(Path(folder))) == pytest.approx(8.8, abs=0.1)
    assert len(provider.calls) == 4
