"""What SQLite's errors mean to the person who runs a payout: one table, sentences that name the file and the remedy."""

from __future__ import annotations

from pathlib import Path

import apsw

from payout_engine.domain.errors import (
    IllegalMoveError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    PayoutEngineError,
)

LIFECYCLE_PREFIX = "lifecycle: "
"""How the messages of the guards in `migrations/1.sql` begin."""

_CANNOT_WRITE = (apsw.FullError, apsw.ReadOnlyError, apsw.IOError, apsw.CantOpenError, apsw.PermissionsError)
_DAMAGED = (apsw.NotADBError, apsw.CorruptError, apsw.FormatError)


def fault(error: Exception, path: Path) -> Exception:
    """Return the error to raise for `error`, which came out of SQLite while the journal at `path` was in use.

    Errors that are not SQLite's are returned as they are: they are ours, or a fault of the caller.
    """
    if isinstance(error, PayoutEngineError) or not isinstance(error, apsw.Error):
        return error
    if isinstance(error, apsw.ConstraintError) and LIFECYCLE_PREFIX in str(error):
        return IllegalMoveError(str(error).partition(LIFECYCLE_PREFIX)[2])
    if isinstance(error, _CANNOT_WRITE):
        return JournalFullError(
            f"The journal {path} cannot be written ({error}). Make room on the disk, or make the file and its folder "
            "writable, and run the same command again."
        )
    if isinstance(error, _DAMAGED):
        return JournalDamagedError(
            f"The journal {path} is not a readable journal ({error}). Nothing was sent. A backup does not know "
            "what was sent since it was made, and a new journal knows nothing: compare with the provider's own list "
            "before any of these files is paid again."
        )
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return JournalError(
            f"The journal {path} is in use by another program and did not become free. End that program, or wait for "
            "it, and run the same command again."
        )
    return JournalError(f"The journal {path} cannot be used: {error}.")
