-- What this process knows of runs it is validating. Temporary: it goes with the process, and a run that was interrupted
-- then is validated again from its file.

-- One row for each run that was begun here and is not approved yet.
CREATE TEMP TABLE validating (
    run_no INTEGER PRIMARY KEY,
    chunks INTEGER NOT NULL,          -- chunks recorded so far
    digest BLOB NOT NULL,             -- of all payouts recorded so far
    compared INTEGER                  -- the last approval that its repeats were compared with
) STRICT;

-- The hashes of their payouts, as `keys` will hold them. Unindexed: it is written once and sorted when it is needed.
-- For the time of a search also those of an approved run's payouts that still wait.
CREATE TEMP TABLE fresh (
    hash INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT;

-- The search for repeats, in the order it goes through them: earlier runs of which something was, or may still be, sent
-- lately; hashes that occur more than once; the payouts that have them, by the kind of hash; what those payouts really
-- say; the first of each kind; and what is reported.
CREATE TEMP TABLE recent (
    source INTEGER NOT NULL,          -- 0 this journal, 1 the one attached as `earlier`
    run_no INTEGER NOT NULL,
    PRIMARY KEY (source, run_no)
) STRICT, WITHOUT ROWID;

CREATE TEMP TABLE doubtful (hash INTEGER PRIMARY KEY) STRICT;

CREATE TEMP TABLE suspects (
    source INTEGER NOT NULL,
    position INTEGER NOT NULL,
    kind INTEGER NOT NULL,            -- of the hash; see fresh.py
    PRIMARY KEY (source, position, kind)
) STRICT, WITHOUT ROWID;

CREATE TEMP TABLE faces (
    kind TEXT NOT NULL,
    identity TEXT NOT NULL,
    mine INTEGER NOT NULL,            -- 1 for a payout of the run that is validated
    approved_no INTEGER NOT NULL,
    line INTEGER NOT NULL,
    position INTEGER NOT NULL,
    source INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    bare INTEGER NOT NULL,            -- 1 for a line without a reference of the payer's own
    unpaid INTEGER NOT NULL           -- 1 for an earlier one that counts as unpaid: it is no original
) STRICT;

CREATE TEMP TABLE originals (
    kind TEXT NOT NULL,
    identity TEXT NOT NULL,
    mine INTEGER NOT NULL,
    line INTEGER NOT NULL,
    position INTEGER NOT NULL,
    source INTEGER NOT NULL,
    PRIMARY KEY (kind, identity, mine)
) STRICT, WITHOUT ROWID;

CREATE TEMP TABLE found (
    run_no INTEGER NOT NULL,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    same_run INTEGER NOT NULL,
    earlier_line INTEGER NOT NULL,
    earlier_position INTEGER NOT NULL,
    source INTEGER NOT NULL,
    PRIMARY KEY (run_no, position, kind, same_run)
) STRICT, WITHOUT ROWID;

-- Earlier payouts that count as unpaid and may be what a run pays again: the provider is asked about them first.
CREATE TEMP TABLE formerly (
    run_no INTEGER NOT NULL,
    source INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (run_no, source, position)
) STRICT, WITHOUT ROWID;

-- How far the log was read for whether the clock was ever set back since a run was sealed. See resends.py.
CREATE TEMP TABLE clock_read (
    run_no INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    latest REAL NOT NULL              -- the latest time so far; infinite once the clock was set back
) STRICT;
