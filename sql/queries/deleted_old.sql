-- index: deleted_rows_deleted_idx
-- Whose day is over (purge_deleted()).
--   $1  not after
--   $2  how many
SELECT collection, region, id
FROM campusfs.deleted_rows
WHERE deleted_at <= $1::timestamptz
ORDER BY deleted_at
LIMIT $2::bigint
