"""What every journal must do, as tests: subclass `JournalSuite` and give it a fixture `journal_factory`.

    class TestMyJournal(JournalSuite):
        @pytest.fixture
        def journal_factory(self, tmp_path):
            return lambda: MyJournal.open(tmp_path / "journal")

The fixture returns a function that opens a new, empty journal as an async context manager. The suite needs
`pytest-asyncio` in its automatic mode. What only a durable journal can do (surviving a crash) is for its own tests.
"""

from __future__ import annotations

import anyio
import pytest

from payout_engine.domain.ending import Stop
from payout_engine.domain.errors import Brake, JournalBusyError
from payout_engine.domain.facts import (
    CanaryOverruled,
    CanaryPassed,
    CanarySize,
    Conflict,
    Fact,
    KeyUsed,
    ResultsFolder,
    RunFacts,
    Stopped,
)
from payout_engine.domain.model import Lane, Receipt
from payout_engine.domain.states import State
from payout_engine.testing.journal_callbacks import CallbackSuite
from payout_engine.testing.journal_controls import ControlsSuite
from payout_engine.testing.journal_duplicates import DuplicatesSuite
from payout_engine.testing.journal_going_on import GoingOnSuite
from payout_engine.testing.journal_intake import IntakeSuite
from payout_engine.testing.journal_lately import LatelySuite
from payout_engine.testing.journal_lines import MOOV, ORANGE, SOMEBODY, JournalFactory, approved, chunk, replay
from payout_engine.testing.journal_payment import PaymentSuite
from payout_engine.testing.journal_people import PeopleSuite
from payout_engine.testing.journal_resends import ResendsSuite

ALL_THE_SAME = "the rest may be sent although the canary did not pass"


class JournalSuite(
    IntakeSuite,
    DuplicatesSuite,
    LatelySuite,
    GoingOnSuite,
    PaymentSuite,
    ResendsSuite,
    CallbackSuite,
    PeopleSuite,
    ControlsSuite,
):
    """The promises of `ports.Journal`."""

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

    async def test_facts_are_known_again_as_they_were_told(self, journal_factory: JournalFactory) -> None:
        """Each counts for its run alone, the last of a kind holds, and names may hold any character."""
        odd, other = Lane("ml: main/x", "orange_ml", "XOF"), Lane("ml", "orange_ml", "XOF")
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await approved(journal, "other", chunk([2]))
            nothing = await journal.facts("run")
            told: list[Fact] = [
                *(CanarySize(4), CanarySize(5), KeyUsed("ml: main/x", "one two"), KeyUsed("ml: main/x", "three")),
                *(KeyUsed("ml", "four"), ResultsFolder("old"), ResultsFolder("a: b/results")),
                *(Stopped(Stop(lane.account, lane, Brake.CANARY, "It: failed.")) for lane in (odd, other)),
                *(CanaryOverruled(odd, "Awa: finance"), CanaryPassed(ORANGE), Conflict("Paid: twice.")),
                *(Stopped(Stop("bf", MOOV, Brake.FAILURES, "Many.")), Stopped(Stop("bf", None, Brake.CANARY, "All."))),
            ]
            for fact in told:
                await journal.add_fact("run", fact)
            assert await journal.facts("run") == RunFacts(
                canary_size=5,
                canary_done=frozenset({odd, ORANGE}),
                canary_stopped=frozenset({odd, other}),
                keys={"ml: main/x": "three", "ml": "four"},
                results_folder="a: b/results",
                conflicts=["Paid: twice."],
            )
            assert await journal.facts("other") == nothing
            assert (await journal.verify("run")).proven
            assert await replay(journal, "run") == []

    async def test_remarks_are_for_people_alone(self, journal_factory: JournalFactory) -> None:
        """What a remark says is nothing that is decided by, even if it reads like a fact; of facts people are told."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            before = await journal.facts("run")
            for kind, text in ("canary", "5"), ("key", "mark bf"), ("results_folder", "x"), ("conflict", "Twice."):
                await journal.note("run", kind, text)
            assert await journal.facts("run") == before
            await journal.add_fact("run", CanaryOverruled(ORANGE, ""))
            await journal.add_fact("run", Stopped(Stop("", None, Brake.ASKED, "Paused by Awa.")))
            assert [(kind, text) for _, kind, text in await journal.notes("run")][4:] == [
                ("canary_overruled", f"bf/orange_bf: {ALL_THE_SAME}; said by a person"),
                ("brake_asked", "run: Paused by Awa."),
            ]

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

    async def test_one_holder_per_right(self, journal_factory: JournalFactory) -> None:
        """A lease is exclusive for its name, independent of others, says who holds it, and is free again after use."""
        async with journal_factory() as journal:
            async with journal.lease("account bf", SOMEBODY), journal.lease("account ci", SOMEBODY):
                with pytest.raises(JournalBusyError, match=r"Process 4711 is paying .*salaries.* account bf") as caught:
                    async with journal.lease("account bf", SOMEBODY):
                        pass
                assert caught.value.holder == SOMEBODY
            async with journal.lease("account bf", SOMEBODY):
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
