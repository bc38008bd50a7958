-- index: lesson_progress_pkey
-- The entries of an enrollment; part of every enrollment document.
--   $1  enrollment id
SELECT lesson_id, status, position_seconds, completed_at
FROM campusfs.lesson_progress
WHERE enrollment_id = $1::bigint
ORDER BY lesson_id
