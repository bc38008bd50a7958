-- index: id_claims_pkey
-- Where the row of an id of our numbers lives, if not here.
--   $1  collection
--   $2  id
SELECT shard
FROM campusfs.id_claims
WHERE collection = $1::smallint AND id = $2::bigint
