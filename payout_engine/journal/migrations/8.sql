-- What providers called to say: each call once, until somebody has asked the provider about it and for a while longer,
-- so that a repetition is known. Hints only: no payout moves by what stands here.

CREATE TABLE callbacks (
    callback_no INTEGER PRIMARY KEY,  -- in the order in which they came
    digest BLOB NOT NULL UNIQUE,  -- of the account and the whole call
    account TEXT NOT NULL,
    heard TEXT NOT NULL,  -- which payouts it speaks of; empty once it was acted on
    stored_at REAL NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 1 CHECK (waiting IN (0, 1))
);

CREATE INDEX callbacks_waiting ON callbacks (account, callback_no) WHERE waiting;
