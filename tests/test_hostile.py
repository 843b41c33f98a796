"""Hostile input: whatever bytes a file or a provider sends, nothing but clean errors, in bounded time and memory.

Hypothesis makes the bytes. Also: archive bombs, paths and control characters in names, formulas in cells.
"""

from __future__ import annotations

import csv
import io
import os
import re
import resource
import subprocess
import time
import unicodedata
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import openpyxl
import orjson
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from processes import ENVIRONMENT, call, command
from reading import read
from rich.text import Text
from test_sources_files import NAMESPACE, cell

from payout_engine.app.settings import load_settings
from payout_engine.cli import console
from payout_engine.cli.console import plain, visible
from payout_engine.domain.errors import ConfigError, InputError

INPUTS = int(os.environ.get("PAYOUT_ENGINE_INPUTS", "60"))
"""How many inputs are tried for each reader and each answer."""

MANY = settings(
    max_examples=INPUTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SECONDS_MAX = 5.0

# ------------------------------------------------------------------------------------------------------------ readers

CELLS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["70123456", "1500", '"', "=1+1", "\0", "\ufeff", "a,b;c\td", "\r\n", "\x1b[2J", "1e309", "NaN", "٣٤٥"]
)
TABLES = st.lists(st.lists(CELLS, max_size=5), max_size=6)
START = b"phone,amount,reference\n"


def csv_bytes(table: Sequence[Sequence[str]], delimiter: str, encoding: str) -> bytes:
    """A table as some program might have written it."""
    return "\n".join(delimiter.join(row) for row in table).encode(encoding, errors="replace")


def damaged(data: bytes, cuts: Sequence[tuple[int, bytes]]) -> bytes:
    """A file with bytes replaced here and there."""
    changed = bytearray(data)
    for place, piece in cuts:
        start = place % (len(changed) or 1)
        changed[start : start + len(piece)] = piece
    return bytes(changed)


def workbook(rows: Sequence[Sequence[Any]], added: str = "") -> bytes:
    """The smallest XLSX with these rows, and any text at the end of its sheet."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in workbook_parts(rows).items():
            archive.writestr(name, text.replace("</sheetData>", f"{added}</sheetData>"))
    return made.getvalue()


def workbook_parts(rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    """The parts of the smallest XLSX."""
    package, office = f"{NAMESPACE}/package/2006", f"{NAMESPACE}/officeDocument/2006/relationships"
    main = f'xmlns="{NAMESPACE}/spreadsheetml/2006/main"'
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml."
    lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    return {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kinds}worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {main} xmlns:r="{office}"><sheets><sheet name="S" sheetId="1" r:id="r1"/>'
        "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f"<worksheet {main}><sheetData>{lines}</sheetData></worksheet>",
    }


def open_document(content: str) -> bytes:
    """An OpenDocument spreadsheet with this table."""
    spaces = "urn:oasis:names:tc:opendocument:xmlns"
    text = (
        f'<office:document-content xmlns:office="{spaces}:office:1.0" xmlns:table="{spaces}:table:1.0" '
        f'xmlns:text="{spaces}:text:1.0" office:version="1.2"><office:body><office:spreadsheet>{content}'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    manifest = f'<manifest:manifest xmlns:manifest="{spaces}:manifest:1.0"/>'
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet", zipfile.ZIP_STORED)
        archive.writestr("META-INF/manifest.xml", manifest)
        archive.writestr("content.xml", text)
    return made.getvalue()


def parquet(rows: Sequence[tuple[str, float]]) -> bytes:
    """A Parquet file."""
    made = io.BytesIO()
    table = pyarrow.table({"phone": [phone for phone, _ in rows], "amount": [amount for _, amount in rows]})
    pyarrow.parquet.write_table(table, made)
    return made.getvalue()


async def reads(folder: Path, name: str, data: bytes) -> bool:
    """Read a file; return whether it came out as rows. Nothing but rows and `InputError` is let through."""
    path = folder / name
    path.write_bytes(data)
    began = time.process_time()  # the work that it costs; how long that takes depends on who else works
    try:
        found = await read(path)
    except InputError as error:
        assert "\n" not in str(error) and path.stem in str(error)
        return False
    finally:
        assert time.process_time() - began < SECONDS_MAX
    assert all(isinstance(value, str) for row in found.rows for value in row)
    return True


CUTS = st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=6)), max_size=4)
SUFFIXES = (".csv", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet", "")


@MANY
@given(data=st.binary(max_size=400), suffix=st.sampled_from(SUFFIXES))
@example(data=b"\xff\xfe", suffix=".csv")
@example(data=b"PK\x03\x04", suffix="")
@example(data=b"PAR1PAR1", suffix="")
@example(data=b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), suffix="")
async def test_any_bytes_are_rows_or_one_clear_refusal(tmp_path: Path, data: bytes, suffix: str) -> None:
    """Every reader, given anything at all."""
    await reads(tmp_path, f"fuzz{suffix}", data)


@MANY
@given(
    table=TABLES,
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"]),
    cuts=CUTS,
)
async def test_csv_of_any_shape(
    tmp_path: Path, table: list[list[str]], delimiter: str, encoding: str, cuts: list[tuple[int, bytes]]
) -> None:
    """Any cells, separators and encodings, with damage."""
    await reads(tmp_path, "fuzz.csv", damaged(csv_bytes([["phone", "amount"], *table], delimiter, encoding), cuts))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=8,
)


@MANY
@given(objects=st.lists(JSON, max_size=5), cuts=CUTS)
@example(objects=[{"phone": 1}, [[[[[[[]]]]]]]], cuts=[])
async def test_jsonl_of_any_shape(tmp_path: Path, objects: list[Any], cuts: list[tuple[int, bytes]]) -> None:
    """Any values on any lines, with damage."""
    lines = b"\n".join(msgspec.json.encode(value) for value in [{"phone": "70123456", "amount": 1}, *objects])
    await reads(tmp_path, "fuzz.jsonl", damaged(lines, cuts))


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"a":' * 100_000, b'{"phone":"\\ud800","amount":"1"}', b'{"phone":1e400,"amount":-0.0}'],
    ids=["deep array", "deep object", "half a character", "huge number"],
)
async def test_jsonl_that_breaks_parsers(tmp_path: Path, line: bytes) -> None:
    """Nesting without end, halves of characters and numbers beyond every bound are bad lines, not a bad day."""
    assert await reads(tmp_path, "fuzz.jsonl", b'{"phone":"70123456","amount":1}\n' + line + b"\n")


@MANY
@given(rows=st.lists(st.lists(st.none() | st.floats() | st.text("a<&>\"'1é", max_size=4), max_size=4), max_size=4))
@example(rows=[])
async def test_workbooks_of_any_shape(tmp_path: Path, rows: list[list[Any]]) -> None:
    """Any cells in a well-formed workbook."""
    await reads(tmp_path, "fuzz.xlsx", workbook([["phone", "amount"], *rows]))


async def test_an_archive_that_names_its_parts_in_no_encoding(tmp_path: Path) -> None:
    """The name in front of a part is not the one in the directory, and no UTF-8 although it says so."""
    whole = workbook([["phone", "amount"], ["70123456", 1500.0]])
    start = whole.index(b"PK\x03\x04")
    flags = whole[start + 6] | whole[start + 7] << 8 | 0x800
    named = whole[: start + 6] + flags.to_bytes(2, "little") + whole[start + 8 : start + 30] + b"\x80"
    assert not await reads(tmp_path, "fuzz.xlsx", named + whole[start + 31 :])


@MANY
@given(cuts=CUTS.filter(bool), kind=st.sampled_from(["xlsx", "ods", "parquet"]))
async def test_damaged_containers(tmp_path: Path, cuts: list[tuple[int, bytes]], kind: str) -> None:
    """A spreadsheet or Parquet file with bytes replaced anywhere."""
    rows = (
        "<table:table-row>" + "<table:table-cell><text:p>phone</text:p></table:table-cell>" * 2 + "</table:table-row>"
    )
    whole = {
        "xlsx": workbook([["phone", "amount"], ["70123456", 1500.0]]),
        "ods": open_document(f'<table:table table:name="S">{rows * 3}</table:table>'),
        "parquet": parquet([("70123456", 1500.0)] * 50),
    }
    await reads(tmp_path, f"fuzz.{kind}", damaged(whole[kind], cuts))


@MANY
@given(xml=st.text(st.sampled_from('<row r="c t=s>1A/&;!-[]v'), max_size=80))
async def test_a_sheet_of_any_text(tmp_path: Path, xml: str) -> None:
    """A workbook whose sheet is no sheet."""
    await reads(tmp_path, "fuzz.xlsx", workbook([["phone", "amount"], ["70123456", "1"]], added=xml))


# -------------------------------------------------------------------------------------------------------------- bombs

MEMORY_BYTES_MAX = 1024**3
"""What reading a small hostile file may take. The process gets no more and would die."""


def plan_in_little_memory(folder: Path, name: str) -> subprocess.CompletedProcess[bytes]:
    """Plan a file in a process that may not grow."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))

    return subprocess.run(
        command("plan", name, "--sandbox"),
        cwd=folder,
        capture_output=True,
        timeout=40,
        env=ENVIRONMENT,
        preexec_fn=limit,
        check=False,
    )


def repeated(part: str, count: int) -> str:
    """One OpenDocument row that says that it is there many times."""
    return f'<table:table-row table:number-rows-repeated="{count}">{part}</table:table-row>'


ODS_CELL = "<table:table-cell office:value-type='string'{}><text:p>phone</text:p></table:table-cell>"
REPEATED_COLUMNS = " table:number-columns-repeated='{}'"
HEAD = f"<table:table-row>{ODS_CELL.format('')}{ODS_CELL.format('').replace('phone', 'amount')}</table:table-row>"
ODS_BOMBS = {
    "columns.ods": f"<table:table-row>{ODS_CELL.format(REPEATED_COLUMNS.format(16_000_000))}</table:table-row>",
    "both.ods": HEAD + repeated(ODS_CELL.format(REPEATED_COLUMNS.format(16_384)), 1_048_576),
    "wide.ods": HEAD + repeated(ODS_CELL.format(REPEATED_COLUMNS.format(400)), 1_000_000),
}
FAR_CELLS = {
    "far.xlsx": '<row r="1048576"><c r="XFD1048576" t="inlineStr"><is><t>x</t></is></c></row>',
    "quotes.xlsx": "<row r='1048576'><c r='XFD1048576' t='inlineStr'><is><t>x</t></is></c></row>",
    "blanks.xlsx": '<row\nr = "1048576"><c\nr\n=\n"XFD1048576" t="inlineStr"><is><t>x</t></is></c></row>',
    "lying row.xlsx": '<row r="3"><c r="ZZZ999999" t="inlineStr"><is><t>x</t></is></c></row>',
    "long row.xlsx": '<row r="4294967295"><c r="B4294967295" t="inlineStr"><is><t>x</t></is></c></row>',
}


@pytest.mark.parametrize("name", [*ODS_BOMBS, *FAR_CELLS])
def test_a_small_spreadsheet_that_claims_many_cells_is_refused(tmp_path: Path, name: str) -> None:
    """A few hundred bytes that claim a thousand million cells: refused with a sentence, in little time and memory."""
    if name in ODS_BOMBS:
        data = open_document(f'<table:table table:name="S">{ODS_BOMBS[name]}</table:table>')
    else:
        data = workbook([["phone", "amount"], ["70123456", "1"]], added=FAR_CELLS[name])
    (tmp_path / name).write_bytes(data)
    done = plan_in_little_memory(tmp_path, name)
    assert done.returncode == 2, (done.returncode, done.stderr[-600:])
    assert done.stderr.count(b"Error:") == 1 and b"Traceback" not in done.stderr
    assert name.encode() in done.stderr


SHARED_CELLS = '<row><c t="s"><v>0</v></c></row>'
LONG = "x" * 10_000
BOMBS = {
    "cells without a place": (("<row>", "<c/>" * 1_000_000, 31, "</row>"), ""),
    "numbers without a place": (("<row>", "<c><v>1</v></c>" * 1_000_000, 8, "</row>"), ""),
    "one long row and many short ones": (
        ("<row>" + "<c><v>1</v></c>" * 6_000, "</row><row><c><v>1</v></c>", 6_000, "</row>"),
        "",
    ),
    "one place many times": (("<row>", '<c r="A1"/>' * 100_000, 31, "</row>"), ""),
    "one long text": (('<row><c r="A1" t="inlineStr"><is><t>', LONG, 500, "</t></is></c></row>"), ""),
    "one long shared text": ((SHARED_CELLS, "", 0, ""), f"<si><t>{LONG * 500}</t></si>"),
    "a text shared by many": (("", SHARED_CELLS, 60_000, ""), f"<si><t>{LONG}</t></si>"),
    "a text shared by many places": (
        ("<row>", '<c r="A1" t="s"><v>0</v></c>', 60_000, "</row>"),
        f"<si><t>{LONG}</t></si>",
    ),
    "a text in pieces": (("", SHARED_CELLS, 600, ""), f"<si>{f'<r><t>{LONG}</t></r>' * 100}</si>"),
    "a text that looks like tags": (("", SHARED_CELLS, 600, ""), f"<si><t><![CDATA[{'<si>' * 250_000}]]></t></si>"),
    "names with a prefix": (
        ("", SHARED_CELLS, 60_000, ""),
        f'<x:si xmlns:x="{NAMESPACE}/spreadsheetml/2006/main"><x:t>{LONG}</x:t></x:si>',
    ),
}
"""A sheet (its begin, what is repeated, how often, its end), and the texts that its cells share."""

READ = (
    "import sys, anyio\n"
    "from pathlib import Path\n"
    "from payout_engine.domain.errors import InputError\n"
    "from payout_engine.sources import _workbook_size, open_source\n"
    "_workbook_size.WORKBOOK_CELLS_MAX //= int(sys.argv[2])\n"
    "async def main():\n"
    "    try: [block async for block in (await open_source(sys.argv[1])).blocks()]\n"
    "    except InputError as error: print(error)\n"
    "anyio.run(main)\n"
    "status = Path('/proc/self/status').read_text()\n"
    "print(int(status.partition('VmHWM:')[2].split()[0]) // 1024)\n"
)
"""Reads a file in a process of its own; prints why it was refused, and how many MB the process took at most.

The bound of cells is divided by the last argument: thirty million that all have a place take ten seconds to count.
"""
TAKEN_MB_MAX = 150


def bomb(path: Path, sheet: tuple[str, str, int, str], shared: str) -> None:
    """Write a workbook piece by piece, so that the test needs no more memory than it allows."""
    begin, repeated, times, end = sheet
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, text in workbook_parts([]).items():
            if not name.endswith("sheet1.xml"):
                target = f'<Relationship Id="r2" Type="{NAMESPACE}/officeDocument/2006/relationships/sharedStrings" '
                named = f'{target}Target="sharedStrings.xml"/></Relationships>'
                archive.writestr(name, text.replace("</Relationships>", named) if name.startswith("xl/_rels") else text)
                continue
            head, tail = text.split("</sheetData>")
            with archive.open(name, "w") as part:
                part.write((head + begin).encode())
                for _ in range(times):
                    part.write(repeated.encode())
                part.write(f"{end}</sheetData>{tail}".encode())
        main = f'xmlns="{NAMESPACE}/spreadsheetml/2006/main"'
        archive.writestr("xl/sharedStrings.xml", f"<sst {main}>{shared}</sst>")


def taken(path: Path, divisor: int = 1) -> tuple[str, int]:
    """Read a file elsewhere; return why it was refused, and the megabytes it took."""
    arguments = [*command()[:1], "-c", READ, str(path), str(divisor)]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, timeout=55, check=False)
    assert done.returncode == 0, done.stderr.decode()[-600:]
    *words, megabytes = done.stdout.decode().splitlines()
    return " ".join(words), int(megabytes)


@pytest.mark.parametrize("name", BOMBS)
def test_a_workbook_that_would_fill_the_memory_is_refused_before_it_is_loaded(tmp_path: Path, name: str) -> None:
    """However it comes to its size: with a sentence, and in little memory itself."""
    bomb(tmp_path / "bomb.xlsx", *BOMBS[name])
    words, megabytes = taken(tmp_path / "bomb.xlsx", 10 if name == "one place many times" else 1)
    assert "too large for a spreadsheet reader" in words and words.endswith("Save the sheet as CSV."), words
    assert megabytes < TAKEN_MB_MAX


def test_a_text_that_a_sheet_repeats_is_counted_as_often(tmp_path: Path) -> None:
    """An OpenDocument row that says it is there a thousand times, with a long text a hundred times."""
    part = ODS_CELL.format(REPEATED_COLUMNS.format(100)).replace("phone", LONG)
    data = open_document(f'<table:table table:name="S">{HEAD}{repeated(part, 1_000)}</table:table>')
    (tmp_path / "bomb.ods").write_bytes(data)
    words, megabytes = taken(tmp_path / "bomb.ods")
    assert "too large for a spreadsheet reader" in words and megabytes < TAKEN_MB_MAX


def test_an_archive_that_lies_about_its_sizes_is_measured(tmp_path: Path) -> None:
    """What a part says of itself is smaller than what it unpacks to."""
    path = tmp_path / "bomb.xlsx"
    bomb(path, *BOMBS["one long text"])
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("xl/worksheets/sheet1.xml").file_size
    lying = path.read_bytes().replace(size.to_bytes(4, "little"), (1_000).to_bytes(4, "little"))
    path.write_bytes(lying)
    words, megabytes = taken(path)
    assert "too large for a spreadsheet reader" in words and megabytes < TAKEN_MB_MAX


async def test_workbooks_as_people_have_them_are_not_too_large(tmp_path: Path) -> None:
    """Thousands of rows with and without places, texts that all share, one long note, a picture beside the sheet."""
    rows = [["phone", "amount", "note"], *([f"7{number:07}", "500", "N'Guessan"] for number in range(3_000))]
    data = workbook(rows)
    (tmp_path / "pay.xlsx").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "pay.xlsx", "a") as archive:
        archive.writestr("xl/media/image1.png", os.urandom(3_000_000))
        archive.writestr("xl/charts/chart1.xml", "<c:chart xmlns:c='c'/>")
    assert len((await read(tmp_path / "pay.xlsx")).rows) == 3_000
    book = openpyxl.Workbook()
    for row in [*rows, ["70123456", "500", "x" * 9_000]]:
        book.active.append(row)
    book.save(tmp_path / "shared.xlsx")
    found = await read(tmp_path / "shared.xlsx")
    assert len(found.rows) == 3_001 and found.rows[-1][2] == "x" * 9_000


@pytest.mark.parametrize(
    ("place", "megabytes"),
    [("xl/worksheets/sheet1.xml", 2100), ("xl/sharedStrings.xml", 300), ("docProps/thumbnail.jpeg", 300)],
)
def test_an_archive_bomb_is_refused(tmp_path: Path, place: str, megabytes: int) -> None:
    """A small archive that unpacks to gigabytes is refused, whichever part is large; one of them is over any bound."""
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, text in workbook_parts([["phone", "amount"], ["70123456", "1"]]).items():
            if name != place:
                archive.writestr(name, text)
        with archive.open(place, "w", force_zip64=True) as part:
            for _ in range(megabytes):
                part.write(bytes(1024 * 1024))
    done = plan_in_little_memory(tmp_path, "bomb.xlsx")
    assert done.returncode == 2, done.stderr[-600:]
    assert b"too large" in done.stderr and b"Traceback" not in done.stderr


# ---------------------------------------------------------------------------------------------------- names and screens


@given(st.text())
@example("\\[")
@example("a\\")
def test_nothing_foreign_steers_a_terminal(text: str) -> None:
    """No control, no direction mark and no markup survives."""
    shown = visible(text)
    categories = {unicodedata.category(character) for character in shown if character not in "\u200c\u200d"}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert Text.from_markup(f"[bold]{plain(text)}[/]").plain == shown


def test_the_command_line_shows_foreign_text_only_through_plain() -> None:
    """The library's own `escape` leaves control characters as they are, so only `plain` may call it."""
    for path in Path(console.__file__).parent.glob("*.py"):
        assert path.name == "console.py" or "rich.markup" not in path.read_text(encoding="utf-8"), path.name


EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e[bold red]x[/]"
CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]")


def test_names_headers_and_cells_do_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    """A file's name, its headers and its cells hold terminal commands: they are shown written out."""
    name = f"sal{EVIL.replace('/', '')}aries.csv"
    head = f'reference,phone,amount,"operator {EVIL}"\n'
    lines = (
        f'A,70123456,1500,\nB,"7012{EVIL}",900,\nC,70123457,"9{EVIL}",\n'
        f'"{EVIL}",70123458,900,\nE,70123459,900,"{EVIL}"\n'
    )
    (tmp_path / name).write_text(head + lines)
    for arguments in (
        ("plan", name, "--sandbox"),
        ("plan", name, "--sandbox", "--json"),
        ("run", name, "--sandbox", "--yes", "--out", f"out{EVIL.replace('/', '')}"),
        ("run", name, "--sandbox", "--yes"),
        ("runs", "--sandbox"),
        ("resume", "--sandbox"),
        ("show", EVIL, "--sandbox"),
        ("plan", f"missing{EVIL}.csv", "--sandbox"),
        ("plan", name, "--sandbox", "--config", f"missing{EVIL}"),
        ("plan", name, "--sandbox", "--account", EVIL),
    ):
        done = call(tmp_path, *arguments)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert not CONTROLS.search(done.stderr), (arguments, done.stderr)
        if "--json" not in arguments:
            assert not CONTROLS.search(done.stdout), (arguments, done.stdout)
    listed = orjson.loads(call(tmp_path, "runs", "--sandbox", "--json").stdout)
    shown = call(tmp_path, "show", listed["run_id"], "--sandbox")
    assert shown.returncode == 0 and not CONTROLS.search(shown.stdout + shown.stderr)


def test_a_name_that_is_no_text_is_paid_like_any_other(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 in a file's name end nothing; only a results folder must have a name that is text."""
    path = os.fsencode(tmp_path) + b"/sal\xff\xfearies.csv"
    Path(os.fsdecode(path)).write_text("reference,phone,amount\nA,70123456,1500\n")
    name = os.fsdecode(path)
    refused = call(tmp_path, "run", name, "--sandbox", "--yes")
    paid = call(tmp_path, "run", name, "--sandbox", "--yes", "--out", "results")
    listed = call(tmp_path, "runs", "--sandbox", "--json")

    assert refused.returncode == 2 and b"--out" in refused.stderr and b"Traceback" not in refused.stderr
    assert paid.returncode == 0, paid.stderr
    assert orjson.loads(listed.stdout)["name"] == "sal\\udcff\\udcfearies.csv"


@pytest.mark.parametrize("name", ["../../escape.csv", "a/../../../b.csv", "..", "/", "C:\\x.csv", "con\nfig.csv"])
def test_a_file_name_never_chooses_where_results_go(tmp_path: Path, name: str) -> None:
    """What a program calls its payouts is a label; it makes no path. Results go where the caller says."""
    script = (
        "import sys, anyio\nfrom pathlib import Path\nfrom payout_engine import Engine, Payout\n"
        "async def main():\n"
        "    async with Engine.open(sandbox=True) as engine:\n"
        "        run = await engine.submit([Payout('A', 1500, phone='70123456')], name=sys.argv[1])\n"
        "        async for _ in engine.pay(run): pass\n"
        "        print((await engine.results(run.run_id, Path('out'))).folder)\n"
        "anyio.run(main)\n"
    )
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    done = subprocess.run(
        [*command()[:1], "-c", script, name], cwd=folder, env=ENVIRONMENT, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    known = {"out", "payouts-sandbox.db", "payouts-sandbox-senfenico-ledger.db"}
    left = {path.relative_to(tmp_path).parts for path in tmp_path.rglob("*") if path.is_file()}
    for parts in left:
        assert parts[:2] == ("deep", "deeper"), parts
        assert parts[2] in known or parts[2].startswith("payouts-sandbox"), parts


# ----------------------------------------------------------------------------------------------------------- formulas

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "\t=1", "\r=1", '=HYPERLINK("http://x","y")', "＝1+1"]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_no_csv_of_ours_holds_a_formula(tmp_path: Path, delimiter: str) -> None:
    """Formulas in headers and cells, through plan and run: harmless in results, failed, rejected and attention."""
    header = ["reference", "phone", "amount", "=note()"]
    lines = [[f"F{number}", f"7012345{number}", "500", formula] for number, formula in enumerate(FORMULAS)]
    lines += [[f"R{number}", formula, "500", formula] for number, formula in enumerate(FORMULAS)]
    lines += [["F0", "70999999", "500", FORMULAS[0]], ["X1", "70000001", "500", FORMULAS[1]]]
    lines += [["=1+2", "70888888", "500", ""]]
    with (tmp_path / "pay.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *lines])
    planned = call(tmp_path, "plan", "pay.csv", "--sandbox", "--out", "planned")
    done = call(tmp_path, "run", "pay.csv", "--sandbox", "--yes", "--out", "out")
    assert (planned.returncode, done.returncode) == (3, 3), done.stderr.decode()

    for path in (*(tmp_path / "out").glob("*.csv"), *(tmp_path / "planned").glob("*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = list(csv.reader(file, delimiter=delimiter))
        assert len(found) > 1, f"{path.name} should have a line to look at"
        for row in found:
            for value in row:
                assert not re.match(r"[\s\0]*[=@＝＠]|[\t\r]", value), (path.name, value)
                assert not re.match(r"[+-](?![0-9 ]+$)", value), (path.name, value)


# -------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"phone,amount\n70123456," + b"1" * 20_000 + b"\n", "10000 characters"),
        (",".join(f"c{number}" for number in range(501)).encode() + b"\n1\n", "501 columns"),
        (b"x" * (17 * 1024 * 1024), "line of over"),
        (b"h" * 20_000 + b",phone\n1,2\n", "10000 characters"),
    ],
    ids=["cell", "columns", "line", "header"],
)
async def test_sizes_are_bounded(tmp_path: Path, content: bytes, words: str) -> None:
    """What is larger than any table is refused by name."""
    (tmp_path / "large.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        await read(tmp_path / "large.csv")


@MANY
@given(st.text(max_size=60))
@example("[accounts.a]\nprovider = 'senfenico'\napi_key = 'sk_live_x'")
@example("journal = 3")
@example("accounts = 1")
@example("columns = [1]")
def test_any_configuration_is_settings_or_a_clear_refusal(tmp_path: Path, text: str) -> None:
    """The configuration file is read like any other foreign text."""
    path = tmp_path / "payouts.toml"
    path.write_text(text, errors="replace")
    with suppress(ConfigError):
        load_settings(path)
