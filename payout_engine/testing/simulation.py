"""The whole engine, simulated: one life after another, crashes, faults and restarts, until everything is at rest.

    python -m payout_engine.testing.simulation --seeds 1-1000

One seed decides everything: the files, the bank's promises and its faults, how each life of the engine ends, and who
else is about: a second process with the same commands, and people who steer. The engine is the real one, and so are its
journal, a file that each process opens for itself, and the locks beside it; only its provider speaks to a simulated
bank, and time is virtual. What
`witness.py` watches must hold at every moment. The last lives are without faults, and what a person stopped is let go
on; then what `invariants.py` asks for must hold. A failure prints its seed and everything that happened; the same seed
gives the same failure again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random  # noqa: TID251 - this is where a simulation's own generator is seeded
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.abc
import msgspec

from payout_engine import clock
from payout_engine.engine import Engine
from payout_engine.errors import JournalBusyError, JournalFullError, UnansweredError
from payout_engine.journal import SqliteJournal, reading
from payout_engine.journal.glance import snapshot
from payout_engine.journal.writer import InlineWriter
from payout_engine.lifecycle import State
from payout_engine.model import Run
from payout_engine.payments import PaymentStream, alone
from payout_engine.settings import AccountSettings, Settings
from payout_engine.submission import Submission
from payout_engine.testing import virtual_time
from payout_engine.testing.bank import HIDDEN_SECONDS_MAX, LATE_SECONDS_MAX, SETTLING_SECONDS_MAX, Bank
from payout_engine.testing.crashing import Fuse
from payout_engine.testing.disk import Disk
from payout_engine.testing.invariants import Book, broken, events_tell_all, open_book
from payout_engine.testing.people import Person, Visit
from payout_engine.testing.plans import Life, Plan, draw_plan
from payout_engine.testing.processes import WALLETS, open_engine
from payout_engine.testing.random_file import RandomFile
from payout_engine.testing.witness import Witness
from payout_engine.traits import LookUpKind

STARTED_AT = 1_800_000_000.0
"""When the simulated world begins, in seconds since 1970."""

FAST_FOLDER = Path("/dev/shm")
"""Where files are memory, on systems that have it: what a simulation writes is gone in a moment."""

CALM_LIVES_MAX = 6
"""Lives without faults after which everything must be at rest."""

CALM_SECONDS = LATE_SECONDS_MAX + HIDDEN_SECONDS_MAX + 2 * SETTLING_SECONDS_MAX
"""After this, whatever was under way at the bank has come to its end."""


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
        self._folder = folder
        self._banks: dict[str, Bank] = {}
        self._clock_offset_seconds = 0.0
        self._booted_at = 0.0
        self._disk = Disk()
        self.report = Report(seed, [], [])
        self._witness = Witness(self._tell, self._violated)
        self._settings = Settings(
            journal=folder / "payouts.db",
            accounts={account: AccountSettings("simulated") for account in self._plan.traits},
            unknown_patience_seconds=self._plan.patience_seconds,
            canary=self._plan.canary,
            max_failure_share=self._plan.max_failure_share,
        )

    async def run(self) -> Report:
        """Live all lives, come to rest, and check."""
        with (
            clock.replaced(lambda: STARTED_AT + anyio.current_time() + self._clock_offset_seconds, self._up),
            self._disk.mounted(),
        ):
            async with anyio.create_task_group() as world:
                self._open_banks(world)
                for life in self._plan.lives:
                    await self._live(life)
                await self._calm_down()
                async with self.journal() as journal:
                    await self._check(journal)
                world.cancel_scope.cancel()
        self.report.seconds = anyio.current_time()
        self.report.happened.update(self._witness.happened)
        self.report.happened["a full disk refused"] = self._disk.refusals
        return self.report

    def _up(self) -> tuple[str, float]:
        """Return which start of the machine this is, and how long ago it was."""
        return str(self._booted_at), anyio.current_time() - self._booted_at

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

    # -- lives

    async def _live(self, life: Life) -> None:
        self.report.lives += 1
        self._tell(f"life {self.report.lives}: {life}")
        self._clock_offset_seconds = life.clock_offset_seconds
        self._witness.clock_was_ahead |= life.clock_offset_seconds > 0
        if life.restarted:
            self._booted_at = anyio.current_time()
        if life.balance_share is not None:
            self._top_up(life.balance_share)
        if life.disk_full_after is not None:
            self._disk.fill(life.disk_full_after, partial(self._filled, life.disk_full_seconds))
        async with anyio.create_task_group() as everybody:
            everybody.start_soon(self._work, "", life)
            if life.twin is not None:
                everybody.start_soon(self._work, "twin: ", life.twin)
            for number, visit in enumerate(life.visits, start=1):
                everybody.start_soon(self._visit, f"person {number}: ", visit, life)
        self._disk.empty()
        self._tell(f"life {self.report.lives} ends")
        await anyio.sleep(life.downtime_seconds)

    def _filled(self, seconds: float) -> None:
        self._tell("the disk is full")
        asyncio.get_running_loop().call_later(seconds, self._empty)

    def _empty(self) -> None:
        if self._disk.full:
            self._tell("the disk has room again")
            self._disk.empty()

    async def _work(self, name: str, life: Life) -> None:
        """Live the life of a process that gives the usual commands."""
        fuse = Fuse(life.step, lambda where: self._tell(f"{name}CRASH {where}"))
        await anyio.sleep(life.begins_at)
        await self._process(name, fuse, partial(self._commands, life, fuse, name), life.crash_at, life.leave_at)

    async def _visit(self, name: str, visit: Visit, life: Life) -> None:
        """Live the life of a process in which a person steers."""
        fuse = Fuse(visit.step, lambda where: self._tell(f"{name}CRASH {where}"))

        async def pay(engine: Engine, run: Submission | Run) -> None:
            await self._pay(engine, run, life, fuse)

        async def come(engine: Engine) -> None:
            self._tell(f"{name}comes to {visit.errand}")
            person = Person(engine, self._banks, self._witness, self._file_of, pay, visit)
            self._tell(f"{name}{await person.come()}")

        await anyio.sleep(visit.at)
        await self._process(name, fuse, come)
        if fuse.dead:
            self._witness.happened["a person's process died"] += 1

    async def _process(
        self,
        name: str,
        fuse: Fuse,
        work: Callable[[Engine], Awaitable[None]],
        crash_at: float | None = None,
        leave_at: float | None = None,
    ) -> None:
        """Run one process until its work is done, or it dies, or is left."""
        engine = open_engine(
            name, fuse, self._settings, self._disk, self._banks, self._witness, self._plan.commit_seconds
        )
        try:
            async with anyio.create_task_group() as process:
                process.start_soon(self._reap, fuse, crash_at)
                async with engine as opened:
                    with anyio.move_on_after(leave_at):
                        await work(opened)
                process.cancel_scope.cancel()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | anyio.get_cancelled_exc_class()):
                raise
            if _is(error, JournalFullError):
                self._tell(f"{name}the command fails: the disk is full")
            elif not fuse.dead:
                self._violated(f"{name}the engine failed: {error!r}")
        self.report.crashes += fuse.dead

    async def _reap(self, fuse: Fuse, at: float | None) -> None:
        if at is not None:
            await anyio.sleep(at)
            fuse.blow(f"at its time, {at:.3f} s")

    async def _commands(self, life: Life, fuse: Fuse, name: str, engine: Engine) -> None:
        """Give the usual commands, and give them again while another process is in the way."""
        alone_here = not (name or life.twin or life.visits)
        for left in reversed(range(life.tries)):
            try:
                await self._command(engine, life, fuse)
                return
            except JournalBusyError:
                if alone_here:
                    raise
                self._tell(f"{name}meets another process")
                self._witness.happened["two processes met"] += 1
            if left:
                await anyio.sleep(life.try_again_seconds)

    async def _command(self, engine: Engine, life: Life, fuse: Fuse) -> None:
        """Give the same command as ever: submit each file, and pay it."""
        submissions = {}
        for file in self._plan.files if life.judges_all_first else ():
            submissions[file.name] = await engine.submit(file, wait=life.waits)
        paid = set()
        for file in reversed(self._plan.files) if life.backwards else self._plan.files:
            submission = submissions.get(file.name) or await engine.submit(file, wait=life.waits)
            await self._pay(engine, submission, life, fuse)
            paid.add(submission.run_id)
        for run in reversed(await engine.runs()) if life.resumes_all else ():
            if run.run_id not in paid and run.approved_at is not None:
                await self._pay(engine, run, life, fuse)

    async def _pay(self, engine: Engine, run: Submission | Run, life: Life, fuse: Fuse) -> None:
        if life.lifts and (await engine.run(run.run_id)).approved_at is not None:
            await engine.lift(run.run_id)
        stream = engine.pay(
            run, follow_for_seconds=life.follow_for_seconds, events=self._events(run.run_id), wait=life.waits
        )
        fuse.at_death[stream.cut_off] = None
        try:
            async with anyio.create_task_group() as person:
                person.start_soon(self._interrupt, stream, life)
                async for _ in stream:
                    await anyio.sleep(life.listener_seconds)
                person.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = alone(group)
            unpaid = isinstance(error, JournalBusyError | UnansweredError)
            if unpaid and isinstance(run, Submission) and not run.known:
                # So do the commands: what cannot be paid now was not approved, and is not kept.
                await (await engine.journal()).discard(run.run_id)
            if not isinstance(error, UnansweredError):
                raise error from None
            self._tell("the provider cannot say what it already has")
            self._witness.happened["not answered"] += 1

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
            await self._live(Life(resumes_all=True, lifts=True, balance_share=1.0, downtime_seconds=CALM_SECONDS))
            async with self.journal() as journal:
                if not await self._unfinished(journal) and not await self._untold(journal):
                    return

    def journal(self) -> AbstractAsyncContextManager[SqliteJournal]:
        """Open the journal from outside, as it is at this moment."""
        return SqliteJournal.open(self._settings.journal, writer=InlineWriter)

    async def _unfinished(self, journal: SqliteJournal) -> bool:
        """Whether another life could move something."""
        for run in await journal.runs():
            for tally in await journal.tally(run.run_id):
                account = self._plan.traits.get(tally.lane.account)
                if tally.state in (State.READY, State.SENDING):
                    return True
                if account is None or account.look_up is LookUpKind.NONE:
                    continue
                if tally.state is State.ACCEPTED or (tally.state is State.UNKNOWN and account.absence_final_seconds):
                    return True
        return False

    async def _untold(self, journal: SqliteJournal) -> bool:
        """Whether a look-up for one file showed something of another, whose events wait for its own next payment."""
        books = await self._books(journal)
        return any(violation for book in books for violation in events_tell_all(book))

    async def _check(self, journal: SqliteJournal) -> None:
        books = await self._books(journal)
        for file in self._plan.files:
            if all(book.file is not file for book in books):
                self._violated(f"{file.name} has no run")
        for violation in broken(books, self._banks, self._witness):
            self._violated(violation)
        for book in books:
            audit = await journal.verify(book.run.run_id)
            for finding in audit.findings:
                self._violated(f"{book.file.name}:{finding.first_line} is not proved: {finding.what}")
            self.report.counts.update(entry.receipt.state for entry in book.entries)

    async def _books(self, journal: SqliteJournal) -> Sequence[Book]:
        """Return the book of every run. A file whose lines all failed is a new attempt, and so a new run.

        Runs that nobody approved are left out where that is how a process that dies may leave them behind: a retry has
        no content by which to find it again, and a file that was judged anew is known as its first run from then on
        when a person retries that one instead. Nothing of them may be sent; `nothing_else_is_paid` would see it.
        """
        runs = await journal.runs()
        taken_up = {run.digest for run in runs if run.approved_at is not None}
        return [
            await open_book(journal, self._file_of(run), run, self._events(run.run_id))
            for run in runs
            if run.approved_at is not None or not (run.retry_of or run.digest in taken_up)
        ]

    def _file_of(self, run: Run) -> RandomFile:
        """Return the file that a run was made from, also by way of a retry."""
        while run.retry_of:
            with snapshot(self._settings.journal) as db:
                run = reading.find(db, run.retry_of) or run
        return next(file for file in self._plan.files if file.digest == run.digest)

    def _events(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.jsonl"


def _is(error: BaseException, kind: type[Exception]) -> bool:
    """Whether an error is of a kind, or is made of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is(inner, kind) for inner in error.exceptions)
    return isinstance(error, kind)


def simulate(seed: int) -> Report:
    """Simulate one seed from its first life to the last check."""
    with TemporaryDirectory(prefix="simulation-", dir=FAST_FOLDER if FAST_FOLDER.is_dir() else None) as folder:
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
    began_at, on_screen = time.monotonic(), sys.stdout.isatty()
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
