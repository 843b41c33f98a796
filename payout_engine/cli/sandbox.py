"""The command that serves: sandbox."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec

from payout_engine.app.accounts import known_providers
from payout_engine.app.sandboxes import open_sandboxes
from payout_engine.cli.console import data, say
from payout_engine.ports.registration import Registration, SandboxServer
from payout_engine.results.summary import Exit

_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""Names that TOML takes without quotes."""


async def sandbox(host: str, port: int, ledger: Path | None, balance: int | None) -> int:
    """Serve every provider's sandbox until the person stops it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(until_asked, tasks.cancel_scope)
        async with open_sandboxes(host=host, port=port, ledger=ledger, balance=balance) as servers:
            _announce(servers)
            await anyio.sleep_forever()
    return Exit.ALL_PAID


def _announce(servers: Mapping[str, SandboxServer]) -> None:
    """Print each account as it is written in a configuration, so that it can be pasted there."""
    known = known_providers()
    for name, server in servers.items():
        data.print(account_written(known[name], server.base_url), markup=False, soft_wrap=True)
    say("Serving; no real money moves. Ctrl-C ends it.")


def account_written(registration: Registration, base_url: str) -> str:
    """Return the table of an account that a sandbox at `base_url` accepts, in TOML, named as its provider is."""
    settings = {
        "provider": registration.name,
        "base_url": base_url,
        **registration.sandbox_secrets,
        **registration.sandbox_options,
    }
    lines = [f"{_key(key)} = {_toml(value)}" for key, value in settings.items()]
    return "\n".join([f"[accounts.{_key(registration.name)}]", *lines, ""])


def _toml(value: Any) -> str:
    """Write a value in TOML, on one line: texts, numbers, truths, and lists and tables of these."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_toml(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # JSON writes the rest as TOML does, but for one control character that it leaves as it is.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _toml(name)


async def until_asked(scope: anyio.CancelScope) -> None:
    """Cancel what goes on once a person, or the machine, asks this process to end."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return
