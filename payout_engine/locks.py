"""Locks between processes: files that the operating system frees when their holder dies, and that say who holds them.

A journal's leases are such files, and so is the lock of an account's key in the user's own state folder, which holds
over all journals. Nobody has to clean up after a crash, and no clock is involved. Called by `journal/lease.py` and
`leasing.py`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from payout_engine.clock import text
from payout_engine.errors import JournalBusyError
from payout_engine.model import Holder

CONTENT_BYTES_MAX = 1024 * 1024


class Record(msgspec.Struct, frozen=True):
    """What a lock's file says.

    Attributes:
        holder: who holds it now, or held it last.
        journals: the journals that have paid under this lock, in files that are kept.
    """

    holder: Holder | None = None
    journals: Sequence[str] = ()


@contextmanager
def locked(path: Path, what: str, holder: Holder, *, kept: bool = False) -> Iterator[Record]:
    """Hold the lock of a file; yields what the file said before.

    Args:
        path: the file; its folder must exist.
        what: what is locked, for the message, such as `account bf`.
        holder: who we are, for whoever comes second.
        kept: the file stays afterwards, with the journals that used it; otherwise nothing is left behind.

    Raises:
        JournalBusyError: somebody else holds it; the message says who and what it does.
        OSError: the file cannot be made.
    """
    descriptor = _grasp(path, what)
    try:
        before = _read(descriptor)
        journals = list(dict.fromkeys([*before.journals, holder.journal])) if kept else []
        _write(descriptor, Record(holder, journals))
        yield before
    finally:
        if not kept:
            # Under the lock: whoever opened the file before sees that it is no longer the one of this name.
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)


def peek(path: Path) -> Record:
    """Return what a lock's file says, whoever holds it; an empty record if there is none."""
    try:
        with path.open("rb") as file:
            return _read(file.fileno())
    except OSError:
        return Record()


def _grasp(path: Path, what: str) -> int:
    """Open and lock the file that has this name once it is locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, path):
                return descriptor
        except BlockingIOError:
            holder = _read(descriptor).holder
            os.close(descriptor)
            raise JournalBusyError(busy(what, holder), holder) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of its name: its last holder may have removed it since we opened it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> Record:
    """Return what a file says. The first line counts: a crash may have left the end of an older, longer one."""
    line = os.pread(descriptor, CONTENT_BYTES_MAX, 0).partition(b"\n")[0]
    try:
        return msgspec.json.decode(line, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Record()


def _write(descriptor: int, record: Record) -> None:
    content = msgspec.json.encode(record) + b"\n"
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))
    os.fsync(descriptor)


def busy(what: str, holder: Holder | None) -> str:
    """Return sentences about who holds a lock, and what to do."""
    return f"{describe(holder)}. Only one may use {what} at a time: wait, or end the other, and run the command again."


def describe(holder: Holder | None) -> str:
    """Say who holds a lock, what for, and since when; without a full stop."""
    if holder is None:
        return "Another process was first"
    run = f" run {holder.run_id}" if holder.run_id else ""
    name = f" ({holder.name})" if holder.name and run else f" {holder.name}" if holder.name else ""
    journal = f" with the journal {holder.journal}" if holder.journal else ""
    return f"Process {holder.pid} is {holder.task}{run}{name}{journal}, since {text(holder.since)[11:16]} UTC"
