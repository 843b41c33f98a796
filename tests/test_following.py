"""When a provider that is asked one by one is asked, and what comes of it: the follower, and the first look.

Over a real journal in simulated time. How much of a list is read is in `test_looking_back.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import anyio
import msgspec
import pytest
from simulation import virtual_time
from simulation.bank import STARTED_AT
from test_asking_again import SAFE

from payout_engine.app.payment_stream import unwrap_group
from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError, Brake, JournalError, ProviderError, RefusedError
from payout_engine.domain.limits import QUERIES_BATCH
from payout_engine.domain.model import LookUpResult, Outcome, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.payment.context import Context
from payout_engine.payment.first_look import PAUSES_SECONDS, look_first
from payout_engine.payment.poll import Follower, FollowPolicy, Resend
from payout_engine.ports import observer
from payout_engine.ports.provider import KeyPromise, LookUpKind, Provider
from payout_engine.testing.journal_lines import IVORY, approved, chunk, every, inline, sent, states, validated

POLICY = FollowPolicy(unknown_patience_seconds=60.0)
DOWN = AmbiguousError("timeout", "No answer came in time.")
WRONG_KEY = RefusedError("unauthorized", "The key is not accepted.", brake=Brake.CREDENTIALS)


class Asked:
    """A provider that remembers what it was asked and when, and shows what it is told to.

    Attributes:
        at: when each page was asked for, in seconds since the beginning.
        keys: what each page asked about.
        shows: by key.
        failures: what the next pages raise; None for one that does not.
        fails: what every page raises, if anything.
        takes_seconds: how long a page takes.
        meanwhile: done while a page is on its way.
    """

    def __init__(self) -> None:
        self.traits = msgspec.structs.replace(SAFE, look_up=LookUpKind.EACH, key_promise=KeyPromise.NONE)
        self.at: list[float] = []
        self.keys: list[list[str]] = []
        self.shows: dict[str, Receipt] = {}
        self.failures: list[Exception | None] = []
        self.fails: Exception | None = None
        self.takes_seconds = 0.0
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    @property
    def gaps(self) -> list[float]:
        """The seconds between one page and the next."""
        return [round(later - earlier, 2) for earlier, later in pairwise([0.0, *self.at])]

    async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show what is to be shown."""
        self.at.append(anyio.current_time())
        self.keys.append([query.key for query in queries])
        await anyio.sleep(self.takes_seconds)
        if self.meanwhile is not None:
            await self.meanwhile()
        failure = self.failures.pop(0) if self.failures else self.fails
        if failure is not None:
            raise failure
        yield [LookUpResult(query.key, self.shows[query.key]) for query in queries if query.key in self.shows]


class Scene:
    """A run, one account of it, and who asks about it.

    Attributes:
        events: what was told.
        outcomes: what was published.
        resend: how to ask by sending again, if at all.
    """

    def __init__(self) -> None:
        self.journal: SqliteJournal
        self.context: Context
        self.provider = Asked()
        self.events: list[Any] = []
        self.outcomes: list[Outcome] = []
        self.resend: Resend | None = None
        self.follower: Follower

    def live(self, life: Callable[[], Awaitable[object]]) -> None:
        """Let something happen in simulated time."""

        async def main(folder: Path) -> None:
            with clock.replaced(lambda: STARTED_AT + anyio.current_time()):
                async with inline(folder / "payouts.db") as self.journal:
                    provider = cast(Provider, self.provider)
                    self.context = Context(self.journal, provider, "run", "bf", self._listen, self.events.append)
                    await life()

        with TemporaryDirectory() as folder:
            virtual_time.run(main(Path(folder)))

    async def follow(self, *, seconds: float = 1e9, all_sent: bool = True, **policy: float) -> float:
        """Follow for so long at most; return how long it took."""
        begun_at = anyio.current_time()
        with anyio.move_on_after(seconds):
            self.follower = Follower(self.context, msgspec.structs.replace(POLICY, **policy), self.resend)
            if all_sent:
                self.follower.sent.set()
            await self.follower.run()
        return round(anyio.current_time() - begun_at, 3)

    async def states(self) -> list[State]:
        return list((await states(self.journal, "run")).values())

    @property
    def looks(self) -> list[tuple[int, str]]:
        """What each look-up came to, as it was told."""
        return [(event.changed, event.problem) for event in self.events if isinstance(event, observer.LookedUp)]

    async def _listen(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes += outcomes


@pytest.fixture
def scene() -> Scene:
    return Scene()


# ------------------------------------------------------------------------------------------------------ how often


def test_the_intervals_grow_while_nothing_changes(scene: Scene) -> None:
    """From the first to the longest, and each is told beforehand."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        await sent(scene.journal, "run", Receipt(State.ACCEPTED))
        await scene.follow(seconds=600.0)

    scene.live(life)
    assert scene.provider.gaps[:5] == [1.0, 1.6, 2.56, 4.1, 6.55]
    assert set(scene.provider.gaps[10:]) == {60.0}
    told = [round(event.next_in_seconds, 2) for event in scene.events if isinstance(event, observer.LookedUp)]
    assert told == scene.provider.gaps
    assert {(event.account, event.changed, event.problem) for event in scene.events} == {("bf", 0, "")}


def test_with_news_the_interval_stays(scene: Scene) -> None:
    """While payouts settle they are asked about as often."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk(range(1, 6)))
        dispatch = await sent(scene.journal, "run", Receipt(State.ACCEPTED))
        keys = iter(dispatch.keys)

        async def settle() -> None:
            scene.provider.shows[next(keys)] = Receipt(State.PAID)

        scene.provider.meanwhile = settle
        await scene.follow()
        assert await scene.states() == [State.PAID] * 5

    scene.live(life)
    assert scene.provider.gaps == [1.0] * 5
    assert scene.looks == [(1, "")] * 5
    assert [len(keys) for keys in scene.provider.keys] == [5, 4, 3, 2, 1]
    assert [outcome.line for outcome in scene.outcomes] == [1, 2, 3, 4, 5]


def test_a_look_up_that_takes_long_comes_rarely(scene: Scene) -> None:
    """Four times as long as it takes, so that the provider is not busy with us alone."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        await sent(scene.journal, "run", Receipt(State.ACCEPTED))
        scene.provider.takes_seconds = 10.0
        await scene.follow(seconds=300.0)

    scene.live(life)
    assert scene.provider.gaps == [1.0, 50.0, 70.0, 70.0, 70.0]


def test_when_the_last_payout_was_sent_it_is_asked_soon(scene: Scene) -> None:
    """In the middle of a long pause, and while a look-up was on its way: the intervals begin anew."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        await sent(scene.journal, "run", Receipt(State.ACCEPTED))

        async def all_sent() -> None:
            await anyio.sleep(200.0)
            scene.follower.sent.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(all_sent)
            await scene.follow(seconds=210.0, all_sent=False)

    scene.live(life)
    later = [at for at in scene.provider.at if at > 200.0]
    assert later[0] == pytest.approx(201.0, abs=0.01)

    other = Scene()

    async def during_a_look_up() -> None:
        await approved(other.journal, "run", chunk([1]))
        await sent(other.journal, "run", Receipt(State.ACCEPTED))

        async def set_at_the_fifth() -> None:
            if len(other.provider.at) == 5:
                other.follower.sent.set()

        other.provider.meanwhile = set_at_the_fifth
        await other.follow(seconds=30.0, all_sent=False)

    other.live(during_a_look_up)
    assert other.provider.gaps[:8] == [1.0, 1.6, 2.56, 4.1, 6.55, 1.0, 1.6, 2.56]


# ------------------------------------------------------------------------------------------------- when it is enough


def test_what_is_unknown_is_looked_for_as_long_as_the_patience(scene: Scene) -> None:
    """Counted from when nothing else was open; then it is left for a person, who was not given up on."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]), chunk([2]))
        await sent(scene.journal, "run", Receipt(State.UNKNOWN))
        dispatch = await sent(scene.journal, "run", Receipt(State.ACCEPTED))

        async def settle() -> None:
            if anyio.current_time() > 100.0:
                scene.provider.shows[dispatch.keys[0]] = Receipt(State.PAID)

        scene.provider.meanwhile = settle
        took = await scene.follow()
        settled_at = next(outcome.at for outcome in scene.outcomes) - STARTED_AT
        assert settled_at > 100.0
        assert took == pytest.approx(settled_at + 60.0, abs=1.0)
        assert not scene.follower.gave_up
        assert await scene.states() == [State.UNKNOWN, State.PAID]

    scene.live(life)


def test_nobody_waits_longer_than_the_patience_for_the_next_look(scene: Scene) -> None:
    """However long the intervals have become."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        await sent(scene.journal, "run", Receipt(State.UNKNOWN))
        assert await scene.follow(first_seconds=2.0, growth=30.0) == pytest.approx(62.0, abs=0.1)
        assert await scene.follow(unknown_patience_seconds=0.0) == pytest.approx(1.0, abs=0.1)
        assert await scene.follow(unknown_patience_seconds=0.5) == pytest.approx(2.0, abs=0.1)

    scene.live(life)


def test_look_ups_that_fail_have_looked_for_nobody(scene: Scene) -> None:
    """The patience begins anew with each; but not for ever, and then it is said that nobody has looked."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        await sent(scene.journal, "run", Receipt(State.UNKNOWN))
        scene.provider.failures = [None, None, None, None, None, DOWN]
        assert await scene.follow() == pytest.approx(1.0 + 1.6 + 2.56 + 4.1 + 6.55 + 10.49 + 60.0, abs=0.5)
        assert not scene.follower.gave_up
        scene.provider.fails = DOWN
        assert 240.0 <= await scene.follow() <= 302.0
        assert scene.follower.gave_up

    scene.live(life)
    assert scene.looks[-1] == (0, str(DOWN))
    assert scene.looks[5] == (0, str(DOWN)) and scene.looks[4] == (0, "")


def test_news_of_others_is_a_reason_to_go_on(scene: Scene) -> None:
    """Each payout that turns up lets the others be looked for anew."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1, 2]))
        dispatch = await sent(scene.journal, "run", Receipt(State.UNKNOWN))

        async def settle() -> None:
            if anyio.current_time() > 50.0:
                scene.provider.shows[dispatch.keys[0]] = Receipt(State.PAID)

        scene.provider.meanwhile = settle
        took = await scene.follow()
        settled_at = scene.outcomes[0].at - STARTED_AT
        assert took == pytest.approx(settled_at + 60.0, abs=1.0)
        scene.provider.fails = DOWN

    scene.live(life)


def test_while_something_is_sent_nothing_is_enough(scene: Scene) -> None:
    """Nothing open now may be open in a moment."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        assert await scene.follow(seconds=300.0, all_sent=False) == 300.0
        assert scene.provider.at == [], "there is nothing to ask about"
        assert await scene.follow() == pytest.approx(1.0, abs=0.1)
        assert len(scene.looks) > 5

    scene.live(life)


def test_who_cannot_be_asked_is_not_followed(scene: Scene) -> None:
    """It ends when all is sent."""
    scene.provider.traits = msgspec.structs.replace(scene.provider.traits, look_up=LookUpKind.NONE)

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        await sent(scene.journal, "run", Receipt(State.ACCEPTED))
        assert await scene.follow(seconds=300.0, all_sent=False) == 300.0
        assert await scene.follow() == 0.0
        assert scene.looks == []

    scene.live(life)


# ------------------------------------------------------------------------------------------------------- what is asked


def test_everything_open_is_asked_about_page_by_page(scene: Scene) -> None:
    """Each once, of this account only; a page that fails keeps nobody from being asked about, and is told."""

    async def life() -> None:
        pages = [chunk(range(at, at + 100)) for at in (1, 101, 201)]
        await approved(scene.journal, "run", *pages, chunk([901], IVORY), chunk([999]))
        for _ in pages:
            await sent(scene.journal, "run", Receipt(State.UNKNOWN))
        await sent(scene.journal, "run", Receipt(State.UNKNOWN), IVORY)
        follower = Follower(scene.context, POLICY)
        follower.sent.set()
        await follower.look_up(7.0)
        assert [len(keys) for keys in scene.provider.keys] == [QUERIES_BATCH] * 3
        assert len({key for page in scene.provider.keys for key in page}) == 300
        everyone = [key for page in scene.provider.keys for key in page]

        scene.provider.failures = [None, DOWN]
        scene.provider.shows = {key: Receipt(State.PAID) for key in (everyone[0], everyone[150], everyone[299])}
        found = await follower.look_up()
        assert (found.changed, found.problem) == (2, str(DOWN))
        assert len(scene.provider.keys) == 6 and follower.refused == ""
        assert (await scene.states()).count(State.PAID) == 2

        scene.provider.failures = [WRONG_KEY]
        assert (await follower.look_up()).problem == str(WRONG_KEY)
        assert len(scene.provider.keys) == 7, "a brake is meant for all pages"
        assert follower.refused == str(WRONG_KEY)

    scene.live(life)
    assert [event.next_in_seconds for event in scene.events if isinstance(event, observer.LookedUp)] == [7.0, 0.0, 0.0]


def test_a_key_that_is_refused_ends_the_following(scene: Scene) -> None:
    """Asked again with it, nobody would learn anything."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        await sent(scene.journal, "run", Receipt(State.ACCEPTED))
        scene.provider.failures = [None, WRONG_KEY]
        assert await scene.follow() < 10.0
        assert scene.follower.refused == str(WRONG_KEY)

    scene.live(life)


def test_a_fault_of_the_adapter_is_told_without_its_words(scene: Scene) -> None:
    """They could hold anything; it is no news of anybody, and asked again later."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        dispatch = await sent(scene.journal, "run", Receipt(State.ACCEPTED))
        scene.provider.shows[dispatch.keys[0]] = Receipt(State.PAID)
        scene.provider.failures = [ValueError("secret")]
        await scene.follow()
        assert await scene.states() == [State.PAID]

    scene.live(life)
    (_, problem), last = scene.looks
    assert "a fault in payout_engine" in problem and "secret" not in problem
    assert last == (1, "")


def test_a_journal_that_fails_ends_the_following(scene: Scene) -> None:
    """It is no failure of the provider's."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        await sent(scene.journal, "run", Receipt(State.ACCEPTED))
        scene.provider.fails = JournalError("The disk is gone.")
        with pytest.raises(JournalError):
            await scene.follow()

    scene.live(life)


@pytest.mark.parametrize("sent_again", [True, False])
def test_a_late_proof_of_absence_says_nothing_of_a_later_call(scene: Scene, sent_again: bool) -> None:
    """Proved absent and sent again while the question was on its way: the old answer frees nobody."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1, 2]))
        dispatch = await sent(scene.journal, "run", Receipt(State.UNKNOWN))
        absent = Receipt(State.READY, "never_received")
        scene.provider.shows = {dispatch.keys[0]: absent, dispatch.keys[1]: Receipt(State.PAID)}

        async def send_again() -> None:
            await scene.journal.reconcile([LookUpResult(dispatch.keys[0], absent)])
            await sent(scene.journal, "run", Receipt(State.UNKNOWN))

        scene.provider.meanwhile = send_again if sent_again else None
        found = await Follower(scene.context, POLICY).look_up()
        assert await scene.states() == [State.UNKNOWN if sent_again else State.READY, State.PAID]
        assert found.changed == (1 if sent_again else 2)

    scene.live(life)


@pytest.mark.parametrize("late", [State.READY, State.PAID])
def test_a_late_answer_about_an_earlier_call_frees_nobody_and_is_heard(scene: Scene, late: State) -> None:
    """Alone, or beside a proof for another: an absence is over, a payment is not."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1, 2]))
        dispatch = await sent(scene.journal, "run", Receipt(State.UNKNOWN))
        absent = Receipt(State.READY, "never_received")
        scene.provider.shows = {dispatch.keys[0]: Receipt(late)}
        if late is State.PAID:
            scene.provider.shows[dispatch.keys[1]] = absent

        async def send_again() -> None:
            await scene.journal.reconcile([LookUpResult(dispatch.keys[0], absent)])
            await sent(scene.journal, "run", Receipt(State.UNKNOWN))

        scene.provider.meanwhile = send_again
        await Follower(scene.context, POLICY).look_up()
        paid = late is State.PAID
        assert await scene.states() == ([State.PAID, State.READY] if paid else [State.UNKNOWN, State.UNKNOWN])

    scene.live(life)


# --------------------------------------------------------------------------------------------------- sending to ask


def test_what_a_look_up_did_not_show_is_asked_by_sending(scene: Scene) -> None:
    """After a whole look-up only, about what was unknown before it began, and at intervals of its own that grow."""
    asked: list[tuple[float, float]] = []

    async def resend(before: float) -> tuple[int, int]:
        asked.append((anyio.current_time(), before - STARTED_AT))
        return 1, 0

    scene.resend = resend

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        await sent(scene.journal, "run", Receipt(State.UNKNOWN))
        scene.provider.takes_seconds = 0.5
        scene.provider.failures = [DOWN]
        await scene.follow(unknown_patience_seconds=300.0, busy_share=0.0)

    scene.live(life)
    looked = [at for at in scene.provider.at if at >= 2.0]
    assert asked[0] == pytest.approx((looked[0] + 0.5, looked[0]), abs=0.01)
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(asked)]
    assert len(asked) > 5
    for gap, least in zip(gaps, (1.6, 2.56, 4.1, 6.55, 10.49, 16.78), strict=False):
        assert gap >= least
    assert all(at - before == pytest.approx(0.5, abs=0.01) for at, before in asked)


@pytest.mark.parametrize("shown", [True, False])
def test_what_sending_again_brings_counts_as_news(scene: Scene, shown: bool) -> None:
    """Also beside what a look-up brings: the others are looked for anew; without any question there is no interval."""
    rounds: list[float] = []

    async def resend(_before: float) -> tuple[int, int]:
        rounds.append(anyio.current_time())
        return (2, 1) if len(rounds) == 3 else (0, 0)

    scene.resend = resend

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1, 2]))
        dispatch = await sent(scene.journal, "run", Receipt(State.UNKNOWN))

        async def settle() -> None:
            if shown and len(rounds) == 2:
                scene.provider.shows[dispatch.keys[0]] = Receipt(State.PAID)

        scene.provider.meanwhile = settle
        took = await scene.follow()
        assert took == pytest.approx(rounds[2] + 60.0, abs=1.0)
        assert scene.provider.at[:3] == pytest.approx(rounds[:3], abs=0.01)

    scene.live(life)


@pytest.mark.parametrize(("asks", "changes", "ends_at"), [(1, 0, 60.0), (0, 0, 1.0), (1, 1, None)])
def test_who_is_asked_only_by_sending_is_asked_while_it_helps(
    scene: Scene, asks: int, changes: int, ends_at: float | None
) -> None:
    """Until there is nothing to ask about, or for as long as the patience without news; at growing intervals."""
    scene.provider.traits = msgspec.structs.replace(SAFE, look_up=LookUpKind.NONE)
    rounds: list[float] = []

    async def resend(before: float) -> tuple[int, int]:
        assert before == pytest.approx(STARTED_AT + anyio.current_time(), abs=0.01)
        rounds.append(anyio.current_time())
        return asks, changes

    scene.resend = resend

    async def life() -> None:
        took = await scene.follow(seconds=300.0)
        if ends_at is None:
            assert took == 300.0
        else:
            assert ends_at <= took <= ends_at + 30.0
        begun_at = anyio.current_time()
        rounds.clear()
        assert await scene.follow(seconds=300.0, all_sent=False) == 300.0, "while payouts are sent it does not end"
        assert rounds[0] - begun_at == pytest.approx(1.0, abs=0.01)
        if asks:
            assert rounds[-1] - rounds[-2] >= 60.0
        else:
            assert rounds[-1] - rounds[-2] == pytest.approx(1.0, abs=0.01)

    scene.live(life)


def test_the_patience_counts_from_when_all_was_sent(scene: Scene) -> None:
    """However long the sending took: what was sent last is asked about for as long as what was sent first."""
    scene.provider.traits = msgspec.structs.replace(SAFE, look_up=LookUpKind.NONE)

    async def resend(_before: float) -> tuple[int, int]:
        return 1, 0

    scene.resend = resend

    async def life() -> None:
        async def all_sent() -> None:
            await anyio.sleep(500.0)
            scene.follower.sent.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(all_sent)
            assert 555.0 <= await scene.follow(all_sent=False) <= 630.0

    scene.live(life)


# ------------------------------------------------------------------------------------------------------ the first look


def test_a_first_look_asks_about_each_key_that_matters(scene: Scene) -> None:
    """What is open, what is about to be sent, and what an earlier run sent of it; each page once."""

    async def life() -> None:
        await approved(scene.journal, "earlier", *(chunk(range(at, at + 100)) for at in (1, 101, 201)))
        earlier = [await sent(scene.journal, "earlier", Receipt(State.FAILED)) for _ in range(3)]
        again = [chunk(range(at, at + 100)) for at in (1, 101, 201)]
        await validated(scene.journal, "run", *again)
        assert await every(scene.journal.duplicates("run")) == []
        assert not (await look_first(scene.context)).problem
        asked = [key for page in scene.provider.keys for key in page]
        assert max(map(len, scene.provider.keys)) <= QUERIES_BATCH
        assert len(asked) == len(set(asked)) == 600
        assert {key for dispatch in earlier for key in dispatch.keys} <= set(asked)

    scene.live(life)


def test_a_first_look_holds_what_comes_to_light_and_frees_nobody(scene: Scene) -> None:
    """Nothing is known to be absent before it was followed for a while."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1, 2]), chunk([3]))
        dispatch = await sent(scene.journal, "run", Receipt(State.UNKNOWN))
        scene.provider.shows = {
            dispatch.keys[0]: Receipt(State.READY, "never_received"),
            dispatch.keys[1]: Receipt(State.PAID),
        }
        assert await look_first(scene.context) == await look_first(scene.context)
        assert await scene.states() == [State.UNKNOWN, State.PAID, State.READY]
        assert [(outcome.line, outcome.status) for outcome in scene.outcomes] == [(2, State.PAID)]

    scene.live(life)


FAULT = ValueError("secret")


@pytest.mark.parametrize(
    ("failure", "brake", "pauses"),
    [
        (DOWN, Brake.PROVIDER_DOWN, PAUSES_SECONDS),
        (RefusedError("busy", "Later.", brake=Brake.LIMIT), Brake.PROVIDER_DOWN, PAUSES_SECONDS),
        (RefusedError("fast", "Slowly.", retry_after_seconds=7.0), Brake.PROVIDER_DOWN, (7.0, 7.0, 9.0, 20.0)),
        (RefusedError("fast", "Slowly.", retry_after_seconds=900.0), Brake.PROVIDER_DOWN, (60.0, 60.0, 60.0, 60.0)),
        (FAULT, Brake.PROVIDER_DOWN, PAUSES_SECONDS),
        (WRONG_KEY, Brake.CREDENTIALS, ()),
    ],
    ids=repr,
)
def test_a_first_look_that_fails_is_tried_again_within_reason(
    scene: Scene, failure: Exception, brake: Brake, pauses: Sequence[float]
) -> None:
    """Later and later, or as the provider asks; a key that is not accepted will not be a minute later either."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        scene.provider.fails = failure
        looked = await look_first(scene.context)
        assert looked.brake is brake
        assert scene.provider.gaps == [0.0, *pauses]
        assert "secret" not in looked.problem + str(scene.events)
        if isinstance(failure, ProviderError):
            assert looked.problem == str(failure)
        else:
            assert "a fault in it" in looked.problem
        said = [event.message for event in scene.events if isinstance(event, observer.Waiting)]
        assert said[0] == "Asking the provider first what it already has."
        assert said[1:] == [f"{looked.problem} Nothing is sent before it answers."] * len(pauses)

        scene.provider.fails, scene.provider.failures = None, [failure]
        assert bool((await look_first(scene.context)).problem) is (brake is Brake.CREDENTIALS)

    scene.live(life)


def test_a_first_look_ends_when_its_time_is_over_or_nobody_waits(scene: Scene) -> None:
    """With the reason; and at once where nothing can be asked."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        scene.provider.takes_seconds = 1e6
        looked = await look_first(scene.context, seconds=1_800.0)
        assert looked.brake is Brake.PROVIDER_DOWN
        assert anyio.current_time() == pytest.approx(1_800.0, abs=0.01)
        assert "longer than 1,800 seconds" in looked.problem
        halted = anyio.Event()

        async def halt() -> None:
            await anyio.sleep(5.0)
            halted.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(halt)
            looked = await look_first(scene.context, halted=halted)
        assert (looked.problem, looked.brake) == ("Stopped as asked.", Brake.ASKED)
        assert anyio.current_time() == pytest.approx(1_805.0, abs=0.01)

        scene.provider.takes_seconds = 0.0
        assert await look_first(scene.context, halted=anyio.Event()) == await look_first(scene.context)
        assert anyio.current_time() < 1_806.0
        scene.provider.traits = msgspec.structs.replace(scene.provider.traits, look_up=LookUpKind.NONE)
        asked = len(scene.provider.at)
        assert not (await look_first(scene.context)).problem
        assert len(scene.provider.at) == asked

    scene.live(life)


def test_a_first_look_that_finds_the_journal_gone_says_so(scene: Scene) -> None:
    """Whoever pays must not go on."""

    async def life() -> None:
        await approved(scene.journal, "run", chunk([1]))
        scene.provider.fails = JournalError("The disk is gone.")
        with pytest.raises(ExceptionGroup) as raised:
            await look_first(scene.context)
        assert isinstance(unwrap_group(raised.value), JournalError)
        assert len(scene.provider.at) == 1

    scene.live(life)
