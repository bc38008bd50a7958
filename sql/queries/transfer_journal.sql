-- index: transfers_pkey
-- What became of a user's move to another shard, on the shard left.
--   $1  the transfer
SELECT id, outcome, user_id, from_region, to_region, to_shard, shards, actor, created_at, finished_at
FROM campusfs.transfer_journal
WHERE id = $1::uuid
