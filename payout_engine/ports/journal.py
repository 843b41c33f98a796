"""The port of the journal, the durable memory: one protocol for each of its six uses, and `Journal`, which is all.

`Raises` is part of the contract; what is not listed is not promised. `payout_engine.testing.journals` says whether an
implementation keeps it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

import msgspec

from payout_engine.domain.errors import Holder
from payout_engine.domain.facts import Fact, RunFacts
from payout_engine.domain.model import (
    Chunk,
    ControlKind,
    ControlRequest,
    Decision,
    Dispatch,
    Duplicate,
    Entry,
    Lane,
    LookUpResult,
    Outcome,
    Payout,
    Problem,
    Query,
    Receipt,
    Run,
    Step,
    Tally,
)
from payout_engine.domain.proof import Audit
from payout_engine.domain.states import State
from payout_engine.ports.callbacks import Heard
from payout_engine.ports.provider import Traits


class ReadyChunk(msgspec.Struct, frozen=True):
    """A chunk with payouts that wait to be sent: `indexes` are those `ready`, or `unknown` if from
    `resendable_chunks`."""

    chunk_id: int
    lane: Lane
    indexes: Sequence[int]
    payouts: Sequence[Payout]
    keys: Sequence[str]


class Reconciled(msgspec.Struct, frozen=True):
    """What a batch of look-up results changed.

    Attributes:
        outcomes: payouts whose state changed, or whose provider reference became known.
        conflicts: look-up results that contradict what is recorded; each is also in the log.
        open_shown: how many of the results were about payouts that were open until then.
    """

    outcomes: Sequence[Outcome]
    conflicts: Sequence[str]
    open_shown: int = 0


class Mark(msgspec.Struct, frozen=True):
    """An entry of a journal's log: how far the log had come, and what tells its journal and its copies apart.

    Attributes:
        identity: of which journal. Copies have the same.
        seq: the number of the entry.
        hash: seals the entry and all before it, in hex.
        at: when it was written, in seconds since 1970.
    """

    identity: str
    seq: int
    hash: str
    at: float


class StoredCallback(msgspec.Struct, frozen=True):
    """A call of a provider that waits to be acted on: its number, in the order of arrival, and what it speaks of."""

    number: int
    heard: Heard


OnWire = bool | Sequence[int]
"""Whether the call of a dispatch may have left this machine: False when it provably never did. Of a dispatch that takes
several calls, the indexes of the payouts whose calls may have left, if it is neither all nor none."""


class Ready(StrEnum):
    """Which of the payouts that wait to be sent are asked about."""

    ALL = "all"
    ONCE_SENT = "once sent"  # what was on the wire before, and came back


class IntakeJournal(Protocol):
    """How a run gets in: validated lines are added, compared with earlier runs, held if in doubt, sealed, approved."""

    async def begin(self, run: Run) -> None:
        """Record a new run in state `intake`. A crash before `seal` leaves a run that `discard` removes."""
        ...

    async def add(self, run_id: str, chunks: Sequence[Chunk]) -> None:
        """Record chunks of a run in intake. Payouts are born `ready`, refused lines `rejected`."""
        ...

    def duplicates(self, run_id: str) -> AsyncIterator[Sequence[Duplicate]]:
        """Compare the run's ready payouts with each other and with earlier approved runs.

        References are compared if the run has references of its own, to the letter and as people mean them (then with
        payee and amount); a line's cells, in whatever order, if one of the two lines has a reference; payee and amount
        always, with what was, or may still be, sent within `REPEAT_WINDOW_SECONDS`. Compared exactly, not by hash
        alone. Earlier payouts that are provably unpaid (failed, rejected, cancelled, reversed) do not count, nor do
        runs that nobody approved. Within one run, all but the lowest line are repeats. For each payout and kind, at
        most the original of its own run and that of the latest earlier run are told.

        Of a run that was approved, what is still ready is compared with runs approved before it, if anything of those
        came to light since; not with itself, and nothing that a person has spoken about.
        """
        ...

    async def former_accounts(self, run_id: str) -> Sequence[str]:
        """Return the accounts that may have been sent lines of a validated run before, in earlier runs.

        Known from the last comparison by `duplicates`: earlier lines that count as unpaid now (failed, cancelled,
        reversed) and are perhaps what the run pays again.
        """
        ...

    async def former_queries(
        self, run_id: str, account: str, limit: int, after: int = 0
    ) -> tuple[Sequence[Query], int]:
        """Return up to `limit` of those earlier lines of one account, by position above `after`, and the last position.

        The position is 0 at the end.
        """
        ...

    async def hold(self, run_id: str, reasons: Mapping[int, Problem]) -> None:
        """Move ready payouts, by position, to `held`, each with its reason."""
        ...

    async def seal(self, run_id: str) -> None:
        """End intake: the run is `VALIDATED`. Its chunks can no longer be added to."""
        ...

    async def discard(self, run_id: str) -> None:
        """Remove a run that was never approved, whole. A run that was approved is never removed.

        Raises:
            IllegalMoveError: the run was approved.
        """
        ...

    async def approve(self, run_id: str) -> bool:
        """Let a validated run be paid.

        Returns:
            False when another run was approved since this one was validated: `duplicates` must be asked again (then
            approve).
        """
        ...


class PaymentJournal(Protocol):
    """How money is sent: every intent is durable before it is spoken, every answer after it."""

    async def recover(self, run_id: str) -> Sequence[Outcome]:
        """Make every unfinished dispatch of the run `unknown`. Called by the lease holder, before anything is sent."""
        ...

    async def ready(self, run_id: str, lane: Lane, after: int, limit: int) -> Sequence[ReadyChunk]:
        """Return up to `limit` chunks of a lane with ready payouts, in order, with chunk ids above `after` (0: all)."""
        ...

    async def ready_amounts(
        self, run_id: str, lane: Lane, after: int, limit: int
    ) -> Sequence[tuple[int, Sequence[int]]]:
        """Return what `ready` would, as (chunk id, amounts in minor units) only: adding up needs no more."""
        ...

    async def intend(self, chunk: ReadyChunk) -> Dispatch:
        """Record, durably, that these payouts are about to be sent: `ready -> sending`.

        Raises:
            IllegalMoveError: one of them is not `ready`. Nothing was recorded; nothing may be sent.
        """
        ...

    async def record(
        self, dispatch: Dispatch, receipts: Sequence[Receipt], *, on_wire: OnWire = True
    ) -> Sequence[Outcome]:
        """Record what became of a dispatch: one receipt per payout of it, in order.

        A single receipt stands for all of them alike. `on_wire` says which of them may have left this machine; the
        others can only be `ready` again.
        """
        ...

    async def resendable_chunks(
        self, run_id: str, lane: Lane, traits: Traits, before: float, after: int, limit: int
    ) -> Sequence[ReadyChunk]:
        """Return chunks of a lane, as `ready` does, with payouts that `intend_resend` would take under these traits.

        Only what has been unknown since `before` (seconds since 1970) or longer, and, where the provider can be looked
        up, has no provider reference. Nothing of a run that a person paused, or ever asked to cancel.
        """
        ...

    async def intend_resend(self, chunk: ReadyChunk, traits: Traits) -> Dispatch:
        """Record, durably, that unknown payouts are about to be sent again under their keys; they stay `unknown`.

        The entry names the promise relied upon. What comes back goes to `reconcile`; no answer needs no record.

        Raises:
            IllegalMoveError: one of them is not `unknown` or was never sent, the key promises nothing or may be
                forgotten, its age is not known because the clock was set back, or a person paused or cancelled the
                run. Nothing was recorded; nothing may be sent.
        """
        ...

    async def finish(self, run_id: str) -> None:
        """Mark a run `finished`. A finished run may be paid on later if a person releases something."""
        ...

    def lease(self, name: str, holder: Holder) -> AbstractAsyncContextManager[None]:
        """Hold a right that only one may have at a time; released at the end, and by the death of the process.

        Args:
            name: what it is a right to, such as `account bf`: to send for that account.
            holder: who asks, for whoever comes second.

        Raises:
            JournalBusyError: another holds it; the error says who.
        """
        ...


class LookUpJournal(Protocol):
    """How answers that come later are matched with what was sent."""

    async def reconcile(self, results: Sequence[LookUpResult]) -> Reconciled:
        """Match look-up results with open payouts, of any run, and record what they say.

        A look-up result whose key is not ours is passed over, and so is one of a payout in `sending`: its dispatch is
        still being spoken, and the next look-up will show it again. A contradiction changes nothing to paid or failed:
        the payout becomes `held` if it was accepted, unknown or ready, and the conflict is reported. Contradictions
        are: another amount or recipient than ours; a second provider reference for one key; a look-up result of a
        payout that is `ready` (so was never sent, or provably refused). A final state stays; a look-up result that
        disputes it is a conflict too (`paid -> reversed` excepted, which is a move).
        """
        ...

    async def open_queries(
        self, run_id: str, account: str, limit: int, after: int = 0, *, ready: Ready | None = None
    ) -> tuple[Sequence[Query], int]:
        """Return up to `limit` open payouts of an account, by position above `after`, and the last position.

        Payouts in `sending` are left out: their dispatch is still being spoken. With `ready`, that part of what waits
        to be sent is among them: a copy of the journal may have been used to send it. The position is 0 at the end.
        """
        ...

    async def open_since(self, run_id: str, account: str) -> float | None:
        """Return when the first call was begun that may have sent any open payout of an account; None for no such."""
        ...

    async def paid_queries(self, run_id: str, account: str, limit: int, after: int = 0) -> tuple[Sequence[Query], int]:
        """Return up to `limit` paid payouts of an account, as `open_queries` does: some may have been taken back."""
        ...

    async def may_be_sent_since(self, run_id: str) -> float | None:
        """Return since when lines of a run may have been sent, by it or by the earlier runs of `former_accounts`.

        Also by a copy of this journal: it was not before these runs began. None where that is not known, because the
        clock was set back since, or the earlier run is in another journal.
        """
        ...


class CallbackJournal(Protocol):
    """What providers call to say: stored by one process, acted on by whoever holds the account's lease.

    It is a hint that leads to a look-up. No payout moves by it, and nothing of it is in the log.
    """

    async def store_callback(self, account: str, digest: bytes, heard: Heard) -> bool:
        """Store, durably, what a call speaks of, once for each digest. From any process.

        Returns:
            True if it waits now. False if it is known already, speaks of nothing, or states keys of which none is of a
            payout of this account.
        """
        ...

    async def stored_callbacks(self, account: str, limit: int, after: int = 0) -> tuple[Sequence[StoredCallback], int]:
        """Return calls of an account that wait, among up to `limit` above the number `after`, and the last number.

        Those about a payout in `sending` are left out: its dispatch is still being spoken, and they wait for its end.
        The number is 0 at the end.
        """
        ...

    async def queries(self, account: str, keys: Sequence[str]) -> Sequence[Query]:
        """Return the payouts of an account that have these keys, wherever they stand, but for those in `sending`."""
        ...

    async def settle_callbacks(self, numbers: Sequence[int]) -> None:
        """Mark calls as acted on. The latest are remembered, so that a repetition is known; the others are forgotten.

        It may be lost with the power: then the provider is asked once more.
        """
        ...

    async def count_callbacks(self, account: str, limit: int) -> int:
        """Return how many calls of an account wait, as far as `limit`."""
        ...


class ControlJournal(Protocol):
    """What people ask and decide, from any process."""

    async def decide(self, run_id: str, decisions: Sequence[Decision]) -> Sequence[Outcome]:
        """Record a person's word on payouts that are held, unknown or accepted; all of it, or nothing.

        Each passes through `held`, so that the log shows the person's step with who and why. A payout that is to be
        sent again becomes `ready` and keeps its provider key; a finished run is then `paying` again. Called with the
        leases of the run's accounts held.

        Raises:
            DecisionError: some of them cannot be carried out; the message names each with the reason.
        """
        ...

    async def request(self, run_id: str, request: ControlRequest) -> None:
        """Record, durably, what a person asks of whoever pays the run; a second request of one kind replaces the first.

        This is the one thing a process may write for a run that another one is paying.
        """
        ...

    async def requests(self, run_id: str) -> Sequence[ControlRequest]:
        """Return what is asked and not yet done; cheap enough to be asked twice a second."""
        ...

    async def acknowledge(self, run_id: str, kind: ControlKind, done: bool) -> None:
        """Mark a request as heard, or remove it because it is done."""
        ...

    async def cancel(
        self, run_id: str, request: ControlRequest, after: int, limit: int
    ) -> tuple[Sequence[Outcome], int]:
        """Withdraw, in up to `limit` chunks above the chunk id `after` (0: all), what was never sent.

        That is what is `ready` or `held` without ever having been on the wire or seen at the provider. What is `ready`
        to be sent again becomes `held`: the provider may have it. Who and why go into the log.

        Returns:
            The outcomes, and the last chunk looked at, 0 at the end.

        Raises:
            IllegalMoveError: nobody approved the run; it can be discarded.
        """
        ...

    async def add_fact(self, run_id: str, fact: Fact) -> None:
        """Record, durably, what is decided by later. `facts` says what it comes to, `notes` tells people of it."""
        ...

    async def note(self, run_id: str, kind: str, text: str) -> None:
        """Append a remark to the log, for people. Nothing is decided by it."""
        ...


class ReadingJournal(Protocol):
    """What is known, for people and for proof. Reading changes nothing."""

    async def runs(self) -> Sequence[Run]:
        """Return all runs, newest first."""
        ...

    async def find(self, run_id: str) -> Run | None:
        """Return the run with this id, or None."""
        ...

    async def find_digest(self, digest: str) -> Run | None:
        """Return the newest approved run of this content; else the newest that nobody approved; else None."""
        ...

    async def tally(self, run_id: str) -> Sequence[Tally]:
        """Return counts and sums by lane and state, of those that occur. Their total is every line of the run."""
        ...

    def entries(self, run_id: str, states: frozenset[State] | None = None) -> AsyncIterator[Sequence[Entry]]:
        """Yield every line of a run in the input's order, in bounded batches; only those in `states` if given."""
        ...

    async def trace(self, run_id: str, keys: Collection[str]) -> Mapping[str, Sequence[Step]]:
        """Return, by provider key, everything the log says of these payouts, oldest first."""
        ...

    async def digest(self, run_id: str) -> str:
        """Return the digest of a run as it stands, to be kept where the journal cannot be reached from.

        It begins with the number of the run's last entry in the log and covers that entry's hash (so everything
        before it), the run's id and its totals. It is empty for a run that is not validated yet.
        """
        ...

    async def verify(self, run_id: str, kept: str = "") -> Audit:
        """Replay the log and prove from it that nothing was altered and nothing sent twice without proof.

        Args:
            run_id: a run that was validated.
            kept: a digest of this run that was kept; the log must still lead through it.

        Raises:
            JournalError: there is no such run, or it is not validated yet.
        """
        ...

    async def facts(self, run_id: str) -> RunFacts:
        """Return what the facts of a run come to."""
        ...

    async def notes(self, run_id: str) -> Sequence[tuple[float, str, str]]:
        """Return the remarks of a run as (at, kind, text), oldest first, and its facts as people are told of them."""
        ...

    def outcomes(self, run_id: str, after: int = 0) -> AsyncIterator[tuple[int, Sequence[Outcome]]]:
        """Replay what happened from the log: (sequence, outcomes) for entries above `after`, in order."""
        ...

    async def mark(self, seq: int | None = None) -> Mark | None:
        """Return the last entry of the log, or the one with a number; None where there is none."""
        ...

    async def aclose(self) -> None:
        """Finish what is queued and close."""
        ...


class Journal(IntakeJournal, PaymentJournal, LookUpJournal, CallbackJournal, ControlJournal, ReadingJournal, Protocol):
    """The durable memory. It refuses every move the lifecycle does not have. All methods may be awaited concurrently.

    Every method may raise JournalFullError (the disk is full or read-only) or JournalDamagedError. After either,
    nothing the failed call was to record is recorded. Whatever returns from `intend`, `record`, `intend_resend`,
    `reconcile`, `store_callback`, `hold`, `seal`, `approve`, `finish`, `decide`, `request`, `acknowledge`, `cancel`,
    `add_fact` or `note` survives the loss of power.
    """
