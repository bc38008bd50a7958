-- The newest of the transactions that are under way and have a number, as snapshots number them; 0 when there is none. A
-- snapshot does not tell: one that began after the last that has ended lies behind its end. Each holds a lock on its own
-- number, of which the low 32 bits are shown.
SELECT coalesce(max(newest + CASE WHEN ahead < 2147483648 THEN ahead ELSE ahead - 4294967296 END), 0)
FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS newest) AS numbers,
     LATERAL (SELECT (transactionid::text::bigint - newest) & 4294967295 AS ahead
              FROM pg_catalog.pg_locks WHERE locktype = 'transactionid' AND granted AND mode = 'ExclusiveLock') AS open
