"""What every journal must do, as tests: subclass `JournalSuite` and give it a fixture `journal_factory`.

    class TestMyJournal(JournalSuite):
        @pytest.fixture
        def journal_factory(self, tmp_path):
            return lambda: MyJournal.open(tmp_path / "journal")

The fixture returns a function that opens a new, empty journal as an async context manager. The suite needs
`pytest-asyncio` in its automatic mode. What only a durable journal can do (surviving a crash) is for its own tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import anyio
import msgspec
import pytest

from payout_engine import clock
from payout_engine.errors import IllegalMoveError, JournalBusyError, JournalError
from payout_engine.lifecycle import State
from payout_engine.limits import REPEAT_WINDOW_SECONDS
from payout_engine.model import (
    REJECTED_LANE,
    Chunk,
    Dispatch,
    Entry,
    Lane,
    Outcome,
    Payout,
    Problem,
    Receipt,
    Repeat,
    RepeatKind,
    Run,
    RunState,
    Sighting,
)
from payout_engine.ports import Journal

T = TypeVar("T")
JournalFactory = Callable[[], AbstractAsyncContextManager[Journal]]

ORANGE = Lane("bf", "orange_bf", "XOF")
MOOV = Lane("bf", "moov_bf", "XOF")
IVORY = Lane("ci", "orange_ci", "XOF")


def payout(line: int, **changes: object) -> Payout:
    """Return a payout of 1,000 francs and its line number to a recipient of its own."""
    made = Payout(f"SAL-{line:05d}", 1_000 + line, "XOF", phone=f"226{70_000_000 + line}", line=line)
    return msgspec.structs.replace(made, **changes)


def chunk(lines: Sequence[int], lane: Lane = ORANGE, **changes: object) -> Chunk:
    """Return a chunk of payouts for these lines."""
    payouts = [payout(line, **changes) for line in lines]
    return Chunk(lane, payouts, [[item.reference, item.phone] for item in payouts])


def refused(lines: Sequence[int]) -> Chunk:
    """Return a chunk of lines that were refused for their amount."""
    good = chunk(lines, REJECTED_LANE)
    return Chunk(
        REJECTED_LANE, good.payouts, good.rows, [Problem("amount_zero", "It is zero.", "montant")] * len(lines)
    )


def run(run_id: str, **changes: object) -> Run:
    """Return a new run."""
    made = Run(
        run_id=run_id,
        name=f"{run_id}.csv",
        digest=f"digest of {run_id}",
        columns=["reference", "phone"],
        has_references=True,
        created_at=clock.now(),
        dialect={"delimiter": ";"},
    )
    return msgspec.structs.replace(made, **changes)


async def judged(journal: Journal, run_id: str, *chunks: Chunk, **changes: object) -> None:
    """Record a run and end its intake."""
    await journal.begin(run(run_id, **changes))
    await journal.add(run_id, chunks)
    await journal.seal(run_id)


async def approved(journal: Journal, run_id: str, *chunks: Chunk, **changes: object) -> None:
    """Record a run that may be paid."""
    await judged(journal, run_id, *chunks, **changes)
    assert await journal.approve(run_id)


async def dispatched(journal: Journal, run_id: str, lane: Lane = ORANGE) -> Dispatch:
    """Begin the first dispatch of a lane."""
    ready = await journal.ready(run_id, lane, 0, 1)
    return await journal.intend(ready[0])


async def sent(journal: Journal, run_id: str, receipt: Receipt, lane: Lane = ORANGE) -> Dispatch:
    """Send the first ready chunk of a lane, with one receipt for all."""
    dispatch = await dispatched(journal, run_id, lane)
    await journal.record(dispatch, [receipt])
    return dispatch


async def every(batches: AsyncIterator[Sequence[T]]) -> list[T]:
    """Return all items of all batches."""
    return [item async for batch in batches for item in batch]


async def replay(journal: Journal, run_id: str, after: int = 0) -> list[Outcome]:
    """Return all outcomes in the log."""
    return [outcome async for _, outcomes in journal.outcomes(run_id, after) for outcome in outcomes]


async def states(journal: Journal, run_id: str) -> dict[int, State]:
    """Return the state of each line."""
    return {entry.payout.line: entry.receipt.state for entry in await every(journal.entries(run_id))}


async def entry(journal: Journal, run_id: str, line: int) -> Entry:
    """Return one line."""
    return next(entry for entry in await every(journal.entries(run_id)) if entry.payout.line == line)


def said(repeats: Sequence[Repeat]) -> set[tuple[int, RepeatKind, str, int, bool]]:
    """Return repeats as (line, kind, earlier run, earlier line, same run)."""
    return {(r.payout.line, r.kind, r.earlier_run_id, r.earlier_line, r.same_run) for r in repeats}


class JournalSuite:
    """The promises of `ports.Journal`."""

    # ------------------------------------------------------------------------------------------------------- intake

    async def test_a_run_comes_back_as_it_was_given(self, journal_factory: JournalFactory) -> None:
        """A recorded run is found by its id and by its content, newest first."""
        async with journal_factory() as journal:
            first, second = run("first"), run("second", digest="digest of first")
            await journal.begin(first)
            await journal.begin(second)
            assert await journal.find("first") == first
            assert await journal.find("third") is None
            assert await journal.find_digest("digest of first") == second
            assert await journal.runs() == [second, first]

    async def test_every_line_comes_out_in_the_order_of_the_file(self, journal_factory: JournalFactory) -> None:
        """Lines of interleaved lanes and refused lines come out whole, with rows, and sorted by line."""
        async with journal_factory() as journal:
            lanes = [chunk(range(1, 5000, 3)[at : at + 100]) for at in range(0, 1667, 100)]
            lanes += [chunk(range(2, 5000, 3)[at : at + 100], MOOV) for at in range(0, 1666, 100)]
            await judged(journal, "run", *lanes, refused(range(3, 5000, 3)[:500]), refused(range(3, 5000, 3)[500:1100]))
            entries = await every(journal.entries("run"))
            lines = [found.payout.line for found in entries]
            assert lines == sorted(lines)
            assert len(lines) == len(set(lines)) == 1667 + 1666 + 1100
            assert all(found.row == [found.payout.reference, found.payout.phone] for found in entries)

    async def test_a_refused_line_says_why(self, journal_factory: JournalFactory) -> None:
        """A refused line keeps its reason, its sentence and the column at fault."""
        async with journal_factory() as journal:
            await judged(journal, "run", refused([7]))
            found = await entry(journal, "run", 7)
            assert found.lane == REJECTED_LANE
            assert (found.receipt.state, found.receipt.reason) == (State.REJECTED, "amount_zero")
            assert found.receipt.message == "It is zero. (column montant)"

    async def test_entries_can_be_asked_for_by_state(self, journal_factory: JournalFactory) -> None:
        """Only lines in the wanted states come out."""
        async with journal_factory() as journal:
            await judged(journal, "run", chunk([1, 3]), refused([2]))
            wanted = frozenset({State.REJECTED})
            assert [found.payout.line async for page in journal.entries("run", wanted) for found in page] == [2]
            assert await every(journal.entries("run", frozenset())) == []

    async def test_counts_and_sums_are_those_of_the_lines(self, journal_factory: JournalFactory) -> None:
        """The tally counts every line once, also in a chunk whose payouts went different ways."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk(range(1, 11)), chunk(range(11, 15), MOOV), refused([15]))
            dispatch = await dispatched(journal, "run")
            await journal.record(dispatch, [Receipt(State.PAID)] * 4 + [Receipt(State.FAILED, "closed")] * 6)
            found = {(t.lane, t.state): (t.count, t.amount_minor) for t in await journal.tally("run")}
            assert found == {
                (ORANGE, State.PAID): (4, 4010),
                (ORANGE, State.FAILED): (6, 6045),
                (MOOV, State.READY): (4, 4050),
                (REJECTED_LANE, State.REJECTED): (1, 1015),
            }

    async def test_a_sealed_run_takes_no_more_lines(self, journal_factory: JournalFactory) -> None:
        """After `seal` the run is judged and cannot be added to."""
        async with journal_factory() as journal:
            await judged(journal, "run", chunk([1]))
            with pytest.raises(IllegalMoveError):
                await journal.add("run", [chunk([2])])
            found = await journal.find("run")
            assert found is not None and found.state is RunState.JUDGED

    async def test_an_unapproved_run_can_be_thrown_away(self, journal_factory: JournalFactory) -> None:
        """A discarded run is gone whole, in intake and when judged; an approved one is never removed."""
        async with journal_factory() as journal:
            await journal.begin(run("intake"))
            await journal.add("intake", [chunk([1])])
            await journal.discard("intake")
            await judged(journal, "judged", chunk([1]))
            await journal.discard("judged")
            assert await journal.runs() == []
            await approved(journal, "approved", chunk([1]))
            with pytest.raises(IllegalMoveError):
                await journal.discard("approved")
            assert await states(journal, "approved") == {1: State.READY}

    async def test_an_unknown_run_is_a_clear_error(self, journal_factory: JournalFactory) -> None:
        """Asking about a run that does not exist names it."""
        async with journal_factory() as journal:
            with pytest.raises(JournalError, match="no run nowhere"):
                await journal.tally("nowhere")
            await journal.begin(run("run"))
            with pytest.raises(JournalError, match="already has a run run"):
                await journal.begin(run("run"))

    # ------------------------------------------------------------------------------------------------------ repeats

    async def test_repeats_within_a_file_name_the_lowest_line(self, journal_factory: JournalFactory) -> None:
        """All but the lowest line are repeats of it, across lanes and whatever the order of the chunks."""
        async with journal_factory() as journal:
            await journal.begin(run("run"))
            same = {"reference": "SAME"}
            await journal.add("run", [chunk([5, 9], **same), chunk([2], MOOV, **same), chunk([3, 4])])
            found = await every(journal.repeats("run"))
            assert said(found) == {
                (5, RepeatKind.REFERENCE, "run", 2, True),
                (9, RepeatKind.REFERENCE, "run", 2, True),
            }
            assert {repeat.earlier_at for repeat in found} == {0.0}

    async def test_payee_and_amount_are_compared_without_case(self, journal_factory: JournalFactory) -> None:
        """The same recipient and amount is a repeat; another amount or currency is not."""
        async with journal_factory() as journal:
            await journal.begin(run("run"))
            awa = {"phone": "", "email": "Awa@example.com", "amount_minor": 500}
            await journal.add("run", [chunk([1], **awa), chunk([2], **{**awa, "email": "awa@EXAMPLE.com"})])
            await journal.add("run", [chunk([3], **{**awa, "amount_minor": 501}), chunk([4], **awa, currency="XAF")])
            assert said(await every(journal.repeats("run"))) == {(2, RepeatKind.PAYEE_AMOUNT, "run", 1, True)}

    async def test_earlier_approved_runs_count(self, journal_factory: JournalFactory) -> None:
        """A payout of an approved run is found with its run, line, state and time; of an unapproved one it is not."""
        async with journal_factory() as journal:
            await judged(journal, "nobody said yes", chunk([1, 2, 3]))
            await journal.begin(run("later"))
            await journal.add("later", [chunk([2])])
            assert await every(journal.repeats("later")) == []
            await journal.discard("later")

            await approved(journal, "earlier", chunk([1, 2]))
            await sent(journal, "earlier", Receipt(State.UNKNOWN, "timeout"))
            await journal.begin(run("new"))
            await journal.add("new", [chunk([2, 3])])
            found = await every(journal.repeats("new"))
            assert said(found) == {(2, kind, "earlier", 2, False) for kind in RepeatKind}
            earlier = await journal.find("earlier")
            assert earlier is not None
            assert {(repeat.earlier_state, repeat.earlier_at) for repeat in found} == {
                (State.UNKNOWN, earlier.approved_at)
            }

    async def test_what_is_provably_unpaid_does_not_count(self, journal_factory: JournalFactory) -> None:
        """A failed payout may be paid again without being called a repeat."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1, 2]))
            dispatch = await dispatched(journal, "earlier")
            await journal.record(dispatch, [Receipt(State.FAILED), Receipt(State.PAID)])
            await journal.begin(run("new"))
            await journal.add("new", [chunk([1, 2])])
            assert said(await every(journal.repeats("new"))) == {(2, kind, "earlier", 2, False) for kind in RepeatKind}

    async def test_derived_references_are_not_compared(self, journal_factory: JournalFactory) -> None:
        """A run without references of its own is compared by payee and amount alone."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1, 2]))
            await journal.begin(run("new", has_references=False))
            await journal.add("new", [chunk([1], phone="22671000000"), chunk([2], reference="other")])
            found = said(await every(journal.repeats("new")))
            assert found == {(2, RepeatKind.PAYEE_AMOUNT, "earlier", 2, False)}

    async def test_payee_and_amount_age(self, journal_factory: JournalFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        """After the window an equal payee and amount is next month's salary; an equal reference never ages."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1]))
            later = clock.now() + REPEAT_WINDOW_SECONDS + 60
            monkeypatch.setattr(clock, "now", lambda: later)
            await journal.begin(run("new"))
            await journal.add("new", [chunk([1])])
            assert said(await every(journal.repeats("new"))) == {(1, RepeatKind.REFERENCE, "earlier", 1, False)}

    async def test_the_latest_earlier_run_is_named(self, journal_factory: JournalFactory) -> None:
        """Of several earlier runs the one approved last is named, beside the original of the file itself."""
        async with journal_factory() as journal:
            await approved(journal, "one", chunk([1, 2, 3]))
            await approved(journal, "two", chunk([7], reference="SAL-00002"))
            await journal.begin(run("new"))
            await journal.add("new", [chunk([20, 21], reference="SAL-00002")])
            assert said(await every(journal.repeats("new"))) == {
                (20, RepeatKind.REFERENCE, "two", 7, False),
                (21, RepeatKind.REFERENCE, "two", 7, False),
                (21, RepeatKind.REFERENCE, "new", 20, True),
            }

    async def test_a_run_judged_before_another_was_approved_is_compared_again(
        self, journal_factory: JournalFactory
    ) -> None:
        """Of two copies judged side by side only one is approved unseen: the other has to look again."""
        async with journal_factory() as journal:
            await judged(journal, "one", chunk([1, 2]))
            await judged(journal, "two", chunk([2, 3]))
            assert await every(journal.repeats("two")) == []
            assert await journal.approve("one")
            assert not await journal.approve("two")
            assert not await journal.approve("two")
            repeats = await every(journal.repeats("two"))
            assert {repeat.payout.line for repeat in repeats} == {2}
            await journal.hold("two", {repeat.position: Problem("reference_repeated", "Again.") for repeat in repeats})
            assert await journal.approve("two")
            assert await states(journal, "two") == {2: State.HELD, 3: State.READY}
            assert (await journal.ready("two", ORANGE, 0, 10))[0].payouts == [payout(3)]

    # --------------------------------------------------------------------------------------------------------- hold

    async def test_a_held_payout_keeps_its_reason_and_is_not_reported_again(
        self, journal_factory: JournalFactory
    ) -> None:
        """Held payouts come out with the reason, are not ready, and are no longer reported as repeats."""
        async with journal_factory() as journal:
            await journal.begin(run("run"))
            await journal.add("run", [chunk([1, 2, 3], reference="SAME")])
            repeats = await every(journal.repeats("run"))
            await journal.hold("run", {r.position: Problem("reference_repeated", "As line 1.") for r in repeats})
            await journal.seal("run")
            assert await every(journal.repeats("run")) == []
            assert await journal.approve("run")
            found = await entry(journal, "run", 3)
            assert (found.receipt.state, found.receipt.reason) == (State.HELD, "reference_repeated")
            assert [list(c.indexes) for c in await journal.ready("run", ORANGE, 0, 10)] == [[0]]

    async def test_only_ready_payouts_can_be_held(self, journal_factory: JournalFactory) -> None:
        """One payout that is not ready refuses the whole call."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]), chunk([2], reference="SAL-00001"))
            await judged(journal, "probe", chunk([1, 2], reference="X"))
            positions = [repeat.position for repeat in await every(journal.repeats("probe"))]
            problem = Problem("reason", "Because.")
            with pytest.raises(IllegalMoveError):
                await journal.hold("run", dict.fromkeys(positions, problem))
            await journal.hold("probe", dict.fromkeys(positions, problem))
            with pytest.raises(IllegalMoveError):
                await journal.hold("probe", dict.fromkeys(positions, problem))
            assert await states(journal, "probe") == {1: State.READY, 2: State.HELD}

    # ------------------------------------------------------------------------------------------------------ payment

    async def test_nothing_is_sent_before_approval(self, journal_factory: JournalFactory) -> None:
        """An intent of a run that nobody approved is refused."""
        async with journal_factory() as journal:
            await judged(journal, "run", chunk([1]))
            ready = await journal.ready("run", ORANGE, 0, 1)
            with pytest.raises(IllegalMoveError):
                await journal.intend(ready[0])
            assert await states(journal, "run") == {1: State.READY}

    async def test_ready_chunks_come_in_order_and_in_pages(self, journal_factory: JournalFactory) -> None:
        """Each lane's chunks come once, in order, page by page."""
        async with journal_factory() as journal:
            await approved(journal, "run", *(chunk([n], (ORANGE, MOOV)[n % 2]) for n in range(10)))
            first = await journal.ready("run", ORANGE, 0, 2)
            rest = await journal.ready("run", ORANGE, first[-1].chunk_id, 10)
            assert [item.payouts[0].line for item in (*first, *rest)] == [0, 2, 4, 6, 8]
            assert await journal.ready("run", ORANGE, rest[-1].chunk_id, 10) == []
            assert await journal.ready("run", IVORY, 0, 10) == []

    async def test_a_dispatch_can_begin_once(self, journal_factory: JournalFactory) -> None:
        """A second intent for the same payouts is refused and leaves no trace."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            ready = (await journal.ready("run", ORANGE, 0, 1))[0]
            dispatch = await journal.intend(ready)
            assert (dispatch.payouts, dispatch.keys) == (ready.payouts, ready.keys)
            assert dispatch.amount_minor == 2003
            with pytest.raises(IllegalMoveError):
                await journal.intend(ready)
            await journal.record(dispatch, [Receipt(State.PAID)])
            with pytest.raises(IllegalMoveError):
                await journal.intend(ready)
            assert await states(journal, "run") == {1: State.PAID, 2: State.PAID}

    async def test_receipts_become_outcomes(self, journal_factory: JournalFactory) -> None:
        """Each payout gets its own receipt, filled in with the time, and the log replays the same outcomes."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]))
            dispatch = await dispatched(journal, "run")
            receipts = [
                Receipt(State.ACCEPTED, provider_reference="T1", at=5.0),
                Receipt(State.FAILED, "insufficient_funds", "Top up."),
                Receipt(State.READY, "slow_down"),
            ]
            outcomes = await journal.record(dispatch, receipts)
            assert outcomes[0] == Outcome(
                "run", 1, "SAL-00001", State.ACCEPTED, 1001, "XOF", "bf", "orange_bf", provider_reference="T1", at=5.0
            )
            assert [outcome.status for outcome in outcomes] == [State.ACCEPTED, State.FAILED, State.READY]
            assert outcomes[1].at > 5.0
            assert await replay(journal, "run") == outcomes
            found = await entry(journal, "run", 2)
            assert found.receipt == Receipt(State.FAILED, "insufficient_funds", "Top up.", at=outcomes[1].at)

    async def test_one_receipt_stands_for_all(self, journal_factory: JournalFactory) -> None:
        """A single receipt is recorded for every payout of the dispatch and of nothing else."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]))
            first = await dispatched(journal, "run")
            await journal.record(first, [Receipt(State.PAID), Receipt(State.READY), Receipt(State.READY)])
            second = await dispatched(journal, "run")
            assert list(second.indexes) == [1, 2]
            assert second.keys == first.keys[1:]
            outcomes = await journal.record(second, [Receipt(State.UNKNOWN, "timeout")])
            assert [(outcome.line, outcome.status) for outcome in outcomes] == [
                (2, State.UNKNOWN),
                (3, State.UNKNOWN),
            ]
            assert await states(journal, "run") == {1: State.PAID, 2: State.UNKNOWN, 3: State.UNKNOWN}
            assert len(await replay(journal, "run")) == 5

    async def test_a_dispatch_is_recorded_once(self, journal_factory: JournalFactory) -> None:
        """A second word about a dispatch, an illegal receipt or a miscount changes nothing."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]))
            dispatch = await dispatched(journal, "run")
            for wrong in ([Receipt(State.SENDING)], [Receipt(State.HELD)], [Receipt(State.REVERSED)] * 3):
                with pytest.raises(IllegalMoveError):
                    await journal.record(dispatch, wrong)
            with pytest.raises(ValueError, match="2 receipts for 3 payouts"):
                await journal.record(dispatch, [Receipt(State.PAID)] * 2)
            assert set((await states(journal, "run")).values()) == {State.SENDING}
            await journal.record(dispatch, [Receipt(State.UNKNOWN, "timeout")])
            with pytest.raises(IllegalMoveError):
                await journal.record(dispatch, [Receipt(State.PAID)])
            assert set((await states(journal, "run")).values()) == {State.UNKNOWN}

    async def test_what_was_on_the_wire_becomes_unknown(self, journal_factory: JournalFactory) -> None:
        """Recovery touches unfinished dispatches of the run alone, and only once."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]), chunk([3], MOOV))
            await approved(journal, "other", chunk([4]))
            await dispatched(journal, "run")
            await dispatched(journal, "other")
            outcomes = await journal.recover("run")
            assert [(o.line, o.status, o.reason) for o in outcomes] == [
                (1, State.UNKNOWN, "interrupted"),
                (2, State.UNKNOWN, "interrupted"),
            ]
            assert await journal.recover("run") == []
            assert await states(journal, "run") == {1: State.UNKNOWN, 2: State.UNKNOWN, 3: State.READY}
            assert await states(journal, "other") == {4: State.SENDING}

    async def test_a_finished_run_may_be_paid_on(self, journal_factory: JournalFactory) -> None:
        """A run is finished with its time, and paying again makes it paying."""
        async with journal_factory() as journal:
            await judged(journal, "run", chunk([1]))
            with pytest.raises(IllegalMoveError):
                await journal.finish("run")
            await journal.approve("run")
            await journal.finish("run")
            found = await journal.find("run")
            assert found is not None and found.state is RunState.FINISHED and found.finished_at is not None
            await dispatched(journal, "run")
            found = await journal.find("run")
            assert found is not None and found.state is RunState.PAYING

    # ----------------------------------------------------------------------------------------------------- look-ups

    async def test_open_payouts_are_asked_about_page_by_page(self, journal_factory: JournalFactory) -> None:
        """Accepted and unknown payouts of the account come once each, with what is known; others do not come."""
        async with journal_factory() as journal:
            await approved(
                journal, "run", chunk(range(1, 8)), chunk(range(8, 11)), chunk([11], IVORY), chunk([12], MOOV)
            )
            dispatch = await dispatched(journal, "run")
            receipts = [Receipt(State.ACCEPTED, provider_reference=f"T{n}") for n in range(5)]
            await journal.record(dispatch, [*receipts, Receipt(State.PAID), Receipt(State.READY)])
            second = (await journal.ready("run", ORANGE, dispatch.chunk_id, 1))[0]
            await journal.record(await journal.intend(second), [Receipt(State.UNKNOWN, "timeout")])
            await sent(journal, "run", Receipt(State.ACCEPTED), IVORY)
            await dispatched(journal, "run", MOOV)
            asked, after, pages = [], 0, 0
            while True:
                queries, after = await journal.open_queries("run", "bf", 3, after)
                asked += queries
                pages += 1
                if not after:
                    break
            assert [query.payout.line for query in asked] == [1, 2, 3, 4, 5, 8, 9, 10]
            assert pages == 3
            assert asked[1].provider_reference == "T1"
            assert asked[1].key == dispatch.keys[1]
            assert (asked[0].state, asked[-1].state) == (State.ACCEPTED, State.UNKNOWN)
            assert all(abs(query.sent_at - clock.now()) < 60 for query in asked)

    async def test_a_sighting_settles_an_open_payout(self, journal_factory: JournalFactory) -> None:
        """What a look-up shows becomes the state; showing it again changes nothing; the known reference stays."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]))
            dispatch = await sent(journal, "run", Receipt(State.ACCEPTED))
            seen = [
                Sighting(dispatch.keys[0], Receipt(State.PAID, provider_reference="T1"), 1001, "70000001"),
                Sighting(dispatch.keys[1], Receipt(State.FAILED, "closed", "Closed."), None, "+226 70 00 00 02"),
                Sighting(dispatch.keys[2], Receipt(State.ACCEPTED, provider_reference="T3")),
                Sighting("somebody-else-1", Receipt(State.PAID)),
                Sighting(dispatch.keys[0].replace("-0", "-9"), Receipt(State.PAID)),
            ]
            applied = await journal.apply(seen)
            assert [(o.line, o.status, o.provider_reference) for o in applied.outcomes] == [
                (1, State.PAID, "T1"),
                (2, State.FAILED, ""),
                (3, State.ACCEPTED, "T3"),
            ]
            assert list(applied.conflicts) == []
            again = await journal.apply(seen)
            assert (list(again.outcomes), list(again.conflicts)) == ([], [])
            await journal.apply([Sighting(dispatch.keys[2], Receipt(State.PAID))])
            assert (await entry(journal, "run", 3)).receipt.provider_reference == "T3"
            assert (await replay(journal, "run"))[-1].status is State.PAID

    async def test_a_sighting_while_sending_is_passed_over(self, journal_factory: JournalFactory) -> None:
        """The dispatch is still being spoken: its own answer comes first."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            dispatch = await dispatched(journal, "run")
            applied = await journal.apply([Sighting(dispatch.keys[0], Receipt(State.PAID))])
            assert (list(applied.outcomes), list(applied.conflicts)) == ([], [])
            assert await states(journal, "run") == {1: State.SENDING}

    @pytest.mark.parametrize("state", [State.ACCEPTED, State.UNKNOWN])
    @pytest.mark.parametrize("wrong", ["amount", "recipient", "reference"])
    async def test_a_contradiction_about_an_open_payout_holds_it(
        self, journal_factory: JournalFactory, state: State, wrong: str
    ) -> None:
        """Another amount, recipient or provider reference never becomes paid; a person is told once."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await sent(journal, "run", Receipt(state, provider_reference="T1"))
            sighting = Sighting(
                dispatch.keys[0],
                Receipt(State.PAID, provider_reference="T2" if wrong == "reference" else "T1"),
                999 if wrong == "amount" else 1001,
                "22679999999" if wrong == "recipient" else "22670000001",
            )
            applied = await journal.apply([sighting])
            assert [(o.status, o.reason) for o in applied.outcomes] == [(State.HELD, "contradiction")]
            assert len(applied.conflicts) == 1
            assert "22679999999" not in applied.conflicts[0] + applied.outcomes[0].message
            assert [text for _, kind, text in await journal.notes("run") if kind == "conflict"] == applied.conflicts
            again = await journal.apply([sighting])
            assert (list(again.outcomes), list(again.conflicts)) == ([], [])
            assert await states(journal, "run") == {1: State.HELD, 2: state}

    async def test_a_payout_that_was_never_sent_but_is_seen_is_held(self, journal_factory: JournalFactory) -> None:
        """A transfer under the key of a ready payout means that we would pay twice."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            keys = (await journal.ready("run", ORANGE, 0, 1))[0].keys
            applied = await journal.apply([Sighting(keys[0], Receipt(State.FAILED), 1001)])
            assert [(o.line, o.status) for o in applied.outcomes] == [(1, State.HELD)]
            assert len(applied.conflicts) == 1
            assert list((await journal.ready("run", ORANGE, 0, 1))[0].indexes) == [1]

    @pytest.mark.parametrize(
        ("known", "seen", "reference"),
        [
            (State.PAID, State.FAILED, "T1"),
            (State.FAILED, State.PAID, "T1"),
            (State.FAILED, State.ACCEPTED, "T1"),
            (State.PAID, State.PAID, "T2"),
        ],
    )
    async def test_a_final_state_stays_and_the_dispute_is_told(
        self, journal_factory: JournalFactory, known: State, seen: State, reference: str
    ) -> None:
        """A sighting that disputes a final state changes nothing and is reported once."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            dispatch = await sent(journal, "run", Receipt(known, provider_reference="T1"))
            sighting = Sighting(dispatch.keys[0], Receipt(seen, provider_reference=reference))
            applied = await journal.apply([sighting])
            assert (list(applied.outcomes), len(applied.conflicts)) == ([], 1)
            assert list((await journal.apply([sighting])).conflicts) == []
            assert await states(journal, "run") == {1: known}

    @pytest.mark.parametrize("known", [State.ACCEPTED, State.UNKNOWN, State.PAID])
    async def test_money_that_came_back_is_reversed(self, journal_factory: JournalFactory, known: State) -> None:
        """Paid goes to reversed; an open payout goes there by way of paid, and the log shows both steps."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await sent(journal, "run", Receipt(known))
            await journal.apply([Sighting(key, Receipt(State.REVERSED, "expired")) for key in dispatch.keys])
            assert set((await states(journal, "run")).values()) == {State.REVERSED}
            steps = [outcome.status for outcome in await replay(journal, "run") if outcome.line == 1]
            assert steps == ([known] if known is State.PAID else [known, State.PAID]) + [State.REVERSED]

    async def test_proof_of_absence_makes_an_unknown_payout_ready(self, journal_factory: JournalFactory) -> None:
        """Only an unknown payout is released by it; an acknowledged one that vanished is held."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3, 4]))
            dispatch = await dispatched(journal, "run")
            before = [State.UNKNOWN, State.ACCEPTED, State.FAILED, State.PAID]
            await journal.record(dispatch, [Receipt(state) for state in before])
            absent = Receipt(State.READY, "absent")
            applied = await journal.apply([Sighting(key, absent) for key in dispatch.keys])
            assert list((await states(journal, "run")).values()) == [
                State.READY,
                State.HELD,
                State.FAILED,
                State.PAID,
            ]
            assert len(applied.conflicts) == 2
            again = await dispatched(journal, "run")
            assert list(again.keys) == [dispatch.keys[0]]

    async def test_a_word_we_do_not_know_moves_nothing(self, journal_factory: JournalFactory) -> None:
        """A look-up whose status is unknown only makes the provider's reference known."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            dispatch = await sent(journal, "run", Receipt(State.ACCEPTED))
            await journal.apply([Sighting(dispatch.keys[0], Receipt(State.UNKNOWN, "odd", provider_reference="T1"))])
            found = await entry(journal, "run", 1)
            assert (found.receipt.state, found.receipt.provider_reference) == (State.ACCEPTED, "T1")

    # ------------------------------------------------------------------------------------------------------- people

    async def test_remarks_come_back_in_order(self, journal_factory: JournalFactory) -> None:
        """Notes keep their kind, text and order, whatever the kind is called."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await journal.note("run", "brake_funds", "Top up 5 000 XOF.")
            await journal.note("run", "receipts", "A remark, not receipts.")
            assert [(kind, text) for _, kind, text in await journal.notes("run")] == [
                ("brake_funds", "Top up 5 000 XOF."),
                ("receipts", "A remark, not receipts."),
            ]
            assert await replay(journal, "run") == []

    async def test_the_log_is_replayed_from_where_a_reader_stopped(self, journal_factory: JournalFactory) -> None:
        """Sequence numbers grow, and a reader that goes on from one misses nothing and repeats nothing."""
        async with journal_factory() as journal:
            await approved(journal, "run", *(chunk([n, n + 1]) for n in range(1, 140, 2)))
            for ready in await journal.ready("run", ORANGE, 0, 100):
                await journal.record(await journal.intend(ready), [Receipt(State.ACCEPTED)])
            seen = [sequence async for sequence, _ in journal.outcomes("run")]
            assert seen == sorted(set(seen))
            assert [o.line for o in await replay(journal, "run")] == list(range(1, 141))
            assert [o.line for o in await replay(journal, "run", seen[60])] == list(range(123, 141))

    async def test_one_payer_per_account(self, journal_factory: JournalFactory) -> None:
        """A lease is exclusive for its account, independent of others, and free again after use."""
        async with journal_factory() as journal:
            async with journal.lease("bf"), journal.lease("ci"):
                with pytest.raises(JournalBusyError, match="account bf"):
                    async with journal.lease("bf"):
                        pass
            async with journal.lease("bf"):
                pass

    async def test_many_callers_at_once_lose_nothing(self, journal_factory: JournalFactory) -> None:
        """Concurrent dispatches of one lane end as so many outcomes."""
        async with journal_factory() as journal:
            await approved(journal, "run", *(chunk(range(n, n + 5)) for n in range(0, 500, 5)))

            async def pay(number: int) -> None:
                dispatch = await journal.intend(ready[number])
                await journal.record(dispatch, [Receipt(State.PAID, provider_reference=f"T{number}")])

            ready = await journal.ready("run", ORANGE, 0, 1000)
            async with anyio.create_task_group() as tasks:
                for number in range(len(ready)):
                    tasks.start_soon(pay, number)
            assert [(t.state, t.count) for t in await journal.tally("run")] == [(State.PAID, 500)]
            assert len(await replay(journal, "run")) == 500
