-- index: course_categories_id_key
-- Where a category lies when only the id is known; how next_id() skips ids taken.
--   $1  id
SELECT region
FROM campusfs.course_categories
WHERE id = $1::bigint
