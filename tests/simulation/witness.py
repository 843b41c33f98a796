"""What must hold while it happens: every call whose work is committed, and every send, of all processes at once.

A rule that is broken is told at the moment it is broken, and not only when it did damage. What the witness has seen is
also what a person at the bank can know: `people.py` asks it. `simulation.py` makes one for each seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
import apsw
import msgspec

from payout_engine.domain.errors import NotSentError
from payout_engine.domain.facts import CanaryPassed, lane_text, remark
from payout_engine.domain.model import Choice, ControlKind, ControlRequest, Decision, Dispatch, Lane, Receipt
from payout_engine.domain.states import OPEN, UNPAID, State
from payout_engine.journal import log, reads
from payout_engine.journal.db import only
from payout_engine.journal.facts import facts
from payout_engine.journal.snapshot import tallies
from payout_engine.ports.journal import Mark, ReadyChunk, Reconciled
from simulation.bank import LATE_SECONDS_MAX, TRAVEL_SECONDS
from simulation.crashing import READS, Call, Fuse
from simulation.shelf import JournalFile

TRAVELLING_SECONDS_MAX = LATE_SECONDS_MAX + TRAVEL_SECONDS[1] + 0.5
"""After this, a request that left has been carried out or is lost."""

_AT_THE_PROVIDER = OPEN | {State.PAID, State.FAILED, State.REVERSED}


class Meant(msgspec.Struct, frozen=True):
    """What was meant to be sent under a key.

    Attributes:
        journal: by whose first entry it is known.
        run_id: of which run.
        digest: of which content, also where the run is a retry of it.
        amount_minor: how much; it tells which line, since the lines of a simulation differ in it.
        account: from which account.
    """

    journal: str
    run_id: str
    digest: str
    amount_minor: int
    account: str


class Witness:
    """Watches all processes of one simulation.

    Attributes:
        meant: by provider key, what was meant to be sent under it.
        marks: by journal, where its log ended when something was last meant to be sent.
        clock_was_ahead: whether the wall clock ever was; after a restart nobody can say then how old a payout is.
        happened: how often each verb of a person, and each brake, came to something.

    Args:
        tell: told of what happens.
        violated: told of what does not hold.
        keys: by account, which key it is used with; none: each has its own.
    """

    def __init__(
        self, notify: Callable[[str], None], violated: Callable[[str], None], keys: Mapping[str, str] | None = None
    ) -> None:
        self.meant: dict[str, Meant] = {}
        self.marks: dict[str, Mark] = {}
        self.clock_was_ahead = False
        self.happened: Counter[str] = Counter()
        self._notify = notify
        self._violated = violated
        self._keys = keys or {}
        self._intents: Counter[str] = Counter()
        self._sends: Counter[str] = Counter()
        self._sent_at: dict[str, float] = {}
        self._left: set[str] = set()
        self._origins: dict[str, str] = {}
        self._speaking: list[tuple[str, Fuse]] = []
        self._asking: list[tuple[str, Fuse]] = []

    # ------------------------------------------------------------------------------------------- what anybody can know

    def never_sent(self, key: str) -> bool:
        """Whether a payout was never meant to be on the wire."""
        return not self._intents[key]

    def travels(self, key: str) -> bool:
        """Whether a request for a payout may still be on its way to the bank, or lie there."""
        return anyio.current_time() - self._sent_at.get(key, -TRAVELLING_SECONDS_MAX) < TRAVELLING_SECONDS_MAX

    # ----------------------------------------------------------------------------------------------------- the journal

    def heard(self, process: str, file: JournalFile, call: Call, result: Any, db: apsw.Connection) -> None:
        """Hear of a call that is about to be answered: its work must be in the journal. `db` is only read."""
        if call.name not in READS and db.in_transaction:
            self._violated(f"{process}{call.name} is answered before it is committed")
        text = self._look(file, call.name, call.arguments, result, db)
        if text is None:
            text = "" if call.name in READS else call.name
        if text:
            self._notify(f"{process}journal: {text}")

    def _look(
        self, file: JournalFile, name: str, arguments: Sequence[Any], result: Any, db: apsw.Connection
    ) -> str | None:
        """Check what can be checked of a call; return what to tell of it, None for its name alone."""
        if name in ("ready", "resendable_chunks"):
            file.run_of |= {chunk.chunk_id: arguments[0] for chunk in result}
        elif name in ("intend", "intend_resend"):
            self._intended(file, arguments[0], result, db)
            if name == "intend":  # What is asked about again is out already.
                self._keeps_to_canary(file.run_of[arguments[0].chunk_id], result.lane, db)
            return f"{name} lines {_lines(result)}"
        elif name == "record":
            receipts: Sequence[Receipt] = arguments[1]
            self._recorded(arguments[0], db)
            return f"record lines {_lines(arguments[0])}: {' '.join(receipt.state for receipt in receipts)}"
        elif name == "reconcile":
            return _sighted(result)
        elif name == "approve" and result:
            self._begun(arguments[0], db)
        elif name == "decide":
            self._decided(file, arguments[1])
        elif name in ("request", "acknowledge"):
            return self._controlled(file, name, arguments)
        elif name == "cancel":
            self.happened["cancel"] += len(result[0])
            return f"cancel lines {', '.join(str(outcome.line) for outcome in result[0])}"
        elif name == "note":
            self.happened[arguments[1]] += 1
            return f"note {arguments[1]}"
        elif name == "add_fact":
            kind, _ = remark(arguments[1])
            self.happened[kind] += 1
            if isinstance(arguments[1], CanaryPassed):
                self._was_well(arguments[0], arguments[1].lane, db)
            return f"add_fact {kind}"
        return None

    def _intended(self, file: JournalFile, chunk: ReadyChunk, dispatch: Dispatch, db: apsw.Connection) -> None:
        run_id = file.run_of[chunk.chunk_id]
        journal, digest = self._from_the_newest(dispatch, db), self._first_match(run_id, db)
        for key, payout in zip(dispatch.keys, dispatch.payouts, strict=True):
            self.meant[key] = Meant(journal, run_id, digest, payout.amount_minor, dispatch.lane.account)
        if file.requests.get((run_id, ControlKind.PAUSE)):
            self._violated(f"lines {_lines(dispatch)} were meant to be sent after a pause was heard")
        if file.requests.get((run_id, ControlKind.CANCEL)):
            self._violated(f"lines {_lines(dispatch)} were meant to be sent after a cancellation was heard")
        if run_id in file.withdrawn and any(key not in file.released for key in dispatch.keys):
            self._violated(f"lines {_lines(dispatch)} were meant to be sent in a cancelled run")
        self._intents.update(dispatch.keys)
        self._left.difference_update(dispatch.keys)

    def _recorded(self, dispatch: Dispatch, db: apsw.Connection) -> None:
        """What is recorded as never sent was not: the cause of every harm that a later sending could do."""
        query = "SELECT on_wire, spoken FROM dispatches WHERE dispatch_id = ?"
        on_wire, spoken = only(db, query, (dispatch.dispatch_id,))
        left = set(dispatch.indexes) if spoken is None else set(msgspec.json.decode(spoken, type=list[int]))
        keys = zip(dispatch.indexes, dispatch.keys, strict=True)
        wrong = [key for index, key in keys if not (on_wire and index in left) and key in self._left]
        if wrong:
            self._violated(f"of lines {_lines(dispatch)}, {len(wrong)} are recorded as never sent, and they were")

    def _first_match(self, run_id: str, db: apsw.Connection) -> str:
        """Return the content of a run, also of a retry."""
        if run_id not in self._origins:
            run = reads.find(db, run_id)
            while run is not None and run.retry_of:
                run = reads.find(db, run.retry_of)
            assert run is not None
            self._origins[run_id] = run.digest
        return self._origins[run_id]

    def _from_the_newest(self, dispatch: Dispatch, db: apsw.Connection) -> str:
        """Return which journal this is. If it does not know what its copies have sent, it may send nothing."""
        here = log.mark(db)
        assert here is not None
        last = self.marks.get(here.identity)
        if last is not None and log.mark(db, last.seq) != last:
            self._violated(f"lines {_lines(dispatch)} were meant to be sent from an older copy of the journal")
        self.marks[here.identity] = here
        return here.identity

    def _keeps_to_canary(self, run_id: str, lane: Lane, db: apsw.Connection) -> None:
        """Before a lane's canary was well, or a person has looked at it, no more than its size may be out."""
        known = facts(db, run_id)
        if not known.canary_size or lane in known.canary_done:
            return
        out = sum(item.count for item in tallies(db, run_id) if item.lane == lane and item.state in _AT_THE_PROVIDER)
        if out > known.canary_size:
            text = f"{out} payouts of {lane_text(lane)} are out, and its canary of {known.canary_size} was not well yet"
            self._violated(text)

    def _was_well(self, run_id: str, lane: Lane, db: apsw.Connection) -> None:
        """A canary passed only if as many as it counts arrived and none failed; what a person lets go did not pass."""
        size = facts(db, run_id).canary_size
        counts = Counter[State]()
        for item in tallies(db, run_id):
            if item.lane == lane:
                counts[item.state] += item.count
        # What was taken back had arrived.
        if counts[State.PAID] + counts[State.REVERSED] < size or counts[State.FAILED]:
            self._violated(f"a canary of {size} in {lane_text(lane)} was told to have passed, and it had not")

    def _begun(self, run_id: str, db: apsw.Connection) -> None:
        """One content is begun once, unless all that was begun before came to nothing."""
        runs = {run.run_id: run for run in reads.runs(db)}
        run = runs.pop(run_id)
        if not any(tally.state is State.READY and tally.count for tally in tallies(db, run_id)):
            return  # All of it is held or refused.
        for other in runs.values():
            begun = run.digest and other.digest == run.digest and other.approved_at is not None
            if begun and {tally.state for tally in tallies(db, other.run_id)} - UNPAID:
                self._violated("a file was begun again while its first run may still pay")

    def _controlled(self, file: JournalFile, name: str, arguments: Sequence[Any]) -> str:
        run_id = arguments[0]
        if name == "request":
            request: ControlRequest = arguments[1]
            file.requests[run_id, request.kind] = False
            self.happened[f"asked {request.kind}"] += 1
            return f"ask {request.kind}"
        kind, done = arguments[1:]
        standing = file.requests.pop((run_id, kind), None)
        if standing is not None and not done:
            file.requests[run_id, kind] = True
            self.happened[f"heard {kind}"] += 1
        if standing is not None and done and kind is ControlKind.CANCEL:
            file.withdrawn.add(run_id)
        if standing is not None and done and kind is ControlKind.PAUSE:
            self.happened["lift"] += 1
        return f"answer {kind} {'done' if done else 'heard'}"

    def _decided(self, file: JournalFile, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            file.decided[decision.key] = decision.choice
            self.happened[f"decide {decision.choice}"] += 1
            if decision.choice is Choice.SEND_AGAIN:
                file.released.add(decision.key)

    # --------------------------------------------------------------------------------------------------------- the wire

    @contextmanager
    def sending(self, process: str, fuse: Fuse, dispatch: Dispatch) -> Iterator[None]:
        """Watch one paying call, from before its first byte leaves until its sender is done with it."""
        self._sends.update(dispatch.keys)
        self._sent_at |= dict.fromkeys(dispatch.keys, anyio.current_time())
        self._notify(f"{process}send lines {_lines(dispatch)}")
        if any(self._sends[key] > self._intents[key] for key in dispatch.keys):
            self._violated(f"lines {_lines(dispatch)} were sent without an intent of their own in the journal")
        account = dispatch.lane.account
        key = self._keys.get(account, account)
        if _others(self._speaking, key, fuse):
            self._violated(f"two processes send for account {account} at once")
        self._speaking.append((key, fuse))
        self._left.update(dispatch.keys)
        try:
            yield
        except NotSentError:
            self._left.difference_update(dispatch.keys)
            raise
        finally:
            self._speaking.remove((key, fuse))

    @contextmanager
    def asking(self, fuse: Fuse, account: str) -> Iterator[None]:
        """Watch one look-up. The slower of two would bring older news, as if the bank contradicted itself."""
        with_journal = [(name, other) for name, other in self._asking if other.journal == fuse.journal]
        if _others(with_journal, account, fuse):
            self._violated(f"{account} is asked by two processes at once")
        self._asking.append((account, fuse))
        try:
            yield
        finally:
            self._asking.remove((account, fuse))


def _others(calls: Sequence[tuple[str, Fuse]], account: str, fuse: Fuse) -> bool:
    """Whether another living process is in the middle of a call for an account."""
    return any(other is not fuse and not other.dead and name == account for name, other in calls)


def _lines(dispatch: Dispatch) -> str:
    return ", ".join(str(payout.line) for payout in dispatch.payouts)


def _sighted(applied: Reconciled) -> str:
    moved = ", ".join(f"{outcome.line} {outcome.status}" for outcome in applied.outcomes)
    # A run's id is random, and would make two traces of one seed differ.
    conflicts = " ".join(conflict.partition(", ")[2] for conflict in applied.conflicts)
    return f"sighted {moved} {conflicts}" if moved or conflicts else ""
