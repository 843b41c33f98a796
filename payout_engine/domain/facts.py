"""Facts of a run: what was settled beside its payouts, and what is decided by it later, in any process.

Each is an entry of the journal's log with fields of its own. For people it is told as a remark, which nothing reads
back. `RunFacts` is what the facts of one run come to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from payout_engine.domain.ending import Stop
from payout_engine.domain.errors import Brake
from payout_engine.domain.model import ControlRequest, Lane

KEY_MARK_SHOWN = 6
"""So much of what a key is known by is shown; it tells two keys apart."""


class CanarySize(msgspec.Struct, frozen=True, tag_field="fact", tag="canary"):
    """How many payouts of each lane are sent, and waited for, before the rest."""

    size: int


class CanaryPassed(msgspec.Struct, frozen=True, tag_field="fact", tag="canary_passed"):
    """All payouts of a lane's canary arrived."""

    lane: Lane


class CanaryOverruled(msgspec.Struct, frozen=True, tag_field="fact", tag="canary_overruled"):
    """A person let a lane go on whose canary stopped it."""

    lane: Lane
    who: str


class Stopped(msgspec.Struct, frozen=True, tag_field="fact", tag="brake"):
    """Something stopped a lane, an account or the run before all of it was sent."""

    stop: Stop


class KeyUsed(msgspec.Struct, frozen=True, tag_field="fact", tag="key"):
    """An account is paid from with a key, which is known here by a mark."""

    account: str
    mark: str


class ResultsFolder(msgspec.Struct, frozen=True, tag_field="fact", tag="results_folder"):
    """Where the results of a run go, so that whoever goes on with it writes to the same place."""

    folder: str


class Conflict(msgspec.Struct, frozen=True, tag_field="fact", tag="conflict"):
    """The provider contradicts itself or us."""

    message: str


class Asked(msgspec.Struct, frozen=True, tag_field="fact", tag="asked"):
    """A person asked something of whoever pays the run."""

    request: ControlRequest


Fact = CanarySize | CanaryPassed | CanaryOverruled | Stopped | KeyUsed | ResultsFolder | Conflict | Asked
"""Any of them; the tag says which."""


class RunFacts(msgspec.Struct, frozen=True):
    """What the facts of a run come to.

    Attributes:
        canary_size: of a run without a canary, 0.
        canary_done: the lanes that need not wait for their canary: it passed, or a person overruled it.
        canary_stopped: the lanes that their canary stopped at some time.
        keys: by account, the mark of the key that was used last.
        results_folder: where the results go, or empty if nobody said.
        conflicts: what the provider says against itself or us.
    """

    canary_size: int
    canary_done: frozenset[Lane]
    canary_stopped: frozenset[Lane]
    keys: dict[str, str]
    results_folder: str
    conflicts: Sequence[str]


def summed_up(facts: Iterable[Fact]) -> RunFacts:
    """Return what facts come to, given oldest first: a later one of a kind holds."""
    size, folder = 0, ""
    done, stopped = set[Lane](), set[Lane]()
    keys: dict[str, str] = {}
    conflicts: list[str] = []
    for fact in facts:
        match fact:
            case CanarySize():
                size = fact.size
            case CanaryPassed() | CanaryOverruled():
                done.add(fact.lane)
            case Stopped(Stop(lane=Lane() as lane, brake=Brake.CANARY)):
                stopped.add(lane)
            case KeyUsed():
                keys[fact.account] = fact.mark
            case ResultsFolder():
                folder = fact.folder
            case Conflict():
                conflicts.append(fact.message)
    return RunFacts(size, frozenset(done), frozenset(stopped), keys, folder, conflicts)


def remark(fact: Fact) -> tuple[str, str]:
    """Return what people are told of a fact: the kind of the remark, and its text."""
    match fact:
        case CanarySize(size):
            return "canary", str(size)
        case CanaryPassed(lane):
            return "canary_passed", lane_text(lane)
        case CanaryOverruled(lane, who):
            said = f"the rest may be sent although the canary did not pass; said by {who or 'a person'}"
            return "canary_overruled", f"{lane_text(lane)}: {said}"
        case Stopped(stop):
            where = lane_text(stop.lane) if stop.lane else stop.account or "run"
            return f"brake_{stop.brake}", f"{where}: {stop.message}"
        case KeyUsed(account, mark):
            return "key", f"account {account}, its key known here by the mark {mark[-KEY_MARK_SHOWN:]}"
        case ResultsFolder(folder):
            return "results_folder", folder
        case Conflict(message):
            return "conflict", message
        case Asked(request):
            return f"asked_{request.kind}", str(request)


def lane_text(lane: Lane) -> str:
    """Return how people are told of a lane."""
    return f"{lane.account}/{lane.name}"
