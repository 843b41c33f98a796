"""One run being paid: an async iterator of outcomes, driven by a task of the engine.

Created by `Engine.pay`. The payment runs beside the caller and waits for it only when the bounded stream is full. It
ends by itself, or cleanly when it is stopped or the engine is closed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import anyio

from payout_engine.errors import PayoutEngineError, UnansweredError
from payout_engine.model import Outcome
from payout_engine.pipeline.dispatch import Publish
from payout_engine.pipeline.payment import Ending, Payment

BATCHES_WAITING_MAX = 4
"""Batches of outcomes that may wait for the iterating caller before paying waits for it too."""


class PaymentStream:
    """Outcomes as they settle. After the loop, `ending` says how paying ended.

    Attributes:
        run_id: the run being paid.
        ending: how it ended; set when the iteration is over.
        stopping: set when it was asked to stop.
        done: set when nothing of it runs any more.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.ending = Ending()
        self.stopping = anyio.Event()
        self.done = anyio.Event()
        # What is on the wire must land even when the caller is cancelled: only `cut_off` ends a payment at once.
        self._scope = anyio.CancelScope(shield=True)
        self._payment: Payment | None = None
        self._at_stop: list[Callable[[], None]] = []
        self._error: BaseException | None = None
        self._waiting: list[Outcome] = []
        self._send, self._receive = anyio.create_memory_object_stream[Sequence[Outcome]](BATCHES_WAITING_MAX)

    @property
    def begun(self) -> bool:
        """Whether paying has begun: before, it may be waiting for another process."""
        return self._payment is not None

    def stop(self) -> None:
        """Send nothing more; what is on the wire is finished and recorded. Safe at any moment."""
        self.stopping.set()
        for tell in self._at_stop:
            tell()
        if self._payment is not None:
            self._payment.stop()

    def cut_off(self) -> None:
        """Stop at once. Payouts whose call is on the wire become `unknown`, for look-ups or a person to settle."""
        self.stop()
        self._scope.cancel()

    def __aiter__(self) -> PaymentStream:
        return self

    async def __anext__(self) -> Outcome:
        while not self._waiting:
            try:
                self._waiting = list(reversed(await self._receive.receive()))
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                self._receive.close()
                if self._error is not None:
                    raise self._error from None
                raise StopAsyncIteration from None
        return self._waiting.pop()

    def abandon(self) -> None:
        """Stop listening, so that paying never waits for a caller who has left."""
        self._receive.close()

    def when_stopped(self, tell: Callable[[], None]) -> None:
        """Have `tell` called as soon as somebody asks to stop; at once, if somebody has."""
        self._at_stop.append(tell)
        if self.stopping.is_set():
            tell()

    async def drive(self, prepare: Callable[[Publish, AsyncExitStack], Awaitable[Payment]]) -> None:
        """Pay to the end. Called once, by the engine; what `prepare` leaves in the stack is let go at the end."""
        try:
            with self._scope:
                async with AsyncExitStack() as held:
                    await self._pay(await prepare(self._publish, held))
        except Exception as error:
            self._error = alone(error)
            if self.stopping.is_set() and isinstance(self._error, UnansweredError):
                # Nobody waited for the answer any more, so there is nothing to be told.
                self._error, self.ending = None, Ending(interrupted=True)
        finally:
            if self._scope.cancelled_caught:
                self.ending = Ending(interrupted=True)
            self._send.close()
            self.done.set()

    async def _pay(self, payment: Payment) -> None:
        self._payment = payment
        if self.stopping.is_set():
            payment.stop()
        self.ending = await payment.run()

    async def _publish(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        try:
            await self._send.send(outcomes)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # Nobody listens any more; the journal has it all.


def alone(error: BaseException) -> BaseException:
    """Return the one exception that says most: inside groups, one of ours if there is any; else the group itself."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    ours = error.subgroup(PayoutEngineError)
    if ours is not None or len(error.exceptions) == 1:
        return alone((ours or error).exceptions[0])
    return error
