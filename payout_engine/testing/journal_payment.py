"""What every journal must do while a run is paid and followed; part of `JournalSuite`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
import pytest

from payout_engine.domain import clock
from payout_engine.domain.errors import IllegalMoveError
from payout_engine.domain.model import ControlKind, ControlRequest, LookUpResult, Outcome, Query, Receipt, RunState
from payout_engine.domain.states import State
from payout_engine.ports.journal import Journal, Ready
from payout_engine.testing.journal_lines import (
    IVORY,
    MOOV,
    ORANGE,
    JournalFactory,
    approved,
    chunk,
    dispatched,
    entry,
    replay,
    sent,
    states,
    validated,
)


class PaymentSuite:
    """Dispatches, receipts, recovery and look-ups."""

    # ------------------------------------------------------------------------------------------------------ payment

    async def test_nothing_is_sent_before_approval(self, journal_factory: JournalFactory) -> None:
        """An intent of a run that nobody approved is refused."""
        async with journal_factory() as journal:
            await validated(journal, "run", chunk([1]))
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

    async def test_amounts_are_those_of_what_is_ready(self, journal_factory: JournalFactory) -> None:
        """Adding up sees exactly the payouts that would be sent."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]), chunk([4, 5]))
            await journal.record(await dispatched(journal, "run"), [Receipt(State.PAID), *[Receipt(State.READY)] * 2])
            ready = await journal.ready("run", ORANGE, 0, 9)
            wanted = [(found.chunk_id, [payout.amount_minor for payout in found.payouts]) for found in ready]
            assert [len(amounts) for _, amounts in wanted] == [2, 2]
            assert await journal.ready_amounts("run", ORANGE, 0, 9) == wanted
            assert await journal.ready_amounts("run", ORANGE, wanted[0][0], 9) == wanted[1:]

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
            assert msgspec.structs.replace(outcomes[0], seq=0) == Outcome(
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
            assert (await replay(journal, "run"))[-len(outcomes) :] == list(outcomes)
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
            await validated(journal, "run", chunk([1]))
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
            asked: list[Query] = []
            after = pages = 0
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
            assert all(abs(query.sent.at - clock.now()) < 60 and query.age_seconds < 60 for query in asked)

    async def test_each_part_of_a_chunk_has_its_own_call(self, journal_factory: JournalFactory) -> None:
        """Its own receipts, and the age of its own call; what was never sent has none. Others' sizes mean nothing."""
        async with journal_factory() as journal:
            with clock.replaced(lambda: 1_000.0, lambda: ("boot", 500.0)):
                await approved(journal, "run", chunk([1, 2, 3]), chunk([4]), chunk([5, 6], MOOV))
                whole, _ = await journal.ready("run", ORANGE, 0, 2)
            parts = [
                msgspec.structs.replace(whole, indexes=[at], payouts=[whole.payouts[at]], keys=[whole.keys[at]])
                for at in range(2)
            ]
            for at, part in enumerate(parts):
                up_seconds = 1_500.0 + 100.0 * at
                with clock.replaced(partial(sum, (up_seconds, 500.0)), partial(_up, "boot", up_seconds)):
                    await journal.record(await journal.intend(part), [Receipt(State.UNKNOWN, f"call {at}")])
            with clock.replaced(lambda: 3_000.0, lambda: ("boot", 2_500.0)):
                queries, _ = await journal.open_queries("run", "bf", 9, ready=Ready.ALL)
                ages = {query.payout.line: query.age_seconds for query in queries}
                assert ages == {1: 1_000.0, 2: 900.0, 3: 0.0, 4: 0.0, 5: 0.0, 6: 0.0}
            found = {line: (await entry(journal, "run", line)).receipt for line in (1, 2, 3)}
            assert [(found[line].state, found[line].reason) for line in (1, 2, 3)] == [
                (State.UNKNOWN, "call 0"),
                (State.UNKNOWN, "call 1"),
                (State.READY, ""),
            ]

    async def test_what_is_shown_of_several_chunks_is_counted_together(self, journal_factory: JournalFactory) -> None:
        """How many of those shown were open; what is shown again is open no more."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]), chunk([3, 4]), chunk([5]))
            keys = [key for _ in range(3) for key in (await sent(journal, "run", Receipt(State.ACCEPTED))).keys]
            shown = [LookUpResult(key, Receipt(State.PAID)) for key in keys]
            assert (await journal.reconcile([shown[0], shown[2], shown[3]])).open_shown == 3
            assert (await journal.reconcile(shown)).open_shown == 2
            assert (await journal.reconcile(shown)).open_shown == 0

    async def test_what_is_shown_after_its_absence_is_not_withdrawn(self, journal_factory: JournalFactory) -> None:
        """In one look, of a run that a person cancelled: what was absent a moment before is there after all."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await sent(journal, "run", Receipt(State.UNKNOWN))
            await journal.request("run", ControlRequest(ControlKind.CANCEL, "awa"))
            absent = [LookUpResult(key, Receipt(State.READY, "never_received")) for key in dispatch.keys]
            await journal.reconcile([*absent, LookUpResult(dispatch.keys[0], Receipt(State.PAID))])
            assert await states(journal, "run") == {1: State.HELD, 2: State.HELD}
            shown, withdrawn = [(await entry(journal, "run", line)).receipt for line in (1, 2)]
            assert shown.reason != withdrawn.reason

    async def test_a_finished_run_may_be_finished_again(self, journal_factory: JournalFactory) -> None:
        """Whoever follows it once more ends as the first did; one that is not approved has nothing to finish."""
        async with journal_factory() as journal:
            await validated(journal, "new", chunk([9]))
            with pytest.raises(IllegalMoveError):
                await journal.finish("new")
            await approved(journal, "run", chunk([1]))
            await sent(journal, "run", Receipt(State.PAID))
            for _ in range(2):
                await journal.finish("run")
            found = await journal.find("run")
            assert found is not None and found.state is RunState.FINISHED

    async def test_paid_payouts_are_asked_about_page_by_page(self, journal_factory: JournalFactory) -> None:
        """Only what is paid, of one account and one run; what was taken back is not asked about again."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk(range(1, 8)), chunk([8]), chunk([9], IVORY), chunk([10], MOOV))
            dispatch = await dispatched(journal, "run")
            others = [Receipt(state) for state in (State.ACCEPTED, State.FAILED, State.UNKNOWN, State.READY)]
            paid = [Receipt(State.PAID, provider_reference=f"T{n}") for n in range(3)]
            await journal.record(dispatch, [paid[0], *others, *paid[1:]])
            second = (await journal.ready("run", ORANGE, dispatch.chunk_id, 1))[0]
            await journal.record(await journal.intend(second), [Receipt(State.PAID)])
            await sent(journal, "run", Receipt(State.PAID), IVORY)
            await sent(journal, "run", Receipt(State.PAID), MOOV)
            await approved(journal, "other", chunk([1]))
            await sent(journal, "other", Receipt(State.PAID))

            async def lines(limit: int) -> list[int]:
                found: list[Query] = []
                after, going_on = 0, True
                while going_on:
                    queries, after = await journal.paid_queries("run", "bf", limit, after)
                    assert len(queries) <= limit
                    found += queries
                    going_on = after > 0
                assert {query.state for query in found} <= {State.PAID}
                return [query.payout.line for query in found]

            assert await lines(9) == await lines(1) == await lines(2) == [1, 6, 7, 8, 10]
            (first, *_), _ = await journal.paid_queries("run", "bf", 9)
            assert (first.key, first.provider_reference) == (dispatch.keys[0], "T0")
            taken_back = LookUpResult(first.key, Receipt(State.REVERSED, provider_reference="T0"))
            await journal.reconcile([taken_back])
            assert await lines(9) == [6, 7, 8, 10]

    async def test_an_age_is_not_what_the_wall_clock_says(self, journal_factory: JournalFactory) -> None:
        """A clock that is set forward makes no payout older; after a restart it is as old as that, at most."""
        async with journal_factory() as journal:
            with clock.replaced(lambda: 1_000.0, lambda: ("first", 500.0)):
                await approved(journal, "run", chunk([1]))
                await sent(journal, "run", Receipt(State.UNKNOWN))
            ages = []
            for boot, up_seconds in ("first", 530.0), ("second", 40.0):
                with clock.replaced(lambda: 90_000.0, partial(_up, boot, up_seconds)):
                    (query,), _ = await journal.open_queries("run", "bf", 1)
                    ages.append(query.age_seconds)
            assert ages == [30.0, 40.0]

    async def test_a_sighting_settles_an_open_payout(self, journal_factory: JournalFactory) -> None:
        """What a look-up shows becomes the state; showing it again changes nothing; the known reference stays."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]))
            dispatch = await sent(journal, "run", Receipt(State.ACCEPTED))
            seen = [
                LookUpResult(dispatch.keys[0], Receipt(State.PAID, provider_reference="T1"), 1001, "70000001"),
                LookUpResult(dispatch.keys[1], Receipt(State.FAILED, "closed", "Closed."), None, "+226 70 00 00 02"),
                LookUpResult(dispatch.keys[2], Receipt(State.ACCEPTED, provider_reference="T3")),
                LookUpResult("somebody-else-1", Receipt(State.PAID)),
                LookUpResult(dispatch.keys[0].replace("-0", "-9"), Receipt(State.PAID)),
            ]
            applied = await journal.reconcile(seen)
            assert [(o.line, o.status, o.provider_reference) for o in applied.outcomes] == [
                (1, State.PAID, "T1"),
                (2, State.FAILED, ""),
                (3, State.ACCEPTED, "T3"),
            ]
            assert (await replay(journal, "run"))[-3:] == list(applied.outcomes)
            assert list(applied.conflicts) == []
            again = await journal.reconcile(seen)
            assert (list(again.outcomes), list(again.conflicts)) == ([], [])
            await journal.reconcile([LookUpResult(dispatch.keys[2], Receipt(State.PAID))])
            assert (await entry(journal, "run", 3)).receipt.provider_reference == "T3"
            assert (await replay(journal, "run"))[-1].status is State.PAID

    async def test_part_of_a_chunk_is_sent_recorded_and_recovered_alone(self, journal_factory: JournalFactory) -> None:
        """What came back ready is sent again; its end, or a crash before it, says nothing of its neighbours."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]), chunk([4, 5], MOOV), chunk([6, 7, 8], IVORY))
            again = [Receipt(State.ACCEPTED), Receipt(State.READY), Receipt(State.READY)]
            for lane in (ORANGE, IVORY):
                await journal.record(await dispatched(journal, "run", lane), again)
            for lane in (ORANGE, MOOV):
                await dispatched(journal, "run", lane)
            recovered = await journal.recover("run")
            assert {(found.line, found.status) for found in recovered} == {
                (line, State.UNKNOWN) for line in (2, 3, 4, 5)
            }
            assert [found.line for found in await sent_lines(journal, State.FAILED)] == [7, 8]
            expected = [State.ACCEPTED, *[State.UNKNOWN] * 4, State.ACCEPTED, State.FAILED, State.FAILED]
            assert [state for _, state in sorted((await states(journal, "run")).items())] == expected
            assert (await journal.verify("run")).proven

    async def test_of_many_calls_only_some_may_have_left(self, journal_factory: JournalFactory) -> None:
        """The payouts of the others are as if never dispatched: withdrawn when cancelled, and not asked about."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3, 4]), chunk([5, 6, 7, 8]))
            came_back = Receipt(State.READY, "busy")
            never, lost = Receipt(State.READY, "not_sent"), Receipt(State.UNKNOWN)
            first = await dispatched(journal, "run")
            for wrong in ([0, 1], [0, 2, 3], False):
                with pytest.raises(IllegalMoveError, match="never left this machine"):
                    await journal.record(first, [Receipt(State.PAID), lost, lost, came_back], on_wire=wrong)
            await journal.record(first, [Receipt(State.PAID), came_back, never, never], on_wire=[0, 1])
            second = msgspec.structs.replace(
                (await journal.ready("run", ORANGE, first.chunk_id, 1))[0],
                indexes=[1, 3],
                payouts=chunk([6, 8]).payouts,
                keys=[first.keys[0]] * 2,
            )
            await journal.record(await journal.intend(second), [never, lost], on_wire=[3])
            queries, _ = await journal.open_queries("run", "bf", 9, ready=Ready.ONCE_SENT)
            assert [query.payout.line for query in queries] == [2, 8]
            await journal.cancel("run", ControlRequest(ControlKind.CANCEL, "awa"), 0, 9)
            expected = [State.PAID, State.HELD, State.CANCELLED, State.CANCELLED]
            expected += [State.CANCELLED, State.CANCELLED, State.CANCELLED, State.UNKNOWN]
            assert list((await states(journal, "run")).values()) == expected
            assert (await journal.verify("run")).proven

    async def test_nothing_is_sent_of_nothing(self, journal_factory: JournalFactory) -> None:
        """A chunk without payouts, or one that the journal does not have, opens no dispatch; odd receipts end none."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            (ready,) = await journal.ready("run", ORANGE, 0, 1)
            empty = msgspec.structs.replace(ready, indexes=[], payouts=[], keys=[])
            absent = msgspec.structs.replace(ready, chunk_id=ready.chunk_id + 99)
            for wrong in empty, absent:
                with pytest.raises(IllegalMoveError, match="no longer ready"):
                    await journal.intend(wrong)
            dispatch = await journal.intend(ready)
            for state in State.HELD, State.CANCELLED, State.REJECTED, State.REVERSED:
                with pytest.raises(IllegalMoveError, match="cannot go from sending"):
                    await journal.record(dispatch, [Receipt(state)])
            assert set((await states(journal, "run")).values()) == {State.SENDING}

    async def test_a_first_look_asks_about_all_that_may_be_there(self, journal_factory: JournalFactory) -> None:
        """What is open, with what waits to be sent: all of it, or what was on the wire before; page by page, too."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3, 4]), chunk([5]), chunk([6, 7]))
            ends = [State.UNKNOWN, State.READY, State.ACCEPTED, State.PAID]
            await journal.record(await dispatched(journal, "run"), [Receipt(state) for state in ends])
            (_, _, never_left) = await journal.ready("run", ORANGE, 0, 3)
            await journal.record(await journal.intend(never_left), [Receipt(State.READY)], on_wire=False)
            for ready, lines in (Ready.ALL, [1, 2, 3, 5, 6, 7]), (Ready.ONCE_SENT, [1, 2, 3]), (None, [1, 3]):
                queries, _ = await journal.open_queries("run", "bf", 9, ready=ready)
                assert [query.payout.line for query in queries] == lines
            first, after = await journal.open_queries("run", "bf", 2, ready=Ready.ONCE_SENT)
            second, end = await journal.open_queries("run", "bf", 2, after, ready=Ready.ONCE_SENT)
            assert [query.payout.line for query in (*first, *second)] == [1, 2, 3]
            assert end == 0

    async def test_one_look_up_speaks_of_many_chunks(self, journal_factory: JournalFactory) -> None:
        """Outcomes and contradictions of every chunk and run are told; what is nobody's key of ours is passed over."""
        async with journal_factory() as journal:
            await approved(journal, "one", chunk([1]), chunk([2], MOOV))
            await approved(journal, "two", chunk([3]), chunk([4], MOOV))
            sends = [await sent(journal, name, Receipt(State.UNKNOWN), lane) for name, lane in _BOTH_LANES_OF_BOTH_RUNS]
            keys = [dispatch.keys[0] for dispatch in sends]
            token = keys[0].split("-")[0]
            another = ("b" if token[0] == "a" else "a") + token[1:]
            foreign = [f"{another}-1-0", f"{token}-99-0", f"{token}-1-1", f"{token}-1-x", f"{token}-1", token, "-"]
            paid = [LookUpResult(key, Receipt(State.PAID)) for key in [*foreign, keys[0], keys[2]]]
            wrong = [LookUpResult(key, Receipt(State.PAID), 1) for key in (keys[1], keys[3])]
            applied = await journal.reconcile([paid[-2], wrong[0], paid[-1], wrong[1], *paid[:-2]])
            assert sorted((found.line, found.status) for found in applied.outcomes) == [
                (1, State.PAID),
                (2, State.HELD),
                (3, State.PAID),
                (4, State.HELD),
            ]
            assert len(applied.conflicts) == 2

    async def test_a_sighting_while_sending_is_passed_over(self, journal_factory: JournalFactory) -> None:
        """The dispatch is still being spoken: its own answer comes first."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            dispatch = await dispatched(journal, "run")
            applied = await journal.reconcile([LookUpResult(dispatch.keys[0], Receipt(State.PAID))])
            assert (list(applied.outcomes), list(applied.conflicts)) == ([], [])
            assert await states(journal, "run") == {1: State.SENDING}

    @pytest.mark.parametrize("state", [State.ACCEPTED, State.UNKNOWN])
    @pytest.mark.parametrize("wrong", ["amount", "recipient", "reference", "mode"])
    async def test_a_contradiction_about_an_open_payout_holds_it(
        self, journal_factory: JournalFactory, state: State, wrong: str
    ) -> None:
        """Another amount, recipient or provider reference, or what the provider's adapter says of the transfer itself,
        never becomes paid; a person is told once."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await sent(journal, "run", Receipt(state, provider_reference="T1"))
            result = LookUpResult(
                dispatch.keys[0],
                Receipt(State.PAID, provider_reference="T2" if wrong == "reference" else "T1"),
                999 if wrong == "amount" else 1001,
                "22679999999" if wrong == "recipient" else "22670000001",
                "the provider shows it as a test" if wrong == "mode" else "",
            )
            applied = await journal.reconcile([result])
            assert [(o.status, o.reason) for o in applied.outcomes] == [(State.HELD, "contradiction")]
            assert len(applied.conflicts) == 1
            assert "22679999999" not in applied.conflicts[0] + applied.outcomes[0].message
            assert [text for _, kind, text in await journal.notes("run") if kind == "conflict"] == applied.conflicts
            again = await journal.reconcile([result])
            assert (list(again.outcomes), list(again.conflicts)) == ([], [])
            assert await states(journal, "run") == {1: State.HELD, 2: state}

    async def test_a_payout_that_was_never_sent_but_is_seen_is_held(self, journal_factory: JournalFactory) -> None:
        """A transfer under the key of a ready payout means that we would pay twice."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            keys = (await journal.ready("run", ORANGE, 0, 1))[0].keys
            applied = await journal.reconcile([LookUpResult(keys[0], Receipt(State.FAILED), 1001)])
            assert [(o.line, o.status) for o in applied.outcomes] == [(1, State.HELD)]
            assert len(applied.conflicts) == 1
            assert list((await journal.ready("run", ORANGE, 0, 1))[0].indexes) == [1]

    @pytest.mark.parametrize(
        ("known", "seen", "reference"),
        [
            (State.PAID, State.FAILED, "T1"),
            (State.PAID, State.ACCEPTED, "T1"),
            (State.PAID, State.PAID, "T2"),
        ],
    )
    async def test_what_is_paid_stays_and_the_dispute_is_told(
        self, journal_factory: JournalFactory, known: State, seen: State, reference: str
    ) -> None:
        """A look-up result that disputes a payment changes nothing and is reported once."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            dispatch = await sent(journal, "run", Receipt(known, provider_reference="T1"))
            result = LookUpResult(dispatch.keys[0], Receipt(seen, provider_reference=reference))
            applied = await journal.reconcile([result])
            assert (list(applied.outcomes), len(applied.conflicts)) == ([], 1)
            assert list((await journal.reconcile([result])).conflicts) == []
            assert await states(journal, "run") == {1: known}

    @pytest.mark.parametrize(("seen", "reference"), [(State.PAID, "T1"), (State.ACCEPTED, "T1"), (State.FAILED, "T2")])
    async def test_what_failed_is_held_when_the_provider_shows_otherwise(
        self, journal_factory: JournalFactory, seen: State, reference: str
    ) -> None:
        """A failed payout counts as safe to pay again, so a look-up result that disputes it takes that away."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            dispatch = await sent(journal, "run", Receipt(State.FAILED, provider_reference="T1"))
            result = LookUpResult(dispatch.keys[0], Receipt(seen, provider_reference=reference))
            applied = await journal.reconcile([result])
            assert [outcome.status for outcome in applied.outcomes] == [State.HELD]
            assert len(applied.conflicts) == 1
            assert list((await journal.reconcile([result])).conflicts) == []
            assert await states(journal, "run") == {1: State.HELD}

    @pytest.mark.parametrize("known", [State.ACCEPTED, State.UNKNOWN, State.PAID])
    async def test_money_that_came_back_is_reversed(self, journal_factory: JournalFactory, known: State) -> None:
        """Paid goes to reversed; an open payout goes there by way of paid, and the log shows both steps."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await sent(journal, "run", Receipt(known))
            seen = [LookUpResult(key, Receipt(State.REVERSED, "expired")) for key in dispatch.keys]
            applied = await journal.reconcile([*seen, *seen])
            told = [State.REVERSED] if known is State.PAID else [State.PAID, State.REVERSED]
            for line in (1, 2):
                assert [found.status for found in applied.outcomes if found.line == line] == told
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
            applied = await journal.reconcile([LookUpResult(key, absent) for key in dispatch.keys])
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
            odd = LookUpResult(dispatch.keys[0], Receipt(State.UNKNOWN, "odd", provider_reference="T1"))
            applied = await journal.reconcile([odd])
            assert [outcome.status for outcome in applied.outcomes] == [State.ACCEPTED]
            other = msgspec.structs.replace(odd, receipt=Receipt(State.UNKNOWN, "queer", provider_reference="T1"))
            assert list((await journal.reconcile([other])).outcomes) == []  # New words of what is known are no news.
            found = await entry(journal, "run", 1)
            assert found.receipt.reason == "queer"
            assert (found.receipt.state, found.receipt.provider_reference) == (State.ACCEPTED, "T1")


_BOTH_LANES_OF_BOTH_RUNS = (("one", ORANGE), ("one", MOOV), ("two", ORANGE), ("two", MOOV))


async def sent_lines(journal: Journal, state: State) -> Sequence[Outcome]:
    """Send what is left of the lane that is paid abroad, and return what is told of it."""
    return await journal.record(await dispatched(journal, "run", IVORY), [Receipt(state), Receipt(state)])


def _up(boot: str, up_seconds: float) -> tuple[str, float]:
    return boot, up_seconds
