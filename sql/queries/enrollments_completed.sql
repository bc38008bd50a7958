-- index: enrollments_completed_idx
-- Who finished a course in a period: certificates to send.
--   $1  from
--   $2  before
SELECT id, user_id, course_id, completed_at
FROM campusfs.enrollments
WHERE completed_at >= $1::timestamptz AND completed_at < $2::timestamptz
ORDER BY completed_at
