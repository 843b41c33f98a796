"""Keeping a provider's documented call rate full and never over it, as the provider's own clock sees it.

A limit of 5 calls per second means: of any six calls in a row, the last arrives a full second after the first. We see
only when a call left and when its answer came. A call that took longer than the quickest one may have arrived later by
that difference, and by no more, so the sixth call waits that much longer. Jitter is thus learned call by call and never
has to be guessed; what no clock can see (a path that suddenly becomes quicker, another program on the same account) is
learned from the provider's own refusals. `aiolimiter` spreads the calls within the second.

The pipeline's dispatch takes one turn per paying call; nothing here counts payouts.
"""

from __future__ import annotations

from collections import deque

import anyio
from aiolimiter import AsyncLimiter

GUARD_SECONDS = 0.001
"""Added to every window: below it lie the rounding of clocks and the wake-up of an event loop."""

WITHOUT_A_RATE_SECONDS = 1.0
"""The pause after a refusal for a rate that no document names, where the answer does not say how long."""

GUARD_SECONDS_MAX = 0.5
"""The most that refusals can add to the window; a provider that still refuses is not refusing for the rate."""

SPREAD = 0.8
"""Calls are kept at least this share of their even distance apart, so that a window is not used up in one burst.
Not the full distance: a call that was late could then never be caught up."""

SPREAD_CALLS_MAX = 200.0
"""Above this rate calls are closer together than timers are exact, and only the window is kept."""

FLOOR_CALLS = 1_000
"""The quickest of this many recent calls is taken for the time that every call takes."""

FLOOR_CALLS_MIN = 50
"""With fewer answers than this the quickest call is not known, and every call counts as having arrived at its end."""

FLOOR_DOUBT = 0.05
"""A call may yet be quicker than the quickest seen, by about this share of the spread that was seen."""


class Turn:
    """One permitted call, for the length of an `async with`. `begin` marks the moment it leaves.

    Args:
        pace: who permits it.
        halted: as for `Pace.turn`.
    """

    def __init__(self, pace: Pace, halted: anyio.Event | None) -> None:
        self.begun_at: float | None = None
        self.ended_at: float | None = None
        self.settled = anyio.Event()
        self._pace = pace
        self._halted = halted

    async def __aenter__(self) -> Turn:
        await self._pace.wait(self, self._halted)
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._pace.end(self)

    def begin(self) -> None:
        """Mark that the call leaves now."""
        self.begun_at = anyio.current_time()
        self.settled.set()


class Pace:
    """The right to call, at most `calls_per_second` in any sliding window.

    Args:
        calls_per_second: the documented rate; None means that there is none: every turn comes at once, but for a
            pause that a refusal asked for.
        used_before: True when calls of an earlier process may still count: the first turn waits one whole window.
    """

    def __init__(self, calls_per_second: float | None, *, used_before: bool = False) -> None:
        self.guard_seconds = GUARD_SECONDS
        self._never = anyio.Event()
        self._not_before = 0.0
        self._lock = anyio.Lock()
        self._limiter: AsyncLimiter | None = None
        self._durations: deque[float] = deque(maxlen=FLOOR_CALLS)
        self._recent: deque[Turn] = deque()
        self._calls = 0
        self._window_seconds = 0.0
        if calls_per_second is not None:
            self._calls = max(1, int(calls_per_second))
            self._window_seconds = self._calls / calls_per_second
            if calls_per_second <= SPREAD_CALLS_MAX:
                self._limiter = AsyncLimiter(1, SPREAD / calls_per_second)
            if used_before:
                self._not_before = anyio.current_time() + self._window_seconds

    def turn(self, halted: anyio.Event | None = None) -> Turn:
        """Return a turn, to be waited for and taken with `async with`. One that never begins gives its place back.

        Args:
            halted: ends the waiting of this caller alone, who then has to see that it must not call. Others that share
                the pace wait as before.
        """
        return Turn(self, halted)

    async def taken(self, halted: anyio.Event | None = None) -> Turn:
        """Return a turn that was waited for; whoever takes it has to `end` it."""
        turn = self.turn(halted)
        await self.wait(turn, halted)
        return turn

    async def wait(self, turn: Turn, halted: anyio.Event | None) -> None:
        """Wait until one more call may be made."""
        if self._calls:
            async with self._lock:
                if await self._waited(halted or self._never):
                    self._recent.append(turn)
        else:
            await self._wait_until(self._not_before, halted or self._never)

    def slow_down(self, retry_after_seconds: float | None) -> None:
        """Learn from a refusal for the rate: pause as asked, or for a window, and keep a wider margin from now on."""
        self.guard_seconds = min(max(self.guard_seconds * 2, 0.01), GUARD_SECONDS_MAX)
        window_seconds = self._window_seconds or WITHOUT_A_RATE_SECONDS
        pause_seconds = retry_after_seconds if retry_after_seconds is not None else window_seconds
        self._not_before = max(self._not_before, anyio.current_time() + pause_seconds)

    async def _waited(self, halted: anyio.Event) -> bool:
        """Wait until the call that opened the current window counts no longer; tell whether nobody halted us."""
        self._forget()
        if len(self._recent) >= self._calls and not halted.is_set():
            await self._recent[0].settled.wait()
            await self._wait_until(self._leaves_window_at(self._recent[0]), halted)
            if not halted.is_set():
                self._recent.popleft()
        await self._wait_until(self._not_before, halted)
        if self._limiter is not None and not halted.is_set():
            await self._limiter.acquire()
        return not halted.is_set()

    def _forget(self) -> None:
        """Let go of calls that arrived a whole window ago at the latest, so that a high rate needs no memory."""
        past = anyio.current_time() - self._window_seconds - self.guard_seconds
        while self._recent and self._recent[0].ended_at is not None and self._recent[0].ended_at <= past:
            self._recent.popleft()

    async def _wait_until(self, at: float, halted: anyio.Event) -> None:
        if at > anyio.current_time():
            with anyio.move_on_after(at - anyio.current_time()):
                await halted.wait()

    def _leaves_window_at(self, turn: Turn) -> float:
        """Return when `turn` counts no longer, given the latest moment at which it can have arrived."""
        if turn.begun_at is None:
            return 0.0
        known = len(self._durations) >= FLOOR_CALLS_MIN
        floor_seconds = self._floor_seconds() if known else 0.0
        if turn.ended_at is not None:
            late_seconds = turn.ended_at - turn.begun_at - floor_seconds
        else:
            late_seconds = max(self._durations) - floor_seconds if known else self._window_seconds
        return turn.begun_at + late_seconds + self._window_seconds + self.guard_seconds

    def _floor_seconds(self) -> float:
        """Return what even the quickest call takes, with some doubt taken off."""
        quickest_seconds = min(self._durations)
        return max(0.0, quickest_seconds - FLOOR_DOUBT * (max(self._durations) - quickest_seconds))

    def end(self, turn: Turn) -> None:
        """Learn from a call that is over how long it took; more than once is once."""
        if turn.begun_at is not None and turn.ended_at is None:
            turn.ended_at = anyio.current_time()
            self._durations.append(turn.ended_at - turn.begun_at)
        turn.settled.set()
