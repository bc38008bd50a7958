-- index: change_log_folder_idx
-- A folder's mtime: when the collection last changed in a region (collection_changed_us()).
--   $1  collection
--   $2  region
SELECT changed_at
FROM campusfs.change_log
WHERE collection = $1::smallint AND region = $2::smallint
ORDER BY changed_at DESC
LIMIT 1
