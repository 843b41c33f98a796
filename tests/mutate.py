"""`make mutate`: would a test fail, if the code that decides about money were wrong? Names each that none notices.

Each mutant (`mutants.py`) runs in a process of its own, forked from one that has imported everything and collected the
tests: only the code of one function is exchanged, so that a mutant costs what its tests cost. Of the tests that
`mutants.toml` names for a module only those run that reach the changed line, the quickest and the deadliest first, and
the first failure ends it. A fault outside of functions is imported afresh. `--workers` processes share the mutants.

Who survives is listed with its difference, unless `mutants.toml` knows it with a reason; the score counts the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import gc
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import coverage
import hypothesis
import msgspec
import pytest
from mutants import Mutant, mutants_of

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "payout_engine"
REVIEWED = PROJECT / "tests" / "mutants.toml"
KEPT = PROJECT / ".mutants.json"
"""How each mutant fared the last time, for `--survivors`. Written as it goes; not committed."""

KEPT_EVERY_SECONDS = 2.0

TEST_SECONDS_MAX = 6.0
"""Of tests that compute longer than this together, when nothing is wrong, only the first are run for one mutant."""

TURNING_SECONDS, TURNING_TIMES = 1.0, 4.0
"""A test fails when it computes for longer than so many seconds, and so many times as long as without a fault."""

WAITING_SECONDS, WAITING_TIMES = 10.0, 3.0
"""The same for the clock, on a machine that is busier than it was without a fault."""

for _costly in (
    "aiohttp",
    "anyio.abc",
    "apsw",
    "orjson",
    "phonenumbers",
    "pytest_asyncio.plugin",
    "rich",
    "typer",
    "yarl",
):
    importlib.import_module(_costly)  # Of others, so that no mutant has to import it again.

ARGUMENTS = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning"]

KILLED, SURVIVED, UNREACHED, UNTRIED = "killed", "survived", "no test reaches it", "not tried"


class Reviewed(NamedTuple):
    """What `mutants.toml` says: the tests of each module, and the survivors that may be, by place, with the reason."""

    tests: dict[str, list[str]]
    reasons: dict[tuple[str, str, str], str]


class Reached(msgspec.Struct):
    """What a run of all tests without any fault showed: how long each took and computed, which lines of each
    module it ran, and which ran when all was imported."""

    seconds: dict[str, float] = {}
    computed: dict[str, float] = {}
    lines: dict[str, dict[str, list[int]]] = {}
    imported: dict[str, list[int]] = {}
    failed: list[str] = []


@functools.cache
def reviewed() -> Reviewed:
    told = tomllib.loads(REVIEWED.read_text(encoding="utf-8"))
    reasons = {
        (module, entry["before"], after): entry["reason"]
        for module, entries in told.get("survivors", {}).items()
        for entry in entries
        for after in ([entry["after"]] if isinstance(entry["after"], str) else entry["after"])
    }
    return Reviewed(told["tests"], reasons)


# ------------------------------------------------------------------------------------------------- one forked process


def forked(work: Callable[[], int], timeout_seconds: float) -> int:
    """Do a piece of work in a process of its own, with all that it starts; 255 when its time is up."""
    pid = os.fork()
    if not pid:
        code = 3
        try:
            os.setpgid(0, 0)
            code = work()
        except BaseException:
            code = 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + timeout_seconds
    try:
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status) % 256
            time.sleep(0.004)
        _end(pid)
        os.waitpid(pid, 0)
        return 255
    finally:
        _end(pid)


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _silent() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def in_parallel(workers: int, work: Callable[[int, Callable[[str], None]], None]) -> Iterator[str]:
    """Do work in several processes, given the number of each, and yield the short lines that they tell, at once."""
    reading, writing = os.pipe()
    pids: list[int] = []
    for worker in range(workers):
        pid = os.fork()
        if not pid:
            code = 3
            try:
                os.close(reading)
                work(worker, lambda line: _told(writing, line))
                code = 0
            except Exception:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        yield from (line.rstrip("\n") for line in lines)
    for pid in pids:
        os.waitpid(pid, 0)


def _told(writing: int, line: str) -> None:
    os.write(writing, f"{line}\n".encode())  # A pipe keeps a short line of one process whole.


def spread(
    mutants: list[Mutant], workers: int, attempt: Callable[[Mutant, int], str], tell: Callable[[Mutant, str], None]
) -> None:
    """Try mutants in several processes; tell how each fared as soon as it is known."""

    def work(worker: int, told: Callable[[str], None]) -> None:
        for at in range(worker, len(mutants), workers):
            told(f"{at} {attempt(mutants[at], worker)}")

    for line in in_parallel(workers, work):
        at, fate = line.split(" ", 1)
        tell(mutants[int(at)], fate)


# ------------------------------------------------------------------------------------------------- the tests in pytest


class Session:
    """The pytest plugin that, instead of running what was collected, runs it once for all mutants and once for each."""

    def __init__(self, mutants: list[Mutant], workers: int, scratch: Path, tell: Callable[[Mutant, str], None]) -> None:
        self._mutants = mutants
        self._workers = workers
        self._scratch = scratch
        self._tell = tell
        self._failed = False
        self._nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process lives
        self._deadliest: Counter[str] = Counter()
        self._imports = _tracer()
        self._imports.start()
        self.reached = Reached()

    def pytest_collection_finish(self) -> None:
        self._imports.stop()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        self._temporary = session.config._tmp_path_factory  # type: ignore[attr-defined]
        gc.collect()
        gc.freeze()
        imported = {module: ran for (_, module), ran in _traced_by(self._imports).items()}
        parts = [Path(kept) for kept in in_parallel(self._workers, self._run_all)]
        found = [msgspec.json.decode(part.read_bytes(), type=Reached) for part in parts]
        self.reached = Reached(
            imported=imported,
            seconds={name: seconds for part in found for name, seconds in part.seconds.items()},
            computed={name: seconds for part in found for name, seconds in part.computed.items()},
            lines={name: lines for part in found for name, lines in part.lines.items()},
            failed=[name for part in found for name in part.failed],
        )
        (self._scratch / "reached.json").write_bytes(msgspec.json.encode(self.reached))
        self._functions = _functions()
        inside = [mutant for mutant in self._mutants if not at_import(mutant, self.reached)]
        spread(inside, self._workers, self._try, self._tell)
        return True

    def _run_all(self, worker: int, told: Callable[[str], None]) -> None:
        """Run one part of the tests without any fault, and tell what they reached."""
        _silent()
        self._own_folder(worker)
        reached, names = Reached(), list(self._items)[worker :: self._workers]
        tracer = _tracer()
        tracer.start()
        for name in names:
            tracer.switch_context(name)
            begun, computed = time.monotonic(), time.process_time()
            self._failed = False
            self._run(name)
            reached.seconds[name] = time.monotonic() - begun
            reached.computed[name] = time.process_time() - computed
            if self._failed:
                reached.failed.append(name)
        tracer.stop()
        reached.lines = {name: {} for name in names if name not in reached.failed}
        for (name, module), ran in _traced_by(tracer).items():
            if name in reached.lines:
                reached.lines[name][module] = ran
        kept = self._scratch / f"reached{worker}.json"
        kept.write_bytes(msgspec.json.encode(reached))
        told(str(kept))

    def _own_folder(self, worker: int) -> Path:
        """The folder in which the tests of one worker make theirs."""
        own = self._scratch / f"tmp{worker}"
        own.mkdir(exist_ok=True)
        self._temporary._basetemp = own
        return own

    def _run(self, name: str) -> None:
        item = self._items[name]
        item.config.get_terminal_writer()._file = self._nowhere  # pytest kept a copy of what `_silent` closed.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)

    def _try(self, mutant: Mutant, worker: int) -> str:
        tests = tests_for(mutant, self.reached, self._deadliest)
        if not tests:
            return UNREACHED
        own = self._own_folder(worker)
        killer = self._scratch / f"killer{worker}"
        killer.unlink(missing_ok=True)

        def work() -> int:
            _silent()
            code = _code_of(mutant)
            for function in self._functions[mutant.module, mutant.function]:
                function.__code__ = code
            for name in tests:
                killer.write_text(name)
                # Some faults make a test turn or wait for ever: the process ends then.
                signal.setitimer(signal.ITIMER_PROF, TURNING_SECONDS + TURNING_TIMES * self.reached.computed[name])
                waiting_seconds = WAITING_SECONDS + WAITING_TIMES * self.reached.seconds[name]
                faulthandler.dump_traceback_later(waiting_seconds, exit=True, file=self._nowhere)
                self._failed = False
                self._run(name)
                if self._failed:
                    return 1
            return 0

        survived = forked(work, _patience_seconds(self.reached, tests)) == 0
        if not survived and killer.exists():
            self._deadliest[killer.read_text()] += 1
        shutil.rmtree(own, ignore_errors=True)
        return SURVIVED if survived else KILLED


def _patience_seconds(reached: Reached, tests: list[str]) -> float:
    """How long the tests of one mutant may take, on a machine that is busier than it was without it."""
    return sum(WAITING_SECONDS + WAITING_TIMES * reached.seconds[name] for name in tests)


def at_import(mutant: Mutant, reached: Reached) -> bool:
    """Whether a fault takes effect when the module is imported: outside of functions, and in those called by it."""
    return not mutant.function or mutant.line in reached.imported.get(mutant.module, ())


def tests_for(mutant: Mutant, reached: Reached, deadliest: Counter[str]) -> list[str]:
    """Return the tests that reach a mutant, the best first, as far as the time for one mutant goes.

    After those that reach its line come those that reach its function: the tracer loses sight of some coroutines.
    """
    wanted = reviewed().tests.get(mutant.module, [])
    every = _LINES.setdefault(mutant.module, _lines_of(PACKAGE / mutant.module))
    # A line inside of a statement of several lines may have no event of its own; then the one before it counts.
    here = {mutant.line, max((line for line in every.get("", set()) if line <= mutant.line), default=0)}
    around = every.get(mutant.function, set())
    order: list[tuple[bool, float, str]] = []
    for name, lines in reached.lines.items():
        if any(name == f"tests/{test}" or name.startswith((f"tests/{test}::", f"tests/{test}[")) for test in wanted):
            ran = set(lines.get(mutant.module, ()))
            if at_import(mutant, reached) or ran & here or ran & around:
                cost = (reached.computed[name] + 0.02) / (1 + deadliest[name])
                order.append((not ran & here, cost, name))
    chosen: list[str] = []
    seconds = 0.0
    for _, _, name in sorted(order):
        if not chosen or seconds + reached.computed[name] <= TEST_SECONDS_MAX:
            chosen.append(name)
            seconds += reached.computed[name]
    return chosen


_LINES: dict[str, dict[str, set[int]]] = {}


def _lines_of(path: Path) -> dict[str, set[int]]:
    """Return the lines that can run in each function, but its head, by qualified name; of all together by none."""
    codes = [compile(path.read_text(encoding="utf-8"), str(path), "exec")]
    lines: dict[str, set[int]] = {"": set()}
    while codes:
        code = codes.pop()
        ran = {line for _, _, line in code.co_lines() if line}
        lines[""] |= ran
        lines[code.co_qualname] = ran - {code.co_firstlineno}
        codes.extend(part for part in code.co_consts if isinstance(part, CodeType))
    return lines


def _tracer() -> coverage.Coverage:
    """Something that notes which lines of the package run, in every thread. It is there because mutmut needs it."""
    return coverage.Coverage(
        data_file=None, config_file=False, include=[f"{PACKAGE}/*"], omit=[f"{PACKAGE}/testing/*"], messages=False
    )


def _traced_by(tracer: coverage.Coverage) -> dict[tuple[str, str], list[int]]:
    """Return the lines that ran, by context and module."""
    data, lines = tracer.get_data(), dict[tuple[str, str], list[int]]()
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            for context in contexts:
                lines.setdefault((context, str(Path(file).relative_to(PACKAGE))), []).append(line)
    return lines


def _functions() -> dict[tuple[str, str], list[FunctionType]]:
    """Return the functions that live, by module and qualified name."""
    found: dict[tuple[str, str], list[FunctionType]] = {}
    gc.unfreeze()
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith(f"{PACKAGE}/"):
            module = str(Path(thing.__code__.co_filename).relative_to(PACKAGE))
            found.setdefault((module, thing.__code__.co_qualname), []).append(thing)
    gc.freeze()
    return found


def _code_of(mutant: Mutant) -> CodeType:
    codes = [compile(mutant.source, str(PACKAGE / mutant.module), "exec", dont_inherit=True)]
    while codes:
        code = codes.pop()
        if code.co_qualname == mutant.function:
            return code
        codes.extend(part for part in code.co_consts if isinstance(part, CodeType))
    raise LookupError(mutant.function)


# -------------------------------------------------------------------------------------- faults outside of any function


class _Fresh:
    """An importer that gives one module with a fault in it."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        dotted = "payout_engine/" + mutant.module.removesuffix(".py").removesuffix("/__init__")
        self._name = dotted.replace("/", ".")

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        path = str(PACKAGE / self._mutant.module)
        return importlib.util.spec_from_file_location(name, path, loader=_Given(name, path, self._mutant.source))


class _Given(SourceFileLoader):
    """Loads a text in place of a file's own."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.get_filename(fullname), "exec", dont_inherit=True)


def survives_import(mutant: Mutant, tests: list[str], folder: Path, seconds: float) -> bool:
    """Whether the tests pass when the whole package is imported anew with a fault in one of its modules."""

    def work() -> int:
        _silent()
        sys.meta_path.insert(0, _Fresh(mutant))
        return int(pytest.main([*ARGUMENTS, "-x", f"--basetemp={folder}", *tests]))

    return forked(work, seconds + 15.0) == 0


# --------------------------------------------------------------------------------------------------------- the report


class Score(NamedTuple):
    """How many mutants there are, and how they fared."""

    mutants: int
    killed: int
    reviewed: int
    untried: int

    @property
    def survived(self) -> int:
        return self.mutants - self.killed - self.reviewed - self.untried

    def __str__(self) -> str:
        judged = self.killed + self.survived
        share = f"{100 * self.killed / judged:6.1f} %" if judged else "     -  "
        return f"{self.mutants:7} {self.killed:7} {self.reviewed:8} {self.untried:9} {self.survived:8}  {share}"


def score(module: str, fates: dict[str, str]) -> Score:
    """Return how the mutants of one module fared."""
    counts = Counter(
        "reviewed" if fate in (SURVIVED, UNREACHED) and _reason(module, key) else fate for key, fate in fates.items()
    )
    return Score(len(fates), counts[KILLED], counts["reviewed"], counts[UNTRIED])


def _reason(module: str, key: str) -> str:
    _line, before, after = key.split("\n")
    return reviewed().reasons.get((module, before, after), "")


def report(fates: dict[str, dict[str, str]], modules: Iterable[str]) -> None:
    """Print every survivor without a reason, every reason without a survivor, and the scores."""
    shown = [module for module in modules if module in fates]
    for module in shown:
        for key, fate in sorted(fates[module].items(), key=lambda pair: int(pair[0].split("\n")[0])):
            line, before, after = key.split("\n")
            if fate in (SURVIVED, UNREACHED) and not _reason(module, key):
                print(f"\npayout_engine/{module}:{line}: {fate}\n  - {before}\n  + {after}")
        alive = {tuple(key.split("\n")[1:]) for key, fate in fates[module].items() if fate != KILLED}
        for of, before, after in reviewed().reasons:
            if of == module and (before, after) not in alive:
                print(f"\nmutants.toml, {module}: no survivor any more:\n  - {before}\n  + {after}")
    print(f"\n{'module':34} mutants  killed reviewed not tried survived     score")
    scores = [score(module, fates[module]) for module in shown]
    for module, found in zip(shown, scores, strict=True):
        print(f"{module:34} {found}")
    print(f"{'all':34} {Score(*map(sum, zip(*scores, strict=True)))}" if scores else "nothing was tried")


# ------------------------------------------------------------------------------------------------------------ the run


def key_of(mutant: Mutant) -> str:
    return f"{mutant.line}\n{mutant.before}\n{mutant.after}"


def _is_open(module: str, key: str, fates: dict[str, str]) -> bool:
    """Whether a mutant is to be tried: not again what was killed, or has survived with a reason."""
    return fates[key] == UNTRIED or (fates[key] != KILLED and not _reason(module, key))


def run(modules: list[str], *, survivors: bool, functions: bool, workers: int) -> bool:
    """Try the mutants of some modules; false when a test fails without any fault."""
    told = reviewed()
    fates: dict[str, dict[str, str]] = msgspec.json.decode(KEPT.read_bytes()) if KEPT.exists() else {}
    mutants: list[Mutant] = []
    for module in modules:
        before = fates.get(module, {})
        made = mutants_of(PACKAGE, module)
        known = before if survivors else {}
        fates[module] = {key_of(mutant): known.get(key_of(mutant), UNTRIED) for mutant in made}
        mutants += [mutant for mutant in made if _is_open(module, key_of(mutant), fates[module])]
    scratch = Path(tempfile.mkdtemp(prefix="mutants-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    done, kept_at = 0, 0.0

    def keep() -> None:
        others = msgspec.json.decode(KEPT.read_bytes()) if KEPT.exists() else {}
        whole = KEPT.with_suffix(f".{os.getpid()}")
        whole.write_bytes(msgspec.json.encode({**others, **{module: fates[module] for module in modules}}))
        whole.replace(KEPT)

    def tell(mutant: Mutant, fate: str) -> None:
        nonlocal done, kept_at
        done += 1
        fates[mutant.module][key_of(mutant)] = fate
        if time.monotonic() > kept_at + KEPT_EVERY_SECONDS:
            keep()
            kept_at = time.monotonic()
        if fate != KILLED or done % 100 == 0:
            print(f"{done}/{len(mutants)} {mutant.module}:{mutant.line} {fate}", file=sys.stderr, flush=True)

    def in_session() -> int:
        """Everything that needs the package imported; the process that forks the others must never import it."""
        session = Session(mutants, workers, scratch, tell)
        files = sorted({f"tests/{name}" for module in modules for name in told.tests[module]})
        pytest.main([*ARGUMENTS, f"--basetemp={scratch / 'tmp'}", *files], plugins=[session])
        keep()
        return 0 if session.reached.seconds else 1

    try:
        if _loud(in_session):
            return False
        fates.update(msgspec.json.decode(KEPT.read_bytes()))
        reached = msgspec.json.decode((scratch / "reached.json").read_bytes(), type=Reached)
        outside = [mutant for mutant in mutants if not functions and at_import(mutant, reached)]
        unsound = _unsound({mutant.module: mutant for mutant in outside}, reached, scratch)
        outside = [mutant for mutant in outside if mutant.module not in unsound]
        spread(outside, workers, lambda one, worker: _imported_afresh(one, worker, reached, scratch), tell)
        keep()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report(fates, modules)
    for name in reached.failed:
        print(f"fails without any fault, so that it was left out: {name}", file=sys.stderr, flush=True)
    for module in sorted(unsound):
        print(f"fails when imported afresh, without any fault, so that part was left out: {module}", file=sys.stderr)
    return not reached.failed and not unsound


def _imported_afresh(mutant: Mutant, worker: int, reached: Reached, scratch: Path) -> str:
    tests = tests_for(mutant, reached, Counter())
    if not tests:
        return UNREACHED
    survived = survives_import(mutant, tests, scratch / f"afresh{worker}", _patience_seconds(reached, tests))
    return SURVIVED if survived else KILLED


def _unsound(one_of_each: dict[str, Mutant], reached: Reached, scratch: Path) -> set[str]:
    """Return the modules whose tests fail with the importer alone: a fault in them would say nothing."""
    sources = {module: (PACKAGE / module).read_text(encoding="utf-8") for module in one_of_each}
    themselves = [mutant._replace(source=sources[module]) for module, mutant in one_of_each.items()]
    return {each.module for each in themselves if _imported_afresh(each, 0, reached, scratch) == KILLED}


def _loud(work: Callable[[], int]) -> int:
    """Do a piece of work in a process of its own that may speak."""
    pid = os.fork()
    if not pid:
        code = 3
        try:
            code = work()
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # So that what was begun is ended and tidied up.
    os.chdir(PROJECT)
    sys.path.insert(0, str(PROJECT))
    known = reviewed().tests
    parser = argparse.ArgumentParser(description="Plant faults in the code that decides about money.")
    parser.add_argument("modules", nargs="*", help="such as journal/rules.py; all that mutants.toml names, if none")
    parser.add_argument("--survivors", action="store_true", help="only what survived the last time without a reason")
    parser.add_argument("--functions", action="store_true", help="leave out faults outside of functions")
    parser.add_argument("--report", action="store_true", help="print the last result again")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that share the mutants")
    asked = parser.parse_args()
    modules = asked.modules or list(known)
    if strangers := [module for module in modules if module not in known]:
        print(f"mutants.toml names no tests for {', '.join(strangers)}", file=sys.stderr)
        return 2
    if asked.report:
        report(msgspec.json.decode(KEPT.read_bytes()), modules)
        return 0
    hypothesis.settings.register_profile(
        "mutate",
        database=None,
        derandomize=True,
        deadline=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )
    hypothesis.settings.load_profile("mutate")
    sound = run(modules, survivors=asked.survivors, functions=asked.functions, workers=asked.workers)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
