"""What every journal must find when a file repeats another; part of `JournalSuite`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from payout_engine.domain import clock
from payout_engine.domain.limits import DUPLICATE_WINDOW_SECONDS
from payout_engine.domain.model import (
    Choice,
    Chunk,
    ControlKind,
    ControlRequest,
    Decision,
    DuplicateKind,
    LookUpResult,
    Problem,
    Receipt,
)
from payout_engine.domain.references import derived_start
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
    every,
    payout,
    run,
    said,
    sent,
    states,
    validated,
)


@contextmanager
def later_by(seconds: float, *, wall_seconds: float | None = None, boot: str = "") -> Iterator[None]:
    """Let time pass: `seconds` by the uptime, and as much by the wall clock unless it is said otherwise.

    Args:
        seconds: since the machine was started, if `boot` names another start; else from now.
        wall_seconds: from now.
        boot: another start of the machine.
    """
    here = clock.moment()
    wall = seconds if wall_seconds is None else wall_seconds
    up = (boot, seconds) if boot else (here.boot, here.up_seconds + seconds)
    with clock.replaced(lambda: here.at + wall, lambda: up):
        yield


async def kinds_after(
    journal: Journal, seconds: float, *, wall_seconds: float | None = None, boot: str = "", line: int = 1
) -> set[DuplicateKind]:
    """Return in what a line repeats an earlier run when it is validated again so much later."""
    with later_by(seconds, wall_seconds=wall_seconds, boot=boot):
        await journal.begin(run("new"))
        await journal.add("new", [chunk([line])])
        kinds = {repeat.kind for repeat in await every(journal.duplicates("new"))}
        await journal.discard("new")
    return kinds


class DuplicatesSuite:
    """Repeats, of whatever kind."""

    async def test_repeats_within_a_file_name_the_lowest_line(self, journal_factory: JournalFactory) -> None:
        """All but the lowest line are repeats of it, across lanes and whatever the order of the chunks."""
        async with journal_factory() as journal:
            await journal.begin(run("run"))
            await journal.add(
                "run", [chunk([5, 9], reference="SAME"), chunk([2], MOOV, reference="SAME"), chunk([3, 4])]
            )
            found = await every(journal.duplicates("run"))
            assert said(found) == {
                (5, DuplicateKind.REFERENCE, "run", 2, True),
                (9, DuplicateKind.REFERENCE, "run", 2, True),
            }
            assert {repeat.earlier_at for repeat in found} == {0.0}
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
            assert said(await every(journal.duplicates("run"))) == {(2, DuplicateKind.PAYEE_AMOUNT, "run", 1, True)}

    async def test_earlier_approved_runs_count(self, journal_factory: JournalFactory) -> None:
        """A payout of an approved run is found with its run, line, state and time; of an unapproved one it is not."""
        async with journal_factory() as journal:
            await validated(journal, "nobody said yes", chunk([1, 2, 3]))
            await journal.begin(run("later"))
            await journal.add("later", [chunk([2])])
            assert await every(journal.duplicates("later")) == []
            await journal.discard("later")

            await approved(journal, "earlier", chunk([1, 2]))
            await sent(journal, "earlier", Receipt(State.UNKNOWN, "timeout"))
            await journal.begin(run("new"))
            await journal.add("new", [chunk([2, 3])])
            found = await every(journal.duplicates("new"))
            assert said(found) == {(2, kind, "earlier", 2, False) for kind in DuplicateKind}
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
            found = said(await every(journal.duplicates("new")))
            assert found == {(2, kind, "earlier", 2, False) for kind in DuplicateKind}

    async def test_derived_references_are_not_compared(self, journal_factory: JournalFactory) -> None:
        """A run without references of its own is compared by payee and amount alone."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1, 2]))
            await journal.begin(run("new", has_references=False))
            await journal.add("new", [chunk([1], phone="22671000000"), chunk([2], reference="other")])
            found = said(await every(journal.duplicates("new")))
            assert found == {(2, DuplicateKind.PAYEE_AMOUNT, "earlier", 2, False)}

    async def test_payee_and_amount_age(self, journal_factory: JournalFactory) -> None:
        """A window after the money went, an equal payee and amount is next month's salary; a reference never ages."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1]))
            await sent(journal, "earlier", Receipt(State.PAID))
            assert await kinds_after(journal, DUPLICATE_WINDOW_SECONDS - 60) == set(DuplicateKind)
            assert await kinds_after(journal, DUPLICATE_WINDOW_SECONDS + 60) == set(DuplicateKind) - {
                DuplicateKind.PAYEE_AMOUNT
            }

    async def test_the_window_counts_from_the_money(self, journal_factory: JournalFactory) -> None:
        """However long ago a run was approved: what was sent today counts, and so does what may still be sent."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1]))
            with later_by(DUPLICATE_WINDOW_SECONDS + 3_600):
                await sent(journal, "earlier", Receipt(State.PAID))
            assert DuplicateKind.PAYEE_AMOUNT in await kinds_after(journal, DUPLICATE_WINDOW_SECONDS + 7_200)
            for number, known in enumerate((None, State.UNKNOWN, State.ACCEPTED, State.READY), start=2):
                await approved(journal, f"earlier {number}", chunk([number]))
                if known is not None:
                    await sent(journal, f"earlier {number}", Receipt(known))
                kinds = await kinds_after(journal, 4 * DUPLICATE_WINDOW_SECONDS, line=number)
                assert DuplicateKind.PAYEE_AMOUNT in kinds, known

    async def test_a_clock_set_forward_does_not_end_the_window(self, journal_factory: JournalFactory) -> None:
        """Ages go by the uptime of the machine; after a restart by the wall clock, as far as it was not set forward."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1]), chunk([2]))
            await sent(journal, "earlier", Receipt(State.PAID))
            window = DUPLICATE_WINDOW_SECONDS
            assert DuplicateKind.PAYEE_AMOUNT in await kinds_after(journal, 60, wall_seconds=window + 60)
            assert DuplicateKind.PAYEE_AMOUNT in await kinds_after(journal, 60, wall_seconds=-window)
            assert DuplicateKind.PAYEE_AMOUNT not in await kinds_after(journal, 60, wall_seconds=window + 60, boot="b")
            with later_by(3_600, wall_seconds=3_600, boot="b"):
                await sent(journal, "earlier", Receipt(State.PAID))
            assert DuplicateKind.PAYEE_AMOUNT in await kinds_after(journal, 7_200, wall_seconds=window + 60, boot="b")

    async def test_a_file_saved_again_is_the_same_file(self, journal_factory: JournalFactory) -> None:
        """References that only a program writes otherwise repeat each other, with the same payee and amount."""
        spellings = {
            "0001": "1",
            "SAL-é": "SAL-e\u0301",
            "SAL 2": "SAL2",
            " x3 ": "x3",
            "'4x": "4x",
            "R-5": "r-5",
            "6": "6.0",
            "8": "8,00",
            "\u00a07\u2019y": "7y",
        }
        async with journal_factory() as journal:
            for number, (ours, theirs) in enumerate(spellings.items(), start=1):
                earlier, new = f"earlier {number}", f"new {number}"
                await approved(journal, earlier, chunk([number], reference=ours))
                await journal.begin(run(new))
                again = chunk([number], reference=theirs)
                other = chunk([number + 50], reference=theirs)
                await journal.add(new, [again, other])
                found = said(await every(journal.duplicates(new)))
                assert (number, DuplicateKind.REFERENCE_ALIKE, earlier, number, False) in found, (ours, theirs)
                assert not [one for one in found if one[0] == number + 50 and not one[4]], "another payee or amount"
                await journal.discard(new)

    async def test_the_cells_of_a_line_are_known_in_any_order(self, journal_factory: JournalFactory) -> None:
        """A line with the cells of an earlier one repeats it, whatever column is called the reference, or none."""
        async with journal_factory() as journal:
            first = payout(1)
            await approved(journal, "earlier", Chunk(ORANGE, [first], [["0017", "Awa É", "70 00 00 01", "1001"]]))
            await sent(journal, "earlier", Receipt(State.PAID))
            for number, has_references in enumerate([True, False]):
                new = f"new {number}"
                await journal.begin(run(new, has_references=has_references))
                same = payout(9, reference="Awa", phone="22670999999")
                cells = [["1001", "AWA E\u0301", "17", "70000001"], ["1001", "Awa É", "18", "70000001"]]
                await journal.add(new, [Chunk(ORANGE, [same, payout(10, reference="x")], cells)])
                with later_by(3 * DUPLICATE_WINDOW_SECONDS):
                    found = said(await every(journal.duplicates(new)))
                assert found == {(9, DuplicateKind.CELLS, "earlier", 1, False)}
                await journal.discard(new)

    async def test_what_our_results_add_is_no_cell_of_the_line(self, journal_factory: JournalFactory) -> None:
        """A results file fed back has the cells of the file it came from."""
        async with journal_factory() as journal:
            columns = ("reference", "phone")
            first = Chunk(ORANGE, [payout(1)], [["SAL-00001", "22670000001"]])
            await journal.begin(msgspec.structs.replace(run("earlier"), columns=columns))
            await journal.add("earlier", [first])
            await journal.seal("earlier")
            await journal.approve("earlier")
            await journal.begin(msgspec.structs.replace(run("new"), columns=(*columns, "payout_line", "payout_status")))
            fed_back = Chunk(ORANGE, [payout(1, reference="?")], [["SAL-00001", "22670000001", "1", "unknown"]])
            await journal.add("new", [fed_back])
            assert (1, DuplicateKind.CELLS, "earlier", 1, False) in said(await every(journal.duplicates("new")))

    async def test_a_results_file_that_is_paid_can_be_proven(self, journal_factory: JournalFactory) -> None:
        """The keys of its lines are those of the payer's own cells, to whoever proves the run as well."""
        async with journal_factory() as journal:
            await journal.begin(msgspec.structs.replace(run("run"), columns=("reference", "phone", "payout_line")))
            rows = [[item.reference, item.phone, "7"] for item in chunk([1, 2]).payouts]
            await journal.add("run", [Chunk(ORANGE, chunk([1, 2]).payouts, rows)])
            await journal.seal("run")
            assert await journal.approve("run")
            assert (await journal.verify("run")).proven

    async def test_a_run_that_was_approved_is_compared_again_with_what_came_to_light(
        self, journal_factory: JournalFactory
    ) -> None:
        """A failed line that turns out to be paid repeats a line that still waits; a person's word is not undone."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1, 2, 3]))
            dispatch = await sent(journal, "earlier", Receipt(State.FAILED))
            await approved(journal, "again", chunk([1, 2, 3]), chunk([4]))
            assert await every(journal.duplicates("again")) == []
            assert await journal.former_accounts("again") == []
            paid = [LookUpResult(key, Receipt(State.PAID, provider_reference=f"T{key}")) for key in dispatch.keys[:2]]
            await journal.reconcile(paid)
            found = await every(journal.duplicates("again"))
            assert {repeat.payout.line for repeat in found} == {1, 2}
            await journal.hold("again", {repeat.position: Problem("repeated", "Again.") for repeat in found})
            entries = await every(journal.entries("again"))
            key = next(one.key for one in entries if one.payout.line == 1)
            await journal.decide("again", [Decision(key, Choice.SEND_AGAIN, "awa", "a second payment")])
            assert await every(journal.duplicates("again")) == []
            assert await states(journal, "again") == {
                1: State.READY,
                2: State.HELD,
                3: State.READY,
                4: State.READY,
            }

    async def test_what_may_have_been_sent_before_is_known(self, journal_factory: JournalFactory) -> None:
        """Earlier lines that count as unpaid, and that a new run may pay again, can be asked about, each once."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1, 2, 3]), chunk([4, 5], IVORY))
            dispatch = await sent(journal, "earlier", Receipt(State.FAILED))
            await journal.cancel("earlier", ControlRequest(ControlKind.CANCEL, "awa"), 0, 9)
            await validated(journal, "again", chunk([2, 3]), chunk([4], IVORY), chunk([9]))
            assert await every(journal.duplicates("again")) == []
            other = Chunk(ORANGE, [payout(1, reference="another")], [["another"]])
            await validated(journal, "another", other)
            assert await every(journal.duplicates("another")) == []
            assert await journal.former_accounts("another") == [], "people are paid the same every day"
            await validated(journal, "bare", other, has_references=False)
            assert await every(journal.duplicates("bare")) == []
            assert await journal.former_accounts("bare") == ["bf"]
            ours = Chunk(ORANGE, [payout(1, reference=f"{derived_start('0' * 64)}1")], [["filled in"]])
            await validated(journal, "filled in", ours)
            assert await every(journal.duplicates("filled in")) == []
            assert await journal.former_accounts("filled in") == ["bf"], "a reference of ours is none of the payer's"
            assert await journal.former_accounts("again") == ["bf", "ci"]
            first, after = await journal.former_queries("again", "bf", 1)
            second, end = await journal.former_queries("again", "bf", 1, after)
            assert [query.key for query in (*first, *second)] == list(dispatch.keys[1:])
            assert after
            assert await journal.former_queries("again", "bf", 1, end) == ([], 0)
            (ivory,), _ = await journal.former_queries("again", "ci", 9)
            assert ivory.payout.line == 4
            begun = {one.run_id: one.created_at for one in await journal.runs()}
            assert await journal.may_be_sent_since("again") == begun["earlier"] < begun["another"]
            assert await journal.may_be_sent_since("another") == begun["another"]
            assert await journal.may_be_sent_since("bare") == begun["earlier"]
            assert await journal.approve("again")
            assert await journal.may_be_sent_since("again") is None, "who comes later knows only that something was"
            with clock.replaced(lambda: begun["earlier"] - 60.0):
                assert await journal.may_be_sent_since("another") is None, "the clock was set back"
            queries, _ = await journal.open_queries("again", "bf", 9, ready=Ready.ALL)
            assert [query.payout.line for query in queries] == [2, 3, 9]
            assert await journal.open_queries("again", "bf", 9) == ([], 0)

    async def test_the_latest_earlier_run_is_named(self, journal_factory: JournalFactory) -> None:
        """Of several earlier runs the one approved last is named, beside the original of the file itself."""
        async with journal_factory() as journal:
            await approved(journal, "one", chunk([1, 2, 3]))
            await approved(journal, "two", chunk([7], reference="SAL-00002"))
            await journal.begin(run("new"))
            await journal.add("new", [chunk([20, 21], reference="SAL-00002")])
            assert said(await every(journal.duplicates("new"))) == {
                (20, DuplicateKind.REFERENCE, "two", 7, False),
                (21, DuplicateKind.REFERENCE, "two", 7, False),
                (21, DuplicateKind.REFERENCE, "new", 20, True),
            }

    async def test_a_run_validated_before_another_was_approved_is_compared_again(
        self, journal_factory: JournalFactory
    ) -> None:
        """Of two copies validated side by side only one is approved unseen: the other has to look again."""
        async with journal_factory() as journal:
            await validated(journal, "one", chunk([1, 2]))
            await validated(journal, "two", chunk([2, 3]))
            assert await every(journal.duplicates("two")) == []
            assert await journal.approve("one")
            assert not await journal.approve("two")
            assert not await journal.approve("two")
            duplicates = await every(journal.duplicates("two"))
            assert {repeat.payout.line for repeat in duplicates} == {2}
            await journal.hold(
                "two", {repeat.position: Problem("reference_repeated", "Again.") for repeat in duplicates}
            )
            assert await journal.approve("two")
            assert await states(journal, "two") == {2: State.HELD, 3: State.READY}
            assert (await journal.ready("two", ORANGE, 0, 10))[0].payouts == [payout(3)]

    async def test_every_approval_since_makes_a_run_look_again(self, journal_factory: JournalFactory) -> None:
        """However many runs were approved before a run was validated: one more since then is compared with, too."""
        async with journal_factory() as journal:
            await approved(journal, "zero", chunk([50]))
            await approved(journal, "another", chunk([51]))
            for run_id in ("one", "two"):
                await validated(journal, run_id, chunk([1, 2]))
                assert await every(journal.duplicates(run_id)) == []
            assert await journal.approve("one")
            assert not await journal.approve("two")

    async def test_runs_validated_side_by_side_keep_apart(self, journal_factory: JournalFactory) -> None:
        """One that is approved or thrown away takes nothing from the others: their lines are known when they go."""
        async with journal_factory() as journal:
            await journal.begin(run("last"))
            await journal.add("last", [chunk([5, 6])])
            await approved(journal, "first", chunk([1, 2]))
            await validated(journal, "thrown away", chunk([3, 4]))
            await journal.discard("thrown away")
            await journal.add("last", [chunk([7])])
            assert await every(journal.duplicates("last")) == []
            await journal.seal("last")
            assert await journal.approve("last")
            await validated(journal, "again", chunk([1, 3, 5, 6, 7]))
            found = {(repeat.payout.line, repeat.earlier_run_id) for repeat in await every(journal.duplicates("again"))}
            assert found == {(1, "first"), (5, "last"), (6, "last"), (7, "last")}

    async def test_lines_may_have_been_sent_since_the_first_run_that_sent_one(
        self, journal_factory: JournalFactory
    ) -> None:
        """Whichever line that was; a run that repeats nothing was not sent before it began, approved or not."""
        async with journal_factory() as journal:
            for run_id, line in (("first", 1), ("between", 9), ("later", 21)):
                await approved(journal, run_id, chunk([line], IVORY))
                await sent(journal, run_id, Receipt(State.FAILED), IVORY)
            since = {one.run_id: one.created_at for one in await journal.runs()}
            for run_id, lines, expected in (
                ("both", [1, 21], "first"),
                ("turned round", [21, 1], "first"),
                ("one", [21], "later"),
                ("none", [31], "none"),
            ):
                await validated(journal, run_id, chunk(lines))
                assert await every(journal.duplicates(run_id)) == []
                run_of = await journal.find(run_id)
                assert run_of is not None
                since[run_id] = run_of.created_at
                assert await journal.may_be_sent_since(run_id) == since[expected]
            assert since["first"] < since["between"] < since["later"] < since["none"]
            assert await journal.approve("none")
            assert await journal.may_be_sent_since("none") == since["none"]

    async def test_a_run_that_pays_again_is_asked_about_when_it_goes_on(self, journal_factory: JournalFactory) -> None:
        """What an approved run may be paying again is known whenever that run is compared, and of no other run."""
        async with journal_factory() as journal:
            await approved(journal, "earlier", chunk([1]), chunk([2], IVORY))
            await sent(journal, "earlier", Receipt(State.FAILED))
            for run_id, line in (("again", 1), ("other", 9)):
                await validated(journal, run_id, chunk([line]))
                assert await every(journal.duplicates(run_id)) == []
                await journal.approve(run_id) or await every(journal.duplicates(run_id))
                assert await journal.approve(run_id)
            for run_id, accounts in (("again", ["bf"]), ("other", [])):
                assert await every(journal.duplicates(run_id)) == []
                assert await journal.former_accounts(run_id) == accounts
