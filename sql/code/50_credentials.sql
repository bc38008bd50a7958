-- Collection 9, credentials: password hashes as documents, for backups only. A mount shows them where its
-- configuration says `credentials = on`; nobody but the mount's role sees the view or may call the functions.
--
-- A document is named by its user, takes no ids and stands in no table `collections`: nothing refers to it. Its one
-- clock is changed_at, which is its updated_at; the user's document never moves with it.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE OR REPLACE FUNCTION credentials_number() RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 9::smallint;
COMMENT ON FUNCTION credentials_number IS 'Number of the collection in inode numbers and change_log';

-- Clocks and changes -------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION clock_credentials() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- rev = 0: as it is told (put_credentials). Else another password has another time, whoever writes it.
    IF NEW.rev <> 0 AND NEW.password_hash <> OLD.password_hash AND NEW.changed_at = OLD.changed_at THEN
        NEW.changed_at := greatest(clock_timestamp(), OLD.changed_at + interval '1 microsecond');
    END IF;
    NEW.rev := nextval('campusfs.rev_seq');
    RETURN NEW;
END $$;
COMMENT ON FUNCTION clock_credentials IS
    'BEFORE UPDATE of user_credentials: another revision, and for another hash another time';

CREATE OR REPLACE TRIGGER clock_credentials BEFORE UPDATE ON user_credentials FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION clock_credentials();

CREATE OR REPLACE FUNCTION log_credentials() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    most CONSTANT int := 1000; -- as in log_documents
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF (SELECT count(*) FROM new_rows) > most THEN
            PERFORM log_bulk(credentials_number(), ARRAY(SELECT DISTINCT region FROM new_rows));
        ELSE
            INSERT INTO change_log (collection, region, row_id, operation, rev, actor)
            SELECT credentials_number(), region, user_id, 'insert', rev, change_actor() FROM new_rows;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        IF (SELECT count(*) FROM new_rows) > most THEN
            PERFORM log_bulk(credentials_number(),
                             ARRAY(SELECT region FROM new_rows UNION SELECT region FROM old_rows));
        ELSE
            INSERT INTO change_log (collection, region, row_id, operation, rev, actor)
            SELECT credentials_number(), o.region, o.user_id, 'delete', nextval('rev_seq'), change_actor()
            FROM old_rows o
            WHERE NOT EXISTS (SELECT FROM new_rows n WHERE n.region = o.region AND n.user_id = o.user_id);
            INSERT INTO change_log (collection, region, row_id, operation, rev, actor)
            SELECT credentials_number(), region, user_id, 'update', rev, change_actor()
            FROM (SELECT region, user_id, rev FROM new_rows EXCEPT SELECT region, user_id, rev FROM old_rows) changed;
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        IF (SELECT count(*) FROM old_rows) > most THEN
            PERFORM log_bulk(credentials_number(), ARRAY(SELECT DISTINCT region FROM old_rows));
        ELSE
            INSERT INTO change_log (collection, region, row_id, operation, rev, actor)
            SELECT credentials_number(), region, user_id, 'delete', nextval('rev_seq'), change_actor() FROM old_rows;
        END IF;
    ELSE
        PERFORM log_bulk(credentials_number(), ARRAY(SELECT number FROM regions WHERE is_local));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION log_credentials IS 'AFTER any change of user_credentials: the change log, which holds no hash';

CREATE OR REPLACE TRIGGER log_insert AFTER INSERT ON user_credentials REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_credentials();
CREATE OR REPLACE TRIGGER log_update AFTER UPDATE ON user_credentials
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_credentials();
CREATE OR REPLACE TRIGGER log_delete AFTER DELETE ON user_credentials REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_credentials();
CREATE OR REPLACE TRIGGER log_truncate AFTER TRUNCATE ON user_credentials
    FOR EACH STATEMENT EXECUTE FUNCTION log_credentials();

CREATE OR REPLACE FUNCTION credentials_region_renamed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    UPDATE user_credentials SET rev = rev + 1 WHERE region = NEW.number;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION credentials_region_renamed IS 'AFTER a region got another name: it is in all its documents';

CREATE OR REPLACE TRIGGER credentials_region_renamed AFTER UPDATE ON regions FOR EACH ROW WHEN (OLD.name <> NEW.name)
    EXECUTE FUNCTION credentials_region_renamed();

-- Documents -----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW doc_credentials AS
SELECT c.region, c.user_id AS id, c.rev, epoch_us(c.changed_at) AS updated_us, epoch_us(c.changed_at) AS content_us,
       row_to_json(d)::text AS body
FROM user_credentials c
CROSS JOIN LATERAL (
    SELECT c.user_id, (SELECT name FROM regions WHERE number = c.region) AS region, c.password_hash,
           moment_text(c.changed_at) AS updated_at) d;
COMMENT ON VIEW doc_credentials IS 'Password hashes as documents; for the mount''s role alone';

CREATE OR REPLACE FUNCTION field_password_hash(p_doc jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    hash text := p_doc ->> 'password_hash';
BEGIN
    IF hash IS NULL OR jsonb_typeof(p_doc -> 'password_hash') <> 'string' THEN
        PERFORM refuse('22023', 'password_hash', 'password_hash must be a bcrypt hash',
                       'To take a password away, delete the document; to set one, write "password" in the user''s.');
    ELSIF hash ~ '^\*+$' THEN -- what blanking leaves of one in a refused text
        PERFORM refuse('22023', 'password_hash',
                       'password_hash is nothing but asterisks: it was blanked when a text was refused',
                       'Take the hash from the backup again.');
    ELSIF hash !~ '^\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}$' THEN
        PERFORM refuse('22023', 'password_hash',
                       'password_hash is no bcrypt hash: those have 60 characters and begin with $2a$, $2b$ or $2y$ '
                       'and a cost of 04 to 31', 'A password in plain goes into the user''s document, as "password".');
    END IF;
    RETURN hash;
END $$;
COMMENT ON FUNCTION field_password_hash IS 'The hash in a credentials document; no message repeats it';

CREATE OR REPLACE FUNCTION check_credentials(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    owner bigint;
BEGIN
    PERFORM check_document('credential', p_region, p_id, p_doc,
                           ARRAY['user_id', 'region', 'password_hash', 'updated_at'], p_at);
    owner := field_id(p_doc, 'user_id', '');
    IF p_id IS NULL THEN
        PERFORM refuse('22023', 'user_id', 'credentials take no id of their own: the file is named by its user',
                       'Write it to <user id>.json.');
    ELSIF owner <> p_id THEN
        PERFORM refuse('22023', 'user_id', format('user_id is %s, but the file is %s.json', owner, p_id));
    END IF;
END $$;
COMMENT ON FUNCTION check_credentials IS 'Refuses a credentials document that is not one, or not that user''s';

CREATE OR REPLACE FUNCTION put_credentials(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz,
                                           p_base timestamptz, p_claimed boolean, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    hash text;
    was user_credentials;
    result text := 'unchanged';
BEGIN
    PERFORM check_credentials(p_region, p_id, p_doc, p_at);
    hash := field_password_hash(p_doc);
    PERFORM note_actor(p_actor);
    PERFORM check_user(p_region, p_id, 'user_id');
    LOOP
        SELECT * INTO was FROM user_credentials c WHERE c.region = p_region AND c.user_id = p_id FOR NO KEY UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO user_credentials (region, user_id, password_hash, changed_at)
        VALUES (p_region, p_id, hash, coalesce(p_at, clock_timestamp())) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            result := 'created';
            EXIT;
        END IF;
    END LOOP;
    IF result <> 'created' AND (was.password_hash <> hash OR was.changed_at <> p_at) THEN
        PERFORM check_conflict(format('the password of user %s', p_id), was.changed_at, p_doc, p_base);
        UPDATE user_credentials c
        SET password_hash = hash, changed_at = coalesce(p_at, was.changed_at),
            rev = CASE WHEN p_at IS NULL THEN -1 ELSE 0 END
        WHERE c.region = p_region AND c.user_id = p_id;
        result := 'updated';
    END IF;
    IF result <> 'unchanged' THEN
        PERFORM note_request(p_request);
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_credentials d WHERE d.region = p_region AND d.id = p_id;
END $$;
COMMENT ON FUNCTION put_credentials IS
    'A document becomes the user''s password hash; p_base: the version it is based on, if later than its '
    'updated_at; p_at: the time to set. p_claimed is not needed: no id is taken';

CREATE OR REPLACE FUNCTION delete_credentials(p_region smallint, p_id bigint, p_request uuid, p_actor text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM note_actor(p_actor);
    DELETE FROM user_credentials WHERE region = p_region AND user_id = p_id;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION delete_credentials IS
    'Takes a user''s password away: no login until another one is set. The user stays';
