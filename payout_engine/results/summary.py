"""What a run came to: counts and amounts by state, what they mean for a person, and the exit code.

Pure; made from a run's tally and from how paying ended. The command line prints it, `--json` carries it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from payout_engine.domain.ending import Ending
from payout_engine.domain.model import Tally
from payout_engine.domain.states import State


class Exit(IntEnum):
    """The exit codes of the command line."""

    ALL_PAID = 0
    SOME_NOT_PAID = 1
    UNUSABLE = 2
    NEEDS_A_PERSON = 3
    BRAKE = 4
    NOT_SETTLED = 5
    FAULT = 70
    INTERRUPTED = 130


class Total(msgspec.Struct, frozen=True):
    """How many payouts, and how much in each currency, stand in one state."""

    state: State
    count: int
    amounts_minor: dict[str, int]


class Summary(msgspec.Struct, frozen=True):
    """A run in one look.

    Attributes:
        run_id: the run.
        lines: all lines of the input.
        totals: by state, in the order of the lifecycle; states without payouts are left out.
        exit_code: as documented for the command line.
    """

    run_id: str
    lines: int
    totals: Sequence[Total]
    exit_code: int

    def count(self, *states: State) -> int:
        """Return how many payouts stand in these states."""
        return sum(total.count for total in self.totals if total.state in states)

    def amounts_minor(self, *states: State) -> dict[str, int]:
        """Return how much stands in these states, by currency."""
        amounts: dict[str, int] = {}
        for total in self.totals:
            if total.state in states:
                for currency, amount_minor in total.amounts_minor.items():
                    amounts[currency] = amounts.get(currency, 0) + amount_minor
        return amounts


def summarize(run_id: str, tallies: Sequence[Tally], ending: Ending | None = None, *, conflicts: int = 0) -> Summary:
    """Return the summary of a run.

    Args:
        run_id: the run.
        tallies: its counts and sums.
        ending: how paying ended; None for a look at the journal alone.
        conflicts: what the provider says against itself or us; each needs a person, whatever the states say.
    """
    totals = [total for state in State if (total := _total(state, tallies)).count]
    summary = Summary(run_id, sum(total.count for total in totals), totals, 0)
    return msgspec.structs.replace(summary, exit_code=int(_exit(summary, ending or Ending(), conflicts)))


def _total(state: State, tallies: Sequence[Tally]) -> Total:
    amounts: dict[str, int] = {}
    chosen = [tally for tally in tallies if tally.state is state]
    for tally in chosen:
        amounts[tally.lane.currency] = amounts.get(tally.lane.currency, 0) + tally.amount_minor
    amounts.pop("", None)  # Refused lines belong to no lane; their amounts were never validated.
    return Total(state, sum(tally.count for tally in chosen), amounts)


def _exit(summary: Summary, ending: Ending, conflicts: int) -> Exit:
    """The most urgent thing to say decides: what was interrupted, what is stopped, what is open, who is needed."""
    if ending.interrupted and summary.count(State.READY, State.SENDING, State.ACCEPTED, State.UNKNOWN):
        return Exit.INTERRUPTED
    if ending.stops or summary.count(State.READY):
        return Exit.BRAKE
    if summary.count(State.SENDING, State.ACCEPTED):
        return Exit.NOT_SETTLED
    if summary.count(State.HELD, State.UNKNOWN) or conflicts:
        return Exit.NEEDS_A_PERSON
    if summary.count(State.PAID) < summary.lines:
        return Exit.SOME_NOT_PAID
    return Exit.ALL_PAID
