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
