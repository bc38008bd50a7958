-- index: course_categories_slug_key
-- The category of an address.
--   $1  slug
SELECT id, name, parent_id
FROM campusfs.course_categories
WHERE slug = $1::text
