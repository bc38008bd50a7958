-- index: courses_slug_key
-- The course of an address.
--   $1  slug
SELECT id, region, title, status
FROM campusfs.courses
WHERE slug = $1::text
