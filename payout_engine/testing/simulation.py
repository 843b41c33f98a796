"""The whole engine, simulated: one life after another, crashes, faults and restarts, until everything is at rest.

    python -m payout_engine.testing.simulation --seeds 1-1000

One seed decides everything: the files, the bank's promises and its faults, and how each life of the engine ends. The
engine is the real one; only its journal is in memory (it survives the lives), its provider speaks to a simulated bank,
and time is virtual. The last lives are without faults; then what `invariants.py` asks for must hold. A failure prints
its seed and everything that happened; the same seed gives the same failure again.
"""

from __future__ import annotations

import argparse
import logging
import math
import random  # noqa: TID251 - this is where a simulation's own generator is seeded
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import anyio
import anyio.abc
import msgspec

from payout_engine import clock
from payout_engine.accounts import Accounts
from payout_engine.engine import Engine
from payout_engine.journal import MemoryJournal
from payout_engine.lifecycle import State
from payout_engine.model import Dispatch
from payout_engine.payments import PaymentStream
from payout_engine.ports import Journal, KeyPromise, LookUpKind, Provider, Traits, Wallet
from payout_engine.settings import AccountSettings, Settings
from payout_engine.testing import virtual_time
from payout_engine.testing.bank import (
    ABSENCE_FINAL_SECONDS,
    HIDDEN_SECONDS_MAX,
    LATE_SECONDS_MAX,
    SETTLING_SECONDS_MAX,
    Bank,
    Fault,
    SimulatedProvider,
)
from payout_engine.testing.crashing import CrashingJournal, CrashingProvider, Fuse, Step
from payout_engine.testing.invariants import broken, open_book
from payout_engine.testing.random_file import RandomFile, random_files

STARTED_AT = 1_800_000_000.0
"""When the simulated world begins, in seconds since 1970."""

CALM_LIVES_MAX = 6
"""Lives without faults after which everything must be at rest."""

CALM_SECONDS = LATE_SECONDS_MAX + HIDDEN_SECONDS_MAX + 2 * SETTLING_SECONDS_MAX
"""After this, whatever was under way at the bank has come to its end."""

STEPS_NAMED = (
    "begin",
    "add",
    "hold",
    "seal",
    "discard",
    "approve",
    "recover",
    "intend",
    "record",
    "apply",
    "open_queries",
    "finish",
    "ready",
    "tally",
    "find_digest",
    "send",
    "look_up",
    "balances",
    "lease",
    "outcomes",
    "repeats",
)
"""Steps at which a life may end."""

WALLETS = (
    Wallet(
        code="orange_bf",
        title="Orange Money",
        country="BF",
        currency="XOF",
        decimals=0,
        operators=("Orange",),
        prefixes=("74",),
        amount_minor_min=100,
    ),
    Wallet(
        code="moov_bf",
        title="Moov Money",
        country="BF",
        currency="XOF",
        decimals=0,
        operators=("Moov Africa",),
        prefixes=("70",),
        amount_minor_min=100,
    ),
)


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """How one life of the engine goes, and ends. Times are in seconds from its beginning; None means: not so.

    Attributes:
        step: it crashes at this step.
        crash_at: it crashes at this time, whatever it is doing.
        stop_at: a person asks it to stop.
        cut_off_at: a person insists.
        leave_at: its caller stops listening and closes the engine.
        follow_for_seconds: how long it follows after the last send.
        listener_seconds: how long its caller takes for each outcome.
        judges_all_first: it judges all files before it pays any.
        balance_share: what the balances are topped up to, as a share of all that is to be paid.
        clock_offset_seconds: how wrong the machine's clock is.
        downtime_seconds: until the next life.
    """

    step: Step | None = None
    crash_at: float | None = None
    stop_at: float | None = None
    cut_off_at: float | None = None
    leave_at: float | None = None
    follow_for_seconds: float = 600.0
    listener_seconds: float = 0.0
    judges_all_first: bool = False
    balance_share: float | None = None
    clock_offset_seconds: float = 0.0
    downtime_seconds: float = 1.0


class Plan(msgspec.Struct, kw_only=True):
    """Everything that a seed decides beforehand."""

    files: Sequence[RandomFile]
    traits: Mapping[str, Traits]
    faults: Mapping[str, Mapping[Fault, float]]
    lives: Sequence[Life]
    commit_seconds: float
    patience_seconds: float


class Report(msgspec.Struct):
    """What came of one seed.

    Attributes:
        violations: what did not hold; empty when all is well.
        trace: what happened.
        lives: how many the engine had.
        crashes: how many ended by a crash.
        counts: payouts by their final state.
        seconds: simulated time.
    """

    seed: int
    violations: list[str]
    trace: list[str]
    lives: int = 0
    crashes: int = 0
    counts: Counter[State] = msgspec.field(default_factory=Counter)
    seconds: float = 0.0


# ------------------------------------------------------------------------------------------------------- what a seed is


def draw_plan(chance: random.Random) -> Plan:
    """Draw a world and its lives."""
    accounts = chance.choice([("bf",), ("bf",), ("orange", "moov")])
    traits = {account: _draw_traits(chance) for account in accounts}
    absence = any(each.absence_final_seconds is not None for each in traits.values())
    return Plan(
        files=random_files(chance),
        traits=traits,
        faults={account: _draw_faults(chance) for account in accounts},
        lives=[_draw_life(chance, absence) for _ in range(chance.choice([1, 2, 3, 4, 6, 8]))],
        commit_seconds=chance.choice([0.0, 0.001, 0.01]),
        patience_seconds=chance.choice([5.0, 20.0, 90.0]),
    )


def _draw_traits(chance: random.Random) -> Traits:
    look_up = chance.choices([LookUpKind.SWEEP, LookUpKind.EACH, LookUpKind.NONE], [5, 4, 1])[0]
    proves_absence = look_up is LookUpKind.EACH and chance.random() < 0.6
    return Traits(
        pays_out=True,
        batch_limit=chance.choice([2, 3, 5, 5, 10, 100]),
        calls_per_second=chance.choice([None, 0.5, 2.0, 5.0, 20.0]),
        concurrency=chance.choice([1, 2, 4, 8]),
        key_promise=chance.choice([KeyPromise.NONE, KeyPromise.NONE, KeyPromise.IDEMPOTENT]),
        key_lifetime_seconds=None,
        look_up=look_up,
        absence_final_seconds=ABSENCE_FINAL_SECONDS if proves_absence else None,
        recipients=("phone",),
    )


def _draw_faults(chance: random.Random) -> Mapping[Fault, float]:
    """Draw which faults happen. Few at a time find more than all at once, which mostly stop the engine early."""
    share = chance.choice([0.0, 0.2, 0.4, 0.8])
    rare = {Fault.ADAPTER, Fault.LOCKED, Fault.REFUSED}
    return {
        fault: chance.choice([0.05, 0.2, 0.5]) * (0.1 if fault in rare else 1.0)
        for fault in Fault
        if chance.random() < share
    }


def _draw_life(chance: random.Random, absence: bool) -> Life:
    """Draw how a life goes. Where absence is proved by age the clock must be right: no provider can know better."""
    common: dict[str, Any] = {
        "follow_for_seconds": chance.choice([0.0, 5.0, 120.0, 600.0]),
        "listener_seconds": chance.choice([0.0, 0.0, 0.0, 2.0]),
        "judges_all_first": chance.random() < 0.3,
        "balance_share": chance.choice([None, 0.2, 0.5, 1.0, 1.0, 1.0]),
        "clock_offset_seconds": 0.0 if absence else chance.choice([0.0, 0.0, -3600.0]),
        "downtime_seconds": chance.choice([0.5, 5.0, 60.0]),
    }
    end = chance.choices(["peace", "step", "named", "time", "stop", "cut_off", "leave"], [4, 5, 5, 3, 1, 1, 1])[0]
    at = math.exp(chance.uniform(math.log(0.05), math.log(60.0)))
    if end == "step":
        number = int(math.exp(chance.uniform(0.0, math.log(400.0))))
        return Life(step=Step(number, chance.random() < 0.5), **common)
    if end == "named":
        number = chance.choice([1, 1, 2, 3, 5, 8])
        return Life(step=Step(number, chance.random() < 0.5, chance.choice(STEPS_NAMED)), **common)
    when = {"time": "crash_at", "stop": "stop_at", "cut_off": "cut_off_at", "leave": "leave_at"}
    if end in when:
        common[when[end]] = at
    return Life(**common)


# ------------------------------------------------------------------------------------------------------------ one seed


class SimulatedAccounts(Accounts):
    """Accounts at simulated banks."""

    def __init__(self, settings: Settings, stack: AsyncExitStack, connections: Mapping[str, Provider]) -> None:
        super().__init__(settings, stack, only=None, sandbox=False)
        self._simulated = connections

    def traits(self, name: str) -> Traits:
        """Return what the bank promises."""
        return self._simulated[name].traits

    def wallets(self, name: str) -> Sequence[Wallet]:
        """Return both wallets of a lone account, or the account's own."""
        return [wallet for wallet in WALLETS if len(self._simulated) == 1 or wallet.code.startswith(name)]

    async def connect(self, name: str) -> Provider:
        """Return the connection of this life."""
        return self._simulated[name]


class Simulation:
    """One seed's world."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._chance = random.Random(f"payout_engine simulation {seed}")
        self._plan = draw_plan(self._chance)
        self._folder = folder
        self._journal = MemoryJournal()
        self._banks: dict[str, Bank] = {}
        self._intents: Counter[str] = Counter()
        self._sends: Counter[str] = Counter()
        self._clock_offset_seconds = 0.0
        self._fuse = Fuse()
        self.report = Report(seed, [], [])
        self._settings = Settings(
            journal=folder / "none.db",
            accounts={account: AccountSettings("simulated") for account in self._plan.traits},
            unknown_patience_seconds=self._plan.patience_seconds,
        )

    async def run(self) -> Report:
        """Live all lives, come to rest, and check."""
        with clock.replaced(lambda: STARTED_AT + anyio.current_time() + self._clock_offset_seconds):
            async with anyio.create_task_group() as world:
                self._open_banks(world)
                for life in self._plan.lives:
                    await self._live(life)
                await self._calm_down()
                await self._check()
                world.cancel_scope.cancel()
        self.report.seconds = anyio.current_time()
        return self.report

    def _open_banks(self, world: anyio.abc.TaskGroup) -> None:
        for account, traits in self._plan.traits.items():
            faults = self._plan.faults[account]
            chance = random.Random(self._chance.random())
            self._banks[account] = Bank(chance, traits, faults, world, self._tell)
            named = ", ".join(f"{fault} {likely:.3g}" for fault, likely in faults.items()) or "no faults"
            self._tell(
                f"account {account}: {traits.look_up}, {traits.key_promise}, {traits.batch_limit} a call; {named}"
            )
        self._top_up(1.0)

    def _top_up(self, share: float) -> None:
        for bank in self._banks.values():
            for wallet in WALLETS:
                total = sum(int(line.amount) for file in self._plan.files for line in file.lines)
                bank.balances_minor[wallet.code] = int(total * share)

    def _tell(self, text: str) -> None:
        self.report.trace.append(f"{anyio.current_time():10.3f}  {text}")

    def _violated(self, text: str) -> None:
        self._tell(f"!! {text}")
        self.report.violations.append(text)

    # -- what is watched while it happens

    def _done(self, name: str, arguments: Sequence[Any], result: Any) -> None:
        """Hear of every call whose work is in the journal."""
        if name == "intend":
            self._intents.update(result.keys)
        if name in ("intend", "record"):
            dispatch: Dispatch = result if name == "intend" else arguments[0]
            lines = ", ".join(str(payout.line) for payout in dispatch.payouts)
            became = "" if name == "intend" else f": {' '.join(receipt.state for receipt in arguments[1])}"
            self._tell(f"journal: {name} lines {lines}{became}")
        elif name == "apply":
            moved = ", ".join(f"{outcome.line} {outcome.status}" for outcome in result.outcomes)
            if moved or result.conflicts:
                self._tell(f"journal: sighted {moved} {' '.join(result.conflicts)}")
        elif name not in ("ready", "tally", "open_queries", "ready_amounts", "find", "runs", "notes"):
            self._tell(f"journal: {name}")

    def _sending(self, dispatch: Dispatch) -> None:
        """Hear of every dispatch before its first byte leaves: its own intent must be in the journal by then."""
        self._sends.update(dispatch.keys)
        lines = [payout.line for payout in dispatch.payouts]
        self._tell(f"send lines {', '.join(map(str, lines))}")
        if any(self._sends[key] > self._intents[key] for key in dispatch.keys):
            self._violated(f"lines {lines} were sent without an intent of their own in the journal")

    # -- lives

    async def _live(self, life: Life) -> None:
        self.report.lives += 1
        self._tell(f"life {self.report.lives}: {life}")
        self._clock_offset_seconds = life.clock_offset_seconds
        if life.balance_share is not None:
            self._top_up(life.balance_share)
        fuse = Fuse(life.step, lambda where: self._tell(f"CRASH {where}"))
        try:
            async with anyio.create_task_group() as process:
                process.start_soon(self._reap, fuse, life.crash_at)
                async with self._engine_type(fuse).open(self._settings) as engine:
                    await self._command(engine, life)
                process.cancel_scope.cancel()
        except BaseException as error:
            if not fuse.dead:
                if not isinstance(error, Exception):
                    raise
                self._violated(f"the engine failed: {error!r}")
        self.report.crashes += fuse.dead
        self._tell(f"life {self.report.lives} ends")
        await anyio.sleep(life.downtime_seconds)

    async def _reap(self, fuse: Fuse, at: float | None) -> None:
        if at is not None:
            await anyio.sleep(at)
            fuse.blow(f"at its time, {at:.3f} s")

    def _engine_type(self, fuse: Fuse) -> type[Engine]:
        """Return the engine with its journal and its connections replaced, and nothing else."""
        wrapped = CrashingJournal(self._journal, fuse, self._plan.commit_seconds, self._done)
        connections = {
            account: CrashingProvider(SimulatedProvider(bank, self._sending), fuse)
            for account, bank in self._banks.items()
        }

        class SimulatedEngine(Engine):
            def __init__(
                self, settings: Settings, accounts: Accounts, tasks: anyio.abc.TaskGroup, stack: AsyncExitStack
            ) -> None:
                super().__init__(settings, SimulatedAccounts(settings, stack, connections), tasks, stack)

            async def journal(self) -> Journal:
                return cast(Journal, wrapped)

        return SimulatedEngine

    async def _command(self, engine: Engine, life: Life) -> None:
        """Give the same command as ever: submit each file, and pay it."""
        submissions = {}
        for file in self._plan.files if life.judges_all_first else ():
            submissions[file.name] = await engine.submit(file)
        for file in self._plan.files:
            submission = submissions.get(file.name) or await engine.submit(file)
            events = self._folder / f"{file.name}.jsonl"
            stream = engine.pay(submission, follow_for_seconds=life.follow_for_seconds, events=events)
            async with anyio.create_task_group() as person:
                person.start_soon(self._interrupt, stream, life)
                await self._listen(stream, life)
                person.cancel_scope.cancel()
            if life.leave_at is not None:
                return

    async def _listen(self, stream: PaymentStream, life: Life) -> None:
        with anyio.CancelScope() as patience:
            patience.deadline = math.inf if life.leave_at is None else anyio.current_time() + life.leave_at
            async for _ in stream:
                await anyio.sleep(life.listener_seconds)

    async def _interrupt(self, stream: PaymentStream, life: Life) -> None:
        if life.stop_at is not None:
            await anyio.sleep(life.stop_at)
            self._tell("a person asks to stop")
            stream.stop()
        if life.cut_off_at is not None:
            await anyio.sleep(life.cut_off_at)
            self._tell("a person cuts it off")
            stream.cut_off()

    # -- the end

    async def _calm_down(self) -> None:
        """Live without faults until nothing moves any more."""
        for bank in self._banks.values():
            bank.calm()
        self._tell("CALM")
        await anyio.sleep(CALM_SECONDS)
        for _ in range(CALM_LIVES_MAX):
            await self._live(Life(balance_share=1.0, downtime_seconds=CALM_SECONDS))
            if not await self._unfinished():
                return

    async def _unfinished(self) -> bool:
        """Whether another life could move something."""
        for run in await self._journal.runs():
            for tally in await self._journal.tally(run.run_id):
                account = self._plan.traits.get(tally.lane.account)
                if tally.state in (State.READY, State.SENDING):
                    return True
                if account is None or account.look_up is LookUpKind.NONE:
                    continue
                if tally.state is State.ACCEPTED or (tally.state is State.UNKNOWN and account.absence_final_seconds):
                    return True
        return False

    async def _check(self) -> None:
        books = []
        for file in self._plan.files:
            runs = [run for run in await self._journal.runs() if run.digest == file.digest]
            if len(runs) != 1:
                self._violated(f"{file.name} has {len(runs)} runs")
                continue
            books.append(await open_book(self._journal, file, runs[0], self._folder / f"{file.name}.jsonl"))
        for violation in broken(books, self._banks):
            self._violated(violation)
        for book in books:
            self.report.counts.update(entry.receipt.state for entry in book.entries)


def simulate(seed: int) -> Report:
    """Simulate one seed from its first life to the last check."""
    with TemporaryDirectory(prefix="simulation-") as folder:
        simulation = Simulation(seed, Path(folder))
        try:
            virtual_time.run(simulation.run())
        except Exception as error:
            simulation.report.violations.append(f"the simulation broke: {error!r}")
        return simulation.report


# --------------------------------------------------------------------------------------------------------- the command


def explain(report: Report) -> str:
    """Return everything about a failure, for a person."""
    command = f"python -m payout_engine.testing.simulation --seeds {report.seed}"
    return "\n".join([f"seed {report.seed}", *report.trace, *(f"!! {text}" for text in report.violations), command])


def _seeds(text: str) -> range:
    """Read `7` or `1-1000`."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate a range of seeds; stop at the first failure and explain it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m payout_engine.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=_seeds("1-200"), help="one seed, or a range such as 1-1000")
    parser.add_argument("--trace", action="store_true", help="show what happened, also when all is well")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    total = Report(0, [], [])
    began_at = time.monotonic()
    for done, seed in enumerate(options.seeds, start=1):
        report = simulate(seed)
        if report.violations:
            sys.stdout.write(f"\n{explain(report)}\n")
            return 1
        if options.trace:
            sys.stdout.write(f"{explain(report)}\n")
        total.lives += report.lives
        total.crashes += report.crashes
        total.seconds += report.seconds
        total.counts.update(report.counts)
        if done % 10 == 0 or done == len(options.seeds):
            sys.stdout.write(f"\r{_progress(total, done, len(options.seeds), time.monotonic() - began_at)}")
            sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def _progress(total: Report, done: int, of: int, seconds: float) -> str:
    counts = ", ".join(f"{count:,} {state}" for state, count in sorted(total.counts.items()))
    return (
        f"{done:,} of {of:,} seeds in {seconds:.0f} s: {total.lives:,} lives, {total.crashes:,} crashes, "
        f"{total.seconds / 3600:,.0f} simulated hours; payouts: {counts}"
    )


if __name__ == "__main__":
    sys.exit(main())
