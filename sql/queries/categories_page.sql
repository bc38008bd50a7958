-- index: course_categories_pkey
-- A page of the folder: documents by key, whatever their number. Not `region = $1 AND (region, id) > …`: equality on the
-- first column makes the scan begin at the region's first row, so that the last pages of a large folder read it all.
--   $1  region (0)
--   $2  last id of the page before, 0 at first
--   $3  how many
SELECT id, rev, updated_us, content_us, body
FROM campusfs.doc_categories
WHERE (region, id) > ($1::smallint, $2::bigint) AND region <= $1::smallint
ORDER BY region, id
LIMIT $3::bigint
