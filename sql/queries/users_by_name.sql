-- index: users_name_trgm
-- Support: people search for a part of a name.
--   $1  part of the name between percent signs, such as %nuñez%
SELECT id, region, first_name, last_name, email
FROM campusfs.users
WHERE lower(first_name || ' ' || last_name) LIKE lower($1::text)
LIMIT 100
