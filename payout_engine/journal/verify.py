"""Reading a journal's file for the proof: one read transaction on a connection of its own, which writes nothing.

Works while a run is going (the snapshot is consistent and nobody waits for it) and on a read-only copy. Two walks: one
along the whole log for the chain, one along the run's chunks with their entries beside them; SQLite sorts those in
temporary files, so memory does not grow with the run. `audit.py` says what must hold. Called by `SqliteJournal` and,
for a file that cannot be opened for writing, by the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import apsw
import msgspec

from payout_engine.domain.errors import JournalError
from payout_engine.domain.model import REJECTED_LANE, Direction, Lane, RunState
from payout_engine.domain.proof import Audit, Finding
from payout_engine.journal import audit, codec, integrity, log
from payout_engine.journal.audit import (
    BROKEN,
    Attempt,
    Chain,
    ChunkReplay,
    Findings,
    LogRow,
    Register,
    RunReplay,
    Seal,
    SealedTotal,
    Standing,
    StoredChunk,
)
from payout_engine.journal.db import every, row, value
from payout_engine.journal.ids import chunk_range, split_position
from payout_engine.journal.key_table import Keyring
from payout_engine.journal.reads import Totals
from payout_engine.journal.runs import chained_payouts, sealed_facts
from payout_engine.journal.snapshot import snapshot, tallies
from payout_engine.journal.transitions import run_no

UNPROVABLE = (
    "The journal itself cannot show whether it is an older copy, whether the end of its log was cut off together with "
    "SQLite's own count of the entries, or whether all of it was written anew with new hashes. A digest that was kept "
    "elsewhere shows that: give it with --digest; summary.json in the results holds one (log_digest)."
)
"""What no proof can do without a digest."""

UNPROVABLE_SINCE = (
    "The journal itself cannot show whether anything that was logged after entry {seq}, which the kept digest speaks "
    "of, was cut off or written anew since; a digest kept later shows that."
)
"""What no proof can do beyond the digest that it was given."""


def digest_file(path: Path, run_id: str) -> str:
    """Return the digest of a run in a journal's file; see `Journal.digest`."""
    with snapshot(path) as db:
        number = run_no(db, run_id)
        found = row(db, "SELECT seq, hash FROM log WHERE run_no = ? ORDER BY seq DESC LIMIT 1", (number,))
        sealed = value(db, "SELECT 1 FROM log WHERE run_no = ? AND kind = 'seal'", (number,))
        if found is None or sealed is None:
            return ""
        seq, head = found
        return audit.digest_of(run_id, seq, head, tallies(db, run_id))


def verify_file(path: Path, run_id: str, kept: str = "") -> Audit:
    """Prove a run from a journal's file, which is only read; see `Journal.verify`.

    Raises:
        JournalError: the file cannot be read or is no journal, or the run is not in it or was never validated.
    """
    if kept and not audit.kept_seq(kept):
        raise JournalError(f"“{kept}” is not a digest of a run. Give it as `verify` or summary.json showed it.")
    with snapshot(path) as db:
        return _Verifier(db, run_id, kept).verify()


class _Verifier:
    """The proof of one run over one snapshot."""

    def __init__(self, db: apsw.Connection, run_id: str, kept: str) -> None:
        self._db = db
        self._run_id = run_id
        self._kept, self._kept_seq = kept, audit.kept_seq(kept)
        self._led_through = False
        self._findings = Findings()
        self._story = RunReplay(_number(db, run_id))
        self._entries = self._dispatches = self._chunks = 0
        self._totals, self._kept_totals = Totals(), Totals()
        self._sums: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._digest = log.GENESIS
        self._keyring = Keyring(db, self._story.number)

    def verify(self) -> Audit:
        """Walk, compare, and put the findings together."""
        try:
            for problem in chain(
                integrity.damages(self._db), integrity.alterations(self._db), integrity.strays(self._db)
            ):
                self._find(problem, run_id="")
            self._walk_log()
            if not self._story.told and self._run_state() == RunState.INTAKE:
                raise JournalError(f"Run {self._run_id} was never validated to its end: there is nothing to prove yet.")
            self._walk_chunks()
            self._check_run()
            self._check_keys()
            self._check_seal()
            self._check_kept()
        except (apsw.CorruptError, apsw.NotADBError, OverflowError, UnicodeDecodeError) as error:
            self._find(f"the file is damaged or altered ({error}), so the proof could not be carried to its end")
        tallies = self._totals.tallies()
        return Audit(
            run_id=self._run_id,
            findings=self._findings.first,
            found=self._findings.count,
            entries=self._entries,
            payouts=sum(tally.count for tally in tallies),
            dispatches=self._dispatches,
            totals=tallies,
            digest=audit.digest_of(self._run_id, self._story.head_seq, self._story.head, tallies),
            unprovable=[UNPROVABLE_SINCE.format(seq=self._kept_seq) if self._led_through else UNPROVABLE],
        )

    def _find(
        self, what: str, seq: int = 0, first_line: int = 0, last_line: int = 0, run_id: str | None = None
    ) -> None:
        of_run = self._run_id if run_id is None else run_id
        self._findings.add(Finding(what, seq, of_run, first_line, last_line))

    # ------------------------------------------------------------------------------------------------------ the chain

    def _walk_log(self) -> None:
        """Follow the chain from the first entry of the journal to its last, whatever run each speaks of."""
        links, register = Chain(), Register()
        for entry in _log(self._db, "ORDER BY seq"):
            register.hear(entry)
            problem = links.follow(entry)
            if problem:
                self._find(f"{entry.kind} entry: {problem}", entry.seq, *_whose(self._db, entry))
            if entry.run_no == self._story.number:
                self._story.hear(entry)
                if entry.seq == self._kept_seq:
                    self._story.kept_head = entry.hash
        self._entries = links.entries
        for problem in integrity.miscounts(self._db, links.entries, links.last_seq, register.last_run):
            self._find(problem, run_id="")
        listed = every(self._db, "SELECT run_no, run_id, state, approved_at IS NOT NULL FROM runs NOT INDEXED")
        for problem, run_id in register.differences((*run, bool(approved)) for *run, approved in listed):
            self._find(problem, run_id=run_id)
        for seq, what in self._story.problems:
            self._find(what, seq)

    # ------------------------------------------------------------------------------------------------------- chunks

    def _walk_chunks(self) -> None:
        """Replay chunk by chunk, with the entries sorted by chunk beside them."""
        entries = _log(self._db, "WHERE run_no = ? AND chunk_id IS NOT NULL ORDER BY chunk_id, seq", self._story.number)
        waiting = next(entries, None)
        for found in _chunks(self._db, self._story.number):
            while waiting is not None and _chunk_of(waiting) < found[0]:
                self._find("it speaks of a chunk that is not there", waiting.seq)
                waiting = next(entries, None)
            own: list[LogRow] = []
            while waiting is not None and waiting.chunk_id == found[0]:
                own.append(waiting)
                waiting = next(entries, None)
            self._chunks += 1
            try:
                self._chunk(found, own)
            except BROKEN:
                self._find(f"chunk {found[0]} cannot be read", 0, found[5], found[6])
        while waiting is not None:
            self._find("it speaks of a chunk that is not there", waiting.seq)
            waiting = next(entries, None)

    def _chunk(self, found: tuple[Any, ...], entries: list[LogRow]) -> None:
        chunk_id, number, account, lane_name, currency, first, last, count, amount_minor = found[:9]
        payouts_text, cells, states, stored = map(_text, found[9:])
        lane = Lane(account, lane_name, currency)
        refusals = stored if lane == REJECTED_LANE else ""
        self._digest = chained_payouts(self._digest, chunk_id, lane, payouts_text, cells, refusals)
        payouts = codec.read_payouts(payouts_text)
        if lane != REJECTED_LANE and self._story.approved:
            self._keyring.expect(chunk_id, payouts, codec.read_rows(cells))
        known = codec.read_receipts(None if found[12] is None else stored, len(payouts))
        summed = len(payouts), sum(payout.amount_minor for payout in payouts)
        before = self._sums.get((account, lane_name, currency), (0, 0))
        self._sums[account, lane_name, currency] = before[0] + summed[0], before[1] + summed[1]
        if (number, first, last, count, amount_minor, len(codec.read_rows(cells)), len(known)) != (
            *(self._story.number, payouts[0].line, payouts[-1].line, *summed),
            *(len(payouts), len(payouts)),
        ):
            self._find("the sums beside a chunk are not those of its payouts", 0, first, last)
        self._replay(
            ChunkReplay(StoredChunk(chunk_id, lane, payouts, states, known), self._approved_seq()), entries, found
        )

    def _replay(self, replay: ChunkReplay, entries: list[LogRow], found: tuple[Any, ...]) -> None:
        stored, kept = replay.stored, list(replay.states)
        for entry in entries:
            for finding in replay.replay(entry):
                self._add(finding)
            if entry.seq <= self._kept_seq:
                kept = list(replay.states)
        for finding in replay.conclude(list(_attempts(self._db, found[0], len(stored.payouts)))):
            self._add(finding)
        self._dispatches += replay.dispatches
        amounts_minor = [payout.amount_minor for payout in stored.payouts]
        self._totals.add_each(stored.lane, replay.states, amounts_minor)
        if self._kept:
            self._kept_totals.add_each(stored.lane, kept, amounts_minor)

    def _add(self, finding: Finding) -> None:
        self._findings.add(msgspec.structs.replace(finding, run_id=self._run_id))

    def _approved_seq(self) -> int | None:
        return self._story.approved[2] if self._story.approved else None

    # -------------------------------------------------------------------------------------------- the run as a whole

    def _run_state(self) -> str | None:
        state: str | None = value(self._db, "SELECT state FROM runs WHERE run_no = ?", (self._story.number,))
        return state

    def _check_run(self) -> None:
        """Compare the run's own row with what the log says of it."""
        story = self._story
        found = row(
            self._db,
            "SELECT state, approved_no, approved_at, finished_at FROM runs WHERE run_no = ?",
            (story.number,),
        )
        if found is None:
            return  # The register of the log has found it.
        approved = story.approved[:2] if story.approved else (None, None)
        if found != (story.state, *approved, story.finished_at):
            self._find(f"the run is recorded as {found[0]}, but the log says otherwise (it is {story.state} there)")
        for table in ("dispatches", "progress"):
            counted = value(
                self._db,
                f"SELECT count(*) FROM {table} NOT INDEXED WHERE chunk_id BETWEEN ? AND ?",  # noqa: S608
                chunk_range(story.number),
            )
            if counted != (self._dispatches if table == "dispatches" else self._chunks):
                self._find(f"the table {table} does not have as many rows as follow from the log")
        outside = "SELECT count(*) FROM chunks WHERE run_no = ? AND chunk_id NOT BETWEEN ? AND ?"
        if value(self._db, outside, (story.number, *chunk_range(story.number))):
            self._find("the table chunks holds lines that say they are of the run, and are not")
        standing = every(self._db, "SELECT kind, who, why, at FROM requests WHERE run_no = ?", (story.number,))
        for problem in story.unasked([Standing(*request) for request in standing]):
            self._find(problem)

    def _check_keys(self) -> None:
        """Compare the keys by which repetitions are noticed with those that follow from the payouts."""
        for gap in self._keyring.gaps(self._story.number):
            lines = [_line(self._db, position) for position in gap.positions or ()]
            self._find(gap.what, 0, min(lines, default=0), max(lines, default=0))

    def _check_seal(self) -> None:
        """Compare the payouts with what was sealed when the whole file was validated: digest and control totals."""
        try:
            facts = msgspec.json.decode(self._story.seal_text)
            seal = msgspec.json.decode(self._story.seal_text, type=Seal)
        except BROKEN:
            self._find("the seal of the run is missing, or cannot be read")
            return
        totals = [SealedTotal(*lane, count, amount_minor) for lane, (count, amount_minor) in sorted(self._sums.items())]
        if seal.chunks != self._chunks or seal.payouts_digest != self._digest.hex():
            self._find("the payouts, or the rows they were read from, are not those that were sealed at intake")
        if list(seal.totals) != totals:
            self._find("the counts and amounts are not those that were sealed at intake")
        if self._run_state() is not None:
            for name, fact in sealed_facts(self._db, self._story.number).items():
                # Runs sealed before there were directions all paid.
                if facts.get(name, Direction.PAY if name == "direction" else None) != fact:
                    self._find(f"the {name} of the run is not the one that was sealed at intake")
        for problem in integrity.contradictions(self._db, facts.get("meta"), facts.get("sandbox")):
            self._find(problem, run_id="")

    def _check_kept(self) -> None:
        """Compare with a digest that was kept outside: the log must lead through it."""
        if not self._kept:
            return
        head, tallies = self._story.kept_head, self._kept_totals.tallies()
        if self._kept_seq > self._story.head_seq:
            self._find(
                f"the kept digest speaks of entry {self._kept_seq}, but the log of the run ends at entry "
                f"{self._story.head_seq}: its end was cut off, this is an older copy of the journal, or the digest is "
                "of another one. Find the newest copy before anything more is paid",
            )
        elif head is None or audit.digest_of(self._run_id, self._kept_seq, head, tallies) != self._kept:
            self._find(
                "the kept digest is not of this log: the log was rewritten since, or the digest is of another journal",
                self._kept_seq,
            )
        else:
            self._led_through = True


# ------------------------------------------------------------------------------------------------------------- rows


def _number(db: apsw.Connection, run_id: str) -> int:
    """Return the number of a run, also if only the log still knows it."""
    if value(db, "SELECT 1 FROM runs WHERE run_id = ?", (run_id,)) is None:
        named = f'"run_id":{msgspec.json.encode(run_id).decode()}'
        seals = every(db, "SELECT run_no, body FROM log WHERE kind = 'seal' AND instr(body, ?) ORDER BY seq", (named,))
        for number, _ in list(seals):
            discarded = value(db, "SELECT 1 FROM log WHERE kind = 'discard' AND run_no = ?", (number,))
            if discarded is None:
                return int(number)
    return run_no(db, run_id)


def _log(db: apsw.Connection, rest: str, *bindings: object) -> Iterator[LogRow]:
    """Go through entries of the log. No index is used: an altered one could hide entries."""
    query = "SELECT seq, at, run_no, chunk_id, CAST(kind AS BLOB), CAST(body AS BLOB), hash FROM log NOT INDEXED "
    for seq, at, number, chunk_id, kind, body, sealed in every(db, query + rest, bindings):
        yield LogRow(seq, at, number, chunk_id, _text(kind), _text(body), sealed)


def _chunks(db: apsw.Connection, number: int) -> Iterator[tuple[Any, ...]]:
    return every(
        db,
        "SELECT chunk_id, run_no, account, lane, currency, first_line, last_line, count, amount_minor,"
        " CAST(payouts AS BLOB), CAST(rows AS BLOB), CAST(states AS BLOB), CAST(receipts AS BLOB)"
        " FROM chunks LEFT JOIN progress USING (chunk_id) WHERE chunk_id BETWEEN ? AND ? ORDER BY chunk_id",
        chunk_range(number),
    )


def _attempts(db: apsw.Connection, chunk_id: int, count: int) -> Iterator[Attempt]:
    for dispatch_id, indexes, spoken, on_wire, *moment in every(
        db,
        "SELECT dispatch_id, indexes, spoken, on_wire, begun_at, ended_at, boot, up_seconds FROM dispatches"
        " WHERE chunk_id = ? ORDER BY dispatch_id",
        (chunk_id,),
    ):
        left = (
            on_wire if spoken is None else (*codec.read_indexes(spoken, count), *(() if on_wire == 1 else (on_wire,)))
        )
        yield Attempt(*(dispatch_id, tuple(codec.read_indexes(indexes, count)), *moment, left))


def _line(db: apsw.Connection, position: int) -> int:
    """Return the line of a payout that was read before."""
    chunk_id, index = split_position(position)
    stored = value(db, "SELECT CAST(payouts AS BLOB) FROM chunks WHERE chunk_id = ?", (chunk_id,))
    return codec.read_payouts(_text(stored))[index].line


def _text(stored: bytes | None) -> str:
    """Return stored text; what is no text any more is shown with marks, which no hash and no digest fits."""
    return "" if stored is None else stored.decode(errors="replace")


def _chunk_of(entry: LogRow) -> int:
    assert entry.chunk_id is not None
    return entry.chunk_id


def _whose(db: apsw.Connection, entry: LogRow) -> tuple[int, int, str]:
    """Return the lines and the run that an entry speaks of, as far as they are known."""
    run_id = value(db, "SELECT run_id FROM runs WHERE run_no = ?", (entry.run_no,)) or ""
    lines = row(db, "SELECT first_line, last_line FROM chunks WHERE chunk_id = ?", (entry.chunk_id,))
    return (*(lines or (0, 0)), run_id)
