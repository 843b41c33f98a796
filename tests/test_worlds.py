"""Worlds with several journals, copies, lost memories and a real wire: faults planted in what protects there are found.

Each fault is an edit of one line of the engine. In the worlds that `plans.draw_plan` draws, or, for what is rare, in
worlds that all tell one story, it is seen within a hundred seeds, by the damage. Two are no matter of luck: a list of
transfers that broke off and is taken for whole is found by `test_senfenico_listing.py`, and a lock whose name is not
looked at by a test here.
"""

from __future__ import annotations

import inspect
import random
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from simulation import lives
from simulation.bank import Fault
from simulation.lives import explain, seen, simulate
from simulation.plans import Plan, Story, draw_plan, over_a_wire, with_journals

from payout_engine.app import other_journals, pay
from payout_engine.app.clearing import Clearing
from payout_engine.app.remembered import Remembered
from payout_engine.domain.errors import JournalBusyError
from payout_engine.domain.model import LookUpResult, Receipt
from payout_engine.domain.states import UNPAID, State
from payout_engine.journal import duplicates, file_locks
from payout_engine.journal.file_locks import locked
from payout_engine.payment.callbacks import CallbackReader
from payout_engine.ports.callbacks import Heard
from payout_engine.ports.journal import Mark
from payout_engine.providers import _http
from payout_engine.testing.journal_lines import SOMEBODY

pytestmark = pytest.mark.timeout(1200)  # They wait for nothing; a busy machine is only slow.

SEEDS = 15

Draw = Callable[[random.Random], Plan]
Plant = Callable[[pytest.MonkeyPatch], None]


def telling(story: Story, *, wired: bool = False) -> Draw:
    """Return what draws worlds that all tell one story, over a wire or not."""

    def draw(chance: random.Random) -> Plan:
        plan = with_journals(draw_plan(chance, plain=True), chance, story)
        if not wired:
            return plan
        faults = {account: {**drawn, Fault.BLIND: 0.5} for account, drawn in plan.faults.items()}
        return over_a_wire(msgspec.structs.replace(plan, faults=faults))

    return draw


def losing_answers(chance: random.Random) -> Plan:
    """Draw a world where answers are often lost once the bank has heard."""
    plan = draw_plan(chance, plain=True)
    faults = {account: {**drawn, Fault.UNANSWERED: 0.4} for account, drawn in plan.faults.items()}
    return msgspec.structs.replace(plan, faults=faults)


def losing_answers_on_a_wire(chance: random.Random) -> Plan:
    """Draw such a world where they are lost by the real adapter, on a wire that breaks."""
    return over_a_wire(losing_answers(chance))


def edit(owner: type | object, name: str, *edits: tuple[str, str]) -> Plant:
    """Return what plants a fault by editing the source of a function; each text is in it once."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        function = vars(owner)[name]
        source = textwrap.dedent(inspect.getsource(function))
        for right, wrong in edits:
            assert source.count(right) == 1, f"{name} has changed: plant the fault anew"
            source = source.replace(right, wrong)
        made: dict[str, object] = {}
        exec(compile(f"from __future__ import annotations\n{source}", name, "exec"), function.__globals__, made)
        monkeypatch.setattr(owner, name, made[name])

    return plant


def put(owner: object, name: str, value: object) -> Plant:
    """Return what plants a fault by putting something else in the place of what has a name."""
    return lambda monkeypatch: monkeypatch.setattr(owner, name, value)


def put_into(table: dict[Any, Any], key: object, value: object) -> Plant:
    """Return what plants a fault by changing an entry of a table."""
    return lambda monkeypatch: monkeypatch.setitem(table, key, value)


def both(first: Plant, second: Plant) -> Plant:
    """Return what plants two faults that only together do damage."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        first(monkeypatch)
        second(monkeypatch)

    return plant


async def none_is_newer(memory: Remembered, journal: object) -> None:
    """Notice no older copy."""


def keep_nothing(memory: Remembered, mark: Mark) -> None:
    """Never keep a mark."""


BEGUN_LATE = edit(
    pay,
    "_begin",
    (
        "await remember_begun(workspace.memory, *here,",
        (
            "await may_begin(workspace.memory, *here, run, granted.keys, lost=terms.journal_lost)\n"
            "    stream.remember = lambda: remember_begun(workspace.memory, *here,"
        ),
    ),
)
REMEMBERED_AFTER_PAYING = edit(
    pay,
    "pay_run",
    (
        "await stream.drive(partial(_begin, workspace, stream, terms))",
        (
            "stream.remember = None\n    await stream.drive(partial(_begin, workspace, stream, terms))\n"
            "    if stream.remember is not None:\n        await stream.remember()"
        ),
    ),
)

PLANTED: dict[str, tuple[Plant, Draw, str, int]] = {
    "an unknown is no repeat": (
        *(put(duplicates, "_UNPAID", duplicates._UNPAID | {"u"}), losing_answers),
        *("PAID TWICE", 2),
    ),
    "accepted elsewhere ignored": (
        *(put(other_journals, "UNPAID", UNPAID | {State.ACCEPTED}), telling(Story.SECOND)),
        *("PAID TWICE", 16),
    ),
    "begun remembered after paying": (
        *(both(BEGUN_LATE, REMEMBERED_AFTER_PAYING), telling(Story.SECOND)),
        *("PAID TWICE", 13),
    ),
    "first look only if finished": (
        edit(pay, "_begin", ("if sending:", "if sending and run.state is RunState.FINISHED:")),
        *(telling(Story.CARRIED), "PAID TWICE", 4),
    ),
    "no first look": (
        edit(Clearing, "clear", ("if not wanted - set(self.looked):", "if True:")),
        *(telling(Story.CARRIED), "PAID TWICE", 4),
    ),
    "a reset is not sent": (
        put_into(_http._BY_CLASS, aiohttp.ClientOSError, (_http.Proof.NOT_SENT, "connection_reset")),
        losing_answers_on_a_wire,
        "and the bank paid it|PAID TWICE",
        2,
    ),
    "an older copy goes on": (
        *(put(other_journals, "_newer", none_is_newer), telling(Story.COPIES)),
        *("from an older copy", 2),
    ),
    "no mark is kept": (put(Remembered, "keep", keep_nothing), telling(Story.COPIES), "from an older copy", 82),
}
"""What is planted, the world it is planted in, its damage, and a seed where that was seen: it is tried first."""


@pytest.mark.parametrize("story", Story)
def test_nothing_is_paid_twice_over_all_journals(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of journals, the bank's ledger has each line once, as far as it is promised there."""
    monkeypatch.setattr(lives, "draw_plan", telling(story))
    for seed in range(SEEDS):
        report = simulate(seed)
        assert not report.violations, explain(report)


def test_a_wire_and_a_lost_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Senfenico's real adapter is all that protects an older copy where nothing is remembered."""
    monkeypatch.setattr(lives, "draw_plan", telling(Story.CARRIED, wired=True))
    for seed in range(SEEDS):
        report = simulate(seed)
        assert not report.violations, explain(report)


@pytest.mark.parametrize(("plant", "draw", "damage", "begin"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_found(
    plant: Plant, draw: Draw, damage: str, begin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fault is seen within a hundred seeds, by its damage."""
    plant(monkeypatch)
    monkeypatch.setattr(lives, "draw_plan", draw)
    assert seen(damage, begin)


def test_banks_that_call_back_change_no_promise() -> None:
    """Early, late, twice, about what is unknown or none of ours, beside every other trouble."""
    called = 0
    for seed in range(SEEDS):
        report = simulate(seed, calls_back=True)
        assert not report.violations, explain(report)
        called += report.happened["called back"]
    assert called > SEEDS


def test_a_call_that_is_believed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what a bank calls about for paid, without asking."""

    async def believe(self: CallbackReader, heard: Heard, _queries: object, _shown: object) -> int:
        paid = [LookUpResult(key, Receipt(State.PAID, "", "", f"said of {key}")) for key in heard.keys]
        return len((await self._context.reconcile(paid)).outcomes)

    monkeypatch.setattr(CallbackReader, "_ask", believe)
    assert seen("bank", live=partial(simulate, calls_back=True))


def test_the_name_of_a_lock_is_looked_at_once_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking a file, its holder may end, which removes it, and another begin with a new one."""
    path, first, second = tmp_path / "a.lock", ExitStack(), ExitStack()
    first.enter_context(locked(path, "it", SOMEBODY))
    really = file_locks._open

    def opened(path: Path) -> int:
        descriptor = really(path)
        monkeypatch.setattr(file_locks, "_open", really)
        first.close()
        second.enter_context(locked(path, "it", SOMEBODY))
        return descriptor

    monkeypatch.setattr(file_locks, "_open", opened)
    with second, pytest.raises(JournalBusyError), locked(path, "it", SOMEBODY):
        pass
