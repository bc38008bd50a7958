-- index: course_lessons_media_idx
-- Which lessons show a media file, before it is renamed or removed.
--   $1  path in the media folder
SELECT id, module_id, title
FROM campusfs.course_lessons
WHERE media = $1::text
