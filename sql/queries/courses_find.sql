-- index: courses_id_key
-- Where a course lies when only the id is known; how next_id() skips ids taken.
--   $1  id
SELECT region
FROM campusfs.courses
WHERE id = $1::bigint
