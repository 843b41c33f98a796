"""Payment: pay an approved run from the journal, account by account, and follow it to its end.

Called by the engine with the leases held. Everything it needs to know after a crash is in the journal: unfinished
dispatches become `unknown` first, then what is `ready` is sent while what is open is followed. Beside that it heeds
what people ask from other processes, and the brakes of `stop_rules.py`; both stop politely.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import anyio
import msgspec
from anyio.abc import TaskGroup

from payout_engine.domain.ending import Ending, Stop
from payout_engine.domain.errors import Brake
from payout_engine.domain.facts import CanaryPassed, Stopped
from payout_engine.domain.model import REJECTED_LANE, ControlKind, ControlRequest, Lane, Outcome
from payout_engine.domain.states import OPEN, State
from payout_engine.payment.context import Context, Publish
from payout_engine.payment.dispatch import Dispatcher
from payout_engine.payment.first_send import FirstSend
from payout_engine.payment.paid import ask_about_paid
from payout_engine.payment.poll import Follower, FollowPolicy, Resend
from payout_engine.payment.rate_limiter import Pace
from payout_engine.payment.resend import Resender, key_allows_resend
from payout_engine.payment.stop_rules import Canary, Failures, canary_of
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal
from payout_engine.ports.provider import Provider

UNFINISHED = frozenset({State.READY, State.SENDING, State.ACCEPTED})
"""While any payout is in one of these, its run is not finished."""


REQUESTS_SECONDS = 0.5
"""How often it is asked whether a person wants something."""

CANCEL_CHUNKS = 64
"""Chunks withdrawn in one go, so that what is on the wire need not wait long for the journal."""


class Payer(msgspec.Struct, frozen=True):
    """One account, connected: who pays, how fast, and which balance each of its lanes draws on."""

    account: str
    provider: Provider
    pace: Pace
    balances: Mapping[str, str] = {}


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is paid.

    Attributes:
        policy: how to follow.
        follow_for_seconds: how long to follow after the last payout was sent; 0 does not wait, None has no end.
        send: False only follows.
        uncleared: accounts that must not send, since it is not known what they sent before; each with the brake.
        max_failure_share: a lane stops when more than this share of its settled payouts failed.
        canary: how many payouts of each lane are sent and waited for before the rest; 0 for none.
        ask_paid: whether it is also asked if what is paid was taken back since.
    """

    policy: FollowPolicy
    follow_for_seconds: float | None
    send: bool
    uncleared: Mapping[str, Stop] = {}
    max_failure_share: float = 1.0
    canary: int = 0
    ask_paid: bool = False


class Payment:
    """The paying of one run.

    Args:
        journal: the durable memory.
        run_id: an approved run.
        payers: the connected accounts, by name; every lane's account must be among them.
        terms: how it is paid.
        publish: told of every outcome as it happens.
        notify: told of what happens.
    """

    def __init__(
        self,
        journal: Journal,
        run_id: str,
        payers: Mapping[str, Payer],
        terms: Terms,
        publish: Publish,
        notify: observer.Observer,
    ) -> None:
        self._journal = journal
        self._run_id = run_id
        self._payers = payers
        self._terms = terms
        self._send = terms.send
        self._listener = publish
        self._notify = notify
        self._failures = Failures(terms.max_failure_share)
        self._dispatchers: dict[str, Dispatcher] = {}
        self._wires = {account: anyio.Lock() for account in payers}
        self._stops: list[Stop] = []
        self._asked = anyio.Event()
        self._interrupted = False
        self._cancel: ControlRequest | None = None
        self._timed_out = False
        self._failure: Exception | None = None
        self._unsent: set[str] = set()

    def stop(self) -> None:
        """Send nothing more; finish what is on the wire and stop following. Safe at any moment, and more than once."""
        self._interrupted = True
        self._quiet()

    def _quiet(self) -> None:
        """Send nothing more and wait for nothing more."""
        self._asked.set()
        self._halt("Stopped as asked: nothing more will be sent.")

    def _halt(self, message: str) -> None:
        """Send nothing more."""
        for dispatcher in self._dispatchers.values():
            dispatcher.stop(None, Brake.ASKED, message)

    async def run(self) -> Ending:
        """Pay and follow until nothing moves any more.

        Raises:
            JournalError: the journal failed. What was on the wire has landed; what could not be recorded of it is
                found again by `recover` and look-ups.
        """
        await self._publish(await self._journal.recover(self._run_id))
        tallies = await self._journal.tally(self._run_id)
        lanes = sorted({tally.lane for tally in tallies} - {REJECTED_LANE})
        self._unsent = {tally.lane.account for tally in tallies if tally.state is State.READY}
        ready = sum(tally.count for tally in tallies if tally.state is State.READY)
        self._notify(observer.Begun(ready, sum(tally.count for tally in tallies if tally.state in OPEN)))
        for stop in self._terms.uncleared.values():
            # Who asked to stop meanwhile is heard below, or was already.
            if stop.brake is not Brake.ASKED:
                self._stop_for(stop)
        await self._heed()
        async with anyio.create_task_group() as listening:
            listening.start_soon(self._listen)
            async with anyio.create_task_group() as accounts:
                for name in sorted({lane.account for lane in lanes}):
                    of_account = [lane for lane in lanes if lane.account == name]
                    accounts.start_soon(self._safely, partial(self._account, self._payers[name], of_account))
            listening.cancel_scope.cancel()
        await self._withdraw()
        return await self._end()

    async def _end(self) -> Ending:
        """Note the brakes and say how paying ended."""
        tallies = await self._journal.tally(self._run_id)
        ready = {tally.lane for tally in tallies if tally.state is State.READY}
        # A lane that had sent everything when it was validated by how its payouts ended was not stopped.
        stops = [stop for stop in self._stops if stop.brake not in _COUNTED or stop.lane in ready]
        for stop in stops:
            await self._journal.add_fact(self._run_id, Stopped(stop))
        if self._failure is not None:
            raise self._failure
        states = {tally.state for tally in tallies}
        timed_out = self._timed_out and bool(states & OPEN)
        if not states & UNFINISHED and not timed_out and not self._asked.is_set():
            await self._journal.finish(self._run_id)
        return Ending(stops, timed_out, self._interrupted)

    # ----------------------------------------------------------------------------------------------- people and brakes

    async def _listen(self) -> None:
        """Ask the journal now and then what people want."""
        while True:
            await anyio.sleep(REQUESTS_SECONDS)
            try:
                await self._heed()
                await self._withdraw()
            except Exception as error:
                self._fail(error)
                return

    async def _heed(self) -> None:
        """Take up what people ask: to pause, or to send nothing more at all."""
        for request in await self._journal.requests(self._run_id):
            if request.kind is ControlKind.CANCEL and self._cancel is None:
                self._cancel = request
                self._notify(observer.Waiting("", f"Cancelled by {request}. What was sent is followed to its end."))
                self._halt("Cancelled: nothing more will be sent.")
            elif request.kind is ControlKind.PAUSE and self._send and not self._asked.is_set():
                self._stop_for(Stop("", None, Brake.ASKED, f"Paused by {request}."))
                self._quiet()
            else:
                continue
            await self._journal.acknowledge(self._run_id, request.kind, False)

    async def _withdraw(self) -> None:
        """Withdraw what was never sent, if that is asked, once nothing can come back from the wire any more."""
        if self._cancel is None or self._dispatchers:
            return
        after, count = 0, 0
        with anyio.CancelScope(shield=True):
            while True:
                outcomes, after = await self._journal.cancel(self._run_id, self._cancel, after, CANCEL_CHUNKS)
                await self._publish(outcomes)
                count += len(outcomes)
                if not after:
                    break
            await self._journal.note(self._run_id, "cancelled", f"{count} payouts withdrawn by {self._cancel}")
            await self._journal.acknowledge(self._run_id, ControlKind.CANCEL, True)
        self._cancel, self._send = None, False

    async def _publish(self, outcomes: Sequence[Outcome]) -> None:
        """Tell the caller, and stop the lanes in which too many fail."""
        for (account, name), why in self._failures.count(outcomes).items():
            dispatcher = self._dispatchers.get(account)
            if dispatcher is not None:
                for lane in [lane for lane in dispatcher.lanes if lane.name == name]:
                    dispatcher.stop(lane, Brake.FAILURES, why)
        await self._listener(outcomes)

    def _stop_for(self, stop: Stop) -> None:
        self._stops.append(stop)
        self._notify(observer.Braked(stop.account, stop.lane.name if stop.lane else "", stop.brake, stop.message))

    # --------------------------------------------------------------------------------------------------- one account

    def _context(self, payer: Payer) -> Context:
        return Context(
            self._journal, payer.provider, self._run_id, payer.account, self._publish, self._notify, payer.balances
        )

    async def _account(self, payer: Payer, lanes: Sequence[Lane]) -> None:
        """Send and follow side by side; after the last send, follow for as long as is allowed."""
        async with anyio.create_task_group() as both:
            follower = Follower(self._context(payer), self._terms.policy, self._resender(payer, lanes, both))
            both.start_soon(self._follow, follower)
            if self._may_send(payer.account) and self._terms.canary:
                await self._safely(partial(self._send_canary, payer, lanes))
            if self._may_send(payer.account):
                stopped = {stop.lane for stop in self._stops}
                await self._dispatch(payer, [lane for lane in lanes if lane not in stopped])
            follower.sent.set()

    async def _send_canary(self, payer: Payer, lanes: Sequence[Lane]) -> None:
        """Send the first payouts of each lane and wait for them; a lane where one does not arrive stops."""
        done = (await self._journal.facts(self._run_id)).canary_done
        waiting = [lane for lane in lanes if lane not in done]
        tallies = await self._journal.tally(self._run_id)
        quota = {lane: canary_of(lane, tallies, self._terms.canary)[1] for lane in waiting}
        await self._dispatch(payer, waiting, quota)
        with anyio.move_on_after(self._terms.policy.unknown_patience_seconds):
            while waiting and self._may_send(payer.account):
                waiting = await self._check_canaries(waiting)
                if waiting:
                    with anyio.move_on_after(REQUESTS_SECONDS):
                        await self._asked.wait()
        if self._may_send(payer.account):
            for lane in waiting:
                self._stop_for(Stop(lane.account, lane, Brake.CANARY, _NO_ANSWER))

    async def _check_canaries(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Let lanes go on or stop them; return those of which nothing can be said yet."""
        tallies = await self._journal.tally(self._run_id)
        waiting: list[Lane] = []
        for lane in lanes:
            canary, left = canary_of(lane, tallies, self._terms.canary)
            if canary is Canary.PASSED:
                await self._journal.add_fact(self._run_id, CanaryPassed(lane))
            elif canary is Canary.FAILED:
                self._stop_for(Stop(lane.account, lane, Brake.CANARY, _NOT_WELL))
            elif canary is Canary.PENDING and (not left or all(stop.lane != lane for stop in self._stops)):
                waiting.append(lane)
        return waiting

    def _may_send(self, account: str) -> bool:
        return account in self._unsent and self._may_speak(account)

    def _may_speak(self, account: str) -> bool:
        """Whether any call that may move money is still allowed."""
        braked = any(stop.account == account and stop.lane is None for stop in self._stops)
        asked = self._asked.is_set() or self._cancel is not None
        return self._send and not asked and not braked and account not in self._terms.uncleared

    def _fail(self, error: Exception) -> None:
        """Remember what failed and stop politely: what is on the wire must still be heard, whatever it was."""
        self._failure = self._failure or error
        self._quiet()

    async def _safely(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do what runs beside calls on the wire: an error that left it would cut them off."""
        try:
            await work()
        except Exception as error:
            self._fail(error)

    async def _dispatch(self, payer: Payer, lanes: Sequence[Lane], quota: Mapping[Lane, int] | None = None) -> None:
        """Send what is ready in these lanes, or as much of it as `quota` allows."""
        context = self._context(payer)
        dispatcher = Dispatcher(context, FirstSend(context, quota), lanes, payer.pace)
        async with self._wires[payer.account]:
            if self._may_send(payer.account):
                await self._at_work(payer.account, dispatcher, dispatcher.run)

    async def _at_work(self, account: str, dispatcher: Dispatcher, work: Callable[[], Awaitable[None]]) -> None:
        """Let a dispatcher work, within reach of whoever wants it to stop. The account's wire is held meanwhile."""
        self._dispatchers[account] = dispatcher
        try:
            await self._safely(work)
        finally:
            del self._dispatchers[account]
        self._stops += [stop for stop in dispatcher.stops if stop.brake is not Brake.ASKED]
        dispatcher.stops.clear()

    def _resender(self, payer: Payer, lanes: Sequence[Lane], tasks: TaskGroup) -> Resend | None:
        """Return how to ask by sending again, or None where that would not be a way of asking."""
        if not self._send or not key_allows_resend(payer.provider.traits):
            return None
        resender = Resender(self._context(payer), lanes, payer.pace)

        async def resend(before: float) -> tuple[int, int]:
            landed = anyio.Event()
            # A task of its own: when the following ends, what is on the wire lands all the same.
            tasks.start_soon(self._resend, payer.account, resender, before, landed)
            try:
                await landed.wait()
            finally:
                if not landed.is_set():
                    resender.dispatcher.halt()
            return resender.asked, resender.changed

        return resend

    async def _resend(self, account: str, resender: Resender, before: float, landed: anyio.Event) -> None:
        """Give it a round, unless something is being sent: together they could exceed what may be on the wire."""
        resender.asked = resender.changed = 0
        wire, dispatcher = self._wires[account], resender.dispatcher
        if self._may_speak(account) and not wire.locked():
            async with wire:
                stopped = {stop.lane for stop in self._stops}
                dispatcher.lanes = [lane for lane in dispatcher.lanes if lane not in stopped]
                if self._may_speak(account):
                    await self._at_work(account, dispatcher, partial(resender.round, before))
        landed.set()

    async def _follow(self, follower: Follower) -> None:
        """Follow beside the dispatcher, then for the time that is allowed, unless a person asks to stop."""
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(self._limit, follower, waiting.cancel_scope)
            async with anyio.create_task_group() as asking:
                if self._terms.ask_paid:
                    asking.start_soon(self._safely, partial(self._ask_paid, follower.account))
                await self._safely(follower.run)
            waiting.cancel_scope.cancel()
        self._timed_out = self._timed_out or follower.gave_up
        if follower.refused:
            self._refuse_key(follower.account, follower.refused)

    async def _ask_paid(self, account: str) -> None:
        """Ask whether what is paid was taken back; a person learns when that could not be asked of all."""
        problem = "The time to follow was over before all of it was asked."
        try:
            await anyio.sleep(self._terms.policy.first_seconds)
            problem = await ask_about_paid(self._context(self._payers[account]))
        finally:
            if problem and not self._asked.is_set():
                self._stop_for(Stop(account, None, Brake.PROVIDER_DOWN, f"{_PAID_UNASKED} {problem}"))

    def _refuse_key(self, account: str, why: str) -> None:
        """Send nothing more with a key that a look-up found not to be accepted, or not to be the one that was meant."""
        if account in self._dispatchers:
            self._dispatchers[account].stop(None, Brake.CREDENTIALS, why)
        elif all(stop.account != account or stop.lane is not None for stop in self._stops):
            self._stops.append(Stop(account, None, Brake.CREDENTIALS, why))

    async def _limit(self, follower: Follower, scope: anyio.CancelScope) -> None:
        """End the following when its time is over or a person asks; never before everything was sent."""
        await follower.sent.wait()
        if self._terms.follow_for_seconds is None:
            await self._asked.wait()
        else:
            with anyio.move_on_after(self._terms.follow_for_seconds):
                await self._asked.wait()
        self._timed_out = self._timed_out or not self._asked.is_set()
        scope.cancel()


_COUNTED = frozenset({Brake.FAILURES, Brake.CANARY})
"""The brakes that look at how a lane's payouts ended."""

_PAID_UNASKED = "It is not known whether any of what is paid was taken back since; ask again."
_NOT_WELL = "Not every payout of the canary arrived. Look at them before the rest is sent."
_NO_ANSWER = "The canary's payouts have no final answer yet. Follow them, or look at them, before the rest is sent."
