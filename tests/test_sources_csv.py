"""CSV files as people really send them: `tests/inputs/` holds one file for each awkwardness, named for it."""

from __future__ import annotations

import csv
import hashlib
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import INPUTS, read, refusal

from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import BLOCK_ROWS, COLUMNS_MAX, FIELD_CHARS_MAX, SCAN_BYTES
from payout_engine.sources import open_source


@pytest.mark.parametrize(
    ("name", "encoding", "bom"),
    [
        ("utf8_bom_semicolon.csv", "utf-8", "yes"),
        ("utf16_le_bom.csv", "utf-16-le", "yes"),
        ("utf16_be_bom.csv", "utf-16-be", "yes"),
        ("utf16_le_without_bom.csv", "utf-16-le", "yes"),
        ("utf16_be_without_bom.csv", "utf-16-be", "yes"),
        ("cp1252_in_the_header.csv", "cp1252", "yes"),
    ],
)
async def test_the_same_table_in_any_encoding_reads_the_same(name: str, encoding: str, bom: str) -> None:
    """The encoding is noticed, and told in the dialect."""
    found = await read(INPUTS / name)
    assert found.columns == ["référence", "téléphone", "montant"]
    assert found.rows == [["A1", "70123456", "1000"], ["A2", "71123456", "2000"]]
    assert found.lines == [2, 3]
    assert found.dialect == {"format": "csv", "encoding": encoding, "bom": bom, "delimiter": ";"}


async def test_an_encoding_that_shows_only_in_the_last_line_holds_for_the_whole_file(tmp_path: Path) -> None:
    """CP1252 is known from a name at the end, also far beyond what was looked at first."""
    found = await read(INPUTS / "cp1252_in_the_last_line_only.csv")
    assert found.rows[-1] == ["71123456", "2000", "Zoé Traoré"]
    late = tmp_path / "late.csv"
    late.write_bytes(b"phone,amount,name\n" + b"70123456,1000,Awa Ouedraogo\n" * 50_000 + b"71123456,1,Zo\xe9\n")
    found = await read(late)
    assert found.rows[-1][2] == "Zoé" and found.dialect["encoding"] == "cp1252"


async def test_a_character_cut_by_a_scanned_block_is_still_utf8(tmp_path: Path) -> None:
    """UTF-8 is not mistaken for CP1252 where a block ends inside a character."""
    path, name = tmp_path / "cut.csv", "é€é€" * 100
    for shift in range(3):
        path.write_bytes(b"phone,amount,name\n" + b"x" * shift + f"1,2,{name}\n".encode() * 1_800)
        found = await read(path)
        assert found.dialect["encoding"] == "utf-8"
        assert found.rows[-1] == ["1", "2", name]


async def test_a_character_torn_apart_by_a_block_of_plain_letters_is_not_utf8(tmp_path: Path) -> None:
    """Blocks that need no decoding are not passed over where one is waited for."""
    path = tmp_path / "torn.csv"
    head, line = b"phone,amount,name\n1,2,", b"x" * 127 + b"\n"
    first = head + line * ((SCAN_BYTES - len(head) - 1) // len(line))
    path.write_bytes(first.ljust(SCAN_BYTES - 1, b"x") + b"\xc3" + line * (SCAN_BYTES // len(line)) + b"\xa9\n")
    assert (await read(path)).dialect["encoding"] == "cp1252"


@pytest.mark.parametrize(
    ("name", "delimiter", "row"),
    [
        ("tabs.csv", "\t", ["70123456", "1000", "Awa, Zoe"]),
        ("pipes.csv", "|", ["70123456", "1000", "Awa"]),
        ("decimal_commas_in_every_line.csv", ";", ["254712345678", "10,50", "A,B"]),
        ("other_separators_inside_quotes.csv", ",", ["70123456", "1000", "a;b;c;d"]),
        ("declared_separator.csv", ";", ["70123456", "1000"]),
        ("one_column.csv", ",", ["70123456"]),
        ("no_line_end_at_the_end.csv", ",", ["70123456", "1000"]),
        ("old_mac_line_ends.csv", ",", ["70123456", "1000"]),
    ],
)
async def test_the_separator_is_noticed(name: str, delimiter: str, row: list[str]) -> None:
    """It is the one by which the lines agree with the header."""
    found = await read(INPUTS / name)
    assert found.dialect["delimiter"] == delimiter
    assert found.rows[0] == row


async def test_blank_lines_are_left_out_and_counted() -> None:
    """A line's number is the one an editor shows."""
    found = await read(INPUTS / "blank_lines_are_counted.csv")
    assert found.columns == ["phone", "amount"]
    assert list(zip(found.lines, found.rows, strict=True)) == [(5, ["70123456", "1000"]), (8, ["71123456", "2000"])]


async def test_line_ends_inside_cells_are_counted_as_an_editor_does() -> None:
    """A record begins on the line where its first character is, whatever its cells hold."""
    found = await read(INPUTS / "line_ends_in_cells.csv")
    assert found.lines == [3, 5, 9]
    assert found.rows[1][2] == "a\r\nb\rc\nd"
    assert not found.ragged


async def test_surplus_cells_make_a_line_ragged_and_empty_ones_do_not() -> None:
    """`10,000` unquoted shifts the cells: nobody can say which is the amount. Separators at the end shift nothing."""
    found = await read(INPUTS / "too_many_cells.csv")
    assert found.ragged == {3: 4}
    assert found.rows[1] == ["71123456", "10", "000,Ali"], "nothing of a refused line is lost"
    found = await read(INPUTS / "trailing_separators.csv")
    assert found.rows == [["70123456", "1000"], ["71123456", "2000"]] and not found.ragged


async def test_missing_cells_are_empty() -> None:
    """A short line is filled up, and refused by what it lacks."""
    found = await read(INPUTS / "too_few_cells.csv")
    assert found.rows == [["70123456", "1000", ""], ["71123456", "", ""]] and not found.ragged


async def test_a_line_over_several_that_lacks_cells_is_ragged(tmp_path: Path) -> None:
    """What was in the cells that are missing, nobody can say."""
    path = tmp_path / "short.csv"
    path.write_text('phone,amount,name\n70123456,"1000 Awa\nTraore"\n72123456,3000,Zoe\n')
    found = await read(path)
    assert found.ragged == {2: 2}
    assert found.lines == [2, 4]


SWALLOWED = {
    "in a middle column": ("a,b,c,d,e,f,g", '1,2,3,"Awa,x,y,z\n1,2,3,Ali",x,y,z', "2 to 3"),
    "from the first cell": ("ref,name,amount", '"R1,Awa,50\nR2",Ali,60', "2 to 3"),
    "to the last cell": ("ref,amount,name", 'R1,50,"Awa\nR2,60,Ali\nR3,70,Zoe"', "2 to 4"),
    "closing in the last line": ("ref,amount,name", 'R0,40,x\nR1,50,"Awa\nR2,60,Ali"', "3 to 4"),
    "closing at the end of a line": ("ref,name,amount", 'R1,"Awa,50\nR2,Ali,60"\nR3,Zoe,70', "2 to 3"),
    "lines without their last cells": (
        "ref,phone,amount,name,town,note",
        'R1,70123456,500,"Awa\nR2,71123456,600\nR3,72123456,700,Zoe",x,y',
        "2 to 4",
    ),
    "few cells and an account number": (
        "ref,account,amount,name,town,note",
        'R1,CI93 0001,500,"Awa\nR2,CI94 0002,600\nR3,CI95 0003,700,Zoe",x,y',
        "2 to 4",
    ),
    "few cells and an address": (
        "email,amount,name,town,note,more,most",
        'a@x.org,500,"Awa\nb@x.org,60\nc@x.org,70,Zoe",x,y,z,z',
        "2 to 4",
    ),
    "more cells than the header": ("ref,name,phone,amount", 'R1,54000001,"Awa,1001\nR2,Ali",7,8,9', "2 to 3"),
    "empty quoted cells between": ("ref,name,phone,amount", 'R1,"A,54000001,1\nR2,"",54000002,2\nR3,B",5,6', "2 to 4"),
    "after a lawful cell of the line": ("ref,town,name,phone,amount", 'R1,"a\nb","A,5,1\nR2,x,B",5,6', "3 to 4"),
    "after blank lines": ("ref,name,amount", '\n\n"R1,Awa,50\nR2",Ali,60', "4 to 5"),
}


@pytest.mark.parametrize("case", SWALLOWED)
async def test_lines_between_two_stray_quotes_are_never_taken_for_a_cell(case: str, tmp_path: Path) -> None:
    """Wherever the marks stand and whatever is between; with any separators and line ends, also in the last line."""
    header, lines, where = SWALLOWED[case]
    for separator in ",;\t|":
        for end in ("\n", "\r\n", "\r"):
            path = tmp_path / "stray.csv"
            path.write_bytes(f"{header}\n{lines}".replace(",", separator).replace("\n", end).encode())
            assert f"lines {where}: a quotation mark opens" in await refusal(path)


async def test_lawful_cells_over_several_lines_are_read_and_every_line_is_counted() -> None:
    """An address is no line of the file, with or without a comma in it; what is blank or continued is told."""
    found = await read(INPUTS / "addresses_over_several_lines.csv")
    assert found.lines == [2, 6, 9] and not found.ragged
    assert [row[4] for row in found.rows] == ["Rue 5\nSecteur 12\n\n01 BP 1234", "12, rue de la Paix\nOuagadougou", ""]
    assert (found.continued_lines, found.blank_lines) == (4, 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.integers(2, 7),
    column=st.integers(0, 6),
    first=st.integers(0, 3),
    height=st.integers(1, 4),
    short=st.booleans(),
    separator=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
async def test_two_stray_quotes_anywhere_never_pay_one_line_with_another(
    tmp_path: Path, width: int, column: int, first: int, height: int, short: bool, separator: str, end: str
) -> None:
    """Opened before any cell and closed after the same one of a later line: refused, whatever the table is like."""
    column %= width
    cells = [[f"7012345{line}", str(500 + line), *(f"x{line}" for _ in range(width - 2))] for line in range(9)]
    if short:
        cells = [row if line == first + height else row[: max(3, column + 1)] for line, row in enumerate(cells)]
    cells[first][column] = '"' + cells[first][column]
    cells[first + height][column] += '"'
    lines = [["phone", "amount", *(f"column {number}" for number in range(2, width))], *cells]
    path = tmp_path / "stray.csv"
    path.write_bytes(end.join(map(separator.join, lines)).encode())
    assert f"lines {first + 2} to {first + height + 2}: a quotation mark opens" in await refusal(path)


async def test_lines_are_counted_apart_from_what_the_table_reader_makes_of_them(tmp_path: Path) -> None:
    """By their ends, of every kind, also where a block of bytes ends between the two of one."""
    path = tmp_path / "ends.csv"
    for end, shift, encoding in itertools.product(("\n", "\r\n", "\r"), range(3), ("utf-8", "utf-16")):
        head, line = f"phone,amount,note{end}", f"70123456,1,{'x' * 4_000}{end}"
        block = SCAN_BYTES // (1 if encoding == "utf-8" else 2) - shift
        before = (block - len(head)) // len(line) - 1
        last = "70123456,1,".ljust(block - len(head) - before * len(line), "x")  # its end is about where the block's is
        path.write_bytes((head + line * before + last + end + line * 3 + end + "3,4,").encode(encoding))
        found = await read(path)
        assert (len(found.rows), found.blank_lines) == (before + 5, 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "two_stray_quotes_swallow_three_lines.csv",
            "lines 2 to 5: a quotation mark opens on line 2 and closes on line 5",
        ),
        ("two_stray_quotes_shorten_a_line.csv", "lines 2 to 3: a quotation mark opens on line 2 and closes on line 3"),
        ("stray_quotes_in_the_header.csv", "lines 1 to 3: a quotation mark opens on line 1 and closes on line 3"),
        ("stray_quotes_over_the_last_line.csv", "lines 2 to 3: a quotation mark opens on line 2 and closes on line 3"),
        ("quote_never_closed.csv", "line 3: a quotation mark opens here and is never closed"),
        ("quote_never_closed_then_a_long_rest.csv", "line 3: a quotation mark opens here and is never closed"),
        ("two_stray_quotes_swallow_a_line.csv", "line 2: text follows a closing quotation mark"),
        ("text_after_a_quote.csv", "line 3: text follows a closing quotation mark"),
        ("nul_byte.csv", "line 3: there is a NUL byte"),
        ("duplicate_headers.csv", "line 1: columns 1 and 3 are both called 'p hone'"),
        ("header_only.csv", "has a header and no lines"),
        ("blank_lines_only.csv", "has only blank lines"),
        ("empty.csv", "is empty"),
        ("picture.csv", "a picture (PNG)"),
        ("archive.csv", "XLSX"),
        ("document.csv", "a PDF document"),
        ("compressed.csv", "GZIP"),
        ("web_page.csv", "a web page"),
        ("no_encoding_at_all.csv", "line 2: there are bytes that are no text"),
        ("missing.csv", "does not exist"),
    ],
)
async def test_what_cannot_be_used_is_refused_with_the_line_and_the_remedy(name: str, words: str) -> None:
    """One clear sentence says where and why."""
    assert words in await refusal(INPUTS / name)


async def test_a_folder_is_refused() -> None:
    """It is named as one."""
    with pytest.raises(InputError, match="is a folder"):
        await open_source(INPUTS)


async def test_over_long_cells_and_too_many_columns_are_refused(tmp_path: Path) -> None:
    """The bound is exact, and the limit of the csv module is as it was before."""
    path, before = tmp_path / "long.csv", csv.field_size_limit()
    path.write_text(f"phone,amount\n1,2\n3,{'4' * FIELD_CHARS_MAX}\n")
    assert len((await read(path)).rows) == 2
    path.write_text(f"phone,amount\n1,2\n3,{'4' * (FIELD_CHARS_MAX + 1)}\n")
    assert f"line 3: a cell holds more than {FIELD_CHARS_MAX} characters" in await refusal(path)
    path.write_text(",".join(f"c{number}" for number in range(COLUMNS_MAX + 1)) + "\n1\n")
    assert "501 columns" in await refusal(path)
    assert csv.field_size_limit() == before


async def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """What is paid must be what the digest names."""
    path = tmp_path / "changing.csv"
    path.write_text("phone,amount\n1,2\n")
    source = await open_source(path)
    with path.open("a") as file:
        file.write("3,4\n")
    with pytest.raises(InputError, match="changed while it was being read"):
        _ = [block async for block in source.blocks()]


async def test_the_digest_is_of_the_bytes() -> None:
    """Anybody can compute it with sha256sum."""
    for path in sorted(INPUTS.glob("utf*.csv")):
        assert (await read(path)).digest == hashlib.sha256(path.read_bytes()).hexdigest()


async def test_line_numbers_agree_with_the_reader_over_many_blocks(tmp_path: Path) -> None:
    """Counting by block gives the same as counting row by row."""
    path = tmp_path / "many.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["phone", "amount"])
        for number in range(3 * BLOCK_ROWS):
            writer.writerow([number, "a\nb" if number in (5, 2_500, 2_501) else number])
            if number % 1_000 == 0:
                file.write("\r\n")
    expected, begins = [], 1
    with path.open(newline="") as file:
        reader = csv.reader(file)
        for row in reader:
            if row:
                expected.append(begins)
            begins = reader.line_num + 1
    assert (await read(path)).lines == expected[1:]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), st.text('ab,;"\n\r\té\0 =1', max_size=120).map(str.encode)))
async def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    """Whatever is in a file, only `InputError` comes out, and rows are as long as the header."""
    for name in ("any.csv", "any.jsonl", "any.xlsx", "any.parquet", "any.xls", "any.ods", "any"):
        path = tmp_path / name
        path.write_bytes(data)
        try:
            await read(path)
        except InputError as error:
            assert path.name in str(error)
