"""The journal: the durable memory of every run, payout, dispatch and receipt.

`SqliteJournal` keeps the promises of `payout_engine.ports.Journal`, in payment and in simulations alike.
"""

from __future__ import annotations

from payout_engine.journal.snapshot import begun_in_file, is_in_file, tally_file
from payout_engine.journal.sqlite import SqliteJournal
from payout_engine.journal.verify import verify_file

__all__ = ["SqliteJournal", "begun_in_file", "is_in_file", "tally_file", "verify_file"]
