"""The journal: the durable memory of every run, payout, dispatch and receipt.

`SqliteJournal` is the one that pays; `MemoryJournal` is the readable reference that it must agree with, and what
simulations use. Both keep the promises of `payout_engine.ports.Journal`.
"""

from __future__ import annotations

from payout_engine.journal.glance import begun_in_file, is_in_file, tally_file
from payout_engine.journal.memory import MemoryJournal
from payout_engine.journal.sqlite import SqliteJournal
from payout_engine.journal.verifying import verify_file

__all__ = ["MemoryJournal", "SqliteJournal", "begun_in_file", "is_in_file", "tally_file", "verify_file"]
