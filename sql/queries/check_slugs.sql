-- index: courses_id_key
-- The same of courses.
--   $1  behind this id
--   $2  so many
SELECT id, hashtextextended(slug, 0)
FROM campusfs.courses
WHERE id > $1::bigint
ORDER BY id
LIMIT $2::bigint
