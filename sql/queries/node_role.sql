-- What a node is: whether it is a standby, its timeline, its position in bytes, and how old what it shows is (ms).
-- A primary's timeline is that of the WAL it writes, for pg_control may still name the one before; a standby's is the
-- newest that it has been told of in any way. A standby lags only while there is something it has received and not
-- replayed, or while it is not connected and cannot know: then by the age of the last transaction, NULL if there was none.
SELECT standby::int,
       CASE WHEN standby THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                                       (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                                       (SELECT received_tli FROM pg_stat_wal_receiver))
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int END AS timeline,
       pg_wal_lsn_diff(CASE WHEN standby THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
                            ELSE pg_current_wal_flush_lsn() END, '0/0') AS position,
       CASE WHEN NOT standby THEN 0
            WHEN EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL)
                 AND pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() THEN 0
            ELSE greatest(0, extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint
       END AS lag_ms
FROM (SELECT pg_is_in_recovery() AS standby) AS node
