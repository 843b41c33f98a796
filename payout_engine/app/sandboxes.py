"""The providers' sandboxes, served for people and for other programs, each at an address of its own.

The command `payout-engine sandbox` serves them. Runs with `--sandbox` do not need this; `accounts.py` embeds what they
need.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from payout_engine import providers
from payout_engine.app.accounts import wallet_codes
from payout_engine.domain.errors import ConfigError
from payout_engine.ports.registration import SandboxServer


@asynccontextmanager
async def open_sandboxes(
    names: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ledger: Path | None = None,
    balance: int | None = None,
) -> AsyncIterator[Mapping[str, SandboxServer]]:
    """Run the sandboxes of these providers (none named: of all) until the block ends.

    Args:
        names: providers, in the order of their ports.
        host: the address to listen at.
        port: the first one's port, the next one's is one higher, and so on; 0 takes free ones.
        ledger: a folder, made if need be, where each provider keeps `NAME.db`; None keeps the ledgers in memory.
        balance: what each wallet holds at first, in whole units; None means what the provider documents for tests.

    Raises:
        ConfigError: there is no such provider, or the address cannot be used.
    """
    registrations = [providers.get(name) for name in names] or list(providers.discover().values())
    if ledger is not None:
        ledger.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        servers: dict[str, SandboxServer] = {}
        for place, registration in enumerate(registrations):
            path = None if ledger is None else ledger / f"{registration.name}.db"
            own_port = port + place if port else 0
            held = None if balance is None else dict.fromkeys(wallet_codes(registration), balance)
            try:
                opening = registration.sandbox(path, host=host, port=own_port, balances=held)
                server = await stack.enter_async_context(opening)
            except OSError as error:
                raise ConfigError(f"the sandbox cannot listen at {host}:{own_port}: {error.strerror}") from error
            servers[registration.name] = server
        yield servers
