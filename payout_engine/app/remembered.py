"""What a user's keys remember: how far each journal that paid with one had come, and which contents it has begun.

A journal cannot tell whether it is the newest copy of itself, and another journal cannot tell what a lost one has paid.
So both are kept apart, in one small SQLite file in the user's state folder. It is a lower bound: a mark is kept after
the journal's own commit and before anything is sent, so the journal it came from is never behind it. A mark survives
the death of the process; what is begun also survives the loss of power, before the run is approved.
`other_journals.py` decides by it, `journal/sqlite.py` hands in the marks.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import apsw
import msgspec

from payout_engine.app.settings import made_state_folder, state_folder
from payout_engine.domain.clock import now
from payout_engine.domain.errors import ConfigError, JournalError
from payout_engine.domain.model import Run
from payout_engine.ports.journal import Mark

FILE_NAME = "remembered.db"

_APPLICATION_ID = 0x50614F72
"""Written into the file's header, `PaOr`."""

FORMAT = 1

_BUSY_TIMEOUT_MILLISECONDS = 15_000

WRITE = "BEGIN IMMEDIATE"

_SCHEMA = """
CREATE TABLE journals (
    identity TEXT PRIMARY KEY,
    path TEXT NOT NULL,               -- where it was used last
    seq INTEGER NOT NULL,             -- how far its log had come, at least
    hash TEXT NOT NULL,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: of two journals that have begun one content, the one with the higher number was the last.
CREATE TABLE contents (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,                -- what a provider's key is known by; the key cannot be read from it
    identity TEXT NOT NULL REFERENCES journals,
    run_id TEXT NOT NULL,
    digest TEXT NOT NULL,             -- of the file; of a retry, of the file that it pays again; empty for an iterable
    name TEXT NOT NULL,
    begun_at REAL NOT NULL,
    lost INTEGER NOT NULL,            -- begun by a newer state of its journal, which a person gave up
    UNIQUE (key, identity, run_id)
) STRICT;
CREATE INDEX contents_by_digest ON contents (digest, key);
"""


class Known(msgspec.Struct, frozen=True):
    """A journal: where it was used last, and how far its log had come, at least."""

    path: Path
    mark: Mark


class BegunContent(msgspec.Struct, frozen=True):
    """A content that a journal has begun, or was about to.

    Attributes:
        number: higher for what was begun later.
        journal: which journal.
        run_id: its run.
        name: what the file was called.
        at: when, in seconds since 1970.
        lost: True when a person gave up the state of the journal that knew of it.
    """

    number: int
    journal: Known
    run_id: str
    name: str
    at: float
    lost: bool


class Remembered:
    """The file, opened when it is first needed. Its methods may be called from several threads."""

    def __init__(self) -> None:
        self._opened: apsw.Connection | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    # -------------------------------------------------------------------------------------------------------- looking

    def used(self, keys: Collection[str]) -> bool:
        """Tell whether any of these keys was ever used."""
        if not keys:
            return False
        with self._connection() as db:
            return any(list(db.execute("SELECT 1 FROM contents WHERE key = ? LIMIT 1", (key,))) for key in keys)

    def known(self, identity: str) -> Known | None:
        """Return what is known of a journal, or None; makes nothing where nothing was ever remembered."""
        if self._opened is None and not os.path.lexists(state_folder() / FILE_NAME):
            return None
        with self._connection() as db:
            found = list(db.execute("SELECT path, seq, hash, at FROM journals WHERE identity = ?", (identity,)))
        return next((Known(Path(path), Mark(identity, seq, hash, at)) for path, seq, hash, at in found), None)

    def others(self, keys: Collection[str], digest: str, identity: str, run_id: str) -> Sequence[BegunContent]:
        """Return what others have begun of a content with some keys, and what a lost state of this journal has.

        Args:
            keys: the keys.
            digest: the content.
            identity: this journal.
            run_id: a run of it that was begun: only what was begun after it is returned. Empty for all.
        """
        found: dict[int, BegunContent] = {}
        with self._connection() as db:
            for key in keys:
                for number, other, run, name, begun_at, lost, path, seq, hash, at in db.execute(
                    "SELECT number, identity, run_id, name, begun_at, lost, path, seq, hash, at"
                    " FROM contents JOIN journals USING (identity)"
                    " WHERE digest = :digest AND key = :key AND (identity <> :identity OR lost) AND number > coalesce("
                    "(SELECT number FROM contents WHERE key = :key AND identity = :identity AND run_id = :run_id), 0)",
                    {"digest": digest, "key": key, "identity": identity, "run_id": run_id},
                ):
                    journal = Known(Path(path), Mark(other, seq, hash, at))
                    found[number] = BegunContent(number, journal, run, name, begun_at, bool(lost))
        return [found[number] for number in sorted(found)]

    # ------------------------------------------------------------------------------------------------------- writing

    def begin(
        self,
        keys: Collection[str],
        mark: Mark,
        path: str,
        run: Run,
        digest: str,
        given_up: Collection[BegunContent] = (),
    ) -> None:
        """Remember, durably, that a journal begins a run with some keys, or goes on with it.

        Args:
            keys: the keys; their locks are held.
            mark: the end of the journal's log.
            path: where the journal is.
            run: the run.
            digest: its content.
            given_up: what others had begun of it, with journals that a person says are lost.
        """
        with self._connection(WRITE, durable=True) as db:
            _place(db, mark, path)
            db.execute("UPDATE journals SET path = ? WHERE identity = ?", (path, mark.identity))
            db.executemany("DELETE FROM contents WHERE number = ?", [(begun.number,) for begun in given_up])
            for key in keys:
                if run.approved_at is None:
                    # It counts from now: what another journal has begun since an earlier attempt came first.
                    where = "DELETE FROM contents WHERE key = ? AND identity = ? AND run_id = ?"
                    db.execute(where, (key, mark.identity, run.run_id))
                db.execute(
                    "INSERT OR IGNORE INTO contents (key, identity, run_id, digest, name, begun_at, lost)"
                    " VALUES (?, ?, ?, ?, ?, ?, 0)",
                    (key, mark.identity, run.run_id, digest, run.name, now()),
                )

    def adopt(self, mark: Mark, path: str, begun: Collection[str]) -> None:
        """Let an older copy be the journal from now on: a person says that the newer one is lost.

        Args:
            mark: the end of the copy's log.
            path: where the copy is.
            begun: the runs that it knows to be begun. What the newer one has begun beside them stays refused.
        """
        with self._connection(WRITE, durable=True) as db:
            _place(db, mark, path, back=True)
            for number, run_id in list(
                db.execute("SELECT number, run_id FROM contents WHERE identity = ?", (mark.identity,))
            ):
                db.execute("UPDATE contents SET lost = ? WHERE number = ?", (run_id not in begun, number))

    def keep(self, mark: Mark) -> Mark | None:
        """Keep how far a remembered journal has come, or return the mark that is further.

        Raises:
            JournalError: it cannot be kept; nothing may be sent.
        """
        if self._opened is None:
            return None  # Nobody holds a key that is remembered.
        try:
            with self._connection(WRITE) as db:
                db.execute(
                    "UPDATE journals SET seq = ?, hash = ?, at = ? WHERE identity = ? AND seq < ?",
                    (mark.seq, mark.hash, mark.at, mark.identity, mark.seq),
                )
                if db.changes():
                    return None
                found = list(db.execute("SELECT seq, hash, at FROM journals WHERE identity = ?", (mark.identity,)))
        except ConfigError as error:
            raise JournalError(str(error)) from error
        return next((Mark(mark.identity, *columns) for columns in found), None)

    def move(self, identity: str, path: str) -> None:
        """Remember where a journal is now."""
        with self._connection(WRITE) as db:
            db.execute("UPDATE journals SET path = ? WHERE identity = ?", (path, identity))

    # ------------------------------------------------------------------------------------------------------- the file

    @contextmanager
    def _connection(self, begin: str = "BEGIN", *, durable: bool = False) -> Iterator[apsw.Connection]:
        """Hold the connection in a transaction.

        Args:
            begin: how it begins.
            durable: what is written also survives the loss of power.

        Raises:
            ConfigError: the file cannot be used; the message says what to do.
        """
        with self._lock:
            try:
                if self._opened is None:
                    self._opened = _open(made_state_folder() / FILE_NAME)
                self._opened.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}; {begin}")
                try:
                    yield self._opened
                    self._opened.execute("COMMIT")
                finally:
                    if self._opened.in_transaction:
                        self._opened.execute("ROLLBACK")
            except apsw.Error as error:
                _refuse(state_folder() / FILE_NAME, error)


def _place(db: apsw.Connection, mark: Mark, path: str, *, back: bool = False) -> None:
    """Remember how far a journal has come and where it is; `back`: also where it had come further."""
    db.execute(
        "INSERT INTO journals (identity, path, seq, hash, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE"
        " SET path = excluded.path, seq = excluded.seq, hash = excluded.hash, at = excluded.at"
        " WHERE seq <= excluded.seq OR ?",
        (mark.identity, path, mark.seq, mark.hash, mark.at, back),
    )


def _open(path: Path) -> apsw.Connection:
    """Open the file, made if there is none, for this user alone under any umask."""
    try:
        try:
            # Never opened beside SQLite: closing it would take SQLite's own locks away from this process.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(descriptor, 0o600)
            os.close(descriptor)
        except FileExistsError:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise ConfigError(
                    f"{path} is a link, or no file, where a memory of what was paid should be. It was left as it is, "
                    "and nothing was sent. Move it elsewhere."
                ) from None
            if stat.S_IMODE(found.st_mode) != 0o600:
                path.chmod(0o600)
    except OSError as error:
        raise ConfigError(
            f"The file {path}, which remembers who has paid, cannot be made ({error.strerror}). Nothing was sent; make "
            "the folder writable, or make room."
        ) from None
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(_BUSY_TIMEOUT_MILLISECONDS)
        _is_new(connection, path)  # What is not ours is not even brought into another mode.
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")
        if _is_new(connection, path):
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_new(connection: apsw.Connection, path: Path) -> bool:
    """Tell whether the file is empty.

    Raises:
        ConfigError: it is neither empty nor ours.
    """
    application, version, tables = (
        connection.pragma(name) for name in ("application_id", "user_version", "schema_version")
    )
    if not application and not version and not tables:
        return True
    if (application, version) != (_APPLICATION_ID, FORMAT):
        raise ConfigError(
            f"The file {path} was written by another program, or by another version of payout_engine. Nothing was "
            "sent. Install that version, or move the file away if it is none of payout_engine."
        )
    return False


def _refuse(path: Path, error: apsw.Error) -> NoReturn:
    if isinstance(error, apsw.NotADBError | apsw.CorruptError | apsw.SQLError):
        raise ConfigError(
            f"The file {path}, which remembers which journals have paid from an account, cannot be read ({error}). "
            "Nothing more is sent. Put a copy of it back; if nothing else helps, remove it, and run no file that "
            "another journal may have paid, and no journal that is a copy."
        ) from error
    raise ConfigError(
        f"The file {path}, which remembers which journals have paid from an account, cannot be written ({error}). "
        "Nothing more is sent. Make room on its disk, or make it writable, and give the same command again."
    ) from error
