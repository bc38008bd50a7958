-- index: enrollments_enrolled_idx
-- Enrollments of a period, for growth figures.
--   $1  from
--   $2  before
SELECT count(*)
FROM campusfs.enrollments
WHERE enrolled_at >= $1::timestamptz AND enrolled_at < $2::timestamptz
