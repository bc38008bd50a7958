-- index: payment_methods_pkey
-- A page of the folder: documents by key, whatever their number.
--   $1  region
--   $2  last id of the page before, 0 at first
--   $3  how many
SELECT id, rev, updated_us, content_us, body
FROM campusfs.doc_payment_methods
WHERE region = $1::smallint AND (region, id) > ($1::smallint, $2::bigint)
ORDER BY region, id
LIMIT $3::bigint
