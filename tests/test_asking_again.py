"""Asking again: what is unknown is sent once more under its key, where the provider promises that a key pays once.

The rules are shown one by one on a scripted provider; `test_asking_again_simulated.py` shows them all together.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import msgspec
import pytest
from burkina import traits as burkina_traits
from simulation import virtual_time
from simulation.bank import STARTED_AT

from payout_engine.domain import clock
from payout_engine.domain.ending import Ending
from payout_engine.domain.errors import AmbiguousError, Brake, NotSentError, RefusedError
from payout_engine.domain.limits import READY_CHUNKS_AHEAD
from payout_engine.domain.model import ControlKind, ControlRequest, Dispatch, LookUpResult, Outcome, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal, resends
from payout_engine.journal.db import every
from payout_engine.journal.snapshot import snapshot
from payout_engine.payment.poll import FollowPolicy
from payout_engine.payment.rate_limiter import Pace
from payout_engine.payment.resend import results_of_resend
from payout_engine.payment.run import Payer, Payment, Terms
from payout_engine.ports import observer
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits
from payout_engine.testing.journal_lines import MOOV, approved, chunk, inline, sent, states

POLICY = FollowPolicy(unknown_patience_seconds=300.0)
LOST = AmbiguousError("timeout", "No answer came in time.")
SAFE = burkina_traits(key_promise=KeyPromise.IDEMPOTENT, look_up=LookUpKind.NONE, calls_per_second=None)

Answer = Sequence[Receipt] | Exception | State
"""What a scripted provider says to a call: receipts, a failure, or one state for every payout."""


class Scripted:
    """A provider that answers call by call, the last answer for ever, and shows nothing unless told to.

    Attributes:
        calls: when each call came, and the keys it held.
        shows: what a look-up shows, by key.
        blind: True when look-ups fail.
        most_at_once: how many calls were on the wire together.
    """

    def __init__(self, traits: Traits, *answers: Answer, takes_seconds: float = 0.2) -> None:
        self.traits = traits
        self.calls: list[tuple[float, tuple[str, ...]]] = []
        self.looked_up_at: list[float] = []
        self.shows: dict[str, Receipt] = {}
        self.blind = False
        self.most_at_once = 0
        self.results_of_resend: Callable[[Dispatch], object] = lambda dispatch: None
        self._answers = list(answers)
        self._takes_seconds = takes_seconds
        self._on_the_wire = 0

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Answer as scripted."""
        self.calls.append((anyio.current_time(), tuple(dispatch.keys)))
        self.results_of_resend(dispatch)
        self._on_the_wire += 1
        self.most_at_once = max(self.most_at_once, self._on_the_wire)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        try:
            await anyio.sleep(self._takes_seconds)
        finally:
            self._on_the_wire -= 1
        if isinstance(answer, Exception):
            raise answer
        return [Receipt(answer)] * len(dispatch.keys) if isinstance(answer, State) else answer

    async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show what is to be shown."""
        self.looked_up_at.append(anyio.current_time())
        if self.blind:
            raise AmbiguousError("timeout", "The look-up was not answered.")
        yield [LookUpResult(query.key, self.shows[query.key]) for query in queries if query.key in self.shows]

    async def aclose(self) -> None:
        """Nothing is open."""


class Scene:
    """One approved run of a few payouts, paid by one account."""

    def __init__(self, provider: Scripted, lines: int = 1) -> None:
        self.journal: SqliteJournal
        self.provider = provider
        self.told: list[Any] = []
        self.payment: Payment | None = None
        self._lines = lines

    async def prepare(self) -> None:
        """Approve the run."""
        await approved(self.journal, "run", chunk(range(1, self._lines + 1)))

    async def pay(self, policy: FollowPolicy = POLICY, **changes: Any) -> Ending:
        """Pay the run once, or go on with it."""
        options: dict[str, Any] = {"follow_for_seconds": 3600.0, "send": True, **changes}
        payers = {"bf": Payer("bf", self.provider, Pace(self.provider.traits.calls_per_second))}
        terms = Terms(policy=policy, **options)
        self.payment = Payment(self.journal, "run", payers, terms, self._listen, self.told.append)
        ending = await self.payment.run()
        assert (await self.journal.verify("run")).findings == []
        return ending

    async def states(self) -> list[State]:
        """Return where the payouts stand, in order."""
        return list((await states(self.journal, "run")).values())

    async def _listen(self, outcomes: Sequence[Outcome]) -> None:
        """Hear of outcomes."""


def live(scene: Scene, *lives: Callable[[], Any]) -> list[State]:
    """Let things happen one after another in simulated time, and return where the payouts stand at the end."""

    async def main() -> list[State]:
        with clock.replaced(lambda: STARTED_AT + anyio.current_time()):
            async with inline(Path(folder) / "payouts.db") as scene.journal:
                await scene.prepare()
                for life in lives:
                    await life()
                return await scene.states()

    with TemporaryDirectory() as folder:
        return virtual_time.run(main())


# -------------------------------------------------------------------------------------------------- what it is good for


@pytest.mark.parametrize("verdict", [State.PAID, State.FAILED, State.ACCEPTED, State.REVERSED])
def test_a_lost_answer_is_asked_for_and_believed(verdict: State) -> None:
    """The same payouts go out once more under the same keys, and the answer is the verdict."""
    scene = Scene(Scripted(SAFE, LOST, verdict), lines=3)
    ended_at: list[float] = []

    async def main() -> None:
        await scene.pay()
        ended_at.append(anyio.current_time())

    assert live(scene, main) == [verdict] * 3
    assert ended_at[0] < 10.0, "it went on asking about nothing"
    said = [event.message for event in scene.told if isinstance(event, observer.Waiting)]
    words = "3 payouts without an answer were sent again under the same keys, to ask about them; 3 were answered."
    assert said == [str(LOST), words]
    (_, first), (_, second) = scene.provider.calls
    assert first == second


def test_one_round_asks_about_everything() -> None:
    """However many calls it takes, and more than are loaded at a time; it is told how many, once."""
    lines = READY_CHUNKS_AHEAD + 2
    provider = Scripted(msgspec.structs.replace(SAFE, batch_limit=1, concurrency=1), *[LOST] * 2, State.PAID)
    scene = Scene(provider, lines=1)

    async def prepare() -> None:
        await approved(scene.journal, "run", *(chunk([line]) for line in range(1, lines + 1)))
        for _ in range(lines - 2):
            await sent(scene.journal, "run", Receipt(State.UNKNOWN))

    scene.prepare = prepare  # type: ignore[method-assign]
    assert live(scene, scene.pay) == [State.PAID] * lines
    said = [event.message for event in scene.told if isinstance(event, observer.Waiting)]
    words = f"{lines} payouts without an answer were sent again under the same keys, to ask about them"
    assert said[2:] == [f"{words}; {lines} were answered."]


def test_what_an_answer_to_a_repetition_counts_for() -> None:
    """A verdict for its payout; a word that we do not know for the transfer it names; a refusal for none."""
    answer = [
        *(Receipt(state) for state in (State.PAID, State.FAILED, State.ACCEPTED, State.REVERSED)),
        *(Receipt(State.READY, "refused", provider_reference=reference) for reference in ("", "T1")),
        *(Receipt(State.UNKNOWN, "ody", provider_reference=reference) for reference in ("", "T2")),
    ]
    payouts = chunk(range(len(answer))).payouts
    keys = [f"k-{number}" for number in range(len(answer))]
    dispatch = Dispatch(1, 1, MOOV, list(range(len(answer))), payouts, keys)
    expected = [LookUpResult(keys[number], answer[number]) for number in (0, 1, 2, 3, 7)]
    assert list(results_of_resend(dispatch, answer)) == expected
    assert results_of_resend(dispatch, LOST) == ()


def test_what_a_look_up_shows_is_not_asked_about_again() -> None:
    """A look-up comes first, and only what a whole one did not show is sent again."""
    provider = Scripted(msgspec.structs.replace(SAFE, look_up=LookUpKind.EACH), LOST, State.PAID)
    scene = Scene(provider, lines=3)
    provider.results_of_resend = lambda dispatch: provider.shows.setdefault(dispatch.keys[1], Receipt(State.PAID))
    assert live(scene, scene.pay) == [State.PAID] * 3
    (_, first), (again_at, second) = provider.calls
    assert second == (first[0], first[2])
    assert provider.looked_up_at[0] < again_at


def test_a_look_up_that_failed_did_not_fail_to_show_anything() -> None:
    """Where a look-up could yet tell, no paying call is made."""
    provider = Scripted(msgspec.structs.replace(SAFE, look_up=LookUpKind.EACH), LOST, State.PAID)
    provider.blind = True
    scene = Scene(provider)

    async def for_a_while() -> None:
        await scene.pay(follow_for_seconds=100.0)

    assert live(scene, for_a_while) == [State.UNKNOWN]
    assert len(provider.looked_up_at) > 3 and len(provider.calls) == 1


def test_what_the_provider_gave_a_reference_is_only_looked_up() -> None:
    """The provider knows it: a look-up will say more. Where there is no look-up, it is asked about all the same."""
    odd = [Receipt(State.UNKNOWN, "ody", provider_reference="T1")]
    for look_up, calls in ((LookUpKind.EACH, 1), (LookUpKind.NONE, 2)):
        provider = Scripted(msgspec.structs.replace(SAFE, look_up=look_up), odd, State.PAID)
        scene = Scene(provider)
        live(scene, scene.pay)
        assert len(provider.calls) == calls


def test_it_is_in_the_journal_before_it_leaves() -> None:
    """Whoever dies with the call on the wire has written down that it went out, and under which promise."""
    scene = Scene(Scripted(SAFE, LOST, State.PAID))
    seen: list[list[str]] = []

    def results_of_resend(dispatch: Dispatch) -> None:
        with snapshot(scene.journal.path) as db:
            seen.append([kind for (kind,) in every(db, "SELECT kind FROM log WHERE chunk_id IS NOT NULL ORDER BY seq")])

    scene.provider.results_of_resend = results_of_resend
    live(scene, scene.pay)
    assert seen == [["intent"], ["intent", "receipts", "asked_again"]]


def test_it_is_asked_at_growing_intervals_until_patience_ends() -> None:
    """Each repetition is a paying call: they come more and more rarely, and a person is asked in the end."""
    scene = Scene(Scripted(SAFE, LOST, [Receipt(State.UNKNOWN, "ody")]))
    assert live(scene, scene.pay) == [State.UNKNOWN]
    at = [when for when, _ in scene.provider.calls]
    gaps = [later - earlier for earlier, later in pairwise(at[1:])]
    assert 8 < len(at) < 16 and gaps == sorted(gaps) and gaps[-1] < 61
    assert at[-1] > 240


def test_other_payouts_that_settle_do_not_make_it_impatient() -> None:
    """News of others shortens the intervals between look-ups, not those between paying calls."""
    first = [Receipt(State.UNKNOWN), *[Receipt(State.ACCEPTED)] * 99]
    provider = Scripted(msgspec.structs.replace(SAFE, look_up=LookUpKind.EACH), first, State.UNKNOWN)
    scene = Scene(provider, lines=100)

    async def settle() -> None:
        for key in provider.calls[0][1][1:]:
            await anyio.sleep(1.0)
            provider.shows[key] = Receipt(State.PAID)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            provider.results_of_resend = lambda dispatch: tasks.start_soon(settle) if len(provider.calls) == 1 else None
            await scene.pay()

    assert live(scene, main) == [State.UNKNOWN, *[State.PAID] * 99]
    assert len([at for at in provider.looked_up_at if at < 100.0]) > 50
    assert len([at for at, _ in provider.calls if at < 100.0]) < 12


# -------------------------------------------------------------------------------------------------- what proves nothing

NOTHING_SAID: Mapping[str, Answer] = {
    "not sent": NotSentError("connect_failed", "The provider cannot be reached."),
    "lost": LOST,
    "too fast": RefusedError("rate_limited", "Too many calls.", too_fast=True),
    "final": RefusedError("invalid_request", "The call is not understood.", brake=Brake.LIMIT, final=True),
    "limit": RefusedError("invalid_request", "The call is not understood.", brake=Brake.LIMIT),
    "funds": RefusedError("insufficient_funds", "The balance is too low.", brake=Brake.FUNDS),
    "credentials": RefusedError("unauthorized", "The key is not accepted.", brake=Brake.CREDENTIALS),
    "nothing processed": State.READY,
    "an unknown word": State.UNKNOWN,
    "a fault of the adapter": KeyError("a fault"),
    "a miscount": [Receipt(State.FAILED, "declined")] * 5,
}


@pytest.mark.parametrize("lines", [1, 3])
@pytest.mark.parametrize("answer", NOTHING_SAID.values(), ids=NOTHING_SAID.keys())
def test_what_becomes_of_the_repetition_says_nothing_of_the_first_call(answer: Answer, lines: int) -> None:
    """A refusal, however final, a receipt `ready`, or no answer leaves the payouts unknown."""
    scene = Scene(Scripted(SAFE, LOST, answer), lines=lines)
    assert live(scene, scene.pay) == [State.UNKNOWN] * lines
    assert len(scene.provider.calls) > 1


@pytest.mark.parametrize(
    ("answer", "brake"),
    [("limit", Brake.LIMIT), ("credentials", Brake.CREDENTIALS), ("funds", Brake.FUNDS), ("lost", Brake.PROVIDER_DOWN)],
)
def test_a_brake_ends_the_asking(answer: str, brake: Brake) -> None:
    """The account, or the lane, stops as it does for any call, and whoever looks is told."""
    scene = Scene(Scripted(SAFE, LOST, NOTHING_SAID[answer]))
    endings: list[Ending] = []

    async def main() -> None:
        endings.append(await scene.pay())

    assert live(scene, main) == [State.UNKNOWN]
    assert [stop.brake for stop in endings[0].stops] == [brake]
    assert len(scene.provider.calls) == (6 if brake is Brake.PROVIDER_DOWN else 2)


def test_a_second_transfer_reaches_a_person() -> None:
    """Another provider reference than the one that is known is a contradiction, whatever the answer says else."""
    first = [Receipt(State.UNKNOWN, "ody", provider_reference="T1")]
    scene = Scene(Scripted(SAFE, first, [Receipt(State.PAID, provider_reference="T2")]))
    assert live(scene, scene.pay) == [State.HELD]
    said = [event.message for event in scene.told if isinstance(event, observer.Waiting)]
    assert any("T2" in message and "line 1" in message for message in said)


# ------------------------------------------------------------------------------------------------- where it is not done


@pytest.mark.parametrize("look_up", [LookUpKind.NONE, LookUpKind.EACH, LookUpKind.SWEEP])
def test_without_a_promise_nothing_is_sent_again(look_up: LookUpKind) -> None:
    """A key that is only repeated back pays as often as it is sent."""
    none = msgspec.structs.replace(SAFE, key_promise=KeyPromise.NONE, look_up=look_up)
    scene = Scene(Scripted(none, LOST, State.PAID))
    assert live(scene, scene.pay, scene.pay) == [State.UNKNOWN]
    assert len(scene.provider.calls) == 1


def test_following_alone_never_sends() -> None:
    """`follow` asks in every way but by sending."""
    scene = Scene(Scripted(SAFE, LOST, State.PAID))

    async def send_only() -> None:
        await scene.pay(follow_for_seconds=0.0)

    async def follow_only() -> None:
        await scene.pay(send=False)

    assert live(scene, send_only, follow_only) == [State.UNKNOWN]
    assert len(scene.provider.calls) == 1
    scene = Scene(Scripted(SAFE, LOST, State.PAID))
    assert live(scene, send_only, scene.pay) == [State.PAID]


@pytest.mark.parametrize("kind", ControlKind)
def test_a_person_who_paused_or_cancelled_is_obeyed(kind: ControlKind) -> None:
    """Nothing is sent again of a run that somebody paused, nor ever of one that somebody cancelled."""
    scene = Scene(Scripted(SAFE, LOST, State.PAID))

    async def send_only() -> None:
        await scene.pay(follow_for_seconds=0.0)
        await scene.journal.request("run", ControlRequest(kind, "awa", "the bank called"))

    async def lifted() -> None:
        await scene.journal.acknowledge("run", kind, True)
        await scene.pay()

    assert live(scene, send_only, scene.pay) == [State.UNKNOWN]
    scene = Scene(Scripted(SAFE, LOST, State.PAID))
    wanted = State.PAID if kind is ControlKind.PAUSE else State.UNKNOWN
    assert live(scene, send_only, lifted) == [wanted]


@pytest.mark.parametrize("how", ["pause", "cancel", "stop", "time"])
def test_what_is_on_the_wire_lands_and_nothing_follows(how: str) -> None:
    """Whoever stops it, or if the time to follow ends: the answer still counts, and no other call is made."""
    provider = Scripted(SAFE, LOST, LOST, LOST, State.PAID, takes_seconds=3.0)
    provider.traits = msgspec.structs.replace(SAFE, batch_limit=1, concurrency=1)
    scene = Scene(provider, lines=3)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt)
            await scene.pay(follow_for_seconds=2.0 if how == "time" else 3600.0)

    async def interrupt() -> None:
        while len(provider.calls) < 4:
            await anyio.sleep(0.1)
        if how == "stop":
            assert scene.payment is not None
            scene.payment.stop()
        elif how != "time":
            await scene.journal.request("run", ControlRequest(ControlKind(how), "awa"))

    assert live(scene, main) == [State.PAID, State.UNKNOWN, State.UNKNOWN]
    assert len(provider.calls) == 4


def test_a_key_is_used_only_for_half_its_life() -> None:
    """After that a provider may have forgotten it by the time the call is carried out."""
    for age_seconds, wanted in ((40.0, State.PAID), (60.0, State.UNKNOWN)):
        scene = Scene(Scripted(msgspec.structs.replace(SAFE, key_lifetime_seconds=100.0), LOST, State.PAID))

        async def send_only(scene: Scene = scene, age_seconds: float = age_seconds) -> None:
            await scene.pay(follow_for_seconds=0.0)
            await anyio.sleep(age_seconds)

        assert live(scene, send_only, scene.pay) == [wanted]


def test_the_age_of_a_key_is_known_or_too_great() -> None:
    """Whatever cannot be right, such as an age below nothing, allows nothing; a clock may be corrected by a little."""
    assert not resends.refusal("idempotent", 100.0, 1_000.0, 1_050.0)
    assert resends.refusal("idempotent", 100.0, 1_000.0, 1_050.1)
    assert resends.refusal("idempotent", 100.0, 1_000.0, 999.9)
    assert not resends.refusal("idempotent", 100.0, 1_000.0, 1_000.0)
    assert not resends.refusal("idempotent", 100.0, 1_000.0, 1_000.5)
    assert resends.refusal("idempotent", None, None, 1_000.0)
    assert not resends.refusal("idempotent", None, 1_000.0, 5.0)
    assert resends.refusal("some new word", None, 1_000.0, 1_001.0)
    assert resends.latest_of([1.0, 2.0, 1.5, 3.0, 2.5]) == 3.0
    assert resends.latest_of([3.0, 2.0]) == 3.0 and resends.latest_of([3.0, 1.9]) == math.inf
    assert resends.latest_of([1.0, 2.0, 3.0, 1.5, 4.0]) == math.inf
    assert resends.latest_of([5.0, 4.5, 4.0, 3.5]) == math.inf, "a little, but again and again"
    assert resends.latest_of([2.0], 3.0) == 3.0 and resends.latest_of([1.0], 3.0) == math.inf


def test_a_resend_reads_of_the_log_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the clock was set back is asked before each: of entries that were read before it is remembered."""
    read: list[int] = []
    original = resends.latest_of

    def counting(times: Iterable[float], latest: float) -> float:
        seen = list(times)
        read.append(len(seen))
        return original(seen, latest)

    monkeypatch.setattr(resends, "latest_of", counting)
    scene = Scene(Scripted(SAFE, LOST, LOST, LOST, State.PAID), lines=6)
    scene.provider.traits = msgspec.structs.replace(SAFE, batch_limit=2, concurrency=1, key_lifetime_seconds=1e6)
    assert live(scene, scene.pay) == [State.PAID] * 6
    assert len(read) == 3 and max(read[1:]) <= 2 < read[0]


@pytest.mark.parametrize("later_seconds", [0.0, 2 * 3600.0])
@pytest.mark.parametrize(("lifetime_seconds", "wanted"), [(1_000_000.0, State.UNKNOWN), (None, State.PAID)])
def test_a_clock_that_was_set_back_makes_no_key_younger(
    later_seconds: float, lifetime_seconds: float | None, wanted: State
) -> None:
    """Whether the log holds a later time than now, or did once: how old the key is is not known, and it is said so."""
    traits = msgspec.structs.replace(SAFE, key_lifetime_seconds=lifetime_seconds)
    scene = Scene(Scripted(traits, LOST, State.PAID))

    async def send_only() -> None:
        await scene.pay(follow_for_seconds=0.0)
        await anyio.sleep(2 * 3600)
        await scene.journal.note("run", "remark", "Before the clock is set back by an hour.")

    async def set_back() -> None:
        with clock.replaced(lambda: STARTED_AT + anyio.current_time() - 3600):
            await scene.journal.note("run", "remark", "After it was set back.")
            await anyio.sleep(later_seconds)
            await scene.pay()

    assert live(scene, send_only, set_back) == [wanted]
    said = [event for event in scene.told if "set back" in getattr(event, "message", "")]
    assert len(said) == (wanted is State.UNKNOWN), "once, however often it is asked"
    assert not [event for event in scene.told if isinstance(event, observer.Braked)]


def test_a_clock_that_was_set_back_before_the_run_makes_no_key_older() -> None:
    """Only what was logged since the run was judged tells of its time."""
    scene = Scene(Scripted(msgspec.structs.replace(SAFE, key_lifetime_seconds=1_000_000.0), LOST, State.PAID))

    async def prepare() -> None:
        with clock.replaced(lambda: STARTED_AT + 7_200.0):
            await approved(scene.journal, "older", chunk([99]))
        await approved(scene.journal, "run", chunk([1]))

    scene.prepare = prepare  # type: ignore[method-assign]
    assert live(scene, scene.pay) == [State.PAID]


def test_nothing_is_sent_again_while_anything_is_being_sent() -> None:
    """Together they would be more calls on the wire than the provider allows."""
    traits = msgspec.structs.replace(SAFE, batch_limit=1, concurrency=2)
    doubts: list[Answer] = [LOST, State.PAID] * 10
    provider = Scripted(traits, *doubts, State.PAID, takes_seconds=2.0)
    scene = Scene(provider, lines=20)
    assert live(scene, scene.pay) == [State.PAID] * 20
    keys = [key for _, of_call in provider.calls for key in of_call]
    assert len(set(keys[:20])) == 20 and len(keys) == 30
    assert provider.most_at_once == 2


def test_look_ups_do_not_wait_for_the_wire() -> None:
    """While payouts are sent for minutes, what is open is looked up all the time, and nothing is sent again."""
    traits = msgspec.structs.replace(SAFE, batch_limit=1, concurrency=1, look_up=LookUpKind.EACH)
    provider = Scripted(traits, LOST, State.PAID, takes_seconds=3.0)
    scene = Scene(provider, lines=40)
    assert live(scene, scene.pay) == [State.PAID] * 40
    assert len([at for at in provider.looked_up_at if at < 120.0]) > 5
    assert provider.calls[-1][1] == provider.calls[0][1] and len(provider.calls) == 41


def test_a_lane_that_stopped_stays_stopped() -> None:
    """A repetition may draw on the balance that was found too low."""
    traits = msgspec.structs.replace(SAFE, batch_limit=1, concurrency=1)
    scene = Scene(Scripted(traits, LOST, NOTHING_SAID["funds"], State.PAID), lines=2)
    assert live(scene, scene.pay) == [State.UNKNOWN, State.READY]
    assert len(scene.provider.calls) == 2


def test_calls_keep_their_size_and_their_distance() -> None:
    """What was sent in one call may have to be asked about in several, and each takes its turn."""
    provider = Scripted(SAFE, LOST, State.PAID)
    scene = Scene(provider, lines=30)

    async def smaller() -> None:
        provider.traits = msgspec.structs.replace(SAFE, batch_limit=4, calls_per_second=1.0)
        await scene.pay()

    async def send_only() -> None:
        await scene.pay(follow_for_seconds=0.0)

    assert live(scene, send_only, smaller) == [State.PAID] * 30
    at = [when for when, _ in provider.calls[1:]]
    assert [len(keys) for _, keys in provider.calls[1:]] == [4] * 7 + [2]
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(at))


def test_the_canary_may_be_asked_about_before_the_rest_is_sent() -> None:
    """A lost answer to the first payout need not stop its lane."""
    scene = Scene(Scripted(msgspec.structs.replace(SAFE, batch_limit=5), LOST, State.PAID), lines=5)

    async def with_canary() -> None:
        await scene.pay(canary=1)

    assert live(scene, with_canary) == [State.PAID] * 5
    assert [len(keys) for _, keys in scene.provider.calls] == [1, 1, 4]


def test_absence_counts_from_the_last_repetition(tmp_path: Path) -> None:
    """A payout that was resent to ask may have been heard then, so older proof of absence is no proof any more."""

    async def main() -> None:
        with clock.replaced(lambda: STARTED_AT + anyio.current_time()):
            async with inline(tmp_path / "payouts.db") as journal:
                await approved(journal, "run", chunk([1], MOOV))
                await sent(journal, "run", Receipt(State.UNKNOWN), MOOV)
                await anyio.sleep(100.0)
                (doubtful,) = await journal.resendable_chunks("run", MOOV, SAFE, clock.now(), 0, 1)
                await journal.intend_resend(doubtful, SAFE)
                (query,), _ = await journal.open_queries("run", "bf", 1)
                assert query.sent.at == pytest.approx(clock.now(), abs=0.01)

    virtual_time.run(main())
