"""Payment: pay an approved run from the journal, account by account, and follow it to its end.

Called by the engine with the leases held. Everything it needs to know after a crash is in the journal: unfinished
dispatches become `unknown` first, then what is `ready` is sent while what is open is followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import msgspec

from payout_engine import observe
from payout_engine.errors import Brake, JournalError
from payout_engine.lifecycle import OPEN, State
from payout_engine.model import REJECTED_LANE, Lane
from payout_engine.pipeline.dispatch import Dispatcher, Publish, Stop
from payout_engine.pipeline.follow import Follower, FollowPolicy
from payout_engine.ports import Journal, LookUpKind, Provider
from payout_engine.throttle import Pace

UNFINISHED = frozenset({State.READY, State.SENDING, State.ACCEPTED})
"""While any payout is in one of these, its run is not finished."""


class Payer(msgspec.Struct, frozen=True):
    """One account, connected: who pays, and how fast."""

    account: str
    provider: Provider
    pace: Pace


class Ending(msgspec.Struct, frozen=True):
    """How paying ended.

    Attributes:
        stops: the brakes that stopped lanes or accounts.
        timed_out: True when the follow-up time ended with payouts still open.
        interrupted: True when a person asked to stop.
    """

    stops: Sequence[Stop] = ()
    timed_out: bool = False
    interrupted: bool = False


class Payment:
    """The paying of one run.

    Args:
        journal: the durable memory.
        run_id: an approved run.
        payers: the connected accounts, by name; every lane's account must be among them.
        policy: how to follow.
        follow_for_seconds: how long to follow after the last payout was sent; 0 does not wait, None has no end.
        send: False only follows.
        resumed: True when the run was paid on before: the provider is asked first what it already has.
        publish: told of every outcome as it happens.
        tell: told of what happens.
    """

    def __init__(
        self,
        journal: Journal,
        run_id: str,
        payers: Mapping[str, Payer],
        policy: FollowPolicy,
        *,
        follow_for_seconds: float | None,
        send: bool,
        resumed: bool,
        publish: Publish,
        tell: observe.Watch,
    ) -> None:
        self._journal = journal
        self._run_id = run_id
        self._payers = payers
        self._policy = policy
        self._follow_for_seconds = follow_for_seconds
        self._send = send
        self._resumed = resumed
        self._publish = publish
        self._tell = tell
        self._dispatchers: list[Dispatcher] = []
        self._stops: list[Stop] = []
        self._asked = anyio.Event()
        self._timed_out = False
        self._failure: JournalError | None = None
        self._unsent: set[str] = set()

    def stop(self) -> None:
        """Send nothing more; finish what is on the wire and stop following. Safe at any moment, and more than once."""
        self._asked.set()
        for dispatcher in self._dispatchers:
            dispatcher.stop(None, Brake.ASKED, "Stopped as asked: nothing more will be sent.")

    async def run(self) -> Ending:
        """Pay and follow until nothing moves any more.

        Raises:
            JournalError: the journal failed. What was on the wire has landed; what could not be recorded of it is
                found again by `recover` and look-ups.
        """
        await self._publish(await self._journal.recover(self._run_id))
        tallies = await self._journal.tally(self._run_id)
        lanes = sorted({tally.lane for tally in tallies} - {REJECTED_LANE})
        self._unsent = {tally.lane.account for tally in tallies if tally.state is State.READY and tally.count}
        async with anyio.create_task_group() as accounts:
            for name in sorted({lane.account for lane in lanes}):
                of_account = [lane for lane in lanes if lane.account == name]
                accounts.start_soon(self._account, self._payers[name], of_account)
        for stop in self._stops:
            await self._journal.note(self._run_id, f"brake_{stop.brake}", f"{_where(stop)}: {stop.message}")
        if self._failure is not None:
            raise self._failure
        states = {tally.state for tally in await self._journal.tally(self._run_id) if tally.count}
        timed_out = self._timed_out and bool(states & OPEN)
        if not states & UNFINISHED and not timed_out and not self._asked.is_set():
            await self._journal.finish(self._run_id)
        return Ending(self._stops, timed_out, self._asked.is_set())

    async def _account(self, payer: Payer, lanes: Sequence[Lane]) -> None:
        """Send and follow side by side; after the last send, follow for as long as is allowed."""
        follower = Follower(
            self._journal, payer.provider, self._run_id, payer.account, self._policy, self._publish, self._tell
        )
        async with anyio.create_task_group() as both:
            if self._resumed and self._may_send(payer.account):
                await self._ask_first(payer, follower)
            both.start_soon(self._follow, follower)
            if self._may_send(payer.account):
                await self._dispatch(payer, lanes)
            follower.sent.set()

    async def _ask_first(self, payer: Payer, follower: Follower) -> None:
        """Look before sending again: a journal that was restored from a copy does not know what was sent since.

        A transfer that the provider shows for a payout that is `ready` here holds that payout for a person.
        """
        if payer.provider.traits.look_up is not LookUpKind.SWEEP:
            return
        try:
            found = await follower.look_up()
        except JournalError as error:
            self._fail(error)
            return
        if found.problem:
            brake = Brake.CREDENTIALS if follower.refused else Brake.PROVIDER_DOWN
            message = f"Nothing was sent, because the provider could not say what it already has: {found.problem}"
            self._stops.append(Stop(payer.account, None, brake, message))
            self._tell(observe.Braked(payer.account, "", brake, message))

    def _may_send(self, account: str) -> bool:
        braked = any(stop.account == account and stop.lane is None for stop in self._stops)
        asked = self._asked.is_set() or self._failure is not None
        return self._send and account in self._unsent and not asked and not braked

    def _fail(self, error: JournalError) -> None:
        """Remember that the journal failed and stop politely: what is on the wire must still be heard."""
        self._failure = self._failure or error
        self.stop()

    async def _dispatch(self, payer: Payer, lanes: Sequence[Lane]) -> None:
        dispatcher = Dispatcher(
            self._journal, payer.provider, self._run_id, payer.account, lanes, payer.pace, self._publish, self._tell
        )
        self._dispatchers.append(dispatcher)
        try:
            await dispatcher.run()
        except JournalError as error:
            self._fail(error)
        self._stops += [stop for stop in dispatcher.stops if stop.brake is not Brake.ASKED]

    async def _follow(self, follower: Follower) -> None:
        """Follow beside the dispatcher, then for the time that is allowed, unless a person asks to stop."""
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(self._limit, follower, waiting.cancel_scope)
            try:
                await follower.run()
            except JournalError as error:
                self._fail(error)
            waiting.cancel_scope.cancel()
        if follower.refused and all(stop.account != follower.account for stop in self._stops):
            self._stops.append(Stop(follower.account, None, Brake.CREDENTIALS, follower.refused))

    async def _limit(self, follower: Follower, scope: anyio.CancelScope) -> None:
        """End the following when its time is over or a person asks; never before everything was sent."""
        await follower.sent.wait()
        if self._follow_for_seconds is None:
            await self._asked.wait()
        else:
            with anyio.move_on_after(self._follow_for_seconds):
                await self._asked.wait()
        self._timed_out = self._timed_out or not self._asked.is_set()
        scope.cancel()


def _where(stop: Stop) -> str:
    return f"{stop.account}/{stop.lane.name}" if stop.lane else stop.account
