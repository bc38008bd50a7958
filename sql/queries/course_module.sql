-- index: course_modules_pkey
-- Which course a module belongs to.
--   $1  module id
SELECT course_id, position, title
FROM campusfs.course_modules
WHERE id = $1::bigint
