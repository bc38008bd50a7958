-- How many transactions are prepared on a server, whoever's, and for how long the oldest has been, in milliseconds: one
-- that is forgotten keeps its locks, holds vacuum up, and lets no logical slot be created.
SELECT count(*), coalesce((extract(epoch FROM clock_timestamp() - min(prepared)) * 1000)::bigint, 0)
FROM pg_catalog.pg_prepared_xacts
