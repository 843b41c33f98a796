"""Processes of the real engine over one journal's file and the same banks, each with a fuse of its own.

Each opens the journal by itself, carries its requests out in the event loop, and holds its locks as any process does.
Only the connections to providers and what is configured are replaced. `simulation.py` starts the processes that pay,
and those in which people steer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import anyio.abc

from payout_engine.accounts import Accounts
from payout_engine.engine import Engine
from payout_engine.journal import SqliteJournal
from payout_engine.model import Dispatch, Query, Receipt, Sighting
from payout_engine.ports import Journal, Provider
from payout_engine.settings import Settings
from payout_engine.testing.bank import Bank, SimulatedProvider
from payout_engine.testing.crashing import CrashingJournal, CrashingProvider, Fuse, MortalWriter
from payout_engine.testing.disk import Disk
from payout_engine.testing.witness import Witness
from payout_engine.traits import Traits, Wallet

WALLETS = (
    Wallet(
        code="orange_bf",
        title="Orange Money",
        country="BF",
        currency="XOF",
        decimals=0,
        operators=("Orange",),
        prefixes=("74",),
        amount_minor_min=100,
    ),
    Wallet(
        code="moov_bf",
        title="Moov Money",
        country="BF",
        currency="XOF",
        decimals=0,
        operators=("Moov Africa",),
        prefixes=("70",),
        amount_minor_min=100,
    ),
)


class SimulatedAccounts(Accounts):
    """Accounts at simulated banks."""

    def __init__(self, settings: Settings, stack: AsyncExitStack, connections: Mapping[str, Provider]) -> None:
        super().__init__(settings, stack, only=None, sandbox=False)
        self._simulated = connections
        self.keys = {name: name for name in connections}

    def traits(self, name: str) -> Traits:
        """Return what the bank promises."""
        return self._simulated[name].traits

    def wallets(self, name: str) -> Sequence[Wallet]:
        """Return both wallets of a lone account, or the account's own."""
        return [wallet for wallet in WALLETS if len(self._simulated) == 1 or wallet.code.startswith(name)]

    async def locks(self, names: Iterable[str]) -> Mapping[Path, str]:
        """Return none: the journal's leases are all there is in a simulated world."""
        return {}

    async def connect(self, name: str) -> Provider:
        """Return the connection of this process."""
        return self._simulated[name]


class WatchedProvider(SimulatedProvider):
    """A simulated provider whose every call has a witness."""

    def __init__(self, account: str, bank: Bank, witness: Witness, process: str, fuse: Fuse) -> None:
        super().__init__(bank, lambda dispatch: None)
        self._account = account
        self._witness = witness
        self._process = process
        self._fuse = fuse

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Pay; see `ports.Provider.send`."""
        with self._witness.sending(self._process, self._fuse, dispatch):
            return await super().send(dispatch)

    async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[Sighting]]:
        """Show what the bank shows; see `ports.Provider.look_up`."""
        with self._witness.asking(self._fuse, self._account):
            async for sightings in super().look_up(queries):
                yield sightings


def open_engine(
    process: str,
    fuse: Fuse,
    settings: Settings,
    disk: Disk,
    banks: Mapping[str, Bank],
    witness: Witness,
    commit_seconds: float,
) -> AbstractAsyncContextManager[Engine]:
    """Open the engine of one process.

    Args:
        process: what to call it in the trace.
        fuse: its life.
        settings: what is configured, with the journal that all processes share.
        disk: where the journal is.
        banks: by account.
        witness: sees what it does.
        commit_seconds: how long its journal's writer waits for a group, and again for the answers.
    """
    writer = partial(MortalWriter, fuse=fuse, done=partial(witness.heard, process), commit_seconds=commit_seconds)
    connections = {
        account: CrashingProvider(WatchedProvider(account, bank, witness, process, fuse), fuse)
        for account, bank in banks.items()
    }

    class SimulatedEngine(Engine):
        def __init__(
            self, settings: Settings, accounts: Accounts, tasks: anyio.abc.TaskGroup, stack: AsyncExitStack
        ) -> None:
            super().__init__(settings, SimulatedAccounts(settings, stack, connections), tasks, stack)

        async def journal(self) -> Journal:
            async with self._opening:
                if self._opened is None:
                    journal = await self._stack.enter_async_context(
                        SqliteJournal.open(self.settings.journal, writer=writer)
                    )
                    self._opened = cast(Journal, CrashingJournal(journal, fuse, disk))
                return self._opened

    return SimulatedEngine.open(settings)
