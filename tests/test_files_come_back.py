"""Our own files come back as they went: written, re-saved, read again, every cell and every reference is the same."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import openpyxl
import pytest
from burkina import router
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from processes import call
from reading import Read, read

from payout_engine.domain.cells import harmless
from payout_engine.domain.model import Entry, Payout, Receipt, Run
from payout_engine.domain.states import State
from payout_engine.intake.intake import intake, prepare
from payout_engine.journal import SqliteJournal
from payout_engine.ports.journal import Journal
from payout_engine.results.files import ATTENTION_COLUMNS, REJECTED_COLUMNS, RESULT_COLUMNS, write_results
from payout_engine.sinks import open_sink
from payout_engine.sources import open_source

INPUTS = int(os.environ.get("PAYOUT_ENGINE_INPUTS", "40"))
"""How many runs are written and read again."""

SIGNS = ("", "=", "@", "+", "-", "'", "''", "'=", "''@", "＝", "＋", "－", "＠", "'＋", " =", "'-", "+'", "-5", "'+226")
LETTERS = "=+-@＝＋－＠'\"aé70,;|._ \u00a0\u3000"
LAYOUT = ("\t", "\n", "\r\n", "\x0b", "\x1f", "\u200b", "\u2028")
FATES = (
    Receipt(State.FAILED, "=code", "@message\nof two lines", "+T1"),
    Receipt(State.UNKNOWN, "timeout", "=No answer.", "-T2"),
    Receipt(State.PAID, provider_reference="@T3"),
    Receipt(State.FAILED, "nul", "a \0 and ='"),
)
"""Words of a provider that would rather be formulas."""

NUMBER = r"[\d .,()/\u00a0\u202f-]+(?:[eE][+-]?\d+)?\Z"
RUNS = re.compile(rf"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*(?:[=@＝＠\0]|[+\-＋－](?!{NUMBER}))|[\t\r\n\0]")
"""A cell that a spreadsheet might run, said once more and independently of the code."""

REFERENCES = st.builds(str.__add__, st.sampled_from(SIGNS), st.text(LETTERS, min_size=1, max_size=5))
PRINTED = st.builds(str.__add__, st.sampled_from(SIGNS), st.text(LETTERS, max_size=6))
LAID_OUT = st.builds(
    lambda before, sign, text, end: before + (sign + text).replace(",", ".").replace(";", ".") + end,
    st.sampled_from(LAYOUT),
    st.sampled_from(SIGNS),
    st.text(LETTERS, max_size=4),
    st.sampled_from(("", *LAYOUT)),
)
"""Cells over several lines, without the separators that would make them look like swallowed lines."""

HEADERS = ("note", "=note()", "'=note", "@a", "-1a", "'''+b", "a;b", '"', "'")
ROWS = st.lists(
    st.tuples(REFERENCES, st.sampled_from(["70123456", "+22670123457", "@70", "'+226=1"]), PRINTED | LAID_OUT),
    min_size=1,
    max_size=6,
)


@settings(max_examples=INPUTS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=ROWS,
    header=st.sampled_from(HEADERS),
    own=st.sampled_from(["reference", "'=ref", "=ref"]),
    dialect=st.fixed_dictionaries({"delimiter": st.sampled_from(",;"), "bom": st.sampled_from(["yes", "no"])}),
    format=st.sampled_from(["csv", "jsonl", "parquet"]),
    saved=st.sampled_from(["", "csv ,", "csv ;", "csv ;bom", "xlsx"]),
)
@example(
    [("@R1", "70123456", "=1"), ("'@R1", "70123456", "'=1")], "note", "reference", {"delimiter": ","}, "csv", "xlsx"
)
async def test_every_file_comes_back_as_it_went(
    rows: list[tuple[str, str, str]], header: str, own: str, dialect: dict[str, str], format: str, saved: str
) -> None:
    """Whatever the references, cells, headers and messages are, in all files and formats, and re-saved by a program."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mapping = {"reference": own}
        if saved == "xlsx":
            rows = [(_for_workbooks(reference), phone, _for_workbooks(note)) for reference, phone, note in rows]
        lines = [dict(zip((own, "phone", "amount", header), (a, b, "500", c), strict=True)) for a, b, c in rows]
        (folder / "in.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(lines))
        async with SqliteJournal.open(folder / "payouts.db") as journal:
            run = await taken_in(journal, folder / "in.jsonl", mapping, dialect)
            await paid(journal, run)
            entries = [entry async for batch in journal.entries(run.run_id) for entry in batch]
            assert [list(entry.row) for entry in entries] == [[a, b, "500", c] for a, b, c in rows]
            files = await write_results(journal, run, folder / "out", open_sink=open_sink, format=format)
        for path in files.folder.glob("*.csv"):
            runs_nothing(path, dialect["delimiter"])
        states = {"failed": {State.FAILED}, "rejected": {State.REJECTED}, "attention": {State.UNKNOWN, State.HELD}}
        for path, added in (
            (files.results, RESULT_COLUMNS),
            (files.failed, ()),
            (files.rejected, REJECTED_COLUMNS),
            (files.attention, ATTENTION_COLUMNS),
        ):
            wanted = states.get(path.stem, set(State))
            expected = [entry for entry in entries if entry.receipt.state in wanted]
            if expected:
                agrees(await read(resaved(path, saved)), run, added, expected, as_it_was=path != files.failed)
        failed = [entry.payout for entry in entries if entry.receipt.state is State.FAILED]
        if failed:
            async with SqliteJournal.open(folder / "again.db") as journal:
                again = await taken_in(journal, resaved(files.failed, saved), mapping, {})
                paid_again = [entry.payout async for batch in journal.entries(again.run_id) for entry in batch]
            assert [told(payout) for payout in paid_again] == [told(payout) for payout in failed]


DECIDED = ("@R1", "=R2", "-R3", "'+R4", "''@R5", "'R6", "R7")


@pytest.mark.parametrize("saved", ["", "csv ;bom", "xlsx"])
def test_decisions_in_attention_find_their_lines(tmp_path: Path, saved: str) -> None:
    """`resolve --from` a copy of attention.csv with a column `decision`, whatever the references begin with."""
    path = tmp_path / "pay.csv"
    lines = [(reference, f"701234{place}", "500") for place, reference in enumerate(DECIDED * 2, start=10)]
    with path.open("w", newline="", encoding="utf-8") as file:
        # As a program writes it whose apostrophes are its own.
        csv.writer(file).writerows(
            [("reference", "phone", "amount"), *([harmless(cell) for cell in row] for row in lines)]
        )
    done = call(tmp_path, "run", "pay.csv", "--sandbox", "--yes", "--out", "out")
    assert done.returncode == 3, done.stderr.decode()
    attention = tmp_path / "out" / "attention.csv"
    with attention.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    with attention.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*header, "decision"], *([*row, "cancel"] for row in rows)])
    assert len(rows) == len(DECIDED)
    table = resaved(attention, saved)
    run_id = msgspec.json.decode((tmp_path / "out" / "summary.json").read_bytes())["run_id"]
    words = ("resolve", run_id, "--sandbox", "--from", str(table), "--who", "awa", "--why", "repeated", "--json")
    done = call(tmp_path, *words)
    assert done.returncode == 0, done.stderr.decode()
    found = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert [line["reference"] for line in found if line["event"] == "decided"] == list(DECIDED)


def _for_workbooks(cell: str) -> str:
    """Leave out what no XLSX file can hold; a cell of spaces alone is empty there."""
    cell = cell.translate({0x0B: None, 0x1F: None, 0x0D: None})
    return cell if cell.strip() else ""


def told(payout: Payout) -> tuple[str, str, int]:
    """Return what makes a payout the same one."""
    return payout.reference, payout.recipient, payout.amount_minor


async def taken_in(journal: Journal, path: Path, mapping: dict[str, str], dialect: dict[str, str]) -> Run:
    """Validate and approve a file, whose results are to be written in some dialect."""
    source = await open_source(path)
    run, validator = prepare(source, router(), columns=mapping)
    run = msgspec.structs.replace(run, dialect={**run.dialect, **dialect})
    await intake(source, journal, run, validator)
    assert await journal.approve(run.run_id)
    return run


async def paid(journal: Journal, run: Run) -> None:
    """Let every payout meet a fate."""
    lanes = {tally.lane for tally in await journal.tally(run.run_id) if tally.state is State.READY}
    for lane in sorted(lanes):
        for chunk in await journal.ready(run.run_id, lane, 0, 10):
            fates = [FATES[number % len(FATES)] for number in range(len(chunk.payouts))]
            await journal.record(await journal.intend(chunk), fates)


def agrees(found: Read, run: Run, added: Sequence[str], entries: Sequence[Entry], *, as_it_was: bool) -> None:
    """Compare what was read with what the journal holds: header, cells, references and messages."""
    assert found.columns == [*run.columns, *added]
    own = list(run.columns).index(run.dialect["reference_column"])
    for row, entry in zip(found.rows, entries, strict=True):
        cells, reference = list(entry.row), entry.payout.reference
        if not as_it_was:
            cells[own] = reference
        assert row[: len(cells)] == cells
        values = dict(zip(added, row[len(cells) :], strict=True))
        assert values.get("payout_reference", reference) == reference
        message = entry.receipt.message.replace("\0", "\\x00")
        assert values.get("payout_message", message) == message


def runs_nothing(path: Path, delimiter: str) -> None:
    """Find no cell of a CSV file of ours that a spreadsheet could run."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.reader(file, delimiter=delimiter, strict=True):
            assert not [cell for cell in row if RUNS.match(cell)]


def resaved(path: Path, saved: str) -> Path:
    """Open a CSV file with another program and save it again; other files stay as they are."""
    if not saved or path.suffix != ".csv":
        return path
    with path.open(encoding="utf-8-sig", newline="") as file:
        sample = file.readline()
        file.seek(0)
        rows = list(csv.reader(file, delimiter=max(",;", key=sample.count)))
    if saved == "xlsx":
        book = openpyxl.Workbook()
        assert book.active is not None
        for row in rows:
            book.active.append(row)
        book.save(path.with_suffix(".xlsx"))
        return path.with_suffix(".xlsx")
    new = path.with_name(f"{path.stem} again.csv")
    with new.open("w", encoding="utf-8-sig" if saved.endswith("bom") else "utf-8", newline="") as file:
        csv.writer(file, delimiter=saved[4]).writerows(rows)
    return new
