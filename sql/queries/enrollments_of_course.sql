-- index: enrollments_course_idx
-- The roster of a course; also what forbids to delete it.
--   $1  course id
--   $2  active, completed or cancelled
--   $3  last id seen
--   $4  how many
SELECT id, region, user_id, progress_percent
FROM campusfs.enrollments
WHERE course_id = $1::bigint AND status = $2::text AND id > $3::bigint
ORDER BY id
LIMIT $4::bigint
