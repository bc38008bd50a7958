-- index: course_reviews_id_key
-- Where a review lies when only the id is known; how next_id() skips ids taken.
--   $1  id
SELECT region
FROM campusfs.course_reviews
WHERE id = $1::bigint
