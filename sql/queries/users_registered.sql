-- index: users_created_idx
-- Who joined a region in a period.
--   $1  region
--   $2  from
--   $3  before
SELECT id, email, created_at
FROM campusfs.users
WHERE region = $1::smallint AND created_at >= $2::timestamptz AND created_at < $3::timestamptz
ORDER BY created_at, id
