"""The proof: what must hold in the log, and between the log and the tables. Pure; `verify.py` feeds it rows.

`Chain` follows the whole log entry by entry; `Story` gathers what it says of one run. `ChunkReplay` replays what it
says of one chunk: every payout begins where it was born, every entry is a move that its kind may make, every dispatch
finds its payouts `ready`, and the end is what the tables hold. One entry and one chunk are held at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from payout_engine.domain.facts import Asked
from payout_engine.domain.model import (
    REJECTED_LANE,
    ControlKind,
    ControlRequest,
    Lane,
    Payout,
    Receipt,
    RunState,
    Tally,
)
from payout_engine.domain.proof import Finding
from payout_engine.domain.states import MOVES, STATES_BY_LETTER, State
from payout_engine.journal import codec, log
from payout_engine.journal.facts import read_fact
from payout_engine.journal.resends import CLOCK_SLACK_SECONDS, refusal
from payout_engine.ports.journal import OnWire

Arrows = frozenset[tuple[State, State]]


def _leaving(*sources: State) -> Arrows:
    return frozenset((source, target) for source, target in MOVES if source in sources)


ARROWS: Mapping[str, Arrows] = {
    log.HOLD: frozenset({(State.READY, State.HELD)}),
    log.RECEIPTS: _leaving(State.SENDING),
    log.RECOVER: frozenset({(State.SENDING, State.UNKNOWN)}),
    # Beside its moves, a look-up may make more known of a payout that stays where it is.
    log.SIGHTING: _leaving(State.ACCEPTED, State.UNKNOWN, State.PAID, State.FAILED, State.CANCELLED)
    | {(State.READY, State.HELD), *((state, state) for state in State if state is not State.SENDING)},
    log.DECISION: _leaving(State.HELD)
    | {
        (State.UNKNOWN, State.HELD),
        (State.ACCEPTED, State.HELD),
        (State.READY, State.CANCELLED),
        (State.READY, State.HELD),
    },
}
"""Which moves each kind of entry may make. `ready` is reached by a refusal before processing, by proof of absence, or
by a person, and left for the wire by an intent alone: so no dispatch follows another without a proof between. What is
resent to ask stays `unknown`, and is validated by the promise that its entry names."""

HARMLESS: Arrows = frozenset({(State.READY, State.HELD), (State.READY, State.CANCELLED)})
"""What any other kind of entry may do: take back what was never sent."""

FINDINGS_MAX = 100
"""Findings that are told; the others are only counted."""

BROKEN = (msgspec.DecodeError, IndexError, KeyError, ValueError)
"""What reading an altered text may raise."""


class Findings:
    """What does not hold: the first findings, and how many in all."""

    def __init__(self) -> None:
        self.first: list[Finding] = []
        self.count = 0

    def add(self, finding: Finding) -> None:
        """Keep a finding, or only count it when there are many."""
        self.count += 1
        if len(self.first) < FINDINGS_MAX:
            self.first.append(finding)


class LogRow(NamedTuple):
    """An entry of the log as it is stored."""

    seq: int
    at: float
    run_no: int
    chunk_id: int | None
    kind: str
    body: str
    hash: bytes


class Seal(msgspec.Struct, frozen=True):
    """The body of a `seal` entry, apart from the facts of the run itself."""

    chunks: int
    payouts_digest: str
    totals: Sequence[SealedTotal]


class SealedTotal(msgspec.Struct, frozen=True):
    """How many payouts of a lane were sealed, and how much."""

    account: str
    lane: str
    currency: str
    count: int
    amount_minor: int


class Standing(NamedTuple):
    """A row of the requests: what a person asked and nobody has done yet."""

    kind: str
    who: str
    why: str
    at: float


class RunReplay:
    """What the log says of one run as a whole, gathered while the chain is followed.

    Attributes:
        told: whether it says anything of the run apart from remarks.
        head_seq: its last entry, 0 if there is none.
        head: the hash of that entry.
        seal_text: the body of its seal, or empty.
        approved: the number, time and entry of its approval.
        finished_at: when it was finished, unless something was released or sent later.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.told = False
        self.head_seq, self.head = 0, log.GENESIS
        self.kept_head: bytes | None = None
        self.seal_text = ""
        self.approved: tuple[int, float, int] | None = None
        self.finished_at: float | None = None
        self._asked: dict[str, tuple[log.AskedRemark, float]] = {}
        self.problems: list[tuple[int, str]] = []
        self._latest_at, self._set_back = float("-inf"), False

    def hear(self, entry: LogRow) -> None:
        """Take in one entry of the run."""
        first = not self.told and entry.kind not in log.ASIDE_KINDS
        self.told = self.told or first
        self.head_seq, self.head = entry.seq, entry.hash
        self._set_back = self._set_back or entry.at < self._latest_at - CLOCK_SLACK_SECONDS
        self._latest_at = max(self._latest_at, entry.at)
        if first and entry.kind != log.SEAL:
            self.problems.append((entry.seq, "the run's log does not begin with its seal"))
        try:
            self._hear(entry)
        except BROKEN:
            self.problems.append((entry.seq, f"the {entry.kind} entry cannot be read"))

    def _hear(self, entry: LogRow) -> None:
        if entry.kind == log.SEAL:
            if self.seal_text:
                self.problems.append((entry.seq, "the run is sealed a second time"))
            self.seal_text = entry.body
        elif entry.kind == log.APPROVE:
            if self.approved:
                self.problems.append((entry.seq, "the run is approved a second time"))
            self.approved = log.read_approval(entry.body).approved_no, entry.at, entry.seq
        elif entry.kind == log.DISCARD:
            self.problems.append((entry.seq, "the log says that the run was discarded"))
        elif entry.kind == log.ASKED_AGAIN:
            if self._set_back and log.read_asked_again(entry.body).lifetime_seconds is not None:
                self.problems.append((entry.seq, "sent again to ask although the clock had been set back"))
        elif entry.kind == log.FINISH:
            self.finished_at = entry.at
        elif entry.kind == log.FACT:
            fact = read_fact.decode(entry.body)
            if isinstance(fact, Asked):
                request = fact.request
                self._asked[request.kind] = log.AskedRemark("", "", request.who, request.why), entry.at
        elif entry.kind == log.NOTE:
            noted = _noted.decode(entry.body)
            if noted.kind.startswith(_ASKED):
                self._asked[noted.kind.removeprefix(_ASKED)] = noted, entry.at
        elif entry.kind == log.ANSWERED:
            self._asked.pop(_answered.decode(entry.body).kind, None)
        elif entry.kind == log.INTENT or (entry.kind == log.DECISION and _releases(entry.body)):
            self.finished_at = None

    @property
    def state(self) -> RunState:
        """Where the run stands, by its log."""
        if self.approved is None:
            return RunState.VALIDATED
        return RunState.PAYING if self.finished_at is None else RunState.FINISHED

    def unasked(self, requests: Sequence[Standing]) -> Iterator[str]:
        """Yield how the requests that stand differ from what the log says was asked and is not done."""
        for kind, who, why, at in requests:
            asked, asked_at = self._asked.get(kind, (log.AskedRemark("", ""), 0.0))
            known = (asked.who, asked.why) if asked.who is not None else asked.text
            if (known, asked_at) != ((who, why) if asked.who is not None else str(ControlRequest(_KIND, who, why)), at):
                yield f"the table requests holds a {kind} that nobody asked like this, by the log, or that was done"
        for kind, (asked, _) in self._asked.items():
            # Entries from before who and why were recorded apart do not tell whether it was done.
            if asked.who is not None and kind not in {request.kind for request in requests}:
                yield f"the {kind} that {asked.who} asked is not done, by the log, but missing from the table requests"


def _releases(body: str) -> bool:
    return any(receipt.state is State.READY for receipt in log.read_moved(body).receipts)


class Chain:
    """Follows the log from its first entry, and says where it is broken."""

    def __init__(self) -> None:
        self.entries = 0
        self._before = log.GENESIS
        self._next_seq = 1

    def follow(self, entry: LogRow) -> str:
        """Take in the next entry; return what is wrong with it, or an empty text."""
        missing = entry.seq - self._next_seq
        sealed = log.chained(self._before, entry.at, entry.run_no, entry.chunk_id, entry.kind, entry.body)
        # Going on from the stored hash, one altered entry is one finding and not one for every entry after it.
        self._before, self._next_seq = entry.hash, entry.seq + 1
        self.entries += 1
        if missing:
            last = entry.seq - 1
            return f"entries {last - missing + 1} to {last} of the log are missing" if missing > 0 else "out of order"
        if sealed != entry.hash:
            return "the hash does not fit: this entry was altered, or an entry before it was altered, removed or added"
        return ""

    @property
    def last_seq(self) -> int:
        """The number of the last entry, 0 if there is none."""
        return self._next_seq - 1


class Register:
    """Which runs the log knows: the list of runs must have these and no others."""

    def __init__(self) -> None:
        self._sealed: dict[int, str] = {}
        self._approved: set[int] = set()
        self.last_run = 0

    def hear(self, entry: LogRow) -> None:
        """Take in one entry, of any run."""
        self.last_run = max(self.last_run, entry.run_no)
        if entry.kind == log.SEAL:
            try:
                self._sealed[entry.run_no] = msgspec.json.decode(entry.body, type=_Named).run_id
            except BROKEN:
                self._sealed[entry.run_no] = ""
        elif entry.kind == log.APPROVE:
            self._approved.add(entry.run_no)
        elif entry.kind == log.DISCARD:
            self._sealed.pop(entry.run_no, None)

    def differences(self, listed: Iterable[tuple[int, str, str, bool]]) -> Iterator[tuple[str, str]]:
        """Yield what the list of runs lacks or has beside the log, with the run's id.

        Args:
            listed: number, id, state, and whether it was approved, of each run.
        """
        missing = dict(self._sealed)
        for number, run_id, state, approved in listed:
            if state != RunState.INTAKE and number not in self._sealed:
                yield "the table of runs holds a run that the log does not know", run_id
            elif approved is not (number in self._approved):
                yield "whether the run was approved is not as the log says", run_id
            missing.pop(number, None)
        for run_id in missing.values():
            yield "the run is gone from the table of runs", run_id


class StoredChunk(NamedTuple):
    """One chunk as the tables hold it."""

    chunk_id: int
    lane: Lane
    payouts: Sequence[Payout]
    states: str
    receipts: Sequence[Receipt | None]


class Attempt(NamedTuple):
    """One row of the dispatches, or what the log says of one."""

    dispatch_id: int
    indexes: tuple[int, ...]
    begun_at: float
    ended_at: float | None
    boot: str | None
    up_seconds: float | None
    on_wire: OnWire | None = True


class ChunkReplay:
    """Replays the log of one chunk.

    Args:
        stored: the chunk as the tables hold it.
        approved_seq: the entry that approved the run; None if nobody did.
    """

    def __init__(self, stored: StoredChunk, approved_seq: int | None) -> None:
        born = State.REJECTED if stored.lane == REJECTED_LANE else State.READY
        self.states = [born] * len(stored.payouts)
        self._receipts: list[Receipt | None] = [None] * len(stored.payouts)
        self.stored = stored
        self._approved_seq = approved_seq
        self._attempts: dict[int, Attempt] = {}
        self._first_sent: dict[int, float] = {}

    def replay(self, entry: LogRow) -> Iterator[Finding]:
        """Take in the next entry of the chunk; yield what does not follow."""
        try:
            if entry.kind == log.INTENT:
                yield from self._intent(entry, log.read_intent(entry.body))
            elif entry.kind == log.ASKED_AGAIN:
                yield from self._sent_again(entry, log.read_asked_again(entry.body))
            elif entry.kind in log.MOVED_KINDS:
                yield from self._moved(entry, log.read_moved(entry.body))
            elif entry.kind not in log.ASIDE_KINDS:
                yield self._finding(entry, "an entry of an unknown kind")
        except BROKEN:
            yield self._finding(entry, f"the {entry.kind} entry cannot be read")

    def _intent(self, entry: LogRow, intent: log.Intent) -> Iterator[Finding]:
        indexes = self._indexes(intent.indexes)
        if self._approved_seq is None or entry.seq < self._approved_seq:
            yield self._finding(entry, "sent before anybody approved the run", indexes)
        doubtful = [index for index in indexes if self.states[index] is not State.READY]
        if doubtful:
            states = ", ".join(sorted({self.states[index] for index in doubtful}))
            yield self._finding(entry, f"sent while {states}, without proof that the dispatch before failed", doubtful)
        if intent.dispatch in self._attempts:
            yield self._finding(entry, f"dispatch {intent.dispatch} begins a second time", indexes)
        for index in indexes:
            self.states[index], self._receipts[index] = State.SENDING, None
            self._first_sent[index] = min(entry.at, self._first_sent.get(index, entry.at))
        begun = Attempt(intent.dispatch, indexes, entry.at, None, intent.boot, intent.up_seconds)
        self._attempts[intent.dispatch] = begun

    def _sent_again(self, entry: LogRow, again: log.AskedAgain) -> Iterator[Finding]:
        """Asking again under the same key is no second dispatch, if it was done as the promise it names allows."""
        indexes = self._indexes(again.indexes)
        settled = [index for index in indexes if self.states[index] is not State.UNKNOWN]
        if settled:
            states = ", ".join(sorted({self.states[index] for index in settled}))
            yield self._finding(entry, f"sent again to ask while {states}", settled)
        reasons: dict[str, list[int]] = {}
        for index in indexes:
            why = refusal(again.promise, again.lifetime_seconds, self._first_sent.get(index), entry.at)
            reasons.setdefault(why, []).append(index)
        for why, refused in reasons.items():
            if why:
                yield self._finding(entry, f"sent again to ask although {why}", refused)

    def _moved(self, entry: LogRow, moved: log.Moved) -> Iterator[Finding]:
        indexes = self._indexes(moved.indexes)
        receipts = codec.each(moved.receipts, len(indexes))
        arrows = ARROWS.get(entry.kind, HARMLESS)
        wrong = [
            index
            for index, receipt in zip(indexes, receipts, strict=True)
            if (self.states[index], receipt.state) not in arrows
        ]
        if wrong:
            yield self._finding(entry, f"a {entry.kind} entry makes a move that it cannot make", wrong)
        if entry.kind == log.DECISION and len(moved.persons) != len(indexes):
            yield self._finding(entry, "a decision without the person who took it", indexes)
        for index, receipt in zip(indexes, receipts, strict=True):
            self.states[index], self._receipts[index] = receipt.state, receipt
        if (moved.dispatch is not None) is not (entry.kind in (log.RECEIPTS, log.RECOVER)):
            yield self._finding(entry, "an answer without a dispatch, or the other way round", indexes)
        elif moved.dispatch is not None:
            on_wire = moved.on_wire if isinstance(moved.on_wire, bool) else tuple(moved.on_wire)
            unspoken = log.unspoken(indexes, on_wire)
            if any(self.states[index] is not State.READY for index in unspoken):
                yield self._finding(entry, "an answer to a call that never left", unspoken)
            yield from self._end(entry, moved.dispatch, indexes, on_wire=on_wire)

    def _end(self, entry: LogRow, dispatch: int, indexes: tuple[int, ...], *, on_wire: OnWire) -> Iterator[Finding]:
        attempt = self._attempts.get(dispatch)
        if attempt is None or attempt.ended_at is not None or attempt.indexes != indexes:
            yield self._finding(entry, f"an answer that does not belong to dispatch {dispatch}", indexes)
        else:
            self._attempts[dispatch] = attempt._replace(ended_at=entry.at, on_wire=on_wire)

    def _indexes(self, indexes: Sequence[int] | None) -> tuple[int, ...]:
        count = len(self.stored.payouts)
        chosen = tuple(range(count)) if indexes is None else tuple(indexes)
        if len(set(chosen)) != len(chosen) or any(not 0 <= index < count for index in chosen):
            raise ValueError("no such payouts")
        return chosen

    def conclude(self, attempts: Sequence[Attempt]) -> Iterator[Finding]:
        """Compare where the replay ended with what the tables hold; yield what differs."""
        for index, (state, letter) in enumerate(zip(self.states, self.stored.states, strict=False)):
            if STATES_BY_LETTER.get(letter) is not state:
                held = STATES_BY_LETTER.get(letter, letter)
                yield self._finding(None, f"recorded as {held}, but by the log it is {state}", [index])
            # What was said of refused lines is in no entry; it is part of the sealed digest instead.
            elif state is not State.REJECTED and self.stored.receipts[index] != self._receipts[index]:
                yield self._finding(None, "what is recorded of it is not what the log says", [index])
        if len(self.states) != len(self.stored.states):
            yield self._finding(None, "its states are not as many as its payouts")
        if [self._told(attempt) for attempt in attempts] != list(self._attempts.values()):
            yield self._finding(None, "the table of dispatches does not agree with the log")

    def _told(self, attempt: Attempt) -> Attempt:
        """Return an attempt without what the log was not told yet when it began."""
        known = self._attempts.get(attempt.dispatch_id, attempt)
        return attempt._replace(boot=None, up_seconds=None) if known.boot is None else attempt

    @property
    def dispatches(self) -> int:
        """How many dispatches the log knows."""
        return len(self._attempts)

    def _finding(self, entry: LogRow | None, what: str, indexes: Sequence[int] = ()) -> Finding:
        payouts = self.stored.payouts
        lines = [payouts[index].line for index in indexes] or [payout.line for payout in payouts] or [0]
        return Finding(what, entry.seq if entry else 0, "", min(lines), max(lines))


class _Named(msgspec.Struct, frozen=True):
    run_id: str


_ASKED = "asked_"  # So began the kinds of the remarks by which older journals told what was asked.
_KIND = ControlKind.PAUSE  # Of what was asked, the kind is told apart.
_noted = msgspec.json.Decoder(log.AskedRemark)
_answered = msgspec.json.Decoder(log.Answered)


def digest_of(run_id: str, seq: int, head: bytes, tallies: Sequence[Tally]) -> str:
    """Return the digest of a run: the number of its last entry, and a hash over that entry, the id and the totals."""
    lines = [f"payout_engine run {run_id}", f"entry {seq} {head.hex()}"]
    for tally in tallies:
        lane = tally.lane
        lines.append(f"{lane.account}|{lane.name}|{lane.currency}|{tally.state}|{tally.count}|{tally.amount_minor}")
    return f"{seq}-{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def kept_seq(kept: str) -> int:
    """Return the number of the entry that a kept digest speaks of; 0 when it is no digest."""
    seq, dash, sha256 = kept.partition("-")
    return int(seq) if dash and seq.isascii() and seq.isdecimal() and len(sha256) == 64 else 0
