-- index: enrollments_user_course_key
-- All that a user takes: the transcript.
--   $1  user id
SELECT id, course_id, status, progress_percent, completed_at
FROM campusfs.enrollments
WHERE user_id = $1::bigint
ORDER BY course_id
