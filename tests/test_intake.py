"""Intake: the whole file is recorded or nothing is, and repeats are held with the earlier line named."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import anyio
import msgspec
import pytest
from burkina import RowsSource, router

from payout_engine.domain.errors import ConfigError, InputError, JournalFullError
from payout_engine.domain.model import Chunk, Entry, Run, RunState
from payout_engine.domain.states import State
from payout_engine.intake.duplicates import hold_duplicates
from payout_engine.intake.intake import IntakeFindings, intake, prepare
from payout_engine.journal import SqliteJournal
from payout_engine.ports.journal import Journal
from payout_engine.ports.observer import Event, LinesRead

WITH_REFERENCES = ("reference", "phone", "amount")
EXAMPLE = Path(__file__).parent.parent / "examples" / "salaries-bf.csv"


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """Return an empty journal."""
    async with SqliteJournal.open(tmp_path / "payouts.db") as sqlite:
        yield sqlite


async def take_in(journal: Journal, source: RowsSource, **options: object) -> tuple[Run, IntakeFindings]:
    run, validator = prepare(source, router(), **options)  # type: ignore[arg-type]
    return run, await intake(source, journal, run, validator)


async def entries(journal: Journal, run: Run) -> list[Entry]:
    return [entry async for batch in journal.entries(run.run_id) for entry in batch]


async def states(journal: Journal, run: Run) -> Mapping[State, int]:
    counts: dict[State, int] = {}
    for tally in await journal.tally(run.run_id):
        counts[tally.state] = counts.get(tally.state, 0) + tally.count
    return counts


def rows(count: int, phone: str = "70", start: int = 0) -> list[tuple[str, str, str]]:
    return [(f"r{number}", f"{phone}{number:06}", str(1_000 + number)) for number in range(start, start + count)]


async def test_every_line_is_recorded_once_with_its_row(journal: Journal) -> None:
    """Good and bad lines come out in the input's order, across blocks and chunks."""
    lines = [*rows(250), ("bad", "7O123456", "500"), *rows(130, "76"), ("low", "70123456", "5")]
    lines = [(f"{reference}-{index}", phone, amount) for index, (reference, phone, amount) in enumerate(lines)]
    told: list[Event] = []
    source = RowsSource(WITH_REFERENCES, lines, block_rows=90)
    run, validator = prepare(source, router())
    findings = await intake(source, journal, run, validator, on_progress=told.append)
    assert (findings.lines, findings.accepted, findings.rejected, findings.held) == (382, 380, 2, 0)
    recorded = await entries(journal, run)
    assert [entry.payout.line for entry in recorded] == list(range(2, 384))
    assert [tuple(entry.row) for entry in recorded] == lines
    assert await states(journal, run) == {State.READY: 380, State.REJECTED: 2}
    assert told[-1] == LinesRead(382) and len(told) == 5
    found = await journal.find(run.run_id)
    assert found is not None and found.state is RunState.VALIDATED


async def test_refusals_are_shown_by_kind_with_a_few_examples(journal: Journal) -> None:
    """All are counted; the first ten are shown with line, column and sentence."""
    lines = [(f"r{number}", "70123456", str(number)) for number in range(1, 41)]
    _, findings = await take_in(journal, RowsSource(WITH_REFERENCES, lines))
    kind = findings.rejected_by_code["amount_below_minimum"]
    assert kind.count == 40 and [example.line for example in kind.examples] == list(range(2, 12))
    assert kind.examples[0].column == "amount" and "100 XOF" in kind.examples[0].message


@pytest.mark.parametrize("breaks_at", [0, 500])
async def test_a_source_that_breaks_leaves_nothing(journal: Journal, breaks_at: int) -> None:
    """At the first line or in the middle: no run, no payout, and the source's own message."""
    source = RowsSource(WITH_REFERENCES, rows(1_000), block_rows=100, breaks_at=breaks_at)
    with pytest.raises(InputError, match=f"line {breaks_at + 2}: a NUL byte"):
        await take_in(journal, source)
    assert await journal.runs() == []


async def test_a_file_without_lines_leaves_nothing(journal: Journal) -> None:
    """A header alone is no payout file."""
    with pytest.raises(InputError, match="no lines"):
        await take_in(journal, RowsSource(WITH_REFERENCES, []))
    assert await journal.runs() == []


async def test_cancelling_leaves_nothing(journal: Journal) -> None:
    """An interrupted intake is as if it had never begun."""
    source = RowsSource(WITH_REFERENCES, rows(2_000), block_rows=100)
    run, validator = prepare(source, router())
    with anyio.CancelScope() as scope:
        await intake(source, journal, run, validator, on_progress=lambda _: scope.cancel())
    assert scope.cancelled_caught
    assert await journal.runs() == []


class NarrowJournal(SqliteJournal):
    """A journal whose disk is full after the first chunks, and has room for little things all the same."""

    async def add(self, run_id: str, chunks: Sequence[Chunk]) -> None:
        if any(chunk.payouts[0].line > 300 for chunk in chunks):
            raise JournalFullError("The disk is full.")
        await super().add(run_id, chunks)


async def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    """The reader stops with the writer, and the writer's error is the one that is raised."""
    source = RowsSource(WITH_REFERENCES, rows(5_000), block_rows=100)
    async with NarrowJournal.open(tmp_path / "payouts.db") as journal:
        with pytest.raises(JournalFullError, match="full"):
            await take_in(journal, source)
        assert await journal.runs() == []


async def test_a_reference_used_twice_in_the_file_is_held(journal: Journal) -> None:
    """The first is ready; the later ones wait, with the first one's line named."""
    lines = [("a", "70111111", "500"), ("b", "70222222", "600"), ("a", "70333333", "700"), ("a", "70444444", "800")]
    run, findings = await take_in(journal, RowsSource(WITH_REFERENCES, lines))
    assert (findings.accepted, findings.held) == (2, 2)
    kind = findings.held_by_code["reference_repeated"]
    assert [example.line for example in kind.examples] == [4, 5]
    assert all("line 2" in example.message and example.column == "reference" for example in kind.examples)
    assert await states(journal, run) == {State.READY: 2, State.HELD: 2}
    held = [entry for entry in await entries(journal, run) if entry.receipt.state is State.HELD]
    assert [entry.receipt.reason for entry in held] == ["reference_repeated"] * 2


async def test_the_same_payee_and_amount_is_a_warning_with_references_and_held_without(journal: Journal) -> None:
    """With references two equal payments are the payer's word; without, they may be one line copied."""
    lines = [("a", "70111111", "500"), ("b", "+226 70 11 11 11", "500"), ("c", "70111111", "501")]
    _, warned = await take_in(journal, RowsSource(WITH_REFERENCES, lines))
    assert (warned.accepted, warned.held) == (3, 0)
    assert [example.line for example in warned.warnings_by_code["payee_amount_twice"].examples] == [3]
    bare = RowsSource(("phone", "amount"), [line[1:] for line in lines], digest="d2" * 32)
    _, held = await take_in(journal, bare)
    assert (held.accepted, held.held) == (2, 1)
    assert [example.line for example in held.held_by_code["payee_amount_repeated"].examples] == [3]


async def test_a_reference_of_an_earlier_run_is_held(journal: Journal) -> None:
    """The earlier run and line are named; runs that nobody approved do not count."""
    first, _ = await take_in(journal, RowsSource(WITH_REFERENCES, rows(3)))
    _, unapproved = await take_in(journal, RowsSource(WITH_REFERENCES, rows(3), digest="d2" * 32))
    assert unapproved.held == 0
    assert await journal.approve(first.run_id)
    _, again = await take_in(
        journal, RowsSource(WITH_REFERENCES, [*rows(3), ("new", "76123456", "5000")], digest="d3" * 32)
    )
    assert (again.accepted, again.held) == (1, 3)
    example = again.held_by_code["reference_already_used"].examples[0]
    assert first.run_id in example.message and "line 2" in example.message


async def test_a_mended_copy_of_a_file_without_references_does_not_pay_everyone_again(journal: Journal) -> None:
    """Its derived references are new, but payee and amount are those of the run that was approved."""
    lines = [row[1:] for row in rows(300)]
    first, _ = await take_in(journal, RowsSource(("phone", "amount"), lines))
    assert await journal.approve(first.run_id)
    mended = RowsSource(("phone", "amount"), [*lines, ("76123456", "5000")], digest="e4" * 32)
    _, again = await take_in(journal, mended)
    assert (again.accepted, again.held) == (1, 300)
    assert again.held_by_code["payee_amount_repeated"].count == 300


async def test_repeats_are_found_again_when_another_run_was_approved_in_between(journal: Journal) -> None:
    """Two files validated side by side: the second to be approved is compared again."""
    one, _ = await take_in(journal, RowsSource(WITH_REFERENCES, rows(5)))
    other, findings = await take_in(journal, RowsSource(WITH_REFERENCES, rows(5), digest="f5" * 32))
    assert findings.held == 0
    assert await journal.approve(one.run_id)
    assert not await journal.approve(other.run_id)
    decided = await hold_duplicates(journal, other)
    assert sorted(line for line, _ in decided.held) == [2, 3, 4, 5, 6]
    assert await journal.approve(other.run_id)


async def test_the_run_says_which_column_is_which(journal: Journal) -> None:
    """Results need to know where the reference goes."""
    columns = ("Matricule", "Téléphone", "Montant", "Service")
    run, _ = await take_in(journal, RowsSource(columns, [("a", "70123456", "500", "Ventes")]))
    assert run.dialect["reference_column"] == "Matricule" and run.dialect["delimiter"] == ";"
    assert run.has_references and tuple(run.columns) == columns
    assert run == msgspec.structs.replace(run, state=RunState.INTAKE)


def test_the_configured_country_must_exist() -> None:
    """A name is as good as a code; a mistake is found before any line is read."""
    source = RowsSource(WITH_REFERENCES, rows(1))
    _, validator = prepare(source, router(), country="Sénégal")
    assert validator.careful.default_country == "SN"
    with pytest.raises(ConfigError, match="Atlantide"):
        prepare(source, router(), country="Atlantide")


async def test_the_example_file_has_the_faults_it_was_given(journal: Journal) -> None:
    """The file of the demonstration: good lines, and one of each kind of bad one."""
    with EXAMPLE.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file, delimiter=";")
    _, findings = await take_in(journal, RowsSource(header, lines))
    assert findings.lines >= 300
    assert sum(kind.count for kind in findings.rejected_by_code.values()) == findings.rejected
    assert set(findings.rejected_by_code) >= {
        "phone_rounded",
        "operator_not_served",
        "amount_decimals",
        "amount_ambiguous",
        "amount_below_minimum",
        "phone_missing",
        "wallet_mismatch",
        "phone_unreadable",
        "phone_leading_zero",
        "phone_not_mobile",
        "amount_negative",
        "phone_length",
        "amount_missing",
        "wallet_unknown",
    }
    assert findings.held_by_code["reference_repeated"].count == 1
    assert findings.warnings_by_code["payee_amount_twice"].count == 1
