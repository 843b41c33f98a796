"""Locks between processes: files that the operating system frees when their holder dies, and that say who holds them.

A journal's leases are such files, and so is the lock of an account's key in the user's own state folder, which holds
over all journals. Nobody has to clean up after a crash, and no clock is involved. What is not such a file is left as it
is, whatever its name and wherever that leads. Called by `journal/sqlite.py` and `app/locks.py`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

import msgspec

from payout_engine.domain.clock import minute
from payout_engine.domain.errors import ConfigError, Holder, JournalBusyError, JournalFullError

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
        ConfigError: what has this name is no lock of ours. It is left as it is.
        OSError: the file cannot be made.
    """
    descriptor = _grasp(path, what)
    try:
        os.fchmod(descriptor, 0o600)  # Under some umasks nobody else of this user could read who holds it.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        yield
    finally:
        # Under the lock: whoever opened the file before sees that it is no longer the one of this name.
        with suppress(OSError):
            if _is_named(descriptor, path):
                path.unlink()
        os.close(descriptor)


@contextmanager
def lease(journal: Path, name: str, holder: Holder) -> Iterator[None]:
    """Hold a lease; see `Journal.lease`.

    Raises:
        JournalBusyError: somebody else holds it; the message names the process.
        JournalFullError: the lock file cannot be made.
    """
    # Resolved, so that a link to the journal leads to the same lock; hashed, so that no two names share one.
    real, plain = journal.resolve(), re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40]
    mark = "" if plain == name else f"-{blake2b(name.encode(), digest_size=4).hexdigest()}"
    path = real.with_name(f"{real.name}.{plain}{mark}.lock")
    with ExitStack() as held:
        try:
            held.enter_context(locked(path, name, holder))
        except OSError as error:
            raise JournalFullError(
                f"The lock {path} cannot be made ({error.strerror}). Make the journal's folder writable and run the "
                "same command again."
            ) from None
        yield


def _grasp(path: Path, what: str) -> int:
    """Open and lock the file that has this name once it is locked, if it is a lock of ours."""
    while True:
        descriptor = _open(path)
        try:
            _require(stat.S_ISREG(os.fstat(descriptor).st_mode), path)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, path):
                _require(os.fstat(descriptor).st_nlink == 1 and _is_ours(descriptor), path)
                return descriptor
        except BlockingIOError:
            holder = _read(descriptor)
            os.close(descriptor)
            raise JournalBusyError(busy(what, holder), holder) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open the file of a lock, made if there is none; a link is not followed, and nothing is waited for."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        _require(error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO), path)
        raise


def _require(is_ours: bool, path: Path) -> None:
    if not is_ours:
        raise ConfigError(
            f"{path} is in the place of a lock, and is none: payout_engine did not write it. It was left as it is, and "
            "nothing was sent. Move it elsewhere, and give the command again."
        )


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of its name: its last holder may have removed it since we opened it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _is_ours(descriptor: int) -> bool:
    """Whether a file holds what the last holder of a lock left when it died, or nothing at all."""
    # A loss of power may leave zeros, or nothing, of what was written.
    return not os.pread(descriptor, CONTENT_BYTES_MAX, 0).strip(b"\0") or _read(descriptor) is not None


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
    return f"Process {holder.pid} is {holder.task}{run}{name}{journal}, since {minute(holder.since)}"
