"""The cases: start a stub, let a client process run against it, compare the ledger with the file, make a row.

Nothing heavy happens in this process, so that the client and the stub have a core each. Called by `__main__.py`.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.files import PayoutFile, write_file
from benchmarks.ledger import BATCH_LIMIT, Audit
from benchmarks.measure import Job, Measured

CLIENT_SECONDS_MAX = 1_800
COUNTS = frozenset({"whole", "day", "follow", "accounts", "plan", "floor"})
"""The clients that say themselves how many payouts they saw to their end."""
STUB_SECONDS_MAX = 120
BOUND_REPEATS_MIN = 5

LIMIT = 5
LIMIT_RATE = LIMIT * BATCH_LIMIT
LIMIT_SHARES = {10: 0.98, 40: 0.95}
"""By milliseconds of jitter, the share of the limit that is to be reached."""
NETWORKS_MS = ((10, 0), (40, 0), (40, 40))  # how much later a call may arrive, and its answer
LIMITER_JITTER_MS = 10
LIMIT_CALLS = 306  # a little over a minute at 5 calls per second; an even number of calls for each of two wallets
LIMIT_CALLS_QUICK = 76
LIMITER_CALLS = 55  # ten seconds at 5 calls per second, after a first burst of 5

REQUESTS_LINES = 2_000
HTTPX_LINES = 500

SINGLE_LINES, SINGLE_LINES_QUICK = 40_000, 5_000
BESIDE_LINES = 1_000
OLDER, OLDER_QUICK = 2_000_000, 200_000
ACCOUNTS = 16
POLL_SECONDS = 0.05


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report.

    Attributes:
        case: its name, as in the options.
        title: what was measured.
        lines: payouts.
        measured: by the client process; None when it did not come to its end.
        audit: of the stub's ledger; None where nothing was sent or it could not be asked.
        jitter_ms: how much later a call may arrive, for the documented limit.
        answer_jitter_ms: how much later its answer may.
        accounts: how many paid at once.
        older: transfers that the provider had before.
        problem: why the figures do not count, or empty.
    """

    case: str
    title: str
    lines: int
    measured: Measured | None = None
    audit: Audit | None = None
    jitter_ms: int = 0
    answer_jitter_ms: int = 0
    accounts: int = 1
    older: int = 0
    problem: str = ""

    @property
    def rate(self) -> float:
        """Payouts per second, or 0 for figures that do not count."""
        return 0.0 if self.problem or self.measured is None else self.lines / self.measured.seconds

    @property
    def sending_rate(self) -> float:
        """Payouts per second between the first call and the last, on the server's clock."""
        return 0.0 if self.problem or self.audit is None else self.lines / self.audit.span_seconds

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

    def calls(self) -> int:
        """Ask how many paying calls have arrived."""
        with urllib.request.urlopen(f"{self.base_url}/calls", timeout=STUB_SECONDS_MAX) as answer:
            return int(answer.read())

    def reset(self) -> None:
        """Empty the ledger."""
        request = urllib.request.Request(f"{self.base_url}/reset", data=b"", method="POST")
        urllib.request.urlopen(request, timeout=STUB_SECONDS_MAX).close()


@contextmanager
def stub(*, limit: int = 0, jitter_ms: float = 0, answer_jitter_ms: float = 0, older: int = 0) -> Iterator[Stub]:
    """Run a stub in a process of its own; it ends with the context, or with this process."""
    command = [sys.executable, "-m", "benchmarks.stub", "--limit", str(limit)]
    command += ["--jitter-ms", str(jitter_ms), "--answer-jitter-ms", str(answer_jitter_ms), "--older", str(older)]
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
        self.folder = folder
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
        """Bare aiohttp: what no engine on aiohttp can be faster than."""
        # It is over in a moment, so that noise weighs most here, where it would distort every ratio.
        repeats = max(self._repeats, BOUND_REPEATS_MIN)
        return self._median("bound", "(a) bare aiohttp, ready bodies of 100", "bare", self._line_count, repeats)

    def floor(self) -> Row:
        """What nobody who pays from a file can leave out: each done once, in one thread, with nothing between them."""
        return self._median("floor", "the sum of the parts, one after the other", "floor", self._line_count)

    def engine(self, line_count: int | None = None) -> Row:
        """The whole engine, from the file to the results."""
        repeats = 1 if line_count else self._repeats
        return self._median(
            "engine", "payout_engine, file to results", "whole", line_count or self._line_count, repeats
        )

    def follow(self) -> Row:
        """Following by itself, after everything was sent."""
        return self._median("follow", "payout_engine, sent, then followed", "follow", self._line_count)

    def plan(self, line_count: int | None = None) -> Row:
        """Validating a file without recording it."""
        repeats = 1 if line_count else self._repeats
        return self._median("plan", "payout_engine, plan only", "plan", line_count or self._line_count, repeats)

    def scripts(self) -> Sequence[Row]:
        """What people write today."""
        return [
            self._once("scripts", "requests.post in a loop", "requests", REQUESTS_LINES),
            self._once("scripts", "asyncio + httpx, gather", "httpx", HTTPX_LINES),
        ]

    def single(self) -> Sequence[Row]:
        """One payout in each call, by bare aiohttp and by the engine: with an intent each, and with one for many."""
        count = SINGLE_LINES_QUICK if self._quick else SINGLE_LINES
        return [
            self._median("single", "bare aiohttp, one payout in a call", "bare", count, batch=1),
            self._median("single", "payout_engine, one payout in a call", "whole", count, batch=1),
            self._median("single", "payout_engine, the same where a key pays once", "whole", count, batch=1, once=True),
        ]

    def beside(self, older: int | None = None) -> Sequence[Row]:
        """A small run beside none and beside many older transfers in the provider's list."""
        counts = (0, older or (OLDER_QUICK if self._quick else OLDER))
        title = "payout_engine beside {:,} older transfers"
        return [self._median("beside", title.format(count), "whole", BESIDE_LINES, older=count) for count in counts]

    def crash(self) -> Row:
        """A run that is killed in its middle and begun again: the longest silence on the wire."""
        return self._once("crash", "payout_engine, killed and run again", "again", self._line_count)

    def day(self) -> Row:
        """A day in simulated time: the documented limit, and what is read of the provider's list."""
        return self._once("day", "payout_engine, in simulated time", "day", self._line_count, rate_per_second=LIMIT)

    def documented_limit(self, calls: int | None = None) -> Sequence[Row]:
        """The engine at 5 calls per second, on networks with jitter, as the server's clock sees it."""
        calls = calls or (LIMIT_CALLS_QUICK if self._quick else LIMIT_CALLS)
        return [
            self._once(
                "limit",
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
        """What a plain AsyncLimiter(5, 1) would have done in ten seconds."""
        title = "script: AsyncLimiter(5, 1)"
        return self._once(
            "limit", title, "limiter", calls * BATCH_LIMIT, jitter_ms=LIMITER_JITTER_MS, rate_per_second=LIMIT
        )

    def accounts(self, calls: int | None = None) -> Sequence[Row]:
        """Many accounts at once in one process, each at its own limit."""
        calls = calls or (LIMIT_CALLS_QUICK if self._quick else LIMIT_CALLS)
        lines = ACCOUNTS * calls * BATCH_LIMIT
        title = f"payout_engine, {ACCOUNTS} accounts"
        return [
            self._once(
                "accounts", title, "accounts", lines, jitter_ms=jitter_ms, rate_per_second=LIMIT, accounts=ACCOUNTS
            )
            for jitter_ms in LIMIT_SHARES
        ]

    def profile(self) -> Row:
        """The whole engine under cProfile: its figures are slower than life, its shares are not."""
        return self._once("engine", "payout_engine under cProfile", "whole", self._line_count, profile=True)

    # ------------------------------------------------------------------------------------------------------- running

    def _median(
        self,
        case: str,
        title: str,
        client: str,
        lines: int,
        repeats: int | None = None,
        batch: int = 100,
        older: int = 0,
        once: bool = False,
    ) -> Row:
        runs = range(repeats or self._repeats)
        rows = [self._once(case, title, client, lines, batch=batch, older=older, pays_once=once) for _ in runs]
        invalid = [row for row in rows if row.problem]
        return invalid[0] if invalid else sorted(rows, key=lambda row: -row.rate)[len(rows) // 2]

    def _once(
        self,
        case: str,
        title: str,
        client: str,
        lines: int,
        *,
        jitter_ms: int = 0,
        answer_jitter_ms: int = 0,
        older: int = 0,
        **work: Any,
    ) -> Row:
        """Run a client once against a fresh stub; `work` are further fields of its `Job`."""
        self._say(
            f"({case}) {title}: {lines:,} payouts"
            + (f", jitter {jitter_ms}+{answer_jitter_ms} ms" if jitter_ms else "")
        )
        file = self._file(lines)
        folder = self.folder / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        row = Row(
            case=case,
            title=title,
            lines=lines,
            jitter_ms=jitter_ms,
            answer_jitter_ms=answer_jitter_ms,
            accounts=work.get("accounts", 1),
            older=older,
        )
        try:
            limit = LIMIT if work.get("rate_per_second") else 0
            with stub(limit=limit, jitter_ms=jitter_ms, answer_jitter_ms=answer_jitter_ms, older=older) as server:
                job = Job(
                    case=client, base_url=server.base_url, folder=str(folder), file=str(file.path), lines=lines, **work
                )
                if client == "again":
                    _run_and_kill(msgspec.structs.replace(job, case="whole"), server)
                measured = _run(job)
                audit = measured.audit or server.audit()
            problem = _problem(client, file, measured, audit, folder)
            return msgspec.structs.replace(row, measured=measured, audit=audit, problem=problem)
        except (OSError, ValueError, ClientFailedError) as error:
            return msgspec.structs.replace(row, problem=str(error) or type(error).__name__)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _file(self, line_count: int) -> PayoutFile:
        """Return the file of that length, written once."""
        if line_count not in self._files:
            self._files[line_count] = write_file(self.folder / f"payouts-{line_count}.csv", line_count)
        return self._files[line_count]


class ClientFailedError(Exception):
    """A client process did not come to its end."""


COMMAND = (sys.executable, "-m", "benchmarks.clients")


def _environment(job: Job) -> dict[str, str]:
    # The journals of a benchmark are thrown away, which the user's own memory of journals would not forget.
    # Simulated time belongs to the tests.
    tests = str(Path(__file__).parents[1] / "tests")
    return {**os.environ, "XDG_STATE_HOME": str(Path(job.folder).absolute() / "state"), "PYTHONPATH": tests}


def _run_and_kill(job: Job, server: Stub) -> None:
    """Run a client until half of its calls have arrived, then kill it."""
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=_environment(job)) as process:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        while process.poll() is None and server.calls() < job.lines // job.batch // 2:
            time.sleep(POLL_SECONDS)
        if process.poll() is not None:
            raise ClientFailedError("the client that was to be killed ended before")
        process.kill()


def _run(job: Job) -> Measured:
    try:
        done = subprocess.run(
            COMMAND,
            input=msgspec.json.encode(job),
            capture_output=True,
            timeout=CLIENT_SECONDS_MAX,
            check=False,
            env=_environment(job),
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
    wanted = file.lines, file.amount_minor
    if client in COUNTS and (measured.count, measured.amount_minor) != wanted:
        return f"the engine counted {measured.count:,} payouts of {measured.amount_minor:,}"
    if client in ("plan", "floor"):
        return "" if audit.calls == 0 else f"a {client} sent something"
    if audit.duplicates:
        return f"{audit.duplicates:,} payouts were made twice"
    if client == "again":
        # What was written down and never sent when the process was killed is in doubt, and nowhere in the ledger.
        return _results_problem(audit.count, audit.amount_minor, work)
    if (audit.count, audit.amount_minor) != wanted:
        return f"the ledger holds {audit.count:,} payouts of {audit.amount_minor:,}, not the file's"
    if audit.calls_over_limit:
        return f"{audit.calls_over_limit:,} calls went over the limit"
    return _results_problem(*wanted, work) if client in ("whole", "day") else ""


def _results_problem(lines: int, total_minor: int, work: Path) -> str:
    """Compare the lines that the results say were paid with what is to be found there."""
    count = amount_minor = 0
    with (work / "results" / "results.csv").open(encoding="utf-8-sig", newline="") as results:
        for row in csv.DictReader(results):
            if row["payout_status"] == "paid":
                count += 1
                amount_minor += int(row["amount"])
    agrees = (count, amount_minor) == (lines, total_minor)
    return "" if agrees else f"the results say {count:,} payouts were paid, of {amount_minor:,}"
