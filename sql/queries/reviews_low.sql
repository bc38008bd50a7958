-- index: course_reviews_low_idx
-- Moderation: bad reviews of a region, newest first.
--   $1  region
--   $2  how many
SELECT id, user_id, course_id, rating, title, created_at
FROM campusfs.course_reviews
WHERE region = $1::smallint AND rating <= 2
ORDER BY created_at DESC
LIMIT $2::bigint
