-- Find repeats as people mean them, counting from the money; know which calls never left this machine.

ALTER TABLE dispatches ADD COLUMN on_wire INTEGER NOT NULL DEFAULT 1;
CREATE INDEX progress_held ON progress (chunk_id) WHERE instr(states, 'h') > 0;
CREATE INDEX log_decisions ON log (run_no) WHERE kind = 'decision';
