"""Locks between processes: files that the operating system frees when their holder dies, and that say who holds them.

A journal's leases are such files, and so is the lock of an account's key in the user's own state folder, which holds
over all journals; beside the latter stays a list of the journals that have paid with the key. Nobody has to clean up
after a crash, and no clock is involved. Called by `journal/lease.py` and `leasing.py`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from payout_engine.clock import text
from payout_engine.errors import ConfigError, JournalBusyError
from payout_engine.model import Holder

CONTENT_BYTES_MAX = 64 * 1024


@contextmanager
def locked(path: Path, what: str, holder: Holder) -> Iterator[None]:
    """Hold the lock of a file, which is made for it and removed with it.

    Args:
        path: the file; its folder must exist.
        what: what is locked, for the message, such as `account bf`.
        holder: who we are, for whoever comes second.

    Raises:
        JournalBusyError: somebody else holds it; the message says who and what it does.
        OSError: the file cannot be made.
    """
    descriptor = _grasp(path, what)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        yield
    finally:
        # Under the lock: whoever opened the file before sees that it is no longer the one of this name.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _grasp(path: Path, what: str) -> int:
    """Open and lock the file that has this name once it is locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, path):
                return descriptor
        except BlockingIOError:
            holder = _read(descriptor)
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


def _read(descriptor: int) -> Holder | None:
    """Return who holds a lock, as far as its file says so."""
    try:
        return msgspec.json.decode(os.pread(descriptor, CONTENT_BYTES_MAX, 0), type=Holder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


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
    since = text(holder.since)[:16].replace("T", " ")
    return f"Process {holder.pid} is {holder.task}{run}{name}{journal}, since {since} UTC"


# ------------------------------------------------------------------------------------------- which journals used a key


def remembered(path: Path) -> Sequence[str]:
    """Return the journals in a list, which need not exist: one JSON text a line, each written whole before it counts.

    Raises:
        ConfigError: the list cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        return [msgspec.json.decode(line, type=str) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigError(
            f"The list {path} of the journals that have paid from an account cannot be read. Nothing was sent. Mend it "
            "(each line is the path of a journal, in quotes); if nothing else helps, remove it, and run no file that "
            "another journal may have paid."
        ) from None


def remember(path: Path, journal: str) -> None:
    """Add a journal to a list, durably, unless it is there. Called with the lock of the key held.

    Raises:
        ConfigError: the list cannot be read.
        OSError: it cannot be written; it is as it was before, to any reader.
    """
    if journal in remembered(path):
        return
    with path.open("ab") as file:
        os.fchmod(file.fileno(), 0o600)
        # What a crash left of a line never counted.
        file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write(msgspec.json.encode(journal) + b"\n")
        file.flush()
        os.fsync(file.fileno())
