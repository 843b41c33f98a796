"""The disk under simulated journals: SQLite's own, except that it may be full, and that no power is ever lost.

A full disk refuses every write as the operating system would, so that what becomes of a transaction, and of the others
that share its commit, is SQLite's doing and ours. `simulation.py` mounts one for each seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw

_PLAIN = apsw.Connection(":memory:").open_vfs
"""The name of SQLite's own way to files."""


class Disk:
    """The disk that all processes share.

    Attributes:
        full: while it is, SQLite's writes fail, and its reads do not.
        writes: how many of SQLite's writes it took.
        refusals: how many it refused.
    """

    def __init__(self) -> None:
        self.full = False
        self.writes = 0
        self.refusals = 0
        self._fills_at: int | None = None
        self._notify: Callable[[], None] = lambda: None

    def fill(self, after: int, notify: Callable[[], None]) -> None:
        """Be full after so many more writes, which may be in the middle of a commit, and tell it then."""
        self._fills_at, self._notify = self.writes + after, notify

    def empty(self) -> None:
        """Have room for everything."""
        self.full, self._fills_at = False, None

    def take(self) -> None:
        """Take one write.

        Raises:
            apsw.FullError: there is no room for it.
        """
        if self.writes == self._fills_at and not self.full:
            self.full = True
            self._notify()
        if self.full:
            self.refusals += 1
            raise apsw.FullError("the disk is full")
        self.writes += 1

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Let everything that SQLite opens meanwhile lie on this disk. It must be closed again before this ends."""
        mount, complain = _Mount(self), sys.unraisablehook

        def unraisable(info: sys.UnraisableHookArgs) -> None:
            # Where SQLite does not mind a refusal, such as while it tidies up, nobody else does.
            if info.exc_type is not apsw.FullError:
                complain(info)

        apsw.set_default_vfs(mount.name)
        sys.unraisablehook = unraisable
        try:
            yield
        finally:
            sys.unraisablehook = complain
            apsw.set_default_vfs(_PLAIN)
            mount.unregister()


class _Mount(apsw.VFS):
    """What SQLite opens files through."""

    def __init__(self, disk: Disk) -> None:
        self.name = f"payout-engine-{id(disk)}"
        self._disk = disk
        super().__init__(self.name, _PLAIN)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(_PLAIN, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.take()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        """Nothing: a simulated process is killed, but the machine under it stays up."""
