-- index: course_reviews_user_course_key
-- What a user said of a course.
--   $1  user id
--   $2  course id
SELECT id, region, rating, title
FROM campusfs.course_reviews
WHERE user_id = $1::bigint AND course_id = $2::bigint
