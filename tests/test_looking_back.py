"""How much of a list a look-up reads: as much as what is open needs, and never less than a first look must.

The follower and the first look over a real journal in simulated time, and a provider whose list is a table here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import anyio
import msgspec
import pytest
from simulation import virtual_time
from test_asking_again import SAFE

from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError
from payout_engine.domain.limits import (
    FIRST_LOOK_MARGIN_SECONDS,
    LIST_WHOLE_SECONDS,
    LISTED_IN_VAIN_FREE,
    LISTED_IN_VAIN_PER_MINUTE,
    LOOK_BACK_MARGIN_SECONDS,
)
from payout_engine.domain.model import LookUpResult, Outcome, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.payment.context import Context
from payout_engine.payment.first_look import look_first
from payout_engine.payment.poll import Follower, FollowPolicy, _Reading
from payout_engine.ports.provider import KeyPromise, LookUpKind, Provider
from payout_engine.testing.journal_lines import approved, chunk, dispatched, inline, sent, states

STARTED_AT = 1_800_000_000.0
POLICY = FollowPolicy(unknown_patience_seconds=60.0)


class Lister:
    """Lists what it is told to, the newest first, one transfer to a page; remembers what it was asked and read."""

    traits = msgspec.structs.replace(SAFE, look_up=LookUpKind.SWEEP, key_promise=KeyPromise.NONE)

    def __init__(self) -> None:
        self.transfers: list[tuple[float, LookUpResult]] = []
        self.bounds: list[float | None] = []
        self.asked_at: list[float] = []
        self.read: list[int] = []
        self.failures = 0

    def lists(self, key: str, state: State, at: float | None = None, *, conflict: str = "") -> None:
        """Have a transfer, made now or then."""
        seen = LookUpResult(key, Receipt(state, provider_reference=f"T{key}"), conflict=conflict)
        self.transfers.insert(0, (clock.now() if at is None else at, seen))

    def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show everything."""
        return self._show(None)

    def look_up_since(self, queries: Sequence[Query], since: float) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show what was made since then."""
        return self._show(since)

    async def _show(self, since: float | None) -> AsyncIterator[Sequence[LookUpResult]]:
        self.bounds.append(since)
        self.asked_at.append(clock.now())
        self.read.append(0)
        if self.failures:
            self.failures -= 1
            raise AmbiguousError("timeout", "No answer came in time.")
        for at, result in sorted(self.transfers, key=lambda listed: -listed[0]):
            if since is None or at >= since:
                self.read[-1] += 1
                yield [result]


Life = Callable[[SqliteJournal, Lister, Context], Awaitable[None]]


def live(life: Life) -> Lister:
    """Let one life happen in simulated time, and return its provider."""
    lister = Lister()

    async def listen(outcomes: Sequence[Outcome]) -> None:
        """Hear of outcomes."""

    async def main(folder: Path) -> None:
        with clock.replaced(lambda: STARTED_AT + anyio.current_time()):
            async with inline(folder / "payouts.db") as journal:
                context = Context(journal, cast(Provider, lister), "run", "bf", listen, lambda event: None)
                await life(journal, lister, context)

    with TemporaryDirectory() as folder:
        virtual_time.run(main(Path(folder)))
    return lister


async def follow(context: Context) -> None:
    """Follow until nothing is open or the patience is over."""
    follower = Follower(context, POLICY)
    follower.sent.set()
    await follower.run()


async def keys(journal: SqliteJournal) -> list[str]:
    """Return the run's provider keys, in order."""
    return [query.key for query in (await journal.open_queries("run", "bf", 100))[0]]


def test_a_look_ends_when_all_that_is_open_was_shown() -> None:
    """What was made before is not read: the newest three are ours, a thousand others stand behind them."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        for number in range(1000):
            lister.lists(f"old-{number}", State.PAID, clock.now())
        await anyio.sleep(3600.0)
        await approved(journal, "run", chunk([1, 2, 3]))
        await sent(journal, "run", Receipt(State.ACCEPTED))
        for key in await keys(journal):
            lister.lists(key, State.PAID)
        await follow(context)
        assert set((await states(journal, "run")).values()) == {State.PAID}

    lister = live(life)
    assert lister.read == [3]


@pytest.mark.parametrize("unknown", [True, False])
def test_one_look_counts_what_it_moved_and_ends_with_the_last(unknown: bool) -> None:
    """Over as many pages as it takes, whatever is accepted and whatever unknown; what else is listed is not read."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        lister.lists("behind", State.PAID)
        await anyio.sleep(1.0)
        await approved(journal, "run", chunk([1, 2, 3]), chunk([4]))
        await sent(journal, "run", Receipt(State.ACCEPTED))
        if unknown:
            await sent(journal, "run", Receipt(State.UNKNOWN))
        for key in await keys(journal):
            lister.lists(key, State.PAID)
        expected = len(lister.transfers) - 1
        assert (await Follower(context, POLICY).look_up()).changed == expected == 3 + unknown
        if not unknown:
            await sent(journal, "run", Receipt(State.ACCEPTED))
            (key,) = await keys(journal)
            await anyio.sleep(1.0)
            lister.lists(key, State.FAILED)
            assert (await Follower(context, POLICY).look_up()).changed == 1

    assert live(life).read == ([4] if unknown else [3, 1])


def test_while_nothing_is_open_yet_the_list_is_not_read() -> None:
    """But who follows a run with nothing open wants to know all: everything that is listed is read, once."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        await approved(journal, "run", chunk([1]), chunk([2]))
        for number in range(5):
            lister.lists(f"others-{number}", State.PAID)
        sending = Follower(context, POLICY)
        assert (await sending.look_up()).changed == 0
        assert lister.bounds == []
        await follow(context)
        assert (lister.bounds, lister.read) == ([None], [5])
        for known in (State.UNKNOWN, State.ACCEPTED):
            await sent(journal, "run", Receipt(known))
            await sending.look_up()
            assert lister.bounds[-1] is not None, "while payouts are sent the whole list is not read"
        assert len(lister.bounds) == 3

    live(life)


def test_after_a_contradiction_everything_is_heard() -> None:
    """Also when what came after it was as it should be."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        lister.lists("behind", State.PAID)
        await anyio.sleep(1.0)
        await approved(journal, "run", chunk([1, 2]))
        await sent(journal, "run", Receipt(State.ACCEPTED))
        first, second = await keys(journal)
        lister.lists(first, State.PAID)
        await anyio.sleep(1.0)
        lister.lists(second, State.PAID, conflict="it is of another world")
        await Follower(context, POLICY).look_up()

    assert live(life).read == [3]


def test_what_is_on_the_wire_is_not_looked_for_yet() -> None:
    """The look ends when what is known to be open was shown; the call that nobody has answered comes with the next."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        for number in range(100):
            lister.lists(f"old-{number}", State.PAID)
        await approved(journal, "run", chunk([1]), chunk([2]))
        await sent(journal, "run", Receipt(State.ACCEPTED))
        (key,) = await keys(journal)
        await dispatched(journal, "run")
        await anyio.sleep(1.0)
        lister.lists(key, State.PAID)
        assert (await Follower(context, POLICY).look_up()).changed == 1

    assert live(life).read == [1]


def test_a_look_goes_back_to_the_oldest_open_call_and_no_further() -> None:
    """One of three is never shown: the list is asked for since the call that sent it, less a margin for clocks."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        await approved(journal, "run", chunk([1, 2, 3]))
        lister.lists("just-before", State.PAID)
        await anyio.sleep(1000.0)
        await sent(journal, "run", Receipt(State.ACCEPTED))
        for key in (await keys(journal))[:2]:
            lister.lists(key, State.PAID)
        with anyio.move_on_after(100.0):
            await follow(context)

    lister = live(life)
    assert len(lister.bounds) > 1
    for bound in lister.bounds:
        assert bound == pytest.approx(STARTED_AT + 1000.0 - LOOK_BACK_MARGIN_SECONDS, abs=0.001)
    assert set(lister.read) == {2}


def test_what_stays_open_for_long_is_looked_for_everywhere_but_rarely() -> None:
    """A transfer that its list hides far down is found after half an hour, in a look that reads all."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        await anyio.sleep(5000.0)
        await approved(journal, "run", chunk([1]))
        await sent(journal, "run", Receipt(State.ACCEPTED))
        lister.lists((await keys(journal))[0], State.PAID, STARTED_AT)
        await follow(context)
        assert list((await states(journal, "run")).values()) == [State.PAID]

    lister = live(life)
    assert lister.bounds.count(None) == 1 and lister.bounds[-1] is None and len(lister.bounds) > 10
    assert lister.asked_at[-1] - STARTED_AT - 5000.0 == pytest.approx(LIST_WHOLE_SECONDS, abs=70.0)


def test_what_alone_is_unknown_is_looked_for_everywhere_before_a_person_has_to() -> None:
    """Once nothing else is open, the whole list is read once."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        await anyio.sleep(5000.0)
        await approved(journal, "run", chunk([1]))
        await sent(journal, "run", Receipt(State.UNKNOWN))
        await follow(context)
        lister.lists((await keys(journal))[0], State.PAID, STARTED_AT)
        await follow(context)
        assert list((await states(journal, "run")).values()) == [State.PAID]

    assert live(life).bounds.count(None) == 2


def test_a_look_at_everything_that_fails_is_made_again() -> None:
    """Who has to look for what is unknown before a person does has not looked yet."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        await approved(journal, "run", chunk([1]))
        await sent(journal, "run", Receipt(State.UNKNOWN))
        lister.failures = 2
        await follow(context)

    assert live(life).bounds[:4] == [None, None, None, pytest.approx(STARTED_AT - LOOK_BACK_MARGIN_SECONDS, abs=0.1)]


def test_what_is_read_in_vain_is_rationed() -> None:
    """A straggler behind a hundred thousand others: they are read now and then, as often as the ration allows."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        await approved(journal, "run", chunk([1]))
        await sent(journal, "run", Receipt(State.ACCEPTED))
        await anyio.sleep(1.0)
        lister.transfers = [(clock.now(), LookUpResult("others", Receipt(State.PAID)))]
        setattr(lister, "_show", partial_list(lister))  # noqa: B010
        with anyio.move_on_after(1200.0):
            await follow(context)

    def partial_list(lister: Lister) -> Callable[[float | None], AsyncIterator[Sequence[LookUpResult]]]:
        async def show(since: float | None) -> AsyncIterator[Sequence[LookUpResult]]:
            lister.read.append(100_000)
            for _ in range(25):
                yield [lister.transfers[0][1]] * 4_000

        return show

    read = sum(live(life).read)
    assert LISTED_IN_VAIN_FREE < read <= LISTED_IN_VAIN_FREE + 20 * LISTED_IN_VAIN_PER_MINUTE + 100_000


def test_a_contradiction_is_heard_to_the_end() -> None:
    """A list that shows our payout with a contradiction is read on: what else it says may stop the account."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        lister.lists("behind", State.PAID)
        await anyio.sleep(1.0)
        await approved(journal, "run", chunk([1]))
        await sent(journal, "run", Receipt(State.ACCEPTED))
        lister.lists((await keys(journal))[0], State.PAID, conflict="it is of another world")
        await follow(context)
        assert list((await states(journal, "run")).values()) == [State.HELD]

    assert live(life).read[0] == 2


def in_simulated_time(life: Callable[[_Reading], Awaitable[None]]) -> None:
    """Let somebody read lists for a while."""

    async def main() -> None:
        with clock.replaced(lambda: STARTED_AT + anyio.current_time()):
            await life(_Reading())

    virtual_time.run(main())


def test_what_is_shown_without_news_is_waited_for() -> None:
    """As long as the ration takes to grow again: beyond what is free, less what was news."""

    async def life(reading: _Reading) -> None:
        minute = LISTED_IN_VAIN_PER_MINUTE
        for seconds, shown, changed, whole, expected in (
            (0.0, LISTED_IN_VAIN_FREE, 0, False, 0.0),
            (0.0, minute, 0, False, 60.0),
            (0.0, minute + 500, 500, False, 120.0),
            (0.0, 10**9, 0, True, 120.0),
            (30.0, 0, 0, False, 90.0),
            (1e6, 0, 0, False, 0.0),
            (0.0, LISTED_IN_VAIN_FREE + minute, 0, False, 60.0),
        ):
            await anyio.sleep(seconds)
            reading.count(shown, changed, whole=whole)
            assert reading.pause_seconds() == pytest.approx(expected, abs=0.01)

    in_simulated_time(life)


@pytest.mark.parametrize(("shown", "again_seconds"), [(0, LIST_WHOLE_SECONDS), (2 * 30 * 60_000, 7_200.0)])
def test_the_whole_list_is_read_as_rarely_as_it_is_long(shown: int, again_seconds: float) -> None:
    """For what has been open for long, and again no sooner than its ration grows."""

    async def life(reading: _Reading) -> None:
        assert not reading.is_whole_due(clock.now(), alone=False)
        assert not reading.is_whole_due(clock.now() - LIST_WHOLE_SECONDS + 1.0, alone=False)
        assert reading.is_whole_due(clock.now() - LIST_WHOLE_SECONDS, alone=False)
        reading.count(shown, 0, whole=True)
        await anyio.sleep(again_seconds - 1.0)
        assert not reading.is_whole_due(0.0, alone=False)
        await anyio.sleep(1.0)
        assert reading.is_whole_due(0.0, alone=False)

    assert 2 * 30 * 60_000 * 60.0 / LISTED_IN_VAIN_PER_MINUTE == 7_200.0
    in_simulated_time(life)


def test_for_what_alone_is_unknown_the_whole_list_is_read_once() -> None:
    """And once more when it is alone again."""

    async def life(reading: _Reading) -> None:
        for alone, due in ((True, True), (True, False), (False, False), (True, True), (True, False)):
            assert reading.is_whole_due(clock.now(), alone=alone) is due
            reading.count(0, 0, whole=due)

    in_simulated_time(life)


# ------------------------------------------------------------------------------------------------------ the first look


def test_a_first_look_goes_back_to_before_the_run_began() -> None:
    """A copy of the journal cannot have been used before; the margin is wider than a clock is wrong."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        await anyio.sleep(1000.0)
        await approved(journal, "run", chunk([1]))
        await anyio.sleep(100_000.0)
        assert not (await look_first(context)).problem

    began = STARTED_AT + 1000.0 - FIRST_LOOK_MARGIN_SECONDS
    assert live(life).bounds == [pytest.approx(began, abs=0.001)]


def test_a_first_look_reads_everything_when_the_clock_was_set_back() -> None:
    """When the run began is not known then."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        await approved(journal, "run", chunk([1]))
        await anyio.sleep(10.0)
        with clock.replaced(lambda: STARTED_AT - 3600.0):
            assert not (await look_first(context)).problem

    assert live(life).bounds == [None]


def test_a_first_look_believes_what_the_list_shows() -> None:
    """As any look-up does."""

    async def life(journal: SqliteJournal, lister: Lister, context: Context) -> None:
        await approved(journal, "run", chunk([1]), chunk([2]))
        await sent(journal, "run", Receipt(State.UNKNOWN))
        (key,) = await keys(journal)
        lister.lists(key, State.PAID)
        assert not (await look_first(context)).problem
        assert await states(journal, "run") == {1: State.PAID, 2: State.READY}

    live(life)
