"""The client side of each case. Runs alone in a process: `python -m benchmarks.clients` with a `Job` on standard input.

The answer, a `Measured`, is the last line of standard output. What is built before the clock starts (bodies, the file)
is the caller's business in real life; everything a payer would wait for is inside.
"""

from __future__ import annotations

import asyncio
import cProfile
import io
import pstats
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import msgspec

from benchmarks.files import Line, lines
from benchmarks.measure import Job, Measured, Stopwatch

CONCURRENCY = 32
BATCH = 100
RATE_OUT_OF_THE_WAY = 1_000_000.0
API_KEY = "sk_test_bench"
HEADERS = {"Content-Type": "application/json", "X-API-KEY": API_KEY}
BULK = "/v1/payment/transfers/bulk/"
TRANSFERS = "/v1/payment/transfers/"
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


def bodies(count: int) -> Iterator[bytes]:
    """Yield the bulk bodies of a file of `count` lines."""
    source = lines(count)
    while batch := list(islice(source, BATCH)):
        yield msgspec.json.encode({"transfers": [order(line) for line in batch]})


# -------------------------------------------------------------------------------------------------------- the bound


async def bare(job: Job) -> Measured:
    """Post bodies built beforehand with nothing but aiohttp: what no engine on aiohttp can be faster than."""
    import aiohttp

    ready = list(bodies(job.lines))
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
async def _engine(job: Job) -> AsyncIterator[Any]:
    from payout_engine.app.engine import Engine
    from payout_engine.app.settings import AccountSettings, Settings

    options: dict[str, Any] = {"base_url": job.base_url, "api_key": API_KEY}
    if job.rate_per_second:
        options["rate_per_second"] = job.rate_per_second
    else:
        options |= {"rate_per_second": RATE_OUT_OF_THE_WAY, "concurrency": CONCURRENCY}
    accounts = {"bench": AccountSettings("senfenico", options)}
    async with Engine.open(Settings(journal=Path(job.folder) / "payouts.db", accounts=accounts)) as engine:
        yield engine


async def whole(job: Job) -> Measured:
    """Judge a file, pay it until every line has settled, write the results: the main job, by the public API."""
    from payout_engine.domain.states import State

    count = amount_minor = 0
    watch = Stopwatch()
    async with _engine(job) as engine:
        submission = await engine.submit(job.file)
        watch.lap("judge")
        stream = engine.pay(submission)
        async for outcome in stream:
            if outcome.status is State.PAID:
                count += 1
                amount_minor += outcome.amount_minor
        watch.lap("pay")
        ending = stream.ending
        await engine.results(submission.run_id, Path(job.folder) / "results")
        watch.lap("results")
    stopped = ending.stops or ending.timed_out or ending.interrupted
    trouble = f"paying ended before its end: {[stop.message for stop in ending.stops]}" if stopped else ""
    return watch.measured(count=count, amount_minor=amount_minor, trouble=trouble)


async def plan(job: Job) -> Measured:
    """Judge a file and record nothing."""
    watch = Stopwatch()
    async with _engine(job) as engine:
        submission = await engine.plan(job.file)
    forecast = submission.forecast
    return watch.measured(count=forecast.count, amount_minor=sum(forecast.totals_minor.values()))


# -------------------------------------------------------------------------------------------------------- the process

CASES: dict[str, Callable[[Job], Any]] = {
    "bare": bare,
    "whole": whole,
    "requests": requests_loop,
    "httpx": httpx_gather,
    "limiter": limiter,
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
