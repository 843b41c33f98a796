-- Keep what the engine decides by in entries with fields of their own, and remarks for people alone.

CREATE INDEX log_facts ON log (run_no) WHERE kind IN ('fact', 'carried');
