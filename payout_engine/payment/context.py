"""What everything that speaks to one account for one run shares: whom it asks, what it writes down, whom it tells.

Made by `run.py` for each account that pays, and by whoever looks first; handed as one value to dispatch, resend, poll
and first look. The pace is not part of it: only what may pay has one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

import anyio
import msgspec

from payout_engine.domain.model import Lane, LookUpResult, Outcome, Query
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal, Reconciled
from payout_engine.ports.provider import ListsBack, LookUpKind, Provider

Publish = Callable[[Sequence[Outcome]], Awaitable[None]]
"""Told of outcomes after they are durable. One that waits slows the engine down; it cannot make it forget."""


class Context(msgspec.Struct, frozen=True):
    """One account of one run.

    Attributes:
        journal: the durable memory.
        provider: the account's connection.
        run_id: the run.
        account: the account's name.
        publish: told of every outcome of the run.
        notify: told of what happens.
        balances: by lane name, which balance it draws on (`Wallet.balance_name`); what is not named has its own.
    """

    journal: Journal
    provider: Provider
    run_id: str
    account: str
    publish: Publish
    notify: observer.Observer
    balances: Mapping[str, str] = {}

    def draws_with(self, lane: Lane, other: Lane) -> bool:
        """Tell whether two of the account's lanes draw on one balance."""
        return self.balances.get(lane.name, lane.name) == self.balances.get(other.name, other.name)

    def waiting(self, message: str) -> None:
        """Tell what is waited for, or what a person should know."""
        self.notify(observer.Waiting(self.account, message))

    def askable(self, queries: Sequence[Query]) -> Sequence[Query]:
        """Return the payouts that the provider can be asked about: where it wants its own reference, those that have
        one."""
        if self.provider.traits.look_up is not LookUpKind.REFERENCE:
            return queries
        return [query for query in queries if query.provider_reference]

    async def look_up(
        self, queries: Sequence[Query], since: float | None = None
    ) -> AsyncGenerator[Sequence[LookUpResult]]:
        """Yield what the provider shows, at least of what it received since then; None for all that it has.

        Raises:
            ProviderError: as for `Provider.look_up`.
        """
        provider = self.provider
        if since is not None and isinstance(provider, ListsBack):
            results = provider.look_up_since(queries, since)
        else:
            results = provider.look_up(queries)
        try:
            async for batch in results:
                yield batch
        finally:
            if isinstance(results, AsyncGenerator):
                await results.aclose()  # Who has seen enough lets go of the connection at once.

    async def reconcile(self, results: Sequence[LookUpResult]) -> Reconciled:
        """Record what a look-up shows, and tell of it."""
        with anyio.CancelScope(shield=True):
            # What is recorded is also told, even when the looking ends in this moment.
            applied = await self.journal.reconcile(results)
            await self.publish([outcome for outcome in applied.outcomes if outcome.run_id == self.run_id])
        for conflict in applied.conflicts:
            self.waiting(conflict)
        return applied
