"""What every journal must do while a file is judged; part of `JournalSuite`."""

from __future__ import annotations

import msgspec
import pytest

from payout_engine import clock
from payout_engine.errors import IllegalMoveError, JournalError
from payout_engine.lifecycle import State
from payout_engine.limits import REPEAT_WINDOW_SECONDS
from payout_engine.model import (
    REJECTED_LANE,
    Chunk,
    Problem,
    Receipt,
    RepeatKind,
    RunState,
)
from payout_engine.testing.journal_lines import (
    MOOV,
    ORANGE,
    JournalFactory,
    approved,
    chunk,
    dispatched,
    entry,
    every,
    judged,
    payout,
    refused,
    run,
    said,
    sent,
    states,
)


class IntakeSuite:
    """Intake, repeats and holds."""

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
            await journal.add(
                "run", [chunk([5, 9], reference="SAME"), chunk([2], MOOV, reference="SAME"), chunk([3, 4])]
            )
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
            awa = payout(1, phone="", email="Awa@example.com", amount_minor=500)
            changes: list[dict[str, object]] = [
                {},
                {"email": "awa@EXAMPLE.com"},
                {"amount_minor": 501},
                {"currency": "XAF"},
            ]
            payouts = [
                msgspec.structs.replace(awa, line=line, reference=f"R{line}", **change)
                for line, change in enumerate(changes, start=1)
            ]
            await journal.add("run", [Chunk(ORANGE, payouts, [["", ""]] * 4)])
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
            await approved(journal, "run", chunk([1, 2]))
            await judged(journal, "probe", chunk([11, 12], reference="X"))
            positions = [repeat.position for repeat in await every(journal.repeats("probe"))]
            problem = Problem("reason", "Because.")
            with pytest.raises(IllegalMoveError):
                await journal.hold("run", dict.fromkeys(positions, problem))
            await journal.hold("probe", dict.fromkeys(positions, problem))
            with pytest.raises(IllegalMoveError):
                await journal.hold("probe", dict.fromkeys(positions, problem))
            assert await states(journal, "probe") == {11: State.READY, 12: State.HELD}
