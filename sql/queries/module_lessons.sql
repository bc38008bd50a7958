-- index: course_lessons_position_key
-- The lessons of a module in their order; part of every course document.
--   $1  module id
SELECT id, title, kind, duration_minutes, media, is_preview
FROM campusfs.course_lessons
WHERE module_id = $1::bigint
ORDER BY position
