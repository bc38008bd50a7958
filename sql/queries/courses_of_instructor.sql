-- index: courses_instructor_idx
-- What a user teaches; also what forbids to delete or move the user.
--   $1  region
--   $2  user id
SELECT id, title, status, enrollment_count
FROM campusfs.courses
WHERE region = $1::smallint AND instructor_id = $2::bigint
ORDER BY id
