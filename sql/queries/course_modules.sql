-- index: course_modules_position_key
-- The modules of a course in their order; part of every course document.
--   $1  course id
SELECT id, title, description
FROM campusfs.course_modules
WHERE course_id = $1::bigint
ORDER BY position
