-- Rows that were deleted, kept whole for a day (code/30_deleted.sql): what .deleted shows, and what its documents do
-- not show, such as a password's hash. Like user_credentials it is read by functions of the owner alone; clients see
-- the view deleted_documents.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE TABLE deleted_rows (
    collection smallint NOT NULL,
    region     smallint NOT NULL,
    id         bigint NOT NULL,
    rev        bigint NOT NULL,
    created_at moment NOT NULL,
    updated_at moment NOT NULL,
    content_at moment NOT NULL,
    user_id    bigint,
    body       text NOT NULL,
    parts      jsonb NOT NULL,
    actor      text NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (collection, region, id)
);
COMMENT ON TABLE deleted_rows IS
    'Documents deleted within the last day, whole; for functions only, since it has what no document shows';
COMMENT ON COLUMN deleted_rows.collection IS 'collections.number';
COMMENT ON COLUMN deleted_rows.region IS 'Where the row lay; a user who moves takes theirs along';
COMMENT ON COLUMN deleted_rows.id IS 'The row''s id';
COMMENT ON COLUMN deleted_rows.rev IS 'Revision that was deleted';
COMMENT ON COLUMN deleted_rows.created_at IS 'The row''s; taken back by a new one whose document does not say';
COMMENT ON COLUMN deleted_rows.updated_at IS 'The document''s mtime';
COMMENT ON COLUMN deleted_rows.content_at IS 'The row''s';
COMMENT ON COLUMN deleted_rows.user_id IS
    'Whose row it was, for erase_user: the user, author, payer or instructor; NULL for categories';
COMMENT ON COLUMN deleted_rows.body IS 'The document as it was shown last';
COMMENT ON COLUMN deleted_rows.parts IS
    'Table names, each with its rows as they were: the row and all that went with it';
COMMENT ON COLUMN deleted_rows.actor IS 'Who deleted it';
COMMENT ON COLUMN deleted_rows.deleted_at IS 'When; a day later it is gone for good';

CREATE INDEX deleted_rows_user_idx ON deleted_rows (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX deleted_rows_deleted_idx ON deleted_rows (deleted_at);
