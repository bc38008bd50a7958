-- A node's position in bytes: what a primary has flushed, what a standby has replayed. Not the primary's insert
-- position: that waits for transactions that are still open, and can lie where no record will ever end.
SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
                            ELSE pg_current_wal_flush_lsn() END, '0/0')
