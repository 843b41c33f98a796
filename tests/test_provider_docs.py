"""The page on providers says what is there: each call that a client offers, and a test that speaks it."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

from payout_engine import providers

PROJECT = Path(__file__).parent.parent
SECTIONS = dict(
    section.split("\n", 1)
    for section in (PROJECT / "docs" / "providers.md").read_text(encoding="utf-8").split("\n## ")[1:]
)
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (PROJECT / "tests").glob("test_*.py"))


@pytest.mark.parametrize("name", providers.discover())
def test_every_call_of_a_client_is_on_the_page_with_its_test(name: str) -> None:
    """No method is missing or invented, and each test that is named exists."""
    title = providers.get(name).title
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in SECTIONS[title].splitlines()
        if row.startswith(("| POST ", "| GET "))
    ]
    client = getattr(importlib.import_module(f"payout_engine.providers.{name}"), f"{title}Client")
    calls = {
        method
        for method, found in inspect.getmembers(client, inspect.isfunction)
        if not method.startswith("_") and method != "aclose"
    }

    assert {method for row in rows for method in re.findall(rf"`{title}Client\.(\w+)`", row[1])} == calls
    for _, _, named in rows:
        assert f"def {named.strip('`').split('::')[-1]}(" in TESTS, named
