"""Every bound of the engine in one file, each with its reason."""

from __future__ import annotations

CHUNK_SIZE = 100
"""The most payouts that any chunk may hold at present. Measured: beyond about 100 a bigger journal row no longer buys
speed, and a smaller one loses it."""

CHUNK_SIZE_SINGLY = 10
"""Payouts in one chunk where each has an intent of its own: each intent and each answer writes the chunk's row anew.
Measured, for both together: 160 us at 100 payouts, 70 at 10, and below that the rows cost as much as they save."""

CHUNK_INDEX_BITS = 10
"""A position is `chunk_id << CHUNK_INDEX_BITS | index`: room for 1,024 payouts in a chunk."""

RUN_CHUNK_BITS = 24
"""A chunk id is `run_no << RUN_CHUNK_BITS | chunk_no`: 16.7 million chunks in a run."""

BLOCK_ROWS = 2_000
"""Rows that travel together from a source through intake: small enough to stay in cache and to let the loop breathe."""

FIELD_CHARS_MAX = 10_000
"""One cell. A name or a note never comes near; a file read with the wrong quoting does."""

COLUMNS_MAX = 500
"""Columns of one file. More is a file that is not a table."""

REFERENCE_CHARS_MAX = 128
"""A payer's reference. Longer ones do not survive the providers' own tables."""

AMOUNT_MINOR_MAX = 10**13
"""The largest single amount that is not surely a mistake: ten thousand milliard minor units."""

LINES_SHOWN_MAX = 10
"""Example lines shown to a person for each kind of problem; the files hold all of them."""

JOURNAL_QUEUE_MAX = 256
"""Requests that may wait for the journal's thread before callers are made to wait."""

READY_CHUNKS_AHEAD = 64
"""Chunks loaded ahead of the dispatcher, for each lane."""

RECEIPTS_BATCH = 4_000
"""Receipts of a sweep that are written in one go: bounds the memory of a sweep of any length."""

QUERIES_BATCH = 100
"""Open payouts handed to one `look_up` call."""

ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""A provider's answer that is not read as a stream; longer ones are no answer at all."""

LIST_BYTES_MAX = 4 * 1024 * 1024 * 1024
"""A list that a look-up reads as a stream: about twelve million transfers. Without a bound, a provider that never stops
sending would hold a look-up, and whatever waits for it, for ever."""

LOOK_BACK_MARGIN_SECONDS = 60.0
"""How much further back than the oldest open call a look-up reads, for clocks that disagree. Where they disagree by
more, the whole list is read now and then."""

FIRST_LOOK_MARGIN_SECONDS = 2 * 24 * 3600.0
"""The same for a first look, which must not miss anything: more than a clock that is wrong by a date or a time zone."""

LIST_WHOLE_SECONDS = 1_800.0
"""What has been open for so long is looked for in the whole list, and as rarely."""

LISTED_IN_VAIN_FREE = 200_000
"""Transfers that look-ups may be shown without news before they are rationed: about 60 MB."""

LISTED_IN_VAIN_PER_MINUTE = 30_000
"""Transfers that they may be shown without news beyond that: about 8 MB, of bytes that somebody pays for."""

LIST_SECONDS_MAX = 3_600.0
"""How long one such list may take in all, down to its last byte: `LIST_BYTES_MAX` at a little over 1 MB per second. The
time between two pieces has a bound of its own, which a provider that sends a byte now and then never meets."""

DUPLICATE_WINDOW_SECONDS = 7 * 24 * 3600
"""How long an equal recipient and amount counts as a possible repetition of an earlier run."""

TEXT_LINE_BYTES_MAX = 16 * 1024 * 1024
"""One line of a text file. The longest lawful row fits; a file without line ends does not."""

WORKBOOK_BYTES_MAX = 100 * 1024 * 1024
"""A spreadsheet is loaded whole; larger ones are asked for as CSV, which streams."""

WORKBOOK_UNPACKED_BYTES_MAX = 2 * 1024 * 1024 * 1024
"""What a spreadsheet may grow to when unpacked: a sheet full to its last row stays below, an archive bomb does not."""

WORKBOOK_CELLS_MAX = 30_000_000
"""Rows times columns of one sheet: its reader takes about 30 bytes for each, also for the empty ones between, and 40
more for each that is filled while it reads."""

WORKBOOK_TEXT_BYTES_MAX = 512 * 1024 * 1024
"""The text of one sheet's cells, counted for each cell that shares it: a sheet full to its last row stays below."""

WORKBOOK_TAGS_MAX = 30_000_000
"""Begins and ends of elements in a sheet that has to be counted one by one, at a second for each million."""

WORKBOOK_PIECE_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of a spreadsheet without any mark-up: no spreadsheet program writes a text of over 32,767 characters."""

SCAN_BYTES = 1024 * 1024
"""Bytes read at a time where a file is hashed, checked or copied."""

FIRST_LOOK_SECONDS_MAX = 15 * 60.0
"""How long the provider may take to say what it already has, before anything is sent that may have been sent before."""

FIRST_LOOK_SECONDS_MIN = 30.0
"""How long it may take at least, also for a payer who does not want to follow: without it nothing can be sent."""

CALLBACK_BYTES_MAX = 64 * 1024
"""The body of one call that a provider makes to us. Theirs are below 4 KiB."""

CALLBACKS_AT_ONCE = 256
"""Calls that are read and stored at the same time: bounds the memory of the server. More are asked to come again."""

CALLBACK_READING_SECONDS = 10.0
"""How long one call may take to arrive."""

CALLBACKS_WAITING_MAX = 50_000
"""Stored calls of one account that nobody has acted on yet: about 8 MB. More are asked to come again."""

CALLBACKS_KEPT = 100_000
"""Stored calls that were acted on and are remembered, so that a repetition is known: about 8 MB."""

CALLBACK_SECONDS_MAX = 7 * 24 * 3600.0
"""After so long a stored call is of no use any more: no provider repeats it, and look-ups have asked long since."""

CALLBACKS_PAGE = 500
"""Stored calls that are read at a time."""

CALLBACKS_ROUND = 5_000
"""Stored calls that one round of asking may answer, where many speak of the same payouts."""
