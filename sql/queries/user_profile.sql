-- index: user_profiles_pkey
-- The profile of a user; part of every user document.
--   $1  region
--   $2  user id
SELECT bio, avatar_url, phone, date_of_birth, country, city, timezone, language, website
FROM campusfs.user_profiles
WHERE region = $1::smallint AND user_id = $2::bigint
