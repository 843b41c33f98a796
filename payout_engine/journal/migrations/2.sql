-- Find what was resent to ask without reading the whole log; know ages by a clock that nobody sets.

CREATE INDEX log_asked_again ON log (chunk_id) WHERE kind = 'asked_again';
ALTER TABLE dispatches ADD COLUMN boot TEXT NOT NULL DEFAULT '';
ALTER TABLE dispatches ADD COLUMN up_seconds REAL NOT NULL DEFAULT 0;
