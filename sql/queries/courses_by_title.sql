-- index: courses_title_trgm
-- The catalogue: search for a part of a title.
--   $1  part of the title between percent signs
SELECT id, title, status
FROM campusfs.courses
WHERE lower(title) LIKE lower($1::text)
LIMIT 100
