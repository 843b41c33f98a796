"""The journal against a small model of its own: any calls in any order, crashes between them, and nothing else happens.

The model is a dictionary of payouts. It knows from the words of `ports.Journal` what each call does and what is
refused, and shares no rule with the journal. After each step everything that can be read of the file must be what the
model says, so what was refused has changed nothing; and in the end every run must be proven.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulation.lives import FAST_FOLDER

from payout_engine.domain import clock
from payout_engine.domain.errors import DecisionError, IllegalMoveError, JournalError
from payout_engine.domain.model import (
    REJECTED_LANE,
    Choice,
    Chunk,
    ControlKind,
    ControlRequest,
    Decision,
    Dispatch,
    Lane,
    LookUpResult,
    Problem,
    Receipt,
)
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.journal.ids import chunk_id_of, parse_key, position_of
from payout_engine.ports.journal import ReadyChunk
from payout_engine.ports.provider import KeyPromise
from payout_engine.testing.journal_lines import MOOV, ORANGE, every, inline, payout, refused, run
from payout_engine.testing.journal_resends import PAYS_ONCE

pytestmark = pytest.mark.timeout(600)  # on a busy machine

NEVER_SENT = {State.READY, State.HELD, State.REJECTED, State.CANCELLED}
DECIDED = {
    Choice.PAID: State.PAID,
    Choice.FAILED: State.FAILED,
    Choice.SEND_AGAIN: State.READY,
    Choice.CANCEL: State.CANCELLED,
}

run_ids = st.sampled_from(["one", "two"])
picks = st.integers(0, 7)
lanes = st.sampled_from([ORANGE, MOOV])
references = st.sampled_from(["", "", "T1", "T2"])
answers = st.tuples(
    st.sampled_from([State.ACCEPTED, State.PAID, State.FAILED, State.UNKNOWN, State.UNKNOWN, State.READY]), references
)
seen = st.tuples(
    picks,
    st.sampled_from([State.ACCEPTED, State.PAID, State.FAILED, State.UNKNOWN, State.READY, State.REVERSED]),
    references,
    st.sampled_from([True, True, True, False]),
)


@dataclass
class Line:
    """One payout as the model knows it."""

    line: int
    lane: Lane
    state: State
    amount_minor: int
    chunk: int
    key: str = ""
    reference: str = ""
    sent: int = 0
    wired: int = 0  # of these, how many calls may have left this machine
    contradicted: bool = False

    def become(self, state: State, reference: str | None = None, *, contradicted: bool = False) -> None:
        """Move."""
        self.state, self.contradicted = state, contradicted
        self.reference = self.reference if reference is None else reference

    def see(self, state: State, reference: str, fits: bool) -> None:
        """Believe a look-up, or hold what contradicts it."""
        if self.state is State.SENDING or self.contradicted:
            return
        if state is State.READY:
            if self.state is State.UNKNOWN:
                self.become(State.READY, "")
            elif self.state is State.ACCEPTED:
                self.become(State.HELD, contradicted=True)
            return
        others = bool(self.reference and reference and self.reference != reference)
        settled = {State.PAID: {State.PAID, State.REVERSED}, State.REVERSED: {State.REVERSED}}
        settled[State.FAILED] = {State.FAILED}
        disputed = state is not State.UNKNOWN and state not in settled.get(self.state, {state})
        if self.state in NEVER_SENT or not fits or others or disputed:
            if self.state not in (State.PAID, State.REVERSED, State.REJECTED):
                self.become(State.HELD, self.reference or reference, contradicted=True)
            return
        self.become(self.state if state is State.UNKNOWN else state, reference or self.reference)

    def be_cancelled(self) -> None:
        """Be withdrawn by a cancellation, or wait for a person if it was ever on the wire."""
        if self.state is State.READY and self.wired:
            self.become(State.HELD)
        elif self.state is State.READY or (self.state is State.HELD and not self.wired and not self.contradicted):
            self.become(State.CANCELLED, "")

    def may_be(self, choice: Choice) -> bool:
        """Whether a person may decide so."""
        if self.state not in (State.HELD, State.UNKNOWN, State.ACCEPTED):
            return False
        if choice is Choice.SEND_AGAIN:
            return self.state is not State.ACCEPTED
        return choice is not Choice.CANCEL or not (self.wired or self.contradicted)


@dataclass
class RunModel:
    """One run as the model knows it."""

    number: int
    state: str = "intake"
    approved: bool = False
    ours: bool = True  # validated by the process that has the journal open
    compared: int | None = None
    cancelled: bool = False
    lines: dict[int, Line] = field(default_factory=dict)
    requests: dict[ControlKind, bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    chunks: int = 0

    def in_lane(self, lane: Lane, *states: State) -> dict[int, list[Line]]:
        """Return the lines of a lane in some states, by chunk."""
        found: dict[int, list[Line]] = {}
        for line in self.lines.values():
            if line.lane == lane and line.state in states:
                found.setdefault(line.chunk, []).append(line)
        return found


@dataclass
class Sent:
    """A dispatch, and whether what became of it is recorded."""

    dispatch: Dispatch
    lines: list[Line]
    run: RunModel
    open: bool = True


class JournalMachine(RuleBasedStateMachine):
    """Calls of the journal, and of the model beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(dir=FAST_FOLDER if FAST_FOLDER.is_dir() else None)
        self.runner = asyncio.Runner()
        self.runs: dict[str, RunModel] = {}
        self.chunks: list[tuple[ReadyChunk, list[Line], RunModel]] = []
        self.sent: list[Sent] = []
        self.begun = self.approvals = self.line = 0
        self.open()

    # -- the journal

    def open(self) -> None:
        """Open the journal as a process does."""
        self.opened = inline(Path(self.folder.name) / "payouts.db")
        self.journal: SqliteJournal = self.wait(self.opened.__aenter__())

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Wait for a call."""
        return self.runner.run(work)

    def call(self, error: type[Exception] | None, work: Coroutine[Any, Any, Any]) -> Any:
        """Make a call that must fail with just this error, or not at all."""
        try:
            result = self.wait(work)
        except (IllegalMoveError, DecisionError, JournalError) as found:
            assert type(found) is error, f"{found!r} instead of {error}"
            return None
        assert error is None, f"{result} instead of {error}"
        return result

    def teardown(self) -> None:
        """Prove every run, and that each payout was sent as often as the model says."""
        try:
            for run_id, model in self.runs.items():
                self.prove(run_id, model)
        finally:
            self.wait(self.opened.__aexit__(None, None, None))
            self.runner.close()
            self.folder.cleanup()

    def prove(self, run_id: str, model: RunModel) -> None:
        """What the log says of a run agrees with the model."""
        if model.state == "intake":
            self.call(JournalError, self.journal.verify(run_id))
            return
        audit = self.wait(self.journal.verify(run_id, self.wait(self.journal.digest(run_id))))
        assert (audit.findings, audit.found, audit.payouts) == ([], 0, len(model.lines))
        steps = self.wait(self.journal.trace(run_id, [line.key for line in model.lines.values()]))
        for line in model.lines.values():
            spoken = [step for step in steps[line.key] if step.kind in ("intent", "asked_again")]
            assert len(spoken) == line.sent, line

    @invariant()
    def the_journal_is_what_the_model_says(self) -> None:
        """Everything that a person can read."""
        found = {known.run_id: known for known in self.wait(self.journal.runs())}
        assert set(found) == set(self.runs)
        for run_id, model in self.runs.items():
            known = found[run_id]
            assert (known.state, known.approved_at is not None) == (model.state, model.approved)
            assert (known.finished_at is not None) is (model.state == "finished")
            entries = self.wait(every(self.journal.entries(run_id)))
            told = [(e.payout.line, e.lane, e.receipt.state, e.receipt.provider_reference, e.key) for e in entries]
            lines = model.lines.values()
            assert told == [(line.line, line.lane, line.state, line.reference, line.key) for line in lines]
            sums: Counter[tuple[Lane, State]] = Counter()
            for line in lines:
                sums[line.lane, line.state] += line.amount_minor
            tallies = self.wait(self.journal.tally(run_id))
            assert {(tally.lane, tally.state): tally.amount_minor for tally in tallies} == sums
            assert sum(tally.count for tally in tallies) == len(lines)
            requests = self.wait(self.journal.requests(run_id))
            assert {request.kind: request.acknowledged for request in requests} == model.requests
            notes = [kind for _, kind, _ in self.wait(self.journal.notes(run_id)) if kind != "conflict"]
            assert notes == model.notes

    @initialize(
        chunks=st.lists(st.tuples(lanes, st.integers(1, 3)), max_size=4),
        drawn=st.none() | st.lists(answers, min_size=3, max_size=3),
    )
    def have_begun(self, chunks: Sequence[tuple[Lane, int]], drawn: Sequence[tuple[State, str]] | None) -> None:
        """Let most lives begin with a run that is being paid: before that, little can happen."""
        if chunks:
            self.begin("one")
            for lane, count in chunks:
                self.add(0, lane, count, bad=False)
            self.seal(0)
            self.approve(0)
            self.ready(0, chunks[0][0])
        if chunks and drawn:
            self.intend(0)
            self.record(0, drawn, alike=False)

    # -- a crash

    @rule()
    def crash(self) -> None:
        """Open the file anew. What was known of runs that were being validated went with the process."""
        self.wait(self.opened.__aexit__(None, None, None))
        for model in self.runs.values():
            model.ours = False
        self.open()

    # -- intake

    @rule(run_id=run_ids)
    def begin(self, run_id: str) -> None:
        self.call(JournalError if run_id in self.runs else None, self.journal.begin(run(run_id)))
        if run_id not in self.runs:
            self.begun += 1
            self.runs[run_id] = RunModel(self.begun)

    @precondition(lambda self: self.runs)
    @rule(pick=picks, lane=lanes, count=st.integers(1, 3), bad=st.booleans())
    def add(self, pick: int, lane: Lane, count: int, bad: bool) -> None:
        run_id, model = self.one(pick)
        numbers = range(self.line + 1, self.line + 1 + count)
        chunks = [Chunk(lane, [payout(number) for number in numbers], [["cell"]] * count)]
        if bad:
            chunks.append(refused([self.line + 1 + count]))
        error = IllegalMoveError if model.state != "intake" else None if model.ours else JournalError
        self.call(error, self.journal.add(run_id, chunks))
        if error is not None:
            return
        for chunk in chunks:
            model.chunks += 1
            state = State.REJECTED if chunk.lane == REJECTED_LANE else State.READY
            for item in chunk.payouts:
                model.lines[item.line] = Line(item.line, chunk.lane, state, item.amount_minor, model.chunks)
        self.line += count + bad
        for entry in self.wait(every(self.journal.entries(run_id))):
            model.lines[entry.payout.line].key = entry.key

    @precondition(lambda self: self.runs)
    @rule(pick=picks, other=picks)
    def hold(self, pick: int, other: int) -> None:
        run_id, model = self.one(pick)
        if not model.lines:
            return
        line = list(model.lines.values())[other % len(model.lines)]
        key = parse_key(line.key)
        assert key is not None
        position = position_of(chunk_id_of(model.number, key.chunk_no), key.index)
        error = None if line.state is State.READY else IllegalMoveError
        self.call(error, self.journal.hold(run_id, {position: Problem("doubt", "A doubt.")}))
        if error is None:
            line.become(State.HELD, "")

    @precondition(lambda self: self.runs)
    @rule(pick=picks)
    def seal(self, pick: int) -> None:
        run_id, model = self.one(pick)
        error = IllegalMoveError if model.state != "intake" else None if model.ours else JournalError
        self.call(error, self.journal.seal(run_id))
        if error is None:
            model.state = "judged"
            model.compared = self.approvals if model.compared is None else model.compared

    @precondition(lambda self: self.runs)
    @rule(pick=picks)
    def compare(self, pick: int) -> None:
        run_id, model = self.one(pick)
        error = None if model.ours or model.approved else JournalError
        self.call(error, every(self.journal.duplicates(run_id)))
        if error is None and not model.approved:
            model.compared = self.approvals

    @precondition(lambda self: self.runs)
    @rule(pick=picks)
    def approve(self, pick: int) -> None:
        run_id, model = self.one(pick)
        if model.approved:
            assert self.call(None, self.journal.approve(run_id)) is True
            return
        error = IllegalMoveError if model.state != "judged" else None if model.ours else JournalError
        approved = self.call(error, self.journal.approve(run_id))
        if error is None:
            assert approved is (self.approvals == model.compared)
            if approved:
                model.state, model.approved = "paying", True
                self.approvals += 1

    @precondition(lambda self: self.runs)
    @rule(pick=picks)
    def discard(self, pick: int) -> None:
        run_id, model = self.one(pick)
        self.call(IllegalMoveError if model.approved else None, self.journal.discard(run_id))
        if not model.approved:
            del self.runs[run_id]

    # -- payment

    @precondition(lambda self: self.runs)
    @rule(pick=picks, lane=lanes)
    def ready(self, pick: int, lane: Lane) -> None:
        run_id, model = self.one(pick)
        self.loaded(model, model.in_lane(lane, State.READY), self.wait(self.journal.ready(run_id, lane, 0, 9)))

    @precondition(lambda self: self.chunks)
    @rule(pick=picks)
    def intend(self, pick: int) -> None:
        chunk, lines, model = self.chunks[-1 - pick % len(self.chunks)]
        legal = model.approved and all(line.state is State.READY for line in lines)
        dispatch = self.call(None if legal else IllegalMoveError, self.journal.intend(chunk))
        if legal:
            model.state = "paying"
            self.sent.append(Sent(dispatch, lines, model))
            for line in lines:
                line.become(State.SENDING, "")
                line.sent += 1
                line.wired += 1

    @precondition(lambda self: self.sent)
    @rule(pick=picks, drawn=st.lists(answers, min_size=3, max_size=3), alike=st.booleans())
    def record(self, pick: int, drawn: Sequence[tuple[State, str]], alike: bool) -> None:
        sent = self.sent[-1 - pick % len(self.sent)]
        told = drawn[:1] if alike else drawn[: len(sent.lines)]
        receipts = [Receipt(state, "code", "Words.", reference) for state, reference in told]
        self.call(None if sent.open else IllegalMoveError, self.journal.record(sent.dispatch, receipts))
        if sent.open:
            sent.open = False
            for line, (state, reference) in zip(
                sent.lines, list(told) * (len(sent.lines) if alike else 1), strict=True
            ):
                line.become(state, reference)

    @precondition(lambda self: self.sent)
    @rule(pick=picks, state=st.sampled_from([State.READY, State.READY, State.UNKNOWN]))
    def never_left(self, pick: int, state: State) -> None:
        sent = self.sent[-1 - pick % len(self.sent)]
        legal = sent.open and state is State.READY
        work = self.journal.record(sent.dispatch, [Receipt(state, "refused_here")], on_wire=False)
        self.call(None if legal else IllegalMoveError, work)
        for line in sent.lines if legal else ():
            sent.open = False
            line.become(State.READY, "")
            line.wired -= 1

    @precondition(lambda self: self.sent)
    @rule(pick=picks)
    def leave_sending(self, pick: int) -> None:
        sent = self.sent[-1 - pick % len(self.sent)]
        self.call(IllegalMoveError, self.journal.record(sent.dispatch, [Receipt(State.SENDING)]))

    @precondition(lambda self: self.runs)
    @rule(pick=picks)
    def recover(self, pick: int) -> None:
        run_id, model = self.one(pick)
        lost = [sent for sent in self.sent if sent.open and sent.run is model]
        outcomes = self.wait(self.journal.recover(run_id))
        assert sorted(o.line for o in outcomes) == sorted(line.line for sent in lost for line in sent.lines)
        for sent in lost:
            sent.open = False
            for line in sent.lines:
                line.become(State.UNKNOWN, "")

    @precondition(lambda self: any(model.lines and model.state != "intake" for model in self.runs.values()))
    @rule(drawn=st.lists(seen, min_size=1, max_size=4))
    def apply(self, drawn: Sequence[tuple[int, State, str, bool]]) -> None:
        sealed = [model for model in self.runs.values() if model.state != "intake"]
        lines = [(model, line) for model in sealed for line in model.lines.values()]
        lines.sort(key=lambda found: found[1].state in (State.PAID, State.REJECTED))
        results, absent = [LookUpResult("nonsense", Receipt(State.PAID))], []
        for pick, state, reference, fits in drawn:
            model, line = lines[pick % len(lines)]
            reference = "" if state is State.READY else reference
            amount_minor = line.amount_minor if fits else line.amount_minor + 1
            results.append(LookUpResult(line.key, Receipt(state, "", "", reference), amount_minor))
            before = line.state
            line.see(state, reference, fits)
            if model.cancelled and before is State.UNKNOWN and line.state is State.READY:
                absent.append(line)
        self.wait(self.journal.reconcile(results))
        for line in absent:
            if line.state is State.READY:
                line.become(State.HELD, "")

    @precondition(lambda self: self.runs)
    @rule(pick=picks, lane=lanes)
    def resendable_chunks(self, pick: int, lane: Lane) -> None:
        run_id, model = self.one(pick)
        steered = model.cancelled or model.requests
        doubtful: dict[int, list[Line]] = {}
        for number, lines in model.in_lane(lane, *([] if steered else [State.UNKNOWN])).items():
            # A look-up says more of what the provider gave a reference.
            if unnamed := [line for line in lines if not line.reference]:
                doubtful[number] = unnamed
        found = self.wait(self.journal.resendable_chunks(run_id, lane, PAYS_ONCE, clock.now() + 1.0, 0, 9))
        self.loaded(model, doubtful, found)

    @precondition(lambda self: self.chunks)
    @rule(pick=picks, promised=st.booleans())
    def intend_resend(self, pick: int, promised: bool) -> None:
        chunk, lines, model = self.chunks[-1 - pick % len(self.chunks)]
        traits = PAYS_ONCE if promised else msgspec.structs.replace(PAYS_ONCE, key_promise=KeyPromise.NONE)
        legal = promised and not model.cancelled and not model.requests
        legal = legal and all(line.state is State.UNKNOWN for line in lines)
        self.call(None if legal else IllegalMoveError, self.journal.intend_resend(chunk, traits))
        for line in lines if legal else ():
            line.sent += 1

    @precondition(lambda self: self.runs)
    @rule(pick=picks, limit=st.integers(1, 3))
    def open_queries(self, pick: int, limit: int) -> None:
        run_id, model = self.one(pick)
        told, after = list[tuple[str, State, str]](), 0
        while True:
            found, after = self.wait(self.journal.open_queries(run_id, "bf", limit, after))
            told += [(query.key, query.state, query.provider_reference) for query in found]
            if not after:
                break
        asked = [line for line in model.lines.values() if line.state in (State.ACCEPTED, State.UNKNOWN)]
        assert told == [(line.key, line.state, line.reference) for line in asked]

    @precondition(lambda self: self.runs)
    @rule(pick=picks)
    def finish(self, pick: int) -> None:
        run_id, model = self.one(pick)
        self.call(None if model.approved else IllegalMoveError, self.journal.finish(run_id))
        if model.approved:
            model.state = "finished"

    # -- people

    @precondition(lambda self: self.runs)
    @rule(pick=picks)
    def note(self, pick: int) -> None:
        run_id, model = self.one(pick)
        self.wait(self.journal.note(run_id, "remark", "Words."))
        model.notes.append("remark")

    @precondition(lambda self: self.runs)
    @rule(pick=picks, kind=st.sampled_from(list(ControlKind)))
    def ask(self, pick: int, kind: ControlKind) -> None:
        run_id, model = self.one(pick)
        self.wait(self.journal.request(run_id, ControlRequest(kind, "awa", "the bank called")))
        model.requests[kind] = False
        model.notes.append(f"asked_{kind}")
        model.cancelled |= kind is ControlKind.CANCEL

    @precondition(lambda self: self.runs)
    @rule(pick=picks, kind=st.sampled_from(list(ControlKind)), done=st.booleans())
    def answer(self, pick: int, kind: ControlKind, done: bool) -> None:
        run_id, model = self.one(pick)
        self.wait(self.journal.acknowledge(run_id, kind, done))
        if done:
            model.requests.pop(kind, None)
        elif kind in model.requests:
            model.requests[kind] = True

    @precondition(lambda self: self.runs)
    @rule(pick=picks, limit=st.integers(1, 3))
    def cancel(self, pick: int, limit: int) -> None:
        run_id, model = self.one(pick)
        request, after = ControlRequest(ControlKind.CANCEL, "awa", "a mistake"), 0
        while True:
            done = self.call(
                None if model.approved else IllegalMoveError, self.journal.cancel(run_id, request, after, limit)
            )
            after = done[1] if done else 0
            if not after:
                break
        for line in model.lines.values() if model.approved else ():
            line.be_cancelled()

    @precondition(lambda self: any(model.lines for model in self.runs.values()))
    @rule(pick=picks, drawn=st.lists(st.tuples(picks, st.sampled_from(list(Choice))), min_size=1, max_size=2))
    def decide(self, pick: int, drawn: Sequence[tuple[int, Choice]]) -> None:
        run_id, model = self.one(pick)
        waiting = (State.HELD, State.UNKNOWN, State.ACCEPTED)
        lines = sorted(model.lines.values(), key=lambda line: line.state not in waiting)
        if not lines:
            return
        told = [(lines[other % len(lines)], choice) for other, choice in drawn]
        legal = model.approved and all(line.may_be(choice) for line, choice in told)
        legal = legal and len({line.key for line, _ in told}) == len(told)
        decisions = [Decision(line.key, choice, "Awa", "said so") for line, choice in told]
        self.call(None if legal else DecisionError, self.journal.decide(run_id, decisions))
        for line, choice in told if legal else ():
            line.become(DECIDED[choice])
            model.state = "paying" if choice is Choice.SEND_AGAIN else model.state

    # -- help

    def one(self, pick: int) -> tuple[str, RunModel]:
        """Return one of the runs."""
        return list(self.runs.items())[pick % len(self.runs)]

    def loaded(self, model: RunModel, expected: dict[int, list[Line]], found: Sequence[ReadyChunk]) -> None:
        """Compare chunks with what they should hold, and keep them for later, when they may be out of date."""
        told = [list(chunk.keys) for chunk in found]
        assert told == [[line.key for line in lines] for _, lines in sorted(expected.items())]
        by_key = {line.key: line for line in model.lines.values()}
        self.chunks += [(chunk, [by_key[key] for key in chunk.keys], model) for chunk in found]


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
