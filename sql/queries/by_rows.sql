-- .by/<field>/<value>: a page of the rows that have the value (code/21_by.sql).
--   $1  collection
--   $2  region
--   $3  number of the field
--   $4  value
--   $5  last id of the page before, 0 at first
--   $6  how many
SELECT id, rev
FROM campusfs.by_rows($1::smallint, $2::smallint, $3::smallint, $4::text, $5::bigint, $6::bigint)
