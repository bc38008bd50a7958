-- index: course_reviews_course_idx
-- The page of a course: its newest reviews.
--   $1  course id
--   $2  how many
SELECT id, region, user_id, rating, title, body, created_at
FROM campusfs.course_reviews
WHERE course_id = $1::bigint
ORDER BY created_at DESC
LIMIT $2::bigint
