"""How long ago something was, by a clock that nobody can set."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from payout_engine.domain import clock
from payout_engine.domain.clock import Moment

DAY = 86_400.0


@pytest.mark.parametrize(
    ("wall", "boot", "up", "least"),
    [
        (1_000.0 + 60, "a", 560.0, 60.0),  # an ordinary minute
        (1_000.0 + 365 * DAY, "a", 560.0, 60.0),  # the wall clock was set forward
        (1_000.0 - 3600, "a", 560.0, 60.0),  # or back
        (1_000.0 + DAY, "b", 30.0, 30.0),  # restarted: at least since the start
        (1_000.0 + 60, "b", 90 * DAY, 60.0),  # a journal from another machine, which had been up for long
        (1_000.0 - 3600, "b", 90 * DAY, 0.0),  # the same, and one of the clocks is wrong
    ],
)
def test_an_age_is_never_longer_than_the_truth(wall: float, boot: str, up: float, least: float) -> None:
    """Whatever the wall clock says, and across restarts and machines, the least age is not too long."""
    sent = Moment(1_000.0, "a", 500.0)
    with clock.replaced(lambda: wall, lambda: (boot, up)):
        assert clock.least_age_seconds(sent) == pytest.approx(least)


def test_the_machine_says_how_long_it_has_been_up() -> None:
    """Two looks of one process share a start, and the second is not before the first."""
    first, second = clock.moment(), clock.moment()
    assert first.boot and first.boot == second.boot
    assert 0.0 <= second.up_seconds - first.up_seconds < 60.0
    assert clock.least_age_seconds(first) >= 0.0


def test_later_goes_by_the_uptime_within_one_start() -> None:
    """Between two moments of one start the wall clock has no say; between two starts it is all there is."""
    first, second = Moment(2_000.0, "a", 10.0), Moment(1_000.0, "a", 20.0)
    assert clock.later(first, second) == clock.later(second, first) == second
    elsewhere = Moment(1_500.0, "b", 5.0)
    assert clock.later(elsewhere, second) == clock.later(second, elsewhere) == elsewhere


@pytest.mark.parametrize("lacking", ["boot id", "clock"])
def test_a_machine_that_does_not_say_counts_from_the_first_look(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages are shorter then, never longer: the uptime begins with this process, which is a start of its own."""
    machine = clock.moment()
    if lacking == "boot id":
        monkeypatch.setattr(clock, "_BOOT", "")
    else:
        monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    process = clock.moment()
    assert process.boot and process.boot != machine.boot
    assert 0.0 <= process.up_seconds <= time.monotonic()
    assert process.up_seconds - clock.moment().up_seconds <= 0.0
    assert clock.moment().boot == process.boot


@pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="the system does not say")
def test_two_processes_share_a_start() -> None:
    """An age holds over processes of one start of the machine: the start has the machine's own name for it."""
    assert clock.moment().boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert clock.moment().up_seconds == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=5.0)


def test_times_are_told_in_one_way() -> None:
    """UTC, to the millisecond, with a Z, also where the milliseconds are none."""
    assert clock.text(1_795_215_180.125) == "2026-11-20T22:53:00.125Z"
    assert clock.text(0.0) == "1970-01-01T00:00:00.000Z"


def test_a_time_is_written_for_programs_and_for_people() -> None:
    """In the world's time, to the millisecond or to the minute."""
    at = 1_795_215_180.125
    assert clock.text(at) == "2026-11-20T22:53:00.125Z"
    assert clock.minute(at) == "2026-11-20 22:53 UTC"
