"""The journal in memory: the readable reference of `ports.Journal`, which the durable one must agree with.

Plain dictionaries and exact comparisons; nothing survives the process. It passes the same suite as `SqliteJournal`,
serves simulations, and is what to read first to understand what a journal does.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec

from payout_engine import clock
from payout_engine.errors import IllegalMoveError, JournalBusyError, JournalError
from payout_engine.journal import log
from payout_engine.journal.asking_again import MOVED, SET_BACK, STEERED, askable, steady
from payout_engine.journal.asking_again import refusal as forbidden
from payout_engine.journal.audit import digest_of, replayed
from payout_engine.journal.deciding import absent, by_chunk, never_approved, receipts_of, refusal, refused
from payout_engine.journal.keys import (
    chunk_id_of,
    new_token,
    parse_key,
    position_of,
    provider_keys,
    run_no_of,
    split_position,
)
from payout_engine.journal.memory_lines import Line, RunLines, alike, in_chunks, open_queries, outcome, require, steered
from payout_engine.journal.rows import INTERRUPTED, each, receipt_of, stamped
from payout_engine.journal.sightings import conflict_text
from payout_engine.journal.steering import cancelled_by, withdrawn
from payout_engine.journal.steering import receipt_of as withdrawal
from payout_engine.journal.verdict import judge
from payout_engine.lifecycle import State, move
from payout_engine.limits import BLOCK_ROWS, REPEAT_WINDOW_SECONDS
from payout_engine.locks import busy
from payout_engine.model import (
    Audit,
    Choice,
    Chunk,
    Decision,
    Dispatch,
    Entry,
    Finding,
    Holder,
    Lane,
    Outcome,
    Problem,
    Query,
    Receipt,
    Repeat,
    RepeatKind,
    Request,
    RequestKind,
    Run,
    RunState,
    Sighting,
    Step,
    Tally,
)
from payout_engine.ports import Applied, Mark, ReadyChunk
from payout_engine.traits import Traits


class MemoryJournal:
    """A journal that lasts as long as the process; see `ports.Journal` for what each method promises."""

    def __init__(self) -> None:
        self._runs: dict[str, RunLines] = {}
        self._numbers = 0
        self._approvals = 0
        self._sequence = 0
        self._dispatches: list[Dispatch] = []
        self._unfinished: dict[int, Dispatch] = {}
        self._leases: dict[str, Holder] = {}
        self._times: list[float] = []

    def _run(self, run_id: str) -> RunLines:
        if run_id not in self._runs:
            raise JournalError(f"The journal has no run {run_id}. See the runs it has with: payout-engine runs")
        return self._runs[run_id]

    def _number(self, number: int) -> RunLines:
        for run in self._runs.values():
            if run.number == number:
                return run
        raise IllegalMoveError("the run of this chunk was discarded, so nothing of it may be sent")

    def _publish(self, run: RunLines, lines: Sequence[Line], kind: str, at: float) -> Sequence[Outcome]:
        """Write down where these lines stand now, and tell it."""
        outcomes = [outcome(run, line) for line in lines]
        self._sequence += 1
        self._times.append(at)
        run.events.append((self._sequence, outcomes))
        for line in lines:
            line.steps.append(Step(at, kind, line.receipt))
        return outcomes

    # ------------------------------------------------------------------------------------------------------- intake

    async def begin(self, run: Run) -> None:
        if run.run_id in self._runs:
            raise JournalError(f"The journal already has a run {run.run_id}. Give the new run another id.")
        self._numbers += 1
        self._runs[run.run_id] = RunLines(
            msgspec.structs.replace(run, state=RunState.INTAKE), self._numbers, new_token()
        )

    async def add(self, run_id: str, chunks: Sequence[Chunk]) -> None:
        run, at = self._run(run_id), clock.now()
        require(run, RunState.INTAKE)
        for chunk in chunks:
            run.chunks += 1
            chunk_id = chunk_id_of(run.number, run.chunks)
            keys = provider_keys(run.token, chunk_id, range(len(chunk.payouts)))
            born = [Receipt(State.READY)] * len(chunk.payouts)
            if chunk.problems:
                refusals = [receipt_of(problem, State.REJECTED, at) for problem in chunk.problems]
                born = list(each(refusals, len(chunk.payouts)))
            for index, payout in enumerate(chunk.payouts):
                position = position_of(chunk_id, index)
                line = Line(position, payout, chunk.rows[index], chunk.lane, keys[index], born[index])
                run.lines[position] = line

    async def repeats(self, run_id: str) -> AsyncIterator[Sequence[Repeat]]:
        run = self._run(run_id)
        if run.run.approved_at is not None:
            raise IllegalMoveError(f"run {run_id} was approved, so it is no longer compared")
        approvals = self._approvals
        found: list[Repeat] = []
        for line in list(run.lines.values()):
            if line.receipt.state is State.READY:
                if run.run.has_references:
                    found += self._repeats_of(run, line, RepeatKind.REFERENCE)
                found += self._repeats_of(run, line, RepeatKind.PAYEE_AMOUNT)
        run.compared = approvals
        if found:
            yield found

    def _repeats_of(self, run: RunLines, line: Line, kind: RepeatKind) -> list[Repeat]:
        """Return what a payout repeats: the latest earlier run's lowest line, and the lowest line of its own run."""
        since = clock.now() - REPEAT_WINDOW_SECONDS
        earlier = [
            other
            for other in self._runs.values()
            if other is not run
            and other.run.approved_at is not None
            and (kind is RepeatKind.REFERENCE or other.run.approved_at >= since)
        ]
        originals: list[tuple[RunLines, Line]] = []
        for other in sorted(earlier, key=lambda other: -other.approved_no):
            found = alike(other, line, kind)
            if found:
                originals.append((other, found[0]))
                break
        own = alike(run, line, kind)
        if own[0] is not line:
            originals.append((run, own[0]))
        return [
            Repeat(
                kind=kind,
                position=line.position,
                payout=line.payout,
                earlier_run_id=other.run.run_id,
                earlier_line=original.payout.line,
                earlier_state=original.receipt.state,
                earlier_at=0.0 if other is run else other.run.approved_at or 0.0,
                same_run=other is run,
            )
            for other, original in originals
        ]

    async def hold(self, run_id: str, reasons: Mapping[int, Problem]) -> None:
        run, at = self._run(run_id), clock.now()
        if any(
            position not in run.lines or run.lines[position].receipt.state is not State.READY for position in reasons
        ):
            raise IllegalMoveError(f"only ready payouts of run {run_id} can be held")
        chunks: dict[int, list[int]] = {}
        for position in sorted(reasons):
            run.lines[position].receipt = receipt_of(reasons[position], State.HELD, at)
            chunks.setdefault(split_position(position)[0], []).append(position)
        if run.run.state is not RunState.INTAKE:
            for positions in chunks.values():
                self._publish(run, [run.lines[position] for position in positions], log.HOLD, at)

    async def seal(self, run_id: str) -> None:
        run = self._run(run_id)
        require(run, RunState.INTAKE)
        run.run = msgspec.structs.replace(run.run, state=RunState.JUDGED)
        run.compared = self._approvals if run.compared is None else run.compared
        run.sealed_no = len(self._times)
        self._times.append(clock.now())
        chunks: dict[int, list[Line]] = {}
        for line in run.lines.values():
            if line.receipt.state is State.HELD:
                chunks.setdefault(split_position(line.position)[0], []).append(line)
        for lines in chunks.values():
            self._publish(run, lines, log.HOLD, clock.now())

    async def discard(self, run_id: str) -> None:
        if self._run(run_id).run.approved_at is not None:
            raise IllegalMoveError(f"run {run_id} was approved, so it is never removed")
        del self._runs[run_id]

    async def approve(self, run_id: str) -> bool:
        run = self._run(run_id)
        if run.run.approved_at is not None:
            return True
        require(run, RunState.JUDGED)
        if self._approvals > (run.compared or 0):
            return False
        self._approvals += 1
        run.approved_no = self._approvals
        self._times.append(clock.now())
        run.run = msgspec.structs.replace(run.run, state=RunState.PAYING, approved_at=self._times[-1])
        return True

    # ------------------------------------------------------------------------------------------------------ payment

    async def recover(self, run_id: str) -> Sequence[Outcome]:
        run, outcomes = self._run(run_id), list[Outcome]()
        for dispatch in list(self._unfinished.values()):
            if run_no_of(dispatch.chunk_id) == run.number:
                outcomes += self._record(dispatch, [INTERRUPTED], log.RECOVER)
        return outcomes

    async def ready(self, run_id: str, lane: Lane, after: int, limit: int) -> Sequence[ReadyChunk]:
        run = self._run(run_id)
        waiting = [line for line in run.lines.values() if line.receipt.state is State.READY]
        return in_chunks(waiting, lane, after, limit)

    async def ready_amounts(
        self, run_id: str, lane: Lane, after: int, limit: int
    ) -> Sequence[tuple[int, Sequence[int]]]:
        chunks = await self.ready(run_id, lane, after, limit)
        return [(chunk.chunk_id, [payout.amount_minor for payout in chunk.payouts]) for chunk in chunks]

    async def intend(self, chunk: ReadyChunk) -> Dispatch:
        run, at = self._number(run_no_of(chunk.chunk_id)), clock.now()
        if run.run.approved_at is None:
            raise IllegalMoveError("nobody approved this run, so nothing of it may be sent")
        lines = [run.lines[position_of(chunk.chunk_id, index)] for index in chunk.indexes]
        if not lines or any(line.receipt.state is not State.READY for line in lines):
            raise IllegalMoveError("a payout of this chunk is no longer ready, so the chunk may not be sent")
        for line in lines:
            line.receipt, line.sent = Receipt(State.SENDING), clock.moment()
            line.first_sent_at = at if line.first_sent_at is None else min(at, line.first_sent_at)
            line.steps.append(Step(at, log.INTENT, None))
        self._times.append(at)
        run.run = msgspec.structs.replace(run.run, state=RunState.PAYING, finished_at=None)
        dispatch_id = len(self._dispatches) + 1
        dispatch = Dispatch(dispatch_id, chunk.chunk_id, chunk.lane, chunk.indexes, chunk.payouts, chunk.keys)
        self._dispatches.append(dispatch)
        self._unfinished[dispatch_id] = dispatch
        return dispatch

    async def record(self, dispatch: Dispatch, receipts: Sequence[Receipt]) -> Sequence[Outcome]:
        return self._record(dispatch, receipts, log.RECEIPTS)

    def _record(self, dispatch: Dispatch, receipts: Sequence[Receipt], kind: str) -> Sequence[Outcome]:
        at = clock.now()
        receipts = stamped(each(receipts, len(dispatch.payouts)), at)
        for receipt in receipts:
            if receipt.state is State.SENDING:
                raise IllegalMoveError("a receipt cannot leave a payout sending")
            move(State.SENDING, receipt.state)
        if self._unfinished.pop(dispatch.dispatch_id, None) is None:
            raise IllegalMoveError("what became of this dispatch is already recorded")
        run = self._number(run_no_of(dispatch.chunk_id))
        lines = [run.lines[position_of(dispatch.chunk_id, index)] for index in dispatch.indexes]
        for line, receipt in zip(lines, receipts, strict=True):
            line.receipt = receipt
        return self._publish(run, lines, kind, at)

    async def unanswered(
        self, run_id: str, lane: Lane, traits: Traits, before: float, after: int, limit: int
    ) -> Sequence[ReadyChunk]:
        run, at = self._run(run_id), clock.now()
        if steered(run):
            return []
        doubtful = [
            line for line in run.lines.values() if askable(line.receipt, line.first_sent_at, traits, before, at)
        ]
        return in_chunks(doubtful, lane, after, limit)

    async def ask_again(self, chunk: ReadyChunk, traits: Traits) -> Dispatch:
        run, at = self._number(run_no_of(chunk.chunk_id)), clock.now()
        if steered(run):
            raise IllegalMoveError(STEERED)
        lines = [run.lines[position_of(chunk.chunk_id, index)] for index in chunk.indexes]
        if not lines or any(line.receipt.state is not State.UNKNOWN for line in lines):
            raise IllegalMoveError(MOVED)
        promise, lifetime_seconds = traits.key_promise, traits.key_lifetime_seconds
        reasons = [why for line in lines if (why := forbidden(promise, lifetime_seconds, line.first_sent_at, at))]
        if reasons:
            raise IllegalMoveError(f"a payout may not be sent again to ask: {reasons[0]}")
        if lifetime_seconds is not None and not steady(self._times[run.sealed_no :], at):
            raise IllegalMoveError(SET_BACK)
        for line in lines:
            line.sent = clock.moment()
            line.steps.append(Step(at, log.ASKED_AGAIN, None))
        self._times.append(at)
        last = max(item.dispatch_id for item in self._dispatches if item.chunk_id == chunk.chunk_id)
        return Dispatch(last, chunk.chunk_id, chunk.lane, chunk.indexes, chunk.payouts, chunk.keys)

    async def apply(self, sightings: Sequence[Sighting]) -> Applied:
        applied = Applied([], [])
        at = clock.now()
        for sighting in sightings:
            key = parse_key(sighting.key)
            run = next((run for run in self._runs.values() if key is not None and run.token == key.token), None)
            if key is None or run is None:
                continue
            line = run.lines.get(position_of(chunk_id_of(run.number, key.chunk_no), key.index))
            if line is not None:
                self._see(run, line, sighting, applied, at)
        return applied

    def _see(self, run: RunLines, line: Line, sighting: Sighting, applied: Applied, at: float) -> None:
        verdict = judge(line.payout, line.receipt, sighting, at)
        text = conflict_text(run.run.run_id, line.payout, verdict.conflict)
        if verdict.conflict and all(known != text for _, _, known in run.notes):
            run.notes.append((at, "conflict", text))
            applied.conflicts.append(text)  # type: ignore[attr-defined]
        for receipt in verdict.receipts:
            before, line.receipt = line.receipt, receipt
            move(before.state, receipt.state)
            self._publish(run, [line], log.SIGHTING, at)
            if (before.state, before.provider_reference) != (receipt.state, receipt.provider_reference):
                applied.outcomes.append(outcome(run, line))  # type: ignore[attr-defined]
        request = cancelled_by(run.notes)
        if request and verdict.receipts and line.receipt.state is State.READY:
            line.receipt = withdrawal(request, at)
            applied.outcomes.extend(self._publish(run, [line], log.DECISION, at))  # type: ignore[attr-defined]

    async def open_queries(self, run_id: str, account: str, limit: int, after: int = 0) -> tuple[Sequence[Query], int]:
        return open_queries(self._run(run_id), account, limit, after)

    async def finish(self, run_id: str) -> None:
        run = self._run(run_id)
        if run.run.approved_at is None:
            raise IllegalMoveError(f"run {run_id} is {run.run.state}, so it cannot be finished")
        self._times.append(clock.now())
        run.run = msgspec.structs.replace(run.run, state=RunState.FINISHED, finished_at=self._times[-1])

    # ------------------------------------------------------------------------------------------------------- people

    async def runs(self) -> Sequence[Run]:
        return [run.run for run in reversed(self._runs.values())]

    async def find(self, run_id: str) -> Run | None:
        return self._runs[run_id].run if run_id in self._runs else None

    async def find_digest(self, digest: str) -> Run | None:
        found = [run for run in await self.runs() if run.digest == digest]
        return next((run for run in found if run.approved_at is not None), found[0] if found else None)

    async def tally(self, run_id: str) -> Sequence[Tally]:
        counts: dict[tuple[Lane, State], list[int]] = {}
        for line in self._run(run_id).lines.values():
            counts.setdefault((line.lane, line.receipt.state), []).append(line.payout.amount_minor)
        return [Tally(lane, state, len(amounts), sum(amounts)) for (lane, state), amounts in sorted(counts.items())]

    async def entries(self, run_id: str, states: frozenset[State] | None = None) -> AsyncIterator[Sequence[Entry]]:
        run = self._run(run_id)
        found = [
            Entry(line.payout, line.row, line.lane, line.receipt, line.key)
            for line in sorted(run.lines.values(), key=lambda line: (line.payout.line, line.position))
            if states is None or line.receipt.state in states
        ]
        for start in range(0, len(found), BLOCK_ROWS):
            yield found[start : start + BLOCK_ROWS]

    async def ask(self, run_id: str, request: Request) -> None:
        run, at = self._run(run_id), request.at or clock.now()
        run.requests[request.kind] = msgspec.structs.replace(request, at=at, heard=False)
        await self.note(run_id, f"asked_{request.kind}", str(request))

    async def requests(self, run_id: str) -> Sequence[Request]:
        asked = self._run(run_id).requests
        return [asked[kind] for kind in sorted(asked)]

    async def answer(self, run_id: str, kind: RequestKind, done: bool) -> None:
        asked = self._run(run_id).requests
        if done:
            asked.pop(kind, None)
        elif kind in asked:
            asked[kind] = msgspec.structs.replace(asked[kind], heard=True)

    async def cancel(self, run_id: str, request: Request, after: int, limit: int) -> tuple[Sequence[Outcome], int]:
        run, at = self._run(run_id), clock.now()
        if run.run.approved_at is None:
            raise IllegalMoveError(f"nobody approved run {run_id}, so there is nothing to withdraw")
        chunks: dict[int, list[Line]] = {}
        for position, line in sorted(run.lines.items()):
            if split_position(position)[0] > after and line.receipt.state in (State.READY, State.HELD):
                chunks.setdefault(split_position(position)[0], []).append(line)
        outcomes: list[Outcome] = []
        for chunk_id in list(chunks)[:limit]:
            lines = [line for line in chunks[chunk_id] if withdrawn(line.receipt, sent=line.sent is not None)]
            for line in lines:
                line.receipt = withdrawal(request, at)
            if lines:
                outcomes += self._publish(run, lines, log.DECISION, at)
        return outcomes, list(chunks)[limit - 1] if len(chunks) >= limit else 0

    async def decide(self, run_id: str, decisions: Sequence[Decision]) -> Sequence[Outcome]:
        run, at = self._run(run_id), clock.now()
        if run.run.approved_at is None:
            raise never_approved(run_id)
        chunks = by_chunk(run.token, run.number, decisions)
        chosen = {position_of(chunk, index): told for chunk, part in chunks.items() for index, told in part.items()}
        problems = [
            refusal(line.payout, line.receipt, told.choice, sent=line.sent is not None) if line else absent(told)
            for line, told in ((run.lines.get(position), told) for position, told in sorted(chosen.items()))
        ]
        if any(problems):
            raise refused([problem for problem in problems if problem])
        for position, told in chosen.items():
            line = run.lines[position]
            for receipt in receipts_of(line.receipt, told, at):
                move(line.receipt.state, receipt.state)
                line.receipt = receipt
                self._publish(run, [line], log.DECISION, at)
        if any(told.choice is Choice.SEND_AGAIN for told in decisions):
            run.run = msgspec.structs.replace(run.run, state=RunState.PAYING, finished_at=None)
        outcomes = [outcome(run, run.lines[position]) for position in chosen]
        return sorted(outcomes, key=lambda outcome: outcome.line)

    async def trace(self, run_id: str, keys: Collection[str]) -> Mapping[str, Sequence[Step]]:
        return {line.key: list(line.steps) for line in self._run(run_id).lines.values() if line.key in keys}

    async def digest(self, run_id: str) -> str:
        run = self._run(run_id)
        if run.run.state is RunState.INTAKE:
            return ""
        head = hashlib.sha256(repr((run.events, run.notes)).encode()).digest()
        return digest_of(run_id, len(run.events) + len(run.notes) + 1, head, await self.tally(run_id))

    async def verify(self, run_id: str, kept: str = "") -> Audit:
        """Replay what each line went through. Nobody can alter a file that is not there, so there is no chain."""
        run = self._run(run_id)
        if run.run.state is RunState.INTAKE:
            raise JournalError(f"Run {run_id} was never judged to its end, so there is nothing to prove yet.")
        found = [
            Finding(problem, 0, run_id, line.payout.line, line.payout.line)
            for line in run.lines.values()
            for problem in replayed(line.lane, line.receipt, line.steps)
        ]
        return Audit(
            run_id=run_id,
            findings=found,
            found=len(found),
            entries=len(run.events) + len(run.notes) + 1,
            payouts=len(run.lines),
            dispatches=sum(run_no_of(dispatch.chunk_id) == run.number for dispatch in self._dispatches),
            totals=await self.tally(run_id),
            digest=await self.digest(run_id),
        )

    async def mark(self, seq: int | None = None) -> Mark | None:
        return None  # Nobody can copy it.

    async def note(self, run_id: str, kind: str, text: str) -> None:
        self._times.append(clock.now())
        self._run(run_id).notes.append((self._times[-1], kind, text))

    async def notes(self, run_id: str) -> Sequence[tuple[float, str, str]]:
        return list(self._run(run_id).notes)

    async def outcomes(self, run_id: str, after: int = 0) -> AsyncIterator[tuple[int, Sequence[Outcome]]]:
        for sequence, outcomes in list(self._run(run_id).events):
            if sequence > after:
                yield sequence, outcomes

    @asynccontextmanager
    async def lease(self, name: str, holder: Holder) -> AsyncIterator[None]:
        if name in self._leases:
            raise JournalBusyError(busy(name, self._leases[name]), self._leases[name])
        self._leases[name] = holder
        try:
            yield
        finally:
            del self._leases[name]

    async def aclose(self) -> None:
        """Nothing is queued and nothing is open."""
