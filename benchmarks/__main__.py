"""`python -m benchmarks`: run the cases side by side and say what was found.

The exit code is 1 when a figure does not count. Files are made in a folder of the disk to be measured, and removed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.cases import Bench, Row
from benchmarks.report import Report, machine, show, targets

LINES = 1_000_000
LINES_QUICK = 100_000
LINES_FLATNESS = 10_000_000
CASES: dict[str, Callable[[Bench], Row | Sequence[Row]]] = {
    "bound": Bench.bound,
    "floor": Bench.floor,
    "engine": Bench.engine,
    "follow": Bench.follow,
    "scripts": Bench.scripts,
    "plan": Bench.plan,
    "single": Bench.single,
    "beside": Bench.beside,
    "crash": Bench.crash,
    "day": Bench.day,
    "limit": lambda bench: [*bench.documented_limit(), bench.limiter()],
    "accounts": Bench.accounts,
}


def main() -> int:
    """Run what the options ask for and return the exit code."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 140)
    progress = Console(stderr=True)
    # The locks of the sandboxes' keys stay with the other files, and out of the user's own state.
    os.environ["XDG_STATE_HOME"] = str(options.folder.resolve() / "state")
    bench = Bench(
        options.folder,
        line_count=options.lines or (LINES_QUICK if options.quick else LINES),
        repeats=options.repeats or (1 if options.quick else 3),
        quick=options.quick,
        say=lambda text: progress.print(text, highlight=False, markup=False),
    )
    try:
        rows = [bench.profile()] if options.profile else _rows(bench, options)
    finally:
        bench.clean()
    report = Report(machine(), rows, () if options.profile else targets(rows))
    show(report, console)
    for row in rows:
        if row.measured and row.measured.profile:
            console.print(row.measured.profile, markup=False, highlight=False, soft_wrap=True)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return 1 if any(row.problem for row in rows) else 0


def _rows(bench: Bench, options: argparse.Namespace) -> Sequence[Row]:
    rows: list[Row] = []
    for name in options.only:
        found = CASES[name](bench)
        rows += [found] if isinstance(found, Row) else found
    if options.ten_million:
        rows += [bench.engine(LINES_FLATNESS), bench.plan(LINES_FLATNESS)]
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures payout_engine beside a bare HTTP client and the scripts people write, on this machine.",
        epilog=" ".join(f"{name}: {_meaning(case)}" for name, case in CASES.items())
        + " Example: python -m benchmarks --quick --only bound,engine",
    )
    parser.add_argument("--lines", type=int, help=f"payouts where speed is measured (default {LINES:,})")
    parser.add_argument(
        "--quick", action="store_true", help=f"{LINES_QUICK:,} lines, once, and seconds instead of minutes at a limit"
    )
    parser.add_argument("--repeats", type=int, help="runs of each throughput; the median counts (default 3, quick 1)")
    parser.add_argument("--only", type=_cases, default=list(CASES), help="cases to run, such as bound,engine")
    parser.add_argument(
        "--ten-million", action="store_true", help="also plan and pay ten million lines, to see memory stay flat"
    )
    parser.add_argument("--profile", action="store_true", help="only run the engine, once, under cProfile")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument(
        "--folder", type=Path, default=Path("bench-out"), help="where files are made (default bench-out)"
    )
    return parser.parse_args()


def _meaning(case: Callable[[Bench], object]) -> str:
    return (case.__doc__ or "The engine at its documented limit.").splitlines()[0]


def _cases(text: str) -> Sequence[str]:
    chosen = [name.strip() for name in text.split(",")]
    if unknown := set(chosen) - set(CASES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(CASES)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
