-- index: enrollments_id_key
-- Where an enrollment lies when only the id is known; how next_id() skips ids taken.
--   $1  id
SELECT region
FROM campusfs.enrollments
WHERE id = $1::bigint
