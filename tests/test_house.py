"""The house keeps its shape: imports run downwards, files and functions stay small, the words are the agreed ones."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import payout_engine

ROOT = Path(payout_engine.__file__).parent
PROJECT = ROOT.parent
MODULES = sorted(ROOT.rglob("*.py"))

FLOORS = {
    # words: import nothing of ours but other words
    **dict.fromkeys(["clock", "errors", "lifecycle", "limits", "model", "money", "proof", "reasons", "references"], 0),
    # agreements
    **dict.fromkeys(["cells", "countries", "files", "locks", "observe", "ports", "registration"], 1),
    **dict.fromkeys(["remembered", "settings", "throttle", "traits"], 1),
    # rooms
    **dict.fromkeys(["journal", "pipeline", "providers", "sinks", "sources"], 2),
    # where rooms meet
    **dict.fromkeys(["accounts", "clearing", "elsewhere", "engine", "judging", "leasing", "payments", "retrying"], 3),
    **dict.fromkeys(["steering", "submission", "summary"], 3),
    # doors
    **dict.fromkeys(["__main__", "cli", "sandbox", "testing"], 4),
    # the public names
    "__init__": 5,
}
ROOMS = 2
CALLABLE_BY_ROOMS = {
    "accounts": {"pipeline", "providers"},
    "clearing": {"pipeline"},
    "elsewhere": {"journal"},
    "engine": {"journal", "pipeline", "sinks"},
    "judging": {"journal", "pipeline", "sinks", "sources"},
    "leasing": {"journal"},
    "payments": {"pipeline"},
    "retrying": {"pipeline"},
    "steering": {"pipeline"},
    "submission": {"pipeline"},
    "summary": {"pipeline"},
}


def room_of(path: Path) -> str:
    """Return the top-level name a file belongs to."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield the top-level names of ours that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "payout_engine":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("payout_engine."):
                    yield alias.name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    """No file imports a floor above its own, and no room imports another room."""
    here = room_of(path)
    assert here in FLOORS, f"{here} has no floor: give it one in this test"
    for name in set(imports(path)) - {here}:
        if name not in FLOORS:
            continue  # A name of the package itself, such as its version.
        assert FLOORS[name] <= FLOORS[here], f"{here} must not import {name}"
        assert not (FLOORS[name] == FLOORS[here] == ROOMS), f"{here} and {name} are siblings"
        if FLOORS[here] == FLOORS["engine"] and FLOORS[name] == ROOMS:
            assert name in CALLABLE_BY_ROOMS[here], f"{here} has no business with {name}"


def test_the_pipeline_names_no_provider_and_no_journal() -> None:
    """What pays knows only the ports."""
    names = [folder.name for folder in (ROOT / "providers").iterdir() if (folder / "adapter.py").exists()]
    assert "senfenico" in names
    for path in (ROOT / "pipeline").rglob("*.py"):
        text = path.read_text(encoding="utf-8").lower()
        for name in [*names, "sqlite"]:
            assert name not in text, f"{path.name} names {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    """No file reaches five hundred lines and no function passes seventy."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= 70, f"{node.name} is too long"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    """Every module that holds code begins with a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)


def test_every_provider_has_its_five_files() -> None:
    """A provider folder looks like every other."""
    for folder in (ROOT / "providers").iterdir():
        if folder.is_dir() and not folder.name.startswith("_"):
            for name in ("__init__.py", "adapter.py", "client.py", "wire.py", "sandbox.py", "NOTES.md"):
                assert (folder / name).exists(), f"{folder.name} has no {name}"


def test_money_leaves_in_one_place() -> None:
    """Only dispatch calls a provider's `send`, once, with the durable intent above it."""
    calls = []
    for path in (ROOT / "pipeline").rglob("*.py"):
        calls += [path.name for _ in re.finditer(r"provider\.send\(", path.read_text(encoding="utf-8"))]
    assert calls == ["dispatch.py"]


def test_no_float_touches_money() -> None:
    """No name that holds minor units is ever made from a float."""
    for path in MODULES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not re.search(r"_minor\s*[:=].*\bfloat\b", line), f"{path.name}:{number}"


def test_public_names_are_complete_and_sorted() -> None:
    """`__all__` lists what the package offers, in order."""
    assert list(payout_engine.__all__) == sorted(payout_engine.__all__)
    for name in payout_engine.__all__:
        assert hasattr(payout_engine, name)


def test_the_project_names_no_machine() -> None:
    """No file holds a path of one machine."""
    suffixes = {".py", ".md", ".toml", ".json", ".sql", ".csv", ""}
    for folder in ("payout_engine", "benchmarks", "examples", "tests", "docs"):
        for path in (PROJECT / folder).rglob("*") if (PROJECT / folder).is_dir() else ():
            if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts:
                text = path.read_text(encoding="utf-8", errors="replace")
                assert not re.search(r"(?<![\w.])/(?:work|root|home)/\w", text), path.name
