-- Which way the money of a run goes. Whatever was recorded before paid people.

ALTER TABLE runs ADD COLUMN direction TEXT NOT NULL DEFAULT 'pay' CHECK (direction IN ('pay', 'collect'));

DROP TRIGGER IF EXISTS runs_stay_approved;
CREATE TRIGGER runs_stay_approved BEFORE UPDATE ON runs
WHEN OLD.direction <> NEW.direction OR OLD.approved_at IS NOT NULL AND (
    NEW.approved_at IS NOT OLD.approved_at OR NEW.approved_no IS NOT OLD.approved_no
    OR NEW.state NOT IN ('paying', 'finished') OR NEW.token <> OLD.token OR NEW.run_no <> OLD.run_no
)
BEGIN
    SELECT RAISE(ABORT, 'lifecycle: a run that was approved stays approved');
END;
