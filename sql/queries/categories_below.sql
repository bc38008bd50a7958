-- index: course_categories_parent_idx
-- The next narrower categories; also what forbids to delete one.
--   $1  parent id
SELECT id, name, slug
FROM campusfs.course_categories
WHERE parent_id = $1::bigint
ORDER BY id
