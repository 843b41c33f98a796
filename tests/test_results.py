"""The results folder and the event file, written from real journals."""

from __future__ import annotations

import csv
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from reading import read

from payout_engine.domain.errors import ConfigError, SinkError
from payout_engine.domain.model import REJECTED_LANE, Chunk, Lane, Outcome, Payout, Problem, Receipt, Run, Tally
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.ports.journal import Journal
from payout_engine.results.event_log import EventLog
from payout_engine.results.files import RESULT_COLUMNS, ResultFiles, write_results
from payout_engine.sinks import open_sink

ORANGE = Lane("bf", "orange_bf", "XOF")
MOBILE = Lane("ke", "mpesa_ke", "KES")
COLUMNS = ("phone", "amount", "name")
FATES = (
    Receipt(State.PAID, provider_reference="T1", at=1_790_000_000.0),
    Receipt(State.FAILED, "recipient_not_found", "No such wallet.", "T2", 1_790_000_001.5),
    Receipt(State.UNKNOWN, "timeout", "No answer."),
    Receipt(State.ACCEPTED, provider_reference="T4"),
)


@pytest.fixture
async def journal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Journal]:
    """Return an empty journal."""
    async with SqliteJournal.open(tmp_path_factory.mktemp("journal") / "payouts.db") as opened:
        yield opened


def a_run(run_id: str = "1120-abcde", columns: Sequence[str] = COLUMNS, **dialect: str) -> Run:
    """Return a run of a semicolon file."""
    return Run(
        run_id=run_id,
        name="salaries.csv",
        digest="d" * 64,
        columns=columns,
        has_references="reference_column" in dialect,
        created_at=1_789_000_000.0,
        dialect={"delimiter": ";", "bom": "yes", **dialect},
    )


def payouts(lines: Sequence[int], lane: Lane) -> list[Payout]:
    """Return one payout for each line."""
    return [
        Payout(f"R{line}", 1000 + line, lane.currency, phone=f"2267012345{line}", wallet=lane.name, line=line)
        for line in lines
    ]


def rows(lines: Sequence[int], width: int = 3) -> list[list[str]]:
    """Return the cells of these lines."""
    return [[f"7012345{line}", str(1000 + line), "=name", "old", "", "", "", "", "", "", ""][:width] for line in lines]


async def settled(journal: Journal, run: Run) -> Run:
    """Record a run with a line of every kind and let it meet its fates: lines 2 to 5, 7 (held), 8 (KES); 6 refused."""
    width = len(run.columns)
    refusal = [Problem("phone_unreadable", "Write digits only.", "phone")]
    await journal.begin(run)
    await journal.add(
        run.run_id,
        [
            Chunk(ORANGE, payouts([2, 3, 4, 5], ORANGE), rows([2, 3, 4, 5], width)),
            Chunk(ORANGE, payouts([7], ORANGE), rows([7], width)),
            Chunk(REJECTED_LANE, [Payout("", 0, line=6)], rows([6], width), refusal),
            Chunk(MOBILE, payouts([8], MOBILE), rows([8], width)),
        ],
    )
    await journal.seal(run.run_id)
    assert await journal.approve(run.run_id)
    first, _ = await journal.ready(run.run_id, ORANGE, 0, 10)
    await journal.record(await journal.intend(first), FATES)
    found = await journal.find(run.run_id)
    assert found is not None
    return found


async def results(journal: Journal, run: Run, folder: Path, format: str = "csv") -> ResultFiles:
    """Write the results."""
    return await write_results(journal, run, folder, open_sink=open_sink, format=format)


def table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a results file, by column."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, delimiter=";"))


async def test_every_line_comes_out_once_in_its_order(journal: Journal, tmp_path: Path) -> None:
    """`results.csv` has the input's columns in the input's format, then ours."""
    files = await results(journal, await settled(journal, a_run()), tmp_path / "out")
    found = table(files.results)
    assert files.results.read_bytes().startswith(b"\xef\xbb\xbfphone;amount;name;payout_line;payout_reference;")
    assert list(found[0]) == [*COLUMNS, *RESULT_COLUMNS]
    assert [row["payout_line"] for row in found] == list("2345678")
    assert [row["payout_status"] for row in found] == [
        "paid", "failed", "unknown", "accepted", "rejected", "ready", "ready",
    ]  # fmt: skip
    assert found[0] == {
        "phone": "70123452",
        "amount": "1002",
        "name": "'=name",
        "payout_line": "2",
        "payout_reference": "R2",
        "payout_status": "paid",
        "payout_reason": "",
        "payout_message": "",
        "payout_account": "bf",
        "payout_provider_reference": "T1",
        "payout_settled_at": "2026-09-21T14:13:20.000Z",
    }
    assert found[1]["payout_settled_at"] == "2026-09-21T14:13:21.500Z"
    assert {row["payout_settled_at"] for row in found[2:]} == {""}


async def test_lines_that_need_something_done_have_files_of_their_own(journal: Journal, tmp_path: Path) -> None:
    """Provably unpaid, refused, and for a person; each with what is needed to go on."""
    files = await results(journal, await settled(journal, a_run()), tmp_path / "out")
    assert table(files.failed) == [{"reference": "R3", "phone": "70123453", "amount": "1003", "name": "'=name"}]
    assert table(files.rejected) == [
        {
            "phone": "70123456",
            "amount": "1006",
            "name": "'=name",
            "payout_reason": "phone_unreadable",
            "payout_remedy": "Write digits only. (column phone)",
        }
    ]
    assert [(row["payout_line"], row["payout_status"], row["payout_amount"]) for row in table(files.attention)] == [
        ("4", "unknown", "1004")
    ]
    assert (files.lines, files.failed_lines, files.rejected_lines, files.attention_lines) == (7, 1, 1, 1)
    for path in files.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_failed_lines_can_be_read_again_as_they_are(journal: Journal, tmp_path: Path) -> None:
    """In the input's own columns and format, with the reference in its column, whatever that is called."""
    run = await settled(journal, a_run(columns=("phone", "amount", "Matricule"), reference_column="Matricule"))
    files = await results(journal, run, tmp_path)
    found = await read(files.failed)
    assert found.columns == ["phone", "amount", "Matricule"]
    assert found.rows == [["70123453", "1003", "R3"]]
    assert (found.dialect["delimiter"], found.dialect["bom"]) == (";", "yes")


async def test_results_fed_back_in_get_no_columns_twice(journal: Journal, tmp_path: Path) -> None:
    """The new value takes the place of the old one, where it stood."""
    columns = ("phone", "amount", "payout_remedy", "Payout_Status", "payout_line")
    run = await settled(journal, a_run(columns=columns))
    files = await results(journal, run, tmp_path)
    found = table(files.results)
    assert list(found[0])[:6] == [*columns, "payout_reference"]
    assert not any(row["payout_remedy"] for row in found)
    assert (found[0]["Payout_Status"], found[0]["payout_line"], found[0]["payout_reference"]) == ("paid", "2", "R2")
    assert len((await read(files.results)).rows) == 7


async def test_the_summary_adds_up(journal: Journal, tmp_path: Path) -> None:
    """Counts and amounts by state, currency, account and operator; currencies are never added together."""
    files = await results(journal, await settled(journal, a_run()), tmp_path)
    summary: dict[str, Any] = msgspec.json.decode(files.summary.read_bytes())
    assert (summary["run_id"], summary["digest"], summary["lines"]) == ("1120-abcde", "d" * 64, 7)
    assert summary["sent_at"] is not None and summary["finished_at"] is None
    assert summary["by_state"]["paid"]["amounts"] == {"XOF": {"amount_minor": 1002, "amount": "1002"}}
    assert summary["by_state"]["ready"]["amounts"] == {
        "KES": {"amount_minor": 1008, "amount": "10.08"},
        "XOF": {"amount_minor": 1007, "amount": "1007"},
    }
    for group in ("by_state", "by_currency", "by_account", "by_operator"):
        parts = summary[group].values()
        assert sum(part["count"] for part in parts) == 7
        assert sum(state["count"] for part in parts for state in part["states"].values()) == 7
    assert summary["by_operator"]["mpesa_ke"]["states"]["ready"]["count"] == 1
    assert summary["control"] == {
        "lines_in": 7,
        "lines_out": 7,
        "amounts_minor_in": {"KES": 1008, "XOF": 5021},
        "amounts_minor_out": {"KES": 1008, "XOF": 5021},
    }


class Forgetful(SqliteJournal):
    """A journal whose count does not agree with its lines."""

    async def tally(self, run_id: str) -> Sequence[Tally]:
        return [*await super().tally(run_id), Tally(ORANGE, State.PAID, 1, 500)]


async def test_what_waits_for_the_payers_confirmation_is_counted(journal: Journal, tmp_path: Path) -> None:
    """Accepted, and going nowhere until the payer says yes to the provider: nobody should wait for it in vain."""
    run = await settled(journal, a_run())
    (rest, *_) = await journal.ready(run.run_id, ORANGE, 0, 10)
    assert (await results(journal, run, tmp_path / "before")).awaiting_lines == 0
    waits = Receipt(State.ACCEPTED, "awaiting_confirmation", "Confirm it in the e-mail.")
    await journal.record(await journal.intend(rest), [waits])
    files = await results(journal, run, tmp_path / "after")
    assert files.awaiting_lines == len(rest.payouts)
    assert msgspec.json.decode(files.summary.read_bytes())["awaiting_confirmation"] == files.awaiting_lines


async def test_nothing_is_written_when_a_line_would_be_missing(tmp_path: Path) -> None:
    """Count in = count out, amount in = amount out, or the files of before stay as they are."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.csv").write_text("before")
    async with Forgetful.open(tmp_path / "payouts.db") as journal:
        with pytest.raises(SinkError, match=r"7 lines .* 8 lines"):
            await results(journal, await settled(journal, a_run()), out)
    assert [path.name for path in out.iterdir()] == ["results.csv"]
    assert (out / "results.csv").read_text() == "before"


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
async def test_programs_may_have_all_lines_in_their_own_format(journal: Journal, format: str, tmp_path: Path) -> None:
    """The files for people stay CSV."""
    files = await results(journal, await settled(journal, a_run()), tmp_path, format)
    assert files.results.name == f"results.{format}"
    found = await read(files.results)
    assert found.columns == [*COLUMNS, *RESULT_COLUMNS]
    assert [row[5] for row in found.rows][:2] == ["paid", "failed"]
    assert found.rows[0][2] == "=name"
    assert len(table(files.failed)) == 1


async def test_results_that_cannot_be_written_are_told(journal: Journal, tmp_path: Path) -> None:
    """As a sink's error, or as the option's that it is; nothing is left behind."""
    run = await settled(journal, a_run())
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="file"):
        await results(journal, run, tmp_path / "file" / "out")
    with pytest.raises(ConfigError):
        await results(journal, run, tmp_path / "out", "doc")
    assert list((tmp_path / "out").iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ events


def events(path: Path) -> list[dict[str, Any]]:
    """Return all events."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


async def test_events_go_on_where_they_stopped(journal: Journal, tmp_path: Path) -> None:
    """Delivered any number of times, each outcome is in the file once, in the order of the log, without a phone."""
    path = tmp_path / "events.jsonl"
    run = await settled(journal, a_run())
    for _ in range(2):
        with EventLog(path) as log:
            await log.catch_up(journal, run)
    assert [event["status"] for event in events(path)] == ["paid", "failed", "unknown", "accepted"]
    chunk = (await journal.ready(run.run_id, MOBILE, 0, 10))[0]
    await journal.record(await journal.intend(chunk), [Receipt(State.PAID)])
    with EventLog(path) as log:
        await log.catch_up(journal, run)
        assert log.last_seq == events(path)[-1]["seq"]
    assert [event["line"] for event in events(path)] == [2, 3, 4, 5, 8]
    assert [event["more"] for event in events(path)] == [3, 2, 1, 0, 0]
    assert b"2267012345" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_crash_at_any_byte_neither_loses_nor_repeats_an_event(journal: Journal, tmp_path: Path) -> None:
    """However much of the file reached the disk, it ends the same."""
    run = await settled(journal, a_run())
    for line in (7, 8):
        lane = ORANGE if line == 7 else MOBILE
        chunk = (await journal.ready(run.run_id, lane, 0, 10))[0]
        await journal.record(await journal.intend(chunk), [Receipt(State.PAID)])
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        await log.catch_up(journal, run)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut] + b"\0" * (cut % 3))
        with EventLog(path) as log:
            await log.catch_up(journal, run)
        assert path.read_bytes() == whole, cut


async def test_a_folder_used_for_two_runs_keeps_both_apart(journal: Journal, tmp_path: Path) -> None:
    """Numbers of one run, which may be of another journal, say nothing of the other's."""
    path = tmp_path / "events.jsonl"
    async with SqliteJournal.open(tmp_path / "second.db") as second:
        one, two = await settled(journal, a_run("one")), await settled(second, a_run("two"))
        for _ in range(2):
            for each, run in ((journal, one), (second, two)):
                with EventLog(path) as log:
                    await log.catch_up(each, run)
    assert [event["run_id"] for event in events(path)] == ["one"] * 4 + ["two"] * 4


def test_the_end_of_a_long_file_is_found(tmp_path: Path) -> None:
    """An entry longer than what is read at once is cut whole when its end is missing."""
    path = tmp_path / "events.jsonl"
    outcome = Outcome("one", 2, "R2", State.PAID, 1000, "XOF", message="m" * 200)
    with EventLog(path) as log:
        log.append(1, [outcome] * 900)
        size = path.stat().st_size
        log.append(2, [outcome] * 900)
    path.write_bytes(path.read_bytes()[:-5])
    with EventLog(path) as log:
        assert log.last_seq == 1
    assert path.stat().st_size == size


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """It is named, and not a byte of it is changed."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"user": "data"}\n')
    with pytest.raises(SinkError, match="not a file of events"):
        EventLog(path)
    assert path.read_text() == '{"user": "data"}\n'
    with pytest.raises(SinkError, match="cannot be written"):
        EventLog(tmp_path / "missing" / "events.jsonl")


async def test_nothing_is_written_through_a_link(journal: Journal, tmp_path: Path) -> None:
    """Events refuse it, and say so; the other files take its place. Where it leads, not a byte is changed."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    for content in ("", '{"seq":1,"more":0,"run_id":"one"}\n'):
        elsewhere.write_text(content)
        for target in (elsewhere, tmp_path / "missing"):
            (out / "events.jsonl").symlink_to(target)
            with pytest.raises(SinkError, match=r"events\.jsonl is a link.*Remove it"):
                EventLog(out / "events.jsonl")
            (out / "events.jsonl").unlink()
    for name in ("results.csv", "failed.csv", "rejected.csv", "attention.csv", "summary.json"):
        (out / name).symlink_to(elsewhere)
    await results(journal, await settled(journal, a_run()), out)
    assert elsewhere.read_text() == content and not (tmp_path / "missing").exists()
    assert len(list(out.iterdir())) == 5 and not any(path.is_symlink() for path in out.iterdir())


def test_a_full_disk_leaves_the_file_as_it_was() -> None:
    """A write that fails is a sink's error."""
    with pytest.raises(SinkError, match="cannot be written"), EventLog(Path("/dev/full")) as log:
        log.append(1, [Outcome("one", 2, "R2", State.PAID, 1000, "XOF")])
