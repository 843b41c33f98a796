"""The states of a payout and the arrows between them: one table, one pure function.

This module decides nothing about providers or files. It says which moves exist, so that every other part (and the
journal's own SQL guard, which is generated from the same table) refuses the moves that could pay twice. `ready ->
sending` is the only arrow that opens a dispatch, and nothing leads back to `ready` without proof or a person. Sending
an `unknown` payout again under a key that pays once is a way of asking, and no arrow: it stays `unknown` meanwhile.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from payout_engine.domain.errors import IllegalMoveError


class State(StrEnum):
    """Where one payout stands. The words are what people see; `LETTERS` is how the journal stores them."""

    READY = "ready"  # validated, routed, not on the wire
    SENDING = "sending"  # intent durable; the provider may or may not have heard
    ACCEPTED = "accepted"  # the provider acknowledged; verdict later
    UNKNOWN = "unknown"  # we spoke and do not know
    HELD = "held"  # only a person can say
    PAID = "paid"  # money moved
    FAILED = "failed"  # the provider states it did not pay
    REJECTED = "rejected"  # our rules refused the line
    CANCELLED = "cancelled"  # a person withdrew it before it was sent
    REVERSED = "reversed"  # was paid, then taken back


class Edge(NamedTuple):
    """One arrow: from `source` to `target`, and what must be true for it."""

    source: State
    target: State
    needs: str


EDGES: tuple[Edge, ...] = (
    Edge(State.READY, State.SENDING, "a durable intent, written before the first byte leaves"),
    Edge(State.READY, State.HELD, "a doubt found before sending, such as a repeated reference"),
    Edge(State.READY, State.CANCELLED, "a person withdrew it"),
    Edge(State.SENDING, State.ACCEPTED, "the provider acknowledged it"),
    Edge(State.SENDING, State.PAID, "the provider states it paid"),
    Edge(State.SENDING, State.FAILED, "the provider states it did not pay"),
    Edge(State.SENDING, State.UNKNOWN, "no answer, or one that proves nothing"),
    Edge(State.SENDING, State.READY, "the bytes provably never left, or a documented refusal before processing"),
    Edge(State.ACCEPTED, State.PAID, "the provider states it paid"),
    Edge(State.ACCEPTED, State.FAILED, "the provider states it did not pay"),
    Edge(State.ACCEPTED, State.HELD, "the provider contradicts itself"),
    Edge(State.UNKNOWN, State.ACCEPTED, "a look-up, or resending, found it"),
    Edge(State.UNKNOWN, State.PAID, "a look-up, or resending, found it paid"),
    Edge(State.UNKNOWN, State.FAILED, "a look-up, or resending, found it failed"),
    Edge(State.UNKNOWN, State.HELD, "the provider contradicts itself"),
    Edge(State.UNKNOWN, State.READY, "final evidence that the provider never received it"),
    Edge(State.HELD, State.READY, "a person released it"),
    Edge(State.HELD, State.PAID, "a person saw that it was paid"),
    Edge(State.HELD, State.FAILED, "a person saw that it was not paid"),
    Edge(State.HELD, State.CANCELLED, "a person withdrew it"),
    Edge(State.FAILED, State.HELD, "the provider contradicts itself: it also shows a transfer that did not fail"),
    Edge(State.CANCELLED, State.HELD, "the provider contradicts us: it shows a transfer of what was never sent"),
    Edge(State.PAID, State.REVERSED, "the provider took it back"),
)

MOVES: frozenset[tuple[State, State]] = frozenset((edge.source, edge.target) for edge in EDGES)

LETTERS: dict[State, str] = {
    State.READY: "r",
    State.SENDING: "s",
    State.ACCEPTED: "a",
    State.UNKNOWN: "u",
    State.HELD: "h",
    State.PAID: "p",
    State.FAILED: "f",
    State.REJECTED: "x",
    State.CANCELLED: "c",
    State.REVERSED: "v",
}
STATES_BY_LETTER: dict[str, State] = {letter: state for state, letter in LETTERS.items()}

INITIAL_STATES: frozenset[State] = frozenset({State.READY, State.HELD, State.REJECTED})
"""The states a line may begin in."""

OPEN: frozenset[State] = frozenset({State.SENDING, State.ACCEPTED, State.UNKNOWN})
"""The states in which the provider may still tell us something."""

UNPAID: frozenset[State] = frozenset({State.FAILED, State.REJECTED, State.CANCELLED, State.REVERSED})
"""The states in which the payee provably does not have the money and nobody is about to send it."""

ATTENTION: frozenset[State] = frozenset({State.HELD, State.UNKNOWN})
"""The states that wait for a person once the engine has done what it can."""


def move(source: State, target: State) -> State:
    """Return `target` if the arrow exists; a state may always stay as it is.

    Raises:
        IllegalMoveError: the table has no such arrow. This is a fault of ours, never of a provider or a file.
    """
    if source is target or (source, target) in MOVES:
        return target
    raise IllegalMoveError(f"a payout cannot go from {source} to {target}")
