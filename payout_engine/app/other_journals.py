"""Whether another journal, or a newer copy of this one, knows more of a run than this journal does.

A journal that was restored from a copy does not know what was sent since, and another journal does not know what a lost
one has paid. What the user's keys remember (`app/remembered.py`) shows both, before anything is sent. Only a person's
word goes on then. Called with the locks of the keys held where anything is going to be sent.
"""

from __future__ import annotations

import getpass
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from payout_engine.app.locks import whereabouts
from payout_engine.app.remembered import BegunContent, Known, Remembered
from payout_engine.domain.clock import minute, text
from payout_engine.domain.errors import ConfigError, JournalError
from payout_engine.domain.model import Run
from payout_engine.domain.states import UNPAID
from payout_engine.journal import begun_in_file, is_in_file
from payout_engine.ports.journal import Journal, Mark

LOST_NOTE = "journal_lost"
"""The kind of the remarks that say who gave up which journal."""

_SAY_SO = (
    "first compare with the provider's list of transfers, then say so, with the option --journal-lost of run, resume "
    "or retry"
)


def user_name() -> str:
    """Return who gives commands here, as far as the machine knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


async def require_newest(memory: Remembered, journal: Journal, path: Path) -> None:
    """Refuse an older copy of a journal that has paid since.

    Args:
        memory: what the user's keys remember.
        journal: the journal.
        path: where it is.

    Raises:
        ConfigError: it is one; the message names the newer one and says what to do.
    """
    newer = await _newer(memory, journal)
    if newer is not None:
        raise ConfigError(await _older(journal, path, newer))


async def may_begin(
    memory: Remembered, journal: Journal, path: Path, run: Run, keys: Collection[str], *, lost: bool
) -> Sequence[BegunContent]:
    """Find out whether a run may be sent from this journal; return what may only because a person gave it up.

    Args:
        memory: what the user's keys remember.
        journal: holds the run.
        path: where it is.
        run: a validated run, or one that was begun.
        keys: what it is sent with.
        lost: a person says that what is missing is lost for good.

    Raises:
        ConfigError: the journal is an older copy, or another one has begun the same content, or may have.
    """
    if not keys:
        return ()
    if not lost:
        await require_newest(memory, journal, path)
    given_up: list[BegunContent] = []
    mark, digest = await _end(journal), (await _first_match(journal, run)).digest
    begun_here = run.run_id if run.approved_at is not None else ""
    for begun in memory.others(keys, digest, mark.identity, begun_here) if digest else ():
        missing = await _missing(begun, digest, path)
        if missing and not lost:
            raise ConfigError(_gone(begun, missing))
        if missing:
            given_up.append(begun)
    return given_up


async def remember_begun(
    memory: Remembered, journal: Journal, path: Path, run: Run, keys: Collection[str], *, lost: bool
) -> None:
    """Remember, durably, that this journal begins a run or goes on with it. Nothing was approved or sent before.

    Raises:
        ConfigError: as for `may_begin`.
    """
    if not keys:
        return
    newer = await _newer(memory, journal) if lost else None
    if newer is not None:
        await _note_lost(journal, run, newer)
        approved = {each.run_id for each in await journal.runs() if each.approved_at is not None}
        memory.adopt(await _end(journal), whereabouts(path), approved)
    # The word was about the newer copy, so it is not about a content too, of which nobody was told yet.
    given_up = await may_begin(memory, journal, path, run, keys, lost=lost and newer is None)
    for begun in given_up:
        await _note_lost(journal, run, begun.journal)
    memory.begin(keys, await _end(journal), whereabouts(path), run, (await _first_match(journal, run)).digest, given_up)


async def _note_lost(journal: Journal, run: Run, known: Known) -> None:
    what = f"{known.path}, which had come to entry {known.mark.seq} of {minute(known.mark.at)}"
    await journal.note(run.run_id, LOST_NOTE, f"{user_name()} says that this journal is lost: {what}")


async def notice_move(memory: Remembered, journal: Journal, path: Path) -> None:
    """Remember where a journal is now, if it is the newest copy and is no longer where it was used last."""
    end = await journal.mark()
    with suppress(ConfigError):  # Whoever is going to pay is told.
        known = memory.known(end.identity) if end is not None else None
        if known is None or str(known.path) == whereabouts(path) or await _newer(memory, journal) is not None:
            return
        if not await _is_there(known):
            memory.move(known.mark.identity, whereabouts(path))


async def _is_there(known: Known) -> bool:
    try:
        return await anyio.to_thread.run_sync(is_in_file, known.path, known.mark)
    except (JournalError, OSError, ValueError):
        return False


async def _end(journal: Journal) -> Mark:
    mark = await journal.mark()
    assert mark is not None, "the log of a validated run is not empty"
    return mark


async def _newer(memory: Remembered, journal: Journal) -> Known | None:
    """Return what is remembered of this journal, if its log does not hold that: then this is an older copy."""
    end = await journal.mark()
    known = memory.known(end.identity) if end is not None else None
    return known if known is not None and await journal.mark(known.mark.seq) != known.mark else None


async def _first_match(journal: Journal, run: Run) -> Run:
    """Return the run of the file whose lines a retry pays; another run is its own."""
    while run.retry_of and (earlier := await journal.find(run.retry_of)) is not None:
        run = earlier
    return run


async def _missing(begun: BegunContent, digest: str, ours: Path) -> str:
    """Return why a journal that has begun a content cannot be asked about it, or an empty text if it can.

    Raises:
        ConfigError: it can be asked, and has begun it.
    """
    path = begun.journal.path
    if begun.lost:
        return "of which the part that knew of it is lost"
    if str(path) == whereabouts(ours):
        return "which is missing: the one that is in its place now is another"
    try:
        path.stat()
        found = await anyio.to_thread.run_sync(begun_in_file, path, digest, begun.journal.mark)
    except (FileNotFoundError, NotADirectoryError):
        return "which is missing"
    except (JournalError, OSError, ValueError) as error:
        why = f" ({error})" if isinstance(error, JournalError) else ""
        return f"which cannot be read{why}"
    if found is None:
        return "in whose place is another journal, or an older copy"
    for other, tallies in found:
        if {tally.state for tally in tallies} - UNPAID:
            raise ConfigError(
                f"Nothing was sent: this file was begun as run {other.run_id} on {text(other.approved_at or 0)[:10]} "
                f"with the journal {path}, from the same account. Go on with it there: --journal {path}. If these "
                "people are really to be paid once more, give the lines new references."
            )
    return ""


def _gone(begun: BegunContent, missing: str) -> str:
    """Say which journal is missing, what it knew, and what to do."""
    remedy = (
        "Put it back, with all files beside it; if it was only moved, use it once where it is now: payout-engine runs"
        " --journal PATH. If it is lost for good"
    )
    return (
        f"Nothing was sent: this file was begun as run {begun.run_id} ({begun.name}) on {text(begun.at)[:10]}, from "
        f"the same account, with the journal {begun.journal.path}, {missing}. Without that nobody knows who was paid. "
        f"{'To pay these people all the same' if begun.lost else remedy}, {_SAY_SO}."
    )


async def _older(journal: Journal, path: Path, newer: Known) -> str:
    """Say that a journal is an older copy, how far it is behind, and what to do."""
    end = await _end(journal)
    apart = end.seq >= newer.mark.seq
    which = "has gone on apart from the one that paid last" if apart else "is an older copy"
    here, there = f"entry {end.seq} of {minute(end.at)}", f"entry {newer.mark.seq} of {minute(newer.mark.at)}"
    if str(newer.path) == whereabouts(path):
        use = "The newer one was in this same place: put it back, with all files beside it"
    elif await _is_there(newer):
        use = f"Use the newer one: --journal {newer.path}"
    else:
        use = f"The newer one was used as {newer.path} and is no longer there: put it back, with all files beside it"
    return (
        f"Nothing was sent: the journal {path} {which}. Its log ends with {here}; the newer one had come to {there}, "
        f"and this one does not know what was sent since. {use}. If it is lost for good, {_SAY_SO}."
    )
