-- .by: the fields by which a collection's rows can be found (code/21_by.sql).
--   $1  collection
SELECT number, name
FROM campusfs.by_fields($1::smallint)
