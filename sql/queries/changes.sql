-- index: change_log_pkey
-- What has changed since a former snapshot: every entry of the change log that is visible now and was not visible then,
-- so that a transaction which got its number early and commits late is not missed.
--   $1  the former snapshot as text, NULL the first time (then nothing but the snapshot is answered)
--   $2  at most that many entries; whoever gets so many must take it that anything has changed
-- One row an entry; a single row with a NULL collection when nothing changed. row_id NULL: the whole collection and
-- region. On a standby a snapshot does not list the transactions under way: the answer there counts all from the oldest
-- of them on as unseen, so that an entry may be named again, but none is missed, on whatever node is asked next.
SELECT now.snapshot, change.collection::int, change.region::int, change.row_id, change.rev,
       (extract(epoch FROM change.changed_at) * 1000000)::bigint AS changed_us
FROM (SELECT CASE WHEN pg_is_in_recovery()
                  THEN pg_snapshot_xmin(current)::text || ':' || pg_snapshot_xmin(current)::text || ':'
                  ELSE current::text END AS snapshot
      FROM pg_current_snapshot() AS current) AS now
LEFT JOIN LATERAL (
    SELECT log.collection, log.region, log.row_id, log.rev, log.changed_at
    FROM campusfs.change_log AS log
    WHERE log.xid >= pg_snapshot_xmin($1::text::pg_snapshot)
      AND NOT pg_visible_in_snapshot(log.xid, $1::text::pg_snapshot)
    ORDER BY log.xid, log.id
    LIMIT $2::bigint
) AS change ON true
