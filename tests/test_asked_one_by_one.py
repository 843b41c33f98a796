"""Providers that are asked one by one, by our key or only by their own reference: what is asked, and what is not.

A real journal in simulated time, and a provider that keeps count of the questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import anyio
import msgspec
import pytest
from simulation import virtual_time
from test_asking_again import LOST, SAFE, Scene, Scripted, live

from payout_engine.cli.decide import _of_provider
from payout_engine.domain.model import Lane, LookUpResult, Outcome, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.payment.context import Context
from payout_engine.payment.first_look import Looked, look_first
from payout_engine.ports.provider import KeyPromise, LookUpKind, Provider
from payout_engine.testing.journal_lines import MOOV, ORANGE, approved, chunk, inline, sent, states

EACH = msgspec.structs.replace(SAFE, look_up=LookUpKind.EACH, key_promise=KeyPromise.NONE, concurrency=2)
BY_REFERENCE = msgspec.structs.replace(EACH, look_up=LookUpKind.REFERENCE)
CHUNKS = 20


class Asked(Scripted):
    """A provider that was sent some lines by another copy of the journal, and remembers what it was asked.

    Attributes:
        lines: those that it was asked about.
        fails_after: it answers so many questions, and then no more for once.
    """

    def __init__(self, traits: Any, *known: int) -> None:
        super().__init__(traits, State.PAID)
        self.lines: list[int] = []
        self.fails_after: int | None = None
        self._known = known

    async def look_up(self, queries: Sequence[Query]) -> Any:
        """Show the lines that were sent."""
        if self.fails_after is not None and len(self.lines) >= self.fails_after:
            self.fails_after = None
            raise LOST
        assert self.traits.look_up is LookUpKind.EACH or all(query.provider_reference for query in queries)
        self.lines += [query.payout.line for query in queries]
        paid = Receipt(State.PAID, provider_reference="T1")
        yield [LookUpResult(query.key, paid) for query in queries if query.payout.line in self._known]


class Look:
    """What a first look at a run of two lanes asked and found; its chunks hold two lines each, from line 1 on."""

    def __init__(self, provider: Asked, *, before: Sequence[tuple[Lane, Receipt]] = ()) -> None:
        self.provider = provider
        self.told: list[Any] = []

        async def listen(_outcomes: Sequence[Outcome]) -> None:
            """Hear of outcomes."""

        async def main(folder: Path) -> None:
            async with inline(folder / "payouts.db") as journal:
                numbers = range(1, 2 * CHUNKS, 2)
                lanes = [chunk([at, at + 1]) for at in numbers], [chunk([at + 100, at + 101], MOOV) for at in numbers]
                await approved(journal, "run", *lanes[0], *lanes[1])
                for lane, receipt in before:
                    await sent(journal, "run", receipt, lane)
                context = Context(journal, cast(Provider, provider), "run", "bf", listen, self.told.append)
                self.looked = await look_first(context)
                self.states = await states(journal, "run")

        with TemporaryDirectory() as folder:
            virtual_time.run(main(Path(folder)))


def test_of_what_was_never_sent_samples_are_asked_about() -> None:
    """Of each lane the first chunks, as many as calls may be on the wire, and then each twice as far: no more."""
    look = Look(Asked(EACH))
    assert look.looked == Looked()
    first = [1, 2, 3, 4, 9, 10, 19, 20, 37, 38]  # Chunks 1 and 2, then 5, 10 and 19 of 20.
    assert look.provider.lines == [*(line + 100 for line in first), *first]
    many = Look(Asked(msgspec.structs.replace(EACH, concurrency=16)))
    assert many.provider.lines[:32] == list(range(101, 133))


@pytest.mark.parametrize("sent_by_a_copy", [range(1, 3), range(3, 5), range(1, 39), range(101, 102), range(5, 21)])
def test_a_copy_that_went_on_is_found_out(sent_by_a_copy: range) -> None:
    """Whether it sent one chunk or many, in this lane or that; also if its first chunks were refused: all are held."""
    look = Look(Asked(EACH, *sent_by_a_copy))
    assert look.looked == Looked()
    assert {line for line, state in look.states.items() if state is State.HELD} == set(sent_by_a_copy)
    assert set(look.provider.lines) == set(look.states)


def test_what_came_to_light_is_remembered_when_the_look_is_made_again() -> None:
    """What a look found is held then, and is no sample any more; the next try asks about all the same."""
    provider = Asked(EACH, 1, 2, 35)
    provider.fails_after = 12  # The samples of one lane, and the first chunk of the other.
    look = Look(provider)
    assert look.looked == Looked()
    assert {line for line, state in look.states.items() if state is State.HELD} == {1, 2, 35}


def test_what_was_sent_before_is_always_asked_about() -> None:
    """What is open, and what came back from the wire, whatever the samples are."""
    refused, lost = Receipt(State.READY, "busy"), Receipt(State.UNKNOWN)
    before = [(ORANGE, lost), (ORANGE, lost), (ORANGE, Receipt(State.FAILED)), (MOOV, refused)]
    look = Look(Asked(EACH), before=before)
    assert look.provider.lines[:6] == [1, 2, 3, 4, 101, 102]
    assert not {5, 6} & set(look.provider.lines)


def test_by_reference_only_what_has_one_is_asked_about() -> None:
    """The rest cannot be asked about, which is said; what is unknown without one is not sent."""
    with_reference = Receipt(State.UNKNOWN, provider_reference="T1")
    look = Look(Asked(BY_REFERENCE, 3), before=[(ORANGE, Receipt(State.UNKNOWN)), (ORANGE, with_reference)])
    assert look.looked == Looked()
    assert look.provider.lines == [3, 4]
    assert [look.states[line] for line in (1, 2, 3, 4, 5)] == [
        *[State.UNKNOWN] * 2,
        State.PAID,
        State.UNKNOWN,
        State.READY,
    ]
    assert any("2 payouts that may have been sent before have no reference" in event.message for event in look.told)


def test_by_reference_nobody_waits_for_what_cannot_be_asked_about() -> None:
    """A lost answer waits for a person, who is told, and not for a patience that nothing could reward."""
    known = [Receipt(State.ACCEPTED, provider_reference="T1"), Receipt(State.ACCEPTED), Receipt(State.UNKNOWN)]
    provider = Scripted(BY_REFERENCE, known)
    scene = Scene(provider, lines=3)
    ended_at: list[float] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(settle)
            await scene.pay()
        ended_at.append(anyio.current_time())

    async def settle() -> None:
        await anyio.sleep(30.0)
        provider.shows[provider.calls[0][1][0]] = Receipt(State.PAID, provider_reference="T1")

    assert live(scene, main) == [State.PAID, State.ACCEPTED, State.UNKNOWN]
    assert 30.0 < ended_at[0] < 100.0
    assert any("2 payouts have no reference" in getattr(event, "message", "") for event in scene.told)


def test_by_reference_a_key_that_pays_once_asks_about_the_rest() -> None:
    """What has no reference is sent again under its key; what has one is looked up."""
    traits = msgspec.structs.replace(SAFE, look_up=LookUpKind.REFERENCE)
    known = [Receipt(State.UNKNOWN, provider_reference="T1"), Receipt(State.UNKNOWN)]
    scene = Scene(Scripted(traits, known, LOST, State.PAID), lines=2)
    assert live(scene, scene.pay) == [State.UNKNOWN, State.PAID]
    assert [len(keys) for _, keys in scene.provider.calls] == [2, 1, 1]
    scene = Scene(Scripted(traits, LOST, LOST, State.PAID))
    assert live(scene, scene.pay) == [State.PAID]


def test_a_person_is_told_how_the_provider_can_be_asked() -> None:
    """Whoever decides knows whether the provider could say more."""
    told = {kind: _of_provider(msgspec.structs.replace(EACH, look_up=kind)) for kind in LookUpKind}
    assert "cannot be asked" in told[LookUpKind.NONE]
    assert "only be asked by the number of its transfer" in told[LookUpKind.REFERENCE]
    assert told[LookUpKind.EACH] == told[LookUpKind.SWEEP] and "asked what" not in told[LookUpKind.EACH]
