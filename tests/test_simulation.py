"""The whole engine under random faults and crashes, seed by seed; and proof that the simulation sees what it is for.

Faults are planted in the engine, each of which pays twice, loses a payout or breaks its word to a person only now and
then. If the simulation did not find every one of them within a hundred seeds, its silence about the real engine would
mean little.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import anyio
import apsw
import msgspec
import pytest
from simulation import lives, mortal, plans, virtual_time
from simulation.bank import Fault
from simulation.lives import explain, main, seen, simulate
from simulation.people import Errand, Visit
from simulation.plans import Life, Plan, Story, draw_plan
from simulation.shelf import Deed

from payout_engine.app import controls, retry
from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError, ProviderError
from payout_engine.domain.facts import CanaryPassed
from payout_engine.domain.model import (
    Choice,
    ControlKind,
    ControlRequest,
    Dispatch,
    Lane,
    LookUpResult,
    Outcome,
    Query,
    Receipt,
    Run,
)
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal, runs
from payout_engine.journal import dispatches as journal_payment
from payout_engine.journal import requests as journal_requests
from payout_engine.journal.db import every, value
from payout_engine.journal.ids import chunk_range
from payout_engine.journal.transitions import run_no
from payout_engine.journal.writer import Job, Writer
from payout_engine.payment import dispatch, first_look, first_send, run
from payout_engine.payment.context import Context
from payout_engine.payment.dispatch import Answer, Answers, MakeCalls, SendStrategy, send_durably
from payout_engine.payment.first_send import receipts_of, recorded
from payout_engine.payment.poll import Follower, FollowPolicy, Found
from payout_engine.ports.journal import Journal, OnWire, ReadyChunk
from payout_engine.ports.provider import KeyPromise, LookUpKind, Provider
from payout_engine.testing.journal_lines import approved, chunk, inline, sent, states

pytestmark = pytest.mark.timeout(1200)  # They wait for nothing; a busy machine is only slow.

REACHING = 210
"""The first seeds, of which it is also asked what they reach."""

DIES_AT_APPROVAL = 519
"""A seed in which a life ends just before an approval: rare, since each run has only one."""

BATCHES = 5
SEEDS_IN_BATCH = 25


@pytest.mark.parametrize("batch", range(BATCHES))
def test_nobody_is_paid_twice_and_nothing_is_lost(batch: int) -> None:
    """Whatever goes wrong, when all is at rest the journal, the events and the bank agree, and nobody is paid twice."""
    for seed in range(REACHING + batch * SEEDS_IN_BATCH, REACHING + (batch + 1) * SEEDS_IN_BATCH):
        report = simulate(seed)
        assert not report.violations, explain(report)


def test_the_seeds_reach_everything() -> None:
    """The first seeds hold crashes, restarts, payouts in every state, every verb of a person, and processes that meet.

    They are also the first of those in which nothing may be broken.
    """
    reports = [simulate(seed) for seed in (*range(REACHING), DIES_AT_APPROVAL)]
    for report in reports:
        assert not report.violations, explain(report)
    reached = set().union(*(report.counts for report in reports))
    assert reached >= set(State) - {State.READY, State.SENDING}
    assert sum(report.crashes for report in reports) > 100
    assert sum(report.lives for report in reports) > 300
    crashed_at = {line.split("CRASH ")[1] for report in reports for line in report.trace if "CRASH " in line}
    money = {f"{when} {step}" for step in ("intend", "send", "record") for when in ("before", "inside", "after")}
    assert money | {"before approve", "after recover", "after reconcile", "before remember", "after keep"} <= crashed_at
    assert any(where.endswith(" seal") for where in crashed_at)
    assert any(where.startswith("between requests") for where in crashed_at)
    happened = {what for report in reports for what, count in report.happened.items() if count}
    verbs = {"asked pause", "heard pause", "lift", "asked cancel", "heard cancel", "cancel", "retry"}
    said = {f"decide {choice}" for choice in Choice}
    brakes = {"brake_asked", "brake_funds", "brake_canary", "canary_passed", "canary_overruled", "brake_failures"}
    assert verbs | said | brakes | {"two processes met", "a person's process died", "a full disk refused"} <= happened
    refused = {f"refused: {why}" for why in ("is an older copy", "Go on with it there", "nobody knows who was paid")}
    assert refused | set(Deed) <= happened


def test_a_seed_tells_the_same_story_twice() -> None:
    """The same seed gives the same trace in another process, whose hashes fall out otherwise."""
    command = [sys.executable, "-m", "simulation.lives", "--seeds", "1-8", "--trace"]
    stories = [
        subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            check=True,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = ([line for line in story.stdout.splitlines() if "seeds in" not in line] for story in stories)
    assert first == second


# --------------------------------------------------------------------------------------------------- planted faults


def resends_on_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a missing answer for a refusal."""

    def believing(answer: Answer) -> Sequence[Receipt]:
        ready = {"state": State.READY} if isinstance(answer, ProviderError) and answer.reason == "timeout" else {}
        return [msgspec.structs.replace(receipt, **ready) for receipt in receipts_of(answer)]

    monkeypatch.setattr(first_send, "receipts_of", believing)


def journals_after_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write down what is sent only once it has been sent."""

    class Late:
        def __init__(self, strategy: SendStrategy) -> None:
            self._strategy = strategy

        async def intend(self, chunk: ReadyChunk) -> Dispatch:
            return Dispatch(0, chunk.chunk_id, chunk.lane, chunk.indexes, chunk.payouts, chunk.keys)

        async def record(self, dispatch: Dispatch, answers: Answers) -> Sequence[Outcome]:
            return ()

    async def send(
        strategy: SendStrategy, provider: Provider, chunk: ReadyChunk, make: MakeCalls
    ) -> tuple[Dispatch, Answers]:
        _, answers = await send_durably(cast(SendStrategy, Late(strategy)), provider, chunk, make)
        return await strategy.intend(chunk), answers

    monkeypatch.setattr(dispatch, "send_durably", send)


def calls_what_was_lost_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an intent covers many calls, take those without an answer for those that were never made."""

    def believing(dispatched: Dispatch, answers: Answers) -> tuple[Sequence[Receipt], OnWire]:
        lost = [None if isinstance(answer, AmbiguousError) else answer for answer in answers]
        return recorded(dispatched, lost if len(answers) > 1 else answers)

    monkeypatch.setattr(first_send, "recorded", believing)


def asks_for_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what this journal never sent for what nobody sent."""

    async def nothing(_look: object) -> AsyncIterator[Sequence[Query]]:
        if _look is None:
            yield ()

    monkeypatch.setattr(first_look._FirstLook, "_samples", nothing)


def gives_up_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow with `GivesUpByAge`."""
    monkeypatch.setattr(run, "Follower", GivesUpByAge)


class GivesUpByAge(Follower):
    """Takes a payout that was not seen for half a minute for one that was never received."""

    async def look_up(self, next_in_seconds: float = 0.0) -> Found:
        queries, _ = await self._journal.open_queries(self._run_id, self.account, 100)
        old = [query for query in queries if query.state is State.UNKNOWN and query.age_seconds > 30.0]
        await self._journal.reconcile([LookUpResult(query.key, Receipt(State.READY, "too_old")) for query in old])
        return await super().look_up(next_in_seconds)


class TrustsStaleAbsence(Follower):
    """Takes a proof of absence for one of the last dispatch, whichever dispatch it is about."""

    async def _without_stale_absence(
        self, results: Sequence[LookUpResult], queries: Sequence[Query], start: int
    ) -> Sequence[LookUpResult]:
        return results


def withdraw_what_is_unknown(
    db: apsw.Connection, run_id: str, request: ControlRequest, after: int, limit: int
) -> tuple[Sequence[Outcome], int]:
    """Take what is in doubt for what was never sent."""
    ready = "UPDATE progress SET states = replace(replace(states, 's', 'r'), 'u', 'r') WHERE chunk_id BETWEEN ? AND ?"
    db.execute(ready, chunk_range(run_no(db, run_id)))
    with pytest.MonkeyPatch.context() as planted:
        planted.setattr(journal_requests, "once_sent", lambda *_: set())
        return withdraw(db, run_id, request, after, limit)


@contextmanager
def lock_nothing(*arguments: object) -> Iterator[None]:
    """Let everybody send for an account: neither the journal's lease nor the key's lock is held."""
    yield


async def send_no_canary(paying: run.Payment, payer: run.Payer, lanes: Sequence[Lane]) -> None:
    """Go on to the rest at once."""


async def say_it_passed(journal: Journal, run: Run, who: str = "") -> None:
    """Let a run go on, and remember a canary that stopped it as one that passed."""
    await journal.acknowledge(run.run_id, ControlKind.PAUSE, True)
    for lane in sorted((await journal.facts(run.run_id)).canary_stopped):
        await journal.add_fact(run.run_id, CanaryPassed(lane))


async def heed_nobody(paying: run.Payment) -> None:
    """Take up what people ask, and go on."""
    for request in await paying._journal.requests(paying._run_id):
        await paying._journal.acknowledge(paying._run_id, request.kind, False)


Draw = Callable[[random.Random], Plan]


def plainly(chance: random.Random) -> Plan:
    """Draw a world with one journal, one key for each account, and no wire."""
    return draw_plan(chance, plain=True)


def with_cancels(chance: random.Random) -> Plan:
    """Draw a world where answers are lost, and somebody comes into each life to cancel."""
    plan = plainly(chance)
    faults = {account: {**drawn, Fault.UNANSWERED: 0.4} for account, drawn in plan.faults.items()}
    lives = [
        msgspec.structs.replace(
            life, visits=(Visit(at=chance.choice([1.0, 5.0, 20.0]), errand=Errand.CANCEL, whim=chance.getrandbits(32)),)
        )
        for life in plan.lives
    ]
    return msgspec.structs.replace(plan, faults=faults, lives=lives)


def singly(chance: random.Random) -> Plan:
    """Draw a world whose banks take payouts one by one, under keys that pay once, and lose answers."""
    plan = plainly(chance)
    traits = {
        account: msgspec.structs.replace(
            drawn, batch_limit=1, key_promise=KeyPromise.IDEMPOTENT, absence_final_seconds=None
        )
        for account, drawn in plan.traits.items()
    }
    faults = {account: {**drawn, Fault.UNANSWERED: 0.2} for account, drawn in plan.faults.items()}
    return msgspec.structs.replace(plan, traits=traits, faults=faults)


def carried_away(chance: random.Random) -> Plan:
    """Draw a world where an older copy of a journal goes to another machine, and banks are asked one by one."""
    plan = plans.with_journals(plainly(chance), chance, Story.CARRIED)
    each = {"look_up": LookUpKind.EACH, "key_promise": KeyPromise.NONE, "key_lifetime_seconds": None}
    traits = {account: msgspec.structs.replace(drawn, **each) for account, drawn in plan.traits.items()}
    return msgspec.structs.replace(plan, traits=traits, faults={account: {} for account in plan.faults})


def with_twins(chance: random.Random) -> Plan:
    """Draw a world where every life has a second process at its side."""
    plan = plainly(chance)
    return msgspec.structs.replace(plan, lives=[msgspec.structs.replace(life, twin=Life()) for life in plan.lives])


def with_rivals(chance: random.Random) -> Plan:
    """Draw a world where two processes begin two files that nobody may pay both."""
    return plans.with_rivals(plainly(chance), chance)


withdraw = journal_requests.cancel
NOT_HEEDED = "meant to be sent after a (pause|cancellation) was heard"


@pytest.mark.parametrize(
    ("plant", "draw", "begin"),
    [(resends_on_timeout, plainly, 3), (journals_after_sending, plainly, 30), (gives_up_by_age, draw_plan, 60)],
)
def test_a_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], draw: Draw, begin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fault is seen within a hundred seeds, by its damage: somebody is paid twice."""
    plant(monkeypatch)
    monkeypatch.setattr(lives, "draw_plan", draw)
    assert seen("PAID TWICE", begin)


@pytest.mark.parametrize(
    ("owner", "name", "planted", "draw", "damage", "begin"),
    [
        (journal_requests, "cancel", withdraw_what_is_unknown, with_cancels, "is cancelled, and the bank paid it", 60),
        (mortal, "_mortally_locked", lock_nothing, with_twins, "two processes send for account .* at once", 2),
        (run.Payment, "_send_canary", send_no_canary, draw_plan, "are out, and its canary of . was not well yet", 2),
        (controls, "unpause", say_it_passed, draw_plan, "was told to have passed, and it had not", 2),
        (run.Payment, "_heed", heed_nobody, draw_plan, NOT_HEEDED, 14),
        (
            *(retry, "RETRIED", retry.RETRIED | {State.UNKNOWN, State.ACCEPTED}, draw_plan),
            *("was paid again as a retry", 23),
        ),
    ],
    ids=["cancel", "lease", "canary", "overruled", "requests", "retry"],
)
def test_a_planted_breach_of_a_persons_will_is_found(
    owner: object, name: str, planted: object, draw: Draw, damage: str, begin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A withdrawal, a lease, a canary, a pause and a retry that do not mean what they say are seen by just that."""
    monkeypatch.setattr(owner, name, planted)
    monkeypatch.setattr(lives, "draw_plan", draw)
    assert seen(damage, begin)


def answers_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell whoever waits that it is done when it is only about to be."""

    def carry_out(writer: Writer, connection: apsw.Connection, group: list[Job]) -> None:
        need = max(job.need for job in group)
        writer._begin(connection, need)
        writer._answer([writer._attempt_apart(connection, job) for job in group])
        connection.execute("COMMIT")

    monkeypatch.setattr(Writer, "_carry_out", carry_out)


def recovers_only_whole_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the dispatches of parts of a chunk."""
    unfinished, whole = "ended_at IS NULL AND", "ended_at IS NULL AND indexes IS NULL AND"
    monkeypatch.setattr(
        journal_payment, "every", lambda db, query, *rest: every(db, query.replace(unfinished, whole), *rest)
    )


def approves_without_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every run for one that was compared with all others."""
    monkeypatch.setattr(
        runs, "value", lambda db, query, *rest: 1 << 60 if "SELECT compared" in query else value(db, query, *rest)
    )


@pytest.mark.parametrize(
    ("plant", "draw", "damage", "begin"),
    [
        (answers_before_the_commit, draw_plan, "is answered before it is committed", 0),
        (recovers_only_whole_chunks, draw_plan, "was left sending", 13),
        (approves_without_comparing, with_rivals, "PAID TWICE", 0),
        (asks_for_no_samples, carried_away, "PAID TWICE", 0),
        (calls_what_was_lost_never_sent, singly, "are recorded as never sent, and they were", 0),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_a_fault_planted_in_the_journal_is_found(
    plant: Callable[[pytest.MonkeyPatch], None],
    draw: Draw,
    damage: str,
    begin: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the journal's own code does wrong is seen: it is the code that pays, and no picture of it."""
    plant(monkeypatch)
    monkeypatch.setattr(lives, "draw_plan", draw)
    assert seen(damage, begin)


def test_an_intent_that_comes_late_is_seen_before_it_does_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule itself is watched, at every send, and not only what comes of breaking it."""
    journals_after_sending(monkeypatch)
    assert seen("without an intent").seed < 3


def test_a_failure_is_explained_and_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command stops at the first failing seed with a trace, the seed, and how to see it again."""
    journals_after_sending(monkeypatch)
    assert main(["--seeds", "1-100"]) == 1
    told = capsys.readouterr().out
    assert "sent without an intent" in told and "journal: approve" in told
    assert "make simulate SEEDS=" in told.splitlines()[-1]


@pytest.mark.parametrize(("follower", "expected"), [(Follower, State.UNKNOWN), (TrustsStaleAbsence, State.READY)])
def test_absence_proves_nothing_of_a_later_dispatch(follower: type[Follower], expected: State, tmp_path: Path) -> None:
    """A look-up that outlives a second dispatch, and repeats its answer about the first, releases nothing."""

    class Witness:
        """Proves the payout absent, and says so again after it was sent once more."""

        traits = msgspec.structs.replace(draw_plan(random.Random(1)).traits["bf"], look_up=LookUpKind.EACH)

        def __init__(self, journal: SqliteJournal) -> None:
            self._journal = journal

        async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
            absent = [LookUpResult(query.key, Receipt(State.READY, "absent")) for query in queries]
            yield absent
            await anyio.sleep(1.0)
            await sent(self._journal, "run", Receipt(State.UNKNOWN))
            yield absent

    async def listen(outcomes: Sequence[Outcome]) -> None:
        assert outcomes

    async def main() -> dict[int, State]:
        async with inline(tmp_path / "payouts.db") as journal:
            with clock.replaced(anyio.current_time):
                await approved(journal, "run", chunk([1]))
                await sent(journal, "run", Receipt(State.UNKNOWN))
                provider = cast(Provider, Witness(journal))
                context = Context(journal, provider, "run", "bf", listen, lambda event: None)
                await follower(context, FollowPolicy()).look_up()
            return await states(journal, "run")

    assert virtual_time.run(main()) == {1: expected}


def test_progress_in_a_file_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody watches a screen nothing is written over, and the last line tells all."""
    assert main(["--seeds", "1-3"]) == 0
    told = capsys.readouterr().out
    assert "\r" not in told and told.startswith("3 of 3 seeds in ") and told.count("\n") == 1
