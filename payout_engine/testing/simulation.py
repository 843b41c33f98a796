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
import random  # noqa: TID251 - this is where a simulation's own generator is seeded
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from payout_engine.errors import JournalFullError
from payout_engine.journal import MemoryJournal
from payout_engine.lifecycle import State
from payout_engine.model import Dispatch
from payout_engine.payments import PaymentStream
from payout_engine.ports import Journal, LookUpKind, Provider, Traits, Wallet
from payout_engine.settings import AccountSettings, Settings
from payout_engine.testing import virtual_time
from payout_engine.testing.bank import (
    HIDDEN_SECONDS_MAX,
    LATE_SECONDS_MAX,
    SETTLING_SECONDS_MAX,
    Bank,
    SimulatedProvider,
)
from payout_engine.testing.crashing import READS, CrashingJournal, CrashingProvider, Fuse
from payout_engine.testing.invariants import Book, broken, events_tell_all, open_book
from payout_engine.testing.plans import Life, draw_plan

STARTED_AT = 1_800_000_000.0
"""When the simulated world begins, in seconds since 1970."""

CALM_LIVES_MAX = 6
"""Lives without faults after which everything must be at rest."""

CALM_SECONDS = LATE_SECONDS_MAX + HIDDEN_SECONDS_MAX + 2 * SETTLING_SECONDS_MAX
"""After this, whatever was under way at the bank has come to its end."""

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


# ------------------------------------------------------------------------------------------------------------ one seed


class SimulatedAccounts(Accounts):
    """Accounts at simulated banks."""

    def __init__(self, settings: Settings, stack: AsyncExitStack, connections: Mapping[str, Provider]) -> None:
        super().__init__(settings, stack, only=None, sandbox=False)
        self._simulated = connections
        self.keys = {name: name for name in connections}

    def traits(self, name: str) -> Traits:
        """Return what the bank promises."""
        return self._simulated[name].traits

    def wallets(self, name: str) -> Sequence[Wallet]:
        """Return both wallets of a lone account, or the account's own."""
        return [wallet for wallet in WALLETS if len(self._simulated) == 1 or wallet.code.startswith(name)]

    async def locks(self, names: Iterable[str]) -> Mapping[Path, str]:
        """Return none: the journal's leases are all there is in a simulated world."""
        return {}

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
            # A run's id is random, and would make two traces of one seed differ.
            conflicts = " ".join(conflict.partition(", ")[2] for conflict in result.conflicts)
            if moved or conflicts:
                self._tell(f"journal: sighted {moved} {conflicts}")
        elif name not in READS:
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
                process.start_soon(self._fill, fuse, life)
                async with self._engine_type(fuse).open(self._settings) as engine:
                    with anyio.move_on_after(life.leave_at):
                        await self._command(engine, life, fuse)
                process.cancel_scope.cancel()
        except BaseException as error:
            if life.disk_full_at is not None and _says_full(error):
                self._tell(f"the command fails: {error}")
            elif isinstance(error, KeyboardInterrupt | anyio.get_cancelled_exc_class()):
                raise
            elif not fuse.dead:
                self._violated(f"the engine failed: {error!r}")
        self.report.crashes += fuse.dead
        self._tell(f"life {self.report.lives} ends")
        await anyio.sleep(life.downtime_seconds)

    async def _reap(self, fuse: Fuse, at: float | None) -> None:
        if at is not None:
            await anyio.sleep(at)
            fuse.blow(f"at its time, {at:.3f} s")

    async def _fill(self, fuse: Fuse, life: Life) -> None:
        if life.disk_full_at is not None:
            await anyio.sleep(life.disk_full_at)
            self._tell("the disk is full")
            fuse.disk_full = True
            await anyio.sleep(life.disk_full_seconds)
            self._tell("the disk has room again")
            fuse.disk_full = False

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

    async def _command(self, engine: Engine, life: Life, fuse: Fuse) -> None:
        """Give the same command as ever: submit each file, and pay it."""
        submissions = {}
        for file in self._plan.files if life.judges_all_first else ():
            submissions[file.name] = await engine.submit(file)
        paid = set()
        for file in self._plan.files:
            submission = submissions.get(file.name) or await engine.submit(file)
            await self._pay(engine, submission.run_id, life, fuse)
            paid.add(submission.run_id)
        for run in reversed(await self._journal.runs()) if life.resumes_all else ():
            if run.run_id not in paid:
                await self._pay(engine, run.run_id, life, fuse)

    async def _pay(self, engine: Engine, run_id: str, life: Life, fuse: Fuse) -> None:
        stream = engine.pay(run_id, follow_for_seconds=life.follow_for_seconds, events=self._events(run_id))
        fuse.at_death.add(stream.cut_off)
        async with anyio.create_task_group() as person:
            person.start_soon(self._interrupt, stream, life)
            async for _ in stream:
                await anyio.sleep(life.listener_seconds)
            person.cancel_scope.cancel()

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
            await self._live(Life(resumes_all=True, balance_share=1.0, downtime_seconds=CALM_SECONDS))
            if not await self._unfinished() and not await self._untold():
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

    async def _untold(self) -> bool:
        """Whether a look-up for one file showed something of another, whose events wait for its own next payment."""
        books = await self._books()
        return any(violation for book in books for violation in events_tell_all(book))

    async def _check(self) -> None:
        books = await self._books()
        for file in self._plan.files:
            if all(book.file is not file for book in books):
                self._violated(f"{file.name} has no run")
        for violation in broken(books, self._banks):
            self._violated(violation)
        for book in books:
            self.report.counts.update(entry.receipt.state for entry in book.entries)

    async def _books(self) -> Sequence[Book]:
        """Return the book of every run. A file whose lines all failed is a new attempt, and so a new run."""
        files = {file.digest: file for file in self._plan.files}
        return [
            await open_book(self._journal, files[run.digest], run, self._events(run.run_id))
            for run in await self._journal.runs()
        ]

    def _events(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.jsonl"


def _says_full(error: BaseException) -> bool:
    """Whether a full disk, and nothing else, is what a command failed with."""
    if isinstance(error, BaseExceptionGroup):
        return all(_says_full(inner) for inner in error.exceptions)
    return isinstance(error, JournalFullError)


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
