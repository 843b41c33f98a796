"""How long ago something was, by a clock that nobody can set."""

from __future__ import annotations

import pytest

from payout_engine import clock
from payout_engine.clock import Moment

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
