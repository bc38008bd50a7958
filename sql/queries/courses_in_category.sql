-- index: courses_category_idx
-- The catalogue: published courses of a category, newest first.
--   $1  category id
--   $2  how many
SELECT id, title, price, currency, average_rating
FROM campusfs.courses
WHERE category_id = $1::bigint AND status = 'published'
ORDER BY published_at DESC
LIMIT $2::bigint
