"""What look-ups plainly agree with is recorded by a short cut: it must do, to the letter, what is done with care."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payout_engine.domain import clock
from payout_engine.domain.model import LookUpResult, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import codec, dispatches, lookups, rules, runs, schema
from payout_engine.testing.journal_lines import ORANGE, chunk, payout, run

COUNT = 4
PLAIN = [State.ACCEPTED, State.PAID, State.FAILED]
OURS = {index: payout(index + 1) for index in range(COUNT)}

answers = st.lists(
    st.builds(
        Receipt,
        st.sampled_from([State.ACCEPTED, State.PAID, State.FAILED, State.UNKNOWN, State.READY]),
        st.sampled_from(["", "timeout"]),
        st.sampled_from(["", "words"]),
        st.sampled_from(["", "T0"]),
    ),
    min_size=COUNT,
    max_size=COUNT,
)


@st.composite
def reported(draw: st.DrawFn) -> tuple[int, LookUpResult]:
    """Draw what a look-up shows of one payout: usually what is plain, sometimes anything."""
    index = draw(st.integers(0, COUNT - 1))
    usual = draw(st.integers(0, 3)) > 0
    state = draw(st.sampled_from([*PLAIN, State.UNKNOWN, State.READY, State.REVERSED]))
    words = draw(st.sampled_from([("", ""), ("", "words"), ("declined", "No."), ("timeout", "x")]))
    receipt = Receipt(state, *words, draw(st.sampled_from(["T0", "T0", "T1", ""])), draw(st.sampled_from([0.0, 7.0])))
    amount: int | None = OURS[index].amount_minor
    phone: str | None = OURS[index].phone
    if not usual:
        spelled = OURS[index].phone
        amount = draw(st.sampled_from([amount, 1, None]))
        phone = draw(st.sampled_from([spelled, spelled[3:], spelled[6:], f"+{spelled}", "70999999", "", None]))
    return index, LookUpResult("", receipt, amount, phone, "" if usual else draw(st.sampled_from(["", "it is odd"])))


@contextmanager
def all_with_care() -> Any:
    """Take no short cut."""
    with patch.object(lookups._ChunkLookUps, "_peel", lambda self, sighted: sighted):
        yield


def story(first: Sequence[Receipt], looks: Sequence[Sequence[tuple[int, LookUpResult]]]) -> Any:
    """Send a chunk, look it up, and return all that the journal then holds and told."""
    with TemporaryDirectory() as folder, clock.replaced(lambda: 1_000.0):
        db = schema.connect(Path(folder) / "payouts.db", sandbox=False, scratch=True, earlier=None)
        db.execute("BEGIN")
        runs.begin(db, run("run"))
        runs.add(db, "run", [chunk(range(1, COUNT + 1))])
        runs.seal(db, "run")
        runs.approve(db, "run")
        (ready,) = dispatches.ready(db, "run", ORANGE, 0, 1)
        sent = dispatches.intend(db, ready)
        dispatches.record(db, sent, first, on_wire=True)
        told: list[Any] = []
        for look in looks:
            results = [
                LookUpResult(sent.keys[index], seen.receipt, seen.amount_minor, seen.recipient, seen.conflict)
                for index, seen in look
            ]
            applied = lookups.reconcile(db, results)
            told.append((sorted(applied.outcomes, key=str), sorted(applied.conflicts), applied.open_shown))
        kept = list(db.execute("SELECT states, receipts FROM progress"))
        logged = sorted(db.execute("SELECT kind, body FROM log WHERE kind NOT IN ('seal', 'intent')"))
        db.close()
    return told, kept, logged


@settings(max_examples=150, deadline=None)
@given(answers, st.lists(st.lists(reported(), min_size=1, max_size=6), min_size=1, max_size=3))
def test_the_short_cut_does_what_care_does(
    first: Sequence[Receipt], looks: Sequence[Sequence[tuple[int, LookUpResult]]]
) -> None:
    """The same states, receipts, outcomes, conflicts and entries of the log, whatever is shown and however often."""
    quick = story(first, looks)
    with all_with_care():
        assert story(first, looks) == quick


PLAINLY = LookUpResult("", Receipt(State.PAID, "", "", "T1"), OURS[1].amount_minor, OURS[1].phone)
NEARLY = {
    "the shortest spelling": {"recipient": OURS[1].phone[-rules.SPELLING_CHARS_MIN :]},
    "a spelling too short": {"recipient": OURS[1].phone[-rules.SPELLING_CHARS_MIN + 1 :]},
    "no recipient": {"recipient": None},
    "an empty recipient": {"recipient": ""},
    "no amount": {"amount_minor": None},
    "no reference": {"receipt": Receipt(State.PAID)},
    "another reference": {"receipt": Receipt(State.PAID, "", "", "T2")},
    "a reason": {"receipt": Receipt(State.ACCEPTED, "delayed", "Later.", "T1")},
    "taken back": {"receipt": Receipt(State.REVERSED, "", "", "T1")},
    "a conflict": {"conflict": "it is a test"},
}


@pytest.mark.parametrize("change", NEARLY.values(), ids=NEARLY)
@pytest.mark.parametrize("state", [State.ACCEPTED, State.UNKNOWN, State.PAID, State.FAILED])
def test_what_is_nearly_plain_is_as_with_care(state: State, change: dict[str, Any]) -> None:
    """One thing differs from a plain answer: nobody is believed who says too little of whom was paid, or how much."""
    first = [Receipt(state, *words) for words in (("", ""), ("", "", "T1"), ("delayed", "Later.", "T1"), ("", ""))]
    odd = msgspec.structs.replace(PLAINLY, **change)
    looks = [[(1, odd), (2, msgspec.structs.replace(odd, recipient=OURS[2].phone))], [(1, PLAINLY)]]
    quick = story(first, looks)
    with all_with_care():
        assert story(first, looks) == quick


BEFORE = [("", "", ""), ("timeout", "No answer.", ""), ("", "", "T1"), ("timeout", "No answer.", "T1")]
WORDS = [("", ""), ("timeout", "Again."), ("declined", "No.")]


@pytest.mark.parametrize("state", [State.ACCEPTED, State.UNKNOWN, State.PAID, State.FAILED])
@pytest.mark.parametrize("shown", PLAIN)
def test_each_plain_answer_is_as_with_care(state: State, shown: State) -> None:
    """Whatever was said before, with whatever words, and whenever the provider says that it was."""
    for words in WORDS:
        for at in (0.0, 7.0):
            seen = Receipt(shown, *words, "T1", at)
            looks = [[(i, LookUpResult("", seen, OURS[i].amount_minor, OURS[i].phone)) for i in range(COUNT)]]
            quick = story([Receipt(state, *before) for before in BEFORE], looks * 2)
            with all_with_care():
                assert story([Receipt(state, *before) for before in BEFORE], looks * 2) == quick


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("change", NEARLY.values(), ids=NEARLY)
def test_what_is_shown_twice_is_heard_in_its_order(turn: int, change: dict[str, Any]) -> None:
    """Plainly and otherwise, in one look: as if each had come by itself."""
    odd = msgspec.structs.replace(PLAINLY, **change)
    looks = [[(1, PLAINLY), (1, odd)][::turn]]
    quick = story([Receipt(State.ACCEPTED)], looks)
    with all_with_care():
        assert story([Receipt(State.ACCEPTED)], looks) == quick


def test_one_deviant_leaves_the_others_to_the_short_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chunk in which one payout failed for a reason of another amount, only that one is looked at with care."""
    careful: list[int] = []
    original = rules.verdict_on

    def counting(ours: Any, *rest: Any) -> Any:
        careful.append(ours.line)
        return original(ours, *rest)

    monkeypatch.setattr(lookups, "verdict_on", counting)
    seen = [
        (i, LookUpResult("", Receipt(State.PAID, "", "", f"T{i}"), OURS[i].amount_minor + (i == 2), OURS[i].phone))
        for i in range(COUNT)
    ]
    told, kept, _ = story([Receipt(State.ACCEPTED)], [seen])
    assert careful == [3]
    assert kept[0][0] == "pphp" and len(told[0][0]) == COUNT and len(told[0][1]) == 1


def test_what_is_settled_and_unchanged_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that is shown as it is recorded writes nothing, and its payouts are not even decoded."""
    decoded: list[str] = []
    original = codec.read_payouts

    def counting(stored: str) -> Any:
        decoded.append(stored)
        return original(stored)

    monkeypatch.setattr(codec, "read_payouts", counting)
    paid = [(i, LookUpResult("", Receipt(State.PAID, "", "", f"T{i}"), OURS[i].amount_minor)) for i in range(COUNT)]
    seen = [(i, msgspec.structs.replace(result, recipient=OURS[i].phone)) for i, result in paid]
    _, _, logged = story([Receipt(State.ACCEPTED)], [seen])
    once = len(decoded)
    told, _, again = story([Receipt(State.ACCEPTED)], [seen, seen, seen])
    assert len(decoded) == 2 * once and again == logged
    assert [len(outcomes) for outcomes, _, _ in told] == [COUNT, 0, 0]
