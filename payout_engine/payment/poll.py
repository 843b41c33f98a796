"""Follow: ask the provider what became of open payouts, until each has its verdict or asking no longer helps.

Where the provider lists its transfers, one sweep serves everything that is open; where it has to be asked one by one,
the open payouts are walked page by page, and where it knows its own references alone, only those that have one. What a
look-up does not show is asked about by sending it again, where the provider's key allows that. The intervals grow while
nothing changes. Age never turns an unknown payout into a failed one: once it has been looked for long enough, it is
left for a person, and so is at once what cannot be asked about in any way. `run.py` runs one follower per account.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

import anyio
import msgspec

from payout_engine.domain import clock
from payout_engine.domain.errors import Brake, JournalError, ProviderError
from payout_engine.domain.limits import (
    LIST_WHOLE_SECONDS,
    LISTED_IN_VAIN_FREE,
    LISTED_IN_VAIN_PER_MINUTE,
    LOOK_BACK_MARGIN_SECONDS,
    QUERIES_BATCH,
)
from payout_engine.domain.model import LookUpResult, Query, Tally
from payout_engine.domain.states import State
from payout_engine.payment.callbacks import CALLBACKS_SECONDS, callback_reader
from payout_engine.payment.context import Context
from payout_engine.ports import observer
from payout_engine.ports.provider import LookUpKind

logger = logging.getLogger(__name__)


class FollowPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long to ask.

    Attributes:
        first_seconds: before the first look-up, and again after everything has been sent.
        growth: each interval without news is this much longer than the last.
        longest_seconds: the longest interval.
        busy_share: a look-up that takes long is followed by a pause at least this many times as long.
        unknown_patience_seconds: how long payouts without an answer are looked for once all else has settled. A look-up
            that fails has looked for nobody, so it starts anew with each of them.
        patiences_max: but it ends after so many times as long without news, however many look-ups fail: then a person
            has to know. With the usual five minutes that is twenty, longer than a provider is away for a restart.
    """

    first_seconds: float = 1.0
    growth: float = 1.6
    longest_seconds: float = 60.0
    busy_share: float = 4.0
    unknown_patience_seconds: float = 300.0
    patiences_max: float = 4.0


class Found(msgspec.Struct, frozen=True):
    """What one look-up came to: how many payouts moved, and what went wrong, or an empty text.

    With it, how many payouts were then asked about by sending them again; those of them that moved are counted too.
    """

    changed: int
    problem: str
    asked: int = 0


Resend = Callable[[float], Awaitable[tuple[int, int]]]
"""Asks again about what has been unknown since then, by sending it; returns how many payouts it asked about, and how
many of them moved."""


class Follower:
    """Follows one account's open payouts of one run.

    Attributes:
        account: the account's name.
        sent: set by the owner when nothing more will be sent, so that the follower may end.
        refused: why the account's key was not accepted while following, or is not the one that was meant; or empty.
        gave_up: True when it ended because look-ups kept failing, so that nobody has looked for what is unknown.

    Args:
        context: the account and the run.
        policy: how often and how long to ask.
        resend: asks by sending again; None where the provider's key does not allow that, or nothing may be sent.
    """

    def __init__(self, context: Context, policy: FollowPolicy, resend: Resend | None = None) -> None:
        self.sent = anyio.Event()
        self.refused = ""
        self.gave_up = False
        self.account = context.account
        self._context = context
        self._journal = context.journal
        self._provider = context.provider
        self._run_id = context.run_id
        self._policy = policy
        self._resend = resend
        self._asking_seconds = policy.first_seconds
        self._not_before = 0.0
        self._reading = _Reading()
        self._callbacks = callback_reader(context)

    async def run(self) -> None:
        """Return when nothing is open, or when all that is open is unknown and has been looked for long enough."""
        if self._provider.traits.look_up is not LookUpKind.NONE:
            await self._run()
            await self._tell_mute()
            return
        if self._resend is None:
            await self.sent.wait()
            return
        await self._run_blind()

    async def _tell_mute(self) -> None:
        """Say what waits for a person because the provider can only be asked by its own reference."""
        if self._provider.traits.look_up is LookUpKind.REFERENCE:
            count = (await self._mute()).total()
            if count:
                self._context.waiting(
                    f"{count} payouts have no reference of the provider's, so it cannot be asked what became of them: "
                    "they wait for a person."
                )

    async def _run_blind(self) -> None:
        """Ask only by sending again, at growing intervals, while there is something that may be asked about."""
        alone_since = anyio.current_time()
        while True:
            await self._pause(self._asking_seconds)
            everything_sent = self.sent.is_set()
            found = await self._again(Found(0, ""), clock.now())
            if found.changed or not everything_sent:
                alone_since = anyio.current_time()
            over = anyio.current_time() - alone_since >= self._policy.unknown_patience_seconds
            if everything_sent and (over or not found.asked):
                return

    async def _run(self) -> None:
        pause_seconds = interval_seconds = self._policy.first_seconds
        looked_since = alone_since = None
        while not self.refused:
            await self._pause(pause_seconds)
            everything_sent = self.sent.is_set()
            began_at, started_at = clock.now(), anyio.current_time()
            found = await self.look_up(pause_seconds)
            took_seconds = anyio.current_time() - started_at
            if not found.problem and anyio.current_time() >= self._not_before:
                found = await self._again(found, began_at)
            accepted, unknown = await self._open()
            if self.sent.is_set() and accepted == 0:
                present = anyio.current_time()
                if looked_since is None or alone_since is None or found.changed:
                    looked_since = alone_since = present
                elif found.problem:
                    looked_since = present
                patience_seconds = self._policy.unknown_patience_seconds
                if unknown == 0 or present - looked_since >= patience_seconds:
                    return
                self.gave_up = present - alone_since >= patience_seconds * self._policy.patiences_max
                if self.gave_up:
                    return
            if self.sent.is_set() and not everything_sent:
                # The last payouts were sent while we asked; soon is when most of them settle.
                pause_seconds = interval_seconds = self._policy.first_seconds
                continue
            if not found.changed:
                interval_seconds = min(interval_seconds * self._policy.growth, self._policy.longest_seconds)
            interval_seconds = max(interval_seconds, took_seconds * self._policy.busy_share)
            pause_seconds = max(interval_seconds, self._reading.pause_seconds())
            if looked_since is not None:
                # Who waits for nothing but what is unknown is not kept waiting for longer than it is looked for.
                pause_seconds = min(pause_seconds, max(self._policy.first_seconds, self._patience_left(looked_since)))

    def _patience_left(self, looked_since: float) -> float:
        return self._policy.unknown_patience_seconds - (anyio.current_time() - looked_since)

    async def _pause(self, interval_seconds: float) -> None:
        """Sleep, but wake early once when the last payout has been sent, and act on what the provider calls to say.

        Here, between two look-ups: a slower one beside would bring older news. Once nothing is open it is over.
        """
        if self._callbacks is None:
            await self._sleep(interval_seconds)
            return
        until, everything_sent = anyio.current_time() + interval_seconds, self.sent.is_set()
        while True:
            await self._sleep(min(CALLBACKS_SECONDS, max(0.0, until - anyio.current_time())))
            changed = await self._callbacks.act()
            if changed and self.sent.is_set() and not any(await self._open()):
                return
            if anyio.current_time() >= until or self.sent.is_set() is not everything_sent:
                return

    async def _sleep(self, interval_seconds: float) -> None:
        """Sleep, but wake early once when the last payout has been sent."""
        if self.sent.is_set():
            await anyio.sleep(interval_seconds)
            return
        with anyio.move_on_after(interval_seconds):
            await self.sent.wait()
            await anyio.sleep(min(interval_seconds, self._policy.first_seconds))

    async def _again(self, found: Found, before: float) -> Found:
        """Ask by sending again what a look-up that succeeded did not show; what was sent since it began comes later."""
        if self._resend is None:
            return found
        asked, changed = await self._resend(before)
        if asked:
            # At intervals of its own, which grow also while others settle: each repetition is a paying call.
            self._asking_seconds = min(self._asking_seconds * self._policy.growth, self._policy.longest_seconds)
            self._not_before = anyio.current_time() + self._asking_seconds
        return Found(found.changed + changed, found.problem, asked)

    async def look_up(self, next_in_seconds: float = 0.0) -> Found:
        """Ask once about everything that is open, and record what is shown. A failure is told, not raised."""
        changed, problem = 0, ""
        try:
            if self._provider.traits.look_up is LookUpKind.SWEEP:
                changed = await self._sweep()
            else:
                async for results in self._look_up_each():
                    changed += len((await self._context.reconcile(results)).outcomes)
        except ProviderError as error:
            problem = str(error)
            if error.brake is Brake.CREDENTIALS:
                self.refused = problem
        except JournalError:
            raise
        except Exception as error:
            # Its text could hold anything the provider sent, so only its kind is told.
            logger.error("the look-up of account %s failed with %s", self.account, type(error).__name__)
            problem = "The look-up failed in a way that this program does not expect; this is a fault in payout_engine."
        self._context.notify(observer.LookedUp(self.account, changed, problem, next_in_seconds))
        return Found(changed, problem)

    async def _sweep(self) -> int:
        """Read as much of the provider's list as the open payouts need; return how many payouts moved.

        That is until each of them was shown; else back to before the oldest of them was sent; and the whole list only
        when nothing but unknown ones is left, rarely for what stays open, and for who follows a run with nothing open.
        To read less proves nothing, so it can only delay good news.

        Raises:
            ProviderError: the list failed.
        """
        accepted, unknown = await self._open(sending=False)
        if not accepted + unknown and not self.sent.is_set():
            return 0
        oldest = await self._journal.open_since(self._run_id, self.account)
        alone = self.sent.is_set() and not accepted
        since = None if oldest is None or self._reading.is_whole_due(oldest, alone=alone) else oldest
        queries, _ = await self._journal.open_queries(self._run_id, self.account, QUERIES_BATCH)
        changed = shown = open_shown = 0
        strange = False
        bound = None if since is None else since - LOOK_BACK_MARGIN_SECONDS
        async with aclosing(self._context.look_up(queries, bound)) as pages:
            async for page in pages:
                results = await self._without_stale_absence(page, queries, 0)
                reconciled = await self._context.reconcile(results)
                changed += len(reconciled.outcomes)
                shown += len(results)
                open_shown += reconciled.open_shown
                strange |= any(result.conflict for result in results)
                # What contradicts is heard to the end: the provider may have more to say of it.
                if open_shown >= accepted + unknown > 0 and not strange:
                    break
        self._reading.count(shown, changed, whole=since is None)
        return changed

    async def _look_up_each(self) -> AsyncIterator[Sequence[LookUpResult]]:
        """Yield what the provider shows of what is open, page by page.

        Raises:
            ProviderError: a page failed; the pages behind it were asked for all the same.
        """
        after = 0
        failed: ProviderError | None = None
        while True:
            start = after
            page, after = await self._journal.open_queries(self._run_id, self.account, QUERIES_BATCH, start)
            queries = self._context.askable(page)
            if queries:
                try:
                    async for results in self._context.look_up(queries):
                        yield await self._without_stale_absence(results, queries, start)
                except ProviderError as error:
                    failed = error
            if not after or (failed is not None and failed.brake):
                break
        if failed is not None:
            raise failed

    async def _without_stale_absence(
        self, results: Sequence[LookUpResult], queries: Sequence[Query], start: int
    ) -> Sequence[LookUpResult]:
        """Leave out proofs of absence that are about an earlier dispatch than a payout's last one.

        A look-up takes its time. A payout that was proved absent, or that a person released, may have been sent again
        since the question was asked; the answer, or a repetition of it, says nothing of that.
        """
        if all(result.receipt.state is not State.READY for result in results):
            return results
        asked = {query.key: query.sent for query in queries}
        present, _ = await self._journal.open_queries(self._run_id, self.account, QUERIES_BATCH, start)
        proved = {query.key for query in present if asked.get(query.key) == query.sent}
        return [result for result in results if result.receipt.state is not State.READY or result.key in proved]

    async def _open(self, *, sending: bool = True) -> tuple[int, int]:
        """Return how many payouts of the account are accepted (or still being sent), and how many unknown.

        What cannot be asked about is left out: nobody waits for it.
        """
        tallies = [tally for tally in await self._journal.tally(self._run_id) if tally.lane.account == self.account]
        mute = Counter[State]()
        if self._provider.traits.look_up is LookUpKind.REFERENCE and self._resend is None:
            mute = await self._mute()
        accepted = _count(tallies, State.ACCEPTED) + (_count(tallies, State.SENDING) if sending else 0)
        return accepted - mute[State.ACCEPTED], _count(tallies, State.UNKNOWN) - mute[State.UNKNOWN]

    async def _mute(self) -> Counter[State]:
        """Return how many open payouts have no reference of the provider's, without which it cannot be asked."""
        found, after, going_on = Counter[State](), 0, True
        while going_on:
            queries, after = await self._journal.open_queries(self._run_id, self.account, QUERIES_BATCH, after)
            found.update(query.state for query in queries if not query.provider_reference)
            going_on = after > 0
        return found


def _count(tallies: Sequence[Tally], state: State) -> int:
    return sum(tally.count for tally in tallies if tally.state is state)


class _Reading:
    """How much of a list the look-ups of one account may read: what they are shown without news is rationed."""

    def __init__(self) -> None:
        self._in_vain = -float(LISTED_IN_VAIN_FREE)
        self._counted_at = anyio.current_time()
        self._whole_at = 0.0
        self._alone = self._looked_alone = False

    def is_whole_due(self, oldest_at: float, *, alone: bool) -> bool:
        """Tell whether the whole list is to be read now.

        Args:
            oldest_at: when the oldest open payout was sent, in seconds since 1970.
            alone: whether nothing but unknown payouts is left to ask about. That alone is worth it once.
        """
        self._alone, self._looked_alone = alone, alone and self._looked_alone
        late = clock.now() - oldest_at >= LIST_WHOLE_SECONDS and anyio.current_time() >= self._whole_at
        return late or (alone and not self._looked_alone)

    def count(self, shown: int, changed: int, *, whole: bool) -> None:
        """Take in what one look-up was shown, and how much of it was news."""
        present = anyio.current_time()
        if whole:
            self._looked_alone = self._alone
            self._whole_at = present + max(LIST_WHOLE_SECONDS, 60.0 * shown / LISTED_IN_VAIN_PER_MINUTE)
            return
        self._in_vain -= (present - self._counted_at) * LISTED_IN_VAIN_PER_MINUTE / 60.0
        self._in_vain = max(self._in_vain, -float(LISTED_IN_VAIN_FREE)) + shown - changed
        self._counted_at = present

    def pause_seconds(self) -> float:
        """Return how long to wait at least before the next look-up."""
        return max(0.0, self._in_vain) * 60.0 / LISTED_IN_VAIN_PER_MINUTE
