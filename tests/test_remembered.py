"""What a user's keys remember: a lower bound that outlives crashes, kept before anything is sent."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import apsw
import pytest
from test_two_at_once import BankMaker, a_file, two_names

from payout_engine import Engine
from payout_engine.app.remembered import Remembered
from payout_engine.app.settings import state_folder
from payout_engine.domain.errors import ConfigError, JournalError
from payout_engine.domain.model import Run
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.ports.journal import Mark
from payout_engine.testing.journal_lines import ORANGE, approved, chunk, run, states
from payout_engine.testing.journal_resends import PAYS_ONCE, doubtful

MARKS_EACH = 400

KEEPER = """
import os, signal, sys
from payout_engine.ports.journal import Mark
from payout_engine.app.remembered import Remembered

name, last = sys.argv[1], int(sys.argv[2])
memory = Remembered()
assert memory.known(name) is not None
for seq in range(2, last + 1):
    assert memory.keep(Mark(name, seq, f"hash {seq}", 0.0)) is None
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def memory() -> Iterator[Remembered]:
    opened = Remembered()
    yield opened
    opened.close()


@pytest.fixture
def file() -> Path:
    return state_folder() / "remembered.db"


def mark(identity: str, seq: int) -> Mark:
    return Mark(identity, seq, f"hash {seq}", 0.0)


def begun(memory: Remembered, identity: str, seq: int, begins: Run, key: str = "key") -> None:
    memory.begin([key], mark(identity, seq), f"/{identity}.db", begins, begins.digest)


def test_marks_outlive_the_processes_that_kept_them(memory: Remembered) -> None:
    """Four processes write at once and die by kill -9: every last mark is there, and no write was refused."""
    for name in "abcd":
        begun(memory, name, 1, run(name))
    dying = [subprocess.Popen([sys.executable, "-c", KEEPER, name, str(MARKS_EACH)]) for name in "abcd"]
    assert [process.wait(60) for process in dying] == [-signal.SIGKILL] * 4
    for name in "abcd":
        known = memory.known(name)
        assert known is not None and known.mark == mark(name, MARKS_EACH)


def test_a_mark_goes_only_forward_and_only_where_a_key_is_remembered(memory: Remembered) -> None:
    """The further mark is returned instead; a journal that never paid with a remembered key leaves nothing."""
    begun(memory, "a", 5, run("one"))
    assert memory.keep(mark("a", 4)) == mark("a", 5)
    assert memory.keep(mark("unknown", 4)) is None and memory.known("unknown") is None
    begun(memory, "a", 3, run("two"))
    known = memory.known("a")
    assert known is not None and known.mark.seq == 5
    assert memory.keep(mark("a", 6)) is None
    of_a_copy = Mark("a", 6, "another hash", 0.0)
    assert memory.keep(of_a_copy) == mark("a", 6), "as far, and another: both have gone on apart"
    memory.adopt(mark("a", 3), "/copy.db", {"one"})
    known = memory.known("a")
    assert known is not None and (known.mark.seq, str(known.path)) == (3, "/copy.db")


def test_what_others_began_is_told_in_its_order(memory: Remembered) -> None:
    """Of other journals, of the same content and key; once begun here, only what was begun later counts."""
    ours = run("ours", digest="D")
    for name in ("early", "other content", "other key"):
        digest = "E" if name == "other content" else "D"
        begun(memory, name, 1, run(name, digest=digest), "other" if name == "other key" else "key")
    begun(memory, "us", 1, ours)
    begun(memory, "late", 1, run("late", digest="D"))

    def told(run_id: str) -> list[str]:
        return [other.run_id for other in memory.others(["key"], "D", "us", run_id)]

    assert told("") == ["early", "late"]
    assert told("ours") == ["late"]
    begun(memory, "us", 1, ours)  # It was not approved then, so it begins only now.
    assert told("ours") == []


def test_a_journal_is_where_it_was_used_last(memory: Remembered) -> None:
    """Though its log is shorter there than what is remembered; others stay where they are."""
    begun(memory, "a", 5, run("one"))
    begun(memory, "b", 5, run("two"))

    def told() -> list[tuple[str, int]]:
        known = [memory.known(name) for name in "ab"]
        return [(str(each.path), each.mark.seq) for each in known if each is not None]

    memory.begin(["key"], mark("a", 3), "/elsewhere.db", run("three"), "D")
    assert told() == [("/elsewhere.db", 5), ("/b.db", 5)]
    memory.move("b", "/moved.db")
    assert told() == [("/elsewhere.db", 5), ("/moved.db", 5)]


def test_a_key_is_used_once_anything_was_begun_with_it(memory: Remembered) -> None:
    """And no other key is."""
    begun(memory, "a", 1, run("one"))
    assert memory.used(["never", "key"]) and not memory.used(["never"])


def test_what_was_given_up_is_forgotten_and_nothing_else(memory: Remembered) -> None:
    """Of others; and a run of another journal that has the same name is another run."""
    ours = run("ours", digest="D")
    for name in ("lost", "kept"):
        begun(memory, name, 1, run(name, digest="D"))
    begun(memory, "third", 1, ours)
    (lost, *_) = memory.others(["key"], "D", "us", "")
    memory.begin(["key"], mark("us", 1), "/us.db", ours, "D", [lost])
    assert [each.journal.mark.identity for each in memory.others(["key"], "D", "us", "")] == ["kept", "third"]
    assert [each.run_id for each in memory.others(["key"], "D", "else", "")] == ["kept", "ours", "ours"]


def test_what_was_begun_outlives_the_loss_of_power(memory: Remembered) -> None:
    """Marks between are a lower bound, and may be a little behind."""
    begun(memory, "a", 1, run("one"))
    assert memory._opened is not None and memory._opened.pragma("synchronous") == 2
    memory.keep(mark("a", 2))
    assert memory._opened.pragma("synchronous") == 1
    memory.adopt(mark("a", 1), "/a.db", set())
    assert memory._opened.pragma("synchronous") == 2


def test_what_fails_on_the_way_leaves_nothing(memory: Remembered) -> None:
    """Neither a part of what was to be remembered nor a transaction that would be in the way."""
    with pytest.raises(TypeError):
        memory.begin(["key", object()], mark("a", 1), "/a.db", run("one"), "D")  # type: ignore[list-item]
    assert not memory.used(["key"])
    begun(memory, "a", 1, run("one"))
    assert memory.used(["key"])


def test_another_that_writes_is_waited_for_and_then_named(
    memory: Remembered, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be kept is an error of the journal, so that nothing is sent; afterwards all is as before."""
    monkeypatch.setattr("payout_engine.app.remembered._BUSY_TIMEOUT_MILLISECONDS", 1_000)
    begun(memory, "a", 1, run("one"))
    other = apsw.Connection(str(file))
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.2, other.execute, ["ROLLBACK"])
    done.start()
    assert memory.keep(mark("a", 2)) is None
    done.join()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match=r"remembered\.db.*cannot be written"):
        memory.keep(mark("a", 3))
    with pytest.raises(ConfigError, match=r"remembered\.db.*cannot be written"):
        begun(memory, "a", 3, run("two"))
    other.execute("ROLLBACK")
    other.close()
    assert memory.keep(mark("a", 3)) is None


def test_a_file_that_cannot_be_made_is_said(memory: Remembered, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, with the file; nothing is remembered then, and nothing may be begun."""
    monkeypatch.setattr("payout_engine.app.remembered.FILE_NAME", "x" * 300)
    with pytest.raises(ConfigError, match=r"which remembers who has paid, cannot be made \(File name too long\)"):
        begun(memory, "a", 1, run("one"))


def test_it_is_let_go_of_whole(memory: Remembered, file: Path) -> None:
    """Closing leaves the file alone; what is open answers though somebody removed the file meanwhile."""
    begun(memory, "a", 1, run("one"))
    memory.close()
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == ["remembered.db"]
    assert memory.known("a") is not None
    for path in file.parent.glob("remembered.db*"):
        path.unlink()
    assert memory.known("a") is not None


def test_nothing_is_made_by_looking(memory: Remembered) -> None:
    """Where nobody ever paid, there is no file afterwards either."""
    assert memory.known("a") is None and not memory.used([]) and memory.keep(mark("a", 1)) is None
    assert not state_folder().exists()


@pytest.mark.parametrize("umask", [0, 0o777])
def test_it_is_its_users_alone_under_any_umask(memory: Remembered, file: Path, umask: int) -> None:
    """The file and what SQLite keeps beside it; also where it was made wider before."""
    before = os.umask(umask)
    try:
        begun(memory, "a", 1, run("one"))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        memory.close()
        file.chmod(0o666)
        begun(memory, "a", 2, run("two"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir() if path.is_file()}
    assert set(modes) == {"remembered.db", "remembered.db-wal", "remembered.db-shm"}
    assert set(modes.values()) == {0o600}


UNUSABLE = {
    "text": "cannot be read .*Put a copy of it back",
    "another database": "another program, or by another version",
    "a newer version": "another program, or by another version",
    "a strange kind": "another program, or by another version",
    "a strange version": "another program, or by another version",
    "a link": "is a link, or no file",
    "a hard link": "is a link, or no file",
    "a folder": "is a link, or no file",
}


@pytest.mark.parametrize("what", UNUSABLE)
async def test_a_memory_that_cannot_be_used_pays_nobody(tmp_path: Path, bank: BankMaker, file: Path, what: str) -> None:
    """Nobody can say then who has paid: the error names the file and what to do, and the file is left as it was."""
    precious = tmp_path / "precious"
    file.parent.mkdir(parents=True)
    if what == "text":
        file.write_text("damaged" * 1000)
    elif what == "a folder":
        file.mkdir()
    elif what in ("a link", "a hard link"):
        precious.touch()  # Empty, so that nothing but the link itself speaks against it.
        file.symlink_to(precious) if what == "a link" else file.hardlink_to(precious)
    else:
        db = apsw.Connection(str(file))
        if what.startswith("a strange"):
            db.execute(f"PRAGMA {'application_id' if what.endswith('kind') else 'user_version'} = 7")
        else:
            db.execute("CREATE TABLE t (x)")
        if what == "a newer version":
            db.execute(f"PRAGMA application_id = {0x50614F72}; PRAGMA user_version = 99")
        db.close()
    content = file.read_bytes() if file.is_file() else b""
    async with bank() as server:
        async with Engine.open(two_names(server, tmp_path / "payouts.db")) as engine:
            submission = await engine.submit(a_file(tmp_path, "salaries", 0, 5))
            for attempt in (engine.check_accounts(submission.run_id), anext(engine.pay(submission))):
                with pytest.raises(ConfigError, match=rf"remembered\.db.*{UNUSABLE[what]}"):
                    await attempt
            assert (await engine.run(submission.run_id)).approved_at is None
            assert [found.run_id for found in await engine.runs()] == [submission.run_id], "looking still works"
        assert not server.paid()
    assert content == (file.read_bytes() if file.is_file() else b"")


# ------------------------------------------------------------------------------------------ the journal, and its marks


async def test_every_promise_to_send_is_marked_before_it_is_answered(tmp_path: Path) -> None:
    """Intents and repetitions, alone and many in one commit: whoever is answered finds its entry within the mark."""
    kept: list[int] = []

    def remember(mark: Mark) -> None:
        kept.append(mark.seq)

    async with SqliteJournal.open(tmp_path / "payouts.db", remember=remember) as journal:
        await approved(journal, "run", *(chunk(range(start, start + 3)) for start in range(1, 40, 3)))
        assert not kept, "nothing was promised yet"

        async def intend(ready: object) -> None:
            await journal.intend(ready)  # type: ignore[arg-type]
            end = await journal.mark()
            assert end is not None and kept[-1] <= end.seq
            marked.append(max(kept))

        marked: list[int] = []
        async with anyio.create_task_group() as tasks:
            for ready in await journal.ready("run", ORANGE, 0, 100):
                tasks.start_soon(intend, ready)
        end = await journal.mark()
        assert end is not None and max(kept) == end.seq and len(marked) == 13
        await journal.recover("run")
        await journal.intend_resend((await doubtful(journal))[0], PAYS_ONCE)
        end = await journal.mark()
        assert end is not None and kept[-1] == end.seq
        first = await journal.mark(1)
        assert first is not None and first.identity == end.identity == first.hash
        assert await journal.mark(end.seq + 1) is None


@pytest.mark.parametrize("trouble", ["another copy", "no room"])
async def test_what_cannot_be_marked_is_not_sent(tmp_path: Path, trouble: str) -> None:
    """The promise is refused and stays without an end, so `recover` makes it unknown; other requests are answered."""

    def remember(mark: Mark) -> Mark | None:
        if trouble == "no room":
            raise JournalError("no room")
        return Mark(mark.identity, mark.seq + 1, "of another copy", 0.0)

    async with SqliteJournal.open(tmp_path / "payouts.db", remember=remember) as journal:
        await approved(journal, "run", chunk([1, 2]))
        (ready,) = await journal.ready("run", ORANGE, 0, 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.note, "run", "beside", "it")
            with pytest.raises(JournalError, match=r"no room|Another copy"):
                await journal.intend(ready)
        assert [kind for _, kind, _ in await journal.notes("run")] == ["beside"]
        await journal.recover("run")
        assert set((await states(journal, "run")).values()) == {State.UNKNOWN}


async def test_another_process_of_the_same_journal_may_be_further(tmp_path: Path) -> None:
    """A mark that is further and in this file's own log is no other copy's."""
    held: list[Mark] = []
    async with SqliteJournal.open(tmp_path / "payouts.db", remember=lambda mark: held[-1] if held else None) as journal:
        await approved(journal, "run", chunk([1]), chunk([2]))
        one, two = await journal.ready("run", ORANGE, 0, 2)
        await journal.intend(one)
        await journal.note("run", "later", "than the mark")
        end = await journal.mark()
        assert end is not None
        held.append(end)
        await journal.intend(two)
