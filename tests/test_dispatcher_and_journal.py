"""The dispatcher over a journal that refuses, fails or comes back: calls on the wire land, and nothing new is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import msgspec
import pytest
from simulation import virtual_time
from test_asking_again import LOST, SAFE, Answer, Scripted

from payout_engine.domain.errors import Brake, IllegalMoveError, JournalFullError, NotSentError
from payout_engine.domain.model import Outcome
from payout_engine.domain.states import State
from payout_engine.payment.context import Context
from payout_engine.payment.dispatch import RECORD_PAUSES_SECONDS, Dispatcher
from payout_engine.payment.first_send import FirstSend
from payout_engine.payment.rate_limiter import Pace
from payout_engine.ports import observer
from payout_engine.testing.journal_lines import ORANGE, approved, chunk, entry, inline, states

FULL = JournalFullError("The disk is full.")
MOVED = IllegalMoveError("somebody moved it")


class Failing:
    """A journal of which one call fails, those times that it is told to.

    Attributes:
        calls: how often that call was made.
    """

    def __init__(self, journal: Any, what: str, error: Exception, when: Callable[[int], bool]) -> None:
        self._journal, self._what, self._error, self._when = journal, what, error, when
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._journal, name)
        if name != self._what:
            return asked

        async def maybe(*arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            if self._when(self.calls):
                raise self._error
            return await asked(*arguments, **keywords)

        return maybe


class Paid:
    """What a dispatcher did with five payouts, one in each chunk, while one call of its journal failed."""

    def __init__(
        self,
        what: str,
        error: Exception,
        when: Callable[[int], bool],
        *answers: Answer,
        concurrency: int = 1,
        seconds: float = 100.0,
    ) -> None:
        self.provider = Scripted(msgspec.structs.replace(SAFE, concurrency=concurrency), *(answers or (State.PAID,)))
        self.outcomes: list[Outcome] = []
        self.waiting: list[str] = []
        self.error: BaseException | None = None
        self.cut_off = False

        async def main(folder: Path) -> None:
            async with inline(folder / "payouts.db") as journal:
                await approved(journal, "run", *(chunk([line]) for line in range(1, 6)))
                failing: Any = Failing(journal, what, error, when)
                context = Context(failing, self.provider, "run", "bf", self._publish, self._told)
                self.dispatcher = Dispatcher(context, FirstSend(context), [ORANGE], Pace(None))
                with anyio.move_on_after(seconds) as scope:
                    try:
                        await self.dispatcher.run()
                    except Exception as caught:
                        self.error = caught
                self.cut_off = scope.cancelled_caught
                self.states = list((await states(journal, "run")).values())
                self.first = (await entry(journal, "run", 1)).receipt
                await journal.recover("run")
                assert (await journal.verify("run")).proven

        with TemporaryDirectory() as folder:
            virtual_time.run(main(Path(folder)))

    async def _publish(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes += outcomes

    def _told(self, event: object) -> None:
        if isinstance(event, observer.Waiting):
            self.waiting.append(event.message)


@pytest.mark.parametrize("what", ["ready", "intend"])
def test_a_journal_that_fails_ends_sending_once_all_has_landed(what: str) -> None:
    """The call on the wire is recorded and told, nothing is sent afterwards, and the caller hears the first error."""
    paid = Paid(what, FULL, lambda call: call >= 2, concurrency=3)
    assert paid.error is FULL
    assert paid.states.count(State.PAID) == len(paid.provider.calls) == len(paid.outcomes)
    assert paid.states.count(State.READY) == 5 - len(paid.provider.calls)
    assert len(paid.provider.calls) == (1 if what == "intend" else 5)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_answer_is_kept_until_it_is_recorded(times: int) -> None:
    """A journal that cannot take it at once is asked again, later each time, and a person sees that it waits."""
    paid = Paid("record", FULL, lambda call: call <= times)
    assert paid.error is None and paid.states == [State.PAID] * 5
    assert [message.endswith("The answer is kept and will be recorded.") for message in paid.waiting] == [True] * times
    waited = paid.provider.calls[1][0] - paid.provider.calls[0][0] - 0.2
    assert waited == pytest.approx(sum(RECORD_PAUSES_SECONDS[:times]), abs=0.01)


def test_an_answer_that_can_never_be_recorded_stops_everything() -> None:
    """Its payout stays on the wire as far as anybody knows, for `recover`; nothing else is sent."""
    paid = Paid("record", FULL, lambda _call: True)
    assert paid.error is FULL
    assert paid.states == [State.SENDING] + [State.READY] * 4
    assert len(paid.provider.calls) == 1 and not paid.outcomes


def test_a_dispatch_that_somebody_else_ended_is_left_to_look_ups() -> None:
    """It is not told twice, and the rest is paid."""
    paid = Paid("record", MOVED, lambda call: call == 1)
    assert paid.error is None and paid.waiting == [str(MOVED)]
    assert len(paid.outcomes) == 4
    assert paid.states == [State.SENDING] + [State.PAID] * 4


def test_what_somebody_moved_is_loaded_again_once() -> None:
    """The next pass pays what is still ready; a journal that refuses the same again is not asked for ever."""
    paid = Paid("intend", MOVED, lambda call: call == 1)
    assert paid.error is None and paid.states == [State.PAID] * 5
    refused = Paid("intend", MOVED, lambda _call: True)
    assert refused.states == [State.READY] * 5 and not refused.provider.calls
    assert [stop.brake for stop in refused.dispatcher.stops] == [Brake.LIMIT]


def test_a_call_that_never_left_is_recorded_as_such_however_late() -> None:
    """And another one that did leave is not: whoever cancels afterwards has to know."""
    never = NotSentError("refused", "Nobody listens.")
    paid = Paid("record", FULL, lambda call: call == 1, never, State.PAID)
    assert paid.states == [State.PAID] * 5
    assert len(paid.provider.calls) == 6


def test_what_comes_back_is_sent_though_somebody_found_nothing_to_do() -> None:
    """More workers than chunks: those without one wait for what may become ready again."""
    never = NotSentError("refused", "Nobody listens.")
    paid = Paid("none", FULL, lambda _call: False, never, State.PAID, concurrency=7)
    assert paid.states == [State.PAID] * 5
    assert len(paid.provider.calls) == 6


def test_who_is_cut_off_in_mid_call_leaves_a_doubt_with_its_reason() -> None:
    """The provider may have heard; the others were never sent."""
    paid = Paid("none", FULL, lambda _call: False, seconds=0.1)
    assert paid.cut_off
    assert paid.states == [State.UNKNOWN] + [State.READY] * 4
    assert paid.first.reason == "interrupted"


def test_calls_are_as_many_at_once_as_may_be() -> None:
    """And trouble makes them wait together."""
    assert Paid("none", FULL, lambda _call: False, concurrency=3).provider.most_at_once == 3
    assert Paid("none", FULL, lambda _call: False, LOST, State.PAID).states == [State.UNKNOWN] + [State.PAID] * 4
