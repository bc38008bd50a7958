-- index: users_username_key
-- Support: who has this handle?
--   $1  username
SELECT id, region, email, status
FROM campusfs.users
WHERE lower(username) = lower($1::text)
