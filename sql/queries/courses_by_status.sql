-- index: courses_status_idx
-- The drafts, or the archive, of a region, oldest first.
--   $1  region
--   $2  draft, published or archived
--   $3  last created_at seen
--   $4  last id seen
--   $5  how many
SELECT id, title, instructor_id, created_at
FROM campusfs.courses
WHERE region = $1::smallint AND status = $2::text AND (created_at, id) > ($3::timestamptz, $4::bigint)
ORDER BY created_at, id
LIMIT $5::bigint
