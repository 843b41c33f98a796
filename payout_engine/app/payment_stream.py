"""One run being paid: an async iterator of outcomes, driven by a task of the engine.

Created by `Engine.pay`. The payment runs beside the caller and never waits for it: what a slow caller has not read yet
is kept up to a bound, and what comes after that is read from the journal's log when the caller gets there. It ends by
itself, or cleanly when it is stopped or the engine is closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import anyio

from payout_engine.domain.ending import Ending
from payout_engine.domain.errors import JournalError, PayoutEngineError, UnansweredError
from payout_engine.domain.model import Outcome
from payout_engine.payment.context import Publish
from payout_engine.payment.run import Payment
from payout_engine.ports.journal import Journal

OUTCOMES_WAITING_MAX = 10_000
"""Outcomes that wait in memory for the caller; those of one more batch may join them."""

READ_AGAIN_SECONDS = 0.5
"""A log that cannot be read for a slow caller is tried again after this, while paying goes on."""


class PaymentStream:
    """Outcomes as they settle, each once. After the loop, `ending` says how paying ended.

    Attributes:
        run_id: the run being paid.
        ending: how it ended; set when the iteration is over.
        stopping: set when it was asked to stop.
        done: set when nothing of it runs any more; paying comes to its end whether anybody iterates or not.

    Args:
        run_id: the run to pay.
        journal: opens the journal.
    """

    def __init__(self, run_id: str, journal: Callable[[], Awaitable[Journal]]) -> None:
        self.run_id = run_id
        self.ending = Ending()
        self.stopping = anyio.Event()
        self.done = anyio.Event()
        # What is on the wire must land even when the caller is cancelled: only `cut_off` ends a payment at once.
        self._scope = anyio.CancelScope(shield=True)
        self._payment: Payment | None = None
        self._at_stop: list[Callable[[], None]] = []
        self._error: BaseException | None = None
        self._journal = journal
        self._waiting: deque[Outcome] = deque()
        self._news = anyio.Event()
        self._abandoned = False
        self._last_seq = 0
        # Where the log takes over from memory, and how far the caller has read in it; None while all is in memory.
        self._log_after: int | None = None
        self._log_read = 0

    @property
    def begun(self) -> bool:
        """Whether paying has begun: before, it may be waiting for another process."""
        return self._payment is not None

    def stop(self) -> None:
        """Send nothing more; what is on the wire is finished and recorded. Safe at any moment."""
        self.stopping.set()
        for notify in self._at_stop:
            notify()
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
            # Both are looked at before the log is, so that nothing recorded meanwhile goes unread.
            over, self._news = self.done.is_set(), anyio.Event()
            ended = self._abandoned or self._scope.cancel_called
            if self._log_after is not None and not ended and not await self._read_on():
                continue
            if self._waiting:
                break
            if over or self._abandoned:
                if self._error is not None:
                    raise self._error from None
                raise StopAsyncIteration
            await self._news.wait()
        return self._waiting.popleft()

    async def _read_on(self) -> bool:
        """Read what the log tells next; False if it could not be read and may be tried again.

        Raises:
            JournalError: paying is over, and the log still cannot be read.
        """
        over = self.done.is_set()
        try:
            async for seq, outcomes in (await self._journal()).outcomes(self.run_id, after=self._log_read):
                self._waiting.extend(outcomes)
                self._log_read = seq
                if len(self._waiting) >= OUTCOMES_WAITING_MAX:
                    break
        except JournalError:
            if over:
                raise
            with anyio.move_on_after(READ_AGAIN_SECONDS):
                await self.done.wait()
            return False
        return True

    def abandon(self) -> None:
        """Stop listening: the caller has left."""
        self._abandoned = True
        self._waiting.clear()
        self._news.set()

    def when_stopped(self, notify: Callable[[], None]) -> None:
        """Have `notify` called as soon as somebody asks to stop; at once, if somebody has."""
        self._at_stop.append(notify)
        if self.stopping.is_set():
            notify()

    async def drive(self, prepare: Callable[[Publish, AsyncExitStack], Awaitable[Payment]]) -> None:
        """Pay to the end. Called once, by the engine; what `prepare` leaves in the stack is let go at the end."""
        try:
            with self._scope:
                async with AsyncExitStack() as held:
                    await self._pay(await prepare(self._publish, held))
        except Exception as error:
            self._error = unwrap_group(error)
            if self.stopping.is_set() and isinstance(self._error, UnansweredError):
                # Nobody waited for the answer any more, so there is nothing to be told.
                self._error, self.ending = None, Ending(interrupted=True)
        finally:
            if self._scope.cancelled_caught:
                self.ending = Ending(interrupted=True)
            self.done.set()
            self._news.set()

    async def _pay(self, payment: Payment) -> None:
        self._payment = payment
        if self.stopping.is_set():
            payment.stop()
        self.ending = await payment.run()

    async def _publish(self, outcomes: Sequence[Outcome]) -> None:
        """Keep outcomes for the caller, or leave them to the log, which has them too. Paying never waits here."""
        if self._abandoned or not outcomes:
            return
        if self._log_after is None and len(self._waiting) >= OUTCOMES_WAITING_MAX:
            self._log_after = self._log_read = self._last_seq
        if self._log_after is not None:
            # From here on the caller reads the log. An entry before that place may be told a moment late.
            outcomes = [outcome for outcome in outcomes if outcome.seq <= self._log_after]
        self._waiting.extend(outcomes)
        self._last_seq = max(self._last_seq, *(outcome.seq for outcome in outcomes), 0)
        self._news.set()


def unwrap_group(error: BaseException) -> BaseException:
    """Return the one exception that says most: inside groups, one of ours if there is any; else the group itself."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    ours = error.subgroup(PayoutEngineError)
    if ours is not None or len(error.exceptions) == 1:
        return unwrap_group((ours or error).exceptions[0])
    return error
