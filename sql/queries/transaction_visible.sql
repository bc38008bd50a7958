-- Whether a transaction can be seen: 1, else 0; and whether anybody's commits may wait for a standby. Of its number the low
-- 32 bits are known ($1); the whole one is the nearest to the numbers that are given away now. One that waits for its
-- synchronous standbys cannot be seen, though its commit is written.
SELECT pg_visible_in_snapshot((newest + CASE WHEN ahead < 2147483648 THEN ahead ELSE ahead - 4294967296 END)::text::xid8,
                              snapshot)::int,
       (current_setting('synchronous_standby_names') <> '')::int
FROM pg_current_snapshot() AS snapshot,
     LATERAL (SELECT pg_snapshot_xmax(snapshot)::text::bigint AS newest) AS numbers,
     LATERAL (SELECT ($1::bigint - newest) & 4294967295 AS ahead) AS distance
