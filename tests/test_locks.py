"""The locks between processes: one holder, nothing believed, and nothing touched that is no lock of ours."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from test_two_at_once import BankMaker, a_file, two_names

from payout_engine import Engine
from payout_engine.app.settings import lock_folder
from payout_engine.domain.errors import ConfigError, Holder, JournalBusyError, JournalFullError
from payout_engine.journal.file_locks import busy, describe, lease, locked
from payout_engine.testing.journal_lines import SOMEBODY

CONTENDER = """
import os, sys
from pathlib import Path
from payout_engine.domain.errors import JournalBusyError
from payout_engine.journal.file_locks import locked
from payout_engine.domain.errors import Holder

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
def test_whatever_a_held_lock_says_it_is_described(tmp_path: Path, content: bytes) -> None:
    """A lock's file that was damaged or written by somebody else is held all the same, and told without a fault."""
    lock = tmp_path / "held.lock"
    lock.write_bytes(content)
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(JournalBusyError, match=r"was first|is paying"), locked(lock, "it", SOMEBODY):
        pass
    os.close(descriptor)


LEFT_BY_US = {"nothing": b"", "zeros": b"\0" * 100, "a holder": msgspec.json.encode(SOMEBODY)}


@pytest.mark.parametrize("content", LEFT_BY_US.values(), ids=LEFT_BY_US)
def test_what_a_dead_holder_left_is_taken_over(tmp_path: Path, content: bytes) -> None:
    """Whatever a kill or a loss of power may leave of a lock of ours locks nobody out."""
    lock = tmp_path / "left.lock"
    lock.write_bytes(content)
    with locked(lock, "it", SOMEBODY):
        assert msgspec.json.decode(lock.read_bytes(), type=Holder) == SOMEBODY
    assert not lock.exists()


def precious(place: Path, what: str) -> Path:
    """Put something in the place of a lock that is none, and return the file that holds what must not be lost."""
    away = place.with_name("precious")
    if what.startswith("a file with"):
        place.write_text("X" if what.endswith("letter") else "precious")
        return place
    if what == "a folder":
        place.mkdir()
        return place
    if what == "a pipe":
        os.mkfifo(place)
        return place
    if what == "a socket":
        with socket.socket(socket.AF_UNIX) as here:
            here.bind(str(place))
        return place
    if what == "a link to nothing":
        place.symlink_to(away)
        return away
    away.write_text("" if what.endswith("empty file") else "precious")
    place.symlink_to(away) if what == "a link" else place.hardlink_to(away)
    return away


NO_LOCKS = [
    *("a file with text", "a link", "a link to nothing", "a hard link", "a hard link to an empty file"),
    *("a folder", "a pipe", "a socket", "a file with one letter"),
]


@pytest.mark.parametrize("what", NO_LOCKS)
def test_what_is_no_lock_of_ours_is_left_as_it_is(tmp_path: Path, what: str) -> None:
    """Neither followed, truncated, written, removed nor given another mode; the error names it and the way out."""
    place = tmp_path / "a.lock"
    kept = precious(place, what)
    before = [os.lstat(path) if os.path.lexists(path) else None for path in (place, kept)]
    refused = pytest.raises(ConfigError, match=r"a\.lock is in the place of a lock, and is none")
    with refused, locked(place, "it", SOMEBODY):
        pass
    after = [os.lstat(path) if os.path.lexists(path) else None for path in (place, kept)]
    assert [found and (found.st_ino, found.st_mode, found.st_mtime_ns, found.st_size) for found in after] == [
        found and (found.st_ino, found.st_mode, found.st_mtime_ns, found.st_size) for found in before
    ]
    if kept.is_file() and not what.endswith("empty file"):
        assert kept.read_text() in ("precious", "X")


def test_what_took_the_place_of_a_held_lock_is_not_removed(tmp_path: Path) -> None:
    """Only the file that was locked is removed, and only while it has its name."""
    lock = tmp_path / "a.lock"
    with locked(lock, "it", SOMEBODY):
        lock.rename(tmp_path / "moved.lock")
        lock.write_text("precious")
    assert lock.read_text() == "precious"


@pytest.mark.parametrize("which", ["the account's", "the key's"])
async def test_a_link_in_the_place_of_a_lock_pays_nobody(tmp_path: Path, bank: BankMaker, which: str) -> None:
    """Beside the journal, and in the user's folder: nothing is sent, and where the link leads nothing changes."""
    async with bank() as server:
        async with Engine.open(two_names(server, tmp_path / "payouts.db")) as engine:
            run = await engine.submit(a_file(tmp_path, "salaries", 0, 5))
            (key,) = await engine.accounts.locks(["rest"])
            place = tmp_path / "payouts.db.account_rest-4b3c.lock" if which == "the account's" else key
            if which == "the account's":
                async with (await engine.journal()).lease("account rest", SOMEBODY):
                    (place,) = tmp_path.glob("payouts.db.account_rest*.lock")
            kept = precious(place, "a link")
            with pytest.raises(ConfigError, match="in the place of a lock"):
                [outcome async for outcome in engine.pay(run)]
            assert kept.read_text() == "precious" and place.is_symlink()
        assert not server.paid()


@pytest.mark.parametrize("umask", [0, 0o777])
def test_locks_are_their_users_alone_under_any_umask(tmp_path: Path, umask: int) -> None:
    """The folder and what had to be made above it 0700, the locks 0600; also where the folder was made wider before."""
    before = os.umask(umask)
    try:
        folder = lock_folder()
        folder.chmod(0o777)
        folder.parent.chmod(0o755)
        assert lock_folder() == folder
        with locked(folder / "a.lock", "it", SOMEBODY):
            assert stat.S_IMODE((folder / "a.lock").stat().st_mode) == 0o600
    finally:
        os.umask(before)
    for path in (folder, folder.parent, folder.parent.parent):
        assert path == tmp_path / "state" or path.is_relative_to(tmp_path / "state")
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["payout_engine", "payout_engine/locks"])
@pytest.mark.parametrize("what", ["a link", "somebody else's", "a file"])
def test_a_folder_that_others_could_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    """Through it somebody else could let two processes pay at once; nothing of it is changed."""
    place = tmp_path / "state" / name
    place.parent.mkdir(parents=True, mode=0o700)
    if what == "a link":
        (tmp_path / "theirs").mkdir(mode=0o755)
        place.symlink_to(tmp_path / "theirs")
    elif what == "a file":
        place.write_text("precious")
    else:
        place.mkdir(mode=0o755)
        monkeypatch.setattr("os.geteuid", lambda: place.stat().st_uid + 1)
    mode = place.stat().st_mode
    with pytest.raises(ConfigError, match=r"state/payout_engine.* (is a link|belongs to another user)"):
        lock_folder()
    assert place.stat().st_mode == mode


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


def test_a_lock_whose_file_vanished_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last holder removed it between our opening and our locking it: held is a file that has its name."""
    lock, locking, tried = tmp_path / "a.lock", fcntl.flock, list[int]()

    def vanishes(descriptor: int, operation: int) -> None:
        if not tried:
            lock.unlink()
        tried.append(descriptor)
        locking(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", vanishes)
    with locked(lock, "it", SOMEBODY):
        assert len(tried) == 2
        assert lock.exists()
        with pytest.raises(JournalBusyError), locked(lock, "it", SOMEBODY):
            pytest.fail("held twice")


def test_a_longer_text_of_a_dead_holder_does_not_show_below_ours(tmp_path: Path) -> None:
    """Whoever comes second reads who holds it now, and nothing of who held it before."""
    lock = tmp_path / "left.lock"
    lock.write_bytes(msgspec.json.encode(msgspec.structs.replace(SOMEBODY, name="n" * 500)))
    with locked(lock, "it", SOMEBODY), pytest.raises(JournalBusyError) as refused, locked(lock, "it", SOMEBODY):
        pass
    assert refused.value.holder == SOMEBODY


def test_no_lock_leaves_a_file_open(tmp_path: Path) -> None:
    """Given back, held by another or refused, however often: a long-running program would run out of them."""
    (tmp_path / "no.lock").write_text("precious")
    open_before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        with locked(tmp_path / "a.lock", "it", SOMEBODY):
            with pytest.raises(JournalBusyError), locked(tmp_path / "a.lock", "it", SOMEBODY):
                pass
            with pytest.raises(ConfigError), locked(tmp_path / "no.lock", "it", SOMEBODY):
                pass
    assert len(list(Path("/dev/fd").iterdir())) == open_before


NAMES = ["account bf", "account_bf", "account/bf", "a" * 40, "a" * 41, "a" * 40 + "b", "content é", "content e"]


def test_no_two_rights_share_a_lock(tmp_path: Path) -> None:
    """Whatever their names are made of, and however long they are; and one right has one lock, also over a link."""
    journal, link = tmp_path / "payouts.db", tmp_path / "link.db"
    journal.touch()
    link.symlink_to(journal)
    with ExitStack() as held:
        for name in NAMES:
            held.enter_context(lease(journal, name, SOMEBODY))
        assert len(list(tmp_path.glob("payouts.db.*.lock"))) == len(NAMES)
        assert (tmp_path / "payouts.db.account_bf.lock").exists(), "a plain name is its own"
        for name in NAMES:
            with pytest.raises(JournalBusyError), lease(link, name, SOMEBODY):
                pass
    assert not list(tmp_path.glob("*.lock"))


def test_a_lease_that_cannot_be_made_is_said_with_its_place(tmp_path: Path) -> None:
    """Nobody pays without it."""
    (tmp_path / "file").touch()
    refused = pytest.raises(JournalFullError, match=r"file/payouts\.db.*\.lock cannot be made")
    with refused, lease(tmp_path / "file" / "payouts.db", "account bf", SOMEBODY):
        pass


HOLDERS = {
    "Another process was first": None,
    "Process 7 is paying, since 1970-01-01 00:00 UTC": Holder(pid=7, task="paying", journal=""),
    "Process 7 is validating a.csv, since 2026-11-20 07:06 UTC": Holder(
        pid=7, task="validating", journal="", name="a.csv", since=1_795_158_360.0
    ),
    "Process 7 is paying run r-1 with the journal /j.db, since 1970-01-01 00:00 UTC": Holder(
        pid=7, task="paying", journal="/j.db", run_id="r-1"
    ),
    "Process 7 is paying run r-1 (a.csv) with the journal /j.db, since 1970-01-01 00:00 UTC": Holder(
        pid=7, task="paying", journal="/j.db", run_id="r-1", name="a.csv"
    ),
}


@pytest.mark.parametrize(("sentence", "holder"), HOLDERS.items(), ids=["nobody", "bare", "file", "run", "all"])
def test_who_holds_a_lock_is_said_as_far_as_it_is_known(sentence: str, holder: Holder | None) -> None:
    """The process, what it does, with which run, file and journal, and since when."""
    assert describe(holder) == sentence
    assert busy("account bf", holder) == (
        f"{sentence}. Only one may use account bf at a time: wait, or end the other, and run the command again."
    )
