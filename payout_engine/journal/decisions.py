"""A person's word on payouts that wait for one: what may be decided, and how it goes into the journal.

`refusal` and `receipts_of` are the pure rule; `decide` carries it out in the file, in the
writer's thread inside a transaction, so that a batch is recorded whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import apsw

from payout_engine.domain import clock
from payout_engine.domain.errors import DecisionError
from payout_engine.domain.model import Choice, Decision, Outcome, Payout, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import codec, log
from payout_engine.journal.db import only
from payout_engine.journal.ids import chunk_id_of, parse_key
from payout_engine.journal.rules import CONTRADICTION
from payout_engine.journal.transitions import chunk_rows, move, once_sent, run_no

TARGETS: Mapping[Choice, State] = {
    Choice.PAID: State.PAID,
    Choice.FAILED: State.FAILED,
    Choice.SEND_AGAIN: State.READY,
    Choice.CANCEL: State.CANCELLED,
}

DECIDABLE = frozenset({State.HELD, State.UNKNOWN, State.ACCEPTED})
"""Where a person may say more than the engine knows."""

PROBLEMS_SHOWN = 20
"""Problems of one batch that are named; the others are counted."""

TAKEN_UP, DECIDED = "taken_up", "decided"
"""The reasons in the receipts of a decision: of the step into `held`, and of the step out of it."""


def refusal(payout: Payout, known: Receipt, choice: Choice, *, sent: bool) -> str:
    """Return why a decision cannot be carried out, as a sentence that names the line, or an empty text.

    Args:
        payout: the payout.
        known: where it stands.
        choice: what was decided.
        sent: whether it was ever on the wire.
    """
    why = _refusal(known, choice, sent=sent)
    return f"line {payout.line}, reference {payout.reference}: {why}" if why else ""


def _refusal(known: Receipt, choice: Choice, *, sent: bool) -> str:
    if known.state not in DECIDABLE:
        hint = "; `resume` sends it" if known.state is State.READY else ""
        return f"it is {known.state}, so there is nothing for a person to decide{hint}"
    if known.state is State.ACCEPTED and choice is Choice.SEND_AGAIN:
        return "the provider has accepted it, so it cannot be sent again; follow it, or say paid or failed"
    if choice is Choice.CANCEL and (sent or known.reason == CONTRADICTION):
        return "the provider may have it, so it cannot be withdrawn; say failed once the provider confirms that"
    return ""


def receipts_of(known: Receipt, decision: Decision, at: float) -> tuple[Receipt, ...]:
    """Return the receipts that carry out a decision, in order: into `held` where it is not held yet, and out of it."""
    message, reference = f"{decision.who}: {decision.why}", known.provider_reference
    final = Receipt(TARGETS[decision.choice], DECIDED, message, reference, at)
    if known.state is State.HELD:
        return (final,)
    return Receipt(State.HELD, TAKEN_UP, message, reference, at), final


def refused(problems: Sequence[str]) -> DecisionError:
    """Return the error that names everything that is wrong with a batch of decisions."""
    # On one line: the screen writes line ends out, because a file's author may have put them there.
    shown = "; ".join(problems[:PROBLEMS_SHOWN])
    more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
    return DecisionError(f"Nothing was recorded, because not everything can be carried out: {shown}{more}.")


def never_approved(run_id: str) -> DecisionError:
    """Return the error for decisions about a run that nobody approved."""
    return DecisionError(f"Run {run_id} was never approved, so there is nothing to decide. Run its file again.")


def by_chunk(token: str, number: int, decisions: Sequence[Decision]) -> Mapping[int, Mapping[int, Decision]]:
    """Return decisions by chunk and index.

    Raises:
        DecisionError: a key is not of this run, or is decided twice.
    """
    chunks: dict[int, dict[int, Decision]] = {}
    problems: list[str] = []
    for decision in decisions:
        key = parse_key(decision.key)
        if key is None or key.token != token:
            problems.append(absent(decision))
            continue
        chunk = chunks.setdefault(chunk_id_of(number, key.chunk_no), {})
        if key.index in chunk:
            problems.append(f"the payout with the key {decision.key} is decided twice")
        chunk[key.index] = decision
    if problems:
        raise refused(problems)
    return chunks


def decide(db: apsw.Connection, run_id: str, decisions: Sequence[Decision]) -> Sequence[Outcome]:
    """Record a person's word; see `Journal.decide`."""
    number, at = run_no(db, run_id), clock.now()
    token, approved_at = only(db, "SELECT token, approved_at FROM runs WHERE run_no = ?", (number,))
    if approved_at is None:
        raise never_approved(run_id)
    outcomes: list[Outcome] = []
    problems: list[str] = []
    for chunk_id, chosen in sorted(by_chunk(token, number, decisions).items()):
        page = _ChunkDecisions(db, run_id, chunk_id, chosen)
        problems += page.problems
        if not problems:
            outcomes += page.carry_out(at)
    if problems:
        raise refused(problems)
    if any(decision.choice is Choice.SEND_AGAIN for decision in decisions):
        db.execute("UPDATE runs SET state = 'paying', finished_at = NULL WHERE run_no = ?", (number,))
    return sorted(outcomes, key=lambda outcome: outcome.line)


class _ChunkDecisions:
    """One chunk while decisions about some of its payouts are carried out."""

    def __init__(self, db: apsw.Connection, run_id: str, chunk_id: int, chosen: Mapping[int, Decision]) -> None:
        self.problems: list[str] = []
        self._db, self._run_id, self._chunk_id = db, run_id, chunk_id
        self._chosen = dict(sorted(chosen.items()))
        found = next(chunk_rows(db, "chunk_id = ?", chunk_id), None)
        if found is None:
            self.problems = [absent(decision) for decision in chosen.values()]
            return
        self._lane, self._payouts, self._known = found.lane, codec.read_payouts(found.payouts), found.standing()
        self.problems = list(self._refusals())

    def _refusals(self) -> Iterator[str]:
        sent = once_sent(self._db, self._chunk_id, len(self._payouts))
        for index, decision in self._chosen.items():
            if index >= len(self._payouts):
                yield absent(decision)
                continue
            why = refusal(self._payouts[index], self._known[index], decision.choice, sent=index in sent)
            if why:
                yield why

    def carry_out(self, at: float) -> Sequence[Outcome]:
        """Move the payouts: first those that are not held yet into `held`, then all to what was decided."""
        steps = {index: receipts_of(self._known[index], told, at) for index, told in self._chosen.items()}
        self._move({index: receipts[0] for index, receipts in steps.items() if len(receipts) > 1}, at)
        seq = self._move({index: receipts[-1] for index, receipts in steps.items()}, at)
        return [
            codec.outcome_of(self._run_id, self._lane, self._payouts[index], receipts[-1], seq)
            for index, receipts in steps.items()
        ]

    def _move(self, receipts: Mapping[int, Receipt], at: float) -> int:
        if not receipts:
            return 0
        told = [self._chosen[index] for index in receipts]
        persons = [log.Person(decision.who, decision.choice, decision.why) for decision in told]
        moved = log.Moved(list(receipts.values()), codec.part(list(receipts), len(self._payouts)), persons=persons)
        return move(self._db, self._chunk_id, moved, at, log.DECISION)


def absent(decision: Decision) -> str:
    """Return that a decision names no payout of the run."""
    return f"the run has no payout with the key {decision.key}"
