"""What the processes of a benchmark tell each other, and what a process knows of its own cost."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import msgspec

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
        profile: run under cProfile.
    """

    case: str
    base_url: str
    folder: str
    file: str
    lines: int
    rate_per_second: float = 0.0
    profile: bool = False


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a client process measured of itself.

    Attributes:
        seconds: of the whole case, start-up of Python and preparation left out.
        cpu_seconds: of all its threads, in that time.
        peak_bytes: the most memory it ever held, preparation included.
        count: payouts it saw to their end.
        amount_minor: their sum.
        phases: seconds by phase.
        trouble: why its figures count for nothing, or empty.
        profile: where the time went, if it was asked.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    count: int = 0
    amount_minor: int = 0
    phases: dict[str, float] = {}
    trouble: str = ""
    profile: str = ""


class Stopwatch:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._started_at = time.perf_counter()
        self._cpu_started_at = _cpu_seconds()
        self._lapped_at = self._started_at
        self.phases: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """End a phase that began with the last one's end."""
        now = time.perf_counter()
        self.phases[phase] = now - self._lapped_at
        self._lapped_at = now

    def measured(self, *, count: int = 0, amount_minor: int = 0, trouble: str = "") -> Measured:
        """Stop, and return what was measured."""
        return Measured(
            seconds=time.perf_counter() - self._started_at,
            cpu_seconds=_cpu_seconds() - self._cpu_started_at,
            peak_bytes=peak_bytes(),
            count=count,
            amount_minor=amount_minor,
            phases=self.phases,
            trouble=trouble,
        )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_bytes() -> int:
    """Return the most memory this process ever held."""
    # Not ru_maxrss where it can be helped: on Linux it also remembers the process that started this one.
    if STATUS.exists():
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
