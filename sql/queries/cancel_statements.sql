-- Ends what some sessions of this role are doing: those of these process ids ($1) that began at these times ($2,
-- microseconds since 1970), since a process id may be another's by now. How many were told to.
-- One whose transaction has written ends by itself: in its wait for a synchronous standby it is committed, and cancelled
-- there it would be seen before another server has it.
SELECT count(*) FILTER (WHERE pg_catalog.pg_cancel_backend(pid))
FROM pg_catalog.pg_stat_activity
JOIN unnest($1::int[], $2::bigint[]) AS abandoned (pid, started) USING (pid)
WHERE state = 'active' AND backend_xid IS NULL
  AND (extract(epoch FROM backend_start) * 1000000)::bigint = abandoned.started
