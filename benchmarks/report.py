"""What a benchmark run tells people, and machines. Shows no path of this machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.cases import LIMIT_RATE, Row

LIBRARIES = ("aiohttp", "aiolimiter", "anyio", "apsw", "httpx", "msgspec", "requests", "uvloop")
MEGABYTE = 1_000_000

ENGINE_SHARE_TARGET = 0.5
PLAN_LINES_PER_SECOND_TARGET = 150_000
PEAK_BYTES_TARGET = 150 * MEGABYTE
FLAT_TARGET = 1.2
TARGET_LINES = 1_000_000
LIMIT_SHARE_TARGETS = {10: 0.98, 40: 0.95}
LIMIT_CAPTION = (
    "Jitter: how much later a call may arrive (+ how much later its answer may). 1/(1+jitter) is the most for a sender "
    "who knows nothing but the longest delay; one that learns each call's own delay can do better."
)


class Machine(msgspec.Struct, frozen=True):
    """Where and with what it ran."""

    cores: int
    cpu: str
    system: str
    python: str
    libraries: dict[str, str]
    commit: str

    def __str__(self) -> str:
        libraries = " ".join(f"{name} {number}" for name, number in self.libraries.items())
        return f"{self.cores} cores, {self.cpu}, {self.system}, Python {self.python}, {libraries}, commit {self.commit}"


class Target(msgspec.Struct, frozen=True):
    """One thing to be reached, and what was."""

    text: str
    reached: bool
    found: str


class Report(msgspec.Struct, frozen=True):
    """Everything a run found, for `--json`."""

    machine: Machine
    rows: Sequence[Row]
    targets: Sequence[Target]


def machine() -> Machine:
    """Describe this machine."""
    return Machine(
        cores=os.cpu_count() or 0,
        cpu=_cpu(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        libraries={name: number for name in LIBRARIES if (number := _version(name))},
        commit=_git("rev-parse", "--short", "HEAD") + (" with changes" if _git("status", "--porcelain") else ""),
    )


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _git(*words: str) -> str:
    try:
        return subprocess.run(("git", *words), capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown" if "rev-parse" in words else ""


# ----------------------------------------------------------------------------------------------------------- targets


def targets(rows: Sequence[Row]) -> Sequence[Target]:
    """Compare what counts of `rows` with what is to be reached; what was not measured is left out."""
    by_case: dict[str, list[Row]] = {}
    for row in rows:
        if row.rate:
            by_case.setdefault(row.case, []).append(row)
    found = []
    for bound in by_case.get("a", []):
        for engine in by_case.get("b", []):
            share = engine.rate / bound.rate
            text = f"(b) file to results at {ENGINE_SHARE_TARGET} of (a) or better"
            found.append(Target(text, share >= ENGINE_SHARE_TARGET, f"{share:.3f}"))
    for row in by_case.get("b", []) + by_case.get("e", []):
        if row.measured and row.lines == TARGET_LINES:
            peak = row.measured.peak_bytes
            text = f"({row.case}) peak memory under {PEAK_BYTES_TARGET // MEGABYTE} MB at 1M lines"
            found.append(Target(text, peak < PEAK_BYTES_TARGET, _megabytes(peak)))
    return [*found, *_plan_targets(by_case.get("e", [])), *_limit_targets(rows)]


def _plan_targets(plans: Sequence[Row]) -> Sequence[Target]:
    found = []
    for row in plans[:1]:
        text = f"(e) plan at {PLAN_LINES_PER_SECOND_TARGET:,} lines/s or better"
        found.append(Target(text, row.rate >= PLAN_LINES_PER_SECOND_TARGET, f"{row.rate:,.0f}"))
    if len(plans) > 1 and plans[0].measured and plans[1].measured:
        growth = plans[1].measured.peak_bytes / plans[0].measured.peak_bytes
        text = f"(e) memory flat from {plans[0].lines:,} to {plans[1].lines:,} lines (at most {FLAT_TARGET} times)"
        found.append(Target(text, growth <= FLAT_TARGET, f"{growth:.2f} times"))
    return found


def _limit_targets(rows: Sequence[Row]) -> Sequence[Target]:
    found = []
    for row in rows:
        if row.case != "d" or row.audit is None or row.title.startswith("script"):
            continue
        over = row.audit.calls_over_limit
        where = f"(d) jitter {_jitter(row)} ms:"
        found.append(Target(f"{where} no call over the limit", over == 0, f"{over:,} of {row.audit.calls:,}"))
        if row.answer_jitter_ms:
            continue
        wanted = LIMIT_SHARE_TARGETS[row.jitter_ms]
        text = f"{where} {wanted:.0%} of {LIMIT_RATE} payouts/s or better"
        found.append(Target(text, not row.problem and row.share_of_limit >= wanted, f"{row.share_of_limit:.1%}"))
    return found


# -------------------------------------------------------------------------------------------------------- for people


def show(report: Report, console: Console) -> None:
    """Print the report."""
    throughput = [row for row in report.rows if row.case != "d"]
    limited = [row for row in report.rows if row.case == "d"]
    if throughput:
        console.print(_throughput_table(throughput))
    if limited:
        console.print(_limit_table(limited))
    for row in report.rows:
        if row.problem:
            console.print(f"INVALID ({row.case}) {row.title}: {row.problem}", markup=False)
    for target in report.targets:
        verdict = "reached    " if target.reached else "NOT reached"
        console.print(f"{verdict}  {target.text}: {target.found}", markup=False, soft_wrap=True)
    console.print(str(report.machine), markup=False, soft_wrap=True)


def _table(title: str, *headers: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for header in headers:
        left = header in ("", "case", "ledger")
        table.add_column(header, justify="left" if left else "right", no_wrap=True)
    return table


def _throughput_table(rows: Sequence[Row]) -> Table:
    table = _table("Throughput", "", "case", "payouts", "seconds", "payouts/s", "of (a)", "CPU s", "peak MB", "ledger")
    bound = next((row.rate for row in rows if row.case == "a"), 0.0)
    for row in rows:
        if row.measured is None:
            table.add_row(row.case, row.title, f"{row.lines:,}", "", "", "", "", "", "INVALID")
            continue
        measured = row.measured
        table.add_row(
            row.case,
            row.title,
            f"{row.lines:,}",
            *_pace(row.lines, measured.seconds, 0.0 if row.case == "e" else bound),
            f"{measured.cpu_seconds:.1f}",
            _megabytes(measured.peak_bytes),
            _verdict(row),
        )
        for phase, seconds in _phases(row):
            table.add_row("", f"  {phase}", "", *_pace(row.lines, seconds, bound), "", "", "")
    return table


def _phases(row: Row) -> Sequence[tuple[str, float]]:
    """Return the engine's phases, with the sending as the server saw it under the paying it is a part of."""
    phases = []
    for phase, seconds in row.measured.phases.items() if row.measured else ():
        phases.append((phase, seconds))
        if phase == "pay" and row.audit:
            phases.append(("  of which sending", row.audit.span_seconds))
    return phases


def _pace(lines: int, seconds: float, bound: float) -> tuple[str, str, str]:
    rate = lines / seconds if seconds else 0.0
    return f"{seconds:.2f}", f"{rate:,.0f}", f"{rate / bound:.3f}" if bound else ""


def _limit_table(rows: Sequence[Row]) -> Table:
    title = f"The documented limit: 5 calls of 100 per second, on the server's clock (100 % is {LIMIT_RATE} payouts/s)"
    table = _table(
        title, "", "case", "jitter ms", "calls", "over limit", "seconds", "payouts/s", "share", "1/(1+jitter)", "ledger"
    )
    table.caption = LIMIT_CAPTION
    table.caption_justify = "left"
    for row in rows:
        audit = row.audit
        if audit is None:
            table.add_row(row.case, row.title, _jitter(row), "", "", "", "", "", "", "INVALID")
            continue
        table.add_row(
            row.case,
            row.title,
            _jitter(row),
            f"{audit.calls:,}",
            f"{audit.calls_over_limit:,}",
            f"{audit.span_seconds:.1f}",
            f"{row.share_of_limit * LIMIT_RATE:.1f}",
            f"{row.share_of_limit:.1%}",
            f"{1 / (1 + row.jitter_ms / 1000):.1%}",
            _verdict(row),
        )
    return table


def _jitter(row: Row) -> str:
    return f"{row.jitter_ms}+{row.answer_jitter_ms}" if row.answer_jitter_ms else str(row.jitter_ms)


def _verdict(row: Row) -> str:
    if row.problem:
        return "INVALID"
    if row.case == "e":
        return "nothing sent"
    return "refusals" if row.audit and row.audit.calls_over_limit else "equals file"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / MEGABYTE:.0f}"
