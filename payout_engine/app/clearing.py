"""What has to be clear before a run is sent: what the providers already have of it, and which lines repeat others.

Whatever may have been sent before is asked about first (`payment/first_look.py`): all accounts of a run that goes on,
and every account from which an earlier run sent lines that this run pays again. What that brings to light is compared
with the run, and held. Called by the engine with the leases of the run's accounts held, before anything is approved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

import anyio
import msgspec

from payout_engine.app.accounts import Accounts
from payout_engine.app.locks import holder
from payout_engine.domain.ending import Stop
from payout_engine.domain.errors import ConfigError, UnansweredError
from payout_engine.domain.model import Run
from payout_engine.domain.states import State
from payout_engine.intake.duplicates import hold_duplicates
from payout_engine.payment.context import Context, Publish
from payout_engine.payment.first_look import Looked, look_first
from payout_engine.payment.run import REQUESTS_SECONDS
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal


class Looking(msgspec.Struct, frozen=True):
    """How first looks are made.

    Attributes:
        publish: told of what a look-up changes in the run.
        notify: told of what happens.
        seconds: how long a look-up may take.
        halted: set when nobody waits for it any more.
    """

    publish: Publish
    notify: observer.Observer
    seconds: float
    halted: anyio.Event


class Clearing:
    """Clears one run for sending.

    Attributes:
        late: the lines that had to be held since the run was validated.
        looked: the accounts that were asked, and what came of it.

    Args:
        journal: holds the run, and the leases.
        accounts: know the providers.
        run: the run.
        leased: the accounts whose leases are held.
        held: takes the leases of other accounts that have to be asked.
        looking: how first looks are made.
    """

    def __init__(
        self,
        journal: Journal,
        accounts: Accounts,
        run: Run,
        leased: Iterable[str],
        held: AsyncExitStack,
        looking: Looking,
    ) -> None:
        self.late: set[int] = set()
        self.looked: dict[str, Looked] = {}
        self._journal = journal
        self._accounts = accounts
        self._run = run
        self._leased = set(leased)
        self._held = held
        self._looking = looking

    async def clear(self, first: Iterable[str] = ()) -> None:
        """Compare the run, ask what has to be asked, and compare again, until nothing new came up.

        Args:
            first: accounts that are asked in any case.

        Raises:
            ConfigError: an account that has to be asked is not configured.
            JournalBusyError: another process holds the lease of one.
        """
        wanted = set(first)
        while True:
            await self._compare()
            wanted |= set(await self._journal.former_accounts(self._run.run_id))
            if not wanted - set(self.looked):
                return
            await self._look(sorted(wanted - set(self.looked)))

    async def must_clear(self) -> None:
        """Do as `clear` does, and refuse to begin when a provider could not say what it already has.

        Raises:
            UnansweredError: one could not, or somebody asked to stop meanwhile.
        """
        await self.clear()
        for account, looked in sorted(self.looked.items()):
            if looked.problem:
                raise UnansweredError(
                    f"Nothing was sent, because account {account} could not say what it already has of these lines: "
                    f"{looked.problem}"
                )

    def uncleared(self, accounts: Sequence[str]) -> Mapping[str, Stop]:
        """Return, of the accounts of a run that goes on, those that must not send, each with what stops it."""
        failed = {account: looked for account, looked in sorted(self.looked.items()) if looked.problem}
        if set(failed) - set(accounts):
            # Another account may have been sent any of these lines before.
            failed = dict.fromkeys(accounts, next(iter(failed.values()))) | failed
        return {
            account: Stop(
                account,
                None,
                failed[account].brake,
                f"Nothing was sent, because the provider could not say what it already has: {failed[account].problem}",
            )
            for account in accounts
            if account in failed
        }

    async def _compare(self) -> None:
        decided = await hold_duplicates(self._journal, self._run)
        self.late |= {line for line, _ in decided.held}

    async def _look(self, names: Sequence[str]) -> None:
        """Ask accounts, all at once."""
        for name in names:
            if name not in self._leased:
                who = holder("looking after", run=self._run)
                await self._held.enter_async_context(self._journal.lease(f"account {name}", who))
            if name not in self._accounts.names:
                raise ConfigError(
                    f"Lines of this file were sent from account “{name}” before, so it has to be asked about them "
                    "first, and it is not configured or was left out with --account. Nothing was sent."
                )
        async with anyio.create_task_group() as watching:
            watching.start_soon(self._heed)
            async with anyio.create_task_group() as accounts:
                for name in names:
                    accounts.start_soon(self._look_at, name)
            watching.cancel_scope.cancel()

    async def _look_at(self, name: str) -> None:
        looking, provider = self._looking, await self._accounts.connect(name, self._run.direction)
        context = Context(self._journal, provider, self._run.run_id, name, looking.publish, looking.notify)
        self.looked[name] = await look_first(context, seconds=looking.seconds, halted=looking.halted)

    async def _heed(self) -> None:
        """End the looking when a person asks from another process to pause or cancel the run."""
        while not await self._journal.requests(self._run.run_id):  # noqa: ASYNC110
            await anyio.sleep(REQUESTS_SECONDS)
        self._looking.halted.set()


async def accounts_to_send(journal: Journal, run: Run) -> Sequence[str]:
    """Return the accounts of a run for which something waits to be sent."""
    tallies = await journal.tally(run.run_id)
    return sorted({tally.lane.account for tally in tallies if tally.state is State.READY})
