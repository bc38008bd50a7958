-- index: change_log_row_idx
-- What happened to a row, when and by whom.
--   $1  collection
--   $2  row id
SELECT operation, actor, changed_at, rev
FROM campusfs.change_log
WHERE row_id = $2::bigint AND collection = $1::smallint
ORDER BY xid, id
