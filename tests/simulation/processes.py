"""Processes of the real engine over the same journals and banks, each with a fuse of its own.

Each opens its journal by itself, carries its requests out in the event loop, holds its locks as any process does, and
remembers in the user's state folder. Only the connections to providers and what is configured are replaced.
`simulation.py` starts the processes that pay, and those in which people steer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import cast

import msgspec

from payout_engine.app.accounts import Accounts
from payout_engine.app.engine import Engine, engine_over
from payout_engine.app.settings import Settings
from payout_engine.app.workspace import Workspace
from payout_engine.domain.model import Direction, Dispatch, LookUpResult, Query, Receipt
from payout_engine.journal import SqliteJournal
from payout_engine.ports.callbacks import Callback, Heard
from payout_engine.ports.journal import Journal
from payout_engine.ports.provider import ClosedWallet, LookUpKind, Provider, Traits, Wallet
from simulation.bank import Bank, SimulatedProvider
from simulation.crashing import CrashingCaller, CrashingJournal, CrashingProvider, Fuse, MortalWriter
from simulation.disk import Disk
from simulation.mortal import MortalRemembered
from simulation.shelf import JournalFile, Shelf
from simulation.wire_bank import WiredProvider
from simulation.witness import Witness

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


SHARED = tuple(msgspec.structs.replace(wallet, balance="main") for wallet in WALLETS)
"""The same wallets where both draw on one balance."""

ABROAD = (WALLETS[0], msgspec.structs.replace(WALLETS[1], currency="XAF"))
"""The same, with a currency each."""


class SimulatedAccounts(Accounts):
    """Accounts at simulated banks."""

    def __init__(
        self, settings: Settings, stack: AsyncExitStack, connections: Mapping[str, Provider], world: World
    ) -> None:
        super().__init__(settings, stack, only=None, sandbox=False)
        self._simulated = connections
        self._served = world.wallets
        self.keys = dict(world.keys)

    def directions(self, name: str) -> Collection[Direction]:
        """All of them pay."""
        return (Direction.PAY,)

    def traits(self, name: str, direction: Direction = Direction.PAY) -> Traits:
        """Return what the bank promises."""
        return self._simulated[name].traits

    def wallets(self, name: str, direction: Direction = Direction.PAY) -> Sequence[Wallet]:
        """Return both wallets of a lone account, or the account's own."""
        return [wallet for wallet in self._served if len(self._simulated) == 1 or wallet.code.startswith(name)]

    def closed(self, name: str, direction: Direction = Direction.PAY) -> Sequence[ClosedWallet]:
        """Nothing more can be configured."""
        return ()

    async def connect(self, name: str, direction: Direction = Direction.PAY) -> Provider:
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

    async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show what the bank shows; see `ports.Provider.look_up`."""
        with self._witness.asking(self._fuse, self._account):
            async for results in super().look_up(queries):
                yield results

    async def look_up_since(self, queries: Sequence[Query], since: float) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show what the bank shows; see `ports.ListsBack`."""
        with self._witness.asking(self._fuse, self._account):
            async for results in super().look_up_since(queries, since):
                yield results


class CallingProvider(WatchedProvider):
    """The same of a bank that calls back: what a call speaks of is asked about as in any look-up."""

    def hear(self, callback: Callback) -> Heard:
        """Nobody speaks HTTP here; what was heard is put into the journal. See `ports.HearsCallbacks`."""
        return Heard()

    async def re_read(self, heard: Heard, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask about the payouts of these calls; see `ports.HearsCallbacks`."""
        kind = self.traits.look_up
        asked = [query for query in queries if query.provider_reference or kind is not LookUpKind.REFERENCE]
        if asked and kind is not LookUpKind.NONE:
            async for results in self.look_up(asked):
                yield results


class World(msgspec.Struct):
    """What all processes of a simulation share.

    Attributes:
        settings: what is configured; each process names a journal.
        keys: by account, the key that it is used with.
        wallets: where the accounts can pay to.
        wired: whether the real adapter speaks to the banks, over a wire.
        banks: by account.
        disk: where all files are.
        shelf: where the journals are.
        witness: sees what the processes do.
        commit_seconds: how long a journal's writer waits for a group, and again for the answers.
        calls_back: whether the banks call back.
    """

    settings: Settings
    keys: Mapping[str, str]
    wallets: Sequence[Wallet]
    wired: bool
    banks: dict[str, Bank]
    disk: Disk
    shelf: Shelf
    witness: Witness
    commit_seconds: float
    calls_back: bool = False


def open_engine(process: str, fuse: Fuse, file: JournalFile, world: World) -> AbstractAsyncContextManager[Engine]:
    """Open the engine of one process.

    Args:
        process: what to call it in the trace.
        fuse: its life.
        file: the journal it uses.
        world: what it shares with others.
    """
    done = partial(world.witness.heard, process, file)
    writer = partial(MortalWriter, fuse=fuse, done=done, commit_seconds=world.commit_seconds)
    watched = WiredProvider if world.wired else CallingProvider if world.calls_back else WatchedProvider
    crashing = CrashingCaller if watched is CallingProvider else CrashingProvider
    connections = {
        account: crashing(watched(account, bank, world.witness, process, fuse), fuse)
        for account, bank in world.banks.items()
    }

    settings, stack = msgspec.structs.replace(world.settings, journal=file.path), AsyncExitStack()
    memory = MortalRemembered(fuse, partial(world.shelf.beginning, file))

    @asynccontextmanager
    async def open_journal() -> AsyncIterator[Journal]:
        async with SqliteJournal.open(file.path, writer=writer, remember=memory.keep) as journal:
            yield cast(Journal, CrashingJournal(journal, fuse, world.disk))

    accounts = SimulatedAccounts(settings, stack, connections, world)
    return engine_over(Workspace(settings, accounts, memory, open_journal, stack))
