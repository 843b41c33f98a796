"""The pace: never over the limit at the provider's clock, and close to it. In simulated time."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import anyio
import pytest
from simulation import virtual_time

from payout_engine.payment.rate_limiter import GUARD_SECONDS_MAX, WITHOUT_A_RATE_SECONDS, Pace


async def arrivals(pace: Pace, calls: int, delay: Callable[[], tuple[float, float]]) -> list[float]:
    """Make `calls` concurrent calls; return when each arrived, by the provider's clock, in order of arrival."""
    arrived: list[float] = []

    async def call() -> None:
        async with pace.turn() as turn:
            turn.begin()
            there_seconds, back_seconds = delay()
            await anyio.sleep(there_seconds)
            arrived.append(anyio.current_time())
            await anyio.sleep(back_seconds)

    async with anyio.create_task_group() as tasks:
        for _ in range(calls):
            tasks.start_soon(call)
    return sorted(arrived)


def most_in_a_second(arrived: list[float], window_seconds: float = 1.0) -> int:
    """Return the most calls in any half-open sliding window."""
    most = first = 0
    for last, at in enumerate(arrived):
        while at - arrived[first] >= window_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize(("jitter_seconds", "share"), [(0.0, 0.99), (0.010, 0.98), (0.040, 0.95)])
@pytest.mark.parametrize("seed", range(20))
def test_the_limit_is_kept_full_and_never_exceeded(jitter_seconds: float, share: float, seed: int) -> None:
    """Whatever the jitter, no sliding second holds six calls, and little of the rate is lost."""
    chance = random.Random(seed)

    async def main() -> list[float]:
        return await arrivals(Pace(5.0), 600, lambda: (0.02 + chance.uniform(0, jitter_seconds), 0.02))

    arrived = virtual_time.run(main())

    assert most_in_a_second(arrived) == 5
    assert (len(arrived) - 5) / (arrived[-1] - arrived[4]) >= 5 * share


@pytest.mark.parametrize("seed", range(20))
def test_a_slow_provider_is_not_called_too_often(seed: int) -> None:
    """Answers that take up to three seconds delay nothing and hide nothing."""
    chance = random.Random(seed)

    async def main() -> list[float]:
        return await arrivals(Pace(5.0), 100, lambda: (0.01 + chance.uniform(0, 0.02), chance.uniform(0.5, 3.0)))

    assert most_in_a_second(virtual_time.run(main())) <= 5


def test_rates_below_one_per_second() -> None:
    """One call per four seconds means just that."""

    async def main() -> list[float]:
        return await arrivals(Pace(0.25), 5, lambda: (0.01, 0.01))

    arrived = virtual_time.run(main())

    assert all(later - earlier >= 4.0 for earlier, later in pairwise(arrived))


def test_a_turn_that_never_begins_gives_its_place_back() -> None:
    """Turns given up in mid-wait do not use up the rate."""

    async def main() -> float:
        pace = Pace(5.0)
        for _ in range(50):
            async with pace.turn():
                pass
        return anyio.current_time()

    assert virtual_time.run(main()) < 50 / 5.0


def test_one_that_is_halted_does_not_loosen_the_pace_of_others() -> None:
    """Two accounts with one key share a pace: a brake of one ends its waiting, and the limit holds for the other."""

    async def main() -> list[float]:
        pace, halted = Pace(5.0), anyio.Event()

        async def give_up() -> None:
            async with pace.turn(halted):
                assert halted.is_set(), "it was not its turn yet"

        arrived: list[float] = []
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                arrived += await arrivals(pace, 5, lambda: (0.02, 0.02))
                tasks.start_soon(give_up)
                await anyio.sleep(0.001)
                halted.set()
        return sorted(arrived)

    assert most_in_a_second(virtual_time.run(main())) <= 5


def test_a_refusal_slows_the_pace_for_good() -> None:
    """After a refusal for the rate the provider's pause is kept, and the margin stays wider."""

    async def main() -> float:
        pace = Pace(5.0)
        before_seconds = pace.guard_seconds
        pace.slow_down(3.0)
        async with pace.turn() as turn:
            turn.begin()
        assert pace.guard_seconds > before_seconds
        return anyio.current_time()

    assert virtual_time.run(main()) >= 3.0


def test_calls_of_an_earlier_process_still_count() -> None:
    """A pace that takes over an account waits one window before its first call."""

    async def main() -> float:
        async with Pace(5.0, used_before=True).turn() as turn:
            turn.begin()
        return anyio.current_time()

    assert virtual_time.run(main()) >= 1.0


def test_no_documented_rate_means_no_waiting() -> None:
    """Without a rate every turn comes at once."""

    async def main() -> float:
        await arrivals(Pace(None), 1000, lambda: (0.0, 0.0))
        return anyio.current_time()

    assert virtual_time.run(main()) < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_a_turn_counts_from_when_its_call_leaves(seed: int) -> None:
    """However long writing the intent takes between the turn and the call."""
    chance = random.Random(seed)

    async def main() -> list[float]:
        pace, arrived = Pace(5.0), list[float]()

        async def call() -> None:
            async with pace.turn() as turn:
                await anyio.sleep(chance.choice([0.0, 0.0, 1.5]))
                turn.begin()
                await anyio.sleep(0.02)
                arrived.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(call)
        return sorted(arrived)

    assert most_in_a_second(virtual_time.run(main())) <= 5


def test_calls_without_an_answer_hold_up_nobody() -> None:
    """A call counts as having arrived a window after it left, answered or not."""

    async def main() -> list[float]:
        return await arrivals(Pace(5.0), 20, lambda: (0.01, 60.0))

    assert virtual_time.run(main())[-1] < 10.0


def test_calls_are_spread_within_a_window() -> None:
    """Not in one burst: they are kept most of their even distance apart; beyond what timers can do, only counted."""

    async def main(rate: float) -> list[float]:
        return await arrivals(Pace(rate), 50, lambda: (0.01, 0.01))

    assert min(later - earlier for earlier, later in pairwise(virtual_time.run(main(5.0)))) >= 0.8 / 5.0 - 1e-6
    assert most_in_a_second(virtual_time.run(main(20.0))) <= 20
    quick = virtual_time.run(main(1000.0))
    assert quick[-1] - quick[0] < 0.05


@pytest.mark.parametrize("asked_seconds", [None, 0.2, 4.0])
def test_a_refusal_pauses_as_long_as_it_says_or_for_a_window(asked_seconds: float | None) -> None:
    """And a shorter word after a longer one shortens nothing; the margin has an end."""

    async def main() -> float:
        pace = Pace(5.0)
        begun = anyio.current_time()
        pace.slow_down(asked_seconds)
        pace.slow_down(0.1)
        async with pace.turn() as turn:
            turn.begin()
        waited = anyio.current_time() - begun
        for _ in range(50):
            pace.slow_down(None)
        assert pace.guard_seconds == GUARD_SECONDS_MAX
        Pace(None).slow_down(None)
        return waited

    wanted = 1.0 if asked_seconds is None else asked_seconds
    assert wanted <= virtual_time.run(main()) < wanted + 0.1


def test_who_is_halted_waits_for_nothing() -> None:
    """Neither for a pause, nor for a window, nor for somebody else's turn that has not begun."""

    async def main() -> float:
        begun, halted = anyio.current_time(), anyio.Event()
        pace = Pace(1.0)
        async with pace.turn() as held, anyio.create_task_group() as tasks:
            with anyio.fail_after(0.5):
                done = anyio.Event()
                done.set()
                async with pace.turn(done):
                    pass
            held.begin()

            async def wait(pace: Pace) -> None:
                async with pace.turn(halted):
                    assert halted.is_set()

            tasks.start_soon(wait, pace)
            tasks.start_soon(wait, Pace(1.0, used_before=True))
            await anyio.sleep(0.1)
            halted.set()
        return anyio.current_time() - begun

    assert virtual_time.run(main()) < 0.2


def test_the_first_call_waits_for_nobody() -> None:
    """Where no other process used the rate before."""

    async def main() -> float:
        begun = anyio.current_time()
        async with Pace(1.0).turn() as turn:
            turn.begin()
        return anyio.current_time() - begun

    assert virtual_time.run(main()) < 0.001


def test_the_margin_is_kept_between_windows() -> None:
    """After refusals a call counts for its window and the whole margin, however the calls before it ended."""

    async def main() -> list[float]:
        pace = Pace(1.0)
        for _ in range(20):
            pace.slow_down(0.0)
        return await arrivals(pace, 4, lambda: (0.0, 0.0))

    arrived = virtual_time.run(main())
    assert all(later - earlier >= 1.0 + GUARD_SECONDS_MAX - 1e-6 for earlier, later in pairwise(arrived))

    async def one_by_one() -> list[float]:
        pace, left = Pace(1.0), list[float]()
        for _ in range(20):
            pace.slow_down(0.0)
        for _ in range(4):
            async with pace.turn() as turn:
                turn.begin()
                left.append(anyio.current_time())
            await anyio.sleep(0.9)
        return left

    left = virtual_time.run(one_by_one())
    assert all(later - earlier >= 1.0 + GUARD_SECONDS_MAX - 1e-6 for earlier, later in pairwise(left))


@pytest.mark.parametrize(
    ("rate", "asked_seconds", "expected"),
    [(None, 3.0, 3.0), (None, None, WITHOUT_A_RATE_SECONDS), (0.2, 7.0, 7.0), (0.2, None, 5.0)],
)
def test_a_refusal_is_waited_out_with_or_without_a_rate(
    rate: float | None, asked_seconds: float | None, expected: float
) -> None:
    """As long as was asked for, else for a window, or a moment where none is known; and a halt ends it at once."""

    async def main() -> None:
        pace, halted = Pace(rate), anyio.Event()
        async with pace.turn():
            pace.slow_down(asked_seconds)
        begun_at = anyio.current_time()
        async with pace.turn():
            assert anyio.current_time() - begun_at == pytest.approx(expected, abs=0.1)
        pace.slow_down(1_000.0)
        begun_at = anyio.current_time()

        async def halt() -> None:
            await anyio.sleep(10.0)
            halted.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(halt)
            async with pace.turn(halted):
                assert anyio.current_time() - begun_at == pytest.approx(10.0, abs=0.1)

    virtual_time.run(main())
