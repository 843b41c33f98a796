"""Opening the journal's file: making it, recognising it, bringing it up to date, and refusing what is not ours.

Migrations are numbered from 1 and run in one transaction, so that a journal has one version or the next and nothing
between. Runs in the writer's thread; `SqliteJournal.open` is the only caller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

import apsw

from payout_engine.domain.errors import JournalDamagedError, JournalError, JournalFullError, JournalNewerError
from payout_engine.domain.states import INITIAL_STATES, LETTERS, MOVES
from payout_engine.journal.db import value
from payout_engine.journal.facts import carry_over
from payout_engine.journal.runs import fingerprint
from payout_engine.journal.sqlite_errors import fault

APPLICATION_ID = 0x50614F75
"""Written into the file's header, `PaOu`, so that another program's database is never taken for a journal."""

BUSY_TIMEOUT_MILLISECONDS = 15_000
"""How long to wait for another process that is writing."""

PAGE_CACHE_KIBIBYTES = 4_096
"""Bounds the memory of the journal and, apart, of its temporary tables."""

CHECKPOINT_PAGES = 4_000
"""About 16 MB of write-ahead log: fewer checkpoints than the default, in a file that is still quickly read again."""


VERSION = 8
"""What a journal of this version of the package is. The file of that number in `migrations` brings one there from the
version before."""


def _fill_in_lifecycle(connection: apsw.Connection) -> None:
    connection.executemany(
        "INSERT INTO words (letter, word, birth) VALUES (?, ?, ?)",
        [(letter, state.value, state in INITIAL_STATES) for state, letter in LETTERS.items()],
    )
    connection.executemany(
        "INSERT INTO moves (source, target) VALUES (?, ?)",
        [(LETTERS[source], LETTERS[target]) for source, target in sorted(MOVES)],
    )


AFTERWARDS: Mapping[int, Callable[[apsw.Connection], None]] = {1: _fill_in_lifecycle, 3: fingerprint, 4: carry_over}
"""What a migration does beyond its statements. Migrations are added to and never edited."""


@cache
def _sql(name: str) -> str:
    return files("payout_engine.journal").joinpath(name).read_text(encoding="utf-8")


def connect(path: Path, *, sandbox: bool, scratch: bool, earlier: Path | None) -> apsw.Connection:
    """Open or make a journal and return its connection.

    Args:
        path: the file.
        sandbox: whether the journal is to hold a sandbox's payouts.
        scratch: True for a throw-away journal, which is never synced.
        earlier: a journal to read earlier runs from, attached as `earlier`; nothing is written to it.

    Raises:
        JournalError: it cannot be used; the message says what to do.
    """
    _make_private(path)
    connection = apsw.Connection(
        str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    )
    try:
        _prepare(connection, path, sandbox=sandbox, scratch=scratch)
        if earlier is not None:
            _attach(connection, earlier, sandbox=sandbox)
        connection.execute(_sql("validating.sql"))
    except BaseException:
        connection.close()
        raise
    return connection


def pristine() -> apsw.Connection:
    """Return an empty journal in memory: what the schema of every journal of this version looks like."""
    connection = apsw.Connection(":memory:")
    _bring_up_to_date(connection, sandbox=False)
    return connection


def open_to_read(path: Path) -> apsw.Connection:
    """Open a journal that nothing will be written to: one in use by others, or a read-only copy.

    Raises:
        JournalError: it cannot be read, or is no journal of this version.
    """
    if not path.is_file():
        raise JournalError(f"There is no journal {path}. Name it with --journal.")
    try:
        try:
            return _reader(path, "mode=ro")
        except (apsw.CantOpenError, apsw.ReadOnlyError):
            # Where nothing may be written, SQLite cannot make the index of its write-ahead log. Without such a log
            # the file is complete by itself.
            if path.with_name(f"{path.name}-wal").exists():
                raise JournalError(
                    f"The journal {path} is not complete without the file {path.name}-wal beside it, which can only be "
                    "read where it may be written. Copy both to a folder of your own and name that with --journal."
                ) from None
            return _reader(path, "mode=ro&immutable=1")
    except apsw.Error as error:
        raise fault(error, path) from error


def _reader(path: Path, mode: str) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(f"{path.resolve().as_uri()}?{mode}", flags=flags)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
        # Who only reads has nothing to tidy up, even if nobody else has the file open any more.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute(f"PRAGMA temp_store = FILE; PRAGMA cache_size = -{PAGE_CACHE_KIBIBYTES}")
        if _recognise(connection, "main", path) != VERSION:
            raise JournalError(f"{path} is empty, or of an older version: open it once with `payout-engine runs`.")
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: Path) -> None:
    """Create the file readable by its owner alone: it holds phone numbers. SQLite's side files follow it.

    A file that is there is not opened: closing it would let go of the locks that another connection of this process
    holds on it.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise JournalError(f"The journal {path} is a folder. Name a file with --journal.") from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise _unwritable(path, "Permission denied") from None
    except FileNotFoundError:
        raise JournalError(f"The folder of the journal {path} does not exist. Make it, or name another file.") from None
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from None


def _unwritable(path: Path, why: str) -> JournalFullError:
    return JournalFullError(
        f"The journal {path} cannot be written ({why}). Make room on the disk, or make the file and its folder "
        "writable, and run the same command again."
    )


def _prepare(connection: apsw.Connection, path: Path, *, sandbox: bool, scratch: bool) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
    connection.execute(
        f"PRAGMA temp_store = FILE; PRAGMA cache_size = -{PAGE_CACHE_KIBIBYTES}; "
        f"PRAGMA temp.cache_size = -{PAGE_CACHE_KIBIBYTES}"
    )
    if connection.readonly("main"):
        raise JournalFullError(f"The journal {path} is read-only. Make it writable and run the same command again.")
    _recognise(connection, "main", path)
    # Read to the end: statements behind one that returns a row are only carried out when its row was read.
    if scratch:
        connection.execute("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF").fetchall()
    else:
        connection.execute(
            f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}"
        ).fetchall()
    _bring_up_to_date(connection, sandbox=sandbox)
    _check_sandbox(connection, "main", path, sandbox=sandbox)


def _recognise(connection: apsw.Connection, schema: str, path: Path) -> int:
    """Return the version of a journal, 0 for an empty file.

    Raises:
        JournalDamagedError: the file is a database of another program.
        JournalNewerError: its version is not known yet.
    """
    application, version = (
        _number(connection, f"{schema}.application_id"),
        _number(connection, f"{schema}.user_version"),
    )
    if application != APPLICATION_ID and (application or version or _number(connection, f"{schema}.schema_version")):
        raise JournalDamagedError(
            f"{path} is a database of another program, not a journal of payout_engine. Name another file with "
            "--journal."
        )
    if version > VERSION:
        raise JournalNewerError(
            f"The journal {path} was written by a newer version of payout_engine (format {version}; this one knows "
            f"{VERSION}). Install that version and run the same command again."
        )
    return version


def _number(connection: apsw.Connection, pragma: str) -> int:
    return int(value(connection, f"PRAGMA {pragma}"))


def _bring_up_to_date(connection: apsw.Connection, *, sandbox: bool) -> None:
    if _number(connection, "main.user_version") == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Asked again inside the transaction: another process may have done it in the meantime.
        version = _number(connection, "main.user_version")
        for number in range(version + 1, VERSION + 1):
            connection.execute(_sql(f"migrations/{number}.sql"))
            if number in AFTERWARDS:
                AFTERWARDS[number](connection)
        if version == 0:
            connection.execute("INSERT INTO meta (name, value) VALUES ('sandbox', ?)", (str(int(sandbox)),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_sandbox(connection: apsw.Connection, schema: str, path: Path, *, sandbox: bool) -> None:
    query = {"main": "SELECT value FROM main.meta WHERE name = 'sandbox'"}.get(
        schema, "SELECT value FROM earlier.meta WHERE name = 'sandbox'"
    )
    if (value(connection, query) == "1") is sandbox:
        return
    if sandbox:
        raise JournalError(
            f"The journal {path} holds real payouts and cannot be used with --sandbox. Leave --sandbox out, or name "
            "another file with --journal."
        )
    raise JournalError(
        f"The journal {path} belongs to the sandbox and holds no real payouts. Add --sandbox, or name another file "
        "with --journal."
    )


def _attach(connection: apsw.Connection, earlier: Path, *, sandbox: bool) -> None:
    """Attach an existing journal read-only; an empty file has no earlier runs and counts as none."""
    try:
        connection.execute("ATTACH ? AS earlier", (f"{earlier.resolve().as_uri()}?mode=ro",))
        version = _recognise(connection, "earlier", earlier)
        if version == 0:
            connection.execute("DETACH earlier")
            return
        if version < VERSION:
            raise JournalError(
                f"The journal {earlier} was written by an older version of payout_engine. Bring it up to date with: "
                "payout-engine runs"
            )
        _check_sandbox(connection, "earlier", earlier, sandbox=sandbox)
    except apsw.Error as error:
        raise fault(error, earlier) from error
