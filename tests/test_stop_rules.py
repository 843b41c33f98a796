"""The rules that stop a lane: how failures are counted, what a canary's counts mean, and how much may be sent."""

from __future__ import annotations

import pytest

from payout_engine.domain.ending import Stop
from payout_engine.domain.errors import Brake
from payout_engine.domain.facts import (
    Asked,
    CanaryOverruled,
    CanaryPassed,
    CanarySize,
    Conflict,
    Fact,
    KeyUsed,
    ResultsFolder,
    RunFacts,
    Stopped,
    remark,
    summed_up,
)
from payout_engine.domain.model import ControlKind, ControlRequest, Lane, Outcome, Payout, Tally
from payout_engine.domain.states import State
from payout_engine.payment.stop_rules import (
    FAILURES_SAMPLE_MIN,
    Canary,
    Failures,
    Quota,
    canary_of,
    first_of,
)
from payout_engine.ports.journal import ReadyChunk

ORANGE, MOOV = Lane("bf", "orange_bf", "XOF"), Lane("bf", "moov_bf", "XOF")
OTHER = Lane("bf2", "orange_bf", "XOF")


def ended(status: State, count: int = 1, lane: Lane = ORANGE) -> list[Outcome]:
    return [Outcome("run", 1, "r", status, 1, "XOF", lane.account, lane.name)] * count


def waiting(count: int, lane: Lane = ORANGE) -> ReadyChunk:
    payouts = [Payout(f"R{line}", 1_000, "XOF", line=line) for line in range(count)]
    return ReadyChunk(7, lane, list(range(count)), payouts, [f"key-{line}" for line in range(count)])


def test_a_lane_goes_by_its_own_settled_payouts() -> None:
    """From the smallest sample on, whenever they came; what is not settled says nothing."""
    failures = Failures(0.5)
    half = FAILURES_SAMPLE_MIN // 2
    assert not failures.count(ended(State.PAID, half) + ended(State.FAILED, half - 1))
    others = ended(State.FAILED, half, MOOV) + ended(State.FAILED, half, OTHER)
    assert not failures.count(others + ended(State.UNKNOWN, 99) + ended(State.ACCEPTED, 99) + ended(State.HELD, 99))
    assert not failures.count(ended(State.FAILED)), "exactly the share is tolerated"
    assert set(failures.count(ended(State.FAILED))) == {("bf", "orange_bf")}
    assert not failures.count(ended(State.UNKNOWN)), "nothing new is known of it"
    assert set(failures.count(ended(State.FAILED, half, MOOV) + ended(State.FAILED))) == {
        ("bf", "orange_bf"),
        ("bf", "moov_bf"),
    }
    assert set(Failures(0.0).count(ended(State.FAILED) + ended(State.PAID, FAILURES_SAMPLE_MIN - 1)))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, (Canary.NOT_NEEDED, 0)),
        ({State.READY: 1}, (Canary.PENDING, 1)),
        ({State.READY: 3}, (Canary.PENDING, 3)),
        ({State.READY: 5, State.SENDING: 1}, (Canary.PENDING, 2)),
        ({State.READY: 5, State.PAID: 2, State.SENDING: 1}, (Canary.PENDING, 0)),
        ({State.READY: 5, State.PAID: 9}, (Canary.PASSED, 0)),
        ({State.READY: 5, State.PAID: 9, State.UNKNOWN: 1}, (Canary.PENDING, 0)),
        ({State.READY: 5, State.FAILED: 1}, (Canary.FAILED, 0)),
        ({State.READY: 5, State.REVERSED: 1}, (Canary.FAILED, 0)),
        ({State.READY: 5, State.REJECTED: 3, State.CANCELLED: 3}, (Canary.PENDING, 3)),
    ],
)
def test_what_the_counts_of_a_lane_say_of_its_canary(counts: dict[State, int], expected: tuple[Canary, int]) -> None:
    """Of this lane alone, however many tallies it comes in."""
    tallies = [Tally(ORANGE, state, count, count) for state, count in counts.items()]
    strangers = [Tally(lane, state, 50, 50) for lane in (MOOV, OTHER) for state in State]
    assert canary_of(ORANGE, [*strangers, *tallies], 3) == expected
    halves = [Tally(ORANGE, state, part, part) for state, count in counts.items() for part in (count - 1, 1)]
    assert canary_of(ORANGE, halves, 3) == expected


def test_lanes_go_on_that_passed_or_that_a_person_let_go() -> None:
    """Whoever that was, and whatever the account is called; other facts that name a lane say nothing."""
    elsewhere = Lane("ml: main", "orange_ml", "XOF")
    facts: list[Fact] = [
        CanaryPassed(ORANGE),
        CanaryOverruled(MOOV, "Awa: the owner"),
        CanaryOverruled(elsewhere, ""),
        Stopped(Stop("bf2", OTHER, Brake.CANARY, "one failed")),
    ]
    known = summed_up(facts)
    assert known.canary_done == {ORANGE, MOOV, elsewhere}
    assert known.canary_stopped == {OTHER}
    assert "Awa: the owner" in remark(facts[1])[1]
    assert "a person" in remark(facts[2])[1]


def test_no_more_is_taken_than_is_left_of_a_lane() -> None:
    """What is taken counts, what is given back may be taken again, and other lanes have their own."""
    quota = Quota({ORANGE: 5, MOOV: 2})
    assert quota.take(waiting(3)) == waiting(3)
    taken = quota.take(waiting(3))
    assert taken == first_of(waiting(3), 0, 2)
    assert quota.take(waiting(3)) is None
    quota.give_back(ORANGE, 1)
    again = quota.take(waiting(3))
    assert again is not None and len(again.payouts) == 1
    assert quota.left == {ORANGE: 0, MOOV: 2}
    quota.give_back(MOOV, 3)
    assert quota.left == {ORANGE: 0, MOOV: 5}
    assert Quota({MOOV: 0}).left == {MOOV: 0}
    unbounded = Quota()
    unbounded.give_back(ORANGE, 1)
    assert unbounded.take(waiting(3)) == waiting(3)
    assert unbounded.left is None


def test_a_part_of_a_chunk_is_the_same_part_of_all_that_it_says() -> None:
    """Indexes, payouts and keys stay together."""
    part = first_of(waiting(5), 1, 3)
    assert list(part.indexes) == [payout.line for payout in part.payouts] == [1, 2, 3]
    assert list(part.keys) == ["key-1", "key-2", "key-3"]
    assert (part.chunk_id, part.lane) == (7, ORANGE)


REMARKS: dict[tuple[str, str], Fact] = {
    ("canary", "5"): CanarySize(5),
    ("canary_passed", "bf/orange_bf"): CanaryPassed(ORANGE),
    ("brake_canary", "bf2/orange_bf: One failed."): Stopped(Stop("bf2", OTHER, Brake.CANARY, "One failed.")),
    ("brake_funds", "bf: Top up."): Stopped(Stop("bf", None, Brake.FUNDS, "Top up.")),
    ("brake_asked", "run: Paused."): Stopped(Stop("", None, Brake.ASKED, "Paused.")),
    ("key", "account bf, its key known here by the mark 789abc"): KeyUsed("bf", "senfenico-0123456789abc"),
    ("results_folder", "out"): ResultsFolder("out"),
    ("conflict", "Paid twice."): Conflict("Paid twice."),
    ("asked_pause", "Awa: late"): Asked(ControlRequest(ControlKind.PAUSE, "Awa", "late")),
}


@pytest.mark.parametrize(("told", "fact"), REMARKS.items(), ids=[kind for kind, _ in REMARKS])
def test_people_are_told_of_every_fact(told: tuple[str, str], fact: Fact) -> None:
    """Each has its remark, and of a key only its last signs."""
    assert remark(fact) == told


def test_a_run_without_facts_has_no_canary_and_no_folder() -> None:
    """What nobody said is empty."""
    nothing = RunFacts(0, frozenset(), frozenset(), {}, "", [])
    assert summed_up([]) == nothing
    assert summed_up([Asked(ControlRequest(ControlKind.CANCEL, "Awa"))]) == nothing
