"""The right to send for an account: a lock on a file beside the journal, freed when its holder dies."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from payout_engine.errors import JournalBusyError, JournalFullError


@contextmanager
def lease(journal: Path, account: str) -> Iterator[None]:
    """Hold the lease of an account.

    Raises:
        JournalBusyError: somebody else holds it; the message names the process.
        JournalFullError: the lock file cannot be made.
    """
    # Resolved, so that a link to the journal leads to the same lock; hashed, so that no two names share one.
    real, plain = journal.resolve(), re.sub(r"[^A-Za-z0-9_-]", "_", account)
    mark = "" if plain == account else f"-{blake2b(account.encode(), digest_size=4).hexdigest()}"
    path = real.with_name(f"{real.name}.{plain}{mark}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalFullError(
            f"The lock {path} cannot be made ({error.strerror}). Make the journal's folder writable and run the same "
            "command again."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalBusyError(_busy(account, os.pread(descriptor, 32, 0))) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # The file stays: removing it would let two processes hold locks on two files of one name.
        os.close(descriptor)


def _busy(account: str, content: bytes) -> str:
    holder = content.decode(errors="replace").strip()
    named = f" (process {holder})" if holder.isdecimal() else ""
    return (
        f"Another process{named} is paying for account {account}. Wait until it has ended, or end it, and run the same "
        "command again."
    )
