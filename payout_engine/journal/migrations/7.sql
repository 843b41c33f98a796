-- One intent may cover many calls, of which only some were made before sending had to stop.

ALTER TABLE dispatches ADD COLUMN spoken TEXT;    -- JSON: the payouts whose calls may have left; NULL is as `on_wire` says
