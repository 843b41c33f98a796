"""What every journal must do with what providers call to say; part of `JournalSuite`."""

from __future__ import annotations

from payout_engine.domain.model import LookUpResult, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.callbacks import Heard
from payout_engine.testing.journal_lines import (
    MOOV,
    ORANGE,
    JournalFactory,
    approved,
    chunk,
    dispatched,
    replay,
    sent,
    states,
)

ACCEPTED = Receipt(State.ACCEPTED, provider_reference="T1")


class CallbackSuite:
    """Calls of providers: stored once, waiting until somebody has asked, and never a reason for anything else."""

    async def test_a_call_is_stored_once_and_waits_until_it_was_acted_on(self, journal_factory: JournalFactory) -> None:
        """A repetition is known, before it was acted on and after; the order is that of arrival."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            one, two = (await sent(journal, "run", ACCEPTED)).keys
            assert await journal.store_callback("bf", b"first", Heard([one]))
            assert not await journal.store_callback("bf", b"first", Heard([one]))
            assert await journal.store_callback("bf", b"second", Heard([two, two], ["R1", "R1"]))
            found, after = await journal.stored_callbacks("bf", 9)
            assert [waiting.heard for waiting in found] == [Heard((one,)), Heard((two,), ("R1",))]
            assert (after, await journal.count_callbacks("bf", 9), await journal.count_callbacks("bf", 1)) == (0, 2, 1)
            await journal.settle_callbacks([found[0].number])
            assert not await journal.store_callback("bf", b"first", Heard([one]))
            assert await journal.stored_callbacks("bf", 9) == ([found[1]], 0)
            assert await journal.count_callbacks("bf", 9) == 1

    async def test_calls_are_read_in_pages(self, journal_factory: JournalFactory) -> None:
        """Page by page each is read once."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk(list(range(1, 6))))
            keys = (await sent(journal, "run", ACCEPTED)).keys
            for key in keys:
                await journal.store_callback("bf", key.encode(), Heard([key]))
            seen, after, pages = list[str](), 0, 0
            while after or not pages:
                page, after = await journal.stored_callbacks("bf", 2, after)
                seen += [key for one in page for key in one.heard.keys]
                pages += 1
            assert (seen, pages) == (list(keys), 3)

    async def test_what_is_none_of_the_accounts_payouts_is_not_stored(self, journal_factory: JournalFactory) -> None:
        """Keys of nobody, of another account, behind a chunk's end, or no key at all; a reference alone may be ours."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            (key,) = (await sent(journal, "run", ACCEPTED)).keys
            odd = [f"{key[:-1]}1", key.replace("-1-", "-2-"), f"a{key}", "", "1", "x" * 500, key.upper()]
            for number, other in enumerate(odd):
                assert not await journal.store_callback("bf", bytes([number]), Heard([other], ["R1"])), other
            assert not await journal.store_callback("ml", b"other account", Heard([key]))
            assert not await journal.store_callback("bf", b"nothing", Heard())
            assert await journal.store_callback("bf", b"mixed", Heard([*odd, key]))
            assert await journal.store_callback("bf", b"reference", Heard(references=["R1"]))
            found, _ = await journal.stored_callbacks("bf", 9)
            assert [one.heard for one in found] == [Heard((key,)), Heard((), ("R1",))]
            assert await journal.stored_callbacks("ml", 9) == ([], 0)

    async def test_an_early_call_waits_for_the_end_of_the_dispatch(self, journal_factory: JournalFactory) -> None:
        """What speaks of a payout in `sending` is stored and not shown until its dispatch has an end."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            dispatch = await dispatched(journal, "run")
            assert await journal.store_callback("bf", b"early", Heard(dispatch.keys))
            assert await journal.stored_callbacks("bf", 9) == ([], 0)
            assert await journal.count_callbacks("bf", 9) == 1
            await journal.record(dispatch, [ACCEPTED])
            found, _ = await journal.stored_callbacks("bf", 9)
            assert [list(one.heard.keys) for one in found] == [list(dispatch.keys)]

    async def test_payouts_are_found_by_their_keys(self, journal_factory: JournalFactory) -> None:
        """Wherever they stand, over runs, with what the provider calls them; not in `sending`, nor of others."""
        async with journal_factory() as journal:
            await approved(journal, "old", chunk([1, 2]))
            await approved(journal, "new", chunk([3, 4]), chunk([5]), chunk([6], MOOV))
            old = (await sent(journal, "old", Receipt(State.PAID, provider_reference="T1"))).keys
            new = (await sent(journal, "new", ACCEPTED)).keys
            (waits,) = (await journal.ready("new", ORANGE, 0, 1))[0].keys
            (spoken,) = (await dispatched(journal, "new", MOOV)).keys
            asked = [new[1], "1", f"{new[1]}9", waits, old[0], new[1], spoken, new[0]]
            found = {query.key: query for query in await journal.queries("bf", asked)}
            assert {key: query.state for key, query in found.items()} == {
                new[1]: State.ACCEPTED,
                waits: State.READY,
                old[0]: State.PAID,
                new[0]: State.ACCEPTED,
            }
            assert [found[key].payout.line for key in (old[0], new[0], new[1], waits)] == [1, 3, 4, 5]
            assert found[old[0]].provider_reference == "T1"
            assert await journal.queries("ml", asked) == []
            assert await journal.queries("bf", []) == []

    async def test_no_payout_moves_by_a_call(self, journal_factory: JournalFactory) -> None:
        """Storing and settling tell nothing to anybody: states and log stay, and the run is proved."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await sent(journal, "run", ACCEPTED)
            before = await journal.mark()
            await journal.store_callback("bf", b"one", Heard(dispatch.keys, ["T1"]))
            await journal.settle_callbacks([1])
            assert await journal.mark() == before
            assert set((await states(journal, "run")).values()) == {State.ACCEPTED}
            await journal.reconcile([LookUpResult(dispatch.keys[0], Receipt(State.PAID, provider_reference="T1"))])
            assert len(await replay(journal, "run")) == 3
            assert (await journal.verify("run")).proven
