-- The journal of users who move to another shard (code/52_transfers.sql), kept on the shard that they leave. Like
-- user_credentials it is read by functions of the owner alone, for it has what no document shows; clients see the
-- view transfer_journal.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE TABLE transfers (
    id          uuid PRIMARY KEY,
    outcome     text NOT NULL CHECK (outcome IN ('committed', 'void')),
    user_id     bigint,
    from_region smallint,
    to_region   smallint,
    to_shard    smallint,
    shards      smallint[],
    content     jsonb,
    actor       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CONSTRAINT transfers_committed_is_whole CHECK (
        outcome = 'void' OR num_nulls(user_id, from_region, to_region, to_shard, shards, content) = 0),
    CONSTRAINT transfers_void_is_over CHECK (outcome = 'committed' OR finished_at IS NOT NULL)
);
COMMENT ON TABLE transfers IS
    'Users who moved from this shard to another one; for functions only, since it has what no document shows';
COMMENT ON COLUMN transfers.id IS 'Names the transfer on all shards: their prepared transactions, and request_log';
COMMENT ON COLUMN transfers.outcome IS
    'committed: the user has left, and must arrive; void: given up before that, it never can be';
COMMENT ON COLUMN transfers.user_id IS 'Who moved';
COMMENT ON COLUMN transfers.from_region IS 'Where from';
COMMENT ON COLUMN transfers.to_region IS 'Where to';
COMMENT ON COLUMN transfers.to_shard IS 'Number of the shard that has that region';
COMMENT ON COLUMN transfers.shards IS 'Numbers of the other shards that take part: to_shard, and homes of ids';
COMMENT ON COLUMN transfers.content IS 'All that moved, so that a transfer can be finished whatever a server has lost';
COMMENT ON COLUMN transfers.actor IS 'Who moved the user';
COMMENT ON COLUMN transfers.created_at IS 'When it was begun';
COMMENT ON COLUMN transfers.finished_at IS
    'When all shards were known to have it; a day later the entry goes. NULL: not yet';

CREATE INDEX transfers_finished_idx ON transfers (finished_at);
