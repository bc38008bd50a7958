-- index: enrollments_user_course_key
-- Whether, and how, a user takes a course.
--   $1  user id
--   $2  course id
SELECT id, region, status, progress_percent
FROM campusfs.enrollments
WHERE user_id = $1::bigint AND course_id = $2::bigint
