-- index: lesson_progress_lesson_idx
-- How many have finished a lesson; also what forbids to remove it.
--   $1  lesson id
SELECT status, count(*)
FROM campusfs.lesson_progress
WHERE lesson_id = $1::bigint
GROUP BY status
