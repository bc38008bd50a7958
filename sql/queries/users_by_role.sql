-- index: users_role_idx
-- The teachers or admins of a region.
--   $1  region
--   $2  instructor or admin
--   $3  last id seen
--   $4  how many
SELECT id, first_name, last_name, email
FROM campusfs.users
WHERE region = $1::smallint AND role = $2::text AND role <> 'student' AND id > $3::bigint
ORDER BY id
LIMIT $4::bigint
