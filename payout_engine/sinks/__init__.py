"""Sinks: where results go. CSV for people, JSONL and Parquet for programs.

A sink's file appears whole at `commit` or not at all, and only its owner may read it. Called by the engine, which hands
`open_sink` to the writer of the results folder. `atomic_file` is what all stand on; then a module for each format:
`csv`, `jsonl`, `parquet`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from payout_engine.domain.errors import ConfigError
from payout_engine.ports.files import Sink
from payout_engine.sinks.csv import CsvSink
from payout_engine.sinks.jsonl import JsonlSink
from payout_engine.sinks.parquet import NEEDS_PYARROW, ParquetSink

FORMATS = ("csv", "jsonl", "parquet")


def open_sink(path: Path, columns: Sequence[str], *, format: str = "csv", dialect: Mapping[str, str] = {}) -> Sink:
    """Begin a file of rows under one header.

    Args:
        path: where it will be once committed.
        columns: the header.
        format: one of `FORMATS`.
        dialect: for CSV, `delimiter` (a comma if absent) and `bom` (`yes` or `no`), as a source states them.

    Raises:
        ConfigError: the format is not known, or needs a package that is not installed.
        SinkError: the file cannot be begun.
    """
    if format == "csv":
        return CsvSink(path, columns, dialect.get("delimiter") or ",", bom=dialect.get("bom") == "yes")
    if format == "jsonl":
        return JsonlSink(path, columns)
    check_format(format)
    return ParquetSink(path, columns)


def check_format(format: str) -> None:
    """Find out, before anything is paid, whether results can be written in this format.

    Raises:
        ConfigError: the format is not known, or needs a package that is not installed.
    """
    if format not in FORMATS:
        raise ConfigError(f"{format!r} is not a format of results. Choose one of: {', '.join(FORMATS)}.")
    if format == "parquet" and find_spec("pyarrow") is None:
        raise ConfigError(NEEDS_PYARROW)


__all__ = ["FORMATS", "check_format", "open_sink"]
