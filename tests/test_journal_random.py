"""The durable journal agrees with the reference: the same random commands, the same answers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payout_engine import clock
from payout_engine.errors import DecisionError, IllegalMoveError, JournalError
from payout_engine.journal import MemoryJournal, SqliteJournal
from payout_engine.lifecycle import State
from payout_engine.model import (
    Choice,
    Chunk,
    Decision,
    Dispatch,
    Lane,
    Problem,
    Receipt,
    Request,
    RequestKind,
    RunState,
    Sighting,
)
from payout_engine.ports import Journal, ReadyChunk
from payout_engine.testing.journal_asking import PAYS_ONCE
from payout_engine.testing.journal_lines import MOOV, ORANGE, every, payout, refused, replay, run
from payout_engine.traits import KeyPromise

RUNS = ("one", "two", "three")
SENT = (State.ACCEPTED, State.PAID, State.FAILED, State.UNKNOWN, State.READY, State.SENDING)
SEEN = (State.ACCEPTED, State.PAID, State.FAILED, State.UNKNOWN, State.READY, State.REVERSED)

run_ids = st.sampled_from(RUNS)
lanes = st.sampled_from([ORANGE, MOOV])
numbers = st.integers(0, 5)
references = st.sampled_from(["", "T1", "T2"])
sent_receipts = st.builds(Receipt, st.sampled_from(SENT), st.sampled_from(["", "code"]), st.just("Words."), references)
seen_receipts = st.builds(Receipt, st.sampled_from(SEEN), st.just(""), st.just(""), references)
lines = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3)

commands = st.one_of(
    st.tuples(st.just("submit"), run_ids, st.lists(st.tuples(lanes, lines), min_size=1, max_size=3), st.booleans()),
    st.tuples(st.just("seal"), run_ids),
    st.tuples(st.just("hold_repeats"), run_ids),
    st.tuples(st.just("approve"), run_ids),
    st.tuples(st.just("discard"), run_ids),
    st.tuples(st.just("intend"), run_ids, lanes, numbers),
    st.tuples(st.just("record"), numbers, st.lists(sent_receipts, min_size=1, max_size=3)),
    st.tuples(st.just("recover"), run_ids),
    st.tuples(
        st.just("apply"),
        st.lists(st.tuples(numbers, numbers, seen_receipts, st.sampled_from([None, 1001, 1002])), max_size=4),
    ),
    st.tuples(
        st.just("ask_again"),
        run_ids,
        lanes,
        numbers,
        st.sampled_from([None, 0.0, 3600.0]),
        st.booleans(),
        st.booleans(),
    ),
    st.tuples(st.just("cancel_asked"), run_ids),
    st.tuples(st.just("finish"), run_ids),
    st.tuples(
        st.just("decide"), run_ids, st.lists(st.tuples(numbers, st.sampled_from(list(Choice))), min_size=1, max_size=3)
    ),
    st.tuples(st.just("queries"), run_ids, st.integers(1, 3)),
)


class Player:
    """Plays commands on one journal and tells what came of each in terms that hold for every journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.line = 0
        self.loaded: list[ReadyChunk] = []
        self.dispatches: list[Dispatch] = []

    async def play(self, command: Sequence[Any]) -> object:
        act: Callable[..., Awaitable[object]] = getattr(self, command[0])
        try:
            return await act(*command[1:])
        except (DecisionError, IllegalMoveError, JournalError, ValueError) as error:
            return type(error).__name__

    async def submit(self, run_id: str, drawn: list[tuple[Lane, list[tuple[int, int]]]], own: bool) -> object:
        await self.journal.begin(run(run_id, has_references=own))
        chunks = [self._chunk(lane, pairs) for lane, pairs in drawn]
        self.line += 1
        await self.journal.add(run_id, [*chunks, refused([self.line])])
        return None

    def _chunk(self, lane: Lane, pairs: list[tuple[int, int]]) -> Chunk:
        payouts = []
        for reference, who in pairs:
            self.line += 1
            payouts.append(payout(self.line, reference=f"R{reference}", phone=f"2267000000{who}", amount_minor=1001))
        return Chunk(lane, payouts, [["cell"]] * len(payouts))

    async def seal(self, run_id: str) -> object:
        await self.journal.seal(run_id)
        return None

    async def hold_repeats(self, run_id: str) -> object:
        found = await every(self.journal.repeats(run_id))
        told = {(r.kind, r.payout.line, r.earlier_run_id, r.earlier_line, r.earlier_state, r.same_run) for r in found}
        await self.journal.hold(run_id, {repeat.position: Problem("repeated", "Again.") for repeat in found[:2]})
        return told

    async def approve(self, run_id: str) -> object:
        return await self.journal.approve(run_id)

    async def discard(self, run_id: str) -> object:
        await self.journal.discard(run_id)
        return None

    async def intend(self, run_id: str, lane: Lane, number: int) -> object:
        self.loaded += await self.journal.ready(run_id, lane, 0, 3)
        if not self.loaded:
            return None
        chunk = self.loaded[number % len(self.loaded)]
        self.dispatches.append(await self.journal.intend(chunk))
        return [list(chunk.indexes), [payout.line for payout in chunk.payouts]]

    async def record(self, number: int, receipts: list[Receipt]) -> object:
        if not self.dispatches:
            return None
        return plain(await self.journal.record(self.dispatches[number % len(self.dispatches)], receipts))

    async def recover(self, run_id: str) -> object:
        return plain(await self.journal.recover(run_id))

    async def apply(self, drawn: list[tuple[int, int, Receipt, int | None]]) -> object:
        keys = [key for chunk in self.loaded for key in chunk.keys]
        sightings = [
            Sighting(keys[(number * 3 + other) % len(keys)], receipt, amount_minor)
            for number, other, receipt, amount_minor in drawn
            if keys
        ]
        applied = await self.journal.apply(sightings)
        outcomes = sorted(plain(applied.outcomes), key=repr)
        return outcomes, sorted(applied.conflicts)

    async def ask_again(
        self, run_id: str, lane: Lane, number: int, lifetime_seconds: float | None, promised: bool, fresh: bool
    ) -> object:
        promise = KeyPromise.IDEMPOTENT if promised else KeyPromise.NONE
        traits = msgspec.structs.replace(PAYS_ONCE, key_promise=promise, key_lifetime_seconds=lifetime_seconds)
        found = list(await self.journal.unanswered(run_id, lane, traits, clock.now(), 0, 3))
        loaded = found if fresh else self.loaded
        if not loaded:
            return None
        dispatch = await self.journal.ask_again(loaded[number % len(loaded)], traits)
        assert dispatch.keys == loaded[number % len(loaded)].keys
        return dispatch.dispatch_id, [[payout.line for payout in chunk.payouts] for chunk in found]

    async def cancel_asked(self, run_id: str) -> object:
        await self.journal.ask(run_id, Request(RequestKind.CANCEL, "awa"))
        await self.journal.answer(run_id, RequestKind.CANCEL, True)
        return None

    async def finish(self, run_id: str) -> object:
        await self.journal.finish(run_id)
        return None

    async def decide(self, run_id: str, drawn: list[tuple[int, Choice]]) -> object:
        keys = [entry.key for entry in await every(self.journal.entries(run_id))]
        told = [Decision(keys[number % len(keys)], choice, "Awa", "said so") for number, choice in drawn if keys]
        return plain(await self.journal.decide(run_id, told))

    async def queries(self, run_id: str, limit: int) -> object:
        asked, after = await self.journal.open_queries(run_id, "bf", limit)
        more, _ = await self.journal.open_queries(run_id, "bf", limit, after) if after else ((), 0)
        return [(q.payout.line, q.state, q.provider_reference, q.sent.at > 0) for q in (*asked, *more)]

    async def picture(self) -> object:
        """Return everything a person could see, without times and keys."""
        seen: list[object] = []
        for known in sorted(await self.journal.runs(), key=lambda known: known.run_id):
            entries = [
                (entry.payout, entry.row, entry.lane, msgspec.structs.replace(entry.receipt, at=0.0))
                for entry in await every(self.journal.entries(known.run_id))
            ]
            tallies = list(await self.journal.tally(known.run_id))
            notes = sorted(text for _, _, text in await self.journal.notes(known.run_id))
            log = sorted(plain(await replay(self.journal, known.run_id)), key=repr)
            if known.state is not RunState.INTAKE:
                assert (await self.journal.verify(known.run_id)).findings == []
            seen.append((known.run_id, known.state, known.approved_at is None, entries, tallies, notes, log))
        return seen


def plain(outcomes: Sequence[Any]) -> list[Any]:
    """Return outcomes without their times and places in the log: one journal may tell in one entry what takes two."""
    return [msgspec.structs.replace(outcome, at=0.0, seq=0) for outcome in outcomes]


async def compare(script: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with SqliteJournal.open(Path(folder) / "payouts.db") as durable:
            one, two = Player(MemoryJournal()), Player(durable)
            for command in script:
                expected, found = await one.play(command), await two.play(command)
                assert found == expected, command
            assert await two.picture() == await one.picture()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(commands, min_size=5, max_size=40))
def test_any_commands_end_alike(script: list[Any]) -> None:
    """Whatever is asked in whatever order, both journals answer alike and end in the same state."""
    asyncio.run(compare(script))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(lanes, lines), min_size=1, max_size=3),
    st.lists(commands.filter(lambda command: command[0] not in ("submit", "discard")), max_size=40),
    st.booleans(),
)
def test_any_life_of_an_approved_run_ends_alike(drawn: list[Any], script: list[Any], doubt: bool) -> None:
    """The same with two runs approved first, so that most commands have something to do."""
    opening: list[Any] = []
    for number, run_id in enumerate(RUNS[:2]):
        opening += [("submit", run_id, drawn, True), ("seal", run_id), ("approve", run_id)]
        opening += [("hold_repeats", run_id), ("approve", run_id), ("intend", run_id, ORANGE, 0)]
        if doubt:
            opening += [("record", number, [Receipt(State.UNKNOWN)])]
            opening += [("ask_again", run_id, ORANGE, 0, life, True, True) for life in (None, 3600.0)]
    asyncio.run(compare(opening + script))
