-- index: enrollments_status_idx
-- The cancelled enrollments of a region, and so on.
-- Ids first, by the index alone: a plan for unknown values would rather read rows of all kinds in the order of their ids.
--   $1  region
--   $2  active, completed or cancelled
--   $3  last id seen
--   $4  how many
SELECT e.id, e.user_id, e.course_id, e.updated_at
FROM (SELECT id
          FROM campusfs.enrollments
          WHERE region = $1::smallint AND status = $2::text AND id > $3::bigint
          ORDER BY id
          LIMIT $4::bigint) page
JOIN campusfs.enrollments e ON e.region = $1::smallint AND e.id = page.id
ORDER BY e.id
