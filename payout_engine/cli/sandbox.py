"""The command that serves: sandbox."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import anyio

from payout_engine.app.sandboxes import open_sandboxes
from payout_engine.cli.console import data, say
from payout_engine.ports.registration import SandboxServer
from payout_engine.results.summary import Exit


async def sandbox(host: str, port: int, ledger: Path | None, balance: int | None) -> int:
    """Serve every provider's sandbox until the person stops it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(until_asked, tasks.cancel_scope)
        async with open_sandboxes(host=host, port=port, ledger=ledger, balance=balance) as servers:
            _announce(servers)
            await anyio.sleep_forever()
    return Exit.ALL_PAID


def _announce(servers: Mapping[str, SandboxServer]) -> None:
    """Print each address as it is written in a configuration, so that it can be pasted there."""
    for name, server in servers.items():
        data.print(f"[bold]\\[accounts.{name}][/]", soft_wrap=True)
        data.print(f'provider = "{name}"\nbase_url = "{server.base_url}"\napi_key = "sk_test_sandbox"')
    say("Serving; no real money moves. Ctrl-C ends it.")


async def until_asked(scope: anyio.CancelScope) -> None:
    """Cancel what goes on once a person, or the machine, asks this process to end."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return
