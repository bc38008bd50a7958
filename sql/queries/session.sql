-- Which session this is: its process id, and when it began, in microseconds since 1970.
SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint
FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())
