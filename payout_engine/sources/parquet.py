"""Parquet, read by pyarrow in batches. pyarrow is large, so it is an extra: `pip install 'payout-engine[parquet]'`.

Whole numbers and decimals keep every digit; floating point comes out as a person would write it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import BLOCK_ROWS
from payout_engine.domain.model import Block
from payout_engine.sources._content import Content
from payout_engine.sources._table import EXACT_DIGITS, Table, check_cells, check_header, fitted, no_lines, number_text

_FLOAT_DIGITS = {"halffloat": 3, "float": 7, "double": EXACT_DIGITS}
"""Decimal digits that each width of floating point keeps of any number."""


def open_parquet(content: Content) -> Table:
    """Return a Parquet file as a source.

    Raises:
        InputError: it is no Parquet file, it has no rows, or pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            f"{content.name} needs pyarrow to be read. Install it with: pip install 'payout-engine[parquet]'"
        ) from None
    digest = content.digest()
    with content.open() as file:
        try:
            opened = pyarrow.parquet.ParquetFile(file)
            columns, count = opened.schema_arrow.names, opened.metadata.num_rows
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _unusable(content.name) from error
    if not columns:
        raise InputError(f"{content.name} has no columns. Give each payout a phone and an amount.")
    check_header(content.name, 1, columns)
    if not count:
        raise no_lines(content.name)
    dialect = {"format": "parquet", "delimiter": ",", "bom": "no"}
    return Table(content.name, digest, columns, dialect, lambda: _blocks(content, len(columns)), count)


def _blocks(content: Content, width: int) -> Iterator[Block]:
    import pyarrow
    import pyarrow.parquet

    first = 1
    with content.open() as file:
        try:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=BLOCK_ROWS):
                rows = list(map(list, zip(*map(_texts, batch.columns), strict=True)))
                yield check_cells(content.name, fitted(range(first, first + len(rows)), rows, width))
                first += len(rows)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{content.name} is damaged after row {first - 1}. Write it again.") from error
    content.must_be_unchanged()


def _texts(column: Any) -> list[str]:
    """Return one column of a batch as text, nothing for null."""
    import pyarrow

    if isinstance(column, pyarrow.DictionaryArray):
        column = column.dictionary_decode()
    kind = str(column.type)
    if kind in _FLOAT_DIGITS:
        # The detour by text gives 12.3 for a 32-bit 12.3, which as a 64-bit number is 12.300000190734863.
        shortest = column.cast(pyarrow.float32() if kind == "halffloat" else column.type).cast(pyarrow.string())
        digits = _FLOAT_DIGITS[kind]
        return ["" if text is None else number_text(float(text), digits) for text in shortest.to_pylist()]
    if pyarrow.types.is_nested(column.type):
        encode = msgspec.json.Encoder(enc_hook=str).encode
        return ["" if value is None else encode(value).decode() for value in column.to_pylist()]
    return [text or "" for text in column.cast(pyarrow.string()).to_pylist()]


def _unusable(name: str) -> InputError:
    return InputError(f"{name} cannot be read as Parquet: it is another kind of file, or damaged. Write it again.")
