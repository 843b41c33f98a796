"""What the processes of a benchmark tell each other, and what a process knows of its own cost."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import msgspec

from benchmarks.ledger import Audit

STATUS = Path("/proc/self/status")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a client process is to do.

    Attributes:
        case: the name of a function in `clients.CASES`.
        base_url: where the stub listens.
        folder: for the journal and the results; empty before.
        file: the payout file.
        lines: how many payouts the file holds.
        rate_per_second: the account's documented rate, for the engine; 0 lifts it out of the way.
        batch: payouts in one call.
        pays_once: the provider promises that a key pays once.
        accounts: how many accounts pay at once, each its share of the lines.
        profile: run under cProfile.
    """

    case: str
    base_url: str
    folder: str
    file: str
    lines: int
    rate_per_second: float = 0.0
    batch: int = 100
    pays_once: bool = False
    accounts: int = 1
    profile: bool = False


class Phase(msgspec.Struct, frozen=True):
    """A part of a case.

    Attributes:
        seconds: how long it took.
        cpu_seconds: of all threads, in that time.
        count: payouts it dealt with.
    """

    seconds: float
    cpu_seconds: float
    count: int

    @property
    def cpu_us(self) -> float:
        """Processor time for one payout, in microseconds: what a busy machine changes least."""
        return 1e6 * self.cpu_seconds / self.count if self.count else 0.0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a client process measured of itself.

    Attributes:
        seconds: of the whole case, start-up of Python and preparation left out.
        cpu_seconds: of all its threads, in that time.
        peak_bytes: the most memory it ever held, preparation included.
        count: payouts it saw to their end.
        amount_minor: their sum.
        phases: its parts, by name; what is called after the clock was stopped is among them.
        trouble: why its figures count for nothing, or empty.
        profile: where the time went, if it was asked.
        audit: of the ledger, where the provider was simulated in the same process.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    count: int = 0
    amount_minor: int = 0
    phases: dict[str, Phase] = {}
    trouble: str = ""
    profile: str = ""
    audit: Audit | None = None


class Stopwatch:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._started = self._lapped = _now()
        self._stopped: tuple[float, float] | None = None
        self.phases: dict[str, Phase] = {}

    def lap(self, phase: str, count: int) -> None:
        """End a phase that began with the last one's end and dealt with `count` payouts."""
        now = _now()
        self.phases[phase] = Phase(now[0] - self._lapped[0], now[1] - self._lapped[1], count)
        self._lapped = now

    def stop(self) -> None:
        """Let later phases count by themselves only."""
        self._stopped = _now()

    def measured(self, *, count: int = 0, amount_minor: int = 0, trouble: str = "") -> Measured:
        """Return what was measured until it was stopped, or until now."""
        seconds, cpu_seconds = self._stopped or _now()
        return Measured(
            seconds=seconds - self._started[0],
            cpu_seconds=cpu_seconds - self._started[1],
            peak_bytes=peak_bytes(),
            count=count,
            amount_minor=amount_minor,
            phases=self.phases,
            trouble=trouble,
        )


def _now() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def peak_bytes() -> int:
    """Return the most memory this process ever held."""
    # Not ru_maxrss where it can be helped: on Linux it also remembers the process that started this one.
    if STATUS.exists():
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
