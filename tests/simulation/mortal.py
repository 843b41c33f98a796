"""The locks of a process that may die, and what it remembers of journals: both real, in the simulated user's folder.

A lock is an open file, so only the operating system can free it when its holder is killed; in a simulation all
processes are one to the operating system, and the `Fuse` of each has to do it. `processes.py` makes these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import apsw

from payout_engine.app import locks
from payout_engine.app.remembered import BegunContent, Remembered
from payout_engine.domain.errors import Holder
from payout_engine.domain.model import Run
from payout_engine.journal import file_locks
from payout_engine.journal.file_locks import locked
from payout_engine.ports.journal import Mark
from simulation.crashing import Fuse

_LOCKING = (file_locks, locks)
"""The modules that take locks."""

_living: ContextVar[Fuse | None] = ContextVar("living", default=None)


@contextmanager
def living(fuse: Fuse) -> Iterator[None]:
    """Let every lock that is taken inside, also by tasks that are started there, be one of this process."""
    before = _living.set(fuse)
    try:
        yield
    finally:
        _living.reset(before)


@contextmanager
def mortal_locks() -> Iterator[None]:
    """Let the death of a process free its locks, of leases as of keys, and leave their files where they are."""
    for module in _LOCKING:
        vars(module)["locked"] = _mortally_locked
    try:
        yield
    finally:
        for module in _LOCKING:
            vars(module)["locked"] = locked


@contextmanager
def _mortally_locked(path: Path, what: str, holder: Holder) -> Iterator[None]:
    fuse = _living.get()
    assert fuse is not None, "only a living process takes locks"
    fuse.check()
    lock = locked(path, what, holder)
    lock.__enter__()

    def release() -> None:
        # Nobody tidies up for the dead: the other name keeps the file.
        kept = path.with_suffix(".kept")
        os.link(path, kept)
        lock.__exit__(None, None, None)
        kept.replace(path)

    fuse.at_death[release] = None
    try:
        yield
    finally:
        if not fuse.dead:
            del fuse.at_death[release]
            lock.__exit__(None, None, None)


class MortalRemembered(Remembered):
    """What the user's keys remember, to a process that may die; each change of it is a step."""

    def __init__(self, fuse: Fuse, beginning: Callable[[str], None]) -> None:
        """Prepare to remember.

        Args:
            fuse: the process.
            beginning: told of each content before it is remembered to be begun.
        """
        super().__init__()
        self._fuse = fuse
        self._beginning = beginning
        fuse.at_death[self._die] = None

    def begin(
        self,
        keys: Collection[str],
        mark: Mark,
        path: str,
        run: Run,
        digest: str,
        given_up: Collection[BegunContent] = (),
    ) -> None:
        """Remember that a run is begun; see `Remembered.begin`."""
        moment = self._fuse.enter("remember")
        self._beginning(digest)
        super().begin(keys, mark, path, run, digest, given_up)
        self._fuse.leave("remember", moment)

    def adopt(self, mark: Mark, path: str, begun: Collection[str]) -> None:
        """Let an older copy be the journal; see `Remembered.adopt`."""
        moment = self._fuse.enter("adopt")
        super().adopt(mark, path, begun)
        self._fuse.leave("adopt", moment)

    def keep(self, mark: Mark) -> Mark | None:
        """Keep how far a journal has come; see `Remembered.keep`."""
        moment = self._fuse.enter("keep")
        further = super().keep(mark)
        self._fuse.leave("keep", moment)
        return further

    def close(self) -> None:
        """Let go of the file; of a dead process, nothing is left to close."""
        # SQLite tidies up then, and would not mind that the disk is full; only a simulated disk tells.
        with suppress(apsw.FullError):
            super().close()
        self._fuse.at_death.pop(self._die, None)

    @contextmanager
    def _connection(self, begin: str = "BEGIN", *, durable: bool = False) -> Iterator[apsw.Connection]:
        self._fuse.check()
        with super()._connection(begin, durable=durable) as db:
            yield db

    def _die(self) -> None:
        if self._opened is not None:
            self._opened.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        super().close()
