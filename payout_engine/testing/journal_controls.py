"""What every journal must do when a person asks for something; part of `JournalSuite`."""

from __future__ import annotations

import pytest

from payout_engine.domain.errors import DecisionError, IllegalMoveError, JournalError
from payout_engine.domain.model import Choice, ControlKind, ControlRequest, Decision, LookUpResult, Problem, Receipt
from payout_engine.domain.states import State
from payout_engine.journal.requests import ONCE_SENT
from payout_engine.testing.journal_lines import (
    MOOV,
    ORANGE,
    JournalFactory,
    approved,
    chunk,
    dispatched,
    entry,
    every,
    payout,
    refused,
    replay,
    run,
    said,
    sent,
    states,
    validated,
)

CANCEL = ControlRequest(ControlKind.CANCEL, "awa", "wrong month")
DOUBT = Problem("payee_amount_repeated", "Again.")


class ControlsSuite:
    """Requests from other processes, and withdrawing what was never sent."""

    async def test_a_request_stands_until_it_is_done(self, journal_factory: JournalFactory) -> None:
        """It is heard, replaced by a later one of its kind, and gone when done; other kinds and runs are untouched."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await approved(journal, "other", chunk([2]))
            assert await journal.requests("run") == []
            await journal.request("run", CANCEL)
            await journal.request("run", ControlRequest(ControlKind.PAUSE, "issa"))
            await journal.acknowledge("run", ControlKind.PAUSE, False)
            cancel, pause = await journal.requests("run")
            assert (cancel.who, cancel.why, cancel.acknowledged, cancel.at > 0) == ("awa", "wrong month", False, True)
            assert (pause.who, pause.why, pause.acknowledged) == ("issa", "", True)
            await journal.request("run", ControlRequest(ControlKind.PAUSE, "awa"))
            assert [(asked.who, asked.acknowledged) for asked in await journal.requests("run")][1:] == [("awa", False)]
            await journal.acknowledge("run", ControlKind.PAUSE, True)
            assert await journal.requests("run") == [cancel]
            assert await journal.requests("other") == []

    async def test_what_proves_absent_in_a_cancelled_run_is_not_sent(self, journal_factory: JournalFactory) -> None:
        """A cancellation is for good: what was in doubt then and was never received is not ready. It was sent: held."""
        async with journal_factory() as journal:
            for name, lines in ("run", [1, 2]), ("other", [3]):
                await approved(journal, name, chunk(lines))
                dispatch = await sent(journal, name, Receipt(State.UNKNOWN))
                if name == "run":
                    await journal.request(name, CANCEL)
                    await journal.cancel(name, CANCEL, 0, 9)
                    await journal.acknowledge(name, ControlKind.CANCEL, True)
                applied = await journal.reconcile([LookUpResult(dispatch.keys[0], Receipt(State.READY, "absent"))])
                assert applied.outcomes[0].status is State.READY
            assert await states(journal, "run") == {1: State.HELD, 2: State.UNKNOWN}
            assert await states(journal, "other") == {3: State.READY}
            (held,) = [found for found in await every(journal.entries("run")) if found.payout.line == 1]
            assert "awa: wrong month" in held.receipt.message
            assert await journal.ready("run", ORANGE, 0, 9) == []
            assert (await journal.verify("run")).proven

    async def test_what_was_asked_of_a_run_goes_with_it(self, journal_factory: JournalFactory) -> None:
        """A discarded run leaves no request behind, which would belong to nothing: every other run is proved still."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await validated(journal, "validated", chunk([2]))
            for kind in ControlKind:
                await journal.request("validated", ControlRequest(kind, "awa"))
            await journal.discard("validated")
            assert (await journal.verify("run")).proven

    async def test_what_is_asked_before_the_seal_breaks_no_proof(self, journal_factory: JournalFactory) -> None:
        """A request may come, and be done, while the file is still being read; the run is proved all the same."""
        async with journal_factory() as journal:
            await journal.begin(run("run"))
            await journal.add("run", [chunk([1])])
            await journal.request("run", ControlRequest(ControlKind.PAUSE, "awa"))
            await journal.acknowledge("run", ControlKind.PAUSE, True)
            with pytest.raises(JournalError):
                await journal.verify("run")
            await journal.seal("run")
            await journal.approve("run")
            assert (await journal.verify("run")).findings == []

    async def test_the_last_cancellation_is_the_one_that_holds(self, journal_factory: JournalFactory) -> None:
        """Whoever asked last, with all of the reason, is named on what proves absent afterwards."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            dispatch = await sent(journal, "run", Receipt(State.UNKNOWN))
            await journal.request("run", CANCEL)
            await journal.request("run", ControlRequest(ControlKind.CANCEL, "issa", "wrong: month"))
            applied = await journal.reconcile([LookUpResult(dispatch.keys[0], Receipt(State.READY, "absent"))])
            assert [found.status for found in applied.outcomes] == [State.READY, State.HELD]
            assert applied.outcomes[-1].message.endswith("Cancelled by issa: wrong: month.")
            again = await journal.reconcile([LookUpResult(dispatch.keys[0], Receipt(State.PAID))])
            assert len(again.conflicts) == 1

    async def test_what_a_person_has_settled_is_not_withdrawn(self, journal_factory: JournalFactory) -> None:
        """A line that was never sent from here, and that a person paid otherwise, stays paid when the rest goes."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]))
            (ready,) = await journal.ready("run", ORANGE, 0, 1)
            await journal.hold("run", {ready.chunk_id << 10: DOUBT})
            await journal.decide("run", [Decision(ready.keys[0], Choice.PAID, "awa", "paid in cash")])
            outcomes, _ = await journal.cancel("run", CANCEL, 0, 9)
            assert [outcome.line for outcome in outcomes] == [2, 3]
            assert all(outcome.at > 0 for outcome in outcomes)
            assert await states(journal, "run") == {1: State.PAID, 2: State.CANCELLED, 3: State.CANCELLED}

    async def test_who_asked_and_why_stays_in_the_log(self, journal_factory: JournalFactory) -> None:
        """A request that is done is still told among the remarks."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await journal.request("run", CANCEL)
            await journal.acknowledge("run", ControlKind.CANCEL, True)
            assert [note[1:] for note in await journal.notes("run")] == [("asked_cancel", "awa: wrong month")]

    async def test_what_was_never_sent_is_withdrawn_and_nothing_else(self, journal_factory: JournalFactory) -> None:
        """Ready lines and lines held before sending are cancelled; whatever a provider may have waits for a person."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]), chunk([3, 4], MOOV), chunk([5, 6]), refused([7]))
            positions = {r.payouts[0].line: r.chunk_id << 10 for r in await journal.ready("run", ORANGE, 0, 9)}
            await sent(journal, "run", Receipt(State.ACCEPTED))
            await journal.record(
                await dispatched(journal, "run", MOOV), [Receipt(State.UNKNOWN), Receipt(State.READY, "refused")]
            )
            await journal.hold("run", {positions[5]: DOUBT})
            outcomes, after = await journal.cancel("run", CANCEL, 0, 9)
            assert (await replay(journal, "run"))[-len(outcomes) :] == list(outcomes)
            assert after == 0
            assert [(o.line, o.status, o.message) for o in outcomes] == [
                (4, State.HELD, f"{ONCE_SENT} Cancelled by awa: wrong month."),
                *((line, State.CANCELLED, "Withdrawn by awa: wrong month") for line in (5, 6)),
            ]
            assert await states(journal, "run") == {
                1: State.ACCEPTED,
                2: State.ACCEPTED,
                3: State.UNKNOWN,
                4: State.HELD,
                **dict.fromkeys((5, 6), State.CANCELLED),
                7: State.REJECTED,
            }
            assert [o.line for o in await replay(journal, "run") if o.status is State.CANCELLED] == [5, 6]
            assert await journal.ready("run", ORANGE, 0, 9) == []
            assert await journal.cancel("run", CANCEL, 0, 9) == ([], 0)
            assert (await journal.verify("run")).proven

    async def test_what_a_person_released_is_not_withdrawn(self, journal_factory: JournalFactory) -> None:
        """`cancelled` means never sent: what was in doubt and waits to be sent again may be at the provider."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await sent(journal, "run", Receipt(State.UNKNOWN, "timeout"))
            words = [Decision(key, Choice.SEND_AGAIN, "awa", "asked them") for key in dispatch.keys]
            await journal.decide("run", words)
            outcomes, _ = await journal.cancel("run", CANCEL, 0, 9)
            assert {(outcome.line, outcome.status) for outcome in outcomes} == {(1, State.HELD), (2, State.HELD)}
            assert await journal.ready("run", ORANGE, 0, 9) == []
            with pytest.raises(DecisionError, match="cannot be withdrawn"):
                await journal.decide("run", [Decision(dispatch.keys[0], Choice.CANCEL, "awa", "never mind")])
            await journal.decide("run", [Decision(dispatch.keys[0], Choice.FAILED, "awa", "they say so")])
            assert (await journal.verify("run")).proven

    async def test_what_never_left_this_machine_is_withdrawn(self, journal_factory: JournalFactory) -> None:
        """A call that provably never left is no sending: its payouts were never on the wire."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await dispatched(journal, "run")
            with pytest.raises(IllegalMoveError, match="never left"):
                await journal.record(dispatch, [Receipt(State.UNKNOWN)], on_wire=False)
            await journal.record(dispatch, [Receipt(State.READY, "connection_refused")], on_wire=False)
            outcomes, _ = await journal.cancel("run", CANCEL, 0, 9)
            assert [outcome.status for outcome in outcomes] == [State.CANCELLED] * 2
            assert (await journal.verify("run")).proven

    async def test_what_a_provider_showed_is_not_withdrawn(self, journal_factory: JournalFactory) -> None:
        """A line held because of what the provider shows may have been paid, though it was never sent from here."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            key = (await entry(journal, "run", 1)).key
            await journal.reconcile([LookUpResult(key, Receipt(State.PAID, provider_reference="T1"))])
            outcomes, _ = await journal.cancel("run", CANCEL, 0, 9)
            assert [outcome.line for outcome in outcomes] == [2]
            assert (await states(journal, "run"))[1] is State.HELD

    async def test_what_was_sent_and_then_held_is_not_withdrawn(self, journal_factory: JournalFactory) -> None:
        """A line that was on the wire once is for a person to settle."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await sent(journal, "run", Receipt(State.READY, "never_left"))
            (ready,) = await journal.ready("run", ORANGE, 0, 1)
            await journal.hold("run", {ready.chunk_id << 10: DOUBT})
            assert await journal.cancel("run", CANCEL, 0, 9) == ([], 0)

    async def test_a_withdrawn_line_that_the_provider_shows_is_held(self, journal_factory: JournalFactory) -> None:
        """Cancelled means safe to pay again; a transfer that shows up takes that back."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await journal.cancel("run", CANCEL, 0, 9)
            key = (await entry(journal, "run", 1)).key
            applied = await journal.reconcile([LookUpResult(key, Receipt(State.PAID, provider_reference="T1"))])
            assert len(applied.conflicts) == 1
            assert await states(journal, "run") == {1: State.HELD}

    @pytest.mark.parametrize(("limit", "pages_expected"), [(1, 8), (3, 3)])
    async def test_withdrawing_goes_in_pages(
        self, journal_factory: JournalFactory, limit: int, pages_expected: int
    ) -> None:
        """Page by page everything is withdrawn once; the last page is known by not being full."""
        async with journal_factory() as journal:
            await approved(journal, "run", *(chunk([n]) for n in range(1, 8)))
            lines, after, pages = list[int](), 0, 0
            while pages == 0 or (after and pages < 9):
                outcomes, after = await journal.cancel("run", CANCEL, after, limit)
                lines += [outcome.line for outcome in outcomes]
                pages += 1
            assert lines == list(range(1, 8))
            assert pages == pages_expected

    async def test_what_stays_does_not_hold_up_the_pages(self, journal_factory: JournalFactory) -> None:
        """A chunk of which nothing can be withdrawn is passed once, and the next page begins behind it."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]), chunk([2]))
            await journal.reconcile([LookUpResult((await entry(journal, "run", 1)).key, Receipt(State.PAID))])
            outcomes, after = await journal.cancel("run", CANCEL, 0, 1)
            assert list(outcomes) == []
            outcomes, _ = await journal.cancel("run", CANCEL, after, 1)
            assert [outcome.line for outcome in outcomes] == [2]

    async def test_a_request_keeps_its_time(self, journal_factory: JournalFactory) -> None:
        """When a person asked is not when it is written down."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await journal.request("run", ControlRequest(ControlKind.PAUSE, "awa", at=5.0))
            assert [asked.at for asked in await journal.requests("run")] == [5.0]

    async def test_nothing_is_withdrawn_before_approval(self, journal_factory: JournalFactory) -> None:
        """A run that nobody approved is discarded, not cancelled."""
        async with journal_factory() as journal:
            await validated(journal, "run", chunk([1]))
            with pytest.raises(IllegalMoveError):
                await journal.cancel("run", CANCEL, 0, 9)

    async def test_withdrawn_lines_may_be_paid_by_another_run(self, journal_factory: JournalFactory) -> None:
        """A cancelled line uses up neither its reference nor its recipient and amount; a retry remembers its origin."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            await journal.cancel("run", CANCEL, 0, 9)
            await validated(journal, "again", chunk([1, 2]), retry_of="run")
            assert said(await every(journal.duplicates("again"))) == set()
            assert payout(1) == (await entry(journal, "again", 1)).payout
            assert [found.retry_of for found in await journal.runs()] == ["run", ""]

    async def test_a_transfer_of_what_was_withdrawn_holds_it_and_the_run_stays_proven(
        self, journal_factory: JournalFactory
    ) -> None:
        """The provider contradicts us, and nobody altered anything."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            key = (await entry(journal, "run", 1)).key
            await journal.cancel("run", ControlRequest(ControlKind.CANCEL, "awa"), 0, 9)
            assert len((await journal.reconcile([LookUpResult(key, Receipt(State.PAID))])).conflicts) == 1
            assert await states(journal, "run") == {1: State.HELD}
            assert (await journal.verify("run")).findings == []

    async def test_what_is_absent_and_shown_in_one_look_up_is_not_withdrawn(
        self, journal_factory: JournalFactory
    ) -> None:
        """A cancelled run takes back what proves absent, but not what the same look-up goes on to show."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            dispatch = await sent(journal, "run", Receipt(State.UNKNOWN))
            await journal.request("run", ControlRequest(ControlKind.CANCEL, "awa"))
            shown = [LookUpResult(dispatch.keys[0], Receipt(state)) for state in (State.READY, State.PAID)]
            assert len((await journal.reconcile(shown)).conflicts) == 1
            assert await states(journal, "run") == {1: State.HELD}
