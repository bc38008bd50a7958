-- index: users_id_key
-- What must be unique over all shards of users, as numbers to compare (campusfs check).
--   $1  behind this id
--   $2  so many
SELECT id, hashtextextended(lower(email), 0), hashtextextended(lower(username), 0)
FROM campusfs.users
WHERE id > $1::bigint
ORDER BY id
LIMIT $2::bigint
