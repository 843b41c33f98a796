"""The rights that paying needs, each held by one at a time: to send for an account, and to use a provider's key.

The first is a lease of the journal, so that one journal never has two dispatchers for an account. The second is a lock
of this user on this machine, which holds over all journals and account names: the provider counts calls by key. What a
key remembers of journals is asked in `app/other_journals.py`, with its lock held.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec

from payout_engine.app.accounts import Accounts
from payout_engine.domain.clock import now
from payout_engine.domain.errors import ConfigError, Holder, JournalBusyError, JournalError
from payout_engine.domain.facts import KeyUsed
from payout_engine.domain.model import Run, Tally
from payout_engine.domain.states import OPEN, State
from payout_engine.journal import tally_file
from payout_engine.journal.file_locks import describe, locked
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal

T = TypeVar("T")

ASK_AGAIN_SECONDS = 0.5
"""How often a right that somebody else holds is asked for."""

PROGRESS_SECONDS = 2.0
"""How often it is looked how far the other has come."""

_MOVING = OPEN | {State.READY}
_TOLD = OPEN | {State.PAID, State.REVERSED}
"""Where a provider has said something, or may have."""


class PaymentLocks(msgspec.Struct, frozen=True):
    """What was granted.

    Attributes:
        accounts: the accounts of the run.
        leased: these, and the accounts from which earlier runs may have sent lines of this one.
        keys: what the keys are known by that it may be sent with; none where nothing is sent, or into a sandbox.
    """

    accounts: Sequence[str]
    leased: Sequence[str]
    keys: Sequence[str] = ()


@asynccontextmanager
async def leases(journal: Journal, run: Run, who: Holder) -> AsyncIterator[Sequence[str]]:
    """Hold the right to send for all accounts of a run; yields their names.

    Args:
        journal: holds the run, and the leases.
        run: the run.
        who: what others are told of us.

    Raises:
        JournalBusyError: another process holds one.
    """
    accounts = sorted({tally.lane.account for tally in await journal.tally(run.run_id)} - {""})
    async with AsyncExitStack() as held:
        for account in accounts:
            await held.enter_async_context(journal.lease(f"account {account}", who))
        yield accounts


@asynccontextmanager
async def payment_locks(
    journal: Journal, accounts: Accounts, run: Run, path: Path, *, send: bool
) -> AsyncIterator[PaymentLocks]:
    """Hold everything that paying a run needs.

    Args:
        journal: holds the run, and the leases.
        accounts: know the keys.
        run: the run.
        path: where the journal is.
        send: whether anything may be sent; following alone needs no key's lock.

    Raises:
        JournalBusyError: another process holds some of it.
        ConfigError: a key is missing, or its lock cannot be made.
    """
    who = holder("paying" if send else "following", path, run)
    async with leases(journal, run, who) as names, AsyncExitStack() as held:
        former = set(await journal.former_accounts(run.run_id)) - set(names) if send else ()
        for name in sorted(former):
            await held.enter_async_context(journal.lease(f"account {name}", who))
        locks = await accounts.locks(await _sending(journal, run) if send else (), run.direction)
        for file, name in locks.items():
            try:
                held.enter_context(locked(file, f"account {name}", who))
            except OSError as error:
                raise ConfigError(f"The lock {file} cannot be made ({error.strerror}). Nothing was sent.") from None
        yield PaymentLocks(names, sorted({*names, *former}), [accounts.keys[name] for name in locks.values()])


async def _sending(journal: Journal, run: Run) -> Sequence[str]:
    """Return the accounts whose keys a run may use: all when it begins, because what is held may be released."""
    tallies = await journal.tally(run.run_id)
    moving = {tally.lane.account for tally in tallies if tally.state in _MOVING or run.approved_at is None}
    return sorted(moving - {""})


def holder(task: str, path: Path | None = None, run: Run | None = None, name: str = "") -> Holder:
    """Describe this process for those who wait for it.

    Args:
        task: what it does, such as `paying`.
        path: where its journal is, if it is known.
        run: the run it is about, if it is about one.
        name: else what the file is called.

    Raises:
        ConfigError: others could not read where the journal is.
    """
    return Holder(
        pid=os.getpid(),
        task=task,
        journal=whereabouts(path) if path is not None else "",
        run_id=run.run_id if run is not None else "",
        name=run.name if run is not None else name,
        since=now(),
    )


def whereabouts(path: Path) -> str:
    """Return where a journal is, in words that others can read.

    Raises:
        ConfigError: its folder's name is no text.
    """
    journal = str(path.resolve())
    try:
        journal.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"The journal {journal} is in a folder whose name is no text. Nothing was sent; name another journal with "
            "--journal."
        ) from None
    return journal


# -------------------------------------------------------------------------------------------------------- the same key


async def require_same_keys(
    journal: Journal, run: Run, keys: Mapping[str, str], accounts: Sequence[str], *, renewed: bool
) -> None:
    """Remember the keys a run is paid with, and refuse to go on with others: they may be those of another account.

    Another account knows nothing of what was sent, so its silence would prove nothing, and its "paid" neither: a test
    key in place of a live one, or the other way round, is the usual case.

    Args:
        journal: holds the run.
        run: an approved run.
        keys: what the configured keys of each account are known by.
        accounts: the accounts of the run.
        renewed: a person says that other keys are of the same accounts.

    Raises:
        ConfigError: something was sent with another key. Nothing is sent with this one.
    """
    used = (await journal.facts(run.run_id)).keys
    others = {account for account in accounts if used.get(account) not in (None, keys[account])}
    told = await _told(journal, run) if others and not renewed else set()
    for account in accounts:
        if account in others & told:
            raise ConfigError(
                f"Run {run.run_id} was begun with another key of account {account}, perhaps a test key or another "
                "company's. Nothing was sent. Put that key back; or, if the provider gave a new key for the same "
                f"account, say so: payout-engine resume {run.run_id} --key-renewed (or retry, with the same option). "
                "To pay a file again that was paid with a test key, use a journal of its own: --journal live.db"
            )
        if used.get(account) != keys[account]:
            await journal.add_fact(run.run_id, KeyUsed(account, keys[account]))


async def _told(journal: Journal, run: Run) -> set[str]:
    """Return the accounts that were sent something of a run, and did not refuse it all."""
    told = {tally.lane.account for tally in await journal.tally(run.run_id) if tally.state in _TOLD}
    # What a person released to be sent again is ready like what was never sent; only the log remembers.
    async for _, outcomes in journal.outcomes(run.run_id):
        told |= {outcome.account for outcome in outcomes if outcome.status in _TOLD}
    return told


# ------------------------------------------------------------------------------------------------------------- waiting


async def wait_for_lock(
    enter: Callable[[], Awaitable[T]],
    journal: Journal,
    path: Path,
    notify: observer.Observer,
    stopping: anyio.Event | None = None,
) -> T:
    """Return what `enter` returns, as soon as nobody else holds what it needs.

    Args:
        enter: tries once.
        journal: our journal, to see how far the other is if it uses the same.
        path: where it is.
        tell: told whom we wait for, and how far that one is.
        stopping: ends the waiting.

    Raises:
        JournalBusyError: somebody still held it when the waiting was ended.
    """
    stopping = stopping or anyio.Event()
    told_at, told_about = float("-inf"), None
    while True:
        try:
            return await enter()
        except JournalBusyError as error:
            if stopping.is_set():
                raise
            if error.holder != told_about or anyio.current_time() - told_at >= PROGRESS_SECONDS:
                told_at, told_about = anyio.current_time(), error.holder
                notify(await _queued(error, journal, path))
            with anyio.move_on_after(ASK_AGAIN_SECONDS):
                await stopping.wait()


async def _queued(error: JournalBusyError, journal: Journal, path: Path) -> observer.Queued:
    """Say whom we wait for and how far that one has come, as far as can be seen."""
    other = error.holder
    tallies: Sequence[Tally] = ()
    if other is not None and other.run_id:
        try:
            if other.journal == str(path.resolve()):
                tallies = await journal.tally(other.run_id)
            else:
                tallies = await anyio.to_thread.run_sync(tally_file, Path(other.journal), other.run_id)
        except JournalError:
            pass  # It is a courtesy: the run may be gone, or its journal not ours to read.
    total = sum(tally.count for tally in tallies if tally.state is not State.REJECTED)
    moving = sum(tally.count for tally in tallies if tally.state in _MOVING)
    return observer.Queued(describe(other), other, total - moving, total)
