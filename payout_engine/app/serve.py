"""Taking providers' calls: store what a call speaks of, answer, and then ask the provider about it.

Whatever comes over the network is bounded: how long a call is, how many are read at once, how many wait. A call that
its provider should have signed and did not is refused and leaves no trace. What is stored is acted on by whoever pays
from the account, and by this server where nobody does: it takes the account's lease for one question and lets go.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path

import anyio
from aiohttp import web

from payout_engine.app.locks import holder
from payout_engine.app.workspace import Workspace
from payout_engine.domain.errors import ConfigError, ForgedError, JournalBusyError, JournalError
from payout_engine.domain.limits import (
    CALLBACK_BYTES_MAX,
    CALLBACK_READING_SECONDS,
    CALLBACKS_AT_ONCE,
    CALLBACKS_WAITING_MAX,
    QUERIES_BATCH,
)
from payout_engine.domain.model import Direction, Outcome
from payout_engine.payment.callbacks import CallbackReader, callback_reader
from payout_engine.payment.context import Context
from payout_engine.ports import observer
from payout_engine.ports.callbacks import Callback, Heard, HearsCallbacks
from payout_engine.ports.journal import Journal

logger = logging.getLogger(__name__)

BETWEEN_SECONDS = 1.0
"""Between two questions the account's lease is free for so long: longer than who waits for it takes to ask again."""

GATHER_SECONDS = 0.02
"""Calls that come within so long are stored in one commit, so that a flood leaves the journal to whoever pays."""

IDLE_SECONDS = 30.0
"""How often it is looked what waits although no call came: stored before a crash, or left behind by a payer."""

REPORT_SECONDS = 60.0
"""How often it is told that calls were refused, however many were."""

LAST_CALLS_SECONDS = 5.0
"""How long calls that are being stored may hold up the end."""


class Door:
    """One account that its provider may call about.

    Attributes:
        name: the account's.
        path: where its calls come in.
        provider: hears them.
        reader: asks about them.
        waiting: how many stored calls wait, at least roughly.
        refused: how many calls were refused since that was last told.
        rung: set when a call was stored.
    """

    def __init__(self, name: str, path: str, provider: HearsCallbacks, reader: CallbackReader) -> None:
        self.name = name
        self.path = path
        self.provider = provider
        self.reader = reader
        self.waiting = 0
        self.refused = 0
        self.rung = anyio.Event()
        self.rung.set()  # What was stored before is looked for at once.

    def __repr__(self) -> str:
        return f"Door({self.name!r})"

    @property
    def secret(self) -> bytes:
        """The part of the path that nobody can guess."""
        return self.path.rpartition("/")[2].encode()


async def open_doors(workspace: Workspace, notify: observer.Observer) -> Sequence[Door]:
    """Return a door for each account whose provider calls; no byte is sent by this.

    Raises:
        ConfigError: there is none, or an account cannot be connected.
    """
    accounts, journal = workspace.accounts, await workspace.journal()
    doors: list[Door] = []
    for name in accounts.names:
        ways = accounts.directions(name)
        provider = await accounts.connect(name, Direction.PAY if Direction.PAY in ways else Direction.COLLECT)
        reader = callback_reader(Context(journal, provider, "", name, _tell_nobody, notify))
        if isinstance(provider, HearsCallbacks) and reader is not None:
            doors.append(Door(name, accounts.callback_paths[name], provider, reader))
    if not doors:
        raise ConfigError(
            "None of the configured accounts is with a provider that calls, so there is nothing to serve."
        )
    return doors


@asynccontextmanager
async def listening(workspace: Workspace, host: str, port: int, notify: observer.Observer) -> AsyncIterator[str]:
    """Take calls, and act on them, until the block ends; yields the address.

    Args:
        workspace: the accounts, and the journal to store calls in.
        host: the address to listen at.
        port: its port; 0 takes a free one.
        notify: told of what was asked about, and of what was refused.

    Raises:
        ConfigError: no account's provider calls, or the address cannot be used.
    """
    doors = await open_doors(workspace, notify)
    server = CallbackServer(await workspace.journal(), doors, workspace.settings.journal, notify)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=LAST_CALLS_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
        except OSError as error:
            raise ConfigError(f"Calls cannot be taken at {host}:{port}: {error.strerror}.") from None
        async with anyio.create_task_group() as tasks:
            for door in doors:
                tasks.start_soon(server.attend, door)
            tasks.start_soon(server.report)
            yield f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


class CallbackServer:
    """Stores calls and acts on them; see `listening`.

    Args:
        journal: where they are stored.
        doors: the accounts that are called about.
        path: where the journal is, for whoever waits for a lease.
        notify: told of what happens.
    """

    def __init__(self, journal: Journal, doors: Sequence[Door], path: Path, notify: observer.Observer) -> None:
        self._journal = journal
        self._doors: Mapping[str, Door] = {door.name: door for door in doors}
        self._path = path
        self._notify = notify
        self._nobody = secrets.token_urlsafe(24).encode()
        self._inside = 0

    # ---------------------------------------------------------------------------------------------------------- taking

    def application(self) -> web.Application:
        """Return what answers calls."""
        app = web.Application(client_max_size=CALLBACK_BYTES_MAX)
        app.router.add_route("*", "/{account}/{secret}", self._answer)
        app.router.add_route("*", "/{account}/{secret}/{rest:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        """Answer one call, if there is room for it."""
        door = self._door(request)
        if door is None:
            return web.Response(status=404)
        if self._inside >= CALLBACKS_AT_ONCE or door.waiting >= CALLBACKS_WAITING_MAX:
            return web.Response(status=503, headers={"Retry-After": "60"})
        self._inside += 1
        try:
            return web.Response(status=await self._take(door, request))
        finally:
            self._inside -= 1

    def _door(self, request: web.Request) -> Door | None:
        """Return whose address was called, if all of it is right; it takes as long whatever of it is wrong."""
        door = self._doors.get(request.match_info["account"])
        given = request.match_info["secret"].encode(errors="replace")
        right = hmac.compare_digest(given, self._nobody if door is None else door.secret)
        return door if right else None

    async def _take(self, door: Door, request: web.Request) -> int:
        """Read a call, let the adapter hear it, and store it; return the status to answer with."""
        if request.method not in ("GET", "HEAD", "POST"):
            return 405
        try:
            with anyio.fail_after(CALLBACK_READING_SECONDS):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return 413
        except TimeoutError:
            return 408
        callback = Callback(
            "POST" if request.method == "POST" else "GET",
            request.match_info.get("rest", ""),
            request.rel_url.raw_query_string,
            {name.lower(): value for name, value in request.headers.items()},
            body,
        )
        try:
            heard = door.provider.hear(callback)
        except ForgedError:
            door.refused += 1
            return 401
        except Exception as error:
            # Its text could hold anything that came in, so only its kind is told.
            logger.error("a call about account %s could not be heard: %s", door.name, type(error).__name__)
            return 400
        return await self._store(door, callback, heard)

    async def _store(self, door: Door, callback: Callback, heard: Heard) -> int:
        if not heard or len(heard.keys) + len(heard.references) > QUERIES_BATCH:
            return 200  # It only looked whether we answer, or is no call as any provider documents it.
        await anyio.sleep(GATHER_SECONDS - anyio.current_time() % GATHER_SECONDS)
        try:
            stored = await self._journal.store_callback(door.name, _digest(door.name, callback), heard)
        except JournalError as error:
            self._notify(observer.Waiting(door.name, f"A call could not be stored and is asked for again. {error}"))
            return 503
        if stored:
            door.waiting += 1
            door.rung.set()
        return 200

    # ---------------------------------------------------------------------------------------------------------- acting

    async def attend(self, door: Door) -> None:
        """Act on the calls of one account, for ever."""
        while True:
            with anyio.move_on_after(BETWEEN_SECONDS if door.waiting else IDLE_SECONDS):
                await door.rung.wait()
            door.rung = anyio.Event()
            try:
                await self._act(door)
                door.waiting = await self._journal.count_callbacks(door.name, CALLBACKS_WAITING_MAX)
            except JournalError as error:
                self._notify(observer.Waiting(door.name, f"What was called to say is looked at later. {error}"))
                await anyio.sleep(IDLE_SECONDS)
            await anyio.sleep(BETWEEN_SECONDS)

    async def _act(self, door: Door) -> None:
        """Ask once about what waits, unless another process has the account: then that one does."""
        if not await door.reader.is_due():
            return
        try:
            async with self._journal.lease(f"account {door.name}", holder("asking about callbacks", self._path)):
                await door.reader.act()
        except JournalBusyError:
            pass

    async def report(self) -> None:
        """Tell now and then how many calls were refused."""
        while True:
            await anyio.sleep(REPORT_SECONDS)
            for door in self._doors.values():
                if door.refused:
                    count, door.refused = door.refused, 0
                    text = f"{count} calls were refused: the provider signs its calls, and had not signed these."
                    self._notify(observer.Waiting(door.name, text))


def _digest(account: str, callback: Callback) -> bytes:
    """Return what tells a call from all others of the account, and is the same when it is repeated."""
    digest = blake2b(digest_size=16)
    for part in (account, callback.method, callback.path, callback.query):
        encoded = part.encode(errors="surrogatepass")
        digest.update(b"%d:%b" % (len(encoded), encoded))
    digest.update(callback.body)
    return digest.digest()


async def _tell_nobody(outcomes: Sequence[Outcome]) -> None:
    """Tell of outcomes where no run is being paid: whoever asks the journal finds them."""
