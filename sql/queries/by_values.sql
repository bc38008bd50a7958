-- .by/<field>: a page of the values that there are (code/21_by.sql).
--   $1  collection
--   $2  region
--   $3  number of the field
--   $4  last value of the page before, NULL at first
--   $5  how many
SELECT value
FROM campusfs.by_values($1::smallint, $2::smallint, $3::smallint, $4::text, $5::bigint) value
