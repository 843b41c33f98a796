"""Deciding about lines that repeat an earlier one: held with the earlier line named, or a warning; never dropped.

A repeated reference is always held: it is the payer's own word that the two are one payment. An equal recipient and
amount is usually right (two bonuses) when the file carries references, so it is a warning; in a file without any, a
mended copy looks exactly like it, so it is held. So is a line whose reference we had filled in ourselves, in a retry of
such a file or its `failed.csv`. Intake decides once; the engine again when another run was approved in between.
"""

from __future__ import annotations

import msgspec

from payout_engine.clock import now
from payout_engine.limits import REPEAT_WINDOW_SECONDS
from payout_engine.model import Problem, Repeat, RepeatKind, Run
from payout_engine.pipeline.validate import is_derived
from payout_engine.ports import Journal
from payout_engine.reasons import problem


class Decided(msgspec.Struct, frozen=True):
    """What was decided about the repeats of one run, by line: those held, and those only warned about."""

    held: list[tuple[int, Problem]]
    warnings: list[tuple[int, Problem]]


async def hold_repeats(journal: Journal, run: Run) -> Decided:
    """Compare a judged run with itself and with earlier runs, and hold what may be a second payment."""
    decided = Decided([], [])
    positions: set[int] = set()
    since = now() - REPEAT_WINDOW_SECONDS
    async for repeats in journal.repeats(run.run_id):
        reasons: dict[int, Problem] = {}
        # References first: a line that repeats both ways is held for the stronger reason.
        for repeat in sorted(repeats, key=lambda repeat: repeat.kind is not RepeatKind.REFERENCE):
            if repeat.position in positions or not _counts(repeat, since):
                continue
            held = repeat.kind is RepeatKind.REFERENCE or not run.has_references
            held = held or is_derived(repeat.payout.reference)
            reason = _reason(repeat, run, held=held)
            if held:
                positions.add(repeat.position)
                reasons[repeat.position] = reason
                decided.held.append((repeat.payout.line, reason))
            else:
                decided.warnings.append((repeat.payout.line, reason))
        if reasons:
            await journal.hold(run.run_id, reasons)
    lines = {line for line, _ in decided.held}
    return Decided(decided.held, [warning for warning in decided.warnings if warning[0] not in lines])


def _counts(repeat: Repeat, since: float) -> bool:
    """A reference is used up for ever; an equal amount in another run only means something for some days."""
    return repeat.kind is RepeatKind.REFERENCE or repeat.same_run or repeat.earlier_at >= since


def _reason(repeat: Repeat, run: Run, *, held: bool) -> Problem:
    """Name the earlier line, so that a person can compare."""
    line, column = repeat.earlier_line, run.dialect.get("reference_column", "")
    if repeat.kind is RepeatKind.PAYEE_AMOUNT:
        code = "payee_amount_repeated" if held else "payee_amount_twice"
        if repeat.same_run:
            return problem(code, where=f"line {line} of this file", state="")
        where, state = f"run {repeat.earlier_run_id}, line {line}", f", which is {repeat.earlier_state}"
        return problem(code, where=where, state=state)
    if repeat.same_run:
        return problem("reference_repeated", column, line=line)
    return problem(
        "reference_already_used", column, run=repeat.earlier_run_id, line=line, state=repeat.earlier_state.value
    )
