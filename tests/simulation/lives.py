"""The whole engine, simulated: one life after another, crashes, faults and restarts, until everything is at rest.

    make simulate SEEDS=1-1000

One seed decides everything: the files, the bank's promises and its faults, how each life of the engine ends, and who
else is about: a second process with the same commands, people who steer, and people who copy, restore, move or delete
journals. The engine is the real one, and so are its journals, files that each process opens for itself, its locks, and
what the user's keys remember; in some worlds Senfenico's adapter is, too. Only the bank is simulated, and time is
virtual. What `witness.py` watches must hold at every moment. The last lives are without faults, and what a person
stopped is let go on; then what `invariants.py` asks for must hold. A failure prints its seed and everything that
happened; the same seed gives the same failure again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.abc
import msgspec

from payout_engine.app.engine import Engine
from payout_engine.app.settings import AccountSettings, Settings
from payout_engine.domain import clock
from payout_engine.domain.errors import ConfigError, JournalError, JournalFullError
from payout_engine.domain.model import Run
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal, log, reads
from payout_engine.journal.snapshot import snapshot
from payout_engine.journal.writer import InlineWriter
from payout_engine.ports.callbacks import Heard
from payout_engine.ports.journal import Mark
from payout_engine.ports.provider import LookUpKind
from simulation import virtual_time
from simulation.bank import HIDDEN_SECONDS_MAX, LATE_SECONDS_MAX, SETTLING_SECONDS_MAX, STARTED_AT, Bank
from simulation.clerk import Clerk, shows_all
from simulation.crashing import Fuse
from simulation.disk import Disk
from simulation.invariants import Book, broken, events_tell_all, open_book, over_all, untrue
from simulation.mortal import living, mortal_locks
from simulation.people import Person, Visit
from simulation.plans import Life, Plan, Wallets, called_back, draw_plan
from simulation.processes import ABROAD, SHARED, WALLETS, World, open_engine
from simulation.random_file import RandomFile
from simulation.shelf import HOME, Deed, JournalFile, Shelf
from simulation.witness import Witness

FAST_FOLDER = Path("/dev/shm")
"""Where files are memory, on systems that have it: what a simulation writes is gone in a moment."""

CALM_LIVES_MAX = 6
"""Lives without faults after which everything must be at rest."""

CALM_SECONDS = LATE_SECONDS_MAX + HIDDEN_SECONDS_MAX + 2 * SETTLING_SECONDS_MAX
"""After this, whatever was under way at the bank has come to its end."""


WALLETS_OF = {Wallets.OWN: WALLETS, Wallets.SHARED: SHARED, Wallets.ABROAD: ABROAD}


class Report(msgspec.Struct):
    """What came of one seed.

    Attributes:
        violations: what did not hold; empty when all is well.
        trace: what happened.
        lives: how many the engine had.
        crashes: how many ended by a crash.
        counts: payouts by their final state.
        happened: how often each verb of a person, each brake, and each meeting of two processes came to something.
        seconds: simulated time.
    """

    seed: int
    violations: list[str]
    trace: list[str]
    lives: int = 0
    crashes: int = 0
    counts: Counter[State] = msgspec.field(default_factory=Counter)
    happened: Counter[str] = msgspec.field(default_factory=Counter)
    seconds: float = 0.0


# ------------------------------------------------------------------------------------------------------------ one seed


class Simulation:
    """One seed's world; or that of a plan which was not drawn."""

    def __init__(self, seed: int, folder: Path, plan: Plan | None = None) -> None:
        self._chance = random.Random(f"payout_engine simulation {seed}")
        self._plan = plan if plan is not None else draw_plan(self._chance)
        self._clock_offset_seconds = 0.0
        self._booted_at = 0.0
        self._unprotected: set[int] = set()
        self.report = Report(seed, [], [])
        settings = Settings(
            journal=folder / HOME,
            accounts={account: AccountSettings("simulated") for account in self._plan.traits},
            unknown_patience_seconds=self._plan.patience_seconds,
            canary=self._plan.canary,
            max_failure_share=self._plan.max_failure_share,
        )
        self._world = World(
            settings=settings,
            keys=self._plan.keys,
            wallets=WALLETS_OF[self._plan.wallets],
            wired=self._plan.wired,
            banks={},
            disk=Disk(),
            shelf=Shelf(folder, random.Random(self._chance.random()), self._notify),
            witness=Witness(self._notify, self._violated, self._plan.keys),
            commit_seconds=self._plan.commit_seconds,
            calls_back=any(life.calls_at for life in self._plan.lives) and not self._plan.wired,
        )

    async def run(self) -> Report:
        """Live all lives, come to rest, and check."""
        with (
            clock.replaced(lambda: STARTED_AT + anyio.current_time() + self._clock_offset_seconds, self._up),
            self._world.disk.mounted(),
            self._world.shelf.machine(),
            mortal_locks(),
        ):
            async with anyio.create_task_group() as world:
                self._open_banks(world)
                for life in self._plan.lives:
                    await self._live(life)
                await self._calm_down()
                await self._check()
                world.cancel_scope.cancel()
        self.report.seconds = anyio.current_time()
        self.report.happened.update(self._world.witness.happened)
        self.report.happened["a full disk refused"] = self._world.disk.refusals
        return self.report

    def _up(self) -> tuple[str, float]:
        """Return which start of the machine this is, and how long ago it was."""
        return str(self._booted_at), anyio.current_time() - self._booted_at

    def _open_banks(self, world: anyio.abc.TaskGroup) -> None:
        by_key: dict[str, Bank] = {}
        for account, traits in self._plan.traits.items():
            faults, key = self._plan.faults[account], self._plan.keys[account]
            if key not in by_key:
                chance = random.Random(self._chance.random())
                by_key[key] = Bank(chance, traits, faults, world, self._notify)
                by_key[key].wallets = {wallet.code: wallet for wallet in self._world.wallets}
            self._world.banks[account] = by_key[key]
            named = ", ".join(f"{fault} {likely:.3g}" for fault, likely in faults.items()) or "no faults"
            over = " over a wire" if self._plan.wired else ""
            self._notify(
                f"account {account} with key {key}{over}: {traits.look_up}, {traits.key_promise}, "
                f"{traits.batch_limit} a call, balances {self._plan.wallets}; {named}"
            )
        self._top_up(1.0)

    def _top_up(self, share: float) -> None:
        for bank in self._world.banks.values():
            for wallet in self._world.wallets:
                total = sum(int(line.amount) for file in self._plan.files for line in file.lines)
                bank.balances_minor[wallet.balance_name] = int(total * share)

    def _notify(self, text: str) -> None:
        self.report.trace.append(f"{anyio.current_time():10.3f}  {text}")

    def _violated(self, text: str) -> None:
        self._notify(f"!! {text}")
        self.report.violations.append(text)

    # -- lives

    async def _live(self, life: Life) -> None:
        self.report.lives += 1
        self._notify(f"life {self.report.lives}: {life}")
        self._clock_offset_seconds = life.clock_offset_seconds
        self._world.witness.clock_was_ahead |= life.clock_offset_seconds > 0
        if life.restarted:
            self._booted_at = anyio.current_time()
        if life.balance_share is not None:
            self._top_up(life.balance_share)
        for deed in life.deeds:
            self._perform(deed)
        if life.disk_full_after is not None:
            self._world.disk.fill(life.disk_full_after, partial(self._filled, life.disk_full_seconds))
        async with anyio.create_task_group() as everybody:
            everybody.start_soon(self._work, "", life)
            if life.twin is not None:
                everybody.start_soon(self._work, "twin: ", life.twin)
            for number, visit in enumerate(life.visits, start=1):
                everybody.start_soon(self._visit, f"person {number}: ", visit, life)
            if life.keep_at is not None:
                everybody.start_soon(self._keep, life.keep_at)
            if self._world.calls_back and life.calls_at:
                everybody.start_soon(self._call_back, life)
        self._world.disk.empty()
        self._notify(f"life {self.report.lives} ends")
        await anyio.sleep(life.downtime_seconds)

    def _perform(self, deed: Deed) -> None:
        if deed is Deed.LEAVE:
            self._forget()
        self._world.shelf.perform(deed, HOME)
        self.report.happened[deed] += 1

    async def _keep(self, at: float) -> None:
        await anyio.sleep(at)
        self._world.shelf.perform(Deed.KEEP, HOME, in_use=True)

    async def _call_back(self, life: Life) -> None:
        """Store what the banks call about, as a server beside those who pay would."""
        begun_at, chance = anyio.current_time(), random.Random(f"{self.report.seed} {self.report.lives}")
        for at in life.calls_at:
            await anyio.sleep(max(0.0, begun_at + at - anyio.current_time()))
            account = chance.choice(list(self._world.banks))
            taken = [transfer.key for transfer in self._world.banks[account].transfers]
            keys = [*chance.sample(taken, min(len(taken), chance.randint(1, 4))), *chance.choice([[], ["nobody-1-1"]])]
            if not keys or not self._world.shelf.file(life.journal).path.exists():
                continue
            try:
                async with self.journal(life.journal) as journal:
                    stored = await journal.store_callback(account, chance.randbytes(8), Heard(keys))
            except JournalError as error:
                self._notify(f"a call of {account} is not stored: {error}")
                continue
            self._notify(f"{account} calls about {len(keys)} payouts{'' if stored else ', none of them known'}")
            self.report.happened["called back"] += stored

    def _forget(self) -> None:
        """Find out, before only one journal goes to another machine, of which payments nothing can be promised there.

        What it does not know was sent can only be found by asking the provider, and only under keys that it knows.
        """
        witness, file = self._world.witness, self._world.shelf.file(HOME)
        begun, newest = _known(file.path, witness.marks)
        for key, meant in witness.meant.items():
            bank, travels = self._world.banks[meant.account], witness.travels(key)
            if not travels and not any(transfer.key == key and transfer.pays for transfer in bank.transfers):
                continue
            if meant.run_id not in begun or (not newest and (travels or not shows_all(bank))):
                self._unprotected.add(meant.amount_minor)
        file.adopted |= not newest
        witness.marks.clear()

    def _filled(self, seconds: float) -> None:
        self._notify("the disk is full")
        asyncio.get_running_loop().call_later(seconds, self._empty)

    def _empty(self) -> None:
        if self._world.disk.full:
            self._notify("the disk has room again")
            self._world.disk.empty()

    def _clerk(self, name: str, file: JournalFile, life: Life, fuse: Fuse) -> Clerk:
        files = self._plan.files
        return Clerk(name, file, life, fuse, files, self._file_of, self._world, self._notify)

    async def _work(self, name: str, life: Life) -> None:
        """Live the life of a process that gives the usual commands."""
        fuse = Fuse(life.step, lambda where: self._notify(f"{name}CRASH {where}"), life.journal)
        await anyio.sleep(life.begins_at)
        file = self._world.shelf.file(life.journal)
        clerk = self._clerk(name, file, life, fuse)
        await self._process(name, file, fuse, clerk.work, life.crash_at, life.leave_at)

    async def _visit(self, name: str, visit: Visit, life: Life) -> None:
        """Live the life of a process in which a person steers."""
        fuse = Fuse(visit.step, lambda where: self._notify(f"{name}CRASH {where}"), life.journal)

        async def come(engine: Engine) -> None:
            self._notify(f"{name}comes to {visit.errand}")
            clerk = self._clerk(name, file, life, fuse)
            origin = partial(self._file_of, file)
            person = Person(engine, self._world.banks, self._world.witness, origin, clerk.pay, visit)
            self._notify(f"{name}{await person.come()}")

        await anyio.sleep(visit.at)
        file = self._world.shelf.file(life.journal)
        await self._process(name, file, fuse, come)
        if fuse.dead:
            self._world.witness.happened["a person's process died"] += 1

    async def _process(
        self,
        name: str,
        file: JournalFile,
        fuse: Fuse,
        work: Callable[[Engine], Awaitable[None]],
        crash_at: float | None = None,
        leave_at: float | None = None,
    ) -> None:
        """Run one process until its work is done, or it dies, or is left."""
        try:
            with living(fuse):
                async with anyio.create_task_group() as process:
                    process.start_soon(self._reap, fuse, crash_at)
                    async with open_engine(name, fuse, file, self._world) as opened:
                        with anyio.move_on_after(leave_at):
                            await work(opened)
                    process.cancel_scope.cancel()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | anyio.get_cancelled_exc_class()):
                raise
            if _is_full(error):
                self._notify(f"{name}the command fails: the disk is full")
            elif not fuse.dead:
                self._violated(f"{name}the engine failed: {error!r}")
        self.report.crashes += fuse.dead

    async def _reap(self, fuse: Fuse, at: float | None) -> None:
        if at is not None:
            await anyio.sleep(at)
            fuse.blow(f"at its time, {at:.3f} s")

    # -- the end

    async def _calm_down(self) -> None:
        """Live without faults until nothing moves any more, with every journal that is there."""
        for bank in self._world.banks.values():
            bank.calm()
        self._notify("CALM")
        await anyio.sleep(CALM_SECONDS)
        lives_left = CALM_LIVES_MAX
        waiting = self._world.shelf.names() or [HOME]
        says_lost = any(life.says_lost for life in self._plan.lives)
        while waiting and lives_left:
            for name in waiting:
                life = Life(journal=name, resumes_all=True, lifts=True, balance_share=1.0, says_lost=says_lost)
                await self._live(msgspec.structs.replace(life, downtime_seconds=CALM_SECONDS))
            waiting = [name for name in self._world.shelf.names() if not await self._rests(name)]
            lives_left -= 1

    def journal(self, name: str = HOME) -> AbstractAsyncContextManager[SqliteJournal]:
        """Open a journal from outside, as it is at this moment."""
        return SqliteJournal.open(self._world.shelf.file(name).path, writer=InlineWriter)

    async def _rests(self, name: str) -> bool:
        """Whether another life could move or tell nothing in a journal."""
        file = self._world.shelf.file(name)
        async with self.journal(name) as journal:
            for run in await journal.runs():
                if self._file_of(file, run).digest in file.refused:
                    continue
                if await self._moves(journal, run):
                    return False
            # A look-up for one file may have shown something of another, whose events wait for its own next payment.
            return not any(fault for book in await self._books(file, journal) for fault in events_tell_all(book))

    async def _moves(self, journal: SqliteJournal, run: Run) -> bool:
        """Whether another life could move something of a run."""
        for tally in await journal.tally(run.run_id):
            account = self._plan.traits.get(tally.lane.account)
            if tally.state in (State.READY, State.SENDING):
                return True
            if account is None or account.look_up is LookUpKind.NONE:
                continue
            if account.look_up is LookUpKind.REFERENCE:
                if tally.state is State.ACCEPTED and await _named(journal, run, tally.lane.account):
                    return True
                continue
            if tally.state is State.ACCEPTED or (tally.state is State.UNKNOWN and account.absence_final_seconds):
                return True
        return False

    async def _check(self) -> None:
        """Check every journal that is there, and what the banks paid over all that ever were."""
        world, found = self._world, set[str]()
        for name in world.shelf.names():
            file = world.shelf.file(name)
            async with self.journal(name) as journal:
                found |= {self._file_of(file, run).name for run in await journal.runs()}
                found |= {each.name for each in self._plan.files if each.digest in file.refused}
                await self._check_one(file, journal)
        for file_name in [file.name for file in self._plan.files if file.name not in found]:
            self._violated(f"{file_name} has no run")
        for violation in over_all(world.banks, world.witness, self._unprotected):
            self._violated(violation)

    async def _check_one(self, file: JournalFile, journal: SqliteJournal) -> None:
        world = self._world
        end, books = await journal.mark(), await self._books(file, journal, refused=True)
        last = world.witness.marks.get(end.identity) if end is not None else None
        behind = file.adopted or (last is not None and await journal.mark(last.seq) != last)
        whole = [book for book in books if not behind and book.file.digest not in file.refused]
        checks = chain(
            broken(whole, world.banks, file, ages_known=not world.witness.clock_was_ahead),
            untrue([book for book in books if book not in whole], world.banks),
        )
        for violation in checks:
            self._violated(violation)
        for book in books:
            audit = await journal.verify(book.run.run_id)
            for finding in audit.findings:
                self._violated(f"{book.file.name}:{finding.first_line} is not proved: {finding.what}")
            self.report.counts.update(entry.receipt.state for entry in book.entries)

    async def _books(self, file: JournalFile, journal: SqliteJournal, *, refused: bool = False) -> Sequence[Book]:
        """Return the book of every run. A file whose lines all failed is a new attempt, and so a new run.

        Runs that nobody approved are left out where that is how a process that dies may leave them behind: a retry has
        no content by which to find it again, and a file that was validated anew is known as its first run from then on
        when a person retries that one instead. Nothing of them may be sent; `over_all` would see it.
        """
        runs = await journal.runs()
        taken_up = {run.digest for run in runs if run.approved_at is not None}
        return [
            await open_book(journal, origin, run, file.events(run.run_id))
            for run in runs
            if (run.approved_at is not None or not (run.retry_of or run.digest in taken_up))
            and (origin := self._file_of(file, run))
            and (refused or origin.digest not in file.refused)
        ]

    def _file_of(self, file: JournalFile, run: Run) -> RandomFile:
        """Return the file that a run was made from, also by way of a retry."""
        while run.retry_of:
            with snapshot(file.path) as db:
                run = reads.find(db, run.retry_of) or run
        return next(file for file in self._plan.files if file.digest == run.digest)


async def _named(journal: SqliteJournal, run: Run, account: str) -> bool:
    """Whether any accepted payout of an account has a reference of the provider's, by which it can be asked about."""
    async for entries in journal.entries(run.run_id, frozenset({State.ACCEPTED})):
        if any(entry.lane.account == account and entry.receipt.provider_reference for entry in entries):
            return True
    return False


def _known(path: Path, marks: Mapping[str, Mark]) -> tuple[set[str], bool]:
    """Return the runs that a journal's file knows to be begun, and whether no copy of it has sent anything since."""
    try:
        with snapshot(path) as db:
            begun = {run.run_id for run in reads.runs(db) if run.approved_at is not None}
            end = log.mark(db)
            last = marks.get(end.identity) if end is not None else None
            return begun, last is None or log.mark(db, last.seq) == last
    except JournalError:
        return set(), True  # It is missing, or empty.


def _is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full, or is made of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_full(inner) for inner in error.exceptions)
    # The memory of the keys says it in words of its own.
    in_words = isinstance(error, ConfigError | JournalError) and "the disk is full" in str(error)
    return isinstance(error, JournalFullError) or in_words


def simulate(seed: int, *, calls_back: bool = False) -> Report:
    """Simulate one seed from its first life to the last check, perhaps of a world whose banks call back."""
    plan = called_back(random.Random(f"payout_engine simulation that is called {seed}")) if calls_back else None
    with TemporaryDirectory(prefix="simulation-", dir=FAST_FOLDER if FAST_FOLDER.is_dir() else None) as folder:
        simulation = Simulation(seed, Path(folder), plan)
        try:
            virtual_time.run(simulation.run())
        except Exception as error:
            simulation.report.violations.append(f"the simulation broke: {error!r}")
        return simulation.report


SEEDS_FOR_A_FAULT = 100


def seen(damage: str, begin: int = 0, live: Callable[[int], Report] = simulate) -> Report:
    """Return the report of the first seed, of a hundred, in which a planted fault shows by its damage.

    Args:
        damage: a pattern of what is told of it.
        begin: the seed to begin with, such as where it was seen before: that only saves time, all hundred are tried.
        live: simulates a seed.

    Raises:
        AssertionError: it went unseen.
    """
    for seed in (*range(begin, SEEDS_FOR_A_FAULT), *range(begin)):
        report = live(seed)
        for violation in report.violations:
            if re.search(damage, violation):
                print(f"seen by seed {seed}: {violation}")
                return report
    raise AssertionError(f"{damage} went unseen")


# --------------------------------------------------------------------------------------------------------- the command


def explain(report: Report) -> str:
    """Return everything about a failure, for a person."""
    command = f"make simulate SEEDS={report.seed}"
    return "\n".join([f"seed {report.seed}", *report.trace, *(f"!! {text}" for text in report.violations), command])


def _seeds(text: str) -> range:
    """Read `7` or `1-1000`."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate a range of seeds; stop at the first failure and explain it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="PYTHONPATH=tests python -m simulation.lives", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=_seeds("1-200"), help="one seed, or a range such as 1-1000")
    parser.add_argument("--callbacks", action="store_true", help="let the banks call back")
    parser.add_argument("--trace", action="store_true", help="show what happened, also when all is well")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    total = Report(0, [], [])
    began_at, on_screen = time.monotonic(), sys.stdout.isatty()
    for done, seed in enumerate(options.seeds, start=1):
        report = simulate(seed, calls_back=options.callbacks)
        if report.violations:
            sys.stdout.write(f"\n{explain(report)}{' WITH=--callbacks' if options.callbacks else ''}\n")
            return 1
        if options.trace:
            sys.stdout.write(f"{explain(report)}\n")
        total.lives += report.lives
        total.crashes += report.crashes
        total.seconds += report.seconds
        total.counts.update(report.counts)
        if done % (10 if on_screen else 100) == 0 or done == len(options.seeds):
            told = _progress(total, done, len(options.seeds), time.monotonic() - began_at)
            sys.stdout.write(f"\r{told}" if on_screen else f"{told}\n")
            sys.stdout.flush()
    if on_screen:
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
