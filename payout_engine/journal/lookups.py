"""Applying what look-ups show to the journal: found by key, looked at one by one, written chunk by chunk.

`rules.py` says what a look-up result means; here is only where it goes. Run in the writer's thread inside a
transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from payout_engine.domain import clock
from payout_engine.domain.facts import Conflict
from payout_engine.domain.model import Choice, LookUpResult, Outcome, Payout, Receipt
from payout_engine.domain.states import LETTERS, State
from payout_engine.journal import codec, log
from payout_engine.journal.db import row
from payout_engine.journal.facts import add_once, cancelled
from payout_engine.journal.ids import chunk_id_of, parse_key, run_no_of, split_key
from payout_engine.journal.requests import withdrawal
from payout_engine.journal.rules import SPELLING_CHARS_MIN, Verdict, verdict_on
from payout_engine.journal.transitions import ChunkRow, chunk_rows, move
from payout_engine.ports.journal import Reconciled

Reported = tuple[int, LookUpResult]
"""An index within a chunk, and what was seen of it."""


def reconcile(db: apsw.Connection, results: Sequence[LookUpResult]) -> Reconciled:
    """Match look-up results with payouts and record what they say; see `Journal.reconcile`."""
    at = clock.now()
    outcomes: list[Outcome] = []
    conflicts: list[str] = []
    open_shown = 0
    for (run_id, chunk_id), sighted in _by_chunk(db, results).items():
        chunk = next(chunk_rows(db, "chunk_id = ?", chunk_id), None)
        if chunk is not None:
            page = _ChunkLookUps(db, run_id, chunk, at)
            page.apply([(index, result) for index, result in sighted if index < page.count])
            outcomes += page.outcomes
            conflicts += page.conflicts
            open_shown += page.open_shown
    return Reconciled(outcomes, conflicts, open_shown)


def _by_chunk(db: apsw.Connection, results: Sequence[LookUpResult]) -> dict[tuple[str, int], list[Reported]]:
    """Sort the look-up results that carry a key of ours by run and chunk; the rest is somebody else's."""
    found: dict[str, list[Reported]] = {}
    for result in results:
        start, index = split_key(result.key)
        if index is not None:
            found.setdefault(start, []).append((index, result))
    chunks = ((_chunk_of(db, start), reported) for start, reported in found.items())
    return {chunk: reported for chunk, reported in chunks if chunk is not None}


def _chunk_of(db: apsw.Connection, start: str) -> tuple[str, int] | None:
    """Return the run and the chunk whose keys begin like this, if they are ours."""
    parsed = parse_key(f"{start}-0")
    if parsed is None:
        return None
    run = row(db, "SELECT run_id, run_no FROM runs WHERE token = ?", (parsed.token,))
    return None if run is None else (run[0], chunk_id_of(run[1], parsed.chunk_no))


class _ChunkLookUps:
    """One chunk while look-up results are applied to it."""

    def __init__(self, db: apsw.Connection, run_id: str, chunk: ChunkRow, at: float) -> None:
        self.outcomes: list[Outcome] = []
        self.conflicts: list[str] = []
        self.count = len(chunk.states)
        self.open_shown = 0
        self._db = db
        self._run_id = run_id
        self._chunk, self._chunk_id = chunk, chunk.chunk_id
        self._at = at
        self._payouts: list[Payout] = []
        self._known: list[Receipt] = []
        self._pending: dict[int, Receipt] = {}
        self._news: list[tuple[int, Receipt]] = []
        self._absent: set[int] = set()

    def apply(self, sighted: Sequence[Reported]) -> None:
        """Look at each result by what is known after the one before."""
        letters = [self._chunk.states[index] for index, _ in sighted]
        self.open_shown = sum(map(letters.count, _OPEN))
        if letters.count(_SENDING) == len(letters):
            return
        self._known = self._chunk.standing()
        odd = self._peel(sighted)
        if odd or self._pending:
            self._payouts = codec.read_payouts(self._chunk.payouts)
        for index, result in odd:
            verdict = verdict_on(self._payouts[index], self._known[index], result, self._at)
            if verdict.conflict:
                self._note(index, verdict)
            for receipt in verdict.receipts:
                self._set(index, receipt)
        self._flush()
        if self._absent:
            self._withdraw()

    def _peel(self, sighted: Sequence[Reported]) -> Sequence[Reported]:
        """Take what plainly agrees, of which nearly everything is; return the rest, to be looked at with care.

        A short cut of `verdict_on` and nothing else: a transfer of our amount to our recipient, known by no other
        reference, says nothing new, or that an open payout was accepted, paid or failed.
        """
        if len({index for index, _ in sighted}) < len(sighted):
            return sighted  # What is shown twice is looked at one after the other.
        amounts_minor, phones = codec.read_fields(self._chunk.payouts, "amount_minor", "phone")
        known, at = self._known, self._at
        odd: list[Reported] = []
        for reported in sighted:
            index, result = reported
            before, seen, theirs = known[index], result.receipt, result.recipient
            reference = seen.provider_reference
            was, state = before.state, seen.state
            if not (
                reference
                and before.provider_reference in ("", reference)
                and result.amount_minor == amounts_minor[index]
                and theirs
                and len(theirs) >= SPELLING_CHARS_MIN
                and phones[index].endswith(theirs)
                and not result.conflict
                and state in _PLAIN
            ):
                odd.append(reported)
            elif was is state and before.provider_reference == reference and seen.reason in ("", before.reason):
                continue
            elif was in _OPEN_STATES and (was is not state or not seen.reason):
                words = before if was is state else seen
                known[index] = receipt = Receipt(state, words.reason, words.message, reference, seen.at or at)
                self._pending[index] = receipt
                self._news.append((index, receipt))
            else:
                odd.append(reported)
        return odd

    def _note(self, index: int, verdict: Verdict) -> None:
        """Put a conflict into the log and into the answer, unless it was put there before."""
        payout = self._payouts[index]
        sentence = conflict_text(self._run_id, payout, verdict.conflict)
        number = run_no_of(self._chunk_id)
        if add_once(self._db, self._at, number, Conflict(sentence), self._chunk_id):
            self.conflicts.append(sentence)

    def _set(self, index: int, receipt: Receipt) -> None:
        if index in self._pending:
            # Two moves of one payout are two entries: the guard and the log see every step.
            self._flush()
        before, self._known[index] = self._known[index], receipt
        self._pending[index] = receipt
        if receipt.state is State.READY:
            self._absent.add(index)
        else:
            self._absent.discard(index)
        if (before.state, before.provider_reference) != (receipt.state, receipt.provider_reference):
            self._news.append((index, receipt))

    def _withdraw(self) -> None:
        """Send nothing again of what proved absent, if a person ever cancelled its run: that was meant for good."""
        request = cancelled(self._db, run_no_of(self._chunk_id))
        if request is None:
            return
        indexes = sorted(self._absent)
        receipt = withdrawal(Receipt(State.READY), request, self._at, sent=True)
        assert receipt is not None
        persons = [log.Person(request.who, Choice.CANCEL, request.why)] * len(indexes)
        moved = log.Moved([receipt] * len(indexes), codec.part(indexes, self.count), persons=persons)
        seq = move(self._db, self._chunk_id, moved, self._at, log.DECISION)
        self._tell([(index, receipt) for index in indexes], seq)

    def _flush(self) -> None:
        if not self._pending:
            return
        indexes = sorted(self._pending)
        receipts = [self._pending[index] for index in indexes]
        moved = log.Moved(receipts, codec.part(indexes, self.count))
        seq = move(self._db, self._chunk_id, moved, self._at, log.SIGHTING)
        self._tell(self._news, seq)
        self._news.clear()
        self._pending.clear()

    def _tell(self, news: Sequence[tuple[int, Receipt]], seq: int) -> None:
        self.outcomes += [
            codec.outcome_of(self._run_id, self._chunk.lane, self._payouts[index], receipt, seq)
            for index, receipt in news
        ]


_PLAIN = frozenset({State.ACCEPTED, State.PAID, State.FAILED})
_SENDING = LETTERS[State.SENDING]
_OPEN_STATES = (State.ACCEPTED, State.UNKNOWN)
_OPEN = tuple(LETTERS[state] for state in _OPEN_STATES)


def conflict_text(run_id: str, payout: Payout, conflict: str) -> str:
    """Return a contradiction as a sentence for a person."""
    return f"Run {run_id}, line {payout.line}, reference {payout.reference}: {conflict}."
