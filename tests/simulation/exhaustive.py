"""Every way in which a small run can be cut off, and go on: all combinations, without any chance.

    PYTHONPATH=tests python -m simulation.exhaustive
    PYTHONPATH=tests python -m simulation.exhaustive --only "sweep none never | lost + paid | after intend 2 | retry"

A file of four lines is paid in two chunks of two, by two workers. Combined are, each with all others:

- what the provider promises: how it can be asked, what a key does, whether an absence proves anything (`PROMISES`);
- the fate of each chunk at the bank (`Fate`): both the same, or one that is paid at once beside another; `--pairs all`
  combines every two;
- the step at which the first life ends: every call of the journal and on the wire that such a run makes (found by
  living it once without a crash), each before, inside and after it; and no crash;
- the command of the second life (`Following`);
- with `--depth 2`, also each money step of that second life, before, inside and after it. Then the file is run again.

Then nothing goes wrong any more until everything is at rest, and all that holds in any simulation must hold.

What a crash leaves is a world: the files and the bank. Many crashes leave the same one, because most calls only read,
and a transaction that was not committed leaves nothing. From each world every command is tried once, and from each
world that a command leads to, the calm; so a combination counts as tried when somebody has lived on from the world that
it led to. All figures are told. Two worlds are the same when their journals have the same entries, states, runs,
dispatches and requests, the same locks lie about, as much was told to the event files, and the bank has heard and would
say the same. Times and random names are not compared, and no world is taken for one with other promises or fates.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from simulation.crashing import Moment, Step
from simulation.lives import FAST_FOLDER
from simulation.small_world import PROMISES, Case, Fate, Following, Place, Promise, SmallWorld, live

MONEY_STEPS = frozenset({"intend", "send", "record", "approve", "reconcile"})
"""Where the second life may die."""

PAIRS = ("same", "deviations", "all")
"""Which fates are combined: both the same; also one chunk paid at once beside every other fate; every two."""

Fates = tuple[Fate, Fate]


class Tally(msgspec.Struct):
    """What came of many combinations.

    Attributes:
        combinations: how many there were.
        lived: how many of them were lived to the end; the others lead to a world from which somebody else lived on.
        worlds: how many different worlds a crash left.
        steps: by call and moment, how many combinations ended the first life there.
        ends: payouts by their final state.
        failures: what did not hold, by case.
    """

    combinations: int = 0
    lived: int = 0
    worlds: int = 0
    steps: Counter[str] = msgspec.field(default_factory=Counter)
    ends: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[tuple[str, str]] = msgspec.field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add up."""
        self.combinations += other.combinations
        self.lived += other.lived
        self.worlds += other.worlds
        self.steps.update(other.steps)
        self.ends.update(other.ends)
        self.failures += other.failures


def pairs(which: str) -> Sequence[Fates]:
    """Return the fates that are combined; see `PAIRS`."""
    if which == "all":
        return list(product(Fate, Fate))
    same = [(fate, fate) for fate in Fate]
    if which == "same":
        return same
    others = [fate for fate in Fate if fate is not Fate.PAID]
    return [*same, *((fate, Fate.PAID) for fate in others), *((Fate.PAID, fate) for fate in others)]


# ------------------------------------------------------------------------------------------- one promise, two fates


class Examination:
    """All combinations of one promise and two fates.

    Args:
        promise: of the provider.
        fates: of the chunks.
        folder: for the journal.
        depth: how many lives may die.
    """

    def __init__(self, promise: Promise, fates: Fates, folder: Path, depth: int) -> None:
        self.tally = Tally()
        self._promise = promise
        self._fates = fates
        self._folder = folder
        self._depth = depth
        self._after_first: set[str] = set()
        self._after_second: set[str] = set()

    def lives(self) -> Iterator[SmallWorld]:
        """Try all of them; yield each that is lived to its end."""
        whole = live(self._case(None, Following.FILE_AGAIN), self._folder, recording=1)
        yield from self._try(None)
        for step, differs in _crashes(whole.places):
            yield from self._try(step, differs=differs)
        self.tally.worlds = len(self._after_first)

    def _case(self, step: Step | None, following: Following, second: Step | None = None) -> Case:
        return Case(self._promise, self._fates, step, following, second)

    def _try(self, step: Step | None, *, differs: bool = True) -> Iterator[SmallWorld]:
        """End the first life at a step, and go on from there in every way, unless that was done from the same world."""
        self.tally.combinations += len(Following)
        self.tally.steps[f"{step.moment} {step.name}" if step else "no crash"] += len(Following)
        left = ""
        for following in Following if differs else ():
            known = {1: () if left else self._after_first, 2: self._after_second}
            lived = live(self._case(step, following), self._folder, known, recording=2 if self._depth > 1 else 0)
            if lived.known == 1:
                return
            yield from self._noted(lived)
            if not lived.worlds:
                return  # It broke, which is noted.
            left = lived.worlds[0]
            self._after_first.add(left)
            if self._depth > 1:
                yield from self._deeper(step, following, lived.places)

    def _deeper(self, step: Step | None, following: Following, places: Sequence[Place]) -> Iterator[SmallWorld]:
        """End the second life as well, at each of its money steps."""
        for second, differs in _crashes([place for place in places if place.name in MONEY_STEPS]):
            self.tally.combinations += 1
            self.tally.steps[f"then {second.moment} {second.name}"] += 1
            if differs:
                case = self._case(step, following, second)
                yield from self._noted(live(case, self._folder, {2: self._after_second}))

    def _noted(self, lived: SmallWorld) -> Iterator[SmallWorld]:
        """Yield what was lived to its end."""
        if not lived.known:
            self._after_second.update(lived.worlds[1:])
            self.tally.lived += 1
            self.tally.ends.update({str(state): count for state, count in lived.report.counts.items()})
            self.tally.failures += [(str(lived.case), violation) for violation in lived.report.violations]
            yield lived


def _crashes(places: Sequence[Place]) -> Iterator[tuple[Step, bool]]:
    """Yield every step at which a life may end, and whether that may leave another world than those before it.

    While nothing changes, all crashes leave the same: that of the first.
    """
    seen = set()
    for place in places:
        for moment in (Moment.BEFORE, Moment.INSIDE, Moment.AFTER):
            differs = place.world not in seen if moment is Moment.BEFORE else place.changes
            yield Step(place.number, moment, place.name), differs
        seen.add(place.world)


def examine(chosen: tuple[Promise, Fates], depth: int = 1) -> Tally:
    """Try all combinations of one promise and two fates."""
    with TemporaryDirectory(prefix="small-", dir=FAST_FOLDER if FAST_FOLDER.is_dir() else None) as folder:
        examination = Examination(*chosen, Path(folder), depth)
        for _ in examination.lives():
            pass
        return examination.tally


# --------------------------------------------------------------------------------------------------------- the command


def explain(text: str) -> tuple[str, int]:
    """Live one case again; return what happened, and how much of it must not."""
    case = _case_of(text)
    with TemporaryDirectory(prefix="small-") as folder:
        report = live(case, Path(folder)).report
    told = [str(case), *report.trace, *(f"!! {violation}" for violation in report.violations)]
    return "\n".join(told), len(report.violations)


def _case_of(text: str) -> Case:
    """Read a case as it was printed.

    Raises:
        ValueError: it is none.
    """
    promise, fates, step, following, *second = [part.strip() for part in text.split("|")]
    first, _, other = fates.partition(" + ")
    return Case(
        next(one for one in PROMISES if str(one) == promise),
        (Fate(first), Fate(other)),
        _step_of(step),
        Following(following),
        _step_of(second[0]) if second else None,
    )


def _step_of(text: str) -> Step | None:
    if text == "no crash":
        return None
    moment, name, number = text.split()
    return Step(int(number), Moment(moment), name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all combinations; tell each that fails. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="PYTHONPATH=tests python -m simulation.exhaustive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", choices=PAIRS, default="deviations", help="which fates of two chunks are combined")
    parser.add_argument("--depth", type=int, choices=(1, 2), default=1, help="how many lives may die")
    parser.add_argument("--workers", type=int, default=1, help="how many processes share the work")
    parser.add_argument("--only", metavar="CASE", help="live this one, and tell everything that happens")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    if options.only:
        told, failed = explain(options.only)
        sys.stdout.write(f"{told}\n")
        return int(failed > 0)
    chosen = [(promise, fates) for fates in pairs(options.pairs) for promise in PROMISES]
    total, began_at = Tally(), time.monotonic()
    with Pool(options.workers) as pool:
        for done, tally in enumerate(pool.imap(partial(examine, depth=options.depth), chosen), start=1):
            total.add(tally)
            for case, violation in tally.failures:
                sys.stdout.write(f'{violation}\n    PYTHONPATH=tests python -m simulation.exhaustive --only "{case}"\n')
            if done % 10 == 0 or done == len(chosen):
                seconds = time.monotonic() - began_at
                sys.stdout.write(f"{done} of {len(chosen)} promises and fates in {seconds:.0f} s: {_summary(total)}\n")
                sys.stdout.flush()
    sys.stdout.write(_by_dimension(total, options.pairs))
    return int(bool(total.failures))


def _summary(total: Tally) -> str:
    return (
        f"{total.combinations:,} combinations lead to {total.worlds:,} worlds, {total.lived:,} lived to the end; "
        f"{len(total.failures)} violations"
    )


def _by_dimension(total: Tally, which: str) -> str:
    steps = ", ".join(f"{count:,} {step}" for step, count in sorted(total.steps.items()))
    ends = ", ".join(f"{count:,} {state}" for state, count in sorted(total.ends.items()))
    return (
        f"{len(PROMISES)} promises, {len(pairs(which))} pairs of {len(Fate)} fates, {len(Following)} commands\n"
        f"by step: {steps}\npayouts at the end: {ends}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
