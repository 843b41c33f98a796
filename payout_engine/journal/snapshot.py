"""A glance at a journal that belongs to somebody else: one moment of its file, which is only read.

Works while its owner writes it, and on a read-only copy. `verify.py` proves runs from such a snapshot; the engine
looks whether another journal knows a file, and how far another process has come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from payout_engine.domain.model import Run, Tally
from payout_engine.journal import log, reads
from payout_engine.journal.schema import open_to_read
from payout_engine.journal.sqlite_errors import fault
from payout_engine.ports.journal import Mark


@contextmanager
def snapshot(path: Path) -> Iterator[apsw.Connection]:
    """Open a journal for reading alone and hold one moment of it.

    Raises:
        JournalError: it cannot be read, or is no journal.
    """
    connection = open_to_read(path)
    try:
        connection.execute("BEGIN")
        yield connection
    except apsw.Error as error:
        raise fault(error, path) from error
    finally:
        connection.close()


def tallies(db: apsw.Connection, run_id: str) -> list[Tally]:
    """Return counts and sums of a run by lane and state."""
    totals, after = reads.Totals(), 0
    while after := reads.tally(db, run_id, after, totals):
        pass
    return totals.tallies()


def tally_file(path: Path, run_id: str) -> Sequence[Tally]:
    """Return counts and sums of a run from a journal's file.

    Raises:
        JournalError: the file cannot be read, is no journal, or has no such run.
    """
    with snapshot(path) as db:
        return tallies(db, run_id)


def begun_in_file(path: Path, digest: str, mark: Mark) -> Sequence[tuple[Run, Sequence[Tally]]] | None:
    """Return the approved runs of a content in a journal's file, and their retries, with where their lines stand.

    Args:
        path: the file.
        digest: the content.
        mark: what the journal's log holds, at least. None is returned if it does not: the file is another journal, or
            an older copy.

    Raises:
        JournalError: the file cannot be read, or is no journal.
    """
    family: set[str] = set()
    found: list[tuple[Run, Sequence[Tally]]] = []
    with snapshot(path) as db:
        if log.mark(db, mark.seq) != mark:
            return None
        for run in reversed(reads.runs(db)):
            if run.approved_at is not None and (run.digest == digest or run.retry_of in family):
                family.add(run.run_id)
                found.append((run, tallies(db, run.run_id)))
    return found


def is_in_file(path: Path, mark: Mark) -> bool:
    """Tell whether a journal's file is a given journal, and no older copy: its log holds the mark.

    Raises:
        JournalError: the file cannot be read, or is no journal.
    """
    with snapshot(path) as db:
        return log.mark(db, mark.seq) == mark
