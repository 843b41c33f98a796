"""Whether another journal, or a newer copy, knows more of a run: asked of the rule itself, with real files."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from payout_engine.app.locks import whereabouts
from payout_engine.app.other_journals import may_begin, notice_move, remember_begun, require_newest, user_name
from payout_engine.app.remembered import Remembered
from payout_engine.app.settings import state_folder
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Dispatch, LookUpResult, Receipt, Run
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.testing.journal_lines import chunk, sent, validated

KEYS = ["key"]


@pytest.fixture
def memory() -> Iterator[Remembered]:
    opened = Remembered()
    yield opened
    opened.close()


@asynccontextmanager
async def opened(path: Path, run_id: str, digest: str = "D") -> AsyncIterator[tuple[SqliteJournal, Run]]:
    """Open a journal, with a validated run of a content if it has none of that name yet."""
    async with SqliteJournal.open(path) as journal:
        if await journal.find(run_id) is None:
            await validated(journal, run_id, chunk([1]), digest=digest)
        yield journal, await found(journal, run_id)


async def found(journal: SqliteJournal, run_id: str) -> Run:
    run = await journal.find(run_id)
    assert run is not None
    return run


async def begun(memory: Remembered, path: Path, run_id: str, digest: str = "D", known: State = State.PAID) -> Dispatch:
    """Begin a content with a journal, and send it."""
    async with opened(path, run_id, digest) as (journal, run):
        await remember_begun(memory, journal, path, run, KEYS, lost=False)
        assert await journal.approve(run_id)
        return await sent(journal, run_id, Receipt(known))


async def test_a_content_that_another_journal_has_begun_is_refused(memory: Remembered, tmp_path: Path) -> None:
    """While anything of it is not provably unpaid; what turns out to be paid counts, whoever had begun first."""
    them, us = tmp_path / "them.db", tmp_path / "us.db"
    dispatch = await begun(memory, them, "theirs", known=State.FAILED)
    async with opened(us, "ours") as (journal, run):
        assert list(await may_begin(memory, journal, us, run, KEYS, lost=False)) == []
        await remember_begun(memory, journal, us, run, KEYS, lost=False)
        async with SqliteJournal.open(them) as other:
            await other.reconcile([LookUpResult(dispatch.keys[0], Receipt(State.PAID, provider_reference="T1"))])
        with pytest.raises(ConfigError, match=r"begun as run theirs .*them\.db"):
            await may_begin(memory, journal, us, run, KEYS, lost=False)
        assert await may_begin(memory, journal, us, run, ["another key"], lost=False) == []


async def test_what_was_begun_here_goes_on_whatever_became_of_those_before(memory: Remembered, tmp_path: Path) -> None:
    """They were looked at when it was begun. A content that is only beginning asks them all."""
    them, us = tmp_path / "them.db", tmp_path / "us.db"
    await begun(memory, them, "theirs", known=State.FAILED)
    await begun(memory, us, "ours")
    them.unlink()
    async with opened(us, "again") as (journal, again):
        assert list(await may_begin(memory, journal, us, await found(journal, "ours"), KEYS, lost=False)) == []
        with pytest.raises(ConfigError, match=r"begun as run theirs .*which is missing"):
            await may_begin(memory, journal, us, again, KEYS, lost=False)
        (given_up,) = await may_begin(memory, journal, us, again, KEYS, lost=True)
        assert given_up.run_id == "theirs"


async def test_a_word_about_a_copy_leaves_refused_what_only_the_lost_one_began(
    memory: Remembered, tmp_path: Path
) -> None:
    """What the copy knows to be begun is its own again."""
    ours, copy = tmp_path / "ours.db", tmp_path / "copy.db"
    await begun(memory, ours, "one", "D1")
    shutil.copy(ours, copy)
    await begun(memory, ours, "two", "D2")
    async with opened(copy, "three", "D3") as (journal, run):
        end = await journal.mark()
        assert end is not None
        with pytest.raises(
            ConfigError, match=r"(is an older copy|has gone on apart).*Use the newer one: --journal .*ours\.db"
        ):
            await require_newest(memory, journal, copy)
        await remember_begun(memory, journal, copy, run, KEYS, lost=True)
        await require_newest(memory, journal, copy)
        lost = [[each.run_id for each in memory.others(KEYS, f"D{n}", end.identity, "")] for n in (1, 2, 3)]
        assert lost == [[], ["two"], []]
        assert [kind for _, kind, _ in await journal.notes("three")] == ["journal_lost"]


async def test_only_the_newest_copy_is_found_where_it_was_moved(memory: Remembered, tmp_path: Path) -> None:
    """Once it is no longer where it was; a copy that is looked at does not become the journal."""
    ours, copy, moved = tmp_path / "ours.db", tmp_path / "copy.db", tmp_path / "moved.db"
    await begun(memory, ours, "one")
    shutil.copy(ours, copy)
    await begun(memory, ours, "two", "D2")

    async def where_after(path: Path) -> str:
        async with SqliteJournal.open(path) as journal:
            await notice_move(memory, journal, path)
            end = await journal.mark()
        assert end is not None
        known = memory.known(end.identity)
        assert known is not None
        return str(known.path)

    assert await where_after(copy) == whereabouts(ours)
    shutil.copy(ours, moved)
    assert await where_after(moved) == whereabouts(ours), "it is still there"
    ours.unlink()
    assert await where_after(copy) == whereabouts(ours), "an older copy"
    assert await where_after(moved) == whereabouts(moved)


IN_ITS_PLACE = {
    "nothing": "which is missing",
    "no folder": "which is missing",
    "a folder": "which cannot be read",
    "garbage": r"which cannot be read \(.*them\.db",
    "another journal": "in whose place is another journal",
    "ours": "the one that is in its place now is another",
}


@pytest.mark.parametrize("what", IN_ITS_PLACE)
async def test_what_cannot_be_asked_is_refused(memory: Remembered, tmp_path: Path, what: str) -> None:
    """It says what is wrong with the journal that began the content, and what to do; it is never taken for unpaid."""
    folder = tmp_path / "folder"
    folder.mkdir()
    them, us = folder / "them.db", tmp_path / "us.db"
    await begun(memory, them, "theirs")
    them.unlink()
    if what == "no folder":
        folder.rmdir()
        folder.touch()
    elif what == "a folder":
        them.mkdir()
    elif what == "garbage":
        them.write_bytes(b"no journal" * 1_000)
    elif what == "another journal":
        async with opened(them, "strange", "S"):
            pass
    us = them if what == "ours" else us
    async with opened(us, "ours") as (journal, run):
        with pytest.raises(ConfigError, match=rf"begun as run theirs .*{IN_ITS_PLACE[what]}.*Put it back"):
            await may_begin(memory, journal, us, run, KEYS, lost=False)
        (given_up,) = await may_begin(memory, journal, us, run, KEYS, lost=True)
        assert given_up.run_id == "theirs"
        await remember_begun(memory, journal, us, run, KEYS, lost=True)
        ((_, kind, note),) = await journal.notes("ours")
        assert (kind, "says that this journal is lost" in note, str(them) in note) == ("journal_lost", True, True)
        assert list(await may_begin(memory, journal, us, run, KEYS, lost=False)) == [], "said once, it is remembered"


@pytest.mark.parametrize("place", ["/x" * 3_000, "/nul\0l"])
async def test_a_place_that_cannot_even_be_named_is_refused(memory: Remembered, tmp_path: Path, place: str) -> None:
    """Whatever the system says of it."""
    them, us = tmp_path / "them.db", tmp_path / "us.db"
    await begun(memory, them, "theirs")
    async with SqliteJournal.open(them) as journal:
        end = await journal.mark()
        assert end is not None
        memory.move(end.identity, place)
        await notice_move(memory, journal, them)
        known = memory.known(end.identity)
        assert known is not None and str(known.path) == whereabouts(them)
        memory.move(end.identity, place)
    async with opened(us, "ours") as (other, run):
        with pytest.raises(ConfigError, match="which cannot be read"):
            await may_begin(memory, other, us, run, KEYS, lost=False)


async def test_what_has_no_file_is_nobody_elses(memory: Remembered, tmp_path: Path) -> None:
    """Payouts that a program hands in have no content to compare; a journal without a run has nothing to be older."""
    them, us = tmp_path / "them.db", tmp_path / "us.db"
    async with SqliteJournal.open(us) as journal:
        await require_newest(memory, journal, us)
        await notice_move(memory, journal, us)
    await begun(memory, them, "theirs", "")
    async with opened(us, "ours", "") as (journal, run):
        assert list(await may_begin(memory, journal, us, run, KEYS, lost=False)) == []


async def test_an_older_copy_says_where_the_newer_one_is(memory: Remembered, tmp_path: Path) -> None:
    """In its own place, at another, or no longer there; and how far each has come."""
    ours, copy = tmp_path / "ours.db", tmp_path / "copy.db"
    await begun(memory, ours, "one", "D1")
    shutil.copy(ours, copy)
    await begun(memory, ours, "two", "D2")
    words = r"ends with entry \d+ of \d{4}-\d\d-\d\d \d\d:\d\d UTC; the newer one had come to entry \d+ of \d{4}-.*"
    kept = ours.read_bytes()
    for there, expected in (
        (kept, "Use the newer one: --journal .*ours"),
        (b"garbage" * 1_000, "no longer there"),
        (None, "no longer there"),
    ):
        ours.unlink()
        if there is not None:
            ours.write_bytes(there)
        else:
            ours.mkdir()
        async with SqliteJournal.open(copy) as journal:
            await notice_move(memory, journal, copy)
            with pytest.raises(ConfigError, match=rf"is an older copy.*{words}{expected}"):
                await require_newest(memory, journal, copy)
    ours.rmdir()
    shutil.copy(copy, ours)
    async with SqliteJournal.open(ours) as journal:
        with pytest.raises(ConfigError, match=rf"is an older copy.*{words}was in this same place"):
            await require_newest(memory, journal, ours)


async def test_without_a_key_nothing_is_asked_and_nothing_remembered(memory: Remembered, tmp_path: Path) -> None:
    """Such as in a sandbox."""
    path = tmp_path / "ours.db"
    async with opened(path, "run") as (journal, run):
        assert list(await may_begin(memory, journal, path, run, [], lost=False)) == []
        await remember_begun(memory, journal, path, run, [], lost=False)
    assert not state_folder().exists()


@pytest.mark.parametrize("error", [KeyError("uid"), OSError("no name")])
def test_somebody_gives_commands(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """By the name that the machine knows, or without one."""
    monkeypatch.setattr(getpass, "getuser", lambda: "awa")
    assert user_name() == "awa"

    def nobody() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert user_name() == "somebody"
