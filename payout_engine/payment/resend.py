"""Resending: send what is unknown once more under its keys to ask, where the provider documents that a key pays once.

A repetition may move money, if the first call was never heard; so it obeys everything that a first sending obeys: the
same dispatcher with its pace, limits and brakes, and the same `send_durably`, with an entry of its own in the journal.
What it may not do is release or fail a payout by the refusal of a call: that says nothing of the first call. Only an
answer about the payout itself counts, as a look-up result.

`run.py` has one for each such account and lets it have a round after a look-up that did not show everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from payout_engine.domain.errors import IllegalMoveError
from payout_engine.domain.limits import READY_CHUNKS_AHEAD
from payout_engine.domain.model import Dispatch, Lane, LookUpResult, Outcome, Receipt
from payout_engine.domain.states import State
from payout_engine.payment.context import Context
from payout_engine.payment.dispatch import Answer, Answers, Dispatcher, IntentSize, OpenLanes, calls_of, parts
from payout_engine.payment.rate_limiter import Pace
from payout_engine.ports.journal import ReadyChunk
from payout_engine.ports.provider import KeyPromise, Traits

VERDICTS = frozenset({State.ACCEPTED, State.PAID, State.FAILED, State.REVERSED})
"""What the answer to a repetition may say of a payout. `ready` (refused before processing) is about the repetition."""


def key_allows_resend(traits: Traits) -> bool:
    """Tell whether sending again under the same key is a way of asking."""
    return traits.key_promise is KeyPromise.IDEMPOTENT


class Resender:
    """Sends unknown payouts of one account again, round by round, until a brake stops it; see `SendStrategy`.

    Attributes:
        dispatcher: what sends for it.
        asked: payouts that were sent again in the last round.
        changed: payouts that moved by the answers of the last round.

    Args:
        context: the account and the run.
        lanes: the account's lanes in this run.
        pace: the account's call rate.
    """

    def __init__(self, context: Context, lanes: Sequence[Lane], pace: Pace) -> None:
        self.dispatcher = Dispatcher(context, self, lanes, pace)
        self.asked = self.changed = 0
        self._context = context
        self._before = 0.0
        self._refused_why = ""
        self._refusals_told: set[str] = set()

    async def round(self, before: float) -> None:
        """Ask once about everything that has been unknown since `before` (seconds since 1970) or longer.

        Raises:
            JournalError: as for `Dispatcher.run`.
        """
        self._before, self._refused_why, self.asked, self.changed = before, "", 0, 0
        await self.dispatcher.run()
        if self.asked:
            words = f"{self.asked} payouts without an answer were sent again under the same keys, to ask about them"
            self._context.waiting(f"{words}; {self.changed} were answered.")

    async def chunks(self, lanes: OpenLanes, size: IntentSize) -> AsyncIterator[ReadyChunk]:
        """Yield what may be asked about, each once: what stays unknown waits for another round."""
        traits = self._context.provider.traits
        for lane in list(lanes()):
            after, found = 0, True
            while found and lane in lanes():
                page = await self._context.journal.resendable_chunks(
                    self._context.run_id, lane, traits, self._before, after, READY_CHUNKS_AHEAD
                )
                found = bool(page)
                for chunk in page:
                    after = chunk.chunk_id
                    for part in parts(chunk, size):
                        yield part

    async def intend(self, chunk: ReadyChunk) -> Dispatch:
        """Record, durably, that the chunk is about to be sent again; what was refused once is for another round."""
        if self._refused_why:
            raise IllegalMoveError(self._refused_why)
        return await self._context.journal.intend_resend(chunk, self._context.provider.traits)

    def contest(self, chunk: ReadyChunk, why: str) -> str:
        """End the round: the journal refuses, and knows why. The next round may find it willing."""
        self._refused_why = why
        if why not in self._refusals_told:
            self._refusals_told.add(why)
            self._context.waiting(why)
        return ""

    async def record(self, dispatch: Dispatch, answers: Answers) -> Sequence[Outcome]:
        """Record what the answers say of the payouts. No answer needs no record: they are unknown already."""
        calls = calls_of(dispatch, self._context.provider.traits.batch_limit)
        answered = zip(calls, answers, strict=True)
        results = [
            found for call, answer in answered if answer is not None for found in results_of_resend(call, answer)
        ]
        if not results:
            return ()
        applied = await self._context.journal.reconcile(results)
        for conflict in applied.conflicts:
            self._context.waiting(conflict)
        return applied.outcomes

    def told(self, dispatch: Dispatch, answers: Answers, outcomes: Sequence[Outcome]) -> None:
        """Count what was asked about, and what moved."""
        self.asked += len(dispatch.payouts) - answers.count(None)
        self.changed += len({outcome.line for outcome in outcomes})

    def landed(self, chunk: ReadyChunk) -> None:
        """Nothing waits for it: each chunk is asked about once in a round."""

    def is_silence(self, receipts: Sequence[Receipt]) -> bool:
        """“Already known” is an answer here, and leaves nothing in doubt that was not before."""
        return False


def results_of_resend(dispatch: Dispatch, answer: Answer) -> Sequence[LookUpResult]:
    """Return what the answer to a repetition says of its payouts; what became of the call alone says nothing.

    A payout that `failed` in such an answer has failed: by the promise of the key the provider repeats what it knows
    of the payout. A word that we do not know counts only for the transfer it names.
    """
    if isinstance(answer, Exception):
        return ()
    return [
        LookUpResult(key, receipt)
        for key, receipt in zip(dispatch.keys, answer, strict=True)
        if receipt.state in VERDICTS or (receipt.state is State.UNKNOWN and receipt.provider_reference)
    ]
