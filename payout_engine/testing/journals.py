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

from payout_engine.domain.errors import JournalBusyError
from payout_engine.domain.model import Receipt
from payout_engine.domain.states import State
from payout_engine.testing.journal_asking import AskingSuite
from payout_engine.testing.journal_going_on import GoingOnSuite
from payout_engine.testing.journal_intake import IntakeSuite
from payout_engine.testing.journal_lately import LatelySuite
from payout_engine.testing.journal_lines import ORANGE, SOMEBODY, JournalFactory, approved, chunk, replay
from payout_engine.testing.journal_payment import PaymentSuite
from payout_engine.testing.journal_people import PeopleSuite
from payout_engine.testing.journal_repeats import RepeatsSuite
from payout_engine.testing.journal_steering import SteeringSuite


class JournalSuite(
    IntakeSuite, RepeatsSuite, LatelySuite, GoingOnSuite, PaymentSuite, AskingSuite, PeopleSuite, SteeringSuite
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
