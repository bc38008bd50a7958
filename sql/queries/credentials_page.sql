-- index: user_credentials_pkey
-- A page of the folder: documents by key, as in users_page.
--   $1  region
--   $2  last user id of the page before, 0 at first
--   $3  how many
SELECT id, rev, updated_us, content_us, body
FROM campusfs.doc_credentials
WHERE (region, id) > ($1::smallint, $2::bigint) AND region <= $1::smallint
ORDER BY region, id
LIMIT $3::bigint
