"""People who steer, from processes of their own: pause, resume, cancel, retry, and decide what only a person can.

They say the truth. Whoever calls a payout paid has seen it in the bank's own ledger; failed, or to be sent again, is
only what the bank provably will not pay, with nothing on its way to it. What they cannot know they leave alone. They
come at drawn moments and may die in the middle of a verb, like any other process. `simulation.py` sends them.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum

import anyio
import msgspec

from payout_engine.app.engine import Engine
from payout_engine.app.submit import Submission
from payout_engine.domain.errors import ConfigError, DecisionError, JournalBusyError, UnansweredError
from payout_engine.domain.model import Choice, Decision, Entry, Run
from payout_engine.domain.states import UNPAID, State
from payout_engine.journal.rules import CONTRADICTION
from simulation.bank import Bank
from simulation.crashing import Step
from simulation.random_file import RandomFile
from simulation.witness import Witness

WHO, WHY = "Awa", "seen at the bank"

Pay = Callable[[Engine, Submission | Run], Awaitable[None]]
FileOf = Callable[[Run], RandomFile]


class Errand(StrEnum):
    """What a person comes for; one command each."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"
    RESOLVE = "resolve"


_WANTED: Mapping[Errand, frozenset[State]] = {
    Errand.CANCEL: frozenset({State.READY, State.HELD}),
    Errand.RETRY: frozenset({State.FAILED, State.CANCELLED}),
    Errand.RESOLVE: frozenset({State.HELD, State.UNKNOWN, State.ACCEPTED}),
}
"""What a run holds for which somebody would come."""


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One person with one errand.

    Attributes:
        at: when, in seconds since the life's beginning.
        errand: what for.
        whim: which run is meant, and which of several true things is said.
        step: their process dies at this step; None for never.
    """

    at: float
    errand: Errand
    whim: int
    step: Step | None = None


class Person:
    """Somebody at another terminal.

    Args:
        engine: of their own process.
        banks: whose ledgers they can see.
        witness: knows what may still be on its way.
        file_of: which file a run was made from.
        pay: pays a run as the commands do.
    """

    def __init__(
        self, engine: Engine, banks: Mapping[str, Bank], witness: Witness, file_of: FileOf, pay: Pay, visit: Visit
    ) -> None:
        self._engine = engine
        self._banks = banks
        self._witness = witness
        self._file_of = file_of
        self._pay = pay
        self._visit = visit
        self._chance = random.Random(visit.whim)

    async def come(self) -> str:
        """Do the errand; return what came of it, as the end of a sentence."""
        runs = await self._runs()
        if not runs:
            return "finds no run"
        run = self._chance.choice(runs)
        try:
            return await self._do(run)
        except (ConfigError, DecisionError, JournalBusyError, UnansweredError) as error:
            # Nothing was done. The messages name runs, whose random ids would make two traces differ.
            assert "There is no run" not in str(error), "a run that was approved is never removed"
            return f"is refused: {type(error).__name__}"

    async def _runs(self) -> Sequence[Run]:
        """Return the runs that the errand may be about: those that need it, or else any that was begun."""
        begun = [run for run in await self._engine.runs() if run.approved_at is not None]
        wanted = _WANTED.get(self._visit.errand, frozenset())
        needing = [run for run in begun if any(tally.state in wanted for tally in await self._engine.tally(run.run_id))]
        return needing or begun

    async def _do(self, run: Run) -> str:
        match self._visit.errand:
            case Errand.PAUSE:
                return await self._pause(run)
            case Errand.RESUME:
                return await self._resume(run)
            case Errand.CANCEL:
                return await self._cancel(run)
            case Errand.RETRY:
                return await self._retry(run)
            case Errand.RESOLVE:
                return await self._resolve(run)

    async def _pause(self, run: Run) -> str:
        heard = await self._engine.pause(run.run_id, WHO, WHY)
        return "is heard" if heard else "finds nobody paying"

    async def _resume(self, run: Run) -> str:
        await self._engine.unpause(run.run_id)
        await self._pay(self._engine, run)
        return "has paid on"

    async def _cancel(self, run: Run) -> str:
        done = await self._engine.cancel(run.run_id, WHO, WHY)
        return f"has withdrawn {done.cancelled}"

    async def _retry(self, run: Run) -> str:
        submission = await self._engine.retry(run.run_id)
        await self._pay(self._engine, submission)
        self._witness.happened["retry"] += 1
        return "has paid again"

    async def _resolve(self, run: Run) -> str:
        decisions = await self._decisions(run)
        if not decisions:
            return "has nothing to say"
        await self._engine.decide(run.run_id, decisions)
        return f"has said: {', '.join(sorted(decision.choice for decision in decisions))}"

    # ------------------------------------------------------------------------------------------------- what they know

    async def _decisions(self, run: Run) -> Sequence[Decision]:
        """Return what can truthfully be said of the payouts of a run that wait for a person, or of some of them."""
        talks = self._chance.choice([0.3, 1.0])
        decisions = []
        async for waiting in self._engine.waiting(run.run_id, accepted=True):
            for line in waiting:
                choices = await self._true_of(run, line.entry)
                if choices and self._chance.random() < talks:
                    decisions.append(Decision(line.entry.key, self._chance.choice(choices), WHO, WHY))
        return decisions

    async def _true_of(self, run: Run, entry: Entry) -> Sequence[Choice]:
        """Return the words that are true of one payout at this moment."""
        at = anyio.current_time()
        bank, never_sent = self._banks[entry.lane.account], self._witness.never_sent(entry.key)
        transfers = [transfer for transfer in bank.transfers if transfer.key == entry.key]
        if any(transfer.state_at(at) is State.PAID for transfer in transfers):
            return [Choice.PAID]
        if self._can_be_paid(entry):
            return []
        if transfers:
            return [Choice.FAILED] if all(transfer.state_at(at) is State.FAILED for transfer in transfers) else []
        choices = [Choice.FAILED]
        if never_sent and entry.receipt.reason != CONTRADICTION:
            choices.append(Choice.CANCEL)
        if entry.receipt.state is not State.ACCEPTED and await self._is_alone(run, entry):
            choices.append(Choice.SEND_AGAIN)
        return choices

    def _can_be_paid(self, entry: Entry) -> bool:
        """Whether the bank may yet pay a payout by what it was sent."""
        return self._key_can_be_paid(entry.key)

    def _key_can_be_paid(self, key: str) -> bool:
        transfers = [transfer for bank in self._banks.values() for transfer in bank.transfers]
        pays = any(transfer.key == key and transfer.pays for transfer in transfers)
        return pays or self._witness.travels(key)

    async def _is_alone(self, run: Run, entry: Entry) -> bool:
        """Whether no other line that means the same payment has been paid, or may be."""
        amount_minor = entry.payout.amount_minor
        same = [key for key, sent in self._witness.meant.items() if sent.amount_minor == amount_minor]
        if any(key != entry.key and self._key_can_be_paid(key) for key in same):
            return False
        meant = self._file_of(run).identity_of(entry.payout)
        for other in await self._engine.runs():
            if other.approved_at is None:
                continue
            file = self._file_of(other)
            async for entries in (await self._engine.journal()).entries(other.run_id):
                for one in entries:
                    if one.key == entry.key or file.identity_of(one.payout) != meant:
                        continue
                    if one.receipt.state not in UNPAID or self._can_be_paid(one):
                        return False
        return True
