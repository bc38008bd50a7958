-- index: user_credentials_pkey
-- One document, by its user's key.
--   $1  region
--   $2  user id
SELECT id, rev, updated_us, content_us, body
FROM campusfs.doc_credentials
WHERE region = $1::smallint AND id = $2::bigint
