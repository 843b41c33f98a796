"""The client side of each case. Runs alone in a process: `python -m benchmarks.clients` with a `Job` on standard input.

The answer, a `Measured`, is the last line of standard output. What is built before the clock starts (bodies, the file)
is the caller's business in real life; everything a payer would wait for is inside.
"""

from __future__ import annotations

import asyncio
import cProfile
import csv
import io
import pstats
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import msgspec

from benchmarks.files import COUNTRY_DIGITS, Line, lines
from benchmarks.ledger import Ledger, Order, Transfer
from benchmarks.measure import Job, Measured, Stopwatch

CONCURRENCY = 32
BATCH = 100
RATE_OUT_OF_THE_WAY = 1_000_000.0
API_KEY = "sk_test_bench"
HEADERS = {"Content-Type": "application/json", "X-API-KEY": API_KEY}
BULK = "/v1/payment/transfers/bulk/"
TRANSFERS = "/v1/payment/transfers/"
TRANSFERS_LISTED = msgspec.json.Decoder(list[Transfer])
BODIES_IN_A_COMMIT = 16
FOLLOW_SECONDS_AFTER_CRASH = 10
PROFILE_LINES = 25
PROFILED_THREADS_MAX = 2


def order(line: Line) -> dict[str, Any]:
    """Return one transfer as Senfenico's document spells it."""
    return {
        "amount": line.amount,
        "recipient_phone": line.phone,
        "recipient_wallet": line.wallet,
        "ext_id": line.reference,
    }


def bodies(count: int, size: int = BATCH) -> Iterator[bytes]:
    """Yield the bulk bodies of a file of `count` lines, `size` payouts in each."""
    source = lines(count)
    while batch := list(islice(source, size)):
        yield msgspec.json.encode({"transfers": [order(line) for line in batch]})


# -------------------------------------------------------------------------------------------------------- the bound


async def bare(job: Job) -> Measured:
    """Post bodies built beforehand with nothing but aiohttp: what no engine on aiohttp can be faster than."""
    import aiohttp

    ready = list(bodies(job.lines, job.batch))
    waiting = iter(ready)
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(job.base_url, headers=HEADERS, connector=connector) as session:

        async def work() -> None:
            for body in waiting:
                async with session.post(BULK, data=body) as response:
                    await response.read()

        watch = Stopwatch()
        async with anyio.create_task_group() as workers:
            for _ in range(CONCURRENCY):
                workers.start_soon(work)
        return watch.measured(count=job.lines)


def floor(job: Job) -> Measured:
    """Do once, and one after the other, what nobody who pays from a file can leave out; no line is validated.

    Read the rows, encode the bodies, store each body durably before it would be sent, decode the provider's list, write
    a row for each.
    """
    import apsw

    watch, count = Stopwatch(), job.lines
    with Path(job.file).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    watch.lap("read", count)
    ready = [
        msgspec.json.encode({"transfers": [Order(int(row[2]), row[1], "moov_bf", row[0]) for row in few]})
        for few in (rows[start : start + BATCH] for start in range(0, count, BATCH))
    ]
    watch.lap("encode", count)
    with closing(apsw.Connection(str(Path(job.folder) / "floor.db"))) as db:
        db.execute("PRAGMA journal_mode=wal; PRAGMA synchronous=full; CREATE TABLE chunks (body BLOB)").fetchall()
        waiting = iter(ready)
        while few := list(islice(waiting, BODIES_IN_A_COMMIT)):
            with db:
                db.executemany("INSERT INTO chunks VALUES (?)", [(body,) for body in few])
    watch.lap("store durably", count)
    ledger = Ledger()
    for body in ready:
        ledger.arrive(0.0)
        ledger.take(body)
    listed = [b"[%b]" % piece.removeprefix(b", ") for piece in ledger.listed()]
    watch.lap("(what the provider does)", 0)
    amount_minor = sum(transfer.amount for piece in listed for transfer in TRANSFERS_LISTED.decode(piece))
    watch.lap("decode", count)
    with (Path(job.folder) / "floor.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([*row, "paid", "bench"] for row in rows)
    watch.lap("write", count)
    done = watch.measured(count=count, amount_minor=amount_minor)
    ours = [phase for phase in done.phases.values() if phase.count]
    seconds, cpu_seconds = sum(phase.seconds for phase in ours), sum(phase.cpu_seconds for phase in ours)
    return msgspec.structs.replace(done, seconds=seconds, cpu_seconds=cpu_seconds)


# ------------------------------------------------------------------------------------------- what people write today


def requests_loop(job: Job) -> Measured:
    """Pay one by one with `requests.post`, as the first script anybody writes does."""
    import requests

    payouts = [order(line) for line in lines(job.lines)]
    watch = Stopwatch()
    for payout in payouts:
        requests.post(job.base_url + TRANSFERS, json=payout, headers=HEADERS, timeout=60)
    return watch.measured(count=job.lines)


async def httpx_gather(job: Job) -> Measured:
    """Pay one by one with httpx, all at once, as the second script does."""
    import httpx

    payouts = [order(line) for line in lines(job.lines)]
    watch = Stopwatch()
    async with httpx.AsyncClient(base_url=job.base_url, headers=HEADERS, timeout=600) as client:
        await asyncio.gather(*(client.post(TRANSFERS, json=payout) for payout in payouts))
    return watch.measured(count=job.lines)


async def limiter(job: Job) -> Measured:
    """Keep to the limit as a reader of aiolimiter's first example would: `AsyncLimiter(5, 1)` around each call."""
    import aiohttp
    from aiolimiter import AsyncLimiter

    five_per_second = AsyncLimiter(5, 1)
    async with aiohttp.ClientSession(job.base_url, headers=HEADERS) as session:

        async def call(body: bytes) -> None:
            async with five_per_second, session.post(BULK, data=body) as response:
                await response.read()

        watch = Stopwatch()
        await asyncio.gather(*(call(body) for body in bodies(job.lines)))
        return watch.measured(count=job.lines)


# ------------------------------------------------------------------------------------------------------- the engine


@asynccontextmanager
async def _engine(job: Job, number: int = 0) -> AsyncIterator[Any]:
    """Open an engine with an account of its own; those of one folder share a journal."""
    from payout_engine.app.engine import Engine
    from payout_engine.app.settings import AccountSettings, Settings

    options: dict[str, Any] = {"base_url": job.base_url, "api_key": API_KEY + str(number or "")}
    options |= {"batch_limit": job.batch, "rate_per_second": job.rate_per_second or RATE_OUT_OF_THE_WAY}
    if not job.rate_per_second:
        options["concurrency"] = CONCURRENCY
    accounts = {f"bench{number or ''}": AccountSettings("senfenico", options)}
    if job.pays_once:
        _promise_that_a_key_pays_once()
    async with Engine.open(Settings(journal=Path(job.folder) / "payouts.db", accounts=accounts)) as engine:
        yield engine


def _promise_that_a_key_pays_once() -> None:
    """Let Senfenico's adapter say so in this process: the same bodies, as if it promised that."""
    from payout_engine.ports.provider import KeyPromise, Provider, Traits
    from payout_engine.ports.registration import Account
    from payout_engine.providers import senfenico

    pays = senfenico.REGISTRATION.pays
    assert pays is not None

    def traits(options: Mapping[str, Any]) -> Traits:
        return msgspec.structs.replace(pays.traits(options), key_promise=KeyPromise.IDEMPOTENT)

    def connect(account: Account) -> Provider:
        provider = pays.connect(account)
        provider.traits = traits(account.options)
        return provider

    face = msgspec.structs.replace(pays, traits=traits, connect=connect)
    senfenico.REGISTRATION = msgspec.structs.replace(senfenico.REGISTRATION, pays=face)


class Paid:
    """What streams of outcomes said was paid."""

    def __init__(self) -> None:
        self.count = self.amount_minor = 0
        self.trouble = ""

    async def take(self, stream: Any) -> None:
        """Go through a stream to its end."""
        from payout_engine.domain.states import State

        async for outcome in stream:
            if outcome.status is State.PAID:
                self.count += 1
                self.amount_minor += outcome.amount_minor
        ending = stream.ending
        if ending.stops or ending.timed_out or ending.interrupted:
            self.trouble = f"paying ended before its end: {[stop.message for stop in ending.stops]}"


async def whole(job: Job) -> Measured:
    """Validate a file, pay it until every line has settled, write the results: the main job, by the public API.

    The proof by `verify` comes after the clock was stopped; the peak memory is that of both.
    """
    watch, paid = Stopwatch(), Paid()
    async with _engine(job) as engine:
        submission = await engine.submit(job.file)
        watch.lap("validate", job.lines)
        await paid.take(engine.pay(submission))
        watch.lap("pay", job.lines)
        await engine.results(submission.run_id, Path(job.folder) / "results")
        watch.lap("results", job.lines)
        watch.stop()
        proof = await engine.verify(submission.run_id)
        watch.lap("verify", job.lines)
    trouble = paid.trouble or ("" if proof.proven else f"verify has {proof.found} findings")
    return watch.measured(count=paid.count, amount_minor=paid.amount_minor, trouble=trouble)


async def again(job: Job) -> Measured:
    """Finish what a process that was killed has begun: the same command once more."""
    watch, paid = Stopwatch(), Paid()
    async with _engine(job) as engine:
        submission = await engine.submit(job.file)
        await paid.take(engine.pay(submission, follow_for_seconds=FOLLOW_SECONDS_AFTER_CRASH))
        await engine.results(submission.run_id, Path(job.folder) / "results")
    # What a crash left between its durable intent and the wire stays unknown, so that the time for following may end.
    return watch.measured(count=paid.count, amount_minor=paid.amount_minor)


async def follow(job: Job) -> Measured:
    """Send everything and stop, then begin again, to see what only following costs."""
    watch, sent, followed = Stopwatch(), Paid(), Paid()
    async with _engine(job) as engine:
        submission = await engine.submit(job.file)
        watch.lap("validate", job.lines)
        await sent.take(engine.pay(submission, follow_for_seconds=0))
        watch.lap("send", job.lines)
        await followed.take(engine.pay(submission, send=False))
        watch.lap("follow", followed.count)
    count, amount_minor = sent.count + followed.count, sent.amount_minor + followed.amount_minor
    return watch.measured(count=count, amount_minor=amount_minor, trouble=followed.trouble)


async def accounts(job: Job) -> Measured:
    """Pay from many accounts at once in one process and one journal, each its share of the lines."""
    from payout_engine import Payout

    source = lines(job.lines)
    watch, paid = Stopwatch(), Paid()
    async with AsyncExitStack() as engines:
        streams = []
        for number in range(1, job.accounts + 1):
            engine = await engines.enter_async_context(_engine(job, number))
            share = islice(source, job.lines // job.accounts)
            payouts = [Payout(line.reference, line.amount, phone=COUNTRY_DIGITS + line.phone) for line in share]
            streams.append(engine.pay(await engine.submit(payouts)))
        watch.lap("validate", job.lines)
        async with anyio.create_task_group() as tasks:
            for stream in streams:
                tasks.start_soon(paid.take, stream)
        watch.lap("pay", job.lines)
    return watch.measured(count=paid.count, amount_minor=paid.amount_minor, trouble=paid.trouble)


def day(job: Job) -> Measured:
    """Pay a file at the documented limit in simulated time, and count what is read of the list."""
    from simulation import virtual_time

    from benchmarks import day

    ledger = Ledger(limit=int(job.rate_per_second), settles_after_seconds=day.SETTLES_AFTER_SECONDS)
    with day.simulated(ledger):
        measured: Measured = virtual_time.run(whole(job))
    return msgspec.structs.replace(measured, audit=ledger.audit())


async def plan(job: Job) -> Measured:
    """Validate a file and record nothing."""
    watch = Stopwatch()
    async with _engine(job) as engine:
        submission = await engine.plan(job.file)
    watch.lap("plan", job.lines)
    forecast = submission.forecast
    return watch.measured(count=forecast.count, amount_minor=sum(forecast.totals_minor.values()))


# -------------------------------------------------------------------------------------------------------- the process

CASES: dict[str, Callable[[Job], Any]] = {
    "bare": bare,
    "floor": floor,
    "whole": whole,
    "again": again,
    "follow": follow,
    "accounts": accounts,
    "requests": requests_loop,
    "httpx": httpx_gather,
    "limiter": limiter,
    "day": day,
    "plan": plan,
}


def run(job: Job) -> Measured:
    """Run a case: plainly if it is a plain function, else on uvloop, whose waiting no profiler sees."""
    case = CASES[job.case]
    if not asyncio.iscoroutinefunction(case):
        measured = case(job)
    else:
        measured = anyio.run(partial(case, job), backend_options={"use_uvloop": not job.profile and _has_uvloop()})
    assert isinstance(measured, Measured)
    return measured


def profiled(job: Job) -> Measured:
    """Run a case under cProfile and say where the time went: on the event loop's thread, then on the busiest others."""
    threads = _profile_threads()
    profiler = cProfile.Profile()
    measured = profiler.runcall(run, job)
    longest = sorted(threads, key=lambda thread: -thread[0])[:PROFILED_THREADS_MAX]
    parts = [f"The event loop's thread\n{_shares(profiler)}"]
    parts += [f"Thread {name}, {seconds:.1f} s of processor time\n{_shares(found)}" for seconds, name, found in longest]
    return msgspec.structs.replace(measured, profile="\n".join(parts))


def _shares(profiler: cProfile.Profile) -> str:
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
    return text.getvalue().strip()


def _profile_threads() -> list[tuple[float, str, cProfile.Profile]]:
    """Profile every thread that starts from now on; return a list that fills as they end."""
    ended: list[tuple[float, str, cProfile.Profile]] = []
    plain_run = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        profiler = cProfile.Profile()
        try:
            profiler.enable()
        except ValueError:  # Python 3.12 and later profile one thread at a time.
            plain_run(thread)
            return
        try:
            plain_run(thread)
        finally:
            profiler.disable()
            ended.append((time.thread_time(), thread.name, profiler))

    threading.Thread.run = run  # type: ignore[method-assign, assignment]
    return ended


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401 - asked for its presence only
    except ImportError:
        return False
    return True


def main() -> None:
    """Read the job, run it, and print what was measured."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    measured = profiled(job) if job.profile else run(job)
    print(msgspec.json.encode(measured).decode())


if __name__ == "__main__":
    main()
