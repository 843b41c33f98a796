"""The proof finds every tampering: real journal files are altered in every way, and it says what and where."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import BOUND_BY_PERMISSIONS
from tampering import RUNS, a_life, altered, read

from payout_engine.domain.errors import JournalDamagedError, JournalError
from payout_engine.domain.model import ControlRequest, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal, verify_file
from payout_engine.journal.log import GENESIS, chained
from payout_engine.testing.journal_lines import ORANGE, approved, chunk, sent


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A journal file that nobody altered, and a digest that was kept in the middle of its life."""
    path = tmp_path_factory.mktemp("honest") / "payouts.db"
    kept = asyncio.run(a_life(path))
    assert not path.with_name("payouts.db-wal").exists()
    return path, kept


def test_an_honest_journal_is_proven(honest: tuple[Path, str]) -> None:
    """Every kind of entry, and nothing is found; a digest kept in the middle is on its way."""
    path, kept = honest
    kinds = {kind for (kind,) in read(path, "SELECT kind FROM log")}
    assert kinds >= {
        "seal",
        "hold",
        "approve",
        "intent",
        "receipts",
        "recover",
        "asked_again",
        "sighting",
        "decision",
        "finish",
        "discard",
    }
    for digest in ("", kept):
        audit = verify_file(path, "run", digest)
        assert audit.findings == []
        assert (audit.payouts, audit.dispatches, audit.entries) == (8, 4, read(path, "SELECT max(seq) FROM log")[0][0])
    assert verify_file(path, "before").proven


RUN_NO = 2
ANOTHER = "INSERT INTO dispatches VALUES (99, {chunk_id}, NULL, 1.0, 2.0, '', 0, 1, NULL)"
EDITS = {
    "a state": "UPDATE progress SET states = replace(states, 'f', 'p')",
    "states": "UPDATE progress SET states = states || 'p'",
    "a receipt": "UPDATE progress SET receipts = replace(receipts, 'closed', 'open')",
    "a transfer": "UPDATE progress SET receipts = replace(receipts, 'Tpaid', 'Tpait')",
    "a refusal": "UPDATE progress SET receipts = replace(receipts, 'It is zero.', 'It is one.')",
    "no receipts": "UPDATE progress SET receipts = NULL WHERE states LIKE '%p%'",
    "an amount": "UPDATE chunks SET payouts = replace(payouts, '1001,', '9001,')",
    "amounts that cancel out": "UPDATE chunks SET payouts = replace(payouts, '1001,1002,', '1000,1003,')",
    "a phone": "UPDATE chunks SET payouts = replace(payouts, '22670000001', '22670000009')",
    "a cell": "UPDATE chunks SET rows = replace(rows, '22670000001', '22670000009')",
    "a sum": f"UPDATE chunks SET amount_minor = amount_minor + 1 WHERE run_no = {RUN_NO}",
    "a count": f"UPDATE chunks SET count = count + 1 WHERE run_no = {RUN_NO}",
    "a line": f"UPDATE chunks SET last_line = last_line + 1 WHERE run_no = {RUN_NO}",
    "a lane": "UPDATE chunks SET lane = 'orange_bf' WHERE lane = 'moov_bf'",
    "a currency": f"UPDATE chunks SET currency = 'XAF' WHERE currency = 'XOF' AND run_no = {RUN_NO}",
    "an account": f"UPDATE chunks SET account = 'ci' WHERE account = 'bf' AND run_no = {RUN_NO}",
    "whose chunk": f"UPDATE chunks SET run_no = 1 WHERE run_no = {RUN_NO} AND first_line = 5",
    "no chunk": f"DELETE FROM chunks WHERE run_no = {RUN_NO} AND first_line = 5",
    "no progress": f"DELETE FROM progress WHERE chunk_id >> 24 = {RUN_NO} AND chunk_id & 15 = 1",
    "a second chunk": "INSERT INTO chunks SELECT chunk_id + 9, run_no, account, lane, currency, 9, 9, count,"
    f" amount_minor, payouts, rows FROM chunks WHERE run_no = {RUN_NO} AND first_line = 1",
    "progress of nothing": f"INSERT INTO progress VALUES (({RUN_NO} << 24) + 99, 'r', NULL, 1.0)",
    "a dispatch": "DELETE FROM dispatches WHERE dispatch_id = 2",
    "another dispatch": ANOTHER.format(chunk_id=f"({RUN_NO} << 24) + 1"),
    "a dispatch of nothing": ANOTHER.format(chunk_id=f"({RUN_NO} << 24) + 50"),
    "whom it sent": "UPDATE dispatches SET indexes = '[2]' WHERE dispatch_id = 2",
    "when it was sent": "UPDATE dispatches SET begun_at = begun_at - 1 WHERE dispatch_id = 1",
    "an open dispatch": "UPDATE dispatches SET ended_at = NULL WHERE dispatch_id = 1",
    "a closed dispatch": "UPDATE dispatches SET ended_at = 1.0 WHERE ended_at IS NULL",
    "the run": f"DELETE FROM runs WHERE run_no = {RUN_NO}",
    "the run's id": f"UPDATE runs SET run_id = 'nur' WHERE run_no = {RUN_NO}",
    "its keys": f"UPDATE runs SET token = 'aaaaaaaaaaaa' WHERE run_no = {RUN_NO}",
    "its file": f"UPDATE runs SET digest = 'other' WHERE run_no = {RUN_NO}",
    "its name": f"UPDATE runs SET name = 'other.csv' WHERE run_no = {RUN_NO}",
    "its columns": f"UPDATE runs SET columns = '[]' WHERE run_no = {RUN_NO}",
    "its kind": f"UPDATE runs SET sandbox = 1 WHERE run_no = {RUN_NO}",
    "its state": f"UPDATE runs SET state = 'intake' WHERE run_no = {RUN_NO}",
    "its end": f"UPDATE runs SET finished_at = NULL WHERE run_no = {RUN_NO}",
    "its approval": f"UPDATE runs SET approved_at = approved_at + 1 WHERE run_no = {RUN_NO}",
    "the end of the log": "DELETE FROM log WHERE seq = (SELECT max(seq) FROM log)",
    "the whole log": "DELETE FROM log",
    "the run's log": f"DELETE FROM log WHERE run_no = {RUN_NO}",
    "an added entry": "INSERT INTO log (at, run_no, kind, body, hash)"
    ' VALUES (1.0, 2, \'note\', \'{"kind":"a","text":"b"}\', zeroblob(32))',
    "no text": "UPDATE log SET body = CAST(x'FF' AS TEXT) WHERE kind = 'receipts'",
    "whose entry": "UPDATE log SET run_no = 1 WHERE kind = 'intent'",
    "which chunk": "UPDATE log SET chunk_id = chunk_id + 1 WHERE kind = 'intent'",
    "what kind": "UPDATE log SET kind = 'note' WHERE kind = 'intent'",
    "a repetition": "UPDATE log SET kind = 'note' WHERE kind = 'asked_again'",
    "no repetition": "DELETE FROM log WHERE kind = 'asked_again'",
    "when": "UPDATE log SET at = at + 0.001 WHERE kind = 'decision'",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_every_edit_is_found(honest: tuple[Path, str], tmp_path: Path, edit: str) -> None:
    """Whatever is changed in any table with the guards gone, the proof does not hold any more."""
    path = altered(honest[0], tmp_path, edit)
    audit = verify_file(path, "run")
    assert not audit.proven
    assert audit.findings[0].what


def test_a_changed_entry_is_located(honest: tuple[Path, str], tmp_path: Path) -> None:
    """One altered entry is one finding, with its number, its run and its lines."""
    edit = "UPDATE log SET body = replace(body, 'closed', 'opened') WHERE body LIKE '%closed%'"
    path = altered(honest[0], tmp_path, edit)
    ((seq,),) = read(path, "SELECT seq FROM log WHERE body LIKE '%opened%'")
    found = verify_file(path, "run").findings
    assert [(finding.seq, finding.run_id, finding.first_line, finding.last_line) for finding in found[:1]] == [
        (seq, "run", 1, 4)
    ]
    assert all(finding.seq in (0, seq) for finding in found)


def test_a_changed_state_is_located(honest: tuple[Path, str], tmp_path: Path) -> None:
    """An altered state names the line, what is recorded and what the log says."""
    path = altered(honest[0], tmp_path, EDITS["a state"])
    (found,) = verify_file(path, "run").findings
    assert (found.first_line, found.last_line) == (2, 2)
    assert "recorded as paid, but by the log it is failed" in found.what


def entries(path: Path) -> list[list[Any]]:
    """Return the log's rows."""
    return [list(row) for row in read(path, "SELECT seq, at, run_no, chunk_id, kind, body, hash FROM log ORDER BY seq")]


COLUMNS = {"at": 1, "run_no": 2, "chunk_id": 3, "kind": 4, "body": 5, "hash": 6}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_any_entry(honest: tuple[Path, str], tmp_path: Path, data: st.DataObject) -> None:
    """A flipped byte in the body, the kind or the hash of any entry is found, and located at it or the next one."""
    row = data.draw(st.sampled_from(entries(honest[0])))
    column = data.draw(st.sampled_from(["body", "kind", "hash"]))
    raw = bytearray(row[COLUMNS[column]] if column == "hash" else row[COLUMNS[column]].encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    value = "?" if column == "hash" else "CAST(? AS TEXT)"
    path = altered(honest[0], tmp_path, (f"UPDATE log SET {column} = {value} WHERE seq = ?", (bytes(raw), row[0])))
    audit = verify_file(path, "run")
    assert not audit.proven
    assert {finding.seq for finding in audit.findings} & {row[0], row[0] + 1} or "log ends" in audit.findings[0].what


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_entry_removed_or_swapped(honest: tuple[Path, str], tmp_path: Path, data: st.DataObject) -> None:
    """No entry can be taken out, with or without closing the gap, and no two can change places."""
    rows = entries(honest[0])
    one = data.draw(st.integers(1, len(rows)))
    remove = f"DELETE FROM log WHERE seq = {one}"
    close = [f"UPDATE log SET seq = {seq - 1} WHERE seq = {seq}" for seq in range(one + 1, len(rows) + 1)]
    other = data.draw(st.integers(1, len(rows)).filter(lambda other: other != one))
    moves = [(one, 0), (other, one), (0, other)]
    swap = [f"UPDATE log SET seq = {target} WHERE seq = {source}" for source, target in moves]
    for statements in ([remove], [remove, *close], swap):
        assert not verify_file(altered(honest[0], tmp_path, *statements), "run").proven


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_any_payout_or_state(honest: tuple[Path, str], tmp_path: Path, data: st.DataObject) -> None:
    """A flipped byte in the payouts, cells, states or receipts of any chunk is found."""
    table, column = data.draw(
        st.sampled_from([("chunks", "payouts"), ("chunks", "rows"), ("progress", "states"), ("progress", "receipts")])
    )
    found = read(
        honest[0],
        f"SELECT chunk_id, CAST({column} AS BLOB) FROM {table}"
        f" WHERE chunk_id >> 24 = {RUN_NO} AND {column} IS NOT NULL",
    )
    chunk_id, stored = data.draw(st.sampled_from(found))
    raw = bytearray(stored)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    edit = f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE chunk_id = ?"
    assert not verify_file(altered(honest[0], tmp_path, (edit, (bytes(raw), chunk_id))), "run").proven


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_the_file(honest: tuple[Path, str], tmp_path: Path, data: st.DataObject) -> None:
    """Whatever byte of the file is flipped, the answer is a finding, a clear error, or the same proof as before."""
    raw = bytearray(honest[0].read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped.db"
    path.write_bytes(raw)
    expected = verify_file(honest[0], "run")
    try:
        audit = verify_file(path, "run")
    except JournalError:
        return
    assert not audit.proven or audit == expected


def rewritten(path: Path, folder: Path, change: Callable[[list[Any]], None]) -> Path:
    """Return a copy whose log was altered by somebody who then computed every hash anew."""
    rows, before, statements = entries(path), GENESIS, []
    for row in rows:
        change(row)
        before = row[6] = chained(before, *row[1:6])
        edit = "UPDATE log SET body = ?, at = ?, hash = ?, chunk_id = ?, kind = ? WHERE seq = ?"
        statements.append((edit, (row[5], row[1], row[6], row[3], row[4], row[0])))
    return altered(path, folder, *statements)


def test_a_kept_digest_finds_a_rewritten_log(honest: tuple[Path, str], tmp_path: Path) -> None:
    """Who computes all hashes anew passes the chain; a digest that was kept before tells."""

    def change(row: list[Any]) -> None:
        if row[4] == "note":
            row[5] = row[5].replace("All", "Not")

    def change_early(row: list[Any]) -> None:
        if row[4] == "approve":
            row[5] += " "

    kept_late = verify_file(honest[0], "run").digest
    late = rewritten(honest[0], tmp_path, change)
    assert verify_file(late, "run").proven
    assert not verify_file(late, "run", kept_late).proven
    early = rewritten(honest[0], tmp_path, change_early)
    assert verify_file(early, "run").proven
    assert not verify_file(early, "run", honest[1]).proven
    assert "kept digest" in verify_file(early, "run", honest[1]).findings[0].what


async def test_an_older_copy_needs_a_kept_digest(tmp_path: Path) -> None:
    """A copy from before the last dispatch is a perfect journal: only the digest tells, and the result says so."""
    path, older = tmp_path / "payouts.db", tmp_path / "older.db"
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk([1, 2]), chunk([3, 4]))
        await sent(journal, "run", Receipt(State.PAID))
    shutil.copyfile(path, older)
    early = verify_file(path, "run")
    async with SqliteJournal.open(path) as journal:
        await sent(journal, "run", Receipt(State.PAID))
    late = verify_file(path, "run")

    (alone,) = verify_file(older, "run").unprovable
    assert verify_file(older, "run").proven
    assert "older copy" in alone and "end of its log was cut off" in alone and "--digest" in alone
    found = verify_file(older, "run", late.digest)
    assert "its end was cut off, this is an older copy" in found.findings[0].what
    assert found.unprovable == [alone]
    for digest in (early.digest, late.digest):
        proof = verify_file(path, "run", digest)
        assert proof.proven
        assert f"after entry {digest.partition('-')[0]}," in proof.unprovable[0]


@pytest.mark.parametrize("clean", [False, True], ids=["the end alone", "with SQLite's own count"])
def test_no_end_of_the_log_can_be_cut_off(honest: tuple[Path, str], tmp_path: Path, clean: bool) -> None:
    """However much is cut off: found, or not found only where the digest is the one that could tell, and does."""
    kept = {run_id: verify_file(honest[0], run_id).digest for run_id in RUNS}
    last = len(entries(honest[0]))
    for end in range(last):
        cut = [f"DELETE FROM log WHERE seq > {end}"]
        if clean:
            cut.append(f"UPDATE sqlite_sequence SET seq = {end} WHERE name = 'log'")
        path = altered(honest[0], tmp_path, *cut)
        for run_id, digest in kept.items():
            alone = verify_file(path, run_id)
            assert not alone.proven or (clean and "its log was cut off" in alone.unprovable[0]), (
                end,
                run_id,
            )
            if end < int(digest.partition("-")[0]):
                assert not verify_file(path, run_id, digest).proven, (end, run_id)


def test_older_entries_are_proven_as_before(honest: tuple[Path, str], tmp_path: Path) -> None:
    """A log from before uptimes, the journal's kind and answers were in it: nothing is found; what it has counts."""

    def older(row: list[Any]) -> None:
        body = msgspec.json.decode(row[5])
        if body.get("fact") == "asked":
            asked = msgspec.convert(body["request"], ControlRequest)
            row[4], body = "note", {"kind": f"asked_{asked.kind}", "text": str(asked)}
        for name in ("boot", "up_seconds") if row[4] == "intent" else ("meta",):
            body.pop(name, None)
        if row[4] == "answered":
            row[4], body = "note", {"kind": "remark", "text": "Done."}
        row[5] = msgspec.json.encode(body).decode()

    path, copy = rewritten(honest[0], tmp_path, older), tmp_path / "older.db"
    shutil.copyfile(path, copy)
    assert [verify_file(path, run_id).findings for run_id in RUNS] == [[]] * len(RUNS)
    for edit in (
        "UPDATE requests SET who = 'Nobody'",
        "UPDATE requests SET at = at - 1",
        "UPDATE meta SET value = '1'",
        "UPDATE dispatches SET begun_at = begun_at + 1 WHERE dispatch_id = 1",
    ):
        assert not verify_file(altered(copy, tmp_path, edit), "run").proven, edit


def test_what_the_seal_says_of_the_journal_is_compared(honest: tuple[Path, str], tmp_path: Path) -> None:
    """Each fact of `meta` has to be the one that was sealed."""

    def otherwise(row: list[Any]) -> None:
        row[5] = row[5].replace('"meta":{"sandbox":"0"', '"meta":{"sandbox":"1"')

    (found,) = verify_file(rewritten(honest[0], tmp_path, otherwise), "run").findings
    assert "the sandbox of the journal is not the one that was sealed" in found.what


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM runs WHERE run_id = 'before'",
        "UPDATE runs SET approved_at = NULL, approved_no = NULL, state = 'judged' WHERE run_id = 'before'",
    ],
)
def test_the_list_of_runs_is_that_of_the_log(honest: tuple[Path, str], tmp_path: Path, edit: str) -> None:
    """A run that is hidden from the comparison with earlier runs is found by the proof of any other."""
    found = verify_file(altered(honest[0], tmp_path, edit), "run").findings
    assert any(finding.run_id == "before" for finding in found)


def test_a_key_that_is_gone_names_its_lines(honest: tuple[Path, str], tmp_path: Path) -> None:
    """Without its keys a line could be paid again unnoticed: which lines, and what to do."""
    position = f"({RUN_NO} << 24 | 1) << 10"
    path = altered(honest[0], tmp_path, f"DELETE FROM keys WHERE position IN ({position} | 1, {position} | 2)")
    (found,) = verify_file(path, "run").findings
    assert (found.first_line, found.last_line) == (2, 3)
    assert "look for a second payment of these lines" in found.what
    assert verify_file(path, "before").proven


def test_a_second_dispatch_is_found_even_in_a_consistent_log(honest: tuple[Path, str], tmp_path: Path) -> None:
    """Proof of absence taken out of a log whose hashes all fit: the dispatch behind it has nothing to stand on."""

    def change(row: list[Any]) -> None:
        if row[4] == "sighting" and "absent" in row[5]:
            row[5] = row[5].replace('"ready"', '"unknown"')

    found = verify_file(rewritten(honest[0], tmp_path, change), "run").findings
    assert any("sent while unknown" in finding.what and finding.first_line == 2 for finding in found)


@pytest.mark.parametrize("left", ["false", "[0,1,2]", "[]"])
def test_what_never_left_cannot_have_been_answered(honest: tuple[Path, str], tmp_path: Path, left: str) -> None:
    """A log whose hashes all fit says that calls never left whose payouts were paid, or are in doubt."""

    def change(row: list[Any]) -> None:
        if row[4] == "receipts" and '"paid","ready"' in row[5]:
            row[5] = f'{row[5][:-1]},"on_wire":{left}}}'

    found = verify_file(rewritten(honest[0], tmp_path, change), "run").findings
    lines = {finding.last_line for finding in found if "an answer to a call that never left" in finding.what}
    assert lines == {4}


REPETITIONS: dict[str, tuple[Callable[[list[Any]], None], str]] = {}


def repetition(what: str, said: str) -> Callable[[Callable[[list[Any]], None]], None]:
    """Collect ways to rewrite the entry of a repetition, with what the proof must say of each."""

    def collect(change: Callable[[list[Any]], None]) -> None:
        REPETITIONS[what] = change, said

    return collect


@repetition("without a promise", "although the provider does not promise that a key pays once")
def _(row: list[Any]) -> None:
    row[5] = row[5].replace('"idempotent"', '"none"')


@repetition("a shorter life", "although the provider may have forgotten its key")
def _(row: list[Any]) -> None:
    row[5] = row[5].replace("3600.0", "0.0")


@repetition("much later", "although the provider may have forgotten its key")
def _(row: list[Any]) -> None:
    row[1] += 1801.0


@repetition("before it was sent", "although the clock had been set back")
def _(row: list[Any]) -> None:
    row[1] -= 60.0


@repetition("of one that was paid", "sent again to ask while paid")
def _(row: list[Any]) -> None:
    row[5] = row[5].replace("[3]", "[0]")


@repetition("of one that was never sent", "although it was never sent")
def _(row: list[Any]) -> None:
    row[3] += 1
    row[5] = row[5].replace("[3]", "[1]")


@repetition("of nobody", "cannot be read")
def _(row: list[Any]) -> None:
    row[5] = row[5].replace("[3]", "[9]")


@pytest.mark.parametrize(("change", "said"), REPETITIONS.values(), ids=REPETITIONS.keys())
def test_a_repetition_goes_by_the_promise_it_names(
    honest: tuple[Path, str], tmp_path: Path, change: Callable[[list[Any]], None], said: str
) -> None:
    """A log whose hashes all fit: what was resent to ask must have been unknown, and allowed by that promise."""

    def change_repetition(row: list[Any]) -> None:
        if row[4] == "asked_again":
            change(row)

    found = verify_file(rewritten(honest[0], tmp_path, change_repetition), "run").findings
    assert any(said in finding.what for finding in found), found


def test_a_repetition_is_no_second_dispatch_but_no_cover_for_one(honest: tuple[Path, str], tmp_path: Path) -> None:
    """What was resent to ask counts as no dispatch; the same bytes logged as a dispatch are found."""
    audit = verify_file(honest[0], "run")
    assert audit.proven and audit.dispatches == 4

    def change(row: list[Any]) -> None:
        if row[4] == "asked_again":
            row[4], row[5] = "intent", '{"dispatch":77,"indexes":[3]}'

    copy = rewritten(honest[0], tmp_path, change)
    found = verify_file(copy, "run").findings
    assert any("sent while unknown, without proof" in finding.what for finding in found)


PROVING_SCRIPT = f"""{BOUND_BY_PERMISSIONS}
import sys
from pathlib import Path
from payout_engine.journal import verify_file

print(verify_file(Path(sys.argv[1]), "run").proven)
"""


async def test_a_read_only_copy_is_proven_and_left_alone(honest: tuple[Path, str], tmp_path: Path) -> None:
    """A copy in a folder where nothing may be written is read; no file appears beside it and it does not change."""
    folder = tmp_path / "archive"
    folder.mkdir()
    path = folder / "payouts.db"
    shutil.copyfile(honest[0], path)
    path.chmod(0o400)
    folder.chmod(0o500)
    try:
        done = subprocess.run([sys.executable, "-c", PROVING_SCRIPT, path], capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"
        assert path.read_bytes() == honest[0].read_bytes()
        assert list(folder.iterdir()) == [path]
    finally:
        folder.chmod(0o700)


async def test_a_run_is_proven_while_it_is_paid(tmp_path: Path) -> None:
    """The proof looks at one moment: dispatches that begin and end beside it disturb it in nothing."""
    path = tmp_path / "payouts.db"
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", *(chunk(range(n, n + 10)) for n in range(1, 401, 10)))
        for ready in await journal.ready("run", ORANGE, 0, 100):
            dispatch = await journal.intend(ready)
            proof = asyncio.ensure_future(journal.verify("run"))
            await journal.record(dispatch, [Receipt(State.PAID)])
            audit = await proof
            assert audit.findings == []
            assert sum(total.count for total in audit.totals) == 400


def test_what_is_no_journal_is_a_clear_error(honest: tuple[Path, str], tmp_path: Path) -> None:
    """A missing file, an empty one, another program's, rubbish, an unknown run and a wrong digest are told apart."""
    with pytest.raises(JournalError, match="There is no journal"):
        verify_file(tmp_path / "missing.db", "run")
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(JournalError, match="is empty"):
        verify_file(tmp_path / "empty.db", "run")
    (tmp_path / "rubbish.db").write_bytes(b"phone,amount\n" * 500)
    with pytest.raises(JournalDamagedError):
        verify_file(tmp_path / "rubbish.db", "run")
    with pytest.raises(JournalError, match="no run nowhere"):
        verify_file(honest[0], "nowhere")
    with pytest.raises(JournalError, match="is not a digest"):
        verify_file(honest[0], "run", "abc")
