"""The disk under simulated journals: SQLite's own, except that it may be full, and that no power is ever lost.

A full disk refuses every write as the operating system would, so that what becomes of a transaction, and of the others
that share its commit, is SQLite's doing and ours. `simulation.py` mounts one for each seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

_PLAIN = apsw.Connection(":memory:").open_vfs
"""The name of SQLite's own way to files."""


class Disk:
    """The disk that all processes share.

    Attributes:
        full: set by whoever fills it. SQLite's writes then fail, and its reads do not.
        writes: how many of SQLite's writes it took.
        refusals: how many it refused.
    """

    def __init__(self) -> None:
        self.full = False
        self.writes = 0
        self.refusals = 0

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Let everything that SQLite opens meanwhile lie on this disk. It must be closed again before this ends."""
        mount = _Mount(self)
        apsw.set_default_vfs(mount.name)
        try:
            yield
        finally:
            apsw.set_default_vfs(_PLAIN)
            mount.unregister()


class _Mount(apsw.VFS):
    """What SQLite opens files through."""

    def __init__(self, disk: Disk) -> None:
        self.name = f"payout-engine-{id(disk)}"
        self._disk = disk
        super().__init__(self.name, _PLAIN)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _File(self._disk, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(_PLAIN, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._disk.full:
            self._disk.refusals += 1
            raise apsw.FullError("the disk is full")
        self._disk.writes += 1
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Nothing: a simulated process is killed, but the machine under it stays up."""
