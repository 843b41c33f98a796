"""What a proof from the journal comes to: the values that `verify` returns."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from payout_engine.domain.model import Tally


class Finding(msgspec.Struct, frozen=True):
    """Something that does not hold in a journal.

    Attributes:
        what: one plain sentence.
        seq: the entry of the log where it shows, or 0.
        run_id: the run it concerns, or empty where it is not known.
        first_line: the first line it may concern, or 0.
        last_line: the last one.
    """

    what: str
    seq: int = 0
    run_id: str = ""
    first_line: int = 0
    last_line: int = 0


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What the replay of a run's log came to.

    Attributes:
        findings: what does not hold, the first ones of many; nothing when all is proven.
        found: how many findings there are in all.
        entries: entries of the log that were followed, of all runs.
        payouts: lines of the run.
        dispatches: attempts to send.
        totals: counts and sums as they follow from the log.
        digest: of the run's log and totals; see `Journal.digest`.
        unprovable: what no look into the journal alone can show, as sentences; true also when nothing was found.
    """

    run_id: str
    findings: Sequence[Finding]
    found: int
    entries: int
    payouts: int
    dispatches: int
    totals: Sequence[Tally]
    digest: str
    unprovable: Sequence[str] = ()

    @property
    def proven(self) -> bool:
        """True when everything holds."""
        return not self.found
