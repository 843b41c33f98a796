"""A journal that was copied, restored, moved or deleted: what its user's keys remember stops it from paying twice.

Real processes, real journals, kill -9, and a bank of its own whose ledger is the truth.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import apsw
import orjson
import pytest
from processes import ENVIRONMENT, Bank, call, rows, wait_for_payments
from test_two_at_once import Terminal, a_file, paid_once, two_names

from payout_engine import Engine
from payout_engine.domain.errors import ConfigError
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox

pytestmark = pytest.mark.timeout(120)

BankMaker = Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]]

DYING = """
import os, signal, sys
from payout_engine.cli import main
from payout_engine.journal import SqliteJournal
from payout_engine.providers.senfenico.adapter import SenfenicoProvider

where = sys.argv.pop(1)
owner, name = {"approved": (SqliteJournal, "approve"), "sending": (SenfenicoProvider, "send")}[where]
whole = getattr(owner, name)

async def dying(*arguments):
    if where == "approved":
        await whole(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, dying)
main()
"""


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Bank]:
    """A bank of its own."""
    opened = Bank(tmp_path)
    yield opened
    opened.close()


def copied(journal: Path, copy: Path) -> Path:
    """Copy a journal as SQLite does, also while it is in use."""
    copy.unlink(missing_ok=True)
    source, target = apsw.Connection(str(journal)), apsw.Connection(str(copy))
    with target.backup("main", source, "main") as backup:
        backup.step()
    target.close()
    source.close()
    return copy


def restored(copy: Path, journal: Path) -> None:
    """Put a copy in the place of a journal, with nothing beside it."""
    for path in journal.parent.glob(f"{journal.name}*"):
        path.unlink()
    shutil.copy(copy, journal)


def run_of(folder: Path, config: Path, journal: str = "payouts.db") -> str:
    """Return the id of the newest run of a journal."""
    lines = call(folder, "runs", "--json", "--config", str(config), "--journal", journal).stdout.splitlines()
    return str(orjson.loads(lines[0])["run_id"])


def remembered(folder: Path, query: str) -> list[tuple[object, ...]]:
    """Ask the memory of a test's user."""
    db = apsw.Connection(str(folder / "state" / "payout_engine" / "remembered.db"))
    try:
        return list(db.execute(query))
    finally:
        db.close()


def in_journal(journal: Path, query: str) -> object:
    """Ask a journal one thing."""
    db = apsw.Connection(str(journal))
    try:
        return db.execute(query).get
    finally:
        db.close()


# ------------------------------------------------------------------------------------------------------ an older copy


def begun_and_killed(folder: Path, far: Bank) -> str:
    """Pay a third, stop, copy the journal, pay on, and die by kill -9; return the run."""
    a_file(folder, "salaries", 0, 1500)
    config = ("--config", str(far.config))
    first = Terminal(folder, "run", "salaries.csv", "--yes", *config)
    wait_for_payments(far, 300)
    first.process.send_signal(signal.SIGINT)
    assert first.end() == 130, first.said
    copied(folder / "payouts.db", folder / "copy.db")
    run_id = run_of(folder, far.config)
    before = len(far.paid())
    second = Terminal(folder, "resume", run_id, *config)
    wait_for_payments(far, before + 300)
    second.process.kill()
    second.end()
    return run_id


@pytest.mark.parametrize("place", ["in its place", "beside it"])
def test_an_older_copy_sends_nothing(tmp_path: Path, far: Bank, place: str) -> None:
    """Not to resume, run the file or retry it; it withdraws nothing, and says how far each is and where."""
    run_id = begun_and_killed(tmp_path, far)
    newer = tmp_path / "payouts.db"
    if place != "beside it":
        restored(tmp_path / "copy.db", newer)
    options = ("--config", str(far.config), "--journal", "copy.db" if place == "beside it" else "payouts.db")
    paid = far.paid()
    for command in (
        ("resume", run_id),
        ("run", "salaries.csv", "--yes"),
        ("retry", run_id, "--yes"),
        ("cancel", run_id),
    ):
        refused = call(tmp_path, *command, *options)
        said = refused.stderr.decode()
        assert refused.returncode == 2, said
        assert "is an older copy" in said and "--journal-lost" in said and "Traceback" not in said, said
        expected = f"Use the newer one: --journal {newer}" if place == "beside it" else "was in this same place"
        assert expected in " ".join(said.split()), said
    assert far.paid() == paid
    assert call(tmp_path, "show", run_id, *options).returncode == 0
    assert call(tmp_path, "results", run_id, *options).returncode == 0
    assert call(tmp_path, "follow", run_id, "--follow-for", "1s", *options).returncode in (3, 4)
    assert far.paid() == paid
    if place == "beside it":  # What was done with the copy changes nothing for the newer one.
        assert call(tmp_path, "resume", run_id, "--config", str(far.config)).returncode in (0, 3)
        assert set(far.paid().values()) == {1}


def test_a_person_may_say_that_the_newer_journal_is_lost(tmp_path: Path, far: Bank) -> None:
    """Said once, the copy goes on and is the journal; what it does not know is in the provider's list, and is held."""
    run_id = begun_and_killed(tmp_path, far)
    copied(tmp_path / "payouts.db", tmp_path / "newer.db")
    restored(tmp_path / "copy.db", tmp_path / "payouts.db")
    config = ("--config", str(far.config))
    paid = len(far.paid())
    went_on = call(tmp_path, "resume", run_id, "--journal-lost", *config)

    assert went_on.returncode == 3, went_on.stderr.decode()
    assert len(far.paid()) > paid and set(far.paid().values()) == {1}, "nobody is paid twice"
    assert len({row["phone"] for row in rows(tmp_path / "salaries.csv-results" / "attention.csv")}) >= 300
    assert "says that this journal is lost" in " ".join(call(tmp_path, "show", run_id, *config).stdout.decode().split())
    assert call(tmp_path, "resume", run_id, *config).returncode == 3, "said once, it is remembered"
    back = call(tmp_path, "resume", run_id, *config, "--journal", "newer.db")
    assert back.returncode == 2 and b"is an older copy" in back.stderr, back.stderr.decode()


@pytest.mark.parametrize(("notes", "expected"), [(0, "is an older copy"), (100, "has gone on apart")])
async def test_of_two_equal_copies_the_first_goes_on(
    tmp_path: Path, bank: BankMaker, notes: int, expected: str
) -> None:
    """Whoever goes on first is the journal; the other is told where that is, however long its own log has become."""
    files = [a_file(tmp_path, name, first, 5) for name, first in (("first", 0), ("second", 100))]
    ours, copy = tmp_path / "ours.db", tmp_path / "copy.db"
    async with bank() as server:
        async with Engine.open(two_names(server, ours)) as engine:
            [outcome async for outcome in engine.pay(await engine.submit(files[0]))]
        copied(ours, copy)
        async with Engine.open(two_names(server, ours)) as engine:
            for _ in range(notes):
                await (await engine.journal()).note((await engine.runs())[0].run_id, "told", "by somebody")
        async with Engine.open(two_names(server, copy)) as engine:
            [outcome async for outcome in engine.pay(await engine.submit(files[1]))]
        async with Engine.open(two_names(server, ours)) as engine:
            run = await engine.submit(files[1])
            for attempt in (engine.check_accounts(run.run_id), anext(engine.pay(run))):
                with pytest.raises(ConfigError, match=rf"ours\.db {expected}.*Use the newer one: --journal .*copy\.db"):
                    await attempt
        assert len(server.paid()) == 10


@pytest.mark.parametrize("where", ["approved", "sending"])
def test_what_is_begun_and_promised_is_remembered_first(tmp_path: Path, far: Bank, where: str) -> None:
    """Killed right after the approval, or right before the first byte: the memory has the content, and the mark."""
    a_file(tmp_path, "salaries", 0, 5)
    config = ("--config", str(far.config))
    arguments = [sys.executable, "-c", DYING, where, "run", "salaries.csv", "--yes", *config]
    died = subprocess.run(arguments, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()

    journal = tmp_path / "payouts.db"
    run_id = in_journal(journal, "SELECT run_id FROM runs WHERE approved_at IS NOT NULL")
    assert remembered(tmp_path, "SELECT run_id FROM contents") == [(run_id,)]
    if where == "sending":
        intent = in_journal(journal, "SELECT max(seq) FROM log WHERE kind = 'intent'")
        assert intent is not None
        assert remembered(tmp_path, "SELECT seq FROM journals") == [(intent,)]
    journal.unlink()
    assert call(tmp_path, "run", "salaries.csv", "--yes", *config, "--journal", "other.db").returncode == 2
    assert not far.paid()


# ------------------------------------------------------------------------------------------------ gone, and elsewhere


@pytest.mark.parametrize("what", ["deleted", "another in its place", "an older copy in its place", "damaged"])
def test_a_journal_that_is_gone_leaves_its_contents_refused(tmp_path: Path, far: Bank, what: str) -> None:
    """The error names the file, the run and the day; other contents are paid; a person's word goes on, and is noted."""
    a_file(tmp_path, "salaries", 0, 20)
    a_file(tmp_path, "refunds", 2000, 20)
    a_file(tmp_path, "first", 4000, 1)
    config, journal = ("--config", str(far.config)), tmp_path / "payouts.db"
    assert call(tmp_path, "run", "first.csv", "--yes", *config).returncode == 0
    copied(journal, tmp_path / "copy.db")
    assert call(tmp_path, "run", "salaries.csv", "--yes", *config).returncode == 0
    run_id = run_of(tmp_path, far.config)
    journal.rename(tmp_path / "kept.db")
    if what == "another in its place":
        assert call(tmp_path, "run", "first.csv", "--yes", "--sandbox", "--journal", "new.db").returncode == 0
        (tmp_path / "new.db").rename(journal)
    elif what == "an older copy in its place":
        shutil.copy(tmp_path / "copy.db", journal)
    elif what == "damaged":
        journal.write_text("damaged")
    other = (*config, "--journal", "other.db")
    refused = call(tmp_path, "run", "salaries.csv", "--yes", *other)
    said = " ".join(refused.stderr.decode().partition("To pay:")[0].split())

    assert refused.returncode == 2 and "Traceback" not in said
    assert f"begun as run {run_id} (salaries.csv) on 20" in said and "--journal-lost" in said, said
    assert str(journal) in said.replace(" ", "")
    assert paid_once(far, 21)
    assert call(tmp_path, "run", "refunds.csv", "--yes", *other).returncode == 0
    assert paid_once(far, 41)
    assert call(tmp_path, "run", "salaries.csv", "--yes", "--journal-lost", *other).returncode == 0
    assert paid_once(far, 61)
    newest = run_of(tmp_path, far.config, "other.db")
    assert "journal is lost" in " ".join(call(tmp_path, "show", newest, *other).stdout.decode().split())


async def test_what_a_person_gave_up_does_not_go_on_when_it_comes_back(tmp_path: Path, bank: BankMaker) -> None:
    """Its content was begun anew elsewhere since: the rest of it is refused, and the journal that has it is named."""
    path = a_file(tmp_path, "salaries", 0, 5)
    async with bank() as server:
        ours, others = (two_names(server, tmp_path / f"{name}.db") for name in ("ours", "others"))
        server.ledger.set_balance("moov_bf", 0)
        async with Engine.open(ours) as engine:
            run = await engine.submit(path)
            [outcome async for outcome in engine.pay(run)]
        server.ledger.set_balance("moov_bf", 10**9)
        (tmp_path / "ours.db").rename(tmp_path / "away.db")
        async with Engine.open(others) as engine:
            [outcome async for outcome in engine.pay(await engine.submit(path), journal_lost=True)]
        assert len(server.paid()) == 5
        (tmp_path / "away.db").rename(tmp_path / "ours.db")
        async with Engine.open(ours) as engine:
            with pytest.raises(ConfigError, match=r"begun as run .* with the journal .*others\.db"):
                [outcome async for outcome in engine.pay(run)]
        assert len(server.paid()) == 5


async def test_what_a_lost_state_of_a_journal_began_stays_refused(tmp_path: Path, bank: BankMaker) -> None:
    """One word is about the copy; the file that only the lost state knew of needs another, and says so."""
    files = [a_file(tmp_path, name, first, 5) for name, first in (("first", 0), ("second", 100))]
    async with bank() as server:
        settings = two_names(server, tmp_path / "ours.db")
        async with Engine.open(settings) as engine:
            [outcome async for outcome in engine.pay(await engine.submit(files[0]))]
        copied(tmp_path / "ours.db", tmp_path / "copy.db")
        async with Engine.open(settings) as engine:
            [outcome async for outcome in engine.pay(await engine.submit(files[1]))]
        restored(tmp_path / "copy.db", tmp_path / "ours.db")
        for word, expected in ((False, "older copy"), (True, "the part that knew of it"), (False, "the part that")):
            async with Engine.open(settings) as engine:
                run = await engine.submit(files[1])
                with pytest.raises(ConfigError, match=expected):
                    [outcome async for outcome in engine.pay(run, journal_lost=word)]
        assert len(server.paid()) == 10
        async with Engine.open(settings) as engine:
            run = await engine.submit(files[1])
            [outcome async for outcome in engine.pay(run, journal_lost=True)]
            again = await engine.submit(files[1])
            assert again.known
            [outcome async for outcome in engine.pay(again)]
        assert len(server.paid()) == 15


def test_a_journal_that_was_moved_is_found_again(tmp_path: Path, far: Bank) -> None:
    """Used once at its new place, it is remembered there; nothing of its own is refused."""
    a_file(tmp_path, "salaries", 0, 5)
    config = ("--config", str(far.config))
    assert call(tmp_path, "run", "salaries.csv", "--yes", *config).returncode == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "payouts.db").rename(tmp_path / "elsewhere" / "moved.db")
    missing = call(tmp_path, "run", "salaries.csv", "--yes", *config).stderr.decode()
    assert "which is missing" in " ".join(missing.split()), missing
    assert call(tmp_path, "runs", *config, "--journal", "elsewhere/moved.db").returncode == 0
    said = call(tmp_path, "run", "salaries.csv", "--yes", *config).stderr.decode().replace("\n", "")

    assert "Go on with it there" in said and str(tmp_path / "elsewhere" / "moved.db") in said
    again = call(tmp_path, "run", "salaries.csv", "--yes", *config, "--journal", "elsewhere/moved.db")
    assert again.returncode == 0 and paid_once(far, 5)


def test_a_copy_that_is_looked_at_does_not_become_the_journal(tmp_path: Path, far: Bank) -> None:
    """`runs` and `show` of an equal copy change nothing while the journal is in its place."""
    a_file(tmp_path, "salaries", 0, 5)
    config = ("--config", str(far.config))
    assert call(tmp_path, "run", "salaries.csv", "--yes", *config).returncode == 0
    copied(tmp_path / "payouts.db", tmp_path / "copy.db")
    assert call(tmp_path, "runs", *config, "--journal", "copy.db").returncode == 0
    assert remembered(tmp_path, "SELECT path FROM journals") == [(str(tmp_path / "payouts.db"),)]


def test_a_sandbox_run_is_not_remembered(tmp_path: Path) -> None:
    """Rehearsals leave nothing in the user's folder, and may be thrown away and begun again."""
    a_file(tmp_path, "salaries", 0, 5)
    for _ in range(2):
        assert call(tmp_path, "run", "salaries.csv", "--yes", "--sandbox").returncode == 0
        for path in tmp_path.glob("payouts-sandbox*"):
            path.unlink()
    assert not (tmp_path / "state").exists()
