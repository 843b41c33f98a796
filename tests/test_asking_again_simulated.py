"""Asking again in a simulated world where little else happens: nobody is paid twice by being asked about.

Faults planted in the engine, or in what it believes of the provider, are seen by their damage.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from simulation import lives, virtual_time
from simulation.bank import Bank, Fault, SimulatedProvider
from simulation.crashing import Moment, Step
from simulation.lives import Report, Simulation, explain, seen
from simulation.plans import Life, Plan, draw_plan

from payout_engine.domain.errors import NotSentError, RefusedError
from payout_engine.domain.model import Dispatch, LookUpResult, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import resends
from payout_engine.payment import resend
from payout_engine.payment.dispatch import Answer
from payout_engine.payment.first_send import receipts_of
from payout_engine.payment.resend import results_of_resend
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits

pytestmark = pytest.mark.timeout(1200)  # They wait for nothing; a busy machine is only slow.

SEEDS = 60


def doubtful_world(chance: random.Random) -> Plan:
    """Draw a world of lost answers and refused calls, of keys that pay once (most for a while), and of no people."""
    plan = draw_plan(chance, plain=True)

    def traits(drawn: Traits) -> Traits:
        return msgspec.structs.replace(
            drawn,
            key_promise=KeyPromise.IDEMPOTENT,
            key_lifetime_seconds=chance.choice([None, 60.0, 120.0, 240.0]),
            look_up=chance.choice([LookUpKind.NONE, LookUpKind.NONE, LookUpKind.EACH, LookUpKind.SWEEP]),
            absence_final_seconds=None,
        )

    common = {Fault.UNANSWERED: 0.4, Fault.HIDDEN: 0.5, Fault.TOO_FAST: 0.2, Fault.REFUSED: 0.3}
    return msgspec.structs.replace(
        plan,
        traits={account: traits(drawn) for account, drawn in plan.traits.items()},
        faults={account: {**faults, **common} for account, faults in plan.faults.items()},
        lives=[doubtful_life(chance, life) for life in plan.lives],
        canary=None,
        max_failure_share=1.0,
    )


def doubtful_life(chance: random.Random, drawn: Life) -> Life:
    """Let a life end now and then just when it asks again, and let the next one wait. Nobody comes to cancel it."""
    changes: dict[str, Any] = {"downtime_seconds": chance.choice([5.0, 150.0, 300.0]), "visits": (), "twin": None}
    if chance.random() < 0.4:
        changes["step"] = Step(chance.choice([1, 1, 1, 2]), chance.choice(list(Moment)), "intend_resend")
    return msgspec.structs.replace(drawn, **changes)


def simulate(folder: Path, seed: int) -> Report:
    """Simulate one seed of the doubtful world; the journal must be proven at the end as well."""
    (folder / str(seed)).mkdir()
    world = Simulation(seed, folder / str(seed))

    async def main() -> None:
        await world.run()
        async with world.journal() as journal:
            for run in await journal.runs():
                world.report.violations += [found.what for found in (await journal.verify(run.run_id)).findings]

    virtual_time.run(main())
    return world.report


@pytest.fixture
def doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let simulations be drawn from the doubtful world."""
    monkeypatch.setattr(lives, "draw_plan", doubtful_world)


@pytest.mark.usefixtures("doubtful")
def test_nobody_is_paid_twice_by_being_asked_about(tmp_path: Path) -> None:
    """Whatever is lost, late or refused, and whenever the engine dies; and asking does help."""
    asked = paid = 0
    crashed_at: set[str] = set()
    for seed in range(SEEDS):
        report = simulate(tmp_path, seed)
        assert not report.violations, explain(report)
        crashed_at |= {line.split("CRASH ")[1] for line in report.trace if "CRASH " in line}
        asked += sum("journal: intend_resend" in line for line in report.trace)
        paid += report.counts[State.PAID]
    assert asked > SEEDS and paid > 5 * SEEDS
    assert {"before intend_resend", "inside intend_resend", "after intend_resend"} <= crashed_at


@pytest.mark.usefixtures("doubtful")
def test_where_a_key_never_dies_nothing_stays_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the provider answers again, every unknown payout has its way out."""

    def for_ever(chance: random.Random) -> Plan:
        plan = doubtful_world(chance)
        traits = {
            account: msgspec.structs.replace(drawn, key_lifetime_seconds=None) for account, drawn in plan.traits.items()
        }
        faults = {
            account: {fault: share for fault, share in drawn.items() if fault is not Fault.WORDS}
            for account, drawn in plan.faults.items()
        }
        # What is unknown since a later hour than the clock shows, once it was set back, is asked about after that hour.
        lives = [msgspec.structs.replace(life, clock_offset_seconds=0.0) for life in plan.lives]
        return msgspec.structs.replace(plan, traits=traits, faults=faults, lives=lives)

    monkeypatch.setattr(lives, "draw_plan", for_ever)
    for seed in range(30):
        report = simulate(tmp_path, seed)
        assert not report.violations and not report.counts[State.UNKNOWN], explain(report)


def takes_refusals_for_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Release a payout because its repetition was refused, or never left."""

    def believing(dispatch: Dispatch, answer: Answer) -> Sequence[LookUpResult]:
        if not isinstance(answer, RefusedError | NotSentError):
            return results_of_resend(dispatch, answer)
        return [LookUpResult(key, Receipt(State.READY, answer.reason)) for key in dispatch.keys]

    monkeypatch.setattr(resend, "results_of_resend", believing)


def takes_refusals_for_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call a payout failed because its repetition was refused for good."""

    def believing(dispatch: Dispatch, answer: Answer) -> Sequence[LookUpResult]:
        if not isinstance(answer, RefusedError):
            return results_of_resend(dispatch, answer)
        return [LookUpResult(key, receipt) for key in dispatch.keys for receipt in receipts_of(answer)]

    monkeypatch.setattr(resend, "results_of_resend", believing)


def believe(monkeypatch: pytest.MonkeyPatch, **beliefs: Any) -> None:
    """Let the adapter promise more than the bank keeps."""
    original = SimulatedProvider.__init__

    def believing(provider: SimulatedProvider, bank: Bank, sending: Callable[[Dispatch], None]) -> None:
        original(provider, bank, sending)
        provider.traits = msgspec.structs.replace(bank.traits, **beliefs)

    monkeypatch.setattr(SimulatedProvider, "__init__", believing)


def asks_without_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send again where nothing is promised."""
    believe(monkeypatch, key_promise=KeyPromise.IDEMPOTENT, key_lifetime_seconds=None)

    def without(chance: random.Random) -> Plan:
        plan = doubtful_world(chance)
        nothing = {"key_promise": KeyPromise.NONE, "key_lifetime_seconds": None}
        traits = {account: msgspec.structs.replace(drawn, **nothing) for account, drawn in plan.traits.items()}
        return msgspec.structs.replace(plan, traits=traits)

    monkeypatch.setattr(lives, "draw_plan", without)


def asks_after_the_life_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send again however old the key is."""
    monkeypatch.setattr(resends, "KEY_LIFE_SHARE", 1_000.0)


@pytest.mark.usefixtures("doubtful")
@pytest.mark.parametrize(
    ("plant", "damage"),
    [
        (asks_without_a_promise, "PAID TWICE"),
        (asks_after_the_life_of_the_key, "PAID TWICE"),
        (takes_refusals_for_absence, "PAID TWICE"),
        (takes_refusals_for_failures, "is failed, and the bank paid it"),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_a_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fault is seen within a hundred seeds, by its damage."""
    plant(monkeypatch)
    assert seen(damage, 9, partial(simulate, tmp_path))
