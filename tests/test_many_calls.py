"""One intent for many calls of one payout each, where a key pays once: what is sent, when, and what a stop leaves.

A real journal in simulated time, and a provider that answers as scripted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
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
from payout_engine.domain.ending import Stop
from payout_engine.domain.errors import Brake, NotSentError, RefusedError
from payout_engine.domain.model import ControlKind, ControlRequest, Dispatch, Outcome, Receipt
from payout_engine.domain.states import State
from payout_engine.journal.db import every
from payout_engine.journal.snapshot import snapshot
from payout_engine.payment.dispatch import CALLS_KEY_LIFE_SHARE, CALLS_SECONDS_MAX
from payout_engine.payment.poll import FollowPolicy
from payout_engine.payment.rate_limiter import Pace
from payout_engine.payment.run import Payer, Payment, Terms
from payout_engine.ports.observer import Dispatched
from payout_engine.ports.provider import KeyPromise, Traits
from payout_engine.testing.journal_lines import approved, chunk, inline, states

SINGLY = msgspec.structs.replace(SAFE, batch_limit=1, concurrency=4)
SHORT = [Receipt(State.READY, "insufficient_funds", "The balance is too low.")]
POLICY = FollowPolicy(unknown_patience_seconds=300.0)


class Paid:
    """What came of a run of one chunk, paid once, or in several lives.

    Attributes:
        kinds: how many entries of each kind the log has.
        cancelled: where the lines would stand if the run were cancelled now.
    """

    def __init__(
        self,
        traits: Traits,
        *answers: Answer,
        lines: int = 40,
        takes_seconds: float = 0.2,
        lives: Sequence[float] = (3600.0,),
        on_call: Callable[[Paid, Dispatch], object] = lambda paid, dispatch: None,
        follow: bool = False,
    ) -> None:
        self.provider = Scripted(traits, *answers, takes_seconds=takes_seconds)
        self.provider.results_of_resend = lambda dispatch: on_call(self, dispatch)
        self.payment: Payment
        self.stops: list[Stop] = []
        self.told: list[object] = []
        self.on_event: Callable[[object], None] = self.told.append
        self.errors: list[Exception] = []
        self._follow_for_seconds = 3600.0 if follow else 0.0
        with TemporaryDirectory() as folder:
            virtual_time.run(self._main(Path(folder), lines, lives))

    async def _main(self, folder: Path, lines: int, lives: Sequence[float]) -> None:
        with clock.replaced(lambda: STARTED_AT + anyio.current_time(), lambda: ("this start", anyio.current_time())):
            async with inline(folder / "payouts.db") as self.journal:
                await approved(self.journal, "run", chunk(range(1, lines + 1)))
                for seconds in lives:
                    with anyio.move_on_after(seconds):
                        await self._pay()
                self.states = list((await states(self.journal, "run")).values())
                assert (await self.journal.verify("run")).findings == []
                with snapshot(self.journal.path) as db:
                    rows = list(
                        every(db, "SELECT seq, at, kind, body FROM log WHERE chunk_id IS NOT NULL ORDER BY seq")
                    )
                self.kinds = Counter(kind for _, _, kind, _ in rows)
                self.intents_at = [at - STARTED_AT for _, at, kind, _ in rows if kind in ("intent", "asked_again")]
                await self.journal.recover("run")
                await self.journal.cancel("run", ControlRequest(ControlKind.CANCEL, "awa"), 0, 99)
                self.cancelled = list((await states(self.journal, "run")).values())

    async def _pay(self) -> None:
        async def listen(_outcomes: Sequence[Outcome]) -> None:
            """Hear of outcomes."""

        payers = {"bf": Payer("bf", self.provider, Pace(self.provider.traits.calls_per_second))}
        terms = Terms(policy=POLICY, follow_for_seconds=self._follow_for_seconds, send=True)
        self.payment = Payment(self.journal, "run", payers, terms, listen, lambda event: self.on_event(event))
        try:
            self.stops += (await self.payment.run()).stops
        except RuntimeError as error:
            self.errors.append(error)

    @property
    def sent(self) -> Counter[str]:
        """How often each payout was in a call."""
        return Counter(key for _, keys in self.provider.calls for key in keys)


def test_one_intent_and_one_record_cover_many_calls() -> None:
    """Each call holds one payout, each is sent once, never more at once than allowed; the log has few entries."""
    paid = Paid(SINGLY, State.PAID, lines=300)
    assert paid.states == [State.PAID] * 300
    assert len(paid.provider.calls) == 300 and set(paid.sent.values()) == {1}
    assert paid.provider.most_at_once == 4
    places = [int(key.rpartition("-")[2]) for _, (key,) in paid.provider.calls]
    assert places == sorted(places), "an intent is spoken to its last call before the next one is"
    assert paid.kinds["intent"] == paid.kinds["receipts"] < 10
    assert anyio_seconds(paid) < 300 / 4 * 0.2 * 1.2, "the wire is kept full from one intent to the next"


def anyio_seconds(paid: Paid) -> float:
    """Return how long the calls took in all."""
    return paid.provider.calls[-1][0] - paid.provider.calls[0][0]


@pytest.mark.parametrize(
    "changes", [{"key_promise": KeyPromise.NONE}, {"absence_final_seconds": 60.0}, {"batch_limit": 2}], ids=str
)
def test_elsewhere_each_call_has_an_intent_of_its_own(changes: dict[str, Any]) -> None:
    """Where a key may pay twice, or an absence counts from the call, or a call takes more than one."""
    paid = Paid(msgspec.structs.replace(SINGLY, **changes), State.PAID, lines=20)
    assert paid.states == [State.PAID] * 20
    assert paid.kinds["intent"] == len(paid.provider.calls)


def test_the_calls_of_an_intent_keep_the_pace() -> None:
    """Six calls in a row never begin within a second where five are allowed, of one intent or of two."""
    paid = Paid(msgspec.structs.replace(SINGLY, calls_per_second=5.0), State.PAID, lines=60)
    at = [when for when, _ in paid.provider.calls]
    assert all(later - earlier >= 1.0 for earlier, later in zip(at, at[5:], strict=False))
    assert paid.kinds["intent"] < 12
    assert at[-1] - at[0] < 60 / 5 * 1.3


STOPS: dict[str, tuple[Answer, Brake]] = {
    "funds": (SHORT, Brake.FUNDS),
    "funds of the call": (RefusedError("funds", "Empty.", brake=Brake.FUNDS), Brake.FUNDS),
    "key": (RefusedError("key", "Bad key.", brake=Brake.CREDENTIALS), Brake.CREDENTIALS),
    "a fault of the adapter": (KeyError("secret"), Brake.PROVIDER_DOWN),
    "a miscount": ([], Brake.PROVIDER_DOWN),
}


@pytest.mark.parametrize(("answer", "brake"), STOPS.values(), ids=STOPS.keys())
def test_a_brake_in_the_middle_leaves_what_was_not_sent(answer: Answer, brake: Brake) -> None:
    """What is on the wire lands; the rest is ready as if it had never been meant to be sent, and can be withdrawn."""
    paid = Paid(SINGLY, *[State.PAID] * 9, answer, State.PAID)
    assert [stop.brake for stop in paid.stops] == [brake]
    calls = len(paid.provider.calls)
    assert calls < 16 and set(paid.sent.values()) == {1}
    assert sum(event.count for event in paid.told if isinstance(event, Dispatched)) == calls
    assert paid.states.count(State.PAID) == calls - 1
    doubtful = State.UNKNOWN if brake is Brake.PROVIDER_DOWN else State.READY
    assert paid.states.count(doubtful) == (1 if doubtful is State.UNKNOWN else 40 - calls + 1)
    assert paid.cancelled.count(State.CANCELLED) == 40 - calls
    assert paid.cancelled.count(State.HELD) == (doubtful is State.READY)


def test_what_was_not_sent_is_sent_once_the_money_is_there() -> None:
    """In another life, and nothing that the first one has sent."""
    paid = Paid(SINGLY, *[State.PAID] * 9, SHORT, State.PAID, lives=(3600.0, 3600.0))
    assert paid.states == [State.PAID] * 40
    assert sorted(paid.sent.values()) == [1] * 39 + [2]


def test_a_lost_answer_is_one_payout_in_doubt() -> None:
    """Its neighbours in the same intent are answered; it alone is sent again to ask, by the promise of its key."""
    paid = Paid(SINGLY, *[State.PAID] * 5, LOST, State.PAID, follow=True)
    assert paid.states == [State.PAID] * 40
    assert sorted(paid.sent.values()) == [1] * 39 + [2]
    assert paid.kinds["asked_again"] == 1
    never_left = NotSentError("refused", "Nobody listens.")
    paid = Paid(SINGLY, *[State.PAID] * 5, never_left, State.PAID)
    assert paid.states == [State.PAID] * 40 and paid.kinds["asked_again"] == 0


def test_calls_without_an_answer_grow_rare_within_an_intent() -> None:
    """A provider that is gone leaves no more in doubt than where each call has an intent of its own."""
    paid = Paid(SINGLY, *[State.PAID] * 12, LOST)
    assert [stop.brake for stop in paid.stops] == [Brake.PROVIDER_DOWN]
    assert 5 <= paid.states.count(State.UNKNOWN) <= 8
    assert paid.provider.calls[-1][0] - paid.provider.calls[12][0] > 1.0
    assert paid.states.count(State.READY) == 40 - len(paid.provider.calls)


def test_a_person_who_stops_it_is_heard_between_two_calls() -> None:
    """Not only when the intent is through."""

    def stop(paid: Paid, dispatch: Dispatch) -> None:
        if len(paid.provider.calls) == 10:
            paid.payment.stop()

    paid = Paid(SINGLY, State.PAID, on_call=stop)
    assert paid.states.count(State.PAID) == len(paid.provider.calls) == 10
    assert paid.states.count(State.READY) == 30


def test_who_is_cut_off_records_what_is_known_of_each_call() -> None:
    """Answers that came count, calls on the wire are in doubt, and what was never begun is ready."""
    paid = Paid(SINGLY, State.PAID, takes_seconds=1.0, lines=4 * 10, lives=(7.5,))
    assert paid.provider.most_at_once == 4
    assert paid.states.count(State.UNKNOWN) == 4
    assert paid.states.count(State.PAID) == len(paid.provider.calls) - 4 > 20
    assert paid.cancelled.count(State.CANCELLED) == 40 - len(paid.provider.calls)


def test_a_fault_of_ours_lets_the_other_calls_land() -> None:
    """Whoever watches and fails stops the sending; no call is cut off by it, and each answer is recorded."""

    def fail(paid: Paid, dispatch: Dispatch) -> None:
        if len(paid.provider.calls) == 10:
            paid.on_event = boom

    def boom(event: object) -> None:
        raise RuntimeError("a fault of a watcher")

    paid = Paid(SINGLY, *[State.PAID] * 9, LOST, State.PAID, on_call=fail)
    assert paid.errors
    assert paid.states.count(State.UNKNOWN) == 1
    assert paid.states.count(State.PAID) == len(paid.provider.calls) - 1


@pytest.mark.parametrize("lifetime_seconds", [100.0, 400.0, None])
def test_calls_begin_soon_after_their_intent(lifetime_seconds: float | None) -> None:
    """Also to ask again: the age of the key was looked at when the intent was written, and not at each call."""
    traits = msgspec.structs.replace(SINGLY, concurrency=1, key_lifetime_seconds=lifetime_seconds)

    def slower(paid: Paid, dispatch: Dispatch) -> None:
        paid.provider._takes_seconds = 0.05 if len(paid.provider.calls) < 60 else 9.0

    paid = Paid(traits, State.PAID, lines=100, on_call=slower, takes_seconds=0.05)
    assert paid.states == [State.PAID] * 100
    most = CALLS_SECONDS_MAX if lifetime_seconds is None else lifetime_seconds * CALLS_KEY_LIFE_SHARE
    begun = [at for at, _ in paid.provider.calls]
    since = [at - max(intent for intent in paid.intents_at if intent <= at) for at in begun]
    assert paid.provider.most_at_once == 1
    assert max(since) <= most + 0.001
    assert len([seconds for seconds in since if seconds > most / 2]) > 0


def test_what_is_asked_again_is_asked_once_a_round() -> None:
    """A group of doubts is one entry in the log, and each is in one call."""
    doubts: list[Answer] = [LOST, State.PAID, LOST, State.PAID, LOST, State.PAID, LOST, State.PAID]
    paid = Paid(SINGLY, *doubts, State.PAID, follow=True)
    assert paid.states == [State.PAID] * 40
    assert sorted(paid.sent.values()) == [1] * 36 + [2] * 4
    assert paid.kinds["asked_again"] == 1


def test_the_wire_is_full_from_one_intent_to_the_next() -> None:
    """The next intent is written while the last calls of the one before are still on their way."""
    paid = Paid(SINGLY, State.PAID, lines=100, takes_seconds=2.0)
    at = [when for when, _ in paid.provider.calls]
    assert max(later - earlier for earlier, later in pairwise(at)) < 2.1
    assert at[-1] - at[0] < 100 / 4 * 2.0 * 1.1
    assert paid.kinds["intent"] >= 8, "no intent covers more calls than are made in a few seconds"
