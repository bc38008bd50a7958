-- index: transfers_finished_idx
-- Transfers that nobody will ask for any more (purge_deleted()).
--   $1  over at or before
--   $2  how many
SELECT id
FROM campusfs.transfers
WHERE finished_at <= $1::timestamptz
ORDER BY finished_at
LIMIT $2::bigint
