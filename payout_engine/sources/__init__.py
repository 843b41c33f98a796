"""Sources: where lines come from. Files of every usual kind, standard input, and payouts from a program.

Each source names its columns as written, counts lines as a person would, hashes what it reads, and yields rows of text
in blocks; which column is the phone and what a cell means is validated by intake. Memory stays flat for CSV, JSONL,
Parquet and programs; a spreadsheet is loaded whole and is bounded. Called by the engine.

One module for each kind: `csv`, `jsonl`, `xlsx`, `parquet`, and `payouts` for programs. What they share has an
underscore: the kind and encoding of a file, blocks of rows, what a spreadsheet swallowed, how large it really is.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from payout_engine.domain.errors import InputError
from payout_engine.ports.files import Source
from payout_engine.sources._content import Content, content_of
from payout_engine.sources.csv import open_csv
from payout_engine.sources.jsonl import open_jsonl
from payout_engine.sources.parquet import open_parquet
from payout_engine.sources.payouts import payouts_source
from payout_engine.sources.xlsx import open_workbook

_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".xls": "xlsx",
    ".ods": "xlsx",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_BY_SIGNATURE = {"xlsx": "xlsx", "xls": "xlsx", "parquet": "parquet"}


async def open_source(
    path: Path | str,
    *,
    format: str | None = None,
    sheet: str | None = None,
    delimiter: str | None = None,
    stack: AsyncExitStack | None = None,
) -> Source:
    """Open a payout file, or standard input for `-`.

    Args:
        path: the file, a pipe, or `-`.
        format: `csv`, `jsonl`, `xlsx` (any spreadsheet) or `parquet`; None means by the name, else by the content.
        sheet: the sheet of a spreadsheet; None means the only one with data.
        delimiter: the separator of a CSV file; None means noticed.
        stack: where to leave the clearing away of standard input's copy; without it, that goes with the source.

    Raises:
        InputError: it cannot be used as a payout file; one sentence says why and how to mend it.
    """
    # Hashing and checking pass over the whole file, and standard input may take its time: not on the loop.
    content, clear = await anyio.to_thread.run_sync(content_of, Path(path), abandon_on_cancel=True)
    if stack is not None:
        stack.callback(clear)
    kind = format or _kind(content, Path(path).suffix.lower())
    return await anyio.to_thread.run_sync(_opened, content, kind, sheet, delimiter)


def _kind(content: Content, suffix: str) -> str:
    signature, _ = content.seems()
    start = content.head.lstrip(b"\xef\xbb\xbf \t\r\n")
    by_content = _BY_SIGNATURE.get(signature) or ("jsonl" if start.startswith((b"{", b"[")) else "csv")
    return _BY_SUFFIX.get(suffix, by_content)


def _opened(content: Content, kind: str, sheet: str | None, delimiter: str | None) -> Source:
    if kind == "csv":
        return open_csv(content, delimiter)
    if kind == "jsonl":
        return open_jsonl(content)
    if kind == "xlsx":
        return open_workbook(content, sheet)
    if kind == "parquet":
        return open_parquet(content)
    raise InputError(f"{kind!r} is not a format we read. Use csv, jsonl, xlsx or parquet.")


__all__ = ["open_source", "payouts_source"]
