"""What every journal must do where unknown payouts are resent to ask; part of `JournalSuite`."""

from __future__ import annotations

import msgspec
import pytest

from payout_engine.domain import clock
from payout_engine.domain.errors import IllegalMoveError
from payout_engine.domain.model import ControlKind, ControlRequest, LookUpResult, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.journal import Journal, ReadyChunk
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits
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
)

PAYS_ONCE = Traits(
    batch_limit=100,
    calls_per_second=None,
    concurrency=1,
    key_promise=KeyPromise.IDEMPOTENT,
    key_lifetime_seconds=None,
    look_up=LookUpKind.EACH,
    absence_final_seconds=None,
)
LIVES_AN_HOUR = msgspec.structs.replace(PAYS_ONCE, key_lifetime_seconds=3600.0, look_up=LookUpKind.NONE)
PROMISES_NOTHING = msgspec.structs.replace(PAYS_ONCE, key_promise=KeyPromise.NONE)
UNKNOWN = Receipt(State.UNKNOWN, "timeout")


async def doubtful(journal: Journal, traits: Traits = PAYS_ONCE) -> list[ReadyChunk]:
    """Return what may be asked about again in the usual lane."""
    return list(await journal.resendable_chunks("run", ORANGE, traits, clock.now(), 0, 10))


class ResendsSuite:
    """Asking again moves nothing, is allowed by a promise alone, and is never taken for a second dispatch."""

    async def test_it_is_known_since_when_something_is_open(self, journal_factory: JournalFactory) -> None:
        """The oldest call with a payout that is accepted or unknown, by account; what look-ups show of them counts."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]), chunk([3]), chunk([4], MOOV), chunk([5], IVORY))
            assert await journal.open_since("run", "bf") is None
            times: list[float] = []
            for lane in (ORANGE, ORANGE, IVORY):
                times.append(clock.now())
                await sent(journal, "run", Receipt(State.ACCEPTED), lane)
            await dispatched(journal, "run", MOOV)
            for account, earliest in (("bf", times[0]), ("ci", times[2])):
                since = await journal.open_since("run", account)
                assert since is not None and earliest <= since <= clock.now()
            keys = [query.key for query in (await journal.open_queries("run", "bf", 9))[0]]
            paid = [LookUpResult(key, Receipt(State.PAID)) for key in keys]
            assert (await journal.reconcile([paid[0], LookUpResult("another's", Receipt(State.PAID))])).open_shown == 1
            assert (await journal.reconcile(paid[:2])).open_shown == 1
            since = await journal.open_since("run", "bf")
            assert since is not None and since >= times[1]
            assert (await journal.reconcile([LookUpResult(keys[2], Receipt(State.ACCEPTED))])).open_shown == 1
            assert (await journal.reconcile(paid)).open_shown == 1
            assert await journal.open_since("run", "bf") is None

    async def test_unknown_payouts_can_be_asked_about(self, journal_factory: JournalFactory) -> None:
        """Exactly those, chunk by chunk, lane by lane; they stay unknown, and the proof and the outcomes agree."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]), chunk([4, 5]), chunk([6], MOOV), chunk([7], IVORY))
            first = await dispatched(journal, "run")
            await journal.record(first, [UNKNOWN, Receipt(State.PAID), UNKNOWN])
            second = await sent(journal, "run", UNKNOWN)
            await sent(journal, "run", UNKNOWN, MOOV)
            before = await replay(journal, "run")
            found = await doubtful(journal)
            assert [(item.chunk_id, list(item.indexes)) for item in found] == [
                (first.chunk_id, [0, 2]),
                (second.chunk_id, [0, 1]),
            ]
            assert await journal.resendable_chunks("run", ORANGE, PAYS_ONCE, clock.now(), 0, 1) == found[:1]
            assert (
                await journal.resendable_chunks("run", ORANGE, PAYS_ONCE, clock.now(), first.chunk_id, 9) == found[1:]
            )
            again = await journal.intend_resend(found[0], PAYS_ONCE)
            assert again.keys == [first.keys[0], first.keys[2]]
            assert [payout.line for payout in again.payouts] == [1, 3]
            assert [await states(journal, "run"), await replay(journal, "run")] == [
                {1: State.UNKNOWN, 2: State.PAID, 3: State.UNKNOWN}
                | {4: State.UNKNOWN, 5: State.UNKNOWN, 6: State.UNKNOWN, 7: State.READY},
                before,
            ]
            assert await doubtful(journal) == found
            audit = await journal.verify("run")
            assert (audit.findings, audit.dispatches) == ([], 3)

    async def test_the_answer_is_a_sighting(self, journal_factory: JournalFactory) -> None:
        """What is paid or failed by it is so for good, and what is not spoken of can be asked about once more."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2, 3]))
            await sent(journal, "run", UNKNOWN)
            again = await journal.intend_resend((await doubtful(journal))[0], PAYS_ONCE)
            await journal.reconcile([LookUpResult(again.keys[0], Receipt(State.PAID, provider_reference="T1"))])
            await journal.reconcile([LookUpResult(again.keys[1], Receipt(State.FAILED, "closed"))])
            assert await states(journal, "run") == {1: State.PAID, 2: State.FAILED, 3: State.UNKNOWN}
            (left,) = await doubtful(journal)
            assert list(left.indexes) == [2]
            assert (await journal.verify("run")).findings == []

    async def test_it_is_traced(self, journal_factory: JournalFactory) -> None:
        """A person sees that it was sent again, and when; the others of the chunk were not."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            dispatch = await dispatched(journal, "run")
            await journal.record(dispatch, [UNKNOWN, Receipt(State.PAID)])
            await journal.intend_resend((await doubtful(journal))[0], PAYS_ONCE)
            told = await journal.trace("run", set(dispatch.keys))
            assert [step.kind for step in told[dispatch.keys[0]]] == ["intent", "receipts", "asked_again"]
            assert told[dispatch.keys[0]][-1].receipt is None
            assert [step.kind for step in told[dispatch.keys[1]]] == ["intent", "receipts"]

    async def test_it_counts_as_sent(self, journal_factory: JournalFactory) -> None:
        """A look-up is told the last time the provider may have heard of a payout, whatever it was sent for."""
        async with journal_factory() as journal:
            with clock.replaced(lambda: 1_000.0):
                await approved(journal, "run", chunk([1, 2]))
                dispatch = await dispatched(journal, "run")
                await journal.record(dispatch, [UNKNOWN, Receipt(State.ACCEPTED)])
            with clock.replaced(lambda: 1_060.0):
                await journal.intend_resend((await doubtful(journal))[0], PAYS_ONCE)
                asked, _ = await journal.open_queries("run", "bf", 9)
            assert [query.sent.at for query in asked] == [1_060.0, 1_000.0]

    async def test_nothing_else_can_be_asked_about(self, journal_factory: JournalFactory) -> None:
        """A payout that is not unknown, or moved since it was loaded, is refused, and with it the whole chunk."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1, 2]))
            (ready,) = await journal.ready("run", ORANGE, 0, 1)
            with pytest.raises(IllegalMoveError):
                await journal.intend_resend(ready, PAYS_ONCE)
            dispatch = await journal.intend(ready)
            with pytest.raises(IllegalMoveError):
                await journal.intend_resend(ready, PAYS_ONCE)
            await journal.record(dispatch, [UNKNOWN])
            (loaded,) = await doubtful(journal)
            await journal.reconcile([LookUpResult(dispatch.keys[1], Receipt(State.READY, "absent"))])
            with pytest.raises(IllegalMoveError):
                await journal.intend_resend(loaded, PAYS_ONCE)
            kinds = {step.kind for steps in (await journal.trace("run", set(ready.keys))).values() for step in steps}
            assert "asked_again" not in kinds

    async def test_what_a_look_up_may_still_show_waits(self, journal_factory: JournalFactory) -> None:
        """Only what has been unknown since the time given; and nothing that the provider gave a number, if it shows."""
        async with journal_factory() as journal:
            with clock.replaced(lambda: 1_000.0):
                await approved(journal, "run", chunk([1, 2]))
                dispatch = await dispatched(journal, "run")
            with clock.replaced(lambda: 1_060.0):
                await journal.record(dispatch, [UNKNOWN, Receipt(State.UNKNOWN, provider_reference="T1")])
            with clock.replaced(lambda: 1_070.0):
                assert await journal.resendable_chunks("run", ORANGE, PAYS_ONCE, 1_059.0, 0, 9) == []
                (shown,) = await journal.resendable_chunks("run", ORANGE, PAYS_ONCE, 1_060.0, 0, 9)
                (unseen,) = await journal.resendable_chunks("run", ORANGE, LIVES_AN_HOUR, 1_060.0, 0, 9)
            assert (list(shown.indexes), list(unseen.indexes)) == ([0], [0, 1])

    async def test_without_a_promise_it_is_refused(self, journal_factory: JournalFactory) -> None:
        """The journal itself stands between a key that promises nothing and the wire."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await sent(journal, "run", UNKNOWN)
            (loaded,) = await doubtful(journal)
            assert await doubtful(journal, PROMISES_NOTHING) == []
            with pytest.raises(IllegalMoveError, match="does not promise"):
                await journal.intend_resend(loaded, PROMISES_NOTHING)

    async def test_it_belongs_to_the_last_dispatch(self, journal_factory: JournalFactory) -> None:
        """A payout that was sent twice is asked about under the second; a chunk that is not there, or empty, is not."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]), chunk([2], MOOV))
            await sent(journal, "run", Receipt(State.READY, "refused"))
            last = await sent(journal, "run", UNKNOWN)
            await sent(journal, "run", UNKNOWN, MOOV)
            (ready,) = await doubtful(journal)
            assert (await journal.intend_resend(ready, PAYS_ONCE)).dispatch_id == last.dispatch_id
            empty = msgspec.structs.replace(ready, indexes=[])
            absent = msgspec.structs.replace(ready, chunk_id=ready.chunk_id + 99)
            for wrong in empty, absent:
                with pytest.raises(IllegalMoveError, match="no longer unknown"):
                    await journal.intend_resend(wrong, PAYS_ONCE)

    async def test_a_key_counts_from_its_first_use(self, journal_factory: JournalFactory) -> None:
        """A second dispatch makes no key younger; and half of its life is left alone."""
        async with journal_factory() as journal:
            with clock.replaced(lambda: 1_000.0):
                await approved(journal, "run", chunk([1]), chunk([2]))
                first = await sent(journal, "run", UNKNOWN)
                await journal.reconcile([LookUpResult(first.keys[0], Receipt(State.READY, "absent"))])
            with clock.replaced(lambda: 2_000.0):
                await sent(journal, "run", UNKNOWN)
                await sent(journal, "run", UNKNOWN)
            with clock.replaced(lambda: 2_800.0):
                both = await doubtful(journal, LIVES_AN_HOUR)
                assert len(both) == 2
                await journal.intend_resend(both[0], LIVES_AN_HOUR)
            with clock.replaced(lambda: 2_801.0):
                assert await doubtful(journal, LIVES_AN_HOUR) == both[1:]
                with pytest.raises(IllegalMoveError, match="forgotten"):
                    await journal.intend_resend(both[0], LIVES_AN_HOUR)
                await journal.intend_resend(both[1], LIVES_AN_HOUR)
            with clock.replaced(lambda: 999.0):
                assert await doubtful(journal, LIVES_AN_HOUR) == []
            assert (await journal.verify("run")).findings == []

    @pytest.mark.parametrize("now", [1_200.0, 1_600.0])
    async def test_a_clock_that_was_set_back_hides_the_age(self, journal_factory: JournalFactory, now: float) -> None:
        """Whether the log is ahead of the clock now, or was once: an age that only looks small is not relied upon."""
        async with journal_factory() as journal:
            with clock.replaced(lambda: 1_000.0):
                await approved(journal, "run", chunk([1]))
                await sent(journal, "run", UNKNOWN)
            with clock.replaced(lambda: 1_500.0):
                await journal.note("run", "remark", "Before the clock was set back.")
            with clock.replaced(lambda: 1_100.0):
                await journal.note("run", "remark", "After it was set back.")
            with clock.replaced(lambda: now):
                (loaded,) = await doubtful(journal, LIVES_AN_HOUR)
                with pytest.raises(IllegalMoveError, match="set back"):
                    await journal.intend_resend(loaded, LIVES_AN_HOUR)
                await journal.intend_resend(loaded, PAYS_ONCE)
            assert (await entry(journal, "run", 1)).receipt.state is State.UNKNOWN
            assert (await journal.verify("run")).findings == []

    @pytest.mark.parametrize("kind", ControlKind)
    async def test_a_person_comes_first(self, journal_factory: JournalFactory, kind: ControlKind) -> None:
        """A run that was paused is left alone until that is lifted, and a cancelled one for ever."""
        async with journal_factory() as journal:
            await approved(journal, "run", chunk([1]))
            await sent(journal, "run", UNKNOWN)
            (loaded,) = await doubtful(journal)
            await journal.request("run", ControlRequest(kind, "awa", "the bank called"))
            assert await doubtful(journal) == []
            with pytest.raises(IllegalMoveError, match="a person"):
                await journal.intend_resend(loaded, PAYS_ONCE)
            await journal.acknowledge("run", kind, True)
            assert bool(await doubtful(journal)) is (kind is ControlKind.PAUSE)
