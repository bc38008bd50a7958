-- What a node is, asked before it is used and again and again: standby (0 or 1), timeline, WAL position, lag in ms.
-- A primary's timeline is that of the WAL it writes: pg_control may still name the one before. A standby's is the newest
-- that it has been told of in any way. Its position is what it has replayed; its lag counts only while there is something
-- that it has not replayed, or while it is not connected and cannot know (-1: it has never replayed a commit). What it
-- has received up to the end of a page, and no commit ends there but by chance, is the first part of a record whose rest
-- the primary has not flushed: an idle primary may leave it so for long, and nothing is behind.
SELECT standby::int,
       CASE WHEN standby THEN
           greatest((SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
                    (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
                    (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver))
       ELSE
           ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int
       END,
       CASE WHEN standby THEN coalesce(replayed, 0)
            ELSE pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0') END,
       CASE WHEN NOT standby THEN 0
            WHEN EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE pid IS NOT NULL)
                 AND (received <= replayed
                      OR received % wal_page = 0 AND received - replayed < 2 * wal_page) THEN 0
            ELSE coalesce(greatest(0, extract(epoch FROM pg_catalog.clock_timestamp()
                                              - pg_catalog.pg_last_xact_replay_timestamp()) * 1000)::bigint, -1)
       END,
       -- A commit that is answered before it is flushed could be lost, and its position would not be known.
       CASE WHEN pg_catalog.current_setting('synchronous_commit') = 'off' THEN
           pg_catalog.set_config('synchronous_commit', 'on', false)
       END
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby,
             pg_catalog.current_setting('wal_block_size')::bigint AS wal_page,
             pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), '0/0') AS received,
             pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0') AS replayed) AS node
