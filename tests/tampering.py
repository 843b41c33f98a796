"""Journals to tamper with: a life with every kind of entry, and copies that somebody altered, guards and all."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from payout_engine.domain.clock import now
from payout_engine.domain.facts import CanarySize, ResultsFolder
from payout_engine.domain.model import Choice, ControlKind, ControlRequest, Decision, LookUpResult, Problem, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.ports.callbacks import Heard
from payout_engine.testing.journal_lines import (
    MOOV,
    ORANGE,
    approved,
    chunk,
    dispatched,
    every,
    refused,
    run,
    validated,
)
from payout_engine.testing.journal_resends import LIVES_AN_HOUR


async def a_life(path: Path) -> str:
    """Give a journal every kind of entry, with another run before and after; return a digest from the middle of it."""
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "before", chunk([11, 12]))
        await journal.begin(run("run"))
        await journal.add("run", [chunk([1, 2, 3, 4]), chunk([5, 6], MOOV, reference="SAME"), refused([7, 8])])
        duplicates = await every(journal.duplicates("run"))
        await journal.hold("run", {repeat.position: Problem("reference_repeated", "Again.") for repeat in duplicates})
        await journal.seal("run")
        await journal.approve("run")
        first = await dispatched(journal, "run")
        ends = [State.PAID, State.READY, State.ACCEPTED, State.UNKNOWN]
        await journal.record(first, [Receipt(state, provider_reference=f"T{state}") for state in ends])
        kept = await journal.digest("run")
        (doubtful,) = await journal.resendable_chunks("run", ORANGE, LIVES_AN_HOUR, now(), 0, 1)
        await journal.intend_resend(doubtful, LIVES_AN_HOUR)
        await dispatched(journal, "run")
        await journal.recover("run")
        await journal.reconcile([LookUpResult(first.keys[1], Receipt(State.READY, "absent"))])
        await journal.reconcile(
            [LookUpResult(first.keys[2], Receipt(State.REVERSED)), LookUpResult(first.keys[3], Receipt(State.PAID), 5)]
        )
        await journal.record(await dispatched(journal, "run"), [Receipt(State.FAILED, "closed")])
        await journal.record(await dispatched(journal, "before"), [Receipt(State.PAID)])
        held = [entry for entry in await every(journal.entries("run")) if entry.receipt.state is State.HELD]
        choices = [Choice.PAID, Choice.SEND_AGAIN]
        told = [Decision(entry.key, choice, "Awa", "saw it") for entry, choice in zip(held, choices, strict=True)]
        await journal.decide("run", told)
        await dispatched(journal, "run", MOOV)
        await validated(journal, "other", chunk([1]))
        await journal.discard("other")
        await validated(journal, "waiting", chunk([21]))
        await journal.request("run", ControlRequest(ControlKind.CANCEL, "Awa", "wrong month"))
        await journal.acknowledge("run", ControlKind.CANCEL, True)
        await journal.request("run", ControlRequest(ControlKind.PAUSE, "Issa", "lunch"))
        await journal.acknowledge("run", ControlKind.PAUSE, False)
        await journal.add_fact("run", CanarySize(5))
        await journal.add_fact("waiting", ResultsFolder("results"))
        await journal.store_callback("bf", b"one", Heard(first.keys[:1]))
        await journal.store_callback("bf", b"two", Heard(first.keys[:1]))
        await journal.settle_callbacks([1])
        await journal.finish("run")
        await journal.note("run", "remark", "All done.")
        await journal.note("before", "remark", "All done.")
    return kept


RUNS = ("waiting", "before", "run")
"""The runs of `a_life` that are still there."""


REFUSED = apsw.ConstraintError, apsw.MismatchError
"""What SQLite raises for what a table's own definition excludes."""


def altered(path: Path, folder: Path, *statements: str | tuple[str, Sequence[Any]]) -> Path:
    """Return a copy of a journal in which somebody ran these statements, with the guards out of the way meanwhile.

    Raises:
        REFUSED: the schema itself refuses them.
    """
    copy = folder / "altered.db"
    shutil.copyfile(path, copy)
    with closing(apsw.Connection(str(copy))) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        with db:
            for statement in statements:
                db.execute(*((statement,) if isinstance(statement, str) else statement))
    return copy


def read(path: Path, query: str) -> list[Any]:
    """Return the rows of a query."""
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()
