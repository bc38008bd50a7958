-- index: transactions_id_key
-- Where a transaction lies when only the id is known; how next_id() skips ids taken.
--   $1  id
SELECT region
FROM campusfs.transactions
WHERE id = $1::bigint
