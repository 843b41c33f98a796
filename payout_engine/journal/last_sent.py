"""When payouts were last sent, and whether that is lately: seven days count from the money, not from an approval.

An age is told by the uptime of the machine where that is possible, since anybody may set the wall clock. After a
restart the wall clock has to do, unless this start of the machine has shown that it was set forward. Over one
connection, for this journal or one attached to it; `duplicates.py` asks it.
"""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from payout_engine.domain import clock
from payout_engine.domain.limits import DUPLICATE_WINDOW_SECONDS, RUN_CHUNK_BITS
from payout_engine.domain.states import LETTERS, State
from payout_engine.journal import codec, log
from payout_engine.journal.db import every, value

MAY_BE_SENT = frozenset(
    LETTERS[state] for state in (State.READY, State.SENDING, State.ACCEPTED, State.UNKNOWN, State.HELD)
)
"""The letters of what is on its way or may still be sent, however long ago its run was approved."""

_SENT = (
    "SELECT chunk_id >> 24, max(begun_at), boot, max(up_seconds) FROM {schema}.dispatches GROUP BY chunk_id >> 24, boot"
)
_OF_CHUNK = (
    "SELECT indexes, begun_at, boot, up_seconds FROM {schema}.dispatches WHERE chunk_id = ? ORDER BY dispatch_id"
)
_RECEIPTS = "SELECT receipts FROM {schema}.progress WHERE chunk_id = ?"
_ASKED_AGAIN = "SELECT at, body FROM {schema}.log WHERE chunk_id = ? AND kind = 'asked_again' ORDER BY seq"
# In these words, each part is answered from an index. A person may have paid by hand what was never sent.
_MOVING = (
    "SELECT chunk_id >> 24 FROM {schema}.progress WHERE instr(states, 'r') > 0"
    " UNION SELECT chunk_id >> 24 FROM {schema}.progress WHERE instr(states, 'a') > 0 OR instr(states, 'u') > 0"
    " UNION SELECT chunk_id >> 24 FROM {schema}.progress WHERE instr(states, 'h') > 0"
    " UNION SELECT chunk_id >> 24 FROM {schema}.dispatches WHERE ended_at IS NULL"
    " UNION SELECT run_no FROM {schema}.log WHERE kind = 'decision' AND at > ?"
    " UNION SELECT run_no FROM {schema}.log WHERE kind = 'asked_again' AND at > ?"
)
assert RUN_CHUNK_BITS == 24  # as the queries above have it


class LastSent:
    """Tells of one journal what was, or may still be, sent within `REPEAT_WINDOW_SECONDS`.

    Args:
        db: the connection.
        schema: `main`, or the name under which another journal is attached.
    """

    def __init__(self, db: apsw.Connection, schema: str) -> None:
        self._db = db
        self._schema = schema
        self._here = clock.moment()
        self._now = self._believable_now()

    def _believable_now(self) -> float:
        """Return the wall clock's time, or less if it was set forward since this start's first dispatch."""
        offset = value(
            self._db,
            f"SELECT min(begun_at - up_seconds) FROM {self._schema}.dispatches WHERE boot = ?",  # noqa: S608
            (self._here.boot,),
        )
        return self._here.at if offset is None else min(self._here.at, offset + self._here.up_seconds)

    def is_lately(self, then: clock.Moment) -> bool:
        """Tell whether a moment lies within the window."""
        if then.boot == self._here.boot:
            return self._here.up_seconds - then.up_seconds < DUPLICATE_WINDOW_SECONDS
        return self._now - then.at < DUPLICATE_WINDOW_SECONDS

    def runs(self) -> set[int]:
        """Return the numbers of the runs of which anything was, or may still be, sent lately."""
        sent = every(self._db, _SENT.format(schema=self._schema))
        found = {number for number, *moment in sent if self.is_lately(clock.Moment(*moment))}
        since = self._now - DUPLICATE_WINDOW_SECONDS
        return found | {number for (number,) in every(self._db, _MOVING.format(schema=self._schema), (since, since))}

    def of_chunk(self, chunk_id: int, states: str) -> frozenset[int]:
        """Return which payouts of a chunk were, or may still be, sent lately."""
        last = last_sent(self._db, chunk_id, len(states), self._schema)
        found = {index for index, letter in enumerate(states) if letter in MAY_BE_SENT}
        found |= {index for index, moment in last.items() if self.is_lately(moment)}
        never = set(range(len(states))) - found - set(last)
        return frozenset(found | (self._settled_lately(chunk_id, len(states)) & never if never else set()))

    def _settled_lately(self, chunk_id: int, count: int) -> set[int]:
        """Return the payouts of a chunk of which something was said lately: a person may have paid them by hand."""
        stored = value(self._db, _RECEIPTS.format(schema=self._schema), (chunk_id,))
        receipts = enumerate(codec.read_receipts(stored, count))
        return {index for index, said in receipts if said and self.is_lately(clock.Moment(said.at, "", 0.0))}


def last_sent(db: apsw.Connection, chunk_id: int, count: int, schema: str = "main") -> Mapping[int, clock.Moment]:
    """Return when each payout of a chunk that was ever sent was sent last, also if only to ask again."""
    sent: dict[int, clock.Moment] = {}
    for indexes, *moment in every(db, _OF_CHUNK.format(schema=schema), (chunk_id,)):
        sent |= dict.fromkeys(codec.read_indexes(indexes, count), clock.Moment(*moment))
    for at, body in every(db, _ASKED_AGAIN.format(schema=schema), (chunk_id,)):
        again = log.read_asked_again(body)
        asked = clock.Moment(at, again.boot, again.up_seconds)
        for index in range(count) if again.indexes is None else again.indexes:
            sent[index] = clock.later(asked, sent.get(index, asked))
    return sent
