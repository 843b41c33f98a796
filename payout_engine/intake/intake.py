"""Intake: the whole file is read, validated and recorded before any money moves.

Blocks of rows are validated while earlier chunks are being written; both sides wait for each other, so memory is
bounded whatever the file's size. What cannot be used, at its first line or its last, leaves nothing behind. The engine
calls `prepare` and then `intake`, for `plan` and for `run` alike.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream

from payout_engine.domain.clock import now, text
from payout_engine.domain.countries import find_country
from payout_engine.domain.errors import ConfigError, InputError, JournalError, PayoutEngineError
from payout_engine.domain.limits import LINES_SHOWN_MAX
from payout_engine.domain.model import DATA_LINES, Chunk, Problem, Run
from payout_engine.domain.money import format_amount, parse_amount
from payout_engine.domain.rejections import problem
from payout_engine.intake.chunk import Packer
from payout_engine.intake.columns import Layout, find_layout
from payout_engine.intake.duplicates import hold_duplicates
from payout_engine.intake.plain import BlockValidator
from payout_engine.intake.route import Router
from payout_engine.intake.validate import Validated, Validator
from payout_engine.ports.files import CountsLines, Source
from payout_engine.ports.journal import Journal
from payout_engine.ports.observer import LinesRead, Observer

_WRITES_AHEAD = 4
"""Blocks of chunks that may wait for the journal: enough to keep both sides busy."""

_ID_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters of a run's id, without those that are read as another."""


class Example(msgspec.Struct, frozen=True):
    """One line of a kind, for people. The message may name a full phone number; do not log it."""

    line: int
    column: str
    code: str
    message: str

    def __repr__(self) -> str:
        return f"Example(line {self.line}, {self.code})"


class Kind(msgspec.Struct):
    """How often one reason was given, and the first lines it was given for."""

    code: str
    count: int = 0
    examples: list[Example] = msgspec.field(default_factory=list)

    def add(self, line: int, found: Problem) -> None:
        """Count a line."""
        self.count += 1
        if len(self.examples) < LINES_SHOWN_MAX:
            self.examples.append(Example(line, found.column, found.code, found.message))


class IntakeFindings(msgspec.Struct):
    """What intake found in a file.

    Attributes:
        run_id: the run that records it.
        lines: how many payouts there are; the sum of the next three.
        accepted: ready to be paid.
        rejected: refused by our rules.
        held: waiting for a person.
        rejected_by_code: why lines were refused.
        held_by_code: why lines are held.
        warnings_by_code: what the payer should know of lines that were accepted.
        has_references: False when the references were derived from the file.
        blank_lines: lines of the file that are blank.
        continued_lines: lines of the file that belong to a cell which began on an earlier line.
        total_lines: lines of the file that sum up others, or close the list; they are no payouts.
        sums_minor: of all lines whose amount can be read, by currency.
    """

    run_id: str
    has_references: bool
    lines: int = 0
    accepted: int = 0
    rejected: int = 0
    held: int = 0
    rejected_by_code: dict[str, Kind] = msgspec.field(default_factory=dict)
    held_by_code: dict[str, Kind] = msgspec.field(default_factory=dict)
    warnings_by_code: dict[str, Kind] = msgspec.field(default_factory=dict)
    blank_lines: int = 0
    continued_lines: int = 0
    total_lines: int = 0
    sums_minor: dict[str, int] = msgspec.field(default_factory=dict)

    def take(self, validated: Validated) -> None:
        """Count the lines of one block."""
        accepted = sum(len(batch.payouts) for batch in validated.accepted.values())
        assert accepted + len(validated.refused) == validated.payouts, "every line in comes out, once"
        self.lines += validated.payouts
        self.total_lines += len(validated.totals)
        for batch in validated.accepted.values():
            self._sum(batch.lane.currency, sum([payout.amount_minor for payout in batch.payouts]))
        self.accepted += accepted
        self.rejected += len(validated.refused)
        for payout, _, found in validated.refused:
            _count(self.rejected_by_code, payout.line, found)
            self._sum(payout.currency, payout.amount_minor)
        for line, found in validated.warnings:
            _count(self.warnings_by_code, line, found)

    def _sum(self, currency: str, amount_minor: int) -> None:
        if amount_minor:
            self.sums_minor[currency] = self.sums_minor.get(currency, 0) + amount_minor

    def compare_totals(self, totals: Sequence[tuple[int, str]]) -> None:
        """Warn where the file's own last total is not what its lines add up to, if they are all of one currency."""
        stated = [(line, text) for line, text in totals if text]
        if not stated or len(self.sums_minor) != 1:
            return
        ((currency, sum_minor),) = self.sums_minor.items()
        line, text = stated[-1]
        total = parse_amount(text, currency)
        if total != sum_minor:
            said = text[:40] if isinstance(total, Problem) else format_amount(total, currency)
            _count(
                self.warnings_by_code,
                line,
                problem("total_differs", stated=said, sum=format_amount(sum_minor, currency)),
            )

    @property
    def data_lines(self) -> int:
        """How many lines the file has below its header; each is a payout, a total, blank, or part of a cell."""
        return self.lines + self.total_lines + self.blank_lines + self.continued_lines


def _count(kinds: dict[str, Kind], line: int, found: Problem) -> None:
    kinds.setdefault(found.code, Kind(found.code)).add(line, found)


# ------------------------------------------------------------------------------------------------------------ prepare


def prepare(
    source: Source,
    router: Router,
    *,
    columns: Mapping[str, str] | None = None,
    country: str = "",
    max_payout_amount: int | None = None,
    sandbox: bool = False,
) -> tuple[Run, BlockValidator]:
    """Find the columns of a source and return the run and the validator for it. Nothing is read or recorded yet.

    Args:
        source: an open source.
        router: where money can go.
        columns: meaning -> header, from the configuration.
        country: the country of numbers written without a country code; without it, the one country that is served.
        max_payout_amount: the payer's own limit for one payout, in major units of its currency.
        sandbox: the run pays into sandboxes.

    Raises:
        ConfigError: the configuration names a country or a meaning that does not exist.
        InputError: a needed column is missing, or two could be the same thing.
    """
    layout = find_layout(source.columns, columns, source.name)
    careful = Validator(
        layout,
        router,
        default_country=_default_country(country, router),
        digest=source.digest,
        max_payout_amount=max_payout_amount,
    )
    return new_run(source, layout, sandbox), BlockValidator(careful)


def new_run(source: Source, layout: Layout, sandbox: bool) -> Run:
    """Return a new run of a source. Its dialect says which column is which, for results in the input's own format.

    It also says how many lines there are, so that anybody can compare them with the payouts.
    """
    created_at = now()
    letters = "".join(secrets.choice(_ID_LETTERS) for _ in range(5))
    found = {f"{meaning}_column": header for meaning, header in layout.found().items()}
    if isinstance(source, CountsLines):
        found[DATA_LINES] = str(source.data_lines)
    return Run(
        run_id=f"{text(created_at)[5:7]}{text(created_at)[8:10]}-{letters}",
        name=source.name,
        digest=source.digest,
        columns=tuple(source.columns),
        has_references=layout.has_references,
        created_at=created_at,
        dialect={**source.dialect, **found},
        sandbox=sandbox,
    )


def _default_country(country: str, router: Router) -> str:
    """Return the code of the country whose national numbers are meant."""
    if not country:
        return router.countries[0] if len(router.countries) == 1 else ""
    found = find_country(country)
    if found is None:
        raise ConfigError(
            f"The configuration sets country = “{country}”, which we do not know; write a code such as BF."
        )
    return found.code


# ------------------------------------------------------------------------------------------------------------- intake


async def intake(
    source: Source, journal: Journal, run: Run, validator: BlockValidator, *, on_progress: Observer | None = None
) -> IntakeFindings:
    """Read, validate and record a whole file; end with the run `VALIDATED`.

    Args:
        source: read once, to its end.
        journal: where it is recorded.
        run: as `prepare` made it.
        validator: as `prepare` made it.
        on_progress: told how many lines were validated so far.

    Raises:
        InputError: the input cannot be used, or has no lines. Nothing was recorded.
        JournalError: the journal cannot be used. Nothing was recorded that could be paid.
    """
    findings = IntakeFindings(run.run_id, validator.careful.layout.has_references)
    await journal.begin(run)
    try:
        await _record(source, journal, run, validator, findings, on_progress)
        if findings.lines == 0:
            raise InputError(f"{source.name} has a header and no lines below it.")
        await _hold(journal, run, findings)
        await journal.seal(run.run_id)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _discard(journal, run)
        raise
    return findings


async def _record(
    source: Source,
    journal: Journal,
    run: Run,
    validator: BlockValidator,
    findings: IntakeFindings,
    on_progress: Observer | None,
) -> None:
    """Validate block by block while the journal writes what came before."""
    totals: list[tuple[int, str]] = []
    packer = Packer({one.account: one.traits for one in validator.careful.router.served.values()})
    send, receive = anyio.create_memory_object_stream[Sequence[Chunk]](_WRITES_AHEAD)
    try:
        async with anyio.create_task_group() as tasks, send:
            tasks.start_soon(_write, journal, run.run_id, receive)
            async for block in source.blocks():
                validated = validator.validate(block)
                findings.take(validated)
                totals += validated.totals
                findings.blank_lines += block.blank_lines
                findings.continued_lines += block.continued_lines
                await send.send(packer.add(validated))
                if on_progress is not None:
                    on_progress(LinesRead(findings.lines))
            await send.send(packer.rest())
    except BaseExceptionGroup as group:
        raise _cause(group) from None
    findings.compare_totals(totals)
    if isinstance(source, CountsLines):
        counted = f"{source.data_lines} lines were counted and {findings.data_lines} read"
        assert source.data_lines == findings.data_lines, counted
    recorded = sum(tally.count for tally in await journal.tally(run.run_id))
    assert recorded == findings.lines, f"{findings.lines} lines were read and {recorded} recorded"


async def _write(journal: Journal, run_id: str, receive: MemoryObjectReceiveStream[Sequence[Chunk]]) -> None:
    """Record chunks as they come."""
    async with receive:
        async for chunks in receive:
            if chunks:
                await journal.add(run_id, chunks)


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what went wrong first-hand: our own errors say more than a stream that broke because of them."""
    found = [_cause(error) if isinstance(error, BaseExceptionGroup) else error for error in group.exceptions]
    found.sort(key=lambda error: isinstance(error, anyio.BrokenResourceError))
    found.sort(key=lambda error: not isinstance(error, PayoutEngineError))
    return found[0]


async def _hold(journal: Journal, run: Run, findings: IntakeFindings) -> None:
    """Hold repeats, and move them from one count to the other."""
    decided = await hold_duplicates(journal, run)
    for line, found in decided.held:
        _count(findings.held_by_code, line, found)
    for line, found in decided.warnings:
        _count(findings.warnings_by_code, line, found)
    findings.held += len(decided.held)
    findings.accepted -= len(decided.held)
    assert findings.accepted + findings.rejected + findings.held == findings.lines


async def _discard(journal: Journal, run: Run) -> None:
    """Leave nothing behind. A run that cannot be removed was never approved, and a later start removes it."""
    try:
        await journal.discard(run.run_id)
    except JournalError:
        # The error that brought us here says what is wrong with the journal; this one would only hide it.
        return
