-- Credentials become documents of their own (code/50_credentials.sql), and need a revision as all documents do.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

ALTER TABLE user_credentials ADD COLUMN rev bigint NOT NULL DEFAULT nextval('rev_seq');
COMMENT ON COLUMN user_credentials.rev IS 'Revision of the document''s bytes';
COMMENT ON COLUMN user_credentials.changed_at IS
    'When the hash last changed: a time of its own, the user''s document does not move';
