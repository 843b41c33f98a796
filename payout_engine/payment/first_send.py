"""Sending what is ready for the first time: what to load, what to write as the intent, what to make of an answer.

A small strategy of the dispatcher, which does the rest; `resend.py` is the other one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence

import anyio

from payout_engine.domain.errors import NotSentError, ProviderError, RefusedError
from payout_engine.domain.limits import READY_CHUNKS_AHEAD
from payout_engine.domain.model import Dispatch, Lane, Outcome, Receipt
from payout_engine.domain.states import State
from payout_engine.payment.context import Context
from payout_engine.payment.dispatch import Answer, Answers, IntentSize, OpenLanes, parts
from payout_engine.payment.stop_rules import Quota
from payout_engine.ports import observer
from payout_engine.ports.journal import OnWire, ReadyChunk


class FirstSend:
    """Sends the ready payouts of one account; see `SendStrategy`.

    Args:
        context: the account and the run.
        quota: how many payouts of each lane may be sent; None for all of them.
    """

    def __init__(self, context: Context, quota: Mapping[Lane, int] | None = None) -> None:
        self._context = context
        self._quota = Quota(quota)
        self._in_hand: Counter[int] = Counter()
        self._contested: set[int] = set()
        self._landed = anyio.Event()

    async def chunks(self, lanes: OpenLanes, size: IntentSize) -> AsyncIterator[ReadyChunk]:
        """Yield ready chunks, the lanes in turn, until a whole pass finds none and no worker has one in hand.

        A chunk may come back to `ready` (it provably never left, or was refused for the rate), so a pass that found
        something, or calls that have not landed, are followed by another pass.
        """
        while lanes():
            found = False
            self._landed = anyio.Event()
            landed = self._landed
            async for chunk in self._one_pass(lanes, size):
                found = True
                self._in_hand[chunk.chunk_id] += 1
                yield chunk
            if not found and not self._in_hand:
                return
            if not found:
                await landed.wait()

    async def _one_pass(self, lanes: OpenLanes, size: IntentSize) -> AsyncIterator[ReadyChunk]:
        """Yield what is ready now, one chunk of each lane in turn."""
        journal, run_id = self._context.journal, self._context.run_id
        after = dict.fromkeys(lanes(), 0)
        ahead: dict[Lane, list[ReadyChunk]] = {lane: [] for lane in after}
        while after:
            for lane in list(after):
                if not ahead[lane]:
                    ahead[lane] = list(reversed(await journal.ready(run_id, lane, after[lane], READY_CHUNKS_AHEAD)))
                if not ahead[lane]:
                    del after[lane]
                    continue
                chunk = ahead[lane].pop()
                after[lane] = chunk.chunk_id
                if chunk.chunk_id in self._in_hand:
                    continue  # A worker has it and has not spoken yet, so it still looks ready.
                allowed = self._quota.take(chunk) if lane in lanes() else None
                if allowed is None:
                    del after[lane]
                    continue
                for part in parts(allowed, size):
                    yield part

    async def intend(self, chunk: ReadyChunk) -> Dispatch:
        """Record, durably, that the chunk is about to be sent."""
        return await self._context.journal.intend(chunk)

    def contest(self, chunk: ReadyChunk, why: str) -> str:
        """Somebody moved a payout of the chunk since it was loaded. The next pass loads what is still ready, once."""
        again = chunk.chunk_id in self._contested
        self._contested.add(chunk.chunk_id)
        self._quota.give_back(chunk.lane, len(chunk.payouts))
        return "The journal refuses to send what it calls ready; see its log." if again else ""

    async def record(self, dispatch: Dispatch, answers: Answers) -> Sequence[Outcome]:
        """Record one receipt per payout, or one for all: of a call without an answer nothing is known."""
        receipts, on_wire = recorded(dispatch, answers)
        outcomes = await self._context.journal.record(dispatch, receipts, on_wire=on_wire)
        self._quota.give_back(dispatch.lane, sum(outcome.status is State.READY for outcome in outcomes))
        return outcomes

    def told(self, dispatch: Dispatch, answers: Answers, outcomes: Sequence[Outcome]) -> None:
        """Tell that a dispatch is over."""
        count = len(dispatch.payouts) - answers.count(None)
        self._context.notify(observer.Dispatched(dispatch.lane.account, dispatch.lane.name, count))

    def landed(self, chunk: ReadyChunk) -> None:
        """Let the chunk be loaded again if anything of it is ready."""
        self._in_hand[chunk.chunk_id] -= 1
        if not self._in_hand[chunk.chunk_id]:
            del self._in_hand[chunk.chunk_id]
        self._landed.set()

    def is_silence(self, receipts: Sequence[Receipt]) -> bool:
        """Whether an answer leaves every payout of its call in doubt: the next one may leave as many."""
        return all(receipt.state is State.UNKNOWN for receipt in receipts)


def recorded(dispatch: Dispatch, answers: Answers) -> tuple[Sequence[Receipt], OnWire]:
    """Return what is recorded of a dispatch, and what of it may have left this machine."""
    if len(answers) == 1 and answers[0] is not None:
        return receipts_of(answers[0]), not isinstance(answers[0], NotSentError)
    left = [
        index
        for index, answer in zip(dispatch.indexes, answers, strict=True)
        if answer is not None and not isinstance(answer, NotSentError)
    ]
    receipts = [UNSPOKEN if answer is None else receipts_of(answer)[0] for answer in answers]
    return receipts, left if 0 < len(left) < len(answers) else bool(left)


UNSPOKEN = Receipt(State.READY, "not_sent", "Sending stopped before its call was made.")
"""What is recorded of a payout whose call was never begun, although others of the same intent were."""


def receipts_of(answer: Answer) -> Sequence[Receipt]:
    """Return what an answer says of the payouts of a first sending. The default is doubt."""
    if not isinstance(answer, ProviderError):
        return answer
    if isinstance(answer, RefusedError):
        # Refused before processing, so it was never received: sent again, or failed where that would be futile.
        state = State.FAILED if answer.final and not answer.too_fast else State.READY
    else:
        state = State.READY if isinstance(answer, NotSentError) else State.UNKNOWN
    return [Receipt(state, answer.reason, str(answer))]
