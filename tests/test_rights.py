"""The rights that paying needs, asked of `app/locks.py` itself: which are held, who is told, how they are waited for.

A real journal in simulated time, with real locks; nothing is sent.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from simulation import virtual_time

from payout_engine.app.accounts import Accounts
from payout_engine.app.locks import holder, leases, payment_locks, require_same_keys, wait_for_lock, whereabouts
from payout_engine.app.settings import AccountSettings, Settings, lock_folder
from payout_engine.domain import clock
from payout_engine.domain.errors import ConfigError, Holder, JournalBusyError
from payout_engine.domain.model import Problem, Receipt, Run
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.journal.file_locks import describe, locked
from payout_engine.journal.ids import position_of
from payout_engine.ports.observer import Queued
from payout_engine.testing.journal_lines import (
    IVORY,
    ORANGE,
    SOMEBODY,
    approved,
    chunk,
    dispatched,
    every,
    inline,
    refused,
    sent,
    validated,
)
from payout_engine.testing.journal_lines import run as a_run


def in_virtual_time(test: Callable[[SqliteJournal], Awaitable[None]], path: Path) -> None:
    """Run a test with a journal in simulated time."""

    async def main() -> None:
        async with inline(path) as journal:
            await test(journal)

    virtual_time.run(main())


async def found(journal: SqliteJournal, run_id: str) -> Run:
    run = await journal.find(run_id)
    assert run is not None
    return run


@asynccontextmanager
async def two_accounts(path: Path) -> AsyncIterator[Accounts]:
    """Two accounts with a key each; nobody listens at their address."""
    each = {
        name: AccountSettings("senfenico", {"api_key": f"sk_test_{name}", "base_url": "http://localhost:9"})
        for name in ("bf", "ci")
    }
    async with AsyncExitStack() as stack:
        accounts = Accounts(Settings(journal=path, accounts=each), stack, only=None, sandbox=False)
        for name in each:
            await accounts.connect(name)
        yield accounts


async def held_now(journal: SqliteJournal, accounts: Accounts) -> Mapping[str, Holder | None]:
    """Return the rights that somebody holds: the leases of a journal's accounts, and the locks of their keys."""
    held: dict[str, Holder | None] = {}
    for name in ("bf", "ci", ""):
        try:
            async with journal.lease(f"account {name}", SOMEBODY):
                pass
        except JournalBusyError as busy:
            held[f"lease {name}"] = busy.holder
    for name, key in accounts.keys.items():
        try:
            with locked(lock_folder() / f"{key}.lock", name, SOMEBODY):
                pass
        except JournalBusyError as busy:
            held[f"key {name}"] = busy.holder
    return held


async def a_run_of_two(journal: SqliteJournal, known: State, *, approve: bool) -> Run:
    """A run with a line of `bf` that waits, lines of `ci` that are sent or held, and refused lines of nobody."""
    await validated(journal, "run", chunk([1]), chunk([2], IVORY), refused([3]))
    if known is State.HELD:
        (waiting,) = await journal.ready("run", IVORY, 0, 1)
        await journal.hold("run", {position_of(waiting.chunk_id, 0): Problem("repeated", "Again.")})
    if approve:
        assert await every(journal.duplicates("run")) == []
        assert await journal.approve("run")
    if known is not State.HELD:
        await sent(journal, "run", Receipt(known), IVORY)
    return await found(journal, "run")


@pytest.mark.parametrize(
    ("known", "approve", "keys"),
    [
        (State.PAID, True, {"key bf"}),
        (State.UNKNOWN, True, {"key bf", "key ci"}),
        (State.HELD, True, {"key bf"}),
        (State.HELD, False, {"key bf", "key ci"}),
    ],
)
def test_who_may_send_holds_the_keys_that_may_be_used(
    tmp_path: Path, known: State, approve: bool, keys: set[str]
) -> None:
    """All leases; the keys of accounts with something to send or open, and before it is approved all keys."""

    async def test(journal: SqliteJournal) -> None:
        run, path = await a_run_of_two(journal, known, approve=approve), tmp_path / "payouts.db"
        begun_at = clock.now()
        async with two_accounts(path) as accounts:
            async with payment_locks(journal, accounts, run, path, send=True) as granted:
                held = await held_now(journal, accounts)
                names = sorted(key.removeprefix("key ") for key in keys)
                assert (granted.accounts, granted.leased) == (["bf", "ci"], ["bf", "ci"])
                assert sorted(granted.keys) == sorted(accounts.keys[name] for name in names)
            assert await held_now(journal, accounts) == {}, "given back"
            assert set(held) == {"lease bf", "lease ci"} | keys
            for who in held.values():
                assert who is not None
                assert (who.pid, who.task, who.journal) == (os.getpid(), "paying", str(path))
                assert (who.run_id, who.name) == ("run", "run.csv")
                assert who.since == pytest.approx(begun_at, abs=60)
            async with payment_locks(journal, accounts, run, path, send=False) as granted:
                held = await held_now(journal, accounts)
                assert set(held) == {"lease bf", "lease ci"}, "who only follows sends nothing"
                assert {who.task for who in held.values() if who} == {"following"}
                assert granted.keys == []
            async with leases(journal, run, SOMEBODY) as leased:
                assert leased == ["bf", "ci"]

    in_virtual_time(test, tmp_path / "payouts.db")


def test_who_may_send_holds_the_accounts_that_sent_the_lines_before(tmp_path: Path) -> None:
    """Otherwise somebody could go on there with the same lines; who only follows need not."""

    async def test(journal: SqliteJournal) -> None:
        await approved(journal, "earlier", chunk([1, 2], IVORY))
        await sent(journal, "earlier", Receipt(State.FAILED), IVORY)
        await validated(journal, "again", chunk([1, 2], ORANGE))
        assert await every(journal.duplicates("again")) == []
        run, path = await found(journal, "again"), tmp_path / "payouts.db"
        async with two_accounts(path) as accounts:
            async with payment_locks(journal, accounts, run, path, send=True) as granted:
                assert (granted.accounts, granted.leased) == (["bf"], ["bf", "ci"])
                assert set(await held_now(journal, accounts)) == {"lease bf", "lease ci", "key bf"}
            async with payment_locks(journal, accounts, run, path, send=False) as granted:
                assert (granted.accounts, granted.leased) == (["bf"], ["bf"])
                assert set(await held_now(journal, accounts)) == {"lease bf"}

    in_virtual_time(test, tmp_path / "payouts.db")


def test_a_key_whose_lock_cannot_be_made_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays held, and the error names the file."""

    async def test(journal: SqliteJournal) -> None:
        await validated(journal, "run", chunk([1]))
        run, path, opening = await found(journal, "run"), tmp_path / "payouts.db", os.open

        def fails(place: Any, *arguments: Any, **named: Any) -> int:
            if str(place).startswith(str(lock_folder())):
                raise OSError(errno.EROFS, "Read-only file system")
            return opening(place, *arguments, **named)

        async with two_accounts(path) as accounts:
            monkeypatch.setattr(os, "open", fails)
            with pytest.raises(ConfigError, match=r"locks/.*\.lock cannot be made \(Read-only file system\)"):
                async with payment_locks(journal, accounts, run, path, send=True):
                    pytest.fail("granted")
            monkeypatch.undo()

    in_virtual_time(test, tmp_path / "payouts.db")


def test_a_process_is_described_as_far_as_it_is_known(tmp_path: Path) -> None:
    """By its run and the run's file, or by a file alone; a journal that nobody named is not made up."""
    run = a_run("r-1", name="salaries.csv")
    of_run = holder("looking at", run=run, name="another")
    of_file = holder("validating", tmp_path / "p.db", name="a.csv")
    assert (of_run.journal, of_run.run_id, of_run.name) == ("", "r-1", "salaries.csv")
    assert (of_file.journal, of_file.run_id, of_file.name) == (str(tmp_path / "p.db"), "", "a.csv")


def test_a_journal_in_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    """Others could not read where it is."""
    with pytest.raises(ConfigError, match="name is no text"):
        whereabouts(tmp_path / os.fsdecode(b"\xff") / "payouts.db")


# --------------------------------------------------------------------------------------------------------- the same key


def test_a_key_counts_once_something_may_have_been_sent_with_it(tmp_path: Path) -> None:
    """A call that provably never left binds nobody to its key; and where none is remembered, any is right."""

    async def test(journal: SqliteJournal) -> None:
        await approved(journal, "run", chunk([1]))
        run = await found(journal, "run")

        async def with_key(key: str) -> None:
            await require_same_keys(journal, run, {"bf": key}, ["bf"], renewed=False)
            assert (await journal.facts("run")).keys == {"bf": key}

        await with_key("one")
        await journal.record(await dispatched(journal, "run"), [Receipt(State.READY, "refused")], on_wire=False)
        await with_key("two")
        await sent(journal, "run", Receipt(State.ACCEPTED))
        await with_key("two")
        with pytest.raises(ConfigError, match="another key of account bf"):
            await with_key("three")

        await approved(journal, "older", chunk([2]))
        await sent(journal, "older", Receipt(State.ACCEPTED))
        await require_same_keys(journal, await found(journal, "older"), {"bf": "any"}, ["bf"], renewed=False)
        assert (await journal.facts("older")).keys == {"bf": "any"}

    in_virtual_time(test, tmp_path / "payouts.db")


# -------------------------------------------------------------------------------------------------------------- waiting


class Right:
    """A right that somebody holds until a moment, by turns."""

    def __init__(self, *turns: tuple[float, Holder | None]) -> None:
        self._turns = turns

    async def enter(self) -> str:
        """Take it, if nobody has it now."""
        for until, who in self._turns:
            if anyio.current_time() < until:
                raise JournalBusyError("Busy.", who)
        return "granted"


def test_whom_we_wait_for_is_told_and_how_far_that_one_is(tmp_path: Path) -> None:
    """At once, again every few seconds, and at once when it is another; what cannot be seen is not told."""
    theirs = tmp_path / "theirs.db"

    async def test(journal: SqliteJournal) -> None:
        async with inline(theirs) as other:
            await approved(other, "run", chunk([1, 2]), chunk([3]), chunk([4]), refused([5]))
            await sent(other, "run", Receipt(State.PAID))
            await dispatched(other, "run")
        await approved(journal, "run", chunk([1]), chunk([2]))
        await sent(journal, "run", Receipt(State.FAILED))
        here, there = (
            msgspec.structs.replace(SOMEBODY, journal=str(path), run_id="run") for path in (tmp_path / "us.db", theirs)
        )
        gone = msgspec.structs.replace(there, run_id="gone")
        nameless = msgspec.structs.replace(there, run_id="")
        at = anyio.current_time()
        turns = [(5.0, there), (6.0, here), (7.0, gone), (8.0, nameless), (9.0, None)]
        right, told = Right(*((at + seconds, who) for seconds, who in turns)), list[tuple[float, Queued]]()

        def notify(event: Any) -> None:
            told.append((round(anyio.current_time() - at, 1), event))

        path = tmp_path / "us.db"
        assert await wait_for_lock(right.enter, journal, path, notify) == "granted"
        assert anyio.current_time() - at == pytest.approx(9.0, abs=0.6)
        assert [(when, event.settled, event.total) for when, event in told] == [
            (0.0, 2, 4),
            (2.0, 2, 4),
            (4.0, 2, 4),
            (5.0, 1, 2),
            (6.0, 0, 0),
            (7.0, 0, 0),
            (8.0, 0, 0),
        ]
        assert [event.holder for _, event in told] == [there, there, there, here, gone, nameless, None]
        assert [event.message for _, event in told] == [describe(event.holder) for _, event in told]

    in_virtual_time(test, tmp_path / "us.db")


def test_waiting_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    """At once, with the error that says who holds it; also when it was asked before."""

    async def test(journal: SqliteJournal) -> None:
        right, path, stopping = Right((math.inf, SOMEBODY)), tmp_path / "us.db", anyio.Event()

        async def stop() -> None:
            await anyio.sleep(3.2)
            stopping.set()

        at = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            with pytest.raises(JournalBusyError):
                await wait_for_lock(right.enter, journal, path, lambda _event: None, stopping)
        assert anyio.current_time() - at == pytest.approx(3.2, abs=0.01)
        with pytest.raises(JournalBusyError):
            await wait_for_lock(right.enter, journal, path, lambda _event: None, stopping)

    in_virtual_time(test, tmp_path / "us.db")
