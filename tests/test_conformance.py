"""Every provider that is discovered, and every format of results, keeps its promises: nothing to add here."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet
import pytest

from payout_engine import providers
from payout_engine.domain.model import Direction
from payout_engine.ports.registration import Registration
from payout_engine.sinks import FORMATS, open_sink
from payout_engine.testing.providers import ProviderSuite
from payout_engine.testing.sinks import COLUMNS, OpenSink, ReadBack, SinkSuite
from payout_engine.testing.suite import Suite


class TestProviders(ProviderSuite):
    """All that pay people, of what `providers.discover` finds."""

    @pytest.fixture(params=[name for name, found in providers.discover().items() if found.pays])
    def registration(self, request: pytest.FixtureRequest) -> Registration:
        return providers.get(request.param)


class TestCollectors(ProviderSuite):
    """All that collect."""

    direction = Direction.COLLECT

    @pytest.fixture(params=[name for name, found in providers.discover().items() if found.collects])
    def registration(self, request: pytest.FixtureRequest) -> Registration:
        return providers.get(request.param)


def csv_rows(path: Path) -> list[list[str]]:
    """The rows under the header, as any CSV reader finds them."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def jsonl_rows(path: Path) -> list[list[str]]:
    return [list(record.values()) for record in msgspec.json.Decoder(dict[str, str]).decode_lines(path.read_bytes())]


def parquet_rows(path: Path) -> list[list[str]]:
    return [[record[name] for name in COLUMNS] for record in pyarrow.parquet.read_table(path).to_pylist()]


READERS: dict[str, ReadBack] = {"csv": csv_rows, "jsonl": jsonl_rows, "parquet": parquet_rows}


class TestSinks(SinkSuite):
    """All of `sinks.FORMATS`."""

    @pytest.fixture(params=FORMATS)
    def format(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture
    def open_sink(self, format: str) -> OpenSink:
        return partial(open_sink, format=format)

    @pytest.fixture
    def read_back(self, format: str) -> ReadBack:
        return READERS[format]

    @pytest.fixture
    def for_spreadsheets(self, format: str) -> bool:
        return format == "csv"


def test_striking_out_a_promise_is_noticed() -> None:
    """Replacing a test of a suite fails; marking it as expected to fail, openly, does not."""

    class Silent(TestSinks):
        def test_abort_leaves_no_trace(self) -> None:  # type: ignore[override]
            pass

    class Open(TestSinks):
        @pytest.mark.xfail(reason="it leaves a trace")
        def test_abort_leaves_no_trace(self) -> None:  # type: ignore[override]
            pass

    TestSinks.test_no_promise_is_struck_out(Open())
    with pytest.raises(AssertionError, match="test_abort_leaves_no_trace"):
        TestSinks.test_no_promise_is_struck_out(Silent())
    assert issubclass(ProviderSuite, Suite)
