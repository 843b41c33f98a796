"""The documents keep up with the program: commands exist, and every exit code and every state is explained."""

from __future__ import annotations

import importlib
import operator
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from processes import call
from typer.main import get_command

from payout_engine import providers
from payout_engine.cli.main import app
from payout_engine.domain.model import RunState
from payout_engine.domain.states import EDGES, State
from payout_engine.journal import log
from payout_engine.results.summary import Exit

PROJECT = Path(__file__).parent.parent
DOCUMENTS = sorted([*(PROJECT / "docs").glob("*.md"), PROJECT / "README.md"])
README = (PROJECT / "README.md").read_text(encoding="utf-8")
OPERATING = (PROJECT / "docs" / "operating.md").read_text(encoding="utf-8")
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def test_the_page_on_the_lifecycle_is_what_the_table_makes() -> None:
    """The committed page equals what tools/write_lifecycle.py makes; every arrow has a letter of its own."""
    script = "import sys; sys.path.insert(0, 'tools'); import write_lifecycle; sys.stdout.write(write_lifecycle.page())"
    made = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", script], cwd=PROJECT, capture_output=True, check=True, encoding="utf-8"
    ).stdout
    assert made == (PROJECT / "docs" / "lifecycle.md").read_text(encoding="utf-8"), "run tools/write_lifecycle.py"
    assert len(re.findall(r"^    \w+ --> \w+: [A-Z]+$", made, re.MULTILINE)) == len(EDGES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_in_the_documents_exists(document: Path) -> None:
    """Nobody is told to type what is not there."""
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"payout-engine ([a-z]+)((?:(?!payout-engine)[^`\n])*)", text)
    assert named or document.name in ("glossary.md", "lifecycle.md", "one-payout.md")
    for command, rest in named:
        assert command in COMMANDS, f"{document.name} names the command {command}"
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest.split("#")[0])) <= known, f"{command}{rest}"


@pytest.mark.parametrize("code", Exit)
def test_every_exit_code_has_a_section(code: Exit) -> None:
    """The runbook is found by the number on the screen."""
    assert re.search(rf"^### Exit {code.value}: \w", OPERATING, re.MULTILINE)
    section = OPERATING.split(f"### Exit {code.value}:")[1].split("\n##")[0]
    assert len(section.split()) > 10


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_section(state: State) -> None:
    """The runbook is found by the word in the results."""
    assert len(re.findall(rf"^### `{state}`$", OPERATING, re.MULTILINE)) == 1


def test_every_provider_is_in_the_readme() -> None:
    """With each currency that the page does not only count, and what it does."""
    for name, found in providers.discover().items():
        (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", README, re.MULTILINE)
        assert ("pays" in row) == (found.pays is not None)
        assert ("collects" in row) == (found.collects is not None)


def test_the_west_african_file_is_paid_through_four_providers(tmp_path: Path) -> None:
    """The example as it stands, with its configuration: every line arrives, in four currencies."""
    for name in ("west-africa.csv", "west-africa.toml"):
        shutil.copy(PROJECT / "examples" / name, tmp_path)
    done = call(tmp_path, "run", "west-africa.csv", "--config", "west-africa.toml", "--sandbox", "--yes")
    assert done.returncode == 0, done.stderr.decode()
    summary = msgspec.json.decode((tmp_path / "west-africa.csv-results" / "summary.json").read_bytes())
    assert summary["by_state"]["paid"]["count"] == summary["lines"] == 150
    assert set(summary["by_account"]) == {"burkina", "cinetpay", "east", "vouchers"}
    assert set(summary["by_currency"]) == {"KES", "NGN", "UGX", "XOF"}


def test_every_command_is_in_the_runbook() -> None:
    """No command is a secret."""
    for command in COMMANDS:
        assert f"payout-engine {command}" in OPERATING, command


def test_the_documents_agree_with_one_another() -> None:
    """Links between documents lead somewhere."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([\w./-]+\.md)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"


def test_the_glossary_has_every_word_once() -> None:
    """No word has two meanings, and what it says is stored under another word is stored so."""
    text = (PROJECT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("| ")]
    entries = [(row[0], row[2]) for row in rows if row[0] not in ("word", "---")]
    words = [word.strip() for names, _ in entries for word in names.split(",")]
    assert len(words) == len(set(words)) > 40
    tables = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / "payout_engine").rglob("migrations/*.sql"))
    kept = {state.value for state in RunState} | {kind for kind in vars(log).values() if isinstance(kind, str)}
    kept |= set(re.findall(r"^    (\w+) (?:INTEGER|TEXT|REAL|BLOB)", tables, re.MULTILINE))
    for stored in re.findall(r"`(\w+)`", "".join(stored for _, stored in entries)):
        assert stored in kept, stored


def test_the_walk_of_one_payout_names_functions_in_order() -> None:
    """Every function of the walk exists, and its steps are counted without a gap."""
    text = (PROJECT / "docs" / "one-payout.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\| (\d+) \| `([\w.]+)` \|", text, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    for name in [*(name for _, name in steps), *re.findall(r"`(journal\.\w+\.\w+)`", text)]:
        parts = name.split(".")
        module = importlib.import_module(f"payout_engine.{parts[0]}.{parts[1]}")
        assert callable(operator.attrgetter(".".join(parts[2:]))(module)), name
