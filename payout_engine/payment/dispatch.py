"""Dispatch: speak to the provider for chunks of one account, within its limits.

`send_durably` is the one function of the project in which money leaves: the durable intent, and the send below it.
The `Dispatcher` around it has the workers, the pace and the brakes; why chunks are sent is a `SendStrategy` of its own:
what is sent for the first time (`first_send.py`), or sent again to ask (`resend.py`). Whatever the provider answers, or
fails to answer, is recorded, and nothing becomes `ready` again without proof. `run.py` runs one for each account.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import anyio
import msgspec

from payout_engine.domain import clock
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
from payout_engine.domain.limits import CHUNK_SIZE
from payout_engine.domain.model import Dispatch, Lane, Outcome, Receipt
from payout_engine.domain.states import State
from payout_engine.payment.context import Context
from payout_engine.payment.rate_limiter import Pace, Turn
from payout_engine.payment.stop_rules import first_of
from payout_engine.ports import observer
from payout_engine.ports.journal import ReadyChunk
from payout_engine.ports.provider import Provider, Traits

logger = logging.getLogger(__name__)

TROUBLES_MAX = 5
"""Calls in a row without a usable answer before the account stops: each may leave a chunk in doubt."""

REFUSALS_MAX = 20
"""Refusals for the rate in a row before the account stops: no pace of ours will please this provider."""

INSUFFICIENT_FUNDS = "insufficient_funds"
"""The reason of a receipt `ready` that stops the lanes of its balance. With any other, the payout only goes back."""

RECORD_PAUSES_SECONDS = (0.5, 2.0, 10.0)
"""An answer that the journal cannot take at once (it is busy, its disk is full) is offered again after these."""

INTENTS_AT_ONCE = 2
"""Where one intent covers many calls: while the last answers of one come and are recorded, the next is begun."""

CALLS_GOAL_SECONDS = 5.0
"""One intent covers as many calls as were made lately in this time: a crash leaves all of them in doubt, and nobody
hears of any before the last one is over."""

CALLS_SECONDS_MAX = 60.0
"""But they begin within this time; what is left then, because the provider has become slow, waits for another one."""

CALLS_KEY_LIFE_SHARE = 0.05
"""And within this share of the life of their keys, which counts from the intent."""

TROUBLE_PAUSE_SECONDS = 0.5
TROUBLE_PAUSE_SECONDS_MAX = 10.0

Answer = Sequence[Receipt] | ProviderError
"""What became of a call: one receipt per payout, or the error that says how much is in doubt."""

Answers = Sequence[Answer | None]
"""What became of the calls of one intent, in the order of its payouts; None for a call that was never begun."""

Speak = Callable[[int, Turn], Awaitable[Answer]]
"""Makes one call of an intent, by its number, at its turn."""

MakeCalls = Callable[[int, Speak], Awaitable[None]]
"""Makes so many calls, or fewer; returns when all that were begun are over."""

OpenLanes = Callable[[], Sequence[Lane]]
"""Returns the lanes that may be sent for now: none any more once all is stopped."""

IntentSize = Callable[[], int]
"""Returns how many payouts the next intent may cover."""


class SendStrategy(Protocol):
    """Why chunks are sent: what to load, what to write as the intent, and what to make of an answer."""

    def chunks(self, lanes: OpenLanes, size: IntentSize) -> AsyncIterator[ReadyChunk]:
        """Yield what one intent each may cover, until there is nothing more to send."""
        ...

    async def intend(self, chunk: ReadyChunk) -> Dispatch:
        """Record, durably, that a chunk is about to be sent.

        Raises:
            IllegalMoveError: the journal refuses. Nothing was recorded; nothing may be sent.
        """
        ...

    def contest(self, chunk: ReadyChunk, why: str) -> str:
        """Take notice that the journal refused an intent; return why the account has to stop, or an empty text."""
        ...

    async def record(self, dispatch: Dispatch, answers: Answers) -> Sequence[Outcome]:
        """Record what the answers say of the payouts; return those that moved. Offered again if the journal fails."""
        ...

    def told(self, dispatch: Dispatch, answers: Answers, outcomes: Sequence[Outcome]) -> None:
        """Take notice that the answers are recorded and told."""
        ...

    def landed(self, chunk: ReadyChunk) -> None:
        """Take notice that nobody has a chunk in hand any more, whether or not it was sent."""
        ...

    def is_silence(self, receipts: Sequence[Receipt]) -> bool:
        """Tell whether an answer says as little as none."""
        ...


async def send_durably(
    strategy: SendStrategy, provider: Provider, chunk: ReadyChunk, make: MakeCalls
) -> tuple[Dispatch, Answers]:
    """Write down that a chunk is about to be sent, and send it. Money leaves here and nowhere else.

    Args:
        strategy: why it is sent.
        provider: whom to.
        chunk: what one intent may cover: one call, or many of one payout each.
        make: lets the calls of the intent be made, each when its turn has come, none twice, and perhaps not all.

    Returns:
        What was meant to be sent, and what became of each call.

    Raises:
        IllegalMoveError: the journal refuses. Nothing was recorded and nothing sent.
        JournalError: the intent may not have reached the disk. Nothing was sent.
    """
    # A crash up to here sends nothing. One in the next line may leave an intent without a call. `recover` cannot tell
    # it from one with a call, so its payouts become unknown: somebody waits for a look-up, and nobody is paid twice.
    dispatch = await strategy.intend(chunk)
    calls = calls_of(dispatch, provider.traits.batch_limit)
    answers: list[Answer | None] = [None] * len(calls)

    async def speak(number: int, turn: Turn) -> Answer:
        assert answers[number] is None, "no call of an intent is made twice"
        # Until better is known: cut off in mid-send, it may have paid.
        answers[number] = CUT_OFF
        answer: Answer
        turn.begin()
        try:
            # A crash from here on may have paid: the intent is on the disk, so `recover` makes its payouts unknown.
            receipts = await provider.send(calls[number])
            # So it is until the answer is recorded, which a crash can lose, and look-ups find what the provider knows.
        except ProviderError as error:
            answer = error
        except Exception as error:
            # Its text could hold anything the provider sent, so only its kind is told.
            logger.error("the adapter of account %s failed with %s", dispatch.lane.account, type(error).__name__)
            answer = AdapterFailedError("failed", "The answer could not be understood by this program.")
        else:
            answer = _counted(calls[number], receipts)
        answers[number] = answer
        return answer

    try:
        await make(len(calls), speak)
    except anyio.get_cancelled_exc_class():
        # Recorded at once if there is time; by `recover` if there is none.
        with anyio.CancelScope(shield=True):
            await strategy.record(dispatch, answers)
        raise
    return dispatch, answers


CUT_OFF = AmbiguousError("interrupted", "The program was stopped before the answer came.")


def _counted(call: Dispatch, receipts: Sequence[Receipt]) -> Answer:
    """Return receipts that are as many as the payouts of their call, or that they are not."""
    if len(receipts) != len(call.payouts):
        return AdapterFailedError("miscounted", "The answer does not cover every payout of the call.")
    return receipts


class AdapterFailedError(AmbiguousError):
    """An adapter broke its promise after the call may have left: a fault in this program.

    Attributes:
        stop_message: why the account stops.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__("adapter_failed", message, brake=Brake.PROVIDER_DOWN)
        self.stop_message = f"The provider's adapter {what}; this is a fault in payout_engine."


class Dispatcher:
    """Sends the chunks of a strategy for one account until there are none, or a brake stops it.

    Attributes:
        lanes: those that may be sent for; a brake takes a lane out.
        stops: the brakes that stopped it.

    Args:
        context: the account and the run.
        strategy: what to send.
        lanes: the account's lanes in this run.
        pace: the account's call rate.
    """

    def __init__(self, context: Context, strategy: SendStrategy, lanes: Sequence[Lane], pace: Pace) -> None:
        self.lanes = list(lanes)
        self.stops: list[Stop] = []
        self._context = context
        self._strategy = strategy
        self._pace = pace
        self._troubles = 0
        self._refusals = 0
        self._failure: Exception | None = None
        self._halted = anyio.Event()
        traits = context.provider.traits
        self._loading, self._breath = anyio.Lock(fast_acquire=True), anyio.Lock(fast_acquire=True)
        self._speaking = anyio.Semaphore(1, fast_acquire=True) if traits.intent_covers_calls else None
        self._calls = traits.concurrency
        self._wire = anyio.Semaphore(traits.concurrency, fast_acquire=True) if traits.intent_covers_calls else None

    def stop(self, lane: Lane | None, brake: Brake, message: str) -> None:
        """Stop sending for a lane, or for the account when `lane` is None. What is on the wire is finished.

        For want of money all lanes stop that draw on the same balance.
        """
        if self._halted.is_set() or (lane is not None and lane not in self.lanes):
            return
        if lane is None:
            self._tell(None, brake, message)
            self.halt()
            return
        shared = [one for one in self.lanes if brake is Brake.FUNDS and self._context.draws_with(lane, one)]
        for one in shared or [lane]:
            self._tell(one, brake, message)
            self.lanes.remove(one)

    def _tell(self, lane: Lane | None, brake: Brake, message: str) -> None:
        self.stops.append(Stop(self._context.account, lane, brake, message))
        self._context.notify(observer.Braked(self._context.account, lane.name if lane else "", brake, message))

    def halt(self) -> None:
        """Send nothing more and wait for nothing more, without a word; what is on the wire is finished."""
        self._halted.set()

    def open_lanes(self) -> Sequence[Lane]:
        """Return the lanes that may be sent for now."""
        return () if self._halted.is_set() else self.lanes

    async def run(self) -> None:
        """Send until there is nothing to send or everything is stopped; return when nothing is on the wire.

        Raises:
            JournalError: the journal failed; what was on the wire has landed all the same, as after any other error.
        """
        traits = self._context.provider.traits
        chunks = self._strategy.chunks(self.open_lanes, self._intent_size)
        async with anyio.create_task_group() as workers:
            for _ in range(INTENTS_AT_ONCE if traits.intent_covers_calls else traits.concurrency):
                workers.start_soon(self._work, chunks)
        if self._failure is not None:
            raise self._failure

    async def _work(self, chunks: AsyncIterator[ReadyChunk]) -> None:
        while True:
            try:
                async with self._loading:
                    chunk = await anext(chunks, None)
                    if chunk is not None:
                        await self._breathe()
            except Exception as error:
                return self._fail(error)
            if chunk is None:
                return None
            try:
                await self._send(chunk)
            except Exception as error:
                self._fail(error)
            finally:
                self._strategy.landed(chunk)

    def _intent_size(self) -> int:
        traits = self._context.provider.traits
        return self._calls if traits.intent_covers_calls else traits.batch_limit

    def _fail(self, error: Exception) -> None:
        """Send nothing more, but let the other calls land: each that is cut off is a chunk in doubt."""
        self._failure = self._failure or error
        self.halt()

    async def _breathe(self) -> None:
        """Pause, longer each time, while calls have no usable answer: each call in doubt is a chunk in doubt."""
        if self._troubles:
            async with self._breath:
                with anyio.move_on_after(min(TROUBLE_PAUSE_SECONDS * 2**self._troubles, TROUBLE_PAUSE_SECONDS_MAX)):
                    await self._halted.wait()

    async def _send(self, chunk: ReadyChunk) -> None:
        """Send one chunk when its turn has come, and record what became of it."""
        place, slot = _Place(self._speaking), _Place(self._wire)
        await place.take()
        await slot.take()
        turn = await self._pace.taken(self._halted)
        began_at = anyio.current_time()
        try:
            if chunk.lane not in self.open_lanes():
                return
            make = partial(self._make, chunk.lane, turn, slot, place.let_go)
            dispatch, answers = await send_durably(self._strategy, self._context.provider, chunk, make)
        except IllegalMoveError as error:
            why = self._strategy.contest(chunk, str(error))
            if why:
                self.stop(None, Brake.LIMIT, why)
            return
        finally:
            self._pace.end(turn)
            slot.let_go()
            place.let_go()
        took_seconds = max(anyio.current_time() - began_at, CALLS_GOAL_SECONDS / CHUNK_SIZE)
        spoken = len(answers) - answers.count(None)
        self._calls = max(1, min(CHUNK_SIZE, int(spoken * CALLS_GOAL_SECONDS / took_seconds)))
        outcomes = await self._record(dispatch, answers)
        await self._context.publish(outcomes)
        self._strategy.told(dispatch, answers, outcomes)

    async def _make(
        self, lane: Lane, first: Turn, slot: _Place, let_go: Callable[[], None], count: int, speak: Speak
    ) -> None:
        """Make the calls of one intent, each at its turn, until a brake stops them or it has been too long.

        Args:
            lane: theirs.
            first: the turn that was taken before the intent; it is the first call's, which waits for nothing more.
            slot: its place on the wire, likewise.
            let_go: called when the last call begins, so that the next intent may follow while it is on its way.
            count: how many.
            speak: makes one.
        """
        traits = self._context.provider.traits
        if not traits.intent_covers_calls:
            # There are as many workers as calls may be on the wire.
            self._heed(lane, await speak(0, first))
            return
        numbers, until = iter(range(count)), clock.moment().up_seconds + calls_seconds(traits)

        async def make_one(number: int) -> bool:
            place, turn = (slot, first) if number == 0 else (_Place(self._wire), None)
            if turn is None:
                await self._breathe()
                await place.take()
            try:
                turn = turn or await self._pace.taken(self._halted)
                if lane not in self.open_lanes() or (number and clock.moment().up_seconds > until):
                    return False
                if number == count - 1:
                    let_go()
                self._heed(lane, await speak(number, turn))
                return True
            finally:
                if turn is not None:
                    self._pace.end(turn)
                place.let_go()

        async def make_some() -> None:
            try:
                for number in numbers:
                    if not await make_one(number):
                        return
            except Exception as error:
                self._fail(error)  # The other calls land all the same.

        async with anyio.create_task_group() as callers:
            for _ in range(min(count, traits.concurrency)):
                callers.start_soon(make_some)

    async def _record(self, dispatch: Dispatch, answers: Answers) -> Sequence[Outcome]:
        """Record answers, more than once if need be: until they are recorded they exist nowhere but here."""
        for pause_seconds in RECORD_PAUSES_SECONDS:
            try:
                return await self._strategy.record(dispatch, answers)
            except IllegalMoveError as error:
                # Somebody else ended this dispatch, as `recover` does: look-ups settle its payouts.
                self._context.waiting(str(error))
                return ()
            except JournalError as error:
                self._context.waiting(f"{error} The answer is kept and will be recorded.")
                await anyio.sleep(pause_seconds)
        return await self._strategy.record(dispatch, answers)

    # ----------------------------------------------------------------------------- what an answer means for later calls

    def _heed(self, lane: Lane, answer: Answer) -> None:
        """Slow down, brake, or count a trouble, as an answer asks. What it says of its payouts is the strategy's."""
        match answer:
            case RefusedError():
                self._heed_refusal(lane, answer)
            case AdapterFailedError():
                self.stop(None, Brake.PROVIDER_DOWN, answer.stop_message)
            case AmbiguousError(brake=Brake() as brake):
                self._brake(lane, brake, answer)
            case ProviderError():
                self._trouble(answer)
            case _:
                self._heed_receipts(lane, answer)

    def _heed_receipts(self, lane: Lane, receipts: Sequence[Receipt]) -> None:
        if self._strategy.is_silence(receipts):
            self._trouble(AmbiguousError(receipts[0].reason, receipts[0].message))
            return
        refused = [receipt for receipt in receipts if receipt.state is State.READY]
        short = next((receipt for receipt in refused if receipt.reason == INSUFFICIENT_FUNDS), None)
        if short is not None:
            self.stop(lane, Brake.FUNDS, short.message)
        elif len(refused) == len(receipts):
            # Nobody is in doubt. But all of it goes back, and would be sent in vain for ever.
            self._trouble(NotSentError(refused[0].reason, refused[0].message or "Nothing of the call was taken."))
            return
        self._troubles = self._refusals = 0

    def _heed_refusal(self, lane: Lane, error: RefusedError) -> None:
        """The whole call was refused before processing."""
        self._troubles = 0
        self._refusals += 1
        if error.too_fast and self._refusals < REFUSALS_MAX:
            self._pace.slow_down(error.retry_after_seconds)
            self._context.waiting(f"{error} The engine calls more slowly from now on.")
        elif error.too_fast or not error.final:
            self._brake(lane, error.brake or Brake.LIMIT, error)

    def _brake(self, lane: Lane, brake: Brake, error: ProviderError) -> None:
        """Obey the brake of an answer: the balance is the lane's, everything else is the account's."""
        self.stop(lane if brake is Brake.FUNDS else None, brake, str(error))

    def _trouble(self, error: ProviderError) -> None:
        self._troubles += 1
        self._context.waiting(str(error))
        if self._troubles >= TROUBLES_MAX:
            message = f"{self._troubles} calls in a row had no usable answer; the last: {error}"
            self.stop(None, Brake.PROVIDER_DOWN, message)


class _Place:
    """A place among those that there are, whoever lets go of it; where none are counted, it is had at once."""

    def __init__(self, places: anyio.Semaphore | None) -> None:
        self._places = places

    async def take(self) -> None:
        """Wait until it is free."""
        if self._places is not None:
            await self._places.acquire()

    def let_go(self) -> None:
        """Let the next one have it; more than once is once."""
        if self._places is not None:
            self._places.release()
            self._places = None


def parts(chunk: ReadyChunk, size: IntentSize) -> Iterator[ReadyChunk]:
    """Yield a chunk in pieces that one intent may cover; how much that is may change from one to the next."""
    start = 0
    while start < len(chunk.payouts):
        count = size()
        yield first_of(chunk, start, count) if start or count < len(chunk.payouts) else chunk
        start += count


def calls_of(dispatch: Dispatch, batch_limit: int) -> Sequence[Dispatch]:
    """Return the calls that a dispatch takes."""
    if len(dispatch.payouts) <= batch_limit:
        return [dispatch]
    return [
        msgspec.structs.replace(dispatch, indexes=[index], payouts=[payout], keys=[key])
        for index, payout, key in zip(dispatch.indexes, dispatch.payouts, dispatch.keys, strict=True)
    ]


def calls_seconds(traits: Traits) -> float:
    """Return how long after an intent its calls may begin: while the age of its keys is as good as that of the intent.

    The journal allows a repetition in the first half of a key's life; what is added here comes out of the other half.
    """
    if traits.key_lifetime_seconds is None:
        return CALLS_SECONDS_MAX
    return min(CALLS_SECONDS_MAX, traits.key_lifetime_seconds * CALLS_KEY_LIFE_SHARE)
