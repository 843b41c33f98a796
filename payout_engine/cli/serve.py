"""The command serve: take what providers call to say, until a person stops it."""

from __future__ import annotations

import anyio

from payout_engine.app.engine import Engine
from payout_engine.cli.console import data, plain, say
from payout_engine.cli.sandbox import until_asked
from payout_engine.ports import observer
from payout_engine.results.summary import Exit


async def serve(engine: Engine, host: str, port: int) -> int:
    """Take calls and act on them."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(until_asked, tasks.cancel_scope)
        async with engine.serving(host, port, watch=_watch) as address:
            say(f"Taking calls at {plain(address)}; see the addresses with --urls. Ctrl-C ends it.")
            await anyio.sleep_forever()
    return Exit.ALL_PAID


async def urls(engine: Engine, host: str, port: int) -> int:
    """Print where each account's provider calls, and leave."""
    for account, path in (await engine.callback_paths()).items():
        base = engine.settings.callbacks_url.rstrip("/") or f"http://{host}:{port}"
        data.print(f"{plain(account)} {plain(base + path)}", soft_wrap=True)
    if not engine.settings.callbacks_url:
        say("No provider is told of these: callbacks_url is not set, the address at which they reach this machine.")
    return Exit.ALL_PAID


def _watch(event: observer.Event) -> None:
    """Tell of what was asked about, and of what kept calls out."""
    if isinstance(event, observer.LookedUp):
        moved = f"Asked about what was called to say: {event.changed} payouts moved." if event.changed else ""
        if moved or event.problem:
            say(f"[yellow]{plain(event.account)}[/] {plain(' '.join(filter(None, (moved, event.problem))))}")
    elif isinstance(event, observer.Waiting):
        say(f"[yellow]{plain(event.account)}[/] {plain(event.message)}")
