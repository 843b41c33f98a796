"""The journal: the durable memory of every run, payout, dispatch and receipt, in one SQLite file.

`sqlite` keeps the promises of `ports.journal`, in payment and in simulations alike. Below it, from the file upwards:
`schema` opens the file, `file_locks` holds rights beside it, `writer` shares one commit among many requests,
`sqlite_errors` says what a failure means, `db` reads rows. `ids`, `codec` and `fingerprints` turn values into columns.
`log` seals each entry by the one before it, `facts` are the entries that are decided by; `transitions` moves payouts.

In the order of a run: `runs` and `duplicates` take it in, `last_sent` says what was paid lately, `dispatches` pays it,
`lookups` and `rules` believe what providers show, `resends` asks again, `callbacks` keeps what providers
call to say, `requests` and `decisions` hear people, `reads` answers. `verify` proves it, by `audit`, `integrity` and
`key_table`. `snapshot` looks into a journal of others.
"""

from __future__ import annotations

from payout_engine.journal.snapshot import begun_in_file, is_in_file, tally_file
from payout_engine.journal.sqlite import SqliteJournal
from payout_engine.journal.verify import verify_file

__all__ = ["SqliteJournal", "begun_in_file", "is_in_file", "tally_file", "verify_file"]
