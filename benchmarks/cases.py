"""The cases: start a stub, let a client process run against it, compare the ledger with the file, make a row.

Nothing heavy happens in this process, so that the client and the stub have a core each. Called by `__main__.py`.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.files import PayoutFile, write_file
from benchmarks.ledger import BATCH_LIMIT, Audit
from benchmarks.measure import Job, Measured

CLIENT_SECONDS_MAX = 1_800
STUB_SECONDS_MAX = 120
BOUND_REPEATS_MIN = 5

LIMIT = 5
LIMIT_RATE = LIMIT * BATCH_LIMIT
NETWORKS_MS = ((10, 0), (40, 0), (40, 40))  # how much later a call may arrive, and its answer
LIMITER_JITTER_MS = 10
LIMIT_CALLS = 306  # a little over a minute at 5 calls per second; an even number of calls for each of two wallets
LIMIT_CALLS_QUICK = 76
LIMITER_CALLS = 55  # ten seconds at 5 calls per second, after a first burst of 5

REQUESTS_LINES = 2_000
HTTPX_LINES = 500


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report.

    Attributes:
        case: `a` to `e`, as in the options.
        title: what was measured.
        lines: payouts.
        measured: by the client process; None when it did not come to its end.
        audit: of the stub's ledger; None where nothing was sent or it could not be asked.
        jitter_ms: how much later a call may arrive, for the documented limit.
        answer_jitter_ms: how much later its answer may.
        problem: why the figures do not count, or empty.
    """

    case: str
    title: str
    lines: int
    measured: Measured | None = None
    audit: Audit | None = None
    jitter_ms: int = 0
    answer_jitter_ms: int = 0
    problem: str = ""

    @property
    def rate(self) -> float:
        """Payouts per second, or 0 for figures that do not count."""
        return 0.0 if self.problem or self.measured is None else self.lines / self.measured.seconds

    @property
    def share_of_limit(self) -> float:
        """Payouts per second on the server's clock, as a share of what the limit allows."""
        if self.audit is None or not self.audit.steady_seconds:
            return 0.0
        return self.audit.steady_count / self.audit.steady_seconds / LIMIT_RATE


class Stub(msgspec.Struct, frozen=True):
    """A running stub."""

    base_url: str

    def audit(self) -> Audit:
        """Ask what the ledger holds."""
        with urllib.request.urlopen(f"{self.base_url}/ledger", timeout=STUB_SECONDS_MAX) as answer:
            return msgspec.json.decode(answer.read(), type=Audit)

    def reset(self) -> None:
        """Empty the ledger."""
        request = urllib.request.Request(f"{self.base_url}/reset", data=b"", method="POST")
        urllib.request.urlopen(request, timeout=STUB_SECONDS_MAX).close()


@contextmanager
def stub(*, limit: int = 0, jitter_ms: float = 0, answer_jitter_ms: float = 0) -> Iterator[Stub]:
    """Run a stub in a process of its own; it ends with the context, or with this process."""
    command = [sys.executable, "-m", "benchmarks.stub", "--limit", str(limit)]
    command += ["--jitter-ms", str(jitter_ms), "--answer-jitter-ms", str(answer_jitter_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Stub(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()
            process.wait(STUB_SECONDS_MAX)


class Bench:
    """The cases, with one folder for everything they write.

    Args:
        folder: on the disk that is to be measured; files in it are replaced.
        line_count: payouts for the cases that measure throughput.
        repeats: how often those run; the run of median length is reported.
        quick: a quarter of a minute instead of a minute for each case of the documented limit.
        say: told what goes on.
    """

    def __init__(
        self, folder: Path, *, line_count: int, repeats: int = 1, quick: bool = False, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._line_count = line_count
        self._repeats = repeats
        self._quick = quick
        self._say = say
        self._files: dict[int, PayoutFile] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def clean(self) -> None:
        """Remove the files that were made."""
        for file in self._files.values():
            file.path.unlink(missing_ok=True)
        self._files.clear()

    def bound(self) -> Row:
        """(a) Bare aiohttp: what no engine on aiohttp can be faster than."""
        # It is over in a moment, so that noise weighs most here, where it would distort every ratio.
        repeats = max(self._repeats, BOUND_REPEATS_MIN)
        return self._duplicated("a", "bare aiohttp, ready bodies of 100", "bare", self._line_count, repeats)

    def engine(self) -> Row:
        """(b) The whole engine, from the file to the results."""
        return self._duplicated("b", "payout_engine, file to results", "whole", self._line_count)

    def scripts(self) -> Sequence[Row]:
        """(c) What people write today."""
        return [
            self._once("c", "script: requests.post in a loop", "requests", REQUESTS_LINES),
            self._once("c", "script: asyncio + httpx, gather", "httpx", HTTPX_LINES),
        ]

    def documented_limit(self, calls: int | None = None) -> Sequence[Row]:
        """(d) The engine at 5 calls per second, on networks with jitter, as the server's clock sees it."""
        calls = calls or (LIMIT_CALLS_QUICK if self._quick else LIMIT_CALLS)
        return [
            self._once(
                "d",
                "payout_engine",
                "whole",
                calls * BATCH_LIMIT,
                jitter_ms=jitter_ms,
                answer_jitter_ms=answer_jitter_ms,
                rate_per_second=LIMIT,
            )
            for jitter_ms, answer_jitter_ms in NETWORKS_MS
        ]

    def limiter(self, calls: int = LIMITER_CALLS) -> Row:
        """(d) What a plain AsyncLimiter(5, 1) would have done in ten seconds."""
        title = "script: AsyncLimiter(5, 1)"
        return self._once(
            "d", title, "limiter", calls * BATCH_LIMIT, jitter_ms=LIMITER_JITTER_MS, rate_per_second=LIMIT
        )

    def plan(self, line_count: int | None = None) -> Row:
        """(e) Judging a file without recording it."""
        count = line_count or self._line_count
        repeats = 1 if line_count else self._repeats
        return self._duplicated("e", "payout_engine, plan only", "plan", count, repeats=repeats)

    def profile(self) -> Row:
        """(b) under cProfile: its figures are slower than life, its shares are not."""
        return self._once("b", "payout_engine under cProfile", "whole", self._line_count, profile=True)

    # ------------------------------------------------------------------------------------------------------- running

    def _duplicated(self, case: str, title: str, client: str, line_count: int, repeats: int | None = None) -> Row:
        rows = [self._once(case, title, client, line_count) for _ in range(repeats or self._repeats)]
        invalid = [row for row in rows if row.problem]
        return invalid[0] if invalid else sorted(rows, key=lambda row: -row.rate)[len(rows) // 2]

    def _once(
        self,
        case: str,
        title: str,
        client: str,
        line_count: int,
        *,
        jitter_ms: int = 0,
        answer_jitter_ms: int = 0,
        rate_per_second: float = 0.0,
        profile: bool = False,
    ) -> Row:
        """Run a client once against a fresh stub."""
        self._say(
            f"({case}) {title}: {line_count:,} payouts"
            + (f", jitter {jitter_ms}+{answer_jitter_ms} ms" if jitter_ms else "")
        )
        file = self._file(line_count)
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        row = Row(case=case, title=title, lines=line_count, jitter_ms=jitter_ms, answer_jitter_ms=answer_jitter_ms)
        try:
            limit = LIMIT if rate_per_second else 0
            with stub(limit=limit, jitter_ms=jitter_ms, answer_jitter_ms=answer_jitter_ms) as server:
                job = Job(
                    case=client,
                    base_url=server.base_url,
                    folder=str(work),
                    file=str(file.path),
                    lines=line_count,
                    rate_per_second=rate_per_second,
                    profile=profile,
                )
                measured = _run(job)
                audit = server.audit()
            problem = _problem(client, file, measured, audit, work)
            return msgspec.structs.replace(row, measured=measured, audit=audit, problem=problem)
        except (OSError, ValueError, ClientFailedError) as error:
            return msgspec.structs.replace(row, problem=str(error) or type(error).__name__)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _file(self, line_count: int) -> PayoutFile:
        """Return the file of that length, written once."""
        if line_count not in self._files:
            self._files[line_count] = write_file(self._folder / f"payouts-{line_count}.csv", line_count)
        return self._files[line_count]


class ClientFailedError(Exception):
    """A client process did not come to its end."""


def _run(job: Job) -> Measured:
    command = [sys.executable, "-m", "benchmarks.clients"]
    # The journals of a benchmark are thrown away, which the user's own memory of journals would not forget.
    environment = {**os.environ, "XDG_STATE_HOME": str(Path(job.folder).absolute() / "state")}
    try:
        done = subprocess.run(
            command,
            input=msgspec.json.encode(job),
            capture_output=True,
            timeout=CLIENT_SECONDS_MAX,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise ClientFailedError(f"took longer than {CLIENT_SECONDS_MAX} s") from None
    if done.returncode:
        said = [line.strip(" |") for line in done.stderr.decode(errors="replace").splitlines()]
        last = next((line for line in reversed(said) if line and not line.startswith("+--")), "no word")
        raise ClientFailedError(f"the client ended with {done.returncode}: {last}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Measured)


# -------------------------------------------------------------------------------------------------- what makes it count


def _problem(client: str, file: PayoutFile, measured: Measured, audit: Audit, work: Path) -> str:
    """Return why the figures do not count, or an empty string."""
    if measured.trouble:
        return measured.trouble
    if client == "limiter":
        return ""  # It is here to be counted going over the limit; refused calls create nothing.
    if client in ("whole", "plan") and (measured.count, measured.amount_minor) != (file.lines, file.amount_minor):
        return f"the engine counted {measured.count:,} payouts of {measured.amount_minor:,}"
    if client == "plan":
        return "" if audit.calls == 0 else "a plan sent something"
    if (audit.count, audit.amount_minor) != (file.lines, file.amount_minor):
        return f"the ledger holds {audit.count:,} payouts of {audit.amount_minor:,}, not the file's"
    if audit.duplicates:
        return f"{audit.duplicates:,} payouts were made twice"
    if audit.calls_over_limit:
        return f"{audit.calls_over_limit:,} calls went over the limit"
    return _results_problem(file, work) if client == "whole" else ""


def _results_problem(file: PayoutFile, work: Path) -> str:
    """Compare the results file with the payout file."""
    count = amount_minor = 0
    with (work / "results" / "results.csv").open(encoding="utf-8-sig", newline="") as results:
        for row in csv.DictReader(results):
            count += row["payout_status"] == "paid"
            amount_minor += int(row["amount"])
    agrees = (count, amount_minor) == (file.lines, file.amount_minor)
    return "" if agrees else f"the results say {count:,} payouts were paid, of {amount_minor:,}"
