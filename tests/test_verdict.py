"""What a look-up result means for a payout, for every pair of states: the rule that decides between money and doubt."""

from __future__ import annotations

from typing import Any

import pytest

from payout_engine.domain.errors import IllegalMoveError
from payout_engine.domain.model import LookUpResult, Payout, Receipt
from payout_engine.domain.states import OPEN, State
from payout_engine.journal.rules import CONTRADICTION, NOTHING, Verdict, same_recipient, verdict_on

PAYOUT = Payout("R1", 500, "XOF", phone="22670000000")
NEVER_SENT = (State.READY, State.HELD, State.REJECTED, State.CANCELLED)
MAY_WAIT_FOR_A_PERSON = {*NEVER_SENT, State.ACCEPTED, State.UNKNOWN, State.FAILED} - {State.REJECTED}
SHOWN = (State.ACCEPTED, State.PAID, State.FAILED, State.REVERSED, State.UNKNOWN)
HEARD, NOW = 40.0, 70.0


def seen(state: State, **about: Any) -> LookUpResult:
    """Return a look-up result of our payout; what belongs to the receipt is given as `receipt`."""
    return LookUpResult("key-1", Receipt(state, **about.pop("receipt", {})), **about)


def verdict(known: Receipt | State, result: LookUpResult) -> Verdict:
    return verdict_on(PAYOUT, known if isinstance(known, Receipt) else Receipt(known), result, NOW)


def assert_doubt(found: Verdict, known: State) -> None:
    """It reaches a person: the payout waits, if it still can, and the contradiction is told in any case."""
    assert found.conflict
    held = [receipt.state for receipt in found.receipts]
    assert held == ([State.HELD] if known in MAY_WAIT_FOR_A_PERSON else [])
    assert all(receipt.reason == CONTRADICTION for receipt in found.receipts)


@pytest.mark.parametrize("state", sorted(set(State) - {*SHOWN, State.READY}))
def test_a_look_up_cannot_see_what_only_we_know(state: State) -> None:
    """An adapter that reports a payout as held, cancelled, refused or on the wire has a fault, and is told."""
    with pytest.raises(IllegalMoveError):
        verdict(State.UNKNOWN, seen(state))


@pytest.mark.parametrize("state", [*SHOWN, State.READY])
def test_what_is_on_the_wire_is_passed_over(state: State) -> None:
    """Whatever is seen while a payout is being sent: the answer of the call itself comes first."""
    assert verdict(State.SENDING, seen(state, amount_minor=1)) == NOTHING


@pytest.mark.parametrize("state", [*SHOWN, State.READY])
def test_a_contradiction_is_told_once(state: State) -> None:
    """A payout that waits for a person for a contradiction is left to the person; one held for less is looked at."""
    assert verdict(Receipt(State.HELD, CONTRADICTION), seen(state)) == NOTHING
    if state is not State.READY:
        assert_doubt(verdict(Receipt(State.HELD, "repeated"), seen(state)), State.HELD)


def test_the_reason_alone_is_no_contradiction() -> None:
    """Only what is held is left to a person: an open payout with the same reason is validated."""
    assert verdict(Receipt(State.UNKNOWN, CONTRADICTION), seen(State.PAID)).receipts[0].state is State.PAID


@pytest.mark.parametrize("known", NEVER_SENT)
@pytest.mark.parametrize("state", SHOWN)
def test_a_transfer_of_what_was_never_sent_is_a_doubt(known: State, state: State) -> None:
    """Not sent by us, and shown by the provider: never paid, never failed, always told."""
    assert_doubt(verdict(known, seen(state)), known)


@pytest.mark.parametrize("known", sorted(set(State) - {State.SENDING}))
def test_absence_frees_only_what_is_unknown(known: State) -> None:
    """What was accepted or paid cannot be absent; for anything else absence says nothing new."""
    found = verdict(known, seen(State.READY))
    if known is State.UNKNOWN:
        assert [receipt.state for receipt in found.receipts] == [State.READY]
    elif known in (State.ACCEPTED, State.PAID):
        assert_doubt(found, known)
    else:
        assert found == NOTHING


@pytest.mark.parametrize("known", sorted({State.ACCEPTED, State.UNKNOWN, State.PAID, State.FAILED, State.REVERSED}))
@pytest.mark.parametrize("state", SHOWN)
@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_minor": 501},
        {"amount_minor": 0},
        {"recipient": "22670000001"},
        {"recipient": "awa@example.org"},
        {"conflict": "it was made in test mode"},
    ],
)
def test_another_transfer_decides_nothing(known: State, state: State, wrong: dict[str, Any]) -> None:
    """Whatever state another amount, payee or mode is shown in, it moves no payout to paid or failed."""
    assert_doubt(verdict(known, seen(state, **wrong)), known)


@pytest.mark.parametrize("known", sorted({State.ACCEPTED, State.UNKNOWN, State.PAID, State.FAILED, State.REVERSED}))
@pytest.mark.parametrize("state", SHOWN)
def test_a_second_transfer_under_one_key_is_a_doubt(known: State, state: State) -> None:
    """Two references under one key are two transfers; one that we did not know of, or that is not told, is none."""
    first = Receipt(known, provider_reference="T1")
    assert_doubt(verdict(first, seen(state, receipt={"provider_reference": "T2"})), known)
    agreed = verdict(Receipt(known), seen(known, receipt={"provider_reference": "T2"}))
    assert [receipt.provider_reference for receipt in agreed.receipts] == ["T2"] and not agreed.conflict
    assert verdict(first, seen(known)) == NOTHING
    assert verdict(first, seen(known, receipt={"provider_reference": "T1"})) == NOTHING


@pytest.mark.parametrize("known", sorted({State.PAID, State.FAILED, State.REVERSED}))
@pytest.mark.parametrize("state", SHOWN)
def test_what_is_final_stays(known: State, state: State) -> None:
    """A final state changes only from paid to reversed; a word that we do not know disputes nothing."""
    found = verdict(known, seen(state))
    if (known, state) == (State.PAID, State.REVERSED):
        assert [receipt.state for receipt in found.receipts] == [State.REVERSED]
    elif state in (known, State.UNKNOWN):
        assert found == NOTHING
    else:
        assert_doubt(found, known)


@pytest.mark.parametrize("known", sorted(OPEN - {State.SENDING}))
@pytest.mark.parametrize("state", SHOWN)
def test_an_open_payout_is_settled(known: State, state: State) -> None:
    """Accepted, paid and failed are believed of an open payout; reversed means that it was paid first."""
    found = verdict(known, seen(state, amount_minor=500, recipient="70000000"))
    expected = {State.REVERSED: [State.PAID, State.REVERSED], State.UNKNOWN: [], known: []}.get(state, [state])
    assert [receipt.state for receipt in found.receipts] == expected
    assert found.conflict == ""


@pytest.mark.parametrize(
    ("known", "result"),
    [
        (State.UNKNOWN, State.READY),
        (State.UNKNOWN, State.PAID),
        (State.ACCEPTED, State.REVERSED),
        (State.CANCELLED, State.PAID),
    ],
)
def test_time_and_reference_are_those_of_the_transfer(known: State, result: State) -> None:
    """A receipt says when the provider said so, or when we heard it, and keeps the reference that is known."""
    for at, expected in ((HEARD, HEARD), (0.0, NOW)):
        found = verdict(known, seen(result, receipt={"at": at, "provider_reference": "T1"}))
        assert [receipt.at for receipt in found.receipts] == [expected] * len(found.receipts)
        assert {receipt.provider_reference for receipt in found.receipts} == {"T1"}
    kept = verdict(Receipt(known, provider_reference="T1"), seen(result, conflict="" if known in OPEN else "another"))
    assert result is State.READY or {receipt.provider_reference for receipt in kept.receipts} == {"T1"}


def test_a_doubt_names_the_transfer_that_we_knew() -> None:
    """Of two references the first is kept: it is the one that the receipt of the payout spoke of."""
    found = verdict(
        Receipt(State.UNKNOWN, provider_reference="T1"), seen(State.PAID, receipt={"provider_reference": "T2"})
    )
    assert found.receipts[0].provider_reference == "T1"
    assert found.receipts[0].message == "The provider shows a second transfer T2 beside T1."


def test_new_words_of_the_same_state_are_noted_once() -> None:
    """A new reason is noted with its words and its time; the same reason, or none, moves nothing."""
    known = Receipt(State.ACCEPTED, "queued", "In the queue.", "T1")
    assert verdict(known, seen(State.ACCEPTED, receipt={"reason": "queued", "message": "Other words."})) == NOTHING
    assert verdict(known, seen(State.UNKNOWN)) == NOTHING
    for at, expected in ((HEARD, HEARD), (0.0, NOW)):
        new = {"reason": "review", "message": "Being reviewed.", "at": at}
        for state in (State.ACCEPTED, State.UNKNOWN):
            noted = verdict(known, seen(state, receipt=new)).receipts
            assert noted == (Receipt(State.ACCEPTED, "review", "Being reviewed.", "T1", expected),)
    late = verdict(
        Receipt(State.ACCEPTED, "queued", "In the queue."), seen(State.ACCEPTED, receipt={"provider_reference": "T1"})
    )
    assert late.receipts == (Receipt(State.ACCEPTED, "queued", "In the queue.", "T1", NOW),)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("22670000000", "22670000000", True),
        ("22670000000", "70000000", True),
        ("22670000000", "000000", True),  # Six digits are enough, five are not.
        ("22670000000", "00000", False),
        ("70000000", "22670000000", True),
        ("000000", "22670000000", True),
        ("22670000000", "+226 70-00-00-00", True),
        ("22670000000", "+00 00-00", True),
        ("22670000000", "0-00-00", False),
        ("22670000000", "226700", False),  # A beginning is no end.
        ("22670000000", "70000001", False),
        ("22670000000", "", True),
        ("22670000000", "***", True),
        ("BF42IBAN0001", "bf42 iban 0001", True),
        ("awa@example.org", " Awa@Example.ORG ", True),
        ("awa@example.org", "a.wa@example.org", False),
        ("awa@example.org", "example.org", False),
        ("example.org", "awa@example.org", False),
        ("xawa@example.org", "awa@example.org", False),
        ("a1", "a1", True),
        ("@", "@", True),
    ],
)
def test_two_spellings_of_a_recipient(ours: str, theirs: str, same: bool) -> None:
    """Providers drop the country code and add signs; another number, or too short a piece of ours, is another payee."""
    assert same_recipient(ours, theirs) is same
