"""Dispatch: speak to the provider for the ready payouts of one account, within its limits.

The two lines that matter stand together in `Dispatcher._pay`: the durable intent, and the send below it, which is the
only line of the project where money leaves. Everything the provider may answer, or fail to answer, becomes receipts in
`Dispatcher._speak`, and nothing becomes `ready` again without proof. `payment.py` runs one dispatcher per account.
What is resent to ask (`resend.py`) is spoken by the same `_speak`, below an entry of its own in the journal.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import anyio

from payout_engine.domain.ending import Stop
from payout_engine.domain.errors import (
    AmbiguousError,
    Brake,
    IllegalMoveError,
    JournalError,
    NotSentError,
    ProviderError,
    RefusedError,
)
from payout_engine.domain.limits import READY_CHUNKS_AHEAD
from payout_engine.domain.model import Dispatch, Lane, Outcome, Receipt
from payout_engine.domain.states import State
from payout_engine.payment.rate_limiter import Pace
from payout_engine.payment.stop_rules import Quota, first_of
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal, ReadyChunk
from payout_engine.ports.provider import Provider

logger = logging.getLogger(__name__)

TROUBLES_MAX = 5
"""Calls in a row without a usable answer before the account stops: each may leave a chunk in doubt."""

REFUSALS_MAX = 20
"""Refusals for the rate in a row before the account stops: no pace of ours will please this provider."""

RECORD_PAUSES_SECONDS = (0.5, 2.0, 10.0)
"""An answer that the journal cannot take at once (it is busy, its disk is full) is offered again after these."""

TROUBLE_PAUSE_SECONDS = 0.5
TROUBLE_PAUSE_SECONDS_MAX = 10.0

INSUFFICIENT_FUNDS = "insufficient_funds"
"""The reason of a receipt that sends a payout back to `ready` because the lane's balance is too low."""

Publish = Callable[[Sequence[Outcome]], Awaitable[None]]
"""Told of outcomes after they are durable. One that waits slows the engine down; it cannot make it forget."""


class Dispatcher:
    """Sends what is ready for one account until nothing is, or a brake stops it.

    Attributes:
        lanes: those that may be sent for; a brake takes a lane out.
        stops: the brakes that stopped it.

    Args:
        journal: the durable memory.
        provider: the account's connection.
        run_id: the run to pay.
        account: the account's name.
        lanes: its lanes in this run.
        pace: the account's call rate.
        publish: told of every outcome.
        tell: told of what happens.
        quota: how many payouts of each lane may be sent; None for all of them.
    """

    def __init__(
        self,
        journal: Journal,
        provider: Provider,
        run_id: str,
        account: str,
        lanes: Sequence[Lane],
        pace: Pace,
        publish: Publish,
        notify: observer.Observer,
        quota: Mapping[Lane, int] | None = None,
    ) -> None:
        self.stops: list[Stop] = []
        self._journal = journal
        self._provider = provider
        self._run_id = run_id
        self._account = account
        self.lanes = list(lanes)
        self._pace = pace
        self._publish = publish
        self._notify = notify
        self._quota = Quota(quota)
        self._stopped = False
        self._in_hand: Counter[int] = Counter()
        self._troubles = 0
        self._refusals = 0
        self._contested: set[int] = set()
        self._never_left: set[int] = set()
        self._failure: Exception | None = None
        self._landed = anyio.Event()
        self._halted = anyio.Event()

    def stop(self, lane: Lane | None, brake: Brake, message: str) -> None:
        """Stop sending for a lane, or for the account when `lane` is None. What is on the wire is finished."""
        if self._stopped or (lane is not None and lane not in self.lanes):
            return
        self.stops.append(Stop(self._account, lane, brake, message))
        self._notify(observer.Braked(self._account, lane.name if lane else "", brake, message))
        if lane is None:
            self._halt()
        else:
            self.lanes.remove(lane)

    def _halt(self) -> None:
        """Send nothing more and wait for nothing more; what is on the wire is finished."""
        self._stopped = True
        self._halted.set()

    async def run(self) -> None:
        """Send until nothing is ready or everything is stopped; return when nothing is on the wire.

        Raises:
            JournalError: the journal failed; what was on the wire has landed all the same, as after any other error.
        """
        lock = anyio.Lock()
        chunks = self._chunks()
        async with anyio.create_task_group() as workers:
            for _ in range(self._provider.traits.concurrency):
                workers.start_soon(self._work, chunks, lock)
        if self._failure is not None:
            raise self._failure

    async def _work(self, chunks: AsyncIterator[ReadyChunk], lock: anyio.Lock) -> None:
        while True:
            try:
                async with lock:
                    chunk = await anext(chunks, None)
            except Exception as error:
                return self._fail(error)
            if chunk is None:
                return None
            try:
                await self._pay(chunk)
            except Exception as error:
                self._fail(error)
            finally:
                self._in_hand -= Counter([chunk.chunk_id])
                self._landed.set()

    def _fail(self, error: Exception) -> None:
        """Send nothing more, but let the other calls land: each that is cut off is a chunk in doubt."""
        self._failure = self._failure or error
        self._halt()

    async def _chunks(self) -> AsyncIterator[ReadyChunk]:
        """Yield ready chunks, the lanes in turn, until a whole pass finds none and no worker has one in hand.

        A chunk may come back to `ready` (it provably never left, or was refused for the rate), so a pass that found
        something, or calls that have not landed, are followed by another pass.
        """
        while not self._stopped:
            found = False
            self._landed = anyio.Event()
            landed = self._landed
            async for chunk in self._one_pass():
                found = True
                await self._breathe()
                self._in_hand[chunk.chunk_id] += 1
                yield chunk
            if not found and not self._in_hand:
                return
            if not found:
                await landed.wait()

    async def _breathe(self) -> None:
        """Pause, longer each time, while calls have no usable answer: each call in doubt is a chunk in doubt."""
        if self._troubles:
            with anyio.move_on_after(min(TROUBLE_PAUSE_SECONDS * 2**self._troubles, TROUBLE_PAUSE_SECONDS_MAX)):
                await self._halted.wait()

    async def _one_pass(self) -> AsyncIterator[ReadyChunk]:
        """Yield what is ready now, one chunk of each lane in turn."""
        after = dict.fromkeys(self.lanes, 0)
        ahead: dict[Lane, list[ReadyChunk]] = {lane: [] for lane in self.lanes}
        while after:
            for lane in list(after):
                if not ahead[lane]:
                    page = await self._journal.ready(self._run_id, lane, after[lane], READY_CHUNKS_AHEAD)
                    ahead[lane] = list(reversed(page))
                if not ahead[lane]:
                    del after[lane]
                    continue
                chunk = ahead[lane].pop()
                after[lane] = chunk.chunk_id
                if chunk.chunk_id in self._in_hand:
                    continue  # A worker has it and has not spoken yet, so it still looks ready.
                if not self._may_send(lane):
                    del after[lane]
                    continue
                allowed = self._quota.take(chunk)
                if allowed is None:
                    del after[lane]
                    continue
                for part in parts(allowed, self._provider.traits.batch_limit):
                    yield part

    def _may_send(self, lane: Lane) -> bool:
        return not self._stopped and lane in self.lanes

    async def _pay(self, chunk: ReadyChunk) -> None:
        """Send one chunk and record what became of it."""
        async with self._pace.turn(self._halted) as turn:
            if not self._may_send(chunk.lane):
                return
            try:
                dispatch = await self._journal.intend(chunk)
            except IllegalMoveError:
                self._contest(chunk)
                return
            turn.begin()
            receipts = await self._speak(dispatch)
        self._quota.give_back(chunk.lane, _returned(dispatch, receipts))
        await self._publish(await self._record(dispatch, receipts))
        self._notify(observer.Dispatched(self._account, chunk.lane.name, len(dispatch.payouts)))

    def _contest(self, chunk: ReadyChunk) -> None:
        """Somebody moved a payout of the chunk since it was loaded. The next pass loads what is still ready, once."""
        if chunk.chunk_id in self._contested:
            self.stop(None, Brake.LIMIT, "The journal refuses to send what it calls ready; see its log.")
        self._contested.add(chunk.chunk_id)
        self._quota.give_back(chunk.lane, len(chunk.payouts))

    async def _record(self, dispatch: Dispatch, receipts: Sequence[Receipt]) -> Sequence[Outcome]:
        """Record an answer, more than once if need be: until it is recorded it exists nowhere but here."""
        for pause_seconds in RECORD_PAUSES_SECONDS:
            try:
                return await self._write(dispatch, receipts)
            except IllegalMoveError as error:
                # Somebody else ended this dispatch, as `recover` does: look-ups settle its payouts.
                self._notify(observer.Waiting(self._account, str(error)))
                return ()
            except JournalError as error:
                self._notify(observer.Waiting(self._account, f"{error} The answer is kept and will be recorded."))
                await anyio.sleep(pause_seconds)
        return await self._write(dispatch, receipts)

    async def _write(self, dispatch: Dispatch, receipts: Sequence[Receipt]) -> Sequence[Outcome]:
        on_wire = dispatch.dispatch_id not in self._never_left
        outcomes = await self._journal.record(dispatch, receipts, on_wire=on_wire)
        self._never_left.discard(dispatch.dispatch_id)
        return outcomes

    async def _speak(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Send, and return one receipt per payout, or one for all, whatever happens.

        A cancellation in mid-send leaves the dispatch open on purpose: it is recorded as `unknown` here if there is
        time, and by `Journal.recover` if there is none.
        """
        try:
            receipts = await self._provider.send(dispatch)  # The one line where money leaves.
        except NotSentError as error:
            self._trouble(error)
            self._never_left.add(dispatch.dispatch_id)
            return [Receipt(State.READY, error.reason, str(error))]
        except RefusedError as error:
            return [self._refused(dispatch, error)]
        except AmbiguousError as error:
            if error.brake is None:
                self._trouble(error)
            else:
                self._brake(dispatch.lane, error.brake, error)
            return [Receipt(State.UNKNOWN, error.reason, str(error))]
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._interrupted(dispatch)
            raise
        except Exception as error:
            # Its text could hold anything the provider sent, so only its kind is told.
            logger.error("the adapter of account %s failed with %s", self._account, type(error).__name__)
            self.stop(None, Brake.PROVIDER_DOWN, "The provider's adapter failed; this is a fault in payout_engine.")
            return [Receipt(State.UNKNOWN, "adapter_failed", "The answer could not be understood by this program.")]
        return self._answered(dispatch, receipts)

    async def _interrupted(self, dispatch: Dispatch) -> None:
        receipt = Receipt(State.UNKNOWN, "interrupted", "The program was stopped before the answer came.")
        await self._journal.record(dispatch, [receipt])

    def _answered(self, dispatch: Dispatch, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        if len(receipts) != len(dispatch.payouts):
            self.stop(None, Brake.PROVIDER_DOWN, "The provider's adapter miscounted; this is a fault in payout_engine.")
            return [Receipt(State.UNKNOWN, "adapter_failed", "The answer does not cover every payout of the call.")]
        if self._says_nothing(receipts):
            self._trouble(AmbiguousError(receipts[0].reason, receipts[0].message))
            return receipts
        self._troubles = self._refusals = 0
        short = [receipt for receipt in receipts if receipt.state is State.READY]
        if short:
            self.stop(dispatch.lane, Brake.FUNDS, short[0].message)
        return receipts

    def _says_nothing(self, receipts: Sequence[Receipt]) -> bool:
        """Whether an answer leaves every payout of its call in doubt: the next one may leave as many."""
        return all(receipt.state is State.UNKNOWN for receipt in receipts)

    def _refused(self, dispatch: Dispatch, error: RefusedError) -> Receipt:
        """The whole call was refused before processing: slow down, brake, or give its payouts their verdict."""
        self._troubles = 0
        self._refusals += 1
        if error.too_fast and self._refusals < REFUSALS_MAX:
            self._pace.slow_down(error.retry_after_seconds)
            self._notify(observer.Waiting(self._account, f"{error} The engine calls more slowly from now on."))
        elif error.final:
            return Receipt(State.FAILED, error.reason, str(error))
        else:
            self._brake(dispatch.lane, error.brake or Brake.LIMIT, error)
        return Receipt(State.READY, error.reason, str(error))

    def _brake(self, lane: Lane, brake: Brake, error: ProviderError) -> None:
        """Obey the brake of an answer: the balance is the lane's, everything else is the account's."""
        self.stop(lane if brake is Brake.FUNDS else None, brake, str(error))

    def _trouble(self, error: ProviderError) -> None:
        self._troubles += 1
        self._notify(observer.Waiting(self._account, str(error)))
        if self._troubles >= TROUBLES_MAX:
            message = f"{self._troubles} calls in a row had no usable answer; the last: {error}"
            self.stop(None, Brake.PROVIDER_DOWN, message)


def parts(chunk: ReadyChunk, batch_limit: int) -> Sequence[ReadyChunk]:
    """Return a chunk in pieces that one call may hold; the limit may have changed since it was packed."""
    if len(chunk.payouts) <= batch_limit:
        return [chunk]
    return [first_of(chunk, start, batch_limit) for start in range(0, len(chunk.payouts), batch_limit)]


def _returned(dispatch: Dispatch, receipts: Sequence[Receipt]) -> int:
    """Return how many payouts of a dispatch are ready again."""
    ready = sum(receipt.state is State.READY for receipt in receipts)
    return ready * len(dispatch.payouts) if len(receipts) == 1 else ready
