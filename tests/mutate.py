"""`make mutate`: would a test fail, if the code that decides about money were wrong? Names each that none notices.

Each mutant (`mutants.py`) runs in a process of its own, forked from one that has imported everything and collected the
tests: only the code of one function is exchanged, so that a mutant costs what its tests cost. Of the tests that
`mutants.toml` names for a module only those run that reach the changed line, the quickest and the deadliest first, and
the first failure ends it. A fault outside of functions is imported afresh.

Who survives is listed with its difference, unless `mutants.toml` knows it with a reason; the score counts the rest.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import hypothesis
import msgspec
import pytest
from mutants import Mutant, mutants_of

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "payout_engine"
REVIEWED = PROJECT / "tests" / "mutants.toml"
KEPT = PROJECT / ".mutants.json"
"""How each mutant fared the last time, for `--survivors`. Written as it goes; not committed."""

TEST_SECONDS_MAX = 12.0
"""Of tests that take longer than this together, when nothing is wrong, only the first are run for one mutant."""

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
    """What a run of all tests without any fault showed: how long each took, which lines of each module it
    ran, and which ran when all was imported."""

    seconds: dict[str, float] = {}
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
            _silent()
            code = work()
        except BaseException:
            code = 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            _end(pid)
            return os.waitstatus_to_exitcode(status) % 256
        time.sleep(0.004)
    _end(pid)
    os.waitpid(pid, 0)
    return 255


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _silent() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


# ------------------------------------------------------------------------------------------------- the tests in pytest


class Session:
    """The pytest plugin that, instead of running what was collected, runs it once for all mutants and once for each."""

    def __init__(self, mutants: list[Mutant], scratch: Path, tell: Callable[[Mutant, str], None]) -> None:
        self._mutants = mutants
        self._scratch = scratch
        self._tell = tell
        self._failed = False
        self._nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process lives
        self._deadliest: Counter[str] = Counter()
        self._tracing = contextlib.ExitStack()
        self._imported = self._tracing.enter_context(_traced())
        self.reached = Reached()

    def pytest_collection_finish(self) -> None:
        self._tracing.close()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        gc.collect()
        gc.freeze()
        kept = self._scratch / "reached.json"
        forked(lambda: self._run_all(kept), 3600.0)
        self.reached = msgspec.json.decode(kept.read_bytes(), type=Reached)
        if self.reached.failed:
            return True
        self._functions = _functions()
        for mutant in self._mutants:
            if not at_import(mutant, self.reached):
                self._try(mutant)
        return True

    def _run_all(self, kept: Path) -> int:
        reached = Reached(imported={module: sorted(ran) for module, ran in self._imported.items()})
        for name in self._items:
            with _traced() as lines:
                begun = time.monotonic()
                self._failed = False
                self._run(name)
            reached.seconds[name] = time.monotonic() - begun
            reached.lines[name] = {module: sorted(ran) for module, ran in lines.items()}
            if self._failed:
                reached.failed.append(name)
        kept.write_bytes(msgspec.json.encode(reached))
        return 0

    def _run(self, name: str) -> None:
        item = self._items[name]
        item.config.get_terminal_writer()._file = self._nowhere  # pytest kept a copy of what `_silent` closed.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)

    def _try(self, mutant: Mutant) -> None:
        tests = tests_for(mutant, self.reached, self._deadliest)
        if not tests:
            self._tell(mutant, UNREACHED)
            return
        killer = self._scratch / "killer"
        killer.unlink(missing_ok=True)

        def work() -> int:
            code = _code_of(mutant)
            for function in self._functions[mutant.module, mutant.function]:
                function.__code__ = code
            for name in tests:
                self._failed = False
                self._run(name)
                if self._failed:
                    killer.write_text(name)
                    return 1
            return 0

        survived = forked(work, 6.0 + 1.5 * sum(self.reached.seconds[name] for name in tests)) == 0
        if killer.exists():
            self._deadliest[killer.read_text()] += 1
        for left in (self._scratch / "tmp").iterdir():
            shutil.rmtree(left, ignore_errors=True)
        self._tell(mutant, SURVIVED if survived else KILLED)


def at_import(mutant: Mutant, reached: Reached) -> bool:
    """Whether a fault takes effect when the module is imported: outside of functions, and in those called by it."""
    return not mutant.function or mutant.line in reached.imported.get(mutant.module, ())


def tests_for(mutant: Mutant, reached: Reached, deadliest: Counter[str]) -> list[str]:
    """Return the tests that reach a mutant, the best first, as far as the time for one mutant goes."""
    wanted = reviewed().tests.get(mutant.module, [])
    names = [
        name
        for name, lines in reached.lines.items()
        if any(name == f"tests/{test}" or name.startswith((f"tests/{test}::", f"tests/{test}[")) for test in wanted)
        and (at_import(mutant, reached) or mutant.line in lines.get(mutant.module, ()) or _head(mutant, lines))
    ]
    names.sort(key=lambda name: (reached.seconds[name] + 0.02) / (1 + deadliest[name]))
    chosen: list[str] = []
    seconds = 0.0
    for name in names:
        if not chosen or seconds + reached.seconds[name] <= TEST_SECONDS_MAX:
            chosen.append(name)
            seconds += reached.seconds[name]
    return chosen


def _head(mutant: Mutant, lines: dict[str, list[int]]) -> bool:
    """A line inside of a statement of several lines may have no event of its own; then the one before it counts."""
    every = _LINES.setdefault(mutant.module, _lines_of(PACKAGE / mutant.module))
    before = max((line for line in every if line <= mutant.line), default=0)
    return before in lines.get(mutant.module, ())


_LINES: dict[str, set[int]] = {}


def _lines_of(path: Path) -> set[int]:
    codes = [compile(path.read_text(encoding="utf-8"), str(path), "exec")]
    lines: set[int] = set()
    while codes:
        code = codes.pop()
        lines.update(line for _, _, line in code.co_lines() if line)
        codes.extend(part for part in code.co_consts if isinstance(part, CodeType))
    return lines


@contextlib.contextmanager
def _traced() -> Iterator[dict[str, set[int]]]:
    """Note which lines of the package run, in every thread."""
    lines: dict[str, set[int]] = {}
    names: dict[str, str] = {}

    def call(frame: FrameType, _event: str, _argument: Any) -> Any:
        file = frame.f_code.co_filename
        if file not in names:
            inside = file.startswith(f"{PACKAGE}/") and "/testing/" not in file
            names[file] = str(Path(file).relative_to(PACKAGE)) if inside else ""
        if not names[file]:
            return None
        ran = lines.setdefault(names[file], set())

        def line(frame: FrameType, _event: str, _argument: Any) -> Any:
            ran.add(frame.f_lineno)
            return line

        ran.add(frame.f_lineno)
        return line

    threading.settrace(call)
    sys.settrace(call)
    try:
        yield lines
    finally:
        sys.settrace(None)
        threading.settrace(None)


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


def survives_import(mutant: Mutant, tests: list[str], scratch: Path, seconds: float) -> bool:
    """Whether the tests pass when the whole package is imported anew with a fault in one of its modules."""

    def work() -> int:
        sys.meta_path.insert(0, _Fresh(mutant))
        return int(pytest.main([*ARGUMENTS, "-x", f"--basetemp={scratch / 'tmp'}", *tests]))

    return forked(work, 20.0 + 1.5 * seconds) == 0


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


def run(modules: list[str], flags: set[str]) -> bool:
    """Try the mutants of some modules; false when the tests fail without any fault."""
    told = reviewed()
    fates: dict[str, dict[str, str]] = msgspec.json.decode(KEPT.read_bytes()) if KEPT.exists() else {}
    mutants: list[Mutant] = []
    for module in modules:
        before = fates.get(module, {})
        made = mutants_of(PACKAGE, module)
        known = before if "--survivors" in flags else {}
        fates[module] = {key_of(mutant): known.get(key_of(mutant), UNTRIED) for mutant in made}
        mutants += [mutant for mutant in made if fates[module][key_of(mutant)] != KILLED]
    scratch = Path(tempfile.mkdtemp(prefix="mutants-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    done = 0

    def tell(mutant: Mutant, fate: str) -> None:
        nonlocal done
        done += 1
        fates[mutant.module][key_of(mutant)] = fate
        with Path(KEPT).open("wb") as kept:
            kept.write(msgspec.json.encode(fates))
        if fate != KILLED or done % 100 == 0:
            print(f"{done}/{len(mutants)} {mutant.module}:{mutant.line} {fate}", file=sys.stderr, flush=True)

    def in_session() -> int:
        """Everything that needs the package imported; the process that forks the others must never import it."""
        session = Session(mutants, scratch, tell)
        files = sorted({f"tests/{name}" for module in modules for name in told.tests[module]})
        pytest.main([*ARGUMENTS, f"--basetemp={scratch / 'tmp'}", *files], plugins=[session])
        for name in session.reached.failed:
            print(f"fails without any fault: {name}", file=sys.stderr, flush=True)
        return 1 if session.reached.failed or not session.reached.seconds else 0

    try:
        if _loud(in_session):
            return False
        fates.update(msgspec.json.decode(KEPT.read_bytes()) if KEPT.exists() else {})
        reached = msgspec.json.decode((scratch / "reached.json").read_bytes(), type=Reached)
        sound: set[str] = set()
        for mutant in mutants if "--functions" not in flags else ():
            if not at_import(mutant, reached):
                continue
            tests = tests_for(mutant, reached, Counter())
            seconds = sum(reached.seconds[name] for name in tests)
            if mutant.module not in sound:
                itself = mutant._replace(source=(PACKAGE / mutant.module).read_text(encoding="utf-8"))
                if not survives_import(itself, tests, scratch, seconds):
                    print(f"fails when imported afresh, without any fault: {mutant.module}", file=sys.stderr)
                    return False
                sound.add(mutant.module)
            tell(mutant, SURVIVED if survives_import(mutant, tests, scratch, seconds) else KILLED)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report(fates, modules)
    return True


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
    os.chdir(PROJECT)
    sys.path.insert(0, str(PROJECT))
    known = reviewed().tests
    asked = [part for part in sys.argv[1:] if not part.startswith("-")]
    modules = asked or list(known)
    if strangers := [module for module in modules if module not in known]:
        print(f"mutants.toml names no tests for {', '.join(strangers)}", file=sys.stderr)
        return 2
    if "--report" in sys.argv:
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
    return 0 if run(modules, {part for part in sys.argv[1:] if part.startswith("-")}) else 1


if __name__ == "__main__":
    sys.exit(main())
