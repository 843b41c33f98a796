"""What `make mutate` was told stays true: the modules, the tests and the survivors of `mutants.toml` are there."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "payout_engine"
TOLD = tomllib.loads((TESTS / "mutants.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", TOLD["tests"])
def test_each_module_has_tests_that_exist(module: str) -> None:
    """A test that was renamed would leave a module unwatched without a word."""
    assert (PACKAGE / module).is_file()
    assert TOLD["tests"][module]
    for named in TOLD["tests"][module]:
        file, *inside = named.partition("[")[0].split("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        assert all(f"class {name}" in text or f"def {name}(" in text for name in inside), named


@pytest.mark.parametrize("module", TOLD["survivors"])
def test_each_survivor_is_a_line_of_today_with_a_reason(module: str) -> None:
    """A reason given for a line that is no longer there would excuse something else."""
    assert module in TOLD["tests"]
    lines = [line.strip() for line in (PACKAGE / module).read_text(encoding="utf-8").splitlines()]
    for survivor in TOLD["survivors"][module]:
        assert survivor["before"] in lines or survivor["before"] in " ".join(lines), survivor["before"]
        assert survivor["reason"].endswith((".", ")"))
