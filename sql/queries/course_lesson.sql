-- index: course_lessons_pkey
-- Which module a lesson belongs to.
--   $1  lesson id
SELECT module_id, position, title
FROM campusfs.course_lessons
WHERE id = $1::bigint
