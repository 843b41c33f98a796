"""Follow: ask the provider what became of open payouts, until each has its verdict or asking no longer helps.

Where the provider lists its transfers, one sweep serves everything that is open; where it has to be asked one by one,
the open payouts are walked page by page. What a look-up does not show is asked about by sending it again, where the
provider's key allows that. The intervals grow while nothing changes. Age never turns an unknown payout into a failed
one: once it has been looked for long enough, it is left for a person. `payment.py` runs one follower per account.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import anyio
import msgspec

from payout_engine.domain import clock
from payout_engine.domain.errors import Brake, JournalError, ProviderError
from payout_engine.domain.limits import QUERIES_BATCH
from payout_engine.domain.model import LookUpResult, Query, Tally
from payout_engine.domain.states import State
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

    async def run(self) -> None:
        """Return when nothing is open, or when all that is open is unknown and has been looked for long enough."""
        if self._provider.traits.look_up is not LookUpKind.NONE:
            await self._run()
            return
        if self._resend is None:
            await self.sent.wait()
            return
        await self._run_blind()

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
        interval_seconds = self._policy.first_seconds
        looked_since = alone_since = None
        while not self.refused:
            await self._pause(interval_seconds)
            everything_sent = self.sent.is_set()
            began_at, started_at = clock.now(), anyio.current_time()
            found = await self.look_up(interval_seconds)
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
                interval_seconds = self._policy.first_seconds
                continue
            if not found.changed:
                interval_seconds = min(interval_seconds * self._policy.growth, self._policy.longest_seconds)
            interval_seconds = max(interval_seconds, took_seconds * self._policy.busy_share)

    async def _pause(self, interval_seconds: float) -> None:
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
            async for results in self._look_up_results():
                changed += await self._context.reconcile(results)
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

    async def _look_up_results(self) -> AsyncIterator[Sequence[LookUpResult]]:
        """Yield what the provider shows: of everything in one sweep, or page by page of what is open.

        Raises:
            ProviderError: a page failed; the pages behind it were asked for all the same.
        """
        after = 0
        failed: ProviderError | None = None
        while True:
            start = after
            queries, after = await self._journal.open_queries(self._run_id, self.account, QUERIES_BATCH, start)
            sweep = self._provider.traits.look_up is LookUpKind.SWEEP
            if queries or sweep:
                try:
                    async for results in self._provider.look_up(queries):
                        yield await self._without_stale_absence(results, queries, start)
                except ProviderError as error:
                    failed = error
            if not after or sweep or (failed is not None and failed.brake):
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

    async def _open(self) -> tuple[int, int]:
        """Return how many payouts of the account are accepted (or still being sent), and how many unknown."""
        tallies = [tally for tally in await self._journal.tally(self._run_id) if tally.lane.account == self.account]
        return _count(tallies, State.ACCEPTED) + _count(tallies, State.SENDING), _count(tallies, State.UNKNOWN)


def _count(tallies: Sequence[Tally], state: State) -> int:
    return sum(tally.count for tally in tallies if tally.state is state)
