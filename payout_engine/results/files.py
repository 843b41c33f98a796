"""The results folder: every line's outcome, and the lines that need something done, each in a file of its own.

One pass over the journal feeds all files, so memory does not grow with the run. Every file appears whole or not at all,
and none appears unless every line that went in came out; `summary.json` comes last, so who finds it finds the rest.
Called by the engine when a run comes to rest, and whenever somebody asks again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio.to_thread
import msgspec

from payout_engine.domain import clock
from payout_engine.domain.errors import SinkError
from payout_engine.domain.model import DATA_LINES, Entry, Lane, Run, Tally
from payout_engine.domain.money import DECIMALS, to_major
from payout_engine.domain.states import ATTENTION, State
from payout_engine.ports.files import Sink
from payout_engine.ports.journal import Journal
from payout_engine.sinks.atomic_file import AtomicFile, told_as_sink_error

RESULT_COLUMNS = (
    "payout_line",
    "payout_reference",
    "payout_status",
    "payout_reason",
    "payout_message",
    "payout_account",
    "payout_provider_reference",
    "payout_settled_at",
)
"""What `results` adds to the input's columns."""

AWAITING = ("awaiting_confirmation", "confirmation_needed")
"""Reasons of accepted payouts that move only once the payer has said yes to the provider, by e-mail or otherwise."""

REJECTED_COLUMNS = ("payout_reason", "payout_remedy")
"""What `rejected.csv` adds."""

ATTENTION_COLUMNS = (
    "payout_line",
    "payout_reference",
    "payout_status",
    "payout_reason",
    "payout_message",
    "payout_provider_reference",
    "payout_amount",
    "payout_currency",
)
"""What `attention.csv` adds."""

HAS_SETTLED_AT: frozenset[State] = frozenset({State.PAID, State.FAILED, State.REVERSED})
"""The states that the provider's word put an end to, and whose time is told."""

PAY_AGAIN: frozenset[State] = frozenset({State.FAILED, State.CANCELLED})
"""The states whose lines `failed.csv` holds: provably not paid, and nothing wrong with the line."""


class OpenSink(Protocol):
    """How a file of rows is begun; `payout_engine.sinks.open_sink` is one."""

    def __call__(self, path: Path, columns: Sequence[str], *, format: str, dialect: Mapping[str, str]) -> Sink:
        """Begin a file.

        Raises:
            ConfigError: the format is not known.
            SinkError: the file cannot be begun.
        """
        ...


class ResultFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where the results are, how many lines each file holds, and how many wait for the payer's word at the provider."""

    folder: Path
    results: Path
    failed: Path
    rejected: Path
    attention: Path
    summary: Path
    lines: int
    failed_lines: int
    rejected_lines: int
    attention_lines: int
    awaiting_lines: int


class _Part:
    """One file: lines of the input, each followed by cells of ours, under a header that has no column twice."""

    def __init__(self, sink: Sink, order: Sequence[int]) -> None:
        self.sink = sink
        self.lines = 0
        self._order = order

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        if not rows:
            return
        if self._order:
            rows = [[(*row, "")[place] for place in self._order] for row in rows]
        self.sink.write(rows)
        self.lines += len(rows)


class _Key(NamedTuple):
    """What lines are counted by."""

    lane: Lane
    state: State
    currency: str


class _Sum(msgspec.Struct):
    count: int = 0
    amount_minor: int = 0


async def write_results(
    journal: Journal, run: Run, out_dir: Path, *, open_sink: OpenSink, format: str = "csv"
) -> ResultFiles:
    """Write what became of every line of a run.

    Args:
        journal: where the run is.
        run: which one.
        out_dir: made if it is missing; files of an earlier writing are replaced.
        open_sink: begins a file of rows.
        format: of the file of all lines: `csv`, `jsonl` or `parquet`. The others are CSV, in the input's dialect.

    Raises:
        ConfigError: the format is not known.
        SinkError: the files could not be written, or would not hold every line; none of them was changed. Money is not
            affected.
        JournalError: the journal cannot be read.
    """
    with told_as_sink_error(out_dir):
        out_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    writer = _ResultWriter(run, out_dir, open_sink, format)
    try:
        async for entries in journal.entries(run.run_id):
            writer.write(entries)
        tally, log_digest = await journal.tally(run.run_id), await journal.digest(run.run_id)
        summary = {**_summary(run, writer.sums, tally, log_digest), "awaiting_confirmation": writer.awaiting}
        return await anyio.to_thread.run_sync(writer.commit, summary)
    finally:
        writer.abort()


async def write_refused(journal: Journal, run: Run, out_dir: Path, *, open_sink: OpenSink) -> None:
    """Write `rejected.csv` and `attention.csv` of a run that was only validated.

    Raises:
        SinkError: the files could not be written.
    """
    with told_as_sink_error(out_dir):
        out_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        parts: list[_Part] = []
        for name, added in (("rejected.csv", REJECTED_COLUMNS), ("attention.csv", ATTENTION_COLUMNS)):
            parts.append(_part(run, out_dir / name, run.columns, added, open_sink))
            stack.callback(parts[-1].sink.abort)
        async for entries in journal.entries(run.run_id):
            _write_unpaid(parts[0], parts[1], entries)
        for part in parts:
            await anyio.to_thread.run_sync(part.sink.commit)


def _part(
    run: Run, path: Path, columns: Sequence[str], added: Sequence[str], open_sink: OpenSink, format: str = "csv"
) -> _Part:
    header, order = _layout(columns, added)
    return _Part(open_sink(path, header, format=format, dialect=run.dialect), order)


def _write_unpaid(rejected: _Part, attention: _Part, entries: Sequence[Entry]) -> None:
    """Write the lines that our rules refused, and those that need a person."""
    refused = [entry for entry in entries if entry.receipt.state is State.REJECTED]
    rejected.write([(*entry.row, entry.receipt.reason, entry.receipt.message) for entry in refused])
    attention.write([_attention_line(entry) for entry in entries if entry.receipt.state in ATTENTION])


class _ResultWriter:
    """All the files of one results folder while they are written."""

    def __init__(self, run: Run, folder: Path, open_sink: OpenSink, format: str) -> None:
        self.sums: defaultdict[_Key, _Sum] = defaultdict(_Sum)
        self.awaiting = 0
        self._run = run
        self._folder = folder
        self._format = format
        self._open_sink = open_sink
        self._parts: list[_Part] = []
        self._own_columns, self._as_own = _own_format(run)
        try:
            self._results = self._part(f"results.{format}", run.columns, RESULT_COLUMNS, format)
            self._failed = self._part("failed.csv", self._own_columns, ())
            self._rejected = self._part("rejected.csv", run.columns, REJECTED_COLUMNS)
            self._attention = self._part("attention.csv", run.columns, ATTENTION_COLUMNS)
        except BaseException:
            self.abort()
            raise

    def _part(self, name: str, columns: Sequence[str], added: Sequence[str], format: str = "csv") -> _Part:
        part = _part(self._run, self._folder / name, columns, added, self._open_sink, format)
        self._parts.append(part)
        return part

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a batch of lines to the files that take them, and count them."""
        self._results.write([_result_line(entry) for entry in entries])
        groups: defaultdict[tuple[Lane, State, str], list[int]] = defaultdict(list)
        for entry in entries:
            groups[entry.lane, entry.receipt.state, entry.payout.currency].append(entry.payout.amount_minor)
        for key, amounts_minor in groups.items():
            total = self.sums[_Key(*key)]
            total.count += len(amounts_minor)
            total.amount_minor += sum(amounts_minor)
        if all(state is State.PAID for _, state, _ in groups):
            return
        accepted = [entry for entry in entries if entry.receipt.state is State.ACCEPTED]
        self.awaiting += sum(entry.receipt.reason in AWAITING for entry in accepted)
        self._failed.write([self._as_own(entry) for entry in entries if entry.receipt.state in PAY_AGAIN])
        _write_unpaid(self._rejected, self._attention, entries)

    def commit(self, summary: Mapping[str, object]) -> ResultFiles:
        """Make all files visible, the summary last."""
        for part in self._parts:
            part.sink.commit()
        path = self._folder / "summary.json"
        file = AtomicFile(path)
        try:
            file.write(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
            file.commit()
        finally:
            file.abort()
        return ResultFiles(
            folder=self._folder,
            results=self._folder / f"results.{self._format}",
            failed=self._folder / "failed.csv",
            rejected=self._folder / "rejected.csv",
            attention=self._folder / "attention.csv",
            summary=path,
            lines=self._results.lines,
            failed_lines=self._failed.lines,
            rejected_lines=self._rejected.lines,
            attention_lines=self._attention.lines,
            awaiting_lines=self.awaiting,
        )

    def abort(self) -> None:
        """Throw away what is not committed."""
        for part in self._parts:
            part.sink.abort()


# ------------------------------------------------------------------------------------------------------------- cells


def _result_line(entry: Entry) -> Sequence[str]:
    payout, receipt = entry.payout, entry.receipt
    at = clock.text(receipt.at) if receipt.state in HAS_SETTLED_AT and receipt.at else ""
    said = receipt.state, receipt.reason, receipt.message, entry.lane.account, receipt.provider_reference
    return (*entry.row, str(payout.line), payout.reference, *said, at)


def _attention_line(entry: Entry) -> Sequence[str]:
    payout, receipt = entry.payout, entry.receipt
    amount = _amount(payout.amount_minor, payout.currency), payout.currency
    said = receipt.state, receipt.reason, receipt.message, receipt.provider_reference
    return (*entry.row, str(payout.line), payout.reference, *said, *amount)


def _layout(columns: Sequence[str], added: Sequence[str]) -> tuple[Sequence[str], Sequence[int]]:
    """Return the header, and from which place of a line (the input's cells, then ours) each cell under it comes.

    The places are empty where all stay as they are. An input that is itself a results file has some of the added
    columns already: there the new value takes the place of the old one, since two columns of one name could not be read
    back. What we once wrote about mending a line is blanked, because it was mended since.
    """
    places = {_folded(column): index for index, column in enumerate(columns)}
    order = list(range(len(columns)))
    for name in REJECTED_COLUMNS:
        if name in places:
            order[places[name]] = -1  # the blank that `_Part` puts behind a line
    for number, name in enumerate(added, start=len(columns)):
        if name in places:
            order[places[name]] = number
        else:
            order.append(number)
    header = [*columns, *(name for name in added if name not in places)]
    return header, order if order != list(range(len(columns) + len(added))) else ()


def _own_format(run: Run) -> tuple[Sequence[str], Callable[[Entry], Sequence[str]]]:
    """Return the columns of the input with a reference column, and how a line is written under them."""
    column = _reference_column(run)
    if column is None:
        return ["reference", *run.columns], lambda entry: [entry.payout.reference, *entry.row]
    index = column

    def filled(entry: Entry) -> Sequence[str]:
        row = list(entry.row)
        row[index] = entry.payout.reference
        return row

    return run.columns, filled


def _reference_column(run: Run) -> int | None:
    """Return which column holds the reference, or None when there is none."""
    named = run.dialect.get("reference_column", "")
    if named in run.columns and named:
        return list(run.columns).index(named)
    folded = list(map(_folded, run.columns))
    return folded.index("reference") if "reference" in folded else None


def _folded(column: str) -> str:
    """Return a header as sources compare it: two that are one by this could not be read back."""
    return "".join(column.split()).casefold()


# ----------------------------------------------------------------------------------------------------------- summary


def _summary(run: Run, sums: Mapping[_Key, _Sum], tally: Sequence[Tally], log_digest: str) -> Mapping[str, object]:
    """Return the content of `summary.json`, having made sure that what went in came out.

    Raises:
        SinkError: it did not.
    """
    lines_out = sum(part.count for part in sums.values())
    lines_in = sum(part.count for part in tally)
    amounts_out = _amounts((key.lane.currency, part.amount_minor) for key, part in sums.items())
    amounts_in = _amounts((part.lane.currency, part.amount_minor) for part in tally)
    if (lines_out, amounts_out) != (lines_in, amounts_in):
        raise SinkError(
            f"The results of run {run.run_id} would hold {lines_out} lines and {amounts_out}, where the journal counts "
            f"{lines_in} lines and {amounts_in} (minor units). They were not written."
        )
    return {
        "run_id": run.run_id,
        "file": run.name,
        "digest": run.digest,
        "sandbox": run.sandbox,
        "created_at": _time(run.created_at),
        "sent_at": _time(run.approved_at),
        "finished_at": _time(run.finished_at),
        "written_at": _time(clock.now()),
        "log_digest": log_digest,
        "lines": lines_out,
        "by_state": _totals(sums, lambda key: key.state),
        "by_currency": _totals(sums, lambda key: key.currency),
        "by_account": _totals(sums, lambda key: key.lane.account),
        "by_operator": _totals(sums, lambda key: key.lane.name),
        "control": {
            **_lines_of_file(run, lines_in),
            "lines_in": lines_in,
            "lines_out": lines_out,
            "amounts_minor_in": amounts_in,
            "amounts_minor_out": amounts_out,
        },
    }


def _lines_of_file(run: Run, payouts: int) -> Mapping[str, int]:
    """Return how many lines the file has below its header, and how many of them are no payout of their own."""
    if DATA_LINES not in run.dialect:
        return {}
    data_lines = int(run.dialect[DATA_LINES])
    return {"lines_of_file": data_lines, "lines_blank_or_continued": data_lines - payouts}


def _amounts(parts: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    """Return the sum in each currency, those of nothing left out. Refused lines may have an amount and no currency."""
    amounts: defaultdict[str, int] = defaultdict(int)
    for currency, amount_minor in parts:
        amounts[currency] += amount_minor
    return {currency: amount_minor for currency, amount_minor in sorted(amounts.items()) if amount_minor}


def _totals(sums: Mapping[_Key, _Sum], by: Callable[[_Key], str]) -> Mapping[str, object]:
    """Return counts and amounts by one thing, and within each by state. Lines without it stand under `""`."""
    groups: defaultdict[str, dict[_Key, _Sum]] = defaultdict(dict)
    for key, part in sums.items():
        groups[by(key)][key] = part
    return {name: {**_total(group), "states": _states(group)} for name, group in sorted(groups.items())}


def _states(sums: Mapping[_Key, _Sum]) -> Mapping[str, object]:
    states = sorted({key.state for key in sums})
    return {str(state): _total({key: part for key, part in sums.items() if key.state is state}) for state in states}


def _total(sums: Mapping[_Key, _Sum]) -> Mapping[str, object]:
    """Return the count, and the amount in each currency: amounts of two currencies are never added."""
    amounts = _amounts((key.currency, part.amount_minor) for key, part in sums.items())
    return {
        "count": sum(part.count for part in sums.values()),
        "amounts": {
            currency: {"amount_minor": amount_minor, "amount": _amount(amount_minor, currency)}
            for currency, amount_minor in amounts.items()
        },
    }


def _amount(amount_minor: int, currency: str) -> str:
    """Return an amount in major units, or in minor ones where the currency is not known."""
    return to_major(amount_minor, currency) if currency in DECIMALS else str(amount_minor)


def _time(at: float | None) -> str | None:
    return None if at is None else clock.text(at)
