"""Write `docs/lifecycle.md` from the table of states and arrows in `payout_engine/domain/states.py`.

Run it after changing the table; a test fails while the page is not what this makes:

    python tools/write_lifecycle.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase

from payout_engine.domain.states import ATTENTION, EDGES, INITIAL_STATES, OPEN, UNPAID, Edge, State

PAGE = Path(__file__).parent.parent / "docs" / "lifecycle.md"

MEANINGS: Mapping[State, str] = {
    State.READY: "Validated and routed; nothing was sent.",
    State.SENDING: "The intent to send it is on the disk; the provider may or may not have heard. A crash here leaves "
    "`unknown`, never `ready`.",
    State.ACCEPTED: "The provider acknowledged it and will say later what became of it.",
    State.UNKNOWN: "It was sent, or may have been, and no answer says what became of it. Nobody sends it again without "
    "proof or a person's word; where the provider promises that a key pays once, it may be sent again under it to ask.",
    State.HELD: "Only a person can say. Who decided, what and why is recorded.",
    State.PAID: "The provider states that the money moved.",
    State.FAILED: "The provider states that it did not pay: it is safe to pay again, as a new payout.",
    State.REJECTED: "Our checks refused the line; it was never routed and never sent.",
    State.CANCELLED: "A person withdrew it before it was sent, or after its absence was proved.",
    State.REVERSED: "It was paid, and the provider took it back or it expired unused.",
}
"""What each state means, for people."""


def letters() -> Iterator[str]:
    """Yield A to Z, then AA, AB and so on."""
    yield from ascii_uppercase
    for first in ascii_uppercase:
        for second in ascii_uppercase:
            yield first + second


INTRODUCTION = """\
# The life of a payout

<!-- Written by tools/write_lifecycle.py from payout_engine/domain/states.py: change the table there, not this page. -->

Every line of a file is in exactly one of these states. The arrows are all there are: the engine and the
journal's own SQL refuse every other move. Arrow A is the only one that begins to send.
"""


def page() -> str:
    """Return the whole page."""
    assert set(MEANINGS) == set(State), "every state has a meaning"
    lettered = list(zip(letters(), EDGES, strict=False))
    lines = [INTRODUCTION, *_diagram(lettered), "", "## The arrows", ""]
    lines += ["| arrow | from | to | what must be true |", "| --- | --- | --- | --- |"]
    lines += [f"| {letter} | `{edge.source}` | `{edge.target}` | {edge.needs} |" for letter, edge in lettered]
    lines += [
        "",
        "Age alone moves nothing. What leads back to `ready`, and so to being sent again, is proof or a person:",
    ]
    lines += [f"arrows {_back(lettered)}.", "", "## The states", ""]
    lines += ["| state | meaning | may begin here | what it counts as |", "| --- | --- | --- | --- |"]
    for state in State:
        begins = "yes" if state in INITIAL_STATES else "no"
        lines.append(f"| `{state}` | {MEANINGS[state]} | {begins} | {_kind(state)} |")
    return "\n".join([*lines, "", "What to do about each of them is in [operating.md](operating.md).", ""])


def _diagram(lettered: list[tuple[str, Edge]]) -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    for state in State:
        if state in INITIAL_STATES:
            yield f"    [*] --> {state}"
    for letter, edge in lettered:
        yield f"    {edge.source} --> {edge.target}: {letter}"
    yield "```"


def _back(lettered: list[tuple[str, Edge]]) -> str:
    *before, last = [letter for letter, edge in lettered if edge.target is State.READY]
    return f"{', '.join(before)} and {last}" if before else last


def _kind(state: State) -> str:
    """Say which of the groups a state belongs to."""
    kinds = {
        "still open at the provider": OPEN,
        "needs a person when the engine is done": ATTENTION,
        "provably not paid": UNPAID,
    }
    return "; ".join(words for words, states in kinds.items() if state in states) or "-"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
