"""The journal's side of intake: runs and chunks come in, are held where in doubt, sealed, and approved or discarded.

Functions over one connection, run in the writer's thread inside a transaction. `SqliteJournal` calls them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby

import apsw

from payout_engine.domain import clock
from payout_engine.domain.errors import IllegalMoveError, JournalError
from payout_engine.domain.model import Chunk, Lane, Payout, Problem, Run, RunState
from payout_engine.domain.states import LETTERS, State
from payout_engine.journal import codec, log
from payout_engine.journal.db import every, only, value
from payout_engine.journal.fingerprints import CELLS_KIND, hashes, own_cells
from payout_engine.journal.ids import (
    CHUNK_PAYOUTS_MAX,
    CHUNKS_MAX,
    chunk_id_of,
    chunk_range,
    new_token,
    position_of,
    position_range,
    split_position,
)
from payout_engine.journal.transitions import move, run_no, validating


def begin(db: apsw.Connection, run: Run) -> None:
    """Record a new run; see `Journal.begin`."""
    if value(db, "SELECT 1 FROM runs WHERE run_id = ?", (run.run_id,)):
        raise JournalError(f"The journal already has a run {run.run_id}. Give the new run another id.")
    db.execute(
        "INSERT INTO runs (run_id, token, name, digest, columns, dialect, has_references, sandbox, state, created_at,"
        " retry_of, direction) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'intake', ?, ?, ?)",
        (
            run.run_id,
            new_token(),
            run.name,
            run.digest,
            codec.text(run.columns),
            codec.text(run.dialect),
            run.has_references,
            run.sandbox,
            run.created_at,
            run.retry_of,
            run.direction,
        ),
    )
    db.execute(
        "INSERT INTO validating (run_no, chunks, digest) VALUES (?, 0, ?)", (db.last_insert_rowid(), log.GENESIS)
    )


def add(db: apsw.Connection, run_id: str, chunks: Sequence[Chunk]) -> None:
    """Record chunks of a run in intake; see `Journal.add`."""
    number = run_no(db, run_id)
    require(db, number, run_id, RunState.INTAKE, "no lines can be added to it")
    recorded, digest = validating(db, number, run_id)
    if recorded + len(chunks) > CHUNKS_MAX:
        raise JournalError(f"Run {run_id} has more than {CHUNKS_MAX} chunks. Pay the file in several parts.")
    at = clock.now()
    kept = own_cells(codec.read_columns(value(db, "SELECT columns FROM runs WHERE run_no = ?", (number,))))
    for chunk_no, chunk in enumerate(chunks, start=recorded + 1):
        digest = _add(db, number, chunk_id_of(number, chunk_no), chunk, digest, at)
        if not chunk.problems:
            remember(db, chunk_id_of(number, chunk_no), chunk.payouts, chunk.rows, kept)
    db.execute(
        "UPDATE validating SET chunks = ?, digest = ? WHERE run_no = ?", (recorded + len(chunks), digest, number)
    )


def _add(db: apsw.Connection, number: int, chunk_id: int, chunk: Chunk, digest: bytes, at: float) -> bytes:
    """Record one chunk and return the digest of all payouts so far."""
    count, lane = len(chunk.payouts), chunk.lane
    assert 0 < count <= CHUNK_PAYOUTS_MAX
    assert len(chunk.rows) == count
    payouts, cells = codec.payouts_text(chunk.payouts), codec.text(chunk.rows)
    amount_minor = sum([payout.amount_minor for payout in chunk.payouts])
    first, last = chunk.payouts[0].line, chunk.payouts[-1].line
    db.execute(
        "INSERT INTO chunks (chunk_id, run_no, account, lane, currency, first_line, last_line, count, amount_minor,"
        " payouts, rows) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(chunk_id, number, lane.account, lane.name, lane.currency),
            *(first, last, count, amount_minor, payouts, cells),
        ),
    )
    if chunk.problems:
        refusals = [codec.receipt_of(problem, State.REJECTED, at) for problem in chunk.problems]
        states, receipts = LETTERS[State.REJECTED] * count, codec.receipts_text(refusals)
    else:
        states, receipts = LETTERS[State.READY] * count, None
    db.execute(
        "INSERT INTO progress (chunk_id, states, receipts, updated_at) VALUES (?, ?, ?, ?)",
        (chunk_id, states, receipts, at),
    )
    return chained_payouts(digest, chunk_id, lane, payouts, cells, receipts or "")


def chained_payouts(before: bytes, chunk_id: int, lane: Lane, payouts: str, cells: str, refusals: str) -> bytes:
    """Return the digest of the payouts of a run up to a chunk, given the digest up to the chunk before.

    Args:
        before: the digest up to the chunk before.
        chunk_id: the chunk.
        lane: where it is paid from and to.
        payouts: as they are stored.
        cells: the rows as they are stored.
        refusals: of refused lines, the receipts as they are stored; otherwise empty.
    """
    sealed = hashlib.sha256(before + f"{chunk_id}|{lane.account}|{lane.name}|{len(payouts)}|{len(cells)}|".encode())
    for part in (payouts, cells, refusals):
        sealed.update(part.encode())
    return sealed.digest()


def fingerprint(db: apsw.Connection) -> None:
    """Fill the table of keys anew, from the payouts of all approved runs: what is hashed has changed since."""
    db.execute("DELETE FROM keys; CREATE TEMP TABLE made (hash INTEGER NOT NULL, position INTEGER NOT NULL) STRICT")
    for number, columns, has_references in list(
        every(db, "SELECT run_no, columns, has_references FROM runs WHERE approved_at IS NOT NULL")
    ):
        kept = own_cells(codec.read_columns(columns))
        for chunk_id, payouts, cells in every(
            db,
            "SELECT chunk_id, payouts, rows FROM chunks WHERE chunk_id BETWEEN ? AND ? AND account <> ''",
            chunk_range(number),
        ):
            found = hashes(codec.read_payouts(payouts), codec.read_rows(cells), kept)
            db.execute(
                "INSERT INTO made SELECT value, ? + key / 3 FROM json_each(?) WHERE value & 3 <> ? OR ?",
                (position_of(chunk_id, 0), codec.text(found), CELLS_KIND, has_references),
            )
    db.execute("INSERT INTO keys SELECT hash, position FROM made ORDER BY hash, position; DROP TABLE made")


def remember(
    db: apsw.Connection,
    chunk_id: int,
    payouts: Sequence[Payout],
    cells: Sequence[Sequence[str]],
    kept: Sequence[int] | None,
) -> None:
    """Keep the hashes of a chunk's payouts until the run is approved. A statement per payout costs twice as much."""
    db.execute(
        "INSERT INTO fresh (hash, position) SELECT value, ? + key / 3 FROM json_each(?)",
        (position_of(chunk_id, 0), codec.text(hashes(payouts, cells, kept))),
    )


def require(db: apsw.Connection, number: int, run_id: str, state: RunState, consequence: str) -> None:
    """Raise IllegalMoveError unless a run is in `state`."""
    found = value(db, "SELECT state FROM runs WHERE run_no = ?", (number,))
    if found != state:
        raise IllegalMoveError(f"run {run_id} is {found}, so {consequence}")


def hold(db: apsw.Connection, run_id: str, reasons: Mapping[int, Problem]) -> None:
    """Move ready payouts to held; see `Journal.hold`."""
    number, at = run_no(db, run_id), clock.now()
    state = value(db, "SELECT state FROM runs WHERE run_no = ?", (number,))
    kind = "" if state == RunState.INTAKE else log.HOLD
    first, last = chunk_range(number)
    for chunk_id, positions in groupby(sorted(reasons), lambda position: split_position(position)[0]):
        held = list(positions)
        indexes = [split_position(position)[1] for position in held]
        states = value(db, "SELECT states FROM progress WHERE chunk_id = ?", (chunk_id,)) or ""
        if not first <= chunk_id <= last or any(states[index : index + 1] != "r" for index in indexes):
            raise IllegalMoveError(f"only ready payouts of run {run_id} can be held")
        receipts = [codec.receipt_of(reasons[position], State.HELD, at) for position in held]
        move(db, chunk_id, log.Moved(receipts, indexes), at, kind)


def seal(db: apsw.Connection, run_id: str) -> None:
    """End intake and begin the run's log; see `Journal.seal`."""
    number, at = run_no(db, run_id), clock.now()
    require(db, number, run_id, RunState.INTAKE, "its intake cannot be ended")
    recorded, digest = validating(db, number, run_id)
    db.execute("UPDATE runs SET state = 'judged' WHERE run_no = ?", (number,))
    db.execute(
        "UPDATE validating SET compared = (SELECT coalesce(max(approved_no), 0) FROM runs)"
        " WHERE run_no = ? AND compared IS NULL",
        (number,),
    )
    log.append(db, at, number, log.SEAL, _totals(db, number, recorded, digest))
    _log_births(db, number, at)


def sealed_facts(db: apsw.Connection, number: int) -> dict[str, object]:
    """Return what the seal says of a run itself, which never changes afterwards."""
    names = (
        "run_id",
        "token",
        "name",
        "digest",
        "columns",
        "dialect",
        "has_references",
        "sandbox",
        "created_at",
        "retry_of",
        "direction",
    )
    found = only(db, f"SELECT {', '.join(names)} FROM runs WHERE run_no = ?", (number,))  # noqa: S608
    return dict(zip(names, found, strict=True))


def meta_facts(db: apsw.Connection) -> dict[str, str]:
    """Return what the seal says of the journal that the run is in."""
    return dict(every(db, "SELECT name, value FROM meta ORDER BY name"))


def _totals(db: apsw.Connection, number: int, recorded: int, digest: bytes) -> str:
    """Return the control totals of a run: whoever changes a payout or a total later contradicts this entry."""
    first, last = chunk_range(number)
    totals: dict[tuple[str, str, str], tuple[int, int]] = {}
    for account, lane, currency, count, amount_minor in every(
        db,
        "SELECT account, lane, currency, count, amount_minor FROM chunks WHERE chunk_id BETWEEN ? AND ?",
        (first, last),
    ):
        payouts, sum_minor = totals.get((account, lane, currency), (0, 0))
        totals[account, lane, currency] = payouts + count, sum_minor + amount_minor
    return codec.text(
        {
            **sealed_facts(db, number),
            "meta": meta_facts(db),
            "chunks": recorded,
            "payouts_digest": digest.hex(),
            "totals": [
                {"account": account, "lane": lane, "currency": currency, "count": count, "amount_minor": amount_minor}
                for (account, lane, currency), (count, amount_minor) in sorted(totals.items())
            ],
        }
    )


def _log_births(db: apsw.Connection, number: int, at: float) -> None:
    """Log what was held during intake: replay has to know which payouts did not begin as ready."""
    for chunk_id, states, stored in every(
        db,
        "SELECT chunk_id, states, receipts FROM progress WHERE chunk_id BETWEEN ? AND ? AND instr(states, 'h')",
        chunk_range(number),
    ):
        receipts = codec.read_receipts(stored, len(states))
        indexes = [index for index, letter in enumerate(states) if letter == "h"]
        held = [receipt for index in indexes if (receipt := receipts[index]) is not None]
        body = log.moved_text(log.Moved(held, indexes), codec.receipt_columns(held))
        log.append(db, at, number, log.HOLD, body, chunk_id)


def discard(db: apsw.Connection, run_id: str) -> None:
    """Remove a run that was never approved; see `Journal.discard`."""
    number = run_no(db, run_id)
    state, approved_at = only(db, "SELECT state, approved_at FROM runs WHERE run_no = ?", (number,))
    if approved_at is not None:
        raise IllegalMoveError(f"run {run_id} was approved, so it is never removed")
    if state != RunState.INTAKE:
        log.append(db, clock.now(), number, log.DISCARD, codec.text({"run_id": run_id}))
    db.execute("DELETE FROM progress WHERE chunk_id BETWEEN ? AND ?", chunk_range(number))
    db.execute("DELETE FROM chunks WHERE chunk_id BETWEEN ? AND ?", chunk_range(number))
    db.execute("DELETE FROM requests WHERE run_no = ?", (number,))
    db.execute("DELETE FROM runs WHERE run_no = ?", (number,))
    _forget(db, number)


def _formerly(db: apsw.Connection, number: int) -> bool:
    """Tell whether lines of a run may be those of an earlier one that counts as unpaid, by the last comparison."""
    return value(db, "SELECT 1 FROM formerly WHERE run_no = ? LIMIT 1", (number,)) is not None


def _forget(db: apsw.Connection, number: int) -> None:
    """Let go of what was known of a run for validating it."""
    db.execute("DELETE FROM validating WHERE run_no = ?", (number,))
    db.execute("DELETE FROM found WHERE run_no = ?", (number,))
    db.execute("DELETE FROM formerly WHERE run_no = ?", (number,))
    if value(db, "SELECT 1 FROM validating"):
        db.execute("DELETE FROM fresh WHERE position BETWEEN ? AND ?", position_range(number))
    else:
        db.execute("DELETE FROM fresh")  # Without a condition SQLite drops the pages unread.


def approve(db: apsw.Connection, run_id: str) -> bool:
    """Let a validated run be paid; see `Journal.approve`."""
    number, at = run_no(db, run_id), clock.now()
    if value(db, "SELECT approved_at FROM runs WHERE run_no = ?", (number,)) is not None:
        return True
    require(db, number, run_id, RunState.VALIDATED, "it cannot be approved")
    validating(db, number, run_id)
    latest = value(db, "SELECT coalesce(max(approved_no), 0) FROM runs")
    if latest > value(db, "SELECT compared FROM validating WHERE run_no = ?", (number,)):
        return False
    # Sorted, the keys are written page after page; in any other order every one of them would touch another page.
    db.execute(
        "INSERT INTO keys (hash, position) SELECT hash, position FROM fresh WHERE position BETWEEN ? AND ?"
        " AND (hash & 3 <> ? OR ?) ORDER BY hash, position",
        (*position_range(number), CELLS_KIND, value(db, "SELECT has_references FROM runs WHERE run_no = ?", (number,))),
    )
    db.execute(
        "UPDATE runs SET state = 'paying', approved_no = ?, approved_at = ? WHERE run_no = ?", (latest + 1, at, number)
    )
    log.append(db, at, number, log.APPROVE, codec.text(log.Approval(latest + 1, bool(_formerly(db, number)))))
    _forget(db, number)
    return True
