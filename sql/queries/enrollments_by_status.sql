-- index: enrollments_status_idx
-- The cancelled enrollments of a region, and so on, oldest first.
--   $1  region
--   $2  active, completed or cancelled
--   $3  last enrolled_at seen
--   $4  last id seen
--   $5  how many
SELECT id, user_id, course_id, enrolled_at
FROM campusfs.enrollments
WHERE region = $1::smallint AND status = $2::text AND (enrolled_at, id) > ($3::timestamptz, $4::bigint)
ORDER BY enrolled_at, id
LIMIT $5::bigint
