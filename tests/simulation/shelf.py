"""Where the journals of a simulated world are, and what people do to their files while no engine lives, or one does.

A file may be copied, put back, laid beside the original, moved or deleted; and one may be carried to another machine,
where nothing is remembered. Each world has a state folder of its own, so that locks and memory are real and its own.
`simulation.py` has one shelf for each seed.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

import apsw
import msgspec

from payout_engine.domain.model import Choice, ControlKind

HOME = "payouts.db"
OTHER = "other.db"
COPY = "copy.db"
MOVED = "moved.db"

_STATE = "XDG_STATE_HOME"


class Deed(StrEnum):
    """What somebody does to the journal, or to the copy of it that was kept."""

    KEEP = "keeps a copy"
    PUT_BACK = "puts the copy in its place"
    LAY_BESIDE = "lays the copy beside it"
    MOVE = "moves it"
    DELETE = "deletes it"
    LEAVE = "carries it to another machine"


class JournalFile(msgspec.Struct, kw_only=True, eq=False):
    """One journal's file, and what was witnessed of what stands in it.

    Attributes:
        path: where it is.
        number: tells it from every other file that has been there or elsewhere.
        lineage: the same for all copies.
        adopted: it was behind when a person, or another machine, let it be the journal.
        refused: the contents that it was not let go on with.
        run_of: the run of each chunk.
        requests: what was asked of runs, and whether it was heard.
        decided: by provider key, the last word of a person on a payout.
        withdrawn: the runs that a person cancelled.
        released: the keys that a person let be sent again.
    """

    path: Path
    number: int
    lineage: int
    adopted: bool = False
    refused: set[str] = msgspec.field(default_factory=set)
    run_of: dict[int, str] = msgspec.field(default_factory=dict)
    requests: dict[tuple[str, ControlKind], bool] = msgspec.field(default_factory=dict)
    decided: dict[str, Choice] = msgspec.field(default_factory=dict)
    withdrawn: set[str] = msgspec.field(default_factory=set)
    released: set[str] = msgspec.field(default_factory=set)

    def events(self, run_id: str) -> Path:
        """Return where what happens to a run is told; each file has its own, as it would with another folder."""
        return self.path.parent / f"{self.number}-{run_id}.jsonl"


class Shelf:
    """The journals of one world.

    Attributes:
        copied: the lineages of which there is, or was, more than one file.
        forgotten: whether the world was left for another machine.

    Args:
        folder: for everything.
        chance: decides how a file is copied.
        tell: told what is done.
    """

    def __init__(self, folder: Path, chance: random.Random, notify: Callable[[str], None]) -> None:
        self.copied: set[int] = set()
        self.forgotten = False
        self._folder = folder
        self._chance = chance
        self._notify = notify
        self._files: dict[str, JournalFile] = {}
        self._kept: JournalFile | None = None
        self._numbers = 0
        self._lineages = 0
        self._machines = 0
        self._begun: dict[str, set[int]] = {}
        (folder / "kept").mkdir()

    def file(self, name: str) -> JournalFile:
        """Return the journal of a name; it is a new one if there is none."""
        if name not in self._files:
            self._lineages += 1
            self._files[name] = JournalFile(path=self._folder / name, number=self._number(), lineage=self._lineages)
        return self._files[name]

    def names(self) -> Sequence[str]:
        """Return the names of the journals that are there."""
        return [name for name, file in self._files.items() if file.path.exists()]

    def is_alone(self, file: JournalFile) -> bool:
        """Whether no other journal is there."""
        return all(self._files[name] is file for name in self.names())

    def beginning(self, file: JournalFile, digest: str) -> None:
        """Note that a journal is about to begin a content."""
        self._begun.setdefault(digest, set()).add(file.lineage)

    def may_be_refused(self, file: JournalFile, digest: str) -> bool:
        """Whether there is a cause not to let a journal go on with a content: a copy of it, or another journal."""
        return file.lineage in self.copied or bool(self._begun.get(digest, set()) - {file.lineage})

    @contextmanager
    def machine(self) -> Iterator[None]:
        """Let the user's state folder be the one of this world."""
        before = os.environ.get(_STATE)
        self._move_in()
        try:
            yield
        finally:
            os.environ.pop(_STATE)
            if before is not None:
                os.environ[_STATE] = before

    def perform(self, deed: Deed, name: str, *, in_use: bool = False) -> None:
        """Do something to a journal, or to the copy that was kept; nothing, where there is none."""
        file = self._files.get(name)
        done = {
            Deed.KEEP: self._keep,
            Deed.PUT_BACK: self._put_back,
            Deed.LAY_BESIDE: self._lay_beside,
            Deed.MOVE: self._move,
            Deed.DELETE: self._delete,
            Deed.LEAVE: self._leave,
        }[deed](name, file if file is not None and file.path.exists() else None, in_use)
        if done:
            self._notify(f"somebody {deed} ({name})")

    # -------------------------------------------------------------------------------------------------------- deeds

    def _keep(self, name: str, file: JournalFile | None, in_use: bool) -> bool:
        if file is None:
            return False
        if not in_use and self._chance.random() < 0.5:
            _checkpoint(file.path)
        self._kept = self._copied(file, self._folder / "kept" / HOME)
        return True

    def _put_back(self, name: str, file: JournalFile | None, in_use: bool) -> bool:
        if self._kept is None:
            return False
        _remove(self._folder / name)
        self._files[name] = self._copied(self._kept, self._folder / name)
        return True

    def _lay_beside(self, name: str, file: JournalFile | None, in_use: bool) -> bool:
        if self._kept is None:
            return False
        _remove(self._folder / COPY)
        self._files[COPY] = self._copied(self._kept, self._folder / COPY)
        return True

    def _move(self, name: str, file: JournalFile | None, in_use: bool) -> bool:
        if file is None or MOVED in self._files:
            return False
        for path in _family(file.path):
            path.rename(self._folder / path.name.replace(name, MOVED, 1))
        self._files[MOVED] = self._files.pop(name)
        self._files[MOVED].path = self._folder / MOVED
        return True

    def _delete(self, name: str, file: JournalFile | None, in_use: bool) -> bool:
        if file is None:
            return False
        _remove(file.path)
        del self._files[name]
        return True

    def _leave(self, name: str, file: JournalFile | None, in_use: bool) -> bool:
        """Take this one along, and nothing else."""
        for other in list(self._files):
            if other != name:
                _remove(self._folder / other)
                del self._files[other]
        self._kept = None
        self.forgotten = True
        self._begun.clear()
        self._move_in()
        return True

    def _move_in(self) -> None:
        self._machines += 1
        os.environ[_STATE] = str(self._folder / f"machine-{self._machines}")

    def _copied(self, file: JournalFile, path: Path) -> JournalFile:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copy(f"{file.path}{suffix}", f"{path}{suffix}")
                continue
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        self.copied.add(file.lineage)
        return JournalFile(
            path=path,
            number=self._number(),
            lineage=file.lineage,
            adopted=file.adopted,
            run_of=dict(file.run_of),
            requests=dict(file.requests),
            decided=dict(file.decided),
            withdrawn=set(file.withdrawn),
            released=set(file.released),
        )

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def _family(path: Path) -> Sequence[Path]:
    """Return the files of a journal: its own, and those that SQLite keeps beside it."""
    beside = [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm")]
    return [each for each in beside if each.exists()]


def _remove(path: Path) -> None:
    for each in _family(path):
        each.unlink()


def _checkpoint(path: Path) -> None:
    """Let everything be in the file itself, as it is when the last process that used it has ended well."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
