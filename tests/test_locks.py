"""The locks between processes, and the lists of journals beside them: one holder, nothing lost, nothing believed."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from test_two_at_once import BankMaker, a_file, two_names

from payout_engine import Engine
from payout_engine.errors import ConfigError, JournalBusyError
from payout_engine.locks import locked, remember, remembered
from payout_engine.settings import lock_folder
from payout_engine.testing.journal_lines import SOMEBODY

CONTENDER = """
import os, sys
from pathlib import Path
from payout_engine.errors import JournalBusyError
from payout_engine.locks import locked
from payout_engine.model import Holder

path, inside = Path(sys.argv[1]), Path(sys.argv[2])
won = 0
while won < 150:
    try:
        with locked(path, "it", Holder(pid=os.getpid(), task="testing", journal=str(os.getpid()))):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            won += 1
            inside.unlink()
    except JournalBusyError:
        pass
"""


ODD_LOCKS = {
    "bytes": b"\x00\xff\xfe" * 100,
    "no UTF-8": b'{"pid":1,"task":"\xff","journal":"j"}',
    "deep": b'{"x":' + b"[" * 100_000,
    "no date": b'{"pid":1,"task":"paying","journal":"j","since":1e300}',
}


@pytest.mark.parametrize("content", ODD_LOCKS.values(), ids=ODD_LOCKS)
async def test_whatever_a_lock_says_paying_goes_on(tmp_path: Path, bank: BankMaker, content: bytes) -> None:
    """A lock's file that was damaged or written by somebody else locks nobody out, and is described without a fault."""
    lock = tmp_path / "held.lock"
    lock.write_bytes(content)
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(JournalBusyError, match=r"was first|is paying"), locked(lock, "it", SOMEBODY):
        pass
    os.close(descriptor)
    async with bank() as server:
        async with Engine.open(two_names(server, tmp_path / "payouts.db")) as engine:
            run = await engine.submit(a_file(tmp_path, "salaries", 0, 5))
            (path,) = await engine.accounts.locks(["rest"])
            path.write_bytes(content)
            [outcome async for outcome in engine.pay(run)]
        assert len(server.paid()) == 5


@pytest.mark.parametrize("content", [b"\xff\n", b"payouts.db\n", b'"a"\n[1]\n'])
async def test_a_damaged_list_of_journals_pays_nobody(tmp_path: Path, bank: BankMaker, content: bytes) -> None:
    """Nobody can say then which journals may know the file: the error names the list and what to do."""
    async with bank() as server:
        async with Engine.open(two_names(server, tmp_path / "payouts.db")) as engine:
            run = await engine.submit(a_file(tmp_path, "salaries", 0, 5))
            (lock,) = await engine.accounts.locks(["rest"])
            lock.with_suffix(".journals").write_bytes(content)
            for attempt in (engine.check_accounts(run.run_id), anext(engine.pay(run))):
                with pytest.raises(ConfigError, match=r"of the journals .* cannot be read"):
                    await attempt
        assert not server.paid()


def test_a_list_of_journals_loses_nothing(tmp_path: Path) -> None:
    """Each is there once, in order; what a crash left of a line never counted, and is gone with the next."""
    book = tmp_path / "key.journals"
    assert remembered(book) == []
    for journal in ("/a/payouts.db", "/b/été\n.db", "/a/payouts.db"):
        remember(book, journal)
    with book.open("ab") as file:
        file.write(b'"/c/pay')
    assert remembered(book) == ["/a/payouts.db", "/b/été\n.db"]
    remember(book, "/d.db")
    assert remembered(book) == ["/a/payouts.db", "/b/été\n.db", "/d.db"]
    assert stat.S_IMODE(book.stat().st_mode) == 0o600


async def test_a_relative_state_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would give each working folder locks of its own; and who has no home is told what to set."""
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lock_folder() == tmp_path / ".local" / "state" / "payout_engine" / "locks"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(ConfigError, match="no home folder"):
        lock_folder()


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """Four processes that fight for a lock are never inside together, though its file vanishes between holders."""
    arguments = [sys.executable, "-c", CONTENDER, str(tmp_path / "a.lock"), str(tmp_path / "inside")]
    fighting = [subprocess.Popen(arguments, stderr=subprocess.PIPE) for _ in range(4)]
    for process in fighting:
        said = process.communicate(timeout=60)[1].decode()
        assert process.returncode == 0, said
    assert not any(tmp_path.iterdir()), "nothing is left behind"
