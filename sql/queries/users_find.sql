-- index: users_id_key
-- Where a user lies when only the id is known; how next_id() skips ids taken.
--   $1  id
SELECT region
FROM campusfs.users
WHERE id = $1::bigint
