"""The journal's side of `domain/facts.py`: facts are entries of the log, written once and never changed.

Functions over one connection, run in the writer's thread inside a transaction. `SqliteJournal` calls them. Journals of
version 3 and older kept such state in remarks for people; `carry_over` reads those once.
"""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import msgspec

from payout_engine.domain import clock
from payout_engine.domain.ending import Stop
from payout_engine.domain.errors import Brake
from payout_engine.domain.facts import (
    Asked,
    CanaryOverruled,
    CanaryPassed,
    CanarySize,
    Conflict,
    Fact,
    KeyUsed,
    ResultsFolder,
    RunFacts,
    Stopped,
    lane_text,
    summed_up,
)
from payout_engine.domain.model import ControlKind, ControlRequest, Lane
from payout_engine.journal import codec, log
from payout_engine.journal.db import every, value
from payout_engine.journal.ids import chunk_range
from payout_engine.journal.transitions import run_no

read_fact: msgspec.json.Decoder[Fact] = msgspec.json.Decoder(Fact)
_read_note = msgspec.json.Decoder(log.AskedRemark)

_FACTS = "FROM log WHERE run_no = ? AND kind IN ('fact', 'carried')"


def add(db: apsw.Connection, run_id: str, fact: Fact) -> None:
    """Record a fact; see `Journal.add_fact`."""
    log.append(db, clock.now(), run_no(db, run_id), log.FACT, codec.text(fact))


def add_once(db: apsw.Connection, at: float, number: int, fact: Fact, chunk_id: int) -> bool:
    """Record a fact about a chunk unless it is there already; tell whether it is new."""
    body = codec.text(fact)
    known = value(db, f"SELECT 1 {_FACTS} AND chunk_id = ? AND body = ?", (number, chunk_id, body))
    if known is None:
        log.append(db, at, number, log.FACT, body, chunk_id)
    return known is None


def facts(db: apsw.Connection, run_id: str) -> RunFacts:
    """Return what the facts of a run come to; see `Journal.facts`."""
    return summed_up(_facts(db, run_no(db, run_id)))


def cancelled(db: apsw.Connection, number: int) -> ControlRequest | None:
    """Return who last asked to cancel a run, also when that is done; None if nobody ever did."""
    requests = (fact.request for fact in _facts(db, number, " DESC") if isinstance(fact, Asked))
    return next((request for request in requests if request.kind is ControlKind.CANCEL), None)


def _facts(db: apsw.Connection, number: int, order: str = "") -> Iterator[Fact]:
    for (body,) in every(db, f"SELECT body {_FACTS} ORDER BY seq{order}", (number,)):
        yield read_fact.decode(body)


# ------------------------------------------------------------------------------------------------------ older journals


def carry_over(db: apsw.Connection) -> None:
    """Write down as facts what the remarks of an older journal say; the remarks stay, for people."""
    at = clock.now()
    notes = list(every(db, "SELECT run_no, chunk_id, body FROM log WHERE kind = 'note' ORDER BY seq"))
    for number, chunk_id, body in notes:
        for fact in _told(db, number, _read_note.decode(body)):
            log.append(db, at, number, log.CARRIED, codec.text(fact), chunk_id)


def _told(db: apsw.Connection, number: int, note: log.AskedRemark) -> Iterator[Fact]:
    """Yield what a remark says. Lanes are found by name among those of the run: an account's name may hold anything."""
    kind, text = note.kind, note.text
    if kind == "canary":
        yield CanarySize(int(text))
    elif kind == "canary_passed":
        yield from (CanaryPassed(lane) for lane in _lanes(db, number) if text == lane_text(lane))
    elif kind == "canary_overruled":
        _, _, who = text.rpartition("; said by ")
        yield from (
            CanaryOverruled(lane, who) for lane in _lanes(db, number) if text.startswith(f"{lane_text(lane)}: ")
        )
    elif kind == f"brake_{Brake.CANARY}":
        for lane in _lanes(db, number):
            if text.startswith(f"{lane_text(lane)}: "):
                yield Stopped(Stop(lane.account, lane, Brake.CANARY, text.removeprefix(f"{lane_text(lane)}: ")))
    elif kind == "key":
        mark, _, account = text.partition(" ")
        yield KeyUsed(account, mark)
    elif kind == "results_folder":
        yield ResultsFolder(text)
    elif kind == "conflict":
        yield Conflict(text)
    elif kind == "asked_cancel":
        yield Asked(_cancellation(db, number, note))


def _lanes(db: apsw.Connection, number: int) -> Iterator[Lane]:
    query = "SELECT DISTINCT account, lane, currency FROM chunks WHERE chunk_id BETWEEN ? AND ? AND account <> ''"
    return (Lane(*found) for found in list(every(db, query, chunk_range(number))))


def _cancellation(db: apsw.Connection, number: int, note: log.AskedRemark) -> ControlRequest:
    """Return who cancelled a run and why. The oldest remarks do not tell these apart; a request that stands does."""
    if note.who is not None and note.why is not None:
        return ControlRequest(ControlKind.CANCEL, note.who, note.why)
    for who, why in list(every(db, "SELECT who, why FROM requests WHERE run_no = ? AND kind = 'cancel'", (number,))):
        if str(ControlRequest(ControlKind.CANCEL, who, why)) == note.text:
            return ControlRequest(ControlKind.CANCEL, who, why)
    who, _, why = note.text.partition(": ")
    return ControlRequest(ControlKind.CANCEL, who, why)
