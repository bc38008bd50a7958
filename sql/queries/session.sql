-- Which session this is: its process id, when it began, in microseconds since 1970, and whether it has the settings that
-- it was begun with (0 or 1).
SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint,
       coalesce(pg_catalog.current_setting('campusfs.session', true) = 'pinned', false)::int
FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())
