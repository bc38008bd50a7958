-- What moves between shards have left on a primary: transactions of ours that are prepared and neither committed nor
-- rolled back, and users who have left and are not known to have arrived.
--   $1  only those at least that old, in milliseconds
--   $2  entries of the journal that are over as well
--   $3  at most that many
SELECT 'prepared' AS kind, split_part(gid, ':', 4) AS transfer, split_part(gid, ':', 2) AS source,
       split_part(gid, ':', 3) AS shards, NULL::bigint AS user_id, NULL::int AS to_region, NULL::int AS to_shard,
       (extract(epoch FROM clock_timestamp() - prepared) * 1000)::bigint AS age_ms
FROM pg_catalog.pg_prepared_xacts
WHERE database = current_database() AND gid ~ '^campusfs:[0-9]{1,3}:[0-9]{1,3}:[0-9a-f-]{36}$'
  AND prepared <= clock_timestamp() - $1::bigint * interval '1 millisecond'
UNION ALL
(SELECT CASE WHEN finished_at IS NULL THEN 'unfinished' ELSE 'finished' END, id::text,
        (SELECT number FROM campusfs.shard)::text, array_to_string(shards, ' '), user_id, to_region, to_shard,
        (extract(epoch FROM clock_timestamp() - created_at) * 1000)::bigint
 FROM campusfs.transfer_journal
 WHERE outcome = 'committed' AND (finished_at IS NULL OR $2::boolean)
   AND created_at <= clock_timestamp() - $1::bigint * interval '1 millisecond')
ORDER BY age_ms DESC
LIMIT $3::bigint
