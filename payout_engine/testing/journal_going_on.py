"""What every journal must find when a run that was approved goes on; part of `JournalSuite`."""

from __future__ import annotations

import msgspec

from payout_engine.domain.model import Choice, Chunk, Decision, Dispatch, DuplicateKind, LookUpResult, Problem, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.journal import Journal
from payout_engine.testing.journal_lines import (
    MOOV,
    ORANGE,
    JournalFactory,
    approved,
    chunk,
    dispatched,
    every,
    payout,
    run,
    sent,
    validated,
)

HELD = Problem("reference_repeated", "Again.")


async def shown(journal: Journal, dispatch: Dispatch, *indexes: int) -> None:
    """Let the provider show transfers of a dispatch that had failed."""
    transfers = [Receipt(State.PAID, provider_reference=f"T{index}") for index in indexes]
    await journal.reconcile(
        [LookUpResult(dispatch.keys[index], receipt) for index, receipt in zip(indexes, transfers, strict=True)]
    )


async def repeated(journal: Journal, run_id: str) -> dict[int, str]:
    """Return the lines of a run that repeat an earlier one, and which."""
    return {found.payout.line: found.earlier_run_id for found in await every(journal.duplicates(run_id))}


async def decided(journal: Journal, run_id: str, choice: Choice, *lines: int) -> None:
    """Let a person decide about lines that are held."""
    entries = {found.payout.line: found for found in await every(journal.entries(run_id))}
    await journal.decide(run_id, [Decision(entries[line].key, choice, "awa", "because") for line in lines])


class GoingOnSuite:
    """An approved run is compared again with what came to light since."""

    async def test_only_runs_approved_before_it_count(self, journal_factory: JournalFactory) -> None:
        """Whenever they were begun: of two runs with one line, the one approved later repeats the other."""
        async with journal_factory() as journal:
            await validated(journal, "last", chunk([1, 2]))
            await approved(journal, "first", chunk([1, 2]))
            dispatch = await sent(journal, "first", Receipt(State.FAILED))
            await approved(journal, "between", chunk([1, 2]))
            assert not await journal.approve("last")
            assert await repeated(journal, "last") == {1: "between", 2: "between"}
            assert await journal.approve("last")
            assert await repeated(journal, "between") == {}, "nothing has come to light"
            await shown(journal, dispatch, 0)
            assert await repeated(journal, "between") == {1: "first"}
            assert await repeated(journal, "last") == {1: "between", 2: "between"}

    async def test_what_it_learns_of_itself_is_no_reason(self, journal_factory: JournalFactory) -> None:
        """What was reported before it was approved, and found good, is not reported again."""
        async with journal_factory() as journal:
            await approved(journal, "first", chunk([1, 2]))
            dispatch = await sent(journal, "first", Receipt(State.UNKNOWN))
            await shown(journal, dispatch, 0)
            await approved(journal, "again", chunk([1, 2]), chunk([3], MOOV))
            await shown(journal, await sent(journal, "again", Receipt(State.UNKNOWN), MOOV), 0)
            await approved(journal, "later", chunk([9]))
            await shown(journal, await sent(journal, "later", Receipt(State.UNKNOWN)), 0)
            assert await repeated(journal, "again") == {}

    async def test_a_persons_word_stands_for_the_lines_it_names(self, journal_factory: JournalFactory) -> None:
        """In whichever chunks: what was released is not reported again, and all else of the same chunks is."""
        async with journal_factory() as journal:
            await approved(journal, "first", chunk([1, 2, 3, 4]))
            dispatch = await sent(journal, "first", Receipt(State.FAILED))
            await approved(journal, "again", chunk([1, 2]), chunk([3], MOOV), chunk([4], MOOV))
            attempt = await dispatched(journal, "again")
            await journal.record(attempt, [Receipt(State.READY)])
            await shown(journal, dispatch, 0, 2)
            found = await every(journal.duplicates("again"))
            assert {one.payout.line for one in found} == {1, 3}
            await journal.hold("again", {one.position: HELD for one in found})
            await decided(journal, "again", Choice.SEND_AGAIN, 1)
            await decided(journal, "again", Choice.SEND_AGAIN, 3)
            assert await repeated(journal, "again") == {}
            await shown(journal, dispatch, 1, 3)
            assert await repeated(journal, "again") == {2: "first", 4: "first"}

    async def test_a_line_that_is_done_hides_none_that_waits(self, journal_factory: JournalFactory) -> None:
        """A line of the run that failed stands before the one that repeats."""
        async with journal_factory() as journal:
            await approved(journal, "first", chunk([1, 2, 3]))
            dispatch = await sent(journal, "first", Receipt(State.FAILED))
            await validated(journal, "again", chunk([1, 2, 3]))
            assert await every(journal.duplicates("again")) == []
            assert await journal.approve("again")
            attempt = await dispatched(journal, "again")
            await journal.record(attempt, [Receipt(State.FAILED), Receipt(State.PAID), Receipt(State.READY)])
            await shown(journal, dispatch, 0, 1, 2)
            assert await repeated(journal, "again") == {3: "first"}

    async def test_its_cells_are_those_of_its_own_columns(self, journal_factory: JournalFactory) -> None:
        """A results file that is paid again is known by the cells of the file it came from."""
        async with journal_factory() as journal:
            columns = ("reference", "phone")
            await journal.begin(msgspec.structs.replace(run("first"), columns=columns))
            await journal.add("first", [Chunk(ORANGE, [payout(1)], [["SAL-00001", "22670000001"]])])
            await journal.seal("first")
            assert await journal.approve("first")
            dispatch = await sent(journal, "first", Receipt(State.FAILED))
            await journal.begin(msgspec.structs.replace(run("again"), columns=(*columns, "payout_status")))
            fed_back = payout(1, reference="?", amount_minor=5)
            await journal.add("again", [Chunk(ORANGE, [fed_back], [["SAL-00001", "22670000001", "failed"]])])
            await journal.seal("again")
            assert await every(journal.duplicates("again")) == []
            assert await journal.approve("again")
            await shown(journal, dispatch, 0)
            (found,) = await every(journal.duplicates("again"))
            assert (found.kind, found.earlier_run_id) == (DuplicateKind.CELLS, "first")

    async def test_what_was_unpaid_and_no_longer_is_needs_no_question(self, journal_factory: JournalFactory) -> None:
        """The last comparison says which accounts may have been sent its lines before."""
        async with journal_factory() as journal:
            await approved(journal, "first", chunk([1]))
            dispatch = await sent(journal, "first", Receipt(State.FAILED))
            await validated(journal, "again", chunk([1]))
            assert await every(journal.duplicates("again")) == []
            assert await journal.former_accounts("again") == ["bf"]
            await shown(journal, dispatch, 0)
            assert await repeated(journal, "again") == {1: "first"}
            assert await journal.former_accounts("again") == []

    async def test_every_earlier_chunk_is_asked_about(self, journal_factory: JournalFactory) -> None:
        """However the lines that may be paid again lay in theirs."""
        async with journal_factory() as journal:
            await approved(journal, "first", chunk([1, 2]), chunk([3]), chunk([4, 5]))
            keys = [key for _ in range(3) for key in (await sent(journal, "first", Receipt(State.FAILED))).keys]
            await validated(journal, "again", chunk([1, 3, 5]))
            assert await every(journal.duplicates("again")) == []
            queries, end = await journal.former_queries("again", "bf", 9)
            assert [query.key for query in queries] == [keys[0], keys[2], keys[4]]
            assert end == 0

    async def test_a_search_may_be_left_and_made_again(self, journal_factory: JournalFactory) -> None:
        """What one search found is not in the way of the next, nor in that of another run."""
        async with journal_factory() as journal:
            await approved(journal, "first", chunk([1, 2], reference="SAME"))
            for run_id in ("one", "two"):
                await validated(journal, run_id, chunk([1, 2], reference="SAME"))
            whole = await every(journal.duplicates("one"))
            assert len(whole) > 2
            left = journal.duplicates("two")
            assert await anext(left)
            await anext(journal.duplicates("one"))
            assert await every(journal.duplicates("one")) == whole
            assert [found async for page in left for found in page] == []
