-- index: deleted_rows_pkey
-- A page of .deleted: what was deleted within the last day, as it was shown last.
--   $1  collection
--   $2  region
--   $3  last id of the page before, 0 at first
--   $4  how many
SELECT id, rev, updated_us, content_us, body
FROM campusfs.deleted_documents
WHERE (collection, region, id) > ($1::smallint, $2::smallint, $3::bigint)
  AND (collection, region) <= ($1::smallint, $2::smallint)
ORDER BY collection, region, id
LIMIT $4::bigint
