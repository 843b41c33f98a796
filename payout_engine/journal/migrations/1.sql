-- The journal, version 1. A chunk is the unit: its payouts are one JSON array in one row, and what is known of them is
-- one short row beside it. The views at the end unfold both into one row per payout, for people.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The states, from domain/states.py: the letter stored in `progress.states`, the word shown to people, and whether a line
-- may begin in it.
CREATE TABLE words (
    letter TEXT PRIMARY KEY,
    word TEXT NOT NULL UNIQUE,
    birth INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The arrows between the states, from domain/states.py.
CREATE TABLE moves (
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (source, target)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT keeps the number of a discarded run from being given again: the log still speaks of it.
CREATE TABLE runs (
    run_no INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    token TEXT NOT NULL UNIQUE,       -- the first part of the run's provider keys
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    columns TEXT NOT NULL,            -- JSON
    dialect TEXT NOT NULL,            -- JSON
    has_references INTEGER NOT NULL,
    sandbox INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('intake', 'judged', 'paying', 'finished')),
    created_at REAL NOT NULL,
    approved_no INTEGER UNIQUE,       -- counts approvals over all runs
    approved_at REAL,
    finished_at REAL,
    retry_of TEXT NOT NULL            -- the run whose unpaid lines this one pays again, or empty
) STRICT;
CREATE INDEX runs_by_digest ON runs (digest);

CREATE TABLE chunks (
    chunk_id INTEGER PRIMARY KEY,     -- run_no << 24 | chunk number
    run_no INTEGER NOT NULL REFERENCES runs,
    account TEXT NOT NULL,            -- account and lane are empty for refused lines
    lane TEXT NOT NULL,
    currency TEXT NOT NULL,
    first_line INTEGER NOT NULL,
    last_line INTEGER NOT NULL,
    count INTEGER NOT NULL,
    amount_minor INTEGER NOT NULL,
    payouts TEXT NOT NULL,            -- JSON: arrays in the order of model.Payout
    rows TEXT NOT NULL                -- JSON: the cells as they were read
) STRICT;
CREATE INDEX chunks_by_line ON chunks (run_no, first_line);

CREATE TABLE progress (
    chunk_id INTEGER PRIMARY KEY REFERENCES chunks,
    states TEXT NOT NULL,             -- one letter for each payout
    receipts TEXT,                    -- JSON: arrays in the order of model.Receipt; one alone stands for every payout
    updated_at REAL NOT NULL
) STRICT;
CREATE INDEX progress_ready ON progress (chunk_id) WHERE instr(states, 'r') > 0;
CREATE INDEX progress_open ON progress (chunk_id) WHERE instr(states, 'a') > 0 OR instr(states, 'u') > 0;

-- Where the references and payees of approved runs are: fingerprints.py says what is hashed. Equal hashes are only candidates.
CREATE TABLE keys (
    hash INTEGER NOT NULL,
    position INTEGER NOT NULL,        -- chunk_id << 10 | index
    PRIMARY KEY (hash, position)
) STRICT, WITHOUT ROWID;

-- Every attempt to send; open until its receipts are recorded.
CREATE TABLE dispatches (
    dispatch_id INTEGER PRIMARY KEY,
    chunk_id INTEGER NOT NULL REFERENCES chunks,
    indexes TEXT,                     -- JSON; NULL is the whole chunk
    begun_at REAL NOT NULL,
    ended_at REAL
) STRICT;
CREATE INDEX dispatches_by_chunk ON dispatches (chunk_id);
CREATE INDEX dispatches_open ON dispatches (chunk_id) WHERE ended_at IS NULL;

-- What people ask of whoever pays a run, until it is done. What came of it is in the log.
CREATE TABLE requests (
    run_no INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('pause', 'cancel')),
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    at REAL NOT NULL,
    heard INTEGER NOT NULL,
    PRIMARY KEY (run_no, kind)
) STRICT, WITHOUT ROWID;

-- What happened, in order. Each hash covers the entry and the hash before it. AUTOINCREMENT makes SQLite remember, apart,
-- how many there were: whoever cuts off the last entries has to alter that, too.
CREATE TABLE log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    run_no INTEGER NOT NULL,
    chunk_id INTEGER,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,               -- JSON
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX log_by_run ON log (run_no);
CREATE INDEX log_notes ON log (run_no) WHERE kind = 'note';

-- ------------------------------------------------------------------------------------------------------------- guards

CREATE TRIGGER progress_births BEFORE INSERT ON progress
WHEN NEW.states GLOB (SELECT '*[^' || group_concat(letter, '') || ']*' FROM words WHERE birth)
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: a line can only begin as ready, held or rejected');
END;

CREATE TRIGGER progress_lengths BEFORE UPDATE ON progress
WHEN length(NEW.states) <> length(OLD.states) OR NEW.chunk_id <> OLD.chunk_id
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: a chunk keeps its payouts');
END;

-- The common case: every payout of the chunk was in one state and goes to one state.
CREATE TRIGGER progress_moves_alike BEFORE UPDATE OF states ON progress
WHEN NEW.states <> OLD.states
    AND replace(OLD.states, substr(OLD.states, 1, 1), '') = ''
    AND replace(NEW.states, substr(NEW.states, 1, 1), '') = ''
    AND NOT EXISTS (
        SELECT 1 FROM moves WHERE source = substr(OLD.states, 1, 1) AND target = substr(NEW.states, 1, 1)
    )
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: the payouts of this chunk cannot make this move');
END;

CREATE TRIGGER progress_moves_mixed BEFORE UPDATE OF states ON progress
WHEN NEW.states <> OLD.states
    AND (
        replace(OLD.states, substr(OLD.states, 1, 1), '') <> ''
        OR replace(NEW.states, substr(NEW.states, 1, 1), '') <> ''
    )
    AND EXISTS (
        WITH RECURSIVE place (n) AS (
            SELECT 1 UNION ALL SELECT n + 1 FROM place WHERE n < length(NEW.states)
        )
        SELECT 1 FROM place
        WHERE substr(OLD.states, n, 1) <> substr(NEW.states, n, 1)
            AND NOT EXISTS (
                SELECT 1 FROM moves WHERE source = substr(OLD.states, n, 1) AND target = substr(NEW.states, n, 1)
            )
    )
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: a payout of this chunk cannot make this move');
END;

CREATE TRIGGER progress_stays BEFORE DELETE ON progress
WHEN (SELECT approved_at FROM runs WHERE run_no = OLD.chunk_id >> 24) IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: a run that was approved is never removed');
END;

CREATE TRIGGER chunks_stay BEFORE DELETE ON chunks
WHEN (SELECT approved_at FROM runs WHERE run_no = OLD.run_no) IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: a run that was approved is never removed');
END;

CREATE TRIGGER chunks_never_change BEFORE UPDATE ON chunks
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: what was judged never changes');
END;

CREATE TRIGGER runs_stay BEFORE DELETE ON runs WHEN OLD.approved_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: a run that was approved is never removed');
END;

CREATE TRIGGER runs_stay_approved BEFORE UPDATE ON runs
WHEN OLD.approved_at IS NOT NULL AND (
    NEW.approved_at IS NOT OLD.approved_at OR NEW.approved_no IS NOT OLD.approved_no
    OR NEW.state NOT IN ('paying', 'finished') OR NEW.token <> OLD.token OR NEW.run_no <> OLD.run_no
)
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: a run that was approved stays approved');
END;

CREATE TRIGGER dispatches_stay BEFORE DELETE ON dispatches
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: a dispatch is never forgotten');
END;

CREATE TRIGGER log_never_changes BEFORE UPDATE ON log
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: the log is only added to');
END;

CREATE TRIGGER log_never_shrinks BEFORE DELETE ON log
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: the log is only added to');
END;

-- --------------------------------------------------------------------------------------------------------- for people

-- The journal for people: select * from payouts where state = 'unknown';

-- One row for each payout. The amount is in minor units of its currency; times are UTC.
CREATE VIEW payouts AS
SELECT
    runs.run_id,
    payout.value ->> 9 AS line,
    payout.value ->> 0 AS reference,
    words.word AS state,
    payout.value ->> 1 AS amount_minor,
    payout.value ->> 2 AS currency,
    payout.value ->> 3 AS phone,
    payout.value ->> 4 AS email,
    payout.value ->> 5 AS account_number,
    payout.value ->> 8 AS name,
    coalesce(nullif(payout.value ->> 7, ''), chunks.lane) AS wallet,
    chunks.account,
    coalesce(receipt.value ->> 1, '') AS reason,
    coalesce(receipt.value ->> 2, '') AS message,
    coalesce(receipt.value ->> 3, '') AS provider_reference,
    strftime('%Y-%m-%dT%H:%M:%fZ', nullif(receipt.value ->> 4, 0.0), 'unixepoch') AS at,
    runs.token || '-' || (chunks.chunk_id & 16777215) || '-' || payout.key AS key
FROM chunks
JOIN runs USING (run_no)
JOIN progress USING (chunk_id)
JOIN json_each(chunks.payouts) AS payout
JOIN words ON words.letter = substr(progress.states, payout.key + 1, 1)
LEFT JOIN json_each(progress.receipts) AS receipt
    ON receipt.key = CASE json_array_length(progress.receipts) WHEN 1 THEN 0 ELSE payout.key END
        AND receipt.type = 'array';

-- One row for each run and state.
CREATE VIEW runs_summary AS
SELECT
    runs.run_id,
    runs.name,
    runs.state AS run_state,
    payouts.account,
    payouts.wallet,
    payouts.state,
    payouts.currency,
    count(*) AS count,
    sum(payouts.amount_minor) AS amount_minor,
    strftime('%Y-%m-%dT%H:%M:%SZ', runs.created_at, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%SZ', runs.approved_at, 'unixepoch') AS approved_at
FROM runs
JOIN payouts USING (run_id)
GROUP BY runs.run_no, payouts.account, payouts.wallet, payouts.currency, payouts.state;

-- What waits for a person.
CREATE VIEW attention AS
SELECT * FROM payouts WHERE state IN ('held', 'unknown');
