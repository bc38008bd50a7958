-- index: courses_status_idx
-- The drafts, or the archive, of a region.
-- Ids first, by the index alone: a plan for unknown values would rather read rows of all kinds in the order of their ids.
--   $1  region
--   $2  draft, published or archived
--   $3  last id seen
--   $4  how many
SELECT c.id, c.title, c.instructor_id, c.updated_at
FROM (SELECT id
          FROM campusfs.courses
          WHERE region = $1::smallint AND status = $2::text AND id > $3::bigint
          ORDER BY id
          LIMIT $4::bigint) page
JOIN campusfs.courses c ON c.region = $1::smallint AND c.id = page.id
ORDER BY c.id
