-- index: users_status_idx
-- Accounts of a region that are not active: those suspended, those to be erased.
--   $1  region
--   $2  suspended or deleted
--   $3  last id seen
--   $4  how many
SELECT id, email, updated_at
FROM campusfs.users
WHERE region = $1::smallint AND status = $2::text AND status <> 'active' AND id > $3::bigint
ORDER BY id
LIMIT $4::bigint
