"""Acting on stored calls: few questions, each call until it is answered, and no answer that came too late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import pytest

from payout_engine.domain.errors import AmbiguousError
from payout_engine.domain.limits import QUERIES_BATCH
from payout_engine.domain.model import Choice, Decision, Dispatch, LookUpResult, Outcome, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.payment import callbacks
from payout_engine.payment.callbacks import CallbackReader
from payout_engine.payment.context import Context
from payout_engine.payment.poll import Follower, FollowPolicy
from payout_engine.ports import observer
from payout_engine.ports.callbacks import Callback, Heard
from payout_engine.ports.journal import Journal
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits
from payout_engine.testing.journal_lines import ORANGE, approved, chunk, dispatched, sent, states


class Told:
    """A provider that says of each payout what the test has it say; see `ports.Provider`.

    Attributes:
        says: by key, where a payout stands; what is not there is not shown.
        fails_after: how many payouts are shown before the asking fails, if it does.
        asked: what was asked about, question by question.
        meanwhile: happens between a question and its answer.
    """

    traits = Traits(
        batch_limit=100,
        calls_per_second=None,
        concurrency=1,
        key_promise=KeyPromise.NONE,
        key_lifetime_seconds=None,
        look_up=LookUpKind.EACH,
        absence_final_seconds=0.0,
    )

    def __init__(self) -> None:
        self.says: dict[str, Receipt] = {}
        self.fails_after: int | None = None
        self.breaks = False
        self.asked: list[Sequence[str]] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        raise NotImplementedError

    async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        for query in queries:
            yield [LookUpResult(query.key, self.says[query.key])]

    async def aclose(self) -> None:
        pass

    def hear(self, callback: Callback) -> Heard:
        return Heard()

    async def re_read(self, heard: Heard, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        self.asked.append((*heard.keys, *heard.references))
        assert {query.key for query in queries} == set(heard.keys)
        for number, key in enumerate(heard.keys):
            if number == self.fails_after:
                raise KeyError if self.breaks else AmbiguousError("away", "The provider is away.")
            if self.meanwhile is not None:
                await self.meanwhile()
            if key in self.says:
                yield [LookUpResult(key, self.says[key])]


class Scene:
    """A journal, a provider, and what acts between them."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.provider = Told()
        self.events: list[observer.Event] = []
        context = Context(journal, self.provider, "", "bf", _nobody, self.events.append)
        self.reader = CallbackReader(context, self.provider)
        self._calls = 0

    async def call(self, *keys: str, references: Sequence[str] = ()) -> None:
        """Store a call."""
        self._calls += 1
        assert await self.journal.store_callback("bf", b"%d" % self._calls, Heard(keys, references))

    async def waiting(self) -> int:
        return await self.journal.count_callbacks("bf", 10**6)


async def _nobody(outcomes: Sequence[Outcome]) -> None:
    pass


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        yield Scene(journal)


async def test_many_calls_are_few_questions(scene: Scene) -> None:
    """What is asked about is asked once however many calls speak of it, and never more at once than a look-up takes."""
    for name, first in (("one", 1), ("two", 101), ("three", 201)):
        await approved(scene.journal, name, chunk(list(range(first, first + 100))))
        for key in (await sent(scene.journal, name, Receipt(State.ACCEPTED))).keys:
            scene.provider.says[key] = Receipt(State.PAID)
            for _ in range(3):
                await scene.call(key)
    assert await scene.waiting() == 900
    moved = []
    while await scene.reader.is_due():
        moved.append(await scene.reader.act())
    assert moved == [100, 100, 100]
    assert [len(keys) for keys in scene.provider.asked] == [QUERIES_BATCH] * 3
    assert await scene.waiting() == 0
    assert await scene.reader.act() == 0
    assert len(scene.provider.asked) == 3


async def test_a_reference_alone_is_asked_about(scene: Scene) -> None:
    """What a call names by the provider's own reference is asked as it is, once."""
    await approved(scene.journal, "run", chunk([1]))
    await scene.call(references=["R1", "R2"])
    await scene.call(references=["R1"])
    await scene.reader.act()
    assert scene.provider.asked == [("R1", "R2")]
    assert await scene.waiting() == 0


@pytest.mark.parametrize("breaks", [False, True])
async def test_what_was_shown_before_a_failure_is_done(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    """The rest waits, the account is left alone for a while, and then all of the rest is asked about again."""
    await approved(scene.journal, "run", chunk(list(range(1, 6))))
    keys = (await sent(scene.journal, "run", Receipt(State.ACCEPTED))).keys
    scene.provider.says = dict.fromkeys(keys, Receipt(State.PAID))
    scene.provider.fails_after, scene.provider.breaks = 2, breaks
    for key in keys:
        await scene.call(key)
    await scene.reader.act()
    assert list((await states(scene.journal, "run")).values()) == [State.PAID] * 2 + [State.ACCEPTED] * 3
    assert await scene.waiting() == 3
    assert not await scene.reader.is_due()
    (event,) = scene.events
    assert isinstance(event, observer.LookedUp)
    assert ("fault" in event.problem) is breaks
    scene.provider.fails_after = None
    present = anyio.current_time()
    monkeypatch.setattr(anyio, "current_time", lambda: present + callbacks.FAILED_SECONDS + 1)
    assert not await scene.reader.is_due()
    monkeypatch.setattr(anyio, "current_time", lambda: present + callbacks.AGAIN_SECONDS[0] + 1)
    assert await scene.reader.act() == 3
    assert await scene.waiting() == 0


async def test_an_answer_about_what_was_sent_again_meanwhile_counts_for_nothing(scene: Scene) -> None:
    """A failure of the first attempt, told while a second one goes out, must not let a third one follow."""
    await approved(scene.journal, "run", chunk([1]))
    (key,) = (await sent(scene.journal, "run", Receipt(State.UNKNOWN))).keys
    await scene.call(key)
    await scene.journal.decide("run", [Decision(key, Choice.SEND_AGAIN, "awa", "They say that it never came.")])

    async def sent_again() -> None:
        dispatch = await dispatched(scene.journal, "run")
        await scene.journal.record(dispatch, [Receipt(State.ACCEPTED)])

    scene.provider.meanwhile = sent_again
    scene.provider.says[key] = Receipt(State.FAILED, "closed")
    assert await scene.reader.act() == 0
    assert await states(scene.journal, "run") == {1: State.ACCEPTED}


async def test_what_a_person_released_is_held_when_the_provider_has_it(scene: Scene) -> None:
    """A late call about a payout that waits to be sent again stops that: the provider shows that it was paid."""
    await approved(scene.journal, "run", chunk([1]))
    (key,) = (await sent(scene.journal, "run", Receipt(State.UNKNOWN))).keys
    await scene.journal.decide("run", [Decision(key, Choice.SEND_AGAIN, "awa", "They say that it never came.")])
    await scene.call(key)
    scene.provider.says[key] = Receipt(State.PAID, provider_reference="T1")
    await scene.reader.act()
    assert await states(scene.journal, "run") == {1: State.HELD}
    assert await scene.journal.ready("run", ORANGE, 0, 9) == []
    assert any(isinstance(event, observer.Waiting) for event in scene.events), "the contradiction is told"


async def test_what_was_never_sent_from_here_is_held_when_the_provider_has_it(scene: Scene) -> None:
    """A copy of the journal may have sent it; a call tells of it in time."""
    await approved(scene.journal, "run", chunk([1]))
    (key,) = (await scene.journal.ready("run", ORANGE, 0, 9))[0].keys
    await scene.call(key)
    scene.provider.says[key] = Receipt(State.PAID, provider_reference="T1")
    await scene.reader.act()
    assert await states(scene.journal, "run") == {1: State.HELD}


async def test_following_is_over_when_calls_have_settled_everything(scene: Scene) -> None:
    """However long the follower would have waited until its next look-up; until then it looks for calls."""
    await approved(scene.journal, "run", chunk([1, 2]))
    keys = (await sent(scene.journal, "run", Receipt(State.ACCEPTED))).keys
    scene.provider.says = dict.fromkeys(keys, Receipt(State.PAID))
    context = Context(scene.journal, scene.provider, "run", "bf", _nobody, scene.events.append)
    follower = Follower(context, FollowPolicy(first_seconds=3_600.0, longest_seconds=3_600.0))
    follower.sent.set()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follower.run)
            await scene.call(keys[0])
            while await scene.waiting():
                await anyio.sleep(0.05)
            await scene.call(keys[1])
    assert scene.provider.asked == [(keys[0],), (keys[1],)]
    assert set((await states(scene.journal, "run")).values()) == {State.PAID}


async def test_what_begins_to_be_sent_while_it_is_chosen_waits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks about a payout whose dispatch has begun since, and its call is not lost by that."""
    await approved(scene.journal, "run", chunk([1]))
    (key,) = (await scene.journal.ready("run", ORANGE, 0, 9))[0].keys
    await scene.call(key)
    chosen = await scene.reader._choose()
    assert len(chosen) == 1
    dispatch = await dispatched(scene.journal, "run")

    async def choose() -> object:
        return chosen

    monkeypatch.setattr(scene.reader, "_choose", choose)
    await scene.reader.act()
    assert (scene.provider.asked, await scene.waiting()) == ([], 1)
    await scene.journal.record(dispatch, [Receipt(State.ACCEPTED)])
    scene.provider.says[key] = Receipt(State.PAID)
    assert await scene.reader.act() == 1
