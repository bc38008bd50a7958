-- index: user_profiles_country_idx
-- The users of one country, for a mailing or a legal request.
--   $1  region
--   $2  country, two capitals
--   $3  last id seen
--   $4  how many
SELECT user_id, city, language
FROM campusfs.user_profiles
WHERE region = $1::smallint AND country = $2::text AND user_id > $3::bigint
ORDER BY user_id
LIMIT $4::bigint
