"""The first look: before anything is sent that may have been sent before, the provider is asked what it already has.

A journal that was restored from a copy does not know what was sent since; a line that counts as failed may come to
light. Where the provider lists its transfers, the list is read back to before any of these lines can have been sent, by
this run, a copy of this journal, or an earlier run that counts them as unpaid, since only that shows a transfer under
any key; where that moment is not known, the list is read whole. What it shows moves payouts as any look-up does: a
transfer for what was never sent here, or counts as unpaid, waits for a person. Nothing is sent until the look came to
its end; `Engine` sees to that.

Where the provider is asked one by one, each key is asked about that these lines were sent under, as far as this
journal knows. What it never sent can only be there if another copy of it has gone on meanwhile, and asking about each
of a million such lines would take longer than paying them. So only samples of each lane are asked about (`_samples`),
and all that waits only if the provider knows any of these. That is enough because of the order in which `FirstSend`
sends: the chunks of a lane one after the other, from the lowest that is ready. A copy that sent anything of a lane has
begun with the first chunk that is ready here. Several workers may finish in any order, so that it died while its first
chunk had not left, but then nothing left behind the first as many as may be on the wire at once: those are all asked
about. Each of them may have come back as ready (it never left, or was refused before processing) or been refused for
good: the provider knows none of it then, while the copy went on to those behind, before another pass. So chunks
further behind are asked about as well, each at twice the distance of the one before: whoever sent for long is found
out unless all of these were refused, too.

Where only the provider's own reference can be asked about, that is done for what has one. The rest proves nothing and
need not: what is `unknown` without a reference is never sent by itself; what is `ready` or counts as failed was never
sent, or is so by the provider's documented word, or a person's.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence

import anyio
import msgspec

from payout_engine.domain import clock
from payout_engine.domain.errors import Brake, JournalError, ProviderError, RefusedError
from payout_engine.domain.limits import (
    FIRST_LOOK_MARGIN_SECONDS,
    FIRST_LOOK_SECONDS_MAX,
    FIRST_LOOK_SECONDS_MIN,
    QUERIES_BATCH,
)
from payout_engine.domain.model import LookUpResult, Query
from payout_engine.domain.states import State
from payout_engine.payment.context import Context
from payout_engine.ports.journal import Ready, ReadyChunk
from payout_engine.ports.provider import LookUpKind

logger = logging.getLogger(__name__)

PAUSES_SECONDS = (1.0, 3.0, 9.0, 20.0)
"""A look-up that fails is tried again after these: one refusal for the rate is no reason to send nothing today."""

CHUNKS_AT_ONCE_MIN = 2
"""Chunks that may be on the wire at once even where calls go out one at a time: those of one may still be under way
when the next begins."""

ASKED_LONGER_SECONDS_MAX = 60.0
"""The longest wait that a provider may ask for before the next try."""


class Looked(msgspec.Struct, frozen=True):
    """What came of a first look.

    Attributes:
        problem: why it did not come to its end, or empty. Nothing may be sent then.
        brake: what stops the account with it.
    """

    problem: str = ""
    brake: Brake = Brake.PROVIDER_DOWN


def seconds_allowed(follow_for_seconds: float | None) -> float:
    """Return how long a first look may take when its caller wants to follow for so long; None has no end."""
    if follow_for_seconds is None:
        return FIRST_LOOK_SECONDS_MAX
    return min(FIRST_LOOK_SECONDS_MAX, max(FIRST_LOOK_SECONDS_MIN, follow_for_seconds))


async def look_first(
    context: Context, *, seconds: float = FIRST_LOOK_SECONDS_MAX, halted: anyio.Event | None = None
) -> Looked:
    """Ask one account what it has of a run's lines, and record what it shows.

    Args:
        context: the account, and the run that is about to be paid.
        seconds: how long it may take in all; see `seconds_allowed`.
        halted: set when nobody waits for it any more.

    Raises:
        JournalError: the journal failed.
    """
    if context.provider.traits.look_up is LookUpKind.NONE:
        return Looked()
    found = Looked(
        f"It took longer than {seconds:,.0f} seconds. Run the same command again, or allow more with --follow-for."
    )
    async with anyio.create_task_group() as tasks:

        async def watch(event: anyio.Event) -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        if halted is not None:
            tasks.start_soon(watch, halted)
        with anyio.move_on_after(seconds):
            found = await _FirstLook(context).look()
        tasks.cancel_scope.cancel()
    return Looked("Stopped as asked.", Brake.ASKED) if halted is not None and halted.is_set() else found


class _FirstLook:
    """One account's first look."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._gone_on = False

    async def look(self) -> Looked:
        """Look until it came to its end once, or was tried often enough."""
        self._context.waiting("Asking the provider first what it already has.")
        for pause_seconds in PAUSES_SECONDS:
            found, wait_seconds = await self._try()
            if not found.problem or found.brake is Brake.CREDENTIALS:
                return found
            self._context.waiting(f"{found.problem} Nothing is sent before it answers.")
            await anyio.sleep(max(pause_seconds, wait_seconds))
        return (await self._try())[0]

    async def _try(self) -> tuple[Looked, float]:
        """Look once; return what came of it, and how long the provider asks us to wait before the next try."""
        try:
            async for results in self._look_up_results():
                # An absence releases nothing here: following asks for that, and takes its time.
                shown = [result for result in results if result.receipt.state is not State.READY]
                await self._context.reconcile(shown)
        except ProviderError as error:
            asked_seconds = error.retry_after_seconds if isinstance(error, RefusedError) else None
            brake = Brake.CREDENTIALS if error.brake is Brake.CREDENTIALS else Brake.PROVIDER_DOWN
            return Looked(str(error), brake), min(asked_seconds or 0.0, ASKED_LONGER_SECONDS_MAX)
        except JournalError:
            raise
        except Exception as error:
            # Its text could hold anything the provider sent, so only its kind is told.
            logger.error("the look-up of account %s failed with %s", self._context.account, type(error).__name__)
            return Looked("The look-up failed in a way that this program does not expect; this is a fault in it."), 0.0
        return Looked(), 0.0

    async def _look_up_results(self) -> AsyncIterator[Sequence[LookUpResult]]:
        kind = self._context.provider.traits.look_up
        if kind is LookUpKind.SWEEP:
            since = await self._context.journal.may_be_sent_since(self._context.run_id)
            since = None if since is None else since - FIRST_LOOK_MARGIN_SECONDS
            async for results in self._context.look_up((), since):
                yield results
            return
        async for results in self._asked(self._once_sent()):
            yield results
        if kind is LookUpKind.EACH:
            async for samples in self._samples():
                asked = {query.key for query in samples}
                async for results in self._context.look_up(samples):
                    # Remembered over all tries: what came to light is held by then, and no longer among the samples.
                    self._gone_on |= any(one.key in asked and one.receipt.state is not State.READY for one in results)
                    yield results
                if self._gone_on:
                    break
        if self._gone_on:
            async for results in self._asked(self._open(Ready.ALL)):
                yield results

    async def _asked(self, pages: AsyncIterator[Sequence[Query]]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Look up all of these that the provider can be asked about."""
        mute = 0
        async for page in pages:
            queries = self._context.askable(page)
            mute += len(page) - len(queries)
            if queries:
                async for results in self._context.look_up(queries):
                    yield results
        if mute:
            self._context.waiting(
                f"{mute} payouts that may have been sent before have no reference of the provider's, so it cannot be "
                "asked about them. What is unknown of these is not sent."
            )

    async def _once_sent(self) -> AsyncIterator[Sequence[Query]]:
        """Yield what this journal knows was sent: what is open, or came back, and what an earlier run sent of it."""
        async for queries in self._open(Ready.ONCE_SENT):
            yield queries
        journal, run_id, account = self._context.journal, self._context.run_id, self._context.account
        after, going_on = 0, True
        while going_on:
            queries, after = await journal.former_queries(run_id, account, QUERIES_BATCH, after)
            if queries:
                yield queries
            going_on = after > 0

    async def _open(self, ready: Ready) -> AsyncIterator[Sequence[Query]]:
        """Yield what is open, and that part of what is about to be sent."""
        journal, run_id, account = self._context.journal, self._context.run_id, self._context.account
        after, going_on = 0, True
        while going_on:
            queries, after = await journal.open_queries(run_id, account, QUERIES_BATCH, after, ready=ready)
            if queries:
                yield queries
            going_on = after > 0

    async def _samples(self) -> AsyncIterator[Sequence[Query]]:
        """Yield, chunk by chunk, what shows whether anything that was never sent here was sent all the same.

        Of each lane the first chunks that are ready, as many as may be on the wire at once, and one at each double
        distance behind them.
        """
        journal, run_id = self._context.journal, self._context.run_id
        at_once = max(CHUNKS_AT_ONCE_MIN, self._context.provider.traits.concurrency)
        for lane in sorted({tally.lane for tally in await journal.tally(run_id)}):
            if lane.account != self._context.account:
                continue
            chunks = await journal.ready(run_id, lane, 0, at_once)
            distance = at_once
            while chunks:
                for chunk in chunks:
                    yield _queries_of(chunk)
                chunks = await journal.ready(run_id, lane, chunks[-1].chunk_id + distance, 1)
                distance *= 2


def _queries_of(chunk: ReadyChunk) -> Sequence[Query]:
    """Return what to ask about a chunk as if it were sent now: nothing is believed absent for its age."""
    present = clock.moment()
    return [Query(key, "", State.READY, present, payout) for key, payout in zip(chunk.keys, chunk.payouts, strict=True)]
