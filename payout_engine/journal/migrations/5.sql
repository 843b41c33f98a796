-- Payouts and receipts are stored by column: an array for each field, or one value where it is the same for all. Rows of
-- earlier formats stay as they are, one array for each payout, and the views unfold both.

DROP VIEW attention;
DROP VIEW runs_summary;
DROP VIEW payouts;

-- One row for each payout. The amount is in minor units of its currency; times are UTC.
CREATE VIEW payouts AS
SELECT
    runs.run_id,
    coalesce(payout.value ->> 9, payout.value) AS line,
    coalesce(
        payout.value ->> 0, chunks.payouts ->> ('$.reference[' || payout.key || ']'),
        chunks.payouts ->> '$.reference', ''
    ) AS reference,
    words.word AS state,
    coalesce(
        payout.value ->> 1, chunks.payouts ->> ('$.amount_minor[' || payout.key || ']'),
        chunks.payouts ->> '$.amount_minor', 0
    ) AS amount_minor,
    coalesce(
        payout.value ->> 2, chunks.payouts ->> ('$.currency[' || payout.key || ']'),
        chunks.payouts ->> '$.currency', ''
    ) AS currency,
    coalesce(
        payout.value ->> 3, chunks.payouts ->> ('$.phone[' || payout.key || ']'),
        chunks.payouts ->> '$.phone', ''
    ) AS phone,
    coalesce(
        payout.value ->> 4, chunks.payouts ->> ('$.email[' || payout.key || ']'),
        chunks.payouts ->> '$.email', ''
    ) AS email,
    coalesce(
        payout.value ->> 5, chunks.payouts ->> ('$.account_number[' || payout.key || ']'),
        chunks.payouts ->> '$.account_number', ''
    ) AS account_number,
    coalesce(
        payout.value ->> 8, chunks.payouts ->> ('$.name[' || payout.key || ']'),
        chunks.payouts ->> '$.name', ''
    ) AS name,
    coalesce(nullif(coalesce(payout.value ->> 7, chunks.payouts ->> ('$.wallet[' || payout.key || ']'), chunks.payouts ->> '$.wallet', ''), ''), chunks.lane) AS wallet,
    chunks.account,
    coalesce(
        progress.receipts ->> ('$[' || iif(json_array_length(progress.receipts) = 1, 0, payout.key) || '][1]'),
        progress.receipts ->> ('$.reason[' || payout.key || ']'), progress.receipts ->> '$.reason', ''
    ) AS reason,
    coalesce(
        progress.receipts ->> ('$[' || iif(json_array_length(progress.receipts) = 1, 0, payout.key) || '][2]'),
        progress.receipts ->> ('$.message[' || payout.key || ']'), progress.receipts ->> '$.message', ''
    ) AS message,
    coalesce(
        progress.receipts ->> ('$[' || iif(json_array_length(progress.receipts) = 1, 0, payout.key) || '][3]'),
        progress.receipts ->> ('$.provider_reference[' || payout.key || ']'), progress.receipts ->> '$.provider_reference', ''
    ) AS provider_reference,
    strftime(
        '%Y-%m-%dT%H:%M:%fZ',
        nullif(
            coalesce(
                progress.receipts ->> ('$[' || iif(json_array_length(progress.receipts) = 1, 0, payout.key) || '][4]'),
                progress.receipts ->> ('$.at[' || payout.key || ']'), progress.receipts ->> '$.at'
            ), 0.0
        ),
        'unixepoch'
    ) AS at,
    runs.token || '-' || (chunks.chunk_id & 16777215) || '-' || payout.key AS key
FROM chunks
JOIN runs USING (run_no)
JOIN progress USING (chunk_id)
JOIN json_each(coalesce(chunks.payouts -> '$.line', chunks.payouts)) AS payout
JOIN words ON words.letter = substr(progress.states, payout.key + 1, 1);

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
