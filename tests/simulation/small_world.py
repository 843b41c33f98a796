"""A world without chance: four lines in two chunks, a bank whose every word is given, and two lives.

The engine, its journal and its locks are the real ones, as in `simulation.py`, of which this is a special case: the
plan is given instead of drawn. The first life may die at one step; the second gives one command; then everything comes
to rest, and what must hold in any simulation must hold here. `exhaustive.py` lives all of them.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Container, Mapping, MutableSequence, Sequence
from contextlib import closing
from enum import StrEnum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
import anyio.abc
import apsw
import msgspec

from payout_engine.app.engine import Engine
from payout_engine.app.remembered import FILE_NAME
from payout_engine.domain.errors import Brake, ConfigError, ProviderError, RefusedError, UnansweredError
from payout_engine.domain.model import Dispatch, LookUpResult, Payout, Receipt
from payout_engine.domain.states import State
from payout_engine.journal.schema import connect
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits
from simulation import virtual_time
from simulation.bank import ABSENCE_FINAL_SECONDS, Bank, Fault, Transfer
from simulation.clerk import Clerk
from simulation.crashing import Fuse, Moment, Step
from simulation.lives import Simulation
from simulation.people import WHO, WHY
from simulation.plans import Life, Plan
from simulation.processes import WALLETS
from simulation.random_file import FIRST_LINE, Line, RandomFile
from simulation.shelf import HOME, JournalFile

ACCOUNT = "bf"
CHUNK_SIZE = 2
CHUNK_LINES = (FIRST_LINE, FIRST_LINE + CHUNK_SIZE)
"""The first line of each chunk."""

PATIENCE_SECONDS = ABSENCE_FINAL_SECONDS + 5.0
"""How long is looked for what is unknown: longer than it takes until an absence proves something."""

Known = Mapping[int, Container[str]]

Option = TypeVar("Option")


class Fate(StrEnum):
    """What the bank makes of the first call that brings a chunk. Whatever is sent later is paid at once."""

    PAID = "paid"
    ACCEPTED = "accepted"  # and paid later
    FAILS = "fails"
    FAILS_LATER = "fails later"  # accepted before
    NO_FUNDS = "no funds"  # the whole call refused
    NO_FUNDS_FOR_EACH = "no funds for each"  # each payout refused by itself
    FUNDS_FOR_ONE = "funds for one"
    ONE_FAILS = "one fails"
    TOO_FAST = "too fast"
    NOT_HEARD = "not heard"  # provably not sent
    LOST = "lost"  # before the bank had read it
    ANSWER_LOST = "answer lost"  # after it was carried out
    LATE = "late"  # carried out after the client has given up
    HIDDEN = "hidden"  # carried out, the answer lost, and not shown for a while
    ODD_WORD = "odd word"


class Following(StrEnum):
    """The command of the second life."""

    RESUME = "resume"
    RETRY = "retry"
    CANCEL = "cancel"  # and then the file again
    FILE_AGAIN = "file again"


class Promise(msgspec.Struct, frozen=True):
    """What the provider promises."""

    look_up: LookUpKind
    key: KeyPromise
    absence_is_final: bool
    batch_limit: int = CHUNK_SIZE

    def __str__(self) -> str:
        singly = "" if self.batch_limit == CHUNK_SIZE else " singly"
        return f"{self.look_up} {self.key} {'final' if self.absence_is_final else 'never'}{singly}"

    def traits(self) -> Traits:
        """Return it in the words of the engine."""
        return Traits(
            batch_limit=self.batch_limit,
            calls_per_second=None,
            concurrency=2,
            key_promise=self.key,
            key_lifetime_seconds=None,
            look_up=self.look_up,
            absence_final_seconds=ABSENCE_FINAL_SECONDS if self.absence_is_final else None,
        )


PROMISES = (
    *(
        Promise(look_up, key, final)
        for look_up in (LookUpKind.SWEEP, LookUpKind.EACH, LookUpKind.NONE)
        for key in (KeyPromise.NONE, KeyPromise.IDEMPOTENT)
        for final in (False, True)
        if not (final and look_up is LookUpKind.NONE)
    ),
    Promise(LookUpKind.EACH, KeyPromise.NONE, False, batch_limit=1),
    Promise(LookUpKind.EACH, KeyPromise.IDEMPOTENT, False, batch_limit=1),
    Promise(LookUpKind.REFERENCE, KeyPromise.NONE, False, batch_limit=1),
)
"""All of them; where nothing can be looked up, no absence can be proved. And what those promise that take one payout in
a call: with an intent for each call, or one for many."""


class Case(msgspec.Struct, frozen=True):
    """One combination.

    Attributes:
        fates: of the two chunks.
        step: where the first life dies; None for not.
        following: the command of the second life.
        second: where that dies; None for not.
    """

    promise: Promise
    fates: tuple[Fate, Fate]
    step: Step | None
    following: Following
    second: Step | None = None

    def __str__(self) -> str:
        parts = [self.promise, " + ".join(self.fates), step_text(self.step), self.following]
        return " | ".join(map(str, [*parts, step_text(self.second)] if self.second else parts))


def step_text(step: Step | None) -> str:
    """Tell where a life ends, such as `after intend 2`."""
    return f"{step.moment} {step.name} {step.number}" if step else "no crash"


# ------------------------------------------------------------------------------------------------------------ its bank


class _NoChance(random.Random):
    """A generator that draws nothing: always the middle, always the first, always in order."""

    def random(self) -> float:
        return 0.4  # The bank names its transfers in its answers.

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def choice(self, seq: Sequence[Option]) -> Option:  # type: ignore[override]
        return seq[0]

    def shuffle(self, x: MutableSequence[Any]) -> None:
        """Leave everything where it is."""


_FAULTS: Mapping[Fate, frozenset[Fault]] = {
    Fate.FAILS: frozenset({Fault.DECLINED}),
    Fate.FAILS_LATER: frozenset({Fault.DECLINED}),
    Fate.TOO_FAST: frozenset({Fault.TOO_FAST}),
    Fate.NOT_HEARD: frozenset({Fault.NOT_HEARD}),
    Fate.LOST: frozenset({Fault.LOST}),
    Fate.ANSWER_LOST: frozenset({Fault.UNANSWERED}),
    Fate.LATE: frozenset({Fault.LATE}),
    Fate.HIDDEN: frozenset({Fault.UNANSWERED, Fault.HIDDEN}),
    Fate.ODD_WORD: frozenset({Fault.WORDS}),
}
_SETTLED_AT_ONCE = frozenset({Fate.PAID, Fate.FAILS, Fate.ONE_FAILS, Fate.FUNDS_FOR_ONE, Fate.ODD_WORD})


class ScriptedBank(Bank):
    """A bank that gives each chunk its fate, once. What was sent is carried out, also when its sender is dead.

    Attributes:
        calls: how many paying calls were begun.
    """

    def __init__(
        self, fates: tuple[Fate, Fate], traits: Traits, tasks: anyio.abc.TaskGroup, notify: Callable[[str], None]
    ) -> None:
        super().__init__(_NoChance(), traits, {}, tasks, notify)
        self.calls = 0
        self._fates = dict(zip(CHUNK_LINES, fates, strict=True))
        self._met: dict[int, Fate] = {}
        self._playing = Fate.PAID

    def calm(self) -> None:
        """Pay whatever comes from now on."""
        self._fates.clear()

    def happens(self, fault: Fault) -> bool:
        """Whether a fault belongs to the fate that is being played."""
        return fault is Fault.STUBBORN or fault in _FAULTS.get(self._playing, ())

    async def speak(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Carry a request to the bank; see `Bank.speak`."""
        self.calls += 1
        # What becomes of a request is decided before anybody waits, so no other call comes between.
        self._playing = self._fates.pop(dispatch.payouts[0].line, Fate.PAID)
        self._met[id(dispatch)] = self._playing
        return await super().speak(dispatch)

    def _execute(self, dispatch: Dispatch) -> Sequence[Receipt] | ProviderError:
        self._playing = self._met[id(dispatch)]
        self._settles_at_once = self._playing in _SETTLED_AT_ONCE
        if self._playing is Fate.NO_FUNDS:
            return RefusedError("insufficient_funds", "The balance is too low.", brake=Brake.FUNDS)
        return super()._execute(dispatch)

    def take(self, key: str, payout: Payout, lane_name: str) -> Receipt:
        """Take in one payout; see `Bank.take`. The second of a chunk may fare worse than the first."""
        fate, first = self._playing, payout.line in CHUNK_LINES
        if fate is Fate.NO_FUNDS_FOR_EACH or (fate is Fate.FUNDS_FOR_ONE and not first):
            return Receipt(State.READY, "insufficient_funds", "The balance is too low.")
        if fate is Fate.ONE_FAILS and not first:
            self._playing = Fate.FAILS
        receipt = super().take(key, payout, lane_name)
        self._playing = fate
        return receipt

    def shown(self, transfer: Transfer) -> LookUpResult | None:
        """Show a transfer as it is; see `Bank.shown`."""
        self._playing = Fate.PAID
        return super().shown(transfer)

    def looks(self) -> object:
        """Return what anybody could find out here now, for whoever compares two moments."""
        at = anyio.current_time()
        shown = [(transfer.visible_at <= at, transfer.state_at(at)) for transfer in self.transfers]
        absent = [at - arrival >= ABSENCE_FINAL_SECONDS for arrival in self.arrivals]
        return self.calls, shown, absent


# ------------------------------------------------------------------------------------------------------- where one dies


class Place(msgspec.Struct, frozen=True):
    """A call at which a life may die.

    Attributes:
        number: the how-manieth call of this name it is.
        world: what a crash before it leaves.
        changes: whether it changed anything, so that a crash inside it or after it leaves something else.
    """

    name: str
    number: int
    world: str
    changes: bool


class Recorder(Fuse):
    """The fuse of a life that notes each of its calls.

    Attributes:
        places: the calls, in the order in which they ended.

    Args:
        world: returns what would be left if the process died now.
    """

    def __init__(self, step: Step | None, notify: Callable[[str], None], world: Callable[[], str]) -> None:
        super().__init__(step, notify)
        self.places: list[Place] = []
        self._world = world
        self._begun: dict[tuple[object, str], tuple[int, str]] = {}

    def enter(self, name: str) -> Moment | None:
        """Begin a step; see `Fuse.enter`."""
        moment = super().enter(name)
        self._begun[asyncio.current_task(), name] = self._calls[name], self._world()
        return moment

    def leave(self, name: str, moment: Moment | None) -> None:
        """End a step; see `Fuse.leave`. A call that answers in parts leaves more than once."""
        begun = self._begun.pop((asyncio.current_task(), name), None)
        if begun is not None and not self.dead:
            self.places.append(Place(name, *begun, changes=begun[1] != self._world()))
        super().leave(name, moment)


# ----------------------------------------------------------------------------------------------------------- the world


def small_file() -> RandomFile:
    """Return the file: four good lines of one lane."""
    lines = [Line(f"SAL-{number}", f"7000000{number}", str(1000 + number)) for number in range(2 * CHUNK_SIZE)]
    return RandomFile("small.csv", lines, has_references=True, block_rows=20)


class SmallWorld(Simulation):
    """One case.

    Attributes:
        case: what happens.
        places: the calls of the life that was recorded, in their order.
        worlds: what the first life left, and the second.
        known: the life after which the world was one from which somebody had lived on before; 0 when there was none.

    Args:
        case: what happens.
        folder: where its journal is to be; emptied before.
        known: by life, the worlds from which somebody has lived on in the same way: this one ends there.
        recording: the number of the life whose calls are wanted; 0 for none.
    """

    def __init__(self, case: Case, folder: Path, known: Known = MappingProxyType({}), recording: int = 0) -> None:
        plan = Plan(
            files=[small_file()],
            traits={ACCOUNT: case.promise.traits()},
            faults={ACCOUNT: {}},
            keys={ACCOUNT: ACCOUNT},
            wired=False,
            lives=[Life(step=case.step), Life(step=case.second)],
            commit_seconds=0.01,
            patience_seconds=PATIENCE_SECONDS,
            canary=None,
            max_failure_share=1.0,
        )
        _begin_anew(folder)
        super().__init__(0, folder, plan)
        self._folder = folder
        self.places: Sequence[Place] = ()
        self.worlds: list[str] = []
        self.known = 0
        self.case = case
        self._known_worlds = known
        self._recording = recording
        self._read_at = -1
        self._written = ""

    async def _live(self, life: Life) -> None:
        """Live one life, unless it is known where this leads."""
        if self.known:
            return
        await super()._live(life)
        life_number = self.report.lives
        if life_number <= 2:
            self.worlds.append(self._looks())
            self.known = life_number if self.worlds[-1] in self._known_worlds.get(life_number, ()) else 0

    async def _calm_down(self) -> None:
        if not self.known:
            await super()._calm_down()

    def _open_banks(self, world: anyio.abc.TaskGroup) -> None:
        self._bank = ScriptedBank(self.case.fates, self._plan.traits[ACCOUNT], world, self._notify)
        self._world.banks[ACCOUNT] = self._bank
        self._top_up(1.0)

    def _top_up(self, share: float) -> None:
        """Leave enough for somebody who pays twice."""
        self._bank.balances_minor = dict.fromkeys([wallet.code for wallet in WALLETS], 1_000_000)

    async def _work(self, name: str, life: Life) -> None:
        def notify(where: str) -> None:
            self._notify(f"CRASH {where}")

        if self.report.lives != self._recording:
            fuse = Fuse(life.step, notify, life.journal)
        else:
            fuse = recorder = Recorder(life.step, notify, self._looks)
            self.places = recorder.places
        file = self._world.shelf.file(life.journal)
        await self._process(name, file, fuse, self._clerk(name, file, life, fuse).work)

    def _clerk(self, name: str, file: JournalFile, life: Life, fuse: Fuse) -> Clerk:
        common = (name, file, life, fuse, self._plan.files, self._file_of, self._world, self._notify)
        return Follower(self.case.following, *common) if self.report.lives == 2 else Clerk(*common)

    def _looks(self) -> str:
        """Return what there is beside a process: the journal, what is remembered of it, other files, the bank."""
        if self._world.disk.writes != self._read_at:
            memory = next(self._folder.rglob(FILE_NAME), None)
            told = [_gist(self._folder / HOME, _GIST), _gist(memory, _REMEMBERED_GIST) if memory is not None else ""]
            self._written, self._read_at = repr(told), self._world.disk.writes
        locks = sorted(path.name for path in self._folder.rglob("*.lock"))
        events = sorted(path.stat().st_size for path in self._folder.glob("*.jsonl"))
        return repr((self._written, locks, events, self._bank.looks()))

    async def _check(self) -> None:
        if self.known:
            return
        await super()._check()
        declined = {transfer.key for transfer in self._bank.transfers if not transfer.pays}
        async with self.journal() as journal:
            for run in await journal.runs() if self.report.counts[State.FAILED] else ():
                async for entries in journal.entries(run.run_id, frozenset({State.FAILED})):
                    if any(entry.key not in declined for entry in entries):
                        self._violated("a line is failed, and the bank never said so")


class Follower(Clerk):
    """Who lives on after the first life: gives the command of the case, and then perhaps the usual one."""

    def __init__(self, following: Following, *common: Any) -> None:
        super().__init__(*common)
        self._following = following

    async def _command(self, engine: Engine) -> None:
        try:
            if not await self._follow_up(engine):
                return
        except (ConfigError, UnansweredError) as error:
            self._notify(f"is refused: {type(error).__name__}")
            return
        await super()._command(engine)

    async def _follow_up(self, engine: Engine) -> bool:
        """Do what the case says; return whether the file is run again then."""
        run = next((run for run in await engine.runs() if run.approved_at is not None), None)
        if self._following is Following.FILE_AGAIN or run is None:
            return self._following in (Following.FILE_AGAIN, Following.CANCEL)
        if self._following is Following.CANCEL:
            done = await engine.cancel(run.run_id, WHO, WHY)
            self._notify(f"a person withdraws {done.cancelled}")
            return True
        if self._following is Following.RESUME:
            await engine.unpause(run.run_id)
            await self.pay(engine, run)
        else:
            await self.pay(engine, await engine.retry(run.run_id))
        return False


def live(case: Case, folder: Path, known: Known = MappingProxyType({}), recording: int = 0) -> SmallWorld:
    """Live one case to its end; see `SmallWorld`."""
    world = SmallWorld(case, folder, known, recording)
    try:
        virtual_time.run(world.run())
    except Exception as error:
        world.report.violations.append(f"the simulation broke: {error!r}")
    return world


def _begin_anew(folder: Path) -> None:
    """Leave nothing in a folder but an empty journal."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / HOME).write_bytes(_empty_journal())


def _gist(path: Path, queries: Sequence[str]) -> str:
    """Return what a file says, but for times and random names."""
    with closing(apsw.Connection(str(path))) as db:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # Whoever looks changes nothing.
        return repr([list(db.execute(query)) for query in queries])


_GIST = (
    "SELECT run_no, chunk_id, kind FROM log ORDER BY seq",
    "SELECT run_no, state, approved_at IS NULL, retry_of = '' FROM runs",
    "SELECT chunk_id, states FROM progress",
    "SELECT chunk_id, indexes, ended_at IS NULL, on_wire, spoken FROM dispatches ORDER BY dispatch_id",
    "SELECT run_no, kind, heard FROM requests",
    "SELECT count(*) FROM keys",
)


_REMEMBERED_GIST = (
    "SELECT seq FROM journals ORDER BY identity",
    "SELECT key, lost FROM contents ORDER BY number",
)


@cache
def _empty_journal() -> bytes:
    """Return the bytes of a journal that was only opened: making one takes as long as a life."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "payouts.db"
        connect(path, sandbox=False, scratch=False, earlier=None).close()
        return path.read_bytes()
