"""What a benchmark run tells people, and machines. Shows no path of this machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.cases import LIMIT_RATE, LIMIT_SHARES, Row
from benchmarks.measure import Phase

LIBRARIES = ("aiohttp", "aiolimiter", "anyio", "apsw", "httpx", "msgspec", "requests", "uvloop")
MEGABYTE = 1_000_000

JOURNEY_RATE_TARGET = 75_000
SCRIPT_MULTIPLE_TARGET = 60
PLAN_RATE_TARGET = 250_000
RESULTS_RATE_TARGET = 400_000
FOLLOW_US_TARGET = 3.0
PEAK_BYTES_TARGET = 100 * MEGABYTE
FLAT_TARGET = 1.2
TARGET_LINES = 1_000_000
BESIDE_SECONDS_TARGET = 2.0
SILENCE_SECONDS_TARGET = 2.0
SINGLE_SHARE_TARGETS = {
    "one payout in a call, of bare aiohttp": 0.3,
    "the same where a key pays once": 0.5,
}
LISTED_BYTES_TARGET = 1_000 * MEGABYTE
LIMIT_CASES = ("limit", "accounts")
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
        if not row.problem:
            by_case.setdefault(row.case, []).append(row)
    return [
        *_journey_targets(by_case.get("engine", []), by_case.get("scripts", [])),
        *_phase_targets(by_case),
        *_memory_targets(by_case.get("engine", [])),
        *_memory_targets(by_case.get("plan", [])),
        *_wire_targets(by_case),
        *_limit_targets(rows),
    ]


def _at_least(text: str, wanted: float, found: float, format: str = ",.0f") -> Target:
    return Target(f"{text}: {wanted:,} or more", found >= wanted, f"{found:{format}}")


def _at_most(text: str, wanted: float, found: float, format: str = ".2f") -> Target:
    return Target(f"{text}: {wanted:,} or less", found <= wanted, f"{found:{format}}")


def _journey_targets(engines: Sequence[Row], scripts: Sequence[Row]) -> Sequence[Target]:
    found = [_at_least("file to results, payouts/s", JOURNEY_RATE_TARGET, row.rate) for row in engines[:1]]
    if engines and scripts:
        multiple = engines[0].rate / scripts[0].rate
        found.append(_at_least("file to results, times the requests loop", SCRIPT_MULTIPLE_TARGET, multiple))
    return found


def _phase_targets(by_case: Mapping[str, Sequence[Row]]) -> Sequence[Target]:
    """What is said of a stage is said of its processor time, which other work on the machine changes least."""
    found = []
    wanted = (("plan", "plan", PLAN_RATE_TARGET), ("engine", "results", RESULTS_RATE_TARGET))
    for case, name, rate in wanted:
        for phase in _phase(by_case.get(case, []), name):
            found.append(_at_least(f"{name}, lines for a second of processor time", rate, 1e6 / phase.cpu_us))
    for phase in _phase(by_case.get("follow", []), "follow"):
        found.append(_at_most("follow, microseconds for a payout", FOLLOW_US_TARGET, phase.cpu_us))
    return found


def _phase(rows: Sequence[Row], name: str) -> Sequence[Phase]:
    """Return the phase of the first row, if there is one and it dealt with payouts."""
    return [phase for row in rows[:1] if row.measured and (phase := row.measured.phases.get(name)) and phase.cpu_us]


def _memory_targets(rows: Sequence[Row]) -> Sequence[Target]:
    found = []
    peaks = [(row, row.measured.peak_bytes) for row in rows if row.measured]
    for row, peak in peaks:
        if row.lines == TARGET_LINES:
            text = f"{row.case}, peak memory in MB at {row.lines:,} lines"
            found.append(_at_most(text, PEAK_BYTES_TARGET // MEGABYTE, peak / MEGABYTE, ".0f"))
    if len(peaks) > 1:
        (one, before), (other, after) = peaks[:2]
        text = f"{one.case}, peak memory at {other.lines:,} lines as a multiple of that at {one.lines:,}"
        found.append(_at_most(text, FLAT_TARGET, after / before))
    return found


def _wire_targets(by_case: Mapping[str, Sequence[Row]]) -> Sequence[Target]:
    found = []
    if len(single := by_case.get("single", [])) == len(SINGLE_SHARE_TARGETS) + 1:
        for row, (text, wanted) in zip(single[1:], SINGLE_SHARE_TARGETS.items(), strict=True):
            found.append(_at_least(text, wanted, row.sending_rate / single[0].sending_rate, ".2f"))
    if len(beside := by_case.get("beside", [])) == 2 and beside[0].measured and beside[1].measured:
        longer = beside[1].measured.seconds - beside[0].measured.seconds
        text = f"{beside[1].lines:,} lines beside {beside[1].older:,} older transfers, seconds longer than beside none"
        found.append(_at_most(text, BESIDE_SECONDS_TARGET, longer))
    for row in by_case.get("crash", []):
        if row.audit:
            text = f"SIGKILL in {row.lines:,} lines to the next call, seconds"
            found.append(_at_most(text, SILENCE_SECONDS_TARGET, row.audit.silence_seconds))
    for row in by_case.get("day", []):
        if row.audit:
            text = f"{row.lines:,} lines at the documented limit, megabytes of list read"
            found.append(_at_most(text, LISTED_BYTES_TARGET // MEGABYTE, row.audit.listed_bytes / MEGABYTE, ",.0f"))
    return found


def _limit_targets(rows: Sequence[Row]) -> Sequence[Target]:
    found = []
    for row in rows:
        if row.case not in LIMIT_CASES or row.audit is None or row.title.startswith("script"):
            continue
        over = row.audit.calls_over_limit
        where = f"{row.accounts} account{'s' * (row.accounts > 1)}, jitter {_jitter(row)} ms:"
        found.append(Target(f"{where} no call over the limit", over == 0, f"{over:,} of {row.audit.calls:,}"))
        if row.answer_jitter_ms:
            continue
        wanted = LIMIT_SHARES[row.jitter_ms]
        text = f"{where} {wanted:.0%} of the limit or better"
        found.append(Target(text, not row.problem and row.share_of_limit >= wanted, f"{row.share_of_limit:.1%}"))
    return found


# -------------------------------------------------------------------------------------------------------- for people


def show(report: Report, console: Console) -> None:
    """Print the report."""
    throughput = [row for row in report.rows if row.case not in LIMIT_CASES]
    limited = [row for row in report.rows if row.case in LIMIT_CASES]
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
    headers = ("", "case", "payouts", "seconds", "payouts/s", "of (a)", "CPU us", "peak MB", "ledger")
    table = _table("Throughput; CPU us: processor time of all threads for one payout", *headers)
    bound = next((row.rate for row in rows if row.case == "bound"), 0.0)
    for row in rows:
        if row.measured is None:
            table.add_row(row.case, row.title, f"{row.lines:,}", "", "", "", "", "", "INVALID")
            continue
        measured = row.measured
        whole = Phase(measured.seconds, measured.cpu_seconds, row.lines)
        peak = _megabytes(measured.peak_bytes)
        table.add_row(row.case, row.title, f"{row.lines:,}", *_pace(whole, bound), peak, _verdict(row))
        for name, phase in _phases(row):
            table.add_row("", f"  {name}", "", *_pace(phase, bound), "", "")
    return table


def _phases(row: Row) -> Sequence[tuple[str, Phase]]:
    """Return the parts of a case, with the sending as the server saw it under the paying it is a part of."""
    phases = []
    for name, phase in row.measured.phases.items() if row.measured else ():
        phases.append((name, phase))
        if name == "pay" and row.audit:
            phases.append(("  of which sending", Phase(row.audit.span_seconds, 0.0, row.lines)))
    return phases


def _pace(phase: Phase, bound: float) -> tuple[str, str, str, str]:
    rate = phase.count / phase.seconds if phase.seconds else 0.0
    cpu = f"{phase.cpu_us:.2f}" if phase.cpu_us else ""
    return f"{phase.seconds:.2f}", f"{rate:,.0f}" if rate else "", f"{rate / bound:.3f}" if bound and rate else "", cpu


def _limit_table(rows: Sequence[Row]) -> Table:
    title = "The documented limit: 5 calls of 100 per second, on the server's clock"
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
            f"{row.share_of_limit * LIMIT_RATE * row.accounts:.1f}",
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
    if row.case in ("plan", "floor"):
        return "nothing sent"
    return "refusals" if row.audit and row.audit.calls_over_limit else "equals file"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / MEGABYTE:.0f}"
