-- index: enrollments_course_idx
-- How far the students of some courses are (course_statistics(), completion_funnel(), instructor_dashboard()).
--   $1  course ids
SELECT status, count(*), avg(progress_percent)
    FROM campusfs.enrollments
    WHERE course_id = ANY ($1::bigint[])
    GROUP BY status
