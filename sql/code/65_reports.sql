-- Reports over all shards, .campusfs/reports/<name>.json: report_<name>(at) is one shard's part, asked of all at once;
-- merge_<name>(parts) makes one of an array of them, on any shard, so that money stays numeric all the way. Both only
-- read. `at` is the mount's clock: all shards mean the same months.
--
-- What is added up is additive; rates and averages are computed anew of their sums. A list of the first N is cut out of
-- the first N of each shard.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE OR REPLACE FUNCTION report_courses_max() RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 100;
COMMENT ON FUNCTION report_courses_max IS 'How many courses a report names at most';

-- revenue_by_month ---------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION report_revenue_by_month(p_at timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    until CONSTANT date := (p_at AT TIME ZONE 'UTC')::date;
    since CONSTANT date := (date_trunc('month', until::timestamp) - interval '11 months')::date;
BEGIN
    RETURN jsonb_build_object('from', since, 'to', until, 'months', (
        SELECT coalesce(jsonb_agg(to_jsonb(r)), '[]') FROM revenue_by_month(since, until) r));
END $$;
COMMENT ON FUNCTION report_revenue_by_month IS 'This shard''s part: revenue_by_month of the last twelve months';

CREATE OR REPLACE FUNCTION merge_revenue_by_month(p_parts jsonb) RETURNS json
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN json_build_object(
    'from', p_parts -> 0 -> 'from', 'to', p_parts -> 0 -> 'to',
    'months', (SELECT coalesce(json_agg(row_to_json(m) ORDER BY m.month, m.currency), '[]')
               FROM (SELECT r.month, r.currency, sum(r.payments) AS payments, sum(r.gross) AS gross,
                            sum(r.refunds) AS refunds, sum(r.refunded) AS refunded, sum(r.net) AS net
                     FROM jsonb_array_elements(p_parts) part
                     CROSS JOIN jsonb_to_recordset(part -> 'months') AS r (
                         month date, currency text, payments bigint, gross numeric, refunds bigint, refunded numeric,
                         net numeric)
                     GROUP BY r.month, r.currency) m));
COMMENT ON FUNCTION merge_revenue_by_month IS 'Sums by month and currency';

-- top_courses --------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION report_top_courses(p_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN (SELECT coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('region', (
                            SELECT region_name(c.region) FROM courses c WHERE c.id = t.course_id))), '[]')
        FROM top_courses(report_courses_max()) t);
COMMENT ON FUNCTION report_top_courses IS 'This shard''s part: top_courses by enrollments';

CREATE OR REPLACE FUNCTION merge_top_courses(p_parts jsonb) RETURNS json
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN (SELECT coalesce(json_agg(row_to_json(t) ORDER BY t.place), '[]')
        FROM (SELECT row_number() OVER (ORDER BY r.enrollment_count DESC, r.course_id) AS place, r.*
              FROM jsonb_array_elements(p_parts) part
              CROSS JOIN jsonb_to_recordset(part) AS r (
                  course_id bigint, region text, title text, instructor text, category text, level text, price numeric,
                  currency text, enrollment_count int, average_rating numeric, rating_count int)
              ORDER BY 1 LIMIT report_courses_max()) t);
COMMENT ON FUNCTION merge_top_courses IS 'The first of the first of each shard';

-- course_statistics --------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION report_course_statistics(p_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN (SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]')
        FROM (SELECT id FROM courses ORDER BY enrollment_count DESC, id LIMIT report_courses_max()) c
        CROSS JOIN LATERAL course_statistics(c.id) s);
COMMENT ON FUNCTION report_course_statistics IS
    'This shard''s part: course_statistics of the courses that have most enrollments, whatever their status';

CREATE OR REPLACE FUNCTION merge_course_statistics(p_parts jsonb) RETURNS json
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN (SELECT coalesce(json_agg(row_to_json(c) ORDER BY c.enrollments DESC, c.course_id), '[]')
        FROM (SELECT r.*
              FROM jsonb_array_elements(p_parts) part
              CROSS JOIN jsonb_to_recordset(part) AS r (
                  course_id bigint, title text, status text, modules bigint, lessons bigint, duration_minutes int,
                  enrollments bigint, active bigint, completed bigint, cancelled bigint, completion_rate numeric,
                  average_progress numeric, median_days_to_complete numeric, average_rating numeric, rating_count int,
                  stars jsonb, revenue jsonb)
              ORDER BY r.enrollments DESC, r.course_id LIMIT report_courses_max()) c);
COMMENT ON FUNCTION merge_course_statistics IS 'A course lies on one shard: its figures are taken as they are';

-- completion_funnel --------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION report_completion_funnel(p_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN (
    SELECT jsonb_build_object(
        'enrolled', count(*),
        'started', count(*) FILTER (WHERE e.progress_percent > 0 OR e.status = 'completed' OR EXISTS (
            SELECT FROM lesson_progress l WHERE l.enrollment_id = e.id AND l.status <> 'not_started')),
        '25 %', count(*) FILTER (WHERE e.progress_percent >= 25 OR e.status = 'completed'),
        '50 %', count(*) FILTER (WHERE e.progress_percent >= 50 OR e.status = 'completed'),
        '75 %', count(*) FILTER (WHERE e.progress_percent >= 75 OR e.status = 'completed'),
        'completed', count(*) FILTER (WHERE e.status = 'completed'))
    FROM enrollments e WHERE e.enrolled_at > p_at - interval '365 days');
COMMENT ON FUNCTION report_completion_funnel IS
    'This shard''s part: how far those came who enrolled within a year, as completion_funnel counts them, all courses';

CREATE OR REPLACE FUNCTION merge_completion_funnel(p_parts jsonb) RETURNS json
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN (
    SELECT json_agg(json_build_object('step', s.step, 'reached', s.reached, 'students', s.students,
                                      'percent', round(100.0 * s.students / nullif(s.enrolled, 0), 2)) ORDER BY s.step)
    FROM (SELECT n.step, n.reached, sum((part ->> n.reached)::bigint) AS students,
                 sum((part ->> 'enrolled')::bigint) AS enrolled
          FROM (VALUES (1, 'enrolled'), (2, 'started'), (3, '25 %'), (4, '50 %'), (5, '75 %'), (6, 'completed'))
               n (step, reached)
          CROSS JOIN jsonb_array_elements(p_parts) part GROUP BY n.step, n.reached) s);
COMMENT ON FUNCTION merge_completion_funnel IS 'Sums of each step, the share computed of them';

-- platform_overview --------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION report_platform_overview(p_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN platform_overview() || (SELECT jsonb_build_object('stars', coalesce(sum(rating_sum), 0),
                                                         'ratings', coalesce(sum(rating_count), 0)) FROM courses);
COMMENT ON FUNCTION report_platform_overview IS 'This shard''s part: platform_overview, and the sums of its average';

CREATE OR REPLACE FUNCTION merged_sum(p_parts jsonb, VARIADIC p_path text[]) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT sum((part #>> p_path)::numeric) FROM jsonb_array_elements(p_parts) part);
COMMENT ON FUNCTION merged_sum IS 'Sum of a number that each part has at a path';

CREATE OR REPLACE FUNCTION merged_counts(p_parts jsonb, VARIADIC p_path text[]) RETURNS json
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT json_object_agg(key, n ORDER BY place, key)
        FROM (SELECT c.key, min(c.place) AS place, sum(c.value::numeric) AS n
              FROM jsonb_array_elements(p_parts) part
              CROSS JOIN jsonb_each_text(part #> p_path) WITH ORDINALITY c (key, value, place) GROUP BY c.key) s);
COMMENT ON FUNCTION merged_counts IS 'Sums of the numbers of an object that each part has at a path, by key';

CREATE OR REPLACE FUNCTION merge_platform_overview(p_parts jsonb) RETURNS json
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN json_build_object(
    'users', json_build_object(
        'total', merged_sum(p_parts, 'users', 'total'),
        'by_region', merged_counts(p_parts, 'users', 'by_region'),
        'by_role', merged_counts(p_parts, 'users', 'by_role'),
        'by_status', merged_counts(p_parts, 'users', 'by_status'),
        'new_last_30_days', merged_sum(p_parts, 'users', 'new_last_30_days')),
    'courses', json_build_object(
        'total', merged_sum(p_parts, 'courses', 'total'),
        'by_status', merged_counts(p_parts, 'courses', 'by_status'),
        'average_rating', round(merged_sum(p_parts, 'stars') / nullif(merged_sum(p_parts, 'ratings'), 0), 2)),
    'enrollments', json_build_object(
        'total', merged_sum(p_parts, 'enrollments', 'total'),
        'by_status', merged_counts(p_parts, 'enrollments', 'by_status'),
        'completion_rate', round(100 * merged_sum(p_parts, 'enrollments', 'by_status', 'completed') / nullif(
            merged_sum(p_parts, 'enrollments', 'total')
            - merged_sum(p_parts, 'enrollments', 'by_status', 'cancelled'), 0), 2),
        'new_last_30_days', merged_sum(p_parts, 'enrollments', 'new_last_30_days')),
    'transactions', json_build_object(
        'total', merged_sum(p_parts, 'transactions', 'total'),
        'by_status', merged_counts(p_parts, 'transactions', 'by_status')),
    'revenue', (SELECT coalesce(json_agg(row_to_json(m) ORDER BY m.currency), '[]')
                FROM (SELECT r.currency, sum(r.gross) AS gross, sum(r.refunded) AS refunded, sum(r.net) AS net,
                             sum(r.net_last_30_days) AS net_last_30_days
                      FROM jsonb_array_elements(p_parts) part
                      CROSS JOIN jsonb_to_recordset(part -> 'revenue') AS r (
                          currency text, gross numeric, refunded numeric, net numeric, net_last_30_days numeric)
                      GROUP BY r.currency) m),
    'invoices', json_build_object(
        'total', merged_sum(p_parts, 'invoices', 'total'),
        'by_status', merged_counts(p_parts, 'invoices', 'by_status')));
COMMENT ON FUNCTION merge_platform_overview IS 'The shards'' answers added up';
