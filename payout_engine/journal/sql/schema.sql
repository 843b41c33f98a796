-- The journal, version 1. A chunk is the unit: its payouts are one JSON array in one row, and what is known of them is
-- one short row beside it. The views in views.sql unfold both into one row per payout, for people.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The states, from lifecycle.py: the letter stored in `progress.states`, the word shown to people, and whether a line
-- may begin in it.
CREATE TABLE words (
    letter TEXT PRIMARY KEY,
    word TEXT NOT NULL UNIQUE,
    birth INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The arrows between the states, from lifecycle.py.
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

-- Where the references and payees of approved runs are: fresh.py says what is hashed. Equal hashes are only candidates.
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
