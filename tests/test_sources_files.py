"""JSONL, spreadsheets, Parquet, standard input, and payouts from a program."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import sys
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from reading import INPUTS, read, refusal

from payout_engine.domain.errors import InputError
from payout_engine.domain.model import Payout
from payout_engine.sources import open_source, payouts_source
from payout_engine.sources._content import Content
from payout_engine.sources.payouts import COLUMNS
from payout_engine.sources.xlsx import open_workbook

# ------------------------------------------------------------------------------------------------------------- JSONL


async def test_json_numbers_keep_their_text() -> None:
    """No amount and no phone passes through floating point; anything nested stays JSON."""
    found = await read(INPUTS / "numbers_keep_their_text.jsonl")
    assert found.columns == ["phone", "amount", "note", "paid", "more"]
    assert found.rows == [
        ["22670123456", "1000.50", 'aé\n"b"', "", ""],
        ["71123456", "12345678901234567890123", "", "true", '{"a": [1, 2.0]}'],
    ]


async def test_a_key_of_the_last_line_is_a_column_of_all() -> None:
    """Columns are the keys in the order of their first appearance."""
    found = await read(INPUTS / "new_key_in_the_last_line.jsonl")
    assert found.columns == ["phone", "amount", "reference"]
    assert found.rows == [["70123456", "1", ""], ["71123456", "2", "A2"]]
    assert found.lines == [1, 3]


async def test_a_line_that_is_no_object_is_a_bad_line_and_not_a_bad_file() -> None:
    """It comes out empty and marked; the others are read."""
    found = await read(INPUTS / "lines_that_are_no_objects.jsonl")
    assert found.lines == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found.unreadable == {
        **dict.fromkeys((2, 3, 4, 5), "it is not a JSON object"),
        7: "it holds a NUL or half a character",
    }
    assert found.rows[1] == ["", ""] and found.rows[5] == ["72123456", "3"]
    assert found.rows[7] == ["12345678901234567890123", "-5"]


async def test_a_byte_order_mark_before_json_is_passed_over() -> None:
    """Windows programs write one."""
    assert (await read(INPUTS / "bom.jsonl")).rows == [["70123456", "1"]]


@pytest.mark.parametrize(("name", "words"), [("array.jsonl", "JSON array"), ("not_json.jsonl", "not a JSON object")])
async def test_a_file_that_begins_without_an_object_is_no_jsonl(name: str, words: str) -> None:
    """The first line decides what kind of file it is."""
    assert f"line 1: this is {'a ' if 'array' in words else ''}{words}" in await refusal(INPUTS / name)


# ------------------------------------------------------------------------------------------------------ spreadsheets

NAMESPACE = "http://schemas.openxmlformats.org"
MAIN = f'xmlns="{NAMESPACE}/spreadsheetml/2006/main"'
OFFICE = f"{NAMESPACE}/officeDocument/2006/relationships"
PACKAGE = f"{NAMESPACE}/package/2006"


def cell(value: Any) -> str:
    """Return one cell of a sheet, without its place."""
    if value is None:
        return "<c/>"
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
    if isinstance(value, bool):
        return f'<c t="b"><v>{int(value)}</v></c>'
    return f"<c><v>{value!r}</v></c>"


def workbook(path: Path, sheets: dict[str, str | list[list[Any]]], hidden: frozenset[str] = frozenset()) -> Path:
    """Write a small XLSX file; a sheet is given as rows or as its own XML."""
    entries, relations = "", ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, rows) in enumerate(sheets.items(), start=1):
            state = 'state="hidden" ' if name in hidden else ""
            entries += f'<sheet name="{name}" {state}sheetId="{number}" r:id="r{number}"/>'
            relations += (
                f'<Relationship Id="r{number}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{number}.xml"/>'
            )
            data = rows if isinstance(rows, str) else "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
            archive.writestr(
                f"xl/worksheets/sheet{number}.xml", f"<worksheet {MAIN}><sheetData>{data}</sheetData></worksheet>"
            )
        archive.writestr(
            "xl/workbook.xml", f'<workbook {MAIN} xmlns:r="{OFFICE}"><sheets>{entries}</sheets></workbook>'
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{PACKAGE}/relationships">{relations}</Relationships>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{PACKAGE}/relationships">'
            f'<Relationship Id="r1" Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{PACKAGE}/content-types"/>')
    return path


async def test_typed_cells_become_the_text_a_person_would_write(tmp_path: Path) -> None:
    """A phone kept as a number is exact; one that the spreadsheet ruined as text stays ruined."""
    rows: list[list[Any]] = [
        [None, None, None, None],
        ["phone", "amount", "ok", "note"],
        [22670123456.0, 1000, True, None],
        [None, None, None, None],
        ["2.26702E+10", 12.5, False, 1234567890123456.0],
    ]
    found = await read(workbook(tmp_path / "typed.xlsx", {"Pay": rows}))
    assert found.columns == ["phone", "amount", "ok", "note"]
    assert found.lines == [3, 5]
    assert found.rows == [
        ["22670123456", "1000", "true", ""],
        ["2.26702E+10", "12.5", "false", "1.23456789012346E+15"],
    ]
    assert found.digest == hashlib.sha256((tmp_path / "typed.xlsx").read_bytes()).hexdigest()


async def test_the_only_visible_sheet_with_data_is_read_and_of_several_one_must_be_named(tmp_path: Path) -> None:
    """Hidden and empty sheets are passed over; of several nobody guesses; a wrong name is told the right ones."""
    table: list[list[Any]] = [["phone", "amount"], ["70123456", 1]]
    sheets: dict[str, str | list[list[Any]]] = {"Old": [["phone", "amount"], ["7", 9]], "Empty": [], "Pay": table}
    unwrap_group = workbook(tmp_path / "alone.xlsx", sheets, frozenset({"Old"}))
    assert (await read(unwrap_group)).rows == [["70123456", "1"]]
    assert (await read(unwrap_group, sheet="Pay")).digest == (await read(unwrap_group)).digest
    path = workbook(tmp_path / "sheets.xlsx", {**sheets, "Other": [["phone", "amount"], ["8", 2]]}, frozenset({"Old"}))
    with pytest.raises(InputError, match="2 sheets with data"):
        await read(path)
    assert (await read(path, sheet="Other")).rows == [["8", "2"]]
    assert (await read(path, sheet="Other")).digest != (await read(path, sheet="Pay")).digest
    with pytest.raises(InputError, match="no sheet 'Pays'"):
        await read(path, sheet="Pays")


async def test_a_stray_cell_at_the_end_of_the_sheet_is_refused_and_does_not_end_the_process(tmp_path: Path) -> None:
    """Its reader would reserve half a terabyte and abort."""
    far = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    assert "far outside the table" in await refusal(workbook(tmp_path / "far.xlsx", {"S": far}))


async def test_swallowed_lines_are_found_also_when_the_file_was_saved_as_a_workbook(tmp_path: Path) -> None:
    """A spreadsheet reads two stray quotation marks as a CSV reader does; a note with a comma or a phone is lawful."""
    header = ["reference", "name", "phone", "amount"]
    for separator in ",;\t|":
        cell = "Awa,54000001,1001\nR2,Ali,54000002,1002\nR4,Dao".replace(",", separator)
        path = workbook(tmp_path / "stray.xlsx", {"S": [header, ["R1", cell, 54000014, 1004]]})
        assert "line 2: one cell holds what looks like several lines" in await refusal(path)
    for cell in ("Rue 5, Secteur 12\nOuaga, BF, Afrique", "Awa\ntel. 54000001", "12\n13\n14"):
        path = workbook(tmp_path / "lawful.xlsx", {"S": [header, ["R1", cell, 54000014, 1004]]})
        assert (await read(path)).rows == [["R1", cell, "54000014", "1004"]]


async def test_a_workbook_that_is_replaced_while_it_is_loaded_is_not_taken_for_the_other(tmp_path: Path) -> None:
    """The digest is of the bytes that are paid, whichever those are, or the file is refused."""
    sheets: list[dict[str, str | list[list[Any]]]] = [
        {"S": [["phone", "amount"], [f"7012345{number}", 1000]]} for number in (6, 7)
    ]
    files = [workbook(tmp_path / f"{number}.xlsx", sheet) for number, sheet in enumerate(sheets)]
    for replaced_at in range(1, 6):
        opened = count()
        name = Path(shutil.copy(files[0], tmp_path / "pay.xlsx"))

        def opener(opened: Iterator[int] = opened, name: Path = name, replaced_at: int = replaced_at) -> BufferedReader:
            if next(opened) == replaced_at:
                os.utime(files[1], ns=(0, name.stat().st_mtime_ns))
                shutil.copy2(files[1], tmp_path / "new.xlsx")
                (tmp_path / "new.xlsx").replace(name)
            return name.open("rb")

        content = Content("pay.xlsx", opener)
        try:
            source = open_workbook(content)
            rows = [row async for block in source.blocks() for row in block.rows]
        except InputError as refused:
            assert "changed while it was being read" in str(refused)
            continue
        number = int(rows[0][0][-1]) - 6
        assert source.digest == hashlib.sha256(files[number].read_bytes()).hexdigest(), replaced_at


async def test_workbooks_without_payouts_are_refused(tmp_path: Path) -> None:
    """Empty, header only, and what is no workbook at all."""
    assert "no sheet with data" in await refusal(workbook(tmp_path / "empty.xlsx", {"S": []}))
    assert "no lines below" in await refusal(workbook(tmp_path / "header.xlsx", {"S": [["phone", "amount"]]}))
    (tmp_path / "text.xlsx").write_text("phone,amount\n1,2\n")
    assert "cannot be read as a spreadsheet" in await refusal(tmp_path / "text.xlsx")
    (tmp_path / "picture.xlsx").write_bytes((INPUTS / "picture.csv").read_bytes())
    assert "a picture (PNG)" in await refusal(tmp_path / "picture.xlsx")


async def test_damaged_workbooks_are_refused(tmp_path: Path) -> None:
    """A byte changed anywhere gives rows or an `InputError`, never a crash."""
    good = workbook(tmp_path / "good.xlsx", {"S": [["phone", "amount"], ["70123456", 1]]}).read_bytes()
    path = tmp_path / "damaged.xlsx"
    for position in range(0, len(good), 7):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        try:
            await read(path)
        except InputError as error:
            assert "damaged.xlsx" in str(error)


# ----------------------------------------------------------------------------------------------------------- Parquet


async def test_parquet_numbers_are_exact(tmp_path: Path) -> None:
    """Whole numbers and decimals keep every digit; floats are written as a person would; what was rounded shows it."""
    path = tmp_path / "typed.parquet"
    columns = {
        "phone": pyarrow.array([22670123456, None, 1], pyarrow.int64()),
        "amount": pyarrow.array(["10.50", None, "3.00"]).cast(pyarrow.decimal128(20, 2)),
        "double": pyarrow.array([22670123456.0, float("nan"), 12.5]),
        "single": pyarrow.array([12.3, None, 22670123456.0], pyarrow.float32()),
        "word": pyarrow.array(["a", None, "b"]).dictionary_encode(),
        "flag": pyarrow.array([True, None, False]),
        "list": pyarrow.array([[1, 2], None, []]),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    found = await read(path)
    assert found.columns == list(columns)
    assert found.lines == [1, 3]
    assert found.rows == [
        ["22670123456", "10.50", "22670123456", "12.3", "a", "true", "[1,2]"],
        ["1", "3.00", "12.5", "2.267012E+10", "b", "false", "[]"],
    ]


async def test_what_none_of_our_files_could_hold_makes_a_line_unreadable(tmp_path: Path) -> None:
    """A NUL in a cell refuses its line, spelt out for people; the others are read. In a header it refuses the file."""
    path = tmp_path / "nul.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"phone": ["70123456", "7\0"], "amount": ["1", "2"]}), path)
    found = await read(path)
    assert found.rows == [["70123456", "1"], ["7\\x00", "2"]]
    assert found.unreadable == {2: "it holds a NUL or half a character"}
    pyarrow.parquet.write_table(pyarrow.table({"phone\0": ["70123456"], "amount": ["1"]}), path)
    assert "the name of column 1 holds a NUL" in await refusal(path)
    payouts = [Payout("A", 1, phone="7", name="\ud800"), Payout("B", 2, phone="8")]
    (block,) = [block async for block in payouts_source(payouts, "payroll").blocks()]
    assert list(block.unreadable) == [1]


async def test_parquet_without_rows_or_meaning_is_refused(tmp_path: Path) -> None:
    """As other files are."""
    empty = pyarrow.table({"phone": pyarrow.array([], pyarrow.string())})
    pyarrow.parquet.write_table(empty, tmp_path / "empty.parquet")
    assert "no lines below" in await refusal(tmp_path / "empty.parquet")
    (tmp_path / "text.parquet").write_text("phone,amount\n")
    assert "cannot be read as Parquet" in await refusal(tmp_path / "text.parquet")


# --------------------------------------------------------------------------------------- standard input, other names


class Stdin:
    """What `sys.stdin` is to us."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "xlsx", "parquet"])
async def test_standard_input_is_known_by_its_content(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is called by its name, hashed like a file, and leaves nothing behind."""
    path = tmp_path / f"payouts.{kind}"
    if kind == "csv":
        path.write_text("phone,amount\n70123456,1000\n")
    elif kind == "jsonl":
        path.write_text('{"phone": "70123456", "amount": 1000}\n')
    elif kind == "xlsx":
        workbook(path, {"S": [["phone", "amount"], ["70123456", 1000]]})
    else:
        pyarrow.parquet.write_table(pyarrow.table({"phone": ["70123456"], "amount": [1000]}), path)
    monkeypatch.setattr(sys, "stdin", Stdin(path.read_bytes()))
    async with AsyncExitStack() as stack:
        source = await open_source("-", stack=stack)
        assert (source.name, source.digest) == ("standard input", hashlib.sha256(path.read_bytes()).hexdigest())
        assert [list(block.rows) async for block in source.blocks()] == [[["70123456", "1000"]]]


async def test_empty_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left open."""
    monkeypatch.setattr(sys, "stdin", Stdin(b""))
    with pytest.raises(InputError, match="standard input is empty"):
        await open_source("-")


async def test_a_named_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    """It can be read once only, and is passed over several times."""
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"phone;amount\n70123456;1000\n"))
    writer.start()
    source = await open_source(pipe)
    writer.join()
    assert [list(block.rows) async for block in source.blocks()] == [[["70123456", "1000"]]]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


async def test_the_extension_decides_before_the_content_and_the_format_before_both(tmp_path: Path) -> None:
    """A name without meaning leaves it to the content."""
    data = '{"phone": "1", "amount": 2}\n{"phone": "3", "amount": 4}\n'
    for name in ("x.jsonl", "x", "x.data"):
        (tmp_path / name).write_text(data)
        assert (await read(tmp_path / name)).columns == ["phone", "amount"]
    (tmp_path / "x.csv").write_text(data)
    assert (await read(tmp_path / "x.csv", format="jsonl")).columns == ["phone", "amount"]
    with pytest.raises(InputError, match="not a format"):
        await read(tmp_path / "x.csv", format="doc")


# ----------------------------------------------------------------------------------------------- payouts from Python


async def test_payouts_of_a_program_become_rows() -> None:
    """Amounts stay in minor units, positions count from 1; sync and async iterables are alike."""
    awa = Payout(
        "A2",
        1250,
        email="a@example.com",
        name="Awa",
        bank="ABNGNGLA",
        document_type="national id",
        document_number="N1",
        otp="5647",
    )
    payouts = [Payout("A1", 1000, "XOF", phone="70123456"), awa]

    async def later() -> AsyncIterator[Payout]:
        for payout in payouts:
            yield payout

    for items in (payouts, iter(payouts), later()):
        source = payouts_source(items, "payroll")
        assert (source.name, source.digest, source.columns) == ("payroll", "", COLUMNS)
        blocks = [block async for block in source.blocks()]
        assert [list(block.lines) for block in blocks] == [[1, 2]]
        assert blocks[0].rows == [
            ["A1", "1000", "XOF", "70123456", "", "", "", "", "", "", "", "", ""],
            ["A2", "1250", "", "", "a@example.com", "", "", "", "Awa", "ABNGNGLA", "national id", "N1", "5647"],
        ]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["A1"], "item 1: a str is not a Payout"),
        ([Payout("A1", 1), {"reference": "A2"}], "item 2: a dict is not a Payout"),
        ([Payout("A1", 10.0)], "item 1: amount_minor must be an int"),  # type: ignore[arg-type]
        ([Payout("A1", True)], "item 1: amount_minor must be an int"),
        ([Payout("A1", 1), Payout("A2", 1, phone=226)], "item 2: phone must be text"),  # type: ignore[arg-type]
        ([], "gave no payouts"),
    ],
)
async def test_what_is_no_payout_is_refused_with_its_position(items: list[Any], words: str) -> None:
    """A program's mistake is told as exactly as a file's."""
    with pytest.raises(InputError, match=words):
        _ = [block async for block in payouts_source(items, "payroll").blocks()]
