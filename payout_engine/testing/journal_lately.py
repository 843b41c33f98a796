"""What every journal must know of when money went last; part of `JournalSuite`.

An equal payee and amount means something for as long as `DUPLICATE_WINDOW_SECONDS` after that.
"""

from __future__ import annotations

from payout_engine.domain import clock
from payout_engine.domain.limits import DUPLICATE_WINDOW_SECONDS as WINDOW
from payout_engine.domain.model import Choice, Decision, DuplicateKind, LookUpResult, Problem, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.journal import Journal
from payout_engine.testing.journal_duplicates import later_by
from payout_engine.testing.journal_lines import (
    JournalFactory,
    approved,
    chunk,
    dispatched,
    every,
    run,
    sent,
    validated,
)
from payout_engine.testing.journal_resends import PAYS_ONCE, doubtful

LONG_AGO = Receipt(State.PAID, at=1.0)
"""What a provider says of a payout may name any time."""


async def lately(journal: Journal, seconds: float, *lines: int) -> list[int]:
    """Return which of these lines were, or may still be, sent lately, so much later."""
    with later_by(seconds):
        await journal.begin(run("new"))
        await journal.add("new", [chunk(lines)])
        found = await every(journal.duplicates("new"))
        await journal.discard("new")
    return sorted(one.payout.line for one in found if one.kind is DuplicateKind.PAYEE_AMOUNT)


async def said_paid(journal: Journal, *lines: int) -> None:
    """Let a person say that lines which wait for one were paid by hand."""
    keys = {found.payout.line: found.key for found in await every(journal.entries("run"))}
    await journal.decide("run", [Decision(keys[line], Choice.PAID, "awa", "by hand") for line in lines])


class LatelySuite:
    """The last time that each payout was sent."""

    async def test_what_a_person_paid_counts_from_their_word(self, journal_factory: JournalFactory) -> None:
        """A line that was never sent, and was paid by hand: its own word, and nobody else's, makes its age."""
        async with journal_factory() as journal:
            await validated(journal, "run", chunk([1, 2, 3], reference="SAME"))
            held = Problem("reference_repeated", "As line 1.")
            await journal.hold("run", {one.position: held for one in await every(journal.duplicates("run"))})
            assert await journal.approve("run")
            await said_paid(journal, 3)
            assert await lately(journal, 60, 1, 2, 3) == [1, 2, 3]
            await sent(journal, "run", LONG_AGO)
            with later_by(3 * WINDOW):
                await said_paid(journal, 2)
            assert await lately(journal, 60, 1, 2, 3) == [1, 2, 3]
            assert await lately(journal, 4 * WINDOW - 60, 1, 2, 3) == [2]
            assert await lately(journal, 4 * WINDOW + 60, 1, 2, 3) == []

    async def test_each_payout_of_a_chunk_has_its_own_last_time(self, journal_factory: JournalFactory) -> None:
        """However often others of the chunk were sent since, and whatever time the provider names."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            await journal.record(await dispatched(journal, "run"), [LONG_AGO, Receipt(State.READY)])
            with later_by(WINDOW / 2):
                await sent(journal, "run", LONG_AGO)
            assert await lately(journal, WINDOW - 60, 1, 2) == [1, 2]
            assert await lately(journal, WINDOW + 60, 1, 2) == [2]
            assert await lately(journal, 2 * WINDOW, 1, 2) == []

    async def test_asking_by_sending_again_is_sending(self, journal_factory: JournalFactory) -> None:
        """For what was asked about, of a part of a chunk or of all, and for nothing else."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]), chunk([3, 4]))
            await sent(journal, "run", Receipt(State.UNKNOWN))
            await journal.record(await dispatched(journal, "run"), [Receipt(State.UNKNOWN), LONG_AGO])
            with later_by(2 * WINDOW):
                for known in await doubtful(journal):
                    again = await journal.intend_resend(known, PAYS_ONCE)
                    await journal.reconcile([LookUpResult(key, LONG_AGO) for key in again.keys])
            assert await lately(journal, 3 * WINDOW - 60, 1, 2, 3, 4) == [1, 2, 3]
            assert await lately(journal, 3 * WINDOW + 60, 1, 2, 3, 4) == []

    async def test_a_clock_that_was_wrong_for_a_while_wrongs_no_age(self, journal_factory: JournalFactory) -> None:
        """Neither when it was set forward and back, nor once the machine was started again with a right one."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]), chunk([2]))
            with later_by(0, wall_seconds=WINDOW):
                await sent(journal, "run", LONG_AGO)
            assert await lately(journal, WINDOW - 60, 1) == [1]
            assert await lately(journal, WINDOW + 60, 1) == []
            with later_by(60, wall_seconds=3 * WINDOW, boot="b"):
                await sent(journal, "run", LONG_AGO)
            here = clock.moment()
            with clock.replaced(lambda: here.at + 3 * WINDOW + 120, lambda: ("b", 180.0)):
                assert await lately(journal, 0, 1, 2) == [2]
