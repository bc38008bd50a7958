-- index: deleted_rows_user_idx
-- What a person had that was deleted and is still kept: erase_user() forgets it, a move takes it along.
--   $1  user id
SELECT collection, region, id, deleted_at
FROM campusfs.deleted_rows
WHERE user_id = $1::bigint
