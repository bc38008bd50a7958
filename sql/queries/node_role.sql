-- What a node is, asked before it is used and again and again: standby (0 or 1), timeline, WAL position, lag in ms, system
-- identifier, position received, whether it streams, whether its commits wait for a standby, how many standbys confirm
-- them (NULL: not known), its clock in ms since 1970. The lag compares two clocks: it may be negative, and is NULL when
-- no commit has been replayed.
-- A primary's timeline is that of the WAL it writes: pg_control may still name the one before. A standby's is the newest
-- that it has been told of in any way. Its position is what it has replayed; its lag counts only while there is something
-- that it has not replayed, or while it is not connected and cannot know. What it
-- has received up to the end of a page, and no commit ends there but by chance, is the first part of a record whose rest
-- the primary has not flushed: an idle primary may leave it so for long, and nothing is behind.
-- Commits wait for a standby when one is named and the session's synchronous_commit has not been lowered.
SELECT standby::int,
       CASE WHEN standby THEN
           greatest((SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
                    (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
                    (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver))
       ELSE
           ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int
       END,
       CASE WHEN standby THEN coalesce(replayed, 0) ELSE flushed END,
       CASE WHEN NOT standby THEN 0
            WHEN streaming AND (received <= replayed
                                OR received % wal_page = 0 AND received - replayed < 2 * wal_page) THEN 0
            ELSE (extract(epoch FROM pg_catalog.clock_timestamp()
                                     - pg_catalog.pg_last_xact_replay_timestamp()) * 1000)::bigint
       END,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       CASE WHEN standby THEN coalesce(received, 0) ELSE flushed END,
       streaming::int,
       (NOT standby AND pg_catalog.current_setting('synchronous_standby_names') <> ''
        AND commit_level IN ('on', 'remote_apply', 'remote_write'))::int,
       CASE WHEN NOT standby AND pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') THEN
           (SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders() WHERE sync_state IN ('sync', 'quorum'))
       END,
       (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint,
       -- A commit that is answered before it is flushed could be lost, and its position would not be known.
       CASE WHEN commit_level = 'off' THEN pg_catalog.set_config('synchronous_commit', 'on', false) END
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby,
             EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE pid IS NOT NULL) AS streaming,
             CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN
                 pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0') END AS flushed,
             pg_catalog.current_setting('synchronous_commit') AS commit_level,
             pg_catalog.current_setting('wal_block_size')::bigint AS wal_page,
             pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), '0/0') AS received,
             pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0') AS replayed) AS node
