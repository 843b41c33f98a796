"""The journal as a file: what may be opened, what is refused, and what people may do by hand."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest
from processes import BOUND_BY_PERMISSIONS

from payout_engine.domain import limits
from payout_engine.domain.errors import (
    IllegalMoveError,
    JournalBusyError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    JournalNewerError,
)
from payout_engine.domain.facts import RunFacts, summed_up
from payout_engine.domain.model import (
    Chunk,
    ControlKind,
    ControlRequest,
    DuplicateKind,
    Lane,
    LookUpResult,
    Problem,
    Receipt,
)
from payout_engine.domain.states import INITIAL_STATES, LETTERS, MOVES, State
from payout_engine.journal import SqliteJournal, dispatches, log, resends, verify_file
from payout_engine.journal.db import value
from payout_engine.journal.facts import cancelled
from payout_engine.journal.ids import CHUNK_PAYOUTS_MAX, chunk_range, position_range
from payout_engine.journal.log import AskedRemark, Person, read_moved
from payout_engine.journal.runs import chained_payouts
from payout_engine.journal.schema import CHECKPOINT_PAGES, PAGE_CACHE_KIBIBYTES, VERSION, connect
from payout_engine.testing.journal_lines import (
    MOOV,
    ORANGE,
    SOMEBODY,
    approved,
    chunk,
    dispatched,
    entry,
    every,
    inline,
    payout,
    refused,
    run,
    said,
    sent,
    states,
    validated,
)
from payout_engine.testing.journal_resends import PAYS_ONCE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payouts.db"


async def opened(path: Path, *, sandbox: bool = False) -> None:
    async with SqliteJournal.open(path, sandbox=sandbox):
        pass


async def a_paid_journal(path: Path) -> None:
    """Leave a journal with one run: line 1 paid, lines 2 and 3 unknown, line 4 refused."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk([1, 2, 3]), refused([4]))
        dispatch = await dispatched(journal, "run")
        paid = Receipt(State.PAID, provider_reference="T1", at=1_700_000_000.125)
        await journal.record(dispatch, [paid] + [Receipt(State.UNKNOWN, "timeout", "No answer.")] * 2)


# ------------------------------------------------------------------------------------------------------------ opening


async def test_a_journal_outlives_the_process(path: Path) -> None:
    """What was recorded is there after closing and opening again, and nothing but the journal is left."""
    await a_paid_journal(path)
    async with SqliteJournal.open(path) as journal:
        assert (await states(journal, "run"))[1] is State.PAID
        async with journal.lease("account bf", SOMEBODY):
            pass
    assert sorted(file.name for file in path.parent.iterdir()) == ["payouts.db"]


async def test_only_the_owner_can_read_it(path: Path) -> None:
    """The file, its side files and its locks hold phone numbers: mode 0600, whatever the umask says."""
    before = os.umask(0)
    try:
        async with SqliteJournal.open(path) as journal, journal.lease("account bf", SOMEBODY):
            await journal.begin(run("run"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}


async def test_every_commit_reaches_the_disk(path: Path) -> None:
    """WAL with synchronous=FULL whenever something durable is written."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk([1]))
        read = journal._read
        assert await read(lambda db: db.pragma("journal_mode")) == "wal"
        assert await read(lambda db: db.pragma("synchronous")) == 2


async def test_a_sandbox_journal_never_pays_and_a_live_one_never_plays(tmp_path: Path) -> None:
    """Opening one kind as the other is refused and says which option to use."""
    await opened(tmp_path / "live.db")
    await opened(tmp_path / "sandbox.db", sandbox=True)
    with pytest.raises(JournalError, match=r"live\.db holds real payouts .* Leave --sandbox out"):
        await opened(tmp_path / "live.db", sandbox=True)
    with pytest.raises(JournalError, match=r"sandbox\.db belongs to the sandbox .* Add --sandbox"):
        await opened(tmp_path / "sandbox.db")


async def test_a_newer_journal_is_left_alone(path: Path) -> None:
    """A version that is not known yet is refused by name and not touched."""
    await opened(path)
    with apsw.Connection(str(path)) as db:
        db.pragma("user_version", VERSION + 1)
    with pytest.raises(JournalNewerError, match=rf"payouts\.db .* newer version .*format {VERSION + 1}"):
        await opened(path)


BEFORE_DIRECTIONS = (
    "DROP TRIGGER runs_stay_approved; ALTER TABLE runs DROP COLUMN direction;ALTER TABLE dispatches DROP COLUMN spoken;"
    "DROP TABLE callbacks"
)
"""Takes out of a journal what formats 6 to 8 brought."""


async def test_an_older_journal_is_brought_up_to_date(path: Path) -> None:
    """A file of the first version is refused to readers alone, and complete once it was opened."""
    await opened(path)
    with apsw.Connection(str(path)) as db:
        complete = db.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall()
        db.execute(
            "DROP INDEX log_facts; DROP INDEX log_asked_again; DROP INDEX progress_held; DROP INDEX log_decisions;"
            "ALTER TABLE dispatches DROP COLUMN boot; ALTER TABLE dispatches DROP COLUMN up_seconds;"
            "ALTER TABLE dispatches DROP COLUMN on_wire; PRAGMA user_version = 1"
        )
        db.execute(BEFORE_DIRECTIONS)
    with pytest.raises(JournalError, match="of an older version"):
        verify_file(path, "run")
    await opened(path)
    with apsw.Connection(str(path)) as db:
        assert db.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall() == complete
        assert db.pragma("user_version") == VERSION


async def test_what_older_remarks_say_is_carried_over_once(path: Path) -> None:
    """A journal that kept its state in remarks goes on with that state, and remarks made later are for people alone."""
    odd, plain = Lane("ml: main", "orange_ml", "XOF"), Lane("ml", "orange_ml", "XOF")
    let_go = Lane("ci", "moov_ci", "XOF")
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk([1], odd), chunk([2], plain), chunk([4], let_go))
        await approved(journal, "other", chunk([3]))
        dispatch = await sent(journal, "run", Receipt(State.UNKNOWN), odd)
        for kind, text in (
            *(("canary", "5"), ("canary_passed", "ml/orange_ml"), ("brake_canary", "ml: main/orange_ml: Look: here.")),
            *(("brake_funds", "ml: Top up."), ("key", "old ml: main"), ("key", "new ml: main"), ("key", "one ml")),
            *(("results_folder", "a b"), ("conflict", "Paid twice."), ("remark", "Hello.")),
            ("canary_overruled", "ci/moov_ci: the rest may be sent; said by nobody; said by Awa"),
        ):
            await journal.note("run", kind, text)
        kept = await journal.digest("run")
    with apsw.Connection(str(path)) as db:
        note = AskedRemark("asked_cancel", "Awa: finance: wrong month", "Awa: finance", "wrong month")
        log.append(db, 1.0, 1, "note", msgspec.json.encode(note).decode())
        log.append(db, 2.0, 1, "answered", '{"kind":"cancel"}')
        db.execute(f"DROP INDEX log_facts; PRAGMA user_version = 3; {BEFORE_DIRECTIONS}")
    async with SqliteJournal.open(path) as journal:
        known = await journal.facts("run")
        assert known == RunFacts(
            canary_size=5,
            canary_done=frozenset({plain, let_go}),
            canary_stopped=frozenset({odd}),
            keys={"ml: main": "new", "ml": "one"},
            results_folder="a b",
            conflicts=["Paid twice."],
        )
        assert await journal.facts("other") == summed_up([])
        assert len(await journal.notes("run")) == 12
        assert (await journal.verify("run", kept)).proven
        await journal.note("run", "canary", "7")
        await journal.note("run", "canary_overruled", "ml: main/orange_ml: Go on.")
    async with SqliteJournal.open(path) as journal:
        assert await journal.facts("run") == known
        await journal.reconcile([LookUpResult(dispatch.keys[0], Receipt(State.READY, "absent"))])
    with apsw.Connection(str(path)) as db:
        ((body,),) = db.execute("SELECT body FROM log WHERE kind = 'decision'").fetchall()
    assert read_moved(str(body)).persons == [Person("Awa: finance", "cancel", "wrong month")]
    assert verify_file(path, "run", kept).proven


@pytest.mark.parametrize(
    ("text", "stands", "who"),
    [("Awa: finance: late", True, "Awa: finance"), ("Awa: late", False, "Awa"), ("Awa", False, "Awa")],
)
async def test_the_oldest_cancellations_are_carried_over(path: Path, text: str, stands: bool, who: str) -> None:
    """Who cancelled is told apart from why by the request, where it stands, and else as it was read before."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk([1]))
        if stands:
            await journal.request("run", ControlRequest(ControlKind.CANCEL, who, "late"))
    with apsw.Connection(str(path)) as db:
        log.append(db, 1.0, 1, "note", msgspec.json.encode(log.Note("asked_cancel", text)).decode())
        db.execute(f"DROP INDEX log_facts; PRAGMA user_version = 3; {BEFORE_DIRECTIONS}")
    await opened(path)
    with apsw.Connection(str(path)) as db:
        asked = cancelled(db, 1)
    assert asked is not None
    assert (asked.who, str(asked)) == (who, text)


async def test_an_older_journal_gets_the_keys_it_would_have_had(path: Path) -> None:
    """What is hashed has changed since: the keys of all that was approved, and of nothing else, are made anew."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk([1, 2]), chunk([3], MOOV), refused([4]))
        await approved(journal, "bare", chunk([5]), has_references=False)
        await journal.begin(msgspec.structs.replace(run("results"), columns=("reference", "phone", "payout_line")))
        await journal.add("results", [Chunk(ORANGE, [payout(6)], [["R", "1", "6"]])])
        await journal.seal("results")
        assert await journal.approve("results")
        await validated(journal, "nobody said yes", chunk([7]))
    keys = by_hand(path, "SELECT hash, position FROM keys ORDER BY hash, position")
    assert len(keys) == 3 * 4 + 2, "of a list without references, cells say nothing"
    by_hand(path, "PRAGMA user_version = 2; DELETE FROM keys WHERE position % 2; INSERT INTO keys VALUES (1, 1)")
    by_hand(path, "DROP INDEX progress_held; DROP INDEX log_decisions; DROP INDEX log_facts")
    by_hand(path, "ALTER TABLE dispatches DROP COLUMN on_wire")
    by_hand(path, BEFORE_DIRECTIONS)
    await opened(path)
    assert by_hand(path, "SELECT hash, position FROM keys ORDER BY hash, position") == keys


async def test_the_settings_of_a_connection_hold(tmp_path: Path) -> None:
    """What is durable is synced, a throw-away journal is not, and the log beside the file is not read too often."""
    wanted = {"payouts.db": ("wal", 2, CHECKPOINT_PAGES), "plan.db": ("memory", 0, 1000)}
    for name, (mode, synchronous, pages) in wanted.items():
        db = connect(tmp_path / name, sandbox=False, scratch=name == "plan.db", earlier=None)
        found = db.pragma("journal_mode"), db.pragma("synchronous"), db.pragma("wal_autocheckpoint")
        assert found == (mode, synchronous, pages)
        caches = [db.execute(f"PRAGMA {schema}.cache_size").fetchall() for schema in ("main", "temp")]
        assert caches == [[(-PAGE_CACHE_KIBIBYTES,)]] * 2
        db.close()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells which locks are held")
async def test_opening_a_journal_twice_keeps_its_locks(path: Path) -> None:
    """Two engines of one process may have one journal open: neither lets go of what the other holds."""

    def locks() -> list[str]:
        return [line for line in Path("/proc/locks").read_text().splitlines() if f":{path.stat().st_ino} " in line]

    async with SqliteJournal.open(path) as one:
        await approved(one, "run", chunk([1]))
        assert locks()
        async with SqliteJournal.open(path):
            assert locks()
        assert locks()


async def test_a_file_that_is_no_journal_is_refused(path: Path) -> None:
    """Garbage, another program's database and a damaged journal are named; none is overwritten."""
    path.write_bytes(b"reference;phone;amount\n" * 400)
    with pytest.raises(JournalDamagedError, match=r"payouts\.db is not a readable journal"):
        await opened(path)
    assert path.read_bytes().startswith(b"reference;phone")
    path.unlink()

    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE customers (name TEXT)")
    db.close()
    with pytest.raises(JournalDamagedError, match="database of another program"):
        await opened(path)


async def test_damage_found_later_is_said_too(path: Path) -> None:
    """Pages that were overwritten behind the header are an error of the call that meets them."""
    await a_paid_journal(path)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(JournalDamagedError, match=r"payouts\.db"):
        async with SqliteJournal.open(path) as journal:
            await journal.runs()


async def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A missing folder, and a folder in place of the file, are said in words."""
    with pytest.raises(JournalError, match="does not exist"):
        await opened(tmp_path / "nowhere" / "payouts.db")
    with pytest.raises(JournalError, match="is a folder"):
        await opened(tmp_path)


READ_ONLY_SCRIPT = f"""{BOUND_BY_PERMISSIONS}
import asyncio, sys
from pathlib import Path
from payout_engine.domain.errors import JournalFullError
from payout_engine.journal import SqliteJournal, dispatches, log, resends, verify_file
from payout_engine.journal.facts import cancelled

async def main():
    async with SqliteJournal.open(Path(sys.argv[1])):
        pass

try:
    asyncio.run(main())
except JournalFullError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_read_only_journal_is_refused(path: Path, what: str) -> None:
    """Where nothing can be recorded nothing may be sent: a read-only file or folder is an error at the door."""
    await opened(path)
    path.chmod(0o444 if what == "file" else 0o666)
    path.parent.chmod(0o777 if what == "file" else 0o555)
    done = subprocess.run([sys.executable, "-c", READ_ONLY_SCRIPT, path], capture_output=True, text=True, check=True)
    path.parent.chmod(0o755)
    assert "payouts.db cannot be written" in done.stdout


async def test_a_full_disk_records_nothing_and_breaks_nothing(path: Path) -> None:
    """The call that found no room has recorded nothing; once there is room, the same call succeeds."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", *(chunk(range(n, n + 100)) for n in range(0, 1000, 100)))
        dispatch = await dispatched(journal, "run")
        receipts = [Receipt(State.UNKNOWN, "timeout", "No answer. " * 400) for _ in dispatch.payouts]
        pages = await journal._read(lambda db: db.pragma("page_count"))
        await journal._read(lambda db: db.pragma("max_page_count", pages))
        with pytest.raises(JournalFullError, match=r"payouts\.db cannot be written .* Make room"):
            await journal.record(dispatch, receipts)
        assert (await entry(journal, "run", 0)).receipt.state is State.SENDING
        await journal._read(lambda db: db.pragma("max_page_count", 1_000_000))
        await journal.record(dispatch, receipts)
        assert (await entry(journal, "run", 0)).receipt.state is State.UNKNOWN


async def test_a_busy_journal_is_said_and_comes_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program's lock is waited for, then named; nothing of the call is recorded."""
    monkeypatch.setattr("payout_engine.journal.schema.BUSY_TIMEOUT_MILLISECONDS", 50)
    async with SqliteJournal.open(path) as journal:
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="in use by another program"):
            await journal.begin(run("run"))
        other.execute("ROLLBACK")
        other.close()
        await journal.begin(run("run"))


async def test_a_closed_journal_says_so(path: Path) -> None:
    """A request after closing is an error and does not wait forever; closing twice is allowed."""
    async with SqliteJournal.open(path) as journal:
        await journal.aclose()
        with pytest.raises(JournalError, match="is closed"):
            await journal.runs()


# ------------------------------------------------------------------------------------------------------------ scratch


async def test_a_scratch_journal_validates_by_the_real_one_and_leaves_it_alone(path: Path, tmp_path: Path) -> None:
    """A plan finds the same repeats as a run would, and not a byte of the journal changes."""
    await a_paid_journal(path)
    before = path.read_bytes()
    async with SqliteJournal.open(tmp_path / "plan.db", scratch_of=path) as scratch:
        await scratch.begin(run("plan"))
        await scratch.add("plan", [chunk([1, 2, 9]), chunk([10], reference="SAL-00009")])
        found = await every(scratch.duplicates("plan"))
        assert said(found) == {(line, kind, "run", line, False) for line in (1, 2) for kind in DuplicateKind} | {
            (10, DuplicateKind.REFERENCE, "plan", 9, True)
        }
        assert {repeat.earlier_state for repeat in found if repeat.payout.line == 2} == {State.UNKNOWN}
        await scratch.seal("plan")
    assert path.read_bytes() == before


async def test_a_scratch_journal_needs_no_real_one(path: Path, tmp_path: Path) -> None:
    """A plan before the first run compares with nothing and does not make the journal."""
    async with SqliteJournal.open(tmp_path / "plan.db", scratch_of=path) as scratch:
        await validated(scratch, "plan", chunk([1]))
        assert await every(scratch.duplicates("plan")) == []
    assert not path.exists()


async def test_a_scratch_journal_refuses_what_a_run_would_refuse(path: Path, tmp_path: Path) -> None:
    """A plan against a file that is no journal, or of the other kind, fails as the run would, naming that file."""
    path.write_bytes(b"no journal at all" * 100)
    with pytest.raises(JournalDamagedError, match=r"payouts\.db"):
        async with SqliteJournal.open(tmp_path / "plan.db", scratch_of=path):
            pass
    await opened(tmp_path / "sandbox.db", sandbox=True)
    with pytest.raises(JournalError, match=r"sandbox\.db belongs to the sandbox"):
        async with SqliteJournal.open(tmp_path / "plan2.db", scratch_of=tmp_path / "sandbox.db"):
            pass


async def test_a_run_is_approved_by_who_validated_it(path: Path) -> None:
    """Another process knows nothing of the run's comparison and is told to validate the file again."""
    async with SqliteJournal.open(path) as journal:
        await validated(journal, "run", chunk([1]))
    async with SqliteJournal.open(path) as journal:
        for refused_call in (journal.approve("run"), every(journal.duplicates("run"))):
            with pytest.raises(JournalError, match="run its payout file again"):
                await refused_call
        await journal.discard("run")
        await approved(journal, "run", chunk([1]))


async def test_two_processes_see_each_other(path: Path) -> None:
    """A run approved through another connection counts as earlier at once, and makes the other look again."""
    async with SqliteJournal.open(path) as one, SqliteJournal.open(path) as two:
        await validated(one, "one", chunk([1, 2]))
        await validated(two, "two", chunk([2, 3]))
        assert await one.approve("one")
        assert not await two.approve("two")
        assert {repeat.payout.line for repeat in await every(two.duplicates("two"))} == {2}
        assert await two.approve("two")
        async with one.lease("account bf", SOMEBODY):
            with pytest.raises(JournalBusyError, match="Process 4711 is paying"):
                async with two.lease("account bf", SOMEBODY):
                    pass


# ------------------------------------------------------------------------------------------------------------- people


def by_hand(path: Path, statement: str) -> list[tuple[object, ...]]:
    """Do what a person with a SQLite shell does."""
    db = apsw.Connection(str(path))
    try:
        return [tuple(found) for found in db.execute(statement)]
    finally:
        db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE progress SET states = 'rrr' WHERE states = 'puu'",
        "UPDATE progress SET states = 'pup' || 'u' WHERE states = 'puu'",
        "UPDATE progress SET states = 'r' WHERE states = 'x'",
        "UPDATE progress SET states = 'suu' WHERE states = 'puu'",
        "UPDATE progress SET chunk_id = chunk_id + 5",
        "INSERT INTO progress (chunk_id, states, updated_at) VALUES (1, 'rrp', 0)",
        "DELETE FROM progress",
        "UPDATE chunks SET amount_minor = 1",
        "DELETE FROM chunks",
        "DELETE FROM runs",
        "UPDATE runs SET state = 'judged'",
        "UPDATE runs SET approved_at = NULL",
        "DELETE FROM dispatches",
        "UPDATE log SET body = '{}'",
        "DELETE FROM log WHERE seq = 2",
    ],
)
async def test_nobody_rewrites_the_past(path: Path, statement: str) -> None:
    """A move that the lifecycle lacks, and any change of what was validated, sent or logged, is refused."""
    await a_paid_journal(path)
    before = by_hand(path, "SELECT * FROM progress")
    with pytest.raises(apsw.ConstraintError, match="lifecycle: "):
        by_hand(path, statement)
    assert by_hand(path, "SELECT * FROM progress") == before


async def test_the_guard_has_the_lifecycles_own_table(path: Path) -> None:
    """The SQL guard allows exactly the moves and births of `lifecycle`, and words every letter."""
    await opened(path)
    assert set(by_hand(path, "SELECT source, target FROM moves")) == {(LETTERS[a], LETTERS[b]) for a, b in MOVES}
    assert set(by_hand(path, "SELECT letter, word, birth FROM words")) == {
        (letter, state.value, int(state in INITIAL_STATES)) for state, letter in LETTERS.items()
    }


@pytest.mark.parametrize("mixed", [False, True])
async def test_the_guard_decides_every_pair_of_states(path: Path, mixed: bool) -> None:
    """Alone or beside another payout, a move passes the guard when and only when the lifecycle has it."""
    await opened(path)
    db = apsw.Connection(str(path))
    db.execute("DROP TRIGGER progress_births; INSERT INTO progress (chunk_id, states, updated_at) VALUES (1, 'r', 0)")
    other = "p" if mixed else ""
    for source in State:
        for target in State:
            db.execute("DELETE FROM progress")
            db.execute(
                "INSERT INTO progress (chunk_id, states, updated_at) VALUES (1, ?, 0)", (LETTERS[source] + other,)
            )
            allowed = source is target or (source, target) in MOVES
            try:
                db.execute("UPDATE progress SET states = ?", (LETTERS[target] + other,))
            except apsw.ConstraintError:
                assert not allowed, (source, target)
            else:
                assert allowed, (source, target)
    db.close()


async def test_a_person_can_ask_in_sql(path: Path) -> None:
    """The views show one row per payout, the counts of each run, and what waits for a person."""
    await a_paid_journal(path)
    async with SqliteJournal.open(path) as journal:
        keys = [found.key for found in await every(journal.entries("run"))]
    columns = (
        "line, reference, state, amount_minor, currency, phone, wallet, account, reason, provider_reference, at, key"
    )
    paid, unknown, _, rejected = by_hand(path, f"SELECT {columns} FROM payouts ORDER BY line")
    common = ("XOF", "22670000001", "orange_bf", "bf")
    assert paid == (1, "SAL-00001", "paid", 1001, *common, "", "T1", "2023-11-14T22:13:20.125Z", keys[0])
    assert (unknown[2], unknown[8], unknown[11]) == ("unknown", "timeout", keys[1])
    assert (rejected[2], rejected[8], rejected[11]) == ("rejected", "amount_zero", keys[3])
    assert by_hand(path, "SELECT line FROM attention") == [(2,), (3,)]
    assert set(by_hand(path, "SELECT run_id, state, count, amount_minor FROM runs_summary")) == {
        ("run", "paid", 1, 1001),
        ("run", "unknown", 2, 2005),
        ("run", "rejected", 1, 1004),
    }


async def test_uniform_receipts_are_stored_once_and_shown_for_all(path: Path) -> None:
    """One receipt for a hundred payouts takes the room of one, and the view shows it for each."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk(range(100)))
        await sent(journal, "run", Receipt(State.ACCEPTED, "queued", "In the queue."))
    assert by_hand(path, "SELECT length(receipts) < 120, receipts ->> '$.reason' FROM progress") == [(1, "queued")]
    assert by_hand(path, "SELECT count(*) FROM payouts WHERE reason = 'queued' AND state = 'accepted'") == [(100,)]


def test_the_arithmetic_of_the_views_is_that_of_the_keys() -> None:
    """The schema spells out the bits of chunk ids and positions; they are those of `limits`."""
    assert (1 << limits.RUN_CHUNK_BITS) - 1 == 16_777_215
    assert (limits.RUN_CHUNK_BITS, limits.CHUNK_INDEX_BITS) == (24, 10)
    assert chunk_range(3)[1] < chunk_range(4)[0]
    assert position_range(3)[1] < position_range(4)[0]


async def test_an_illegal_move_found_by_the_guard_is_ours_to_report(path: Path) -> None:
    """If our own code ever tried an illegal move, the caller sees IllegalMoveError and nothing is recorded."""
    await a_paid_journal(path)
    async with SqliteJournal.open(path) as journal:
        with pytest.raises(IllegalMoveError, match="cannot make this move"):
            await journal._read(lambda db: db.execute("UPDATE progress SET states = 'rrr' WHERE states = 'puu'"))
        assert (await states(journal, "run"))[1] is State.PAID


async def test_what_is_held_during_intake_is_born_held_in_the_log(path: Path) -> None:
    """Nothing is logged before the seal; then come the totals and what was held before it."""
    async with SqliteJournal.open(path) as journal:
        await journal.begin(run("run"))
        await journal.add("run", [chunk([1, 2], reference="SAME")])
        duplicates = await every(journal.duplicates("run"))
        await journal.hold("run", {repeat.position: Problem("reference_repeated", "Again.") for repeat in duplicates})
        assert by_hand(path, "SELECT count(*) FROM log") == [(0,)]
        await journal.seal("run")
        await journal.discard("run")
    assert by_hand(path, "SELECT kind FROM log ORDER BY seq") == [("seal",), ("hold",), ("discard",)]
    assert by_hand(path, "SELECT count(*) FROM payouts") == [(0,)]


async def test_what_is_held_after_the_seal_is_told_in_the_log(path: Path) -> None:
    """Replay finds the hold where it was made."""
    async with SqliteJournal.open(path) as journal:
        await validated(journal, "run", chunk([1, 2], reference="SAME"))
        duplicates = await every(journal.duplicates("run"))
        await journal.hold("run", {repeat.position: Problem("reference_repeated", "Again.") for repeat in duplicates})
        assert await journal.approve("run")
    assert by_hand(path, "SELECT kind FROM log ORDER BY seq") == [("seal",), ("hold",), ("approve",)]
    assert verify_file(path, "run").proven


async def test_the_seal_says_all_that_never_changes_of_a_run(path: Path) -> None:
    """Whatever column a run has, but for those that its later entries tell."""
    async with SqliteJournal.open(path) as journal:
        await validated(journal, "run", chunk([1]), retry_of="earlier", sandbox=True)
    columns = [name for _, name, *_ in by_hand(path, "PRAGMA table_info(runs)")]
    later = {"run_no", "state", "approved_no", "approved_at", "finished_at"}
    ((body,),) = by_hand(path, "SELECT body FROM log WHERE kind = 'seal'")
    sealed = msgspec.json.decode(str(body))
    (stored,) = by_hand(path, "SELECT * FROM runs")
    assert {name: sealed.get(name) for name in columns if name not in later} == {
        name: found for name, found in zip(columns, stored, strict=True) if name not in later
    }


@pytest.mark.parametrize("end", ["approve", "discard"])
async def test_what_was_known_for_validating_a_run_is_let_go_of(path: Path, end: str) -> None:
    """A process that validates file after file needs no more memory for the last than for the first."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "earlier", chunk([1, 2], reference="PAID"), chunk([3]))
        await sent(journal, "earlier", Receipt(State.FAILED))
        for run_id in ("other", "run"):
            await validated(journal, run_id, chunk([1, 2], reference="PAID"))
            await anext(journal.duplicates(run_id))

        def count(db: apsw.Connection) -> dict[tuple[str, str], int]:
            return {
                (table, run_id): value(
                    db,
                    f"SELECT count(*) FROM {table} JOIN runs"
                    f" ON runs.run_no = {'position >> 34' if table == 'fresh' else f'{table}.run_no'} WHERE run_id = ?",
                    (run_id,),
                )
                for table in ("validating", "found", "formerly", "fresh")
                for run_id in ("run", "other")
            }

        async def known() -> dict[tuple[str, str], int]:
            return await journal._read(count)

        def rows(db: apsw.Connection) -> int:
            return sum(
                value(db, f"SELECT count(*) FROM {table}") for table in ("validating", "found", "formerly", "fresh")
            )

        both = await known()
        assert all(both.values()), both
        await getattr(journal, end)("run")
        assert await known() == {place: 0 if place[1] == "run" else counted for place, counted in both.items()}
        await journal.discard("other")
        assert await journal._read(rows) == 0
        if end == "approve":
            assert await every(journal.duplicates("run")) == []
            assert (await known())["fresh", "run"] == 0, "it was compared once more"


async def test_a_search_that_was_broken_off_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far it had come, the next search finds what it would have found, and all of it."""
    monkeypatch.setattr("payout_engine.journal.duplicates.SUSPECTS_STEP", 2)
    async with inline(path) as journal:
        await approved(journal, "first", chunk(range(1, 9)))
        for run_id in ("one", "two"):
            await validated(journal, run_id, chunk(range(1, 9)))
        whole = await every(journal.duplicates("two"))
        assert {found.payout.line for found in whole} == set(range(1, 9))
        broken_off = 0
        for turns in range(1, 40, 3):
            search = asyncio.ensure_future(every(journal.duplicates("one")))
            for _ in range(turns):
                await asyncio.sleep(0)
            broken_off += search.cancel()
            await asyncio.wait([search])
            assert await every(journal.duplicates("two")) == whole
        assert broken_off > 3


async def test_what_is_told_page_by_page_is_told_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the pages, and whoever else is told of another run meanwhile."""
    monkeypatch.setattr("payout_engine.journal.duplicates.PAGE", 2)
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "first", chunk([1, 2, 3]))
        for run_id in ("one", "two"):
            await validated(journal, run_id, chunk([1, 2, 3], reference="SAME"))
        whole = await every(journal.duplicates("two"))
        assert len(whole) == len({(found.position, found.kind, found.same_run) for found in whole}) > 4
        pages = journal.duplicates("two")
        told = list(await anext(pages))
        assert len(await every(journal.duplicates("one"))) == len(whole)
        assert told + await every(pages) == whole


async def test_a_run_has_as_many_chunks_as_can_be_numbered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, however they come; and a chunk has as many payouts as can be numbered."""
    monkeypatch.setattr("payout_engine.journal.runs.CHUNKS_MAX", 3)
    async with SqliteJournal.open(path) as journal:
        await journal.begin(run("run"))
        await journal.add("run", [chunk([1])])
        await journal.add("run", [chunk(range(2, 2 + CHUNK_PAYOUTS_MAX)), chunk([2000])])
        with pytest.raises(JournalError, match="more than 3 chunks"):
            await journal.add("run", [chunk([2001])])
        await journal.seal("run")
        assert len(await every(journal.entries("run"))) == CHUNK_PAYOUTS_MAX + 2


async def test_what_is_open_is_found_by_its_index(path: Path) -> None:
    """Sweeps and resends ask for it again and again: chunks that are settled are not read for that."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk([1]))
    asked: list[str] = []

    def listen(_: object, sql: str, __: object) -> bool:
        asked.append(sql)
        return True

    with closing(apsw.Connection(str(path))) as db:
        db.exec_trace = listen
        dispatches.open_queries(db, "run", "bf", 10, 0)
        list(resends.resendable_chunks(db, "run", ORANGE, PAYS_ONCE, 0.0, 0))
        db.exec_trace = None
        plans = [
            " ".join(step for *_, step in db.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * sql.count("?")))
            for sql in asked
            if "payouts" in sql
        ]
    assert len(plans) == 2 and all("USING INDEX progress_open" in plan for plan in plans), plans


def test_the_digest_of_the_payouts_is_that_of_each_part() -> None:
    """No part of a chunk may be another, or move into its neighbour, unnoticed."""
    lane, texts = Lane("bf", "orange", "XOF"), ("payouts", "cells", "refusals")
    parts = (b"before", 7, lane, *texts)
    others: list[tuple[object, ...]] = [
        *((b"after", 7, lane, *texts), (b"before", 8, lane, *texts)),
        *((b"before", 7, Lane("x", "orange", "XOF"), *texts), (b"before", 7, Lane("bf", "x", "XOF"), *texts)),
        *((b"before", 7, lane, *texts[:at], "x", *texts[at + 1 :]) for at in range(3)),
        *((*parts[:3], "payoutz", "cells", "refusals"), (*parts[:4], "cellz", "refusals")),
    ]
    shifted = [(*parts[:3], "payoutsc", "ells", "refusals"), (*parts[:3], "payouts", "cellsr", "efusals")]
    assert len({chained_payouts(*each) for each in [parts, *others, *shifted]}) == 1 + len(others) + 2  # type: ignore[arg-type]


async def test_lanes_are_told_apart_by_all_of_their_name(path: Path) -> None:
    """A lane of the same account with another currency is another lane."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk([1]))
        assert await journal.ready("run", type(ORANGE)("bf", "orange_bf", "XAF"), 0, 1) == []
