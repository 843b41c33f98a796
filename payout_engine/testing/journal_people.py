"""What every journal must do for the people who answer for the money; part of `JournalSuite`."""

from __future__ import annotations

import pytest

from payout_engine.domain.errors import DecisionError, JournalError
from payout_engine.domain.model import (
    Choice,
    ControlKind,
    ControlRequest,
    Decision,
    LookUpResult,
    Problem,
    Receipt,
    RunState,
)
from payout_engine.domain.states import State
from payout_engine.ports.journal import Journal
from payout_engine.testing.journal_lines import (
    IVORY,
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


async def one_of_each(journal: Journal) -> dict[State, str]:
    """Bring a run to where each payout stands differently; return their provider keys by state."""
    await journal.begin(run("run"))
    await journal.add("run", [chunk([1, 2, 3, 4]), chunk([5, 6], MOOV, reference="SAME"), refused([7])])
    duplicates = await every(journal.duplicates("run"))
    await journal.hold("run", {repeat.position: Problem("reference_repeated", "Again.") for repeat in duplicates})
    await journal.seal("run")
    await journal.approve("run")
    ends = [State.PAID, State.UNKNOWN, State.ACCEPTED, State.FAILED]
    await journal.record(await dispatched(journal, "run"), [Receipt(state) for state in ends])
    await journal.finish("run")
    return {found.receipt.state: found.key for found in await every(journal.entries("run"))}


def word(key: str, choice: Choice) -> Decision:
    """Return a decision of Awa's."""
    return Decision(key, choice, "Awa", "asked the provider")


class PeopleSuite:
    """Decisions, what the log says of a payout, digests and the proof."""

    # ---------------------------------------------------------------------------------------------------- decisions

    @pytest.mark.parametrize(
        ("state", "choice", "target"),
        [
            (State.HELD, Choice.PAID, State.PAID),
            (State.HELD, Choice.FAILED, State.FAILED),
            (State.HELD, Choice.SEND_AGAIN, State.READY),
            (State.HELD, Choice.CANCEL, State.CANCELLED),
            (State.UNKNOWN, Choice.PAID, State.PAID),
            (State.UNKNOWN, Choice.FAILED, State.FAILED),
            (State.UNKNOWN, Choice.SEND_AGAIN, State.READY),
            (State.ACCEPTED, Choice.PAID, State.PAID),
            (State.ACCEPTED, Choice.FAILED, State.FAILED),
        ],
    )
    async def test_a_decision_moves_by_way_of_held(
        self, journal_factory: JournalFactory, state: State, choice: Choice, target: State
    ) -> None:
        """What was not held passes through `held`; the last receipt names who and why; the proof holds."""
        async with journal_factory() as journal:
            key = (await one_of_each(journal))[state]
            outcomes = await journal.decide("run", [word(key, choice)])
            assert [outcome.status for outcome in outcomes] == [target]
            line = outcomes[0].line
            steps = [
                (step.kind, step.receipt.state) for step in (await journal.trace("run", {key}))[key] if step.receipt
            ]
            passed = [] if state is State.HELD else [("decision", State.HELD)]
            assert steps[-1 - len(passed) :] == [*passed, ("decision", target)]
            found = await entry(journal, "run", line)
            assert (found.receipt.state, found.receipt.message) == (target, "Awa: asked the provider")
            assert [outcome.status for outcome in await replay(journal, "run") if outcome.line == line][-1] is target
            assert (await journal.verify("run")).proven

    @pytest.mark.parametrize(
        ("state", "choice", "said"),
        [
            (State.ACCEPTED, Choice.SEND_AGAIN, "accepted it, so it cannot be sent again"),
            (State.ACCEPTED, Choice.CANCEL, "cannot be withdrawn"),
            (State.UNKNOWN, Choice.CANCEL, "cannot be withdrawn"),
            (State.PAID, Choice.SEND_AGAIN, "it is paid"),
            (State.FAILED, Choice.SEND_AGAIN, "it is failed"),
            (State.REJECTED, Choice.SEND_AGAIN, "it is rejected"),
            (State.READY, Choice.CANCEL, "it is ready"),
        ],
    )
    async def test_one_impossible_decision_stops_the_whole_batch(
        self, journal_factory: JournalFactory, state: State, choice: Choice, said: str
    ) -> None:
        """Nothing of the batch is recorded, and the line at fault is named."""
        async with journal_factory() as journal:
            keys = await one_of_each(journal)
            before, log = await states(journal, "run"), await replay(journal, "run")
            possible = State.HELD if state is not State.HELD else State.UNKNOWN
            with pytest.raises(DecisionError, match=said) as caught:
                await journal.decide("run", [word(keys[possible], Choice.PAID), word(keys[state], choice)])
            assert "line " in str(caught.value)
            assert await states(journal, "run") == before
            assert await replay(journal, "run") == log

    async def test_keys_of_elsewhere_and_second_words_are_refused(self, journal_factory: JournalFactory) -> None:
        """A key of another run, one that never was, and two words on one payout stop the batch."""
        async with journal_factory() as journal:
            keys = await one_of_each(journal)
            await approved(journal, "other", chunk([21]))
            other = (await sent(journal, "other", Receipt(State.UNKNOWN))).keys[0]
            token = keys[State.HELD].split("-")[0]
            for wrong in (other, f"{token}-9-0", f"{token}-1-99", "nonsense"):
                with pytest.raises(DecisionError, match=wrong):
                    await journal.decide("run", [word(wrong, Choice.PAID)])
            twice = [word(keys[State.HELD], choice) for choice in (Choice.PAID, Choice.FAILED)]
            with pytest.raises(DecisionError, match="twice"):
                await journal.decide("run", twice)

    async def test_a_batch_names_all_that_is_wrong_with_it(self, journal_factory: JournalFactory) -> None:
        """Whatever chunk it is in, and whether there is such a key or not; of very many the first are named."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]), chunk([3, 4], MOOV), chunk(range(5, 46), IVORY))
            ours = {found.payout.line: found.key for found in await every(journal.entries("run"))}
            token = ours[1].split("-")[0]
            wrong = ["nonsense", "nothing-1-0", f"{token}-1-2", f"{token}-1-63", f"{token}-99-0", ours[1], ours[4]]
            with pytest.raises(DecisionError) as caught:
                await journal.decide("run", [word(key, Choice.PAID) for key in wrong[:2]])
            assert all(key in str(caught.value) for key in wrong[:2])
            with pytest.raises(DecisionError) as caught:
                await journal.decide("run", [word(key, Choice.PAID) for key in wrong[2:]])
            said = str(caught.value)
            assert all(f"key {key}" in said for key in wrong[2:5])
            assert "line 1, " in said and "line 4, " in said and "`resume` sends it" in said
            with pytest.raises(DecisionError) as caught:
                await journal.decide("run", [word(ours[line], Choice.PAID) for line in range(5, 25)])
            assert "line 24, " in str(caught.value) and str(caught.value).endswith("`resume` sends it.")
            with pytest.raises(DecisionError) as caught:
                await journal.decide("run", [word(ours[line], Choice.PAID) for line in range(5, 26)])
            assert "line 25, " not in str(caught.value) and str(caught.value).endswith("; and 1 more.")

    async def test_one_batch_decides_in_many_chunks(self, journal_factory: JournalFactory) -> None:
        """Each payout has its outcome, in the order of the lines."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([3, 4]), chunk([1, 2], MOOV))
            for lane in (ORANGE, MOOV):
                await sent(journal, "run", Receipt(State.UNKNOWN), lane)
            keys = [found.key for found in await every(journal.entries("run"))]
            outcomes = await journal.decide("run", [word(key, Choice.PAID) for key in keys])
            assert [(found.line, found.status) for found in outcomes] == [(line, State.PAID) for line in (1, 2, 3, 4)]

    async def test_what_was_held_for_a_contradiction_is_not_withdrawn(self, journal_factory: JournalFactory) -> None:
        """The provider shows a transfer of a payout that was never sent: whose it is, only the provider can say."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            key = (await entry(journal, "run", 1)).key
            assert (await journal.reconcile([LookUpResult(key, Receipt(State.PAID))])).conflicts
            with pytest.raises(DecisionError, match="cannot be withdrawn"):
                await journal.decide("run", [word(key, Choice.CANCEL)])

    async def test_nobody_decides_before_the_approval(self, journal_factory: JournalFactory) -> None:
        """What nobody approved is not sent by a decision either."""
        async with journal_factory() as journal:
            await validated(journal, "run", chunk([1]))
            with pytest.raises(DecisionError, match="never approved"):
                await journal.decide("run", [word((await entry(journal, "run", 1)).key, Choice.PAID)])

    async def test_what_is_sent_again_keeps_its_key(self, journal_factory: JournalFactory) -> None:
        """A released payout is ready under the same key, its run is paying again, and a late first transfer shows."""
        async with journal_factory() as journal:
            key = (await one_of_each(journal))[State.UNKNOWN]
            await journal.decide("run", [word(key, Choice.SEND_AGAIN)])
            found = await journal.find("run")
            assert found is not None and (found.state, found.finished_at) == (RunState.PAYING, None)
            again = await dispatched(journal, "run")
            assert list(again.keys) == [key]
            await journal.record(again, [Receipt(State.PAID, provider_reference="T2")])
            late = LookUpResult(key, Receipt(State.PAID, provider_reference="T1"))
            assert len((await journal.reconcile([late])).conflicts) == 1
            assert (await journal.verify("run")).proven

    async def test_the_provider_may_contradict_a_person(self, journal_factory: JournalFactory) -> None:
        """A payout that a person called failed and the provider shows as paid is held again."""
        async with journal_factory() as journal:
            key = (await one_of_each(journal))[State.UNKNOWN]
            await journal.decide("run", [word(key, Choice.FAILED)])
            assert len((await journal.reconcile([LookUpResult(key, Receipt(State.PAID))])).conflicts) == 1
            assert (await entry(journal, "run", 2)).receipt.state is State.HELD
            with pytest.raises(DecisionError, match="cannot be withdrawn"):
                await journal.decide("run", [word(key, Choice.CANCEL)])

    # -------------------------------------------------------------------------------------------- trace and the proof

    async def test_a_trace_tells_everything_of_one_payout(self, journal_factory: JournalFactory) -> None:
        """Sent, answered, looked up: each step with its kind, in order, and nothing of its neighbours."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await dispatched(journal, "run")
            await journal.recover("run")
            await journal.reconcile([LookUpResult(dispatch.keys[1], Receipt(State.READY, "absent"))])
            again = await dispatched(journal, "run")
            await journal.record(again, [Receipt(State.FAILED, "closed")])
            told = await journal.trace("run", set(dispatch.keys))
            kinds = {key: [(step.kind, step.receipt and step.receipt.state) for step in told[key]] for key in told}
            lost = [("intent", None), ("recover", State.UNKNOWN)]
            found = [*lost, ("sighting", State.READY), ("intent", None), ("receipts", State.FAILED)]
            assert kinds == {dispatch.keys[0]: lost, dispatch.keys[1]: found}
            assert all(step.at for steps in told.values() for step in steps)

    async def test_an_honest_journal_is_proven(self, journal_factory: JournalFactory) -> None:
        """Every kind of entry and a run beside it: nothing is found, and the totals are those of the tally."""
        async with journal_factory() as journal:
            await one_of_each(journal)
            await approved(journal, "other", *(chunk([number]) for number in range(31, 60)))
            for ready in await journal.ready("other", ORANGE, 0, 99):
                await journal.record(await journal.intend(ready), [Receipt(State.READY)])
                await journal.record(await journal.intend(ready), [Receipt(State.PAID)])
            for run_id, payouts, dispatches in (("run", 7, 1), ("other", 29, 58)):
                audit = await journal.verify(run_id)
                assert (audit.findings, audit.found, audit.proven) == ([], 0, True)
                assert (audit.payouts, audit.dispatches) == (payouts, dispatches)
                assert list(audit.totals) == list(await journal.tally(run_id))
                assert audit.digest == await journal.digest(run_id)

    async def test_the_digest_changes_with_every_entry_of_the_run(self, journal_factory: JournalFactory) -> None:
        """It is empty before the seal, stays while nothing happens, and moves with each thing that does."""
        async with journal_factory() as journal:
            await journal.begin(run("run"))
            await journal.add("run", [chunk([1])])
            seen = [await journal.digest("run")]
            assert seen == [""]
            with pytest.raises(JournalError, match="never validated"):
                await journal.verify("run")
            await journal.seal("run")
            seen.append(await journal.digest("run"))
            await journal.approve("run")
            await sent(journal, "run", Receipt(State.UNKNOWN))
            seen.append(await journal.digest("run"))
            await journal.note("run", "remark", "Hello.")
            seen.append(await journal.digest("run"))
            assert await journal.digest("run") == seen[-1]
            assert len(set(seen)) == 4

    async def test_a_note_before_the_seal_is_kept_and_spoils_no_proof(self, journal_factory: JournalFactory) -> None:
        """Who remarks on a run, or asks something of it, while its file is read is heard; the run stays proven."""
        async with journal_factory() as journal:
            await journal.begin(run("run"))
            await journal.note("run", "remark", "Early.")
            await journal.request("run", ControlRequest(ControlKind.PAUSE, "awa"))
            await journal.acknowledge("run", ControlKind.PAUSE, True)
            await journal.add("run", [chunk([1])])
            assert await journal.digest("run") == ""
            with pytest.raises(JournalError, match="never validated"):
                await journal.verify("run")
            await journal.seal("run")
            assert (await journal.verify("run")).proven
            await journal.approve("run")
            await sent(journal, "run", Receipt(State.PAID))
            audit = await journal.verify("run", await journal.digest("run"))
            assert (audit.findings, audit.proven) == ([], True)
            assert [kind for _, kind, _ in await journal.notes("run")] == ["remark", "asked_pause"]

    async def test_an_unknown_run_cannot_be_proven(self, journal_factory: JournalFactory) -> None:
        """Asking for the proof of a run that does not exist names it."""
        async with journal_factory() as journal:
            with pytest.raises(JournalError, match="no run nowhere"):
                await journal.verify("nowhere")
