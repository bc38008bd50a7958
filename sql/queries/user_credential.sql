-- index: user_credentials_pkey
-- The password hash to check a login against; for functions of the owner only.
--   $1  region
--   $2  user id
SELECT password_hash, changed_at
FROM campusfs.user_credentials
WHERE region = $1::smallint AND user_id = $2::bigint
