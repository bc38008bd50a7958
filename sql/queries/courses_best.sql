-- index: courses_rating_idx
-- The best rated published courses of the shard.
--   $1  how many
SELECT id, title, average_rating, rating_count
FROM campusfs.courses
WHERE status = 'published'
ORDER BY average_rating DESC NULLS LAST, rating_count DESC
LIMIT $1::bigint
