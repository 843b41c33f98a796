"""What every journal must do while a file is validated; part of `JournalSuite`."""

from __future__ import annotations

import pytest

from payout_engine.domain import clock
from payout_engine.domain.errors import IllegalMoveError, JournalError
from payout_engine.domain.model import REJECTED_LANE, Problem, Receipt, RunState
from payout_engine.domain.states import State
from payout_engine.testing.journal_lines import (
    MOOV,
    ORANGE,
    JournalFactory,
    approved,
    chunk,
    dispatched,
    entry,
    every,
    refused,
    replay,
    run,
    sent,
    states,
    validated,
)


class IntakeSuite:
    """Intake and holds."""

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
            await validated(
                journal, "run", *lanes, refused(range(3, 5000, 3)[:500]), refused(range(3, 5000, 3)[500:1100])
            )
            entries = await every(journal.entries("run"))
            lines = [found.payout.line for found in entries]
            assert lines == sorted(lines)
            assert len(lines) == len(set(lines)) == 1667 + 1666 + 1100
            assert all(found.row == [found.payout.reference, found.payout.phone] for found in entries)

    async def test_a_refused_line_says_why(self, journal_factory: JournalFactory) -> None:
        """A refused line keeps its reason, its sentence and the column at fault."""
        async with journal_factory() as journal:
            await validated(journal, "run", refused([7]))
            found = await entry(journal, "run", 7)
            assert found.lane == REJECTED_LANE
            assert (found.receipt.state, found.receipt.reason) == (State.REJECTED, "amount_zero")
            assert found.receipt.message == "It is zero. (column montant)"

    async def test_what_our_rules_say_of_a_line_has_its_time(self, journal_factory: JournalFactory) -> None:
        """Refused or held: when that was, and the column where there is one; the log tells the same."""
        async with journal_factory() as journal:
            before = clock.now()
            await approved(journal, "earlier", chunk([1]))
            await validated(journal, "run", chunk([1]), refused([2]))
            repeats = await every(journal.duplicates("run"))
            await journal.hold("run", {repeat.position: Problem("repeated", "Again.") for repeat in repeats})
            receipts = {found.payout.line: found.receipt for found in await every(journal.entries("run"))}
            assert [(receipts[line].state, receipts[line].message) for line in (1, 2)] == [
                (State.HELD, "Again."),
                (State.REJECTED, "It is zero. (column montant)"),
            ]
            assert all(before <= receipt.at <= clock.now() for receipt in receipts.values())

    async def test_an_outcome_names_the_wallet_that_pays(self, journal_factory: JournalFactory) -> None:
        """As the provider calls it, where that is known of the payout; else by its lane."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1], wallet="orange_money"), chunk([2]))
            for _ in range(2):
                await sent(journal, "run", Receipt(State.PAID))
            told = {(outcome.line, outcome.wallet) for outcome in await replay(journal, "run")}
            assert told == {(1, "orange_money"), (2, "orange_bf")}

    async def test_entries_can_be_asked_for_by_state(self, journal_factory: JournalFactory) -> None:
        """Only lines in the wanted states come out."""
        async with journal_factory() as journal:
            await validated(journal, "run", chunk([1, 3]), refused([2]))
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
        """After `seal` the run is validated and cannot be added to."""
        async with journal_factory() as journal:
            await validated(journal, "run", chunk([1]))
            with pytest.raises(IllegalMoveError):
                await journal.add("run", [chunk([2])])
            found = await journal.find("run")
            assert found is not None and found.state is RunState.VALIDATED

    async def test_nothing_is_approved_before_its_intake_has_ended(self, journal_factory: JournalFactory) -> None:
        """A run goes from intake to validated to approved, once each; a second yes is the first one."""
        async with journal_factory() as journal:
            await journal.begin(run("run"))
            await journal.add("run", [chunk([1])])
            with pytest.raises(IllegalMoveError):
                await journal.approve("run")
            await journal.seal("run")
            with pytest.raises(IllegalMoveError):
                await journal.seal("run")
            assert await journal.approve("run")
            assert await journal.approve("run")
            with pytest.raises(IllegalMoveError):
                await journal.seal("run")
            assert len(await every(journal.entries("run"))) == 1

    async def test_an_unapproved_run_can_be_thrown_away(self, journal_factory: JournalFactory) -> None:
        """A discarded run is gone whole, in intake and when validated; an approved one is never removed."""
        async with journal_factory() as journal:
            await journal.begin(run("intake"))
            await journal.add("intake", [chunk([1])])
            await journal.discard("intake")
            await validated(journal, "validated", chunk([1]))
            await journal.discard("validated")
            assert await journal.runs() == []
            await approved(journal, "approved", chunk([1]))
            with pytest.raises(IllegalMoveError, match="never removed"):
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

    # --------------------------------------------------------------------------------------------------------- hold

    async def test_a_held_payout_keeps_its_reason_and_is_not_reported_again(
        self, journal_factory: JournalFactory
    ) -> None:
        """Held payouts come out with the reason, are not ready, and are no longer reported as repeats."""
        async with journal_factory() as journal:
            await journal.begin(run("run"))
            await journal.add("run", [chunk([1, 2, 3], reference="SAME")])
            duplicates = await every(journal.duplicates("run"))
            await journal.hold("run", {r.position: Problem("reference_repeated", "As line 1.") for r in duplicates})
            await journal.seal("run")
            assert await every(journal.duplicates("run")) == []
            assert await journal.approve("run")
            found = await entry(journal, "run", 3)
            assert (found.receipt.state, found.receipt.reason) == (State.HELD, "reference_repeated")
            assert [list(c.indexes) for c in await journal.ready("run", ORANGE, 0, 10)] == [[0]]

    async def test_only_ready_payouts_can_be_held(self, journal_factory: JournalFactory) -> None:
        """One payout that is not ready refuses the whole call."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            await validated(journal, "probe", chunk([11, 12], reference="X"))
            positions = [repeat.position for repeat in await every(journal.duplicates("probe"))]
            problem = Problem("reason", "Because.")
            with pytest.raises(IllegalMoveError):
                await journal.hold("run", dict.fromkeys(positions, problem))
            await journal.hold("probe", dict.fromkeys(positions, problem))
            with pytest.raises(IllegalMoveError):
                await journal.hold("probe", dict.fromkeys(positions, problem))
            with pytest.raises(IllegalMoveError):
                await journal.hold("probe", {max(positions) + 1_000_000: problem})
            assert await states(journal, "probe") == {11: State.READY, 12: State.HELD}
