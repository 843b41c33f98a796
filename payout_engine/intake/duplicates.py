"""Deciding about lines that repeat an earlier one: held with the earlier line named, or a warning; never dropped.

A repeated reference is always held: it is the payer's own word that the two are one payment. So is a line that a
program may have saved again: its reference is the same but for zeros, spaces and signs, with the same recipient and
amount; or its cells are, in whatever order, and whichever of them is called the reference. An equal recipient and
amount alone is usually right (people are paid the same every day) when both lines carry references, so it is a
warning; where one of them had none, a mended copy looks exactly like it, so it is held. A reference that we had filled
in ourselves, in a retry of such a file or its `failed.csv`, is none. Intake decides once; the engine again before
anything is sent.
"""

from __future__ import annotations

import msgspec

from payout_engine.domain.model import Duplicate, DuplicateKind, Problem, Run
from payout_engine.domain.references import is_derived
from payout_engine.domain.rejections import problem
from payout_engine.ports.journal import Journal


class Decided(msgspec.Struct, frozen=True):
    """What was decided about the repeats of one run, by line: those held, and those only warned about."""

    held: list[tuple[int, Problem]]
    warnings: list[tuple[int, Problem]]


async def hold_duplicates(journal: Journal, run: Run) -> Decided:
    """Compare a run with itself and with earlier runs, and hold what may be a second payment.

    A run that was approved is compared again with earlier ones alone; see `Journal.repeats`.
    """
    decided = Decided([], [])
    positions: set[int] = set()
    async for duplicates in journal.duplicates(run.run_id):
        reasons: dict[int, Problem] = {}
        # The strongest reason first: a line that repeats in several ways is held for that one.
        for repeat in sorted(duplicates, key=lambda repeat: STRENGTH.index(repeat.kind)):
            if repeat.position in positions:
                continue
            held = must_hold(repeat, run)
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


STRENGTH = (DuplicateKind.REFERENCE, DuplicateKind.REFERENCE_ALIKE, DuplicateKind.CELLS, DuplicateKind.PAYEE_AMOUNT)
"""What two lines may have in common, what says most first."""


def must_hold(repeat: Duplicate, run: Run) -> bool:
    """Tell whether a repeat is held: unless both lines have a reference of the payer's own, and only that differs."""
    if repeat.kind is not DuplicateKind.PAYEE_AMOUNT:
        return True
    own = run.has_references and not is_derived(repeat.payout.reference)
    theirs = repeat.earlier_has_references and not is_derived(repeat.earlier_reference)
    return not (own and theirs)


def _reason(repeat: Duplicate, run: Run, *, held: bool) -> Problem:
    """Name the earlier line, so that a person can compare."""
    line, column = repeat.earlier_line, run.dialect.get("reference_column", "")
    where, state = f"run {repeat.earlier_run_id}, line {line}", f", which is {repeat.earlier_state}"
    if repeat.same_run:
        where, state = f"line {line} of this file", ""
    match repeat.kind:
        case DuplicateKind.PAYEE_AMOUNT:
            return problem("payee_amount_repeated" if held else "payee_amount_twice", where=where, state=state)
        case DuplicateKind.REFERENCE_ALIKE:
            return problem("reference_alike", column, theirs=repeat.earlier_reference, where=where, state=state)
        case DuplicateKind.CELLS:
            return problem("line_repeated", where=where, state=state)
    if repeat.same_run:
        return problem("reference_repeated", column, line=line)
    return problem(
        "reference_already_used", column, run=repeat.earlier_run_id, line=line, state=repeat.earlier_state.value
    )
