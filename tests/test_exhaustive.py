"""A small run, cut off in every way: a slice of all combinations, and proof that they see what they are for.

`make exhaustive` tries all of them. Here each promise is tried once, with two fates that between them are every fate;
all steps, all moments and all commands with each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
from simulation.exhaustive import MONEY_STEPS, Examination, Fates, examine, main, pairs
from simulation.small_world import PROMISES, Case, Fate, Following, SmallWorld, live

from payout_engine.journal import dispatches
from payout_engine.journal.db import every
from payout_engine.journal.writer import Job, Need, Writer

pytestmark = pytest.mark.timeout(1200)  # They wait for nothing; a busy machine is only slow.

_FATES = [*Fate] * 2
SLICE: Sequence[Fates] = [(_FATES[2 * number], _FATES[2 * number + 1]) for number in range(len(PROMISES))]

FIRST_WORDS = {
    Fate.PAID: "paid paid",
    Fate.ACCEPTED: "accepted accepted",
    Fate.FAILS: "failed failed",
    Fate.FAILS_LATER: "accepted accepted",
    Fate.NO_FUNDS: "ready",
    Fate.NO_FUNDS_FOR_EACH: "ready ready",
    Fate.FUNDS_FOR_ONE: "paid ready",
    Fate.ONE_FAILS: "paid failed",
    Fate.TOO_FAST: "ready",
    Fate.NOT_HEARD: "ready",
    Fate.LOST: "unknown",
    Fate.ANSWER_LOST: "unknown",
    Fate.LATE: "unknown",
    Fate.HIDDEN: "unknown",
    Fate.ODD_WORD: "unknown unknown",
}
"""What the journal is told of a chunk's first call, when nobody crashes."""


@pytest.mark.parametrize("number", range(len(PROMISES)), ids=lambda number: str(PROMISES[number]).replace(" ", "-"))
def test_however_it_is_cut_off_nobody_is_paid_twice_and_nothing_is_lost(number: int) -> None:
    """From every step, before, inside and after it, every command leads to where all invariants hold."""
    tally = examine((PROMISES[number], SLICE[number]))
    assert not tally.failures, tally.failures
    assert {f"{moment} {name}" for name in ("approve", "intend", "send", "record") for moment in _MOMENTS} <= set(
        tally.steps
    )
    assert tally.combinations > 400 and tally.worlds > 10 and tally.lived >= tally.worlds


_MOMENTS = ("before", "inside", "after")


def test_the_slice_and_the_whole_hold_every_fate() -> None:
    """No fate is left out, neither here nor by the command."""
    assert {fate for fates in SLICE for fate in fates} == set(Fate) == set(FIRST_WORDS)
    assert len(pairs("same")) == len(Fate)
    assert len(set(pairs("deviations"))) == 3 * len(Fate) - 2
    assert len(set(pairs("all"))) == len(Fate) ** 2


def test_each_fate_is_what_it_says(tmp_path: Path) -> None:
    """The bank does to the first call of a chunk what the fate's name says, and pays what is sent later."""
    for fate, words in FIRST_WORDS.items():
        report = live(Case(PROMISES[0], (fate, fate), None, Following.RESUME), tmp_path).report
        told = [line for line in report.trace if "journal: record" in line]
        assert [line.rpartition(": ")[2] for line in told[:2]] == [words, words], fate
        assert all(line.endswith("paid") for line in told[2:]), fate
        assert not report.violations, fate


# --------------------------------------------------------------------------------------------------- planted faults


def recover_only_whole_chunks(db: apsw.Connection, query: str, arguments: Sequence[Any] = ()) -> Any:
    """Forget unfinished dispatches of a part of a chunk."""
    return every(db, query.replace("ended_at IS NULL", "ended_at IS NULL AND indexes IS NULL"), arguments)


def answer_before_commit(writer: Any, connection: apsw.Connection, group: list[Job]) -> None:
    """Let those who asked go on before their work is on the disk."""
    need = max(job.need for job in group)
    writer._begin(connection, need)
    writer._answer([writer._attempt_apart(connection, job) for job in group])
    connection.execute("COMMIT")
    writer.commits += need is not Need.READ


@pytest.mark.parametrize(
    ("owner", "name", "planted", "fates", "depth", "damage"),
    [
        (dispatches, "every", recover_only_whole_chunks, (Fate.FUNDS_FOR_ONE, Fate.PAID), 2, "was left sending"),
        (Writer, "_carry_out", answer_before_commit, (Fate.PAID, Fate.PAID), 1, "answered before it is committed"),
    ],
    ids=["recover", "commit"],
)
def test_a_planted_fault_is_found(
    owner: object,
    name: str,
    planted: object,
    fates: Fates,
    depth: int,
    damage: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A fault that only shows after a certain crash is seen by its damage, and its case can be lived again alone."""
    monkeypatch.setattr(owner, name, planted)
    lives = Examination(PROMISES[0], fates, tmp_path, depth).lives()
    found: SmallWorld = next(lived for lived in lives if lived.report.violations)
    assert any(damage in violation for violation in found.report.violations)
    assert main(["--only", str(found.case)]) == 1
    told = capsys.readouterr().out
    assert damage in told and str(found.case) in told
    monkeypatch.undo()
    assert main(["--only", str(found.case)]) == 0


def test_the_second_life_dies_too(tmp_path: Path) -> None:
    """With a depth of two, each money step of the second life ends it once."""
    examination = Examination(PROMISES[0], (Fate.FUNDS_FOR_ONE, Fate.PAID), tmp_path, 2)
    for lived in examination.lives():
        assert not lived.report.violations, (str(lived.case), lived.report.violations)
        if lived.case.step is not None:
            break
    died = {f"then {moment} {name}" for name in ("intend", "send", "record") for moment in _MOMENTS}
    assert died <= set(examination.tally.steps)
    assert {name.split()[2] for name in examination.tally.steps if name.startswith("then")} <= MONEY_STEPS
