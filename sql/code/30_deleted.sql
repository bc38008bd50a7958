-- Deleted rows are kept for a day. Each delete_<suffix> keeps what it is about to delete, by keep_deleted(); each
-- put_<suffix> that creates a row under an id of the caller's choice takes back what a document cannot carry, by
-- take_deleted(), so that a tool that unlinks before it creates loses nothing; undelete_<suffix> brings the row back
-- as it was. Rows that SQL clients DELETE themselves are not kept.
--
-- A day is over when it is over: nothing below shows or takes an older row. From the disk they go with the writes that
-- follow, a hundred at most each (note_request), and with prune_logs().

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE OR REPLACE FUNCTION deleted_kept_for() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '1 day';
COMMENT ON FUNCTION deleted_kept_for IS 'How long deleted rows are kept';

-- The region's name is always the first "region" of a document: only the id stands before it.
CREATE OR REPLACE VIEW deleted_documents AS
SELECT d.collection, d.region, d.id, d.rev, epoch_us(d.updated_at) AS updated_us, epoch_us(d.content_at) AS content_us,
       CASE WHEN d.region = 0 THEN d.body
            ELSE regexp_replace(d.body, '"region":"[^"]*"', '"region":"' || region_name(d.region) || '"') END AS body,
       d.actor, d.deleted_at
FROM deleted_rows d
WHERE d.deleted_at > statement_timestamp() - deleted_kept_for();
COMMENT ON VIEW deleted_documents IS 'Documents deleted within the last day, as they were shown last';

CREATE OR REPLACE FUNCTION purge_deleted(p_limit bigint DEFAULT 100) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM deleted_rows WHERE ctid = ANY (ARRAY(
        SELECT d.ctid FROM deleted_rows d WHERE d.deleted_at <= statement_timestamp() - deleted_kept_for()
        ORDER BY d.deleted_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS gone = ROW_COUNT;
    -- What users took to other shards is kept no longer than what was deleted.
    DELETE FROM transfers WHERE id = ANY (ARRAY(
        SELECT t.id FROM transfers t WHERE t.finished_at <= statement_timestamp() - deleted_kept_for()
        ORDER BY t.finished_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    RETURN gone;
END $$;
COMMENT ON FUNCTION purge_deleted IS
    'Forgets rows deleted, and transfers over, more than a day ago, the oldest first; how many rows went';

CREATE OR REPLACE FUNCTION keep_deleted(p_collection smallint, p_table name, p_row jsonb, p_user_id bigint, p_body text,
                                        p_parts jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deleted_rows AS d (collection, region, id, rev, created_at, updated_at, content_at, user_id, body,
                                   parts, actor)
    VALUES (p_collection, (p_row ->> 'region')::smallint, (p_row ->> 'id')::bigint, (p_row ->> 'rev')::bigint,
            (p_row ->> 'created_at')::timestamptz, (p_row ->> 'updated_at')::timestamptz,
            (p_row ->> 'content_at')::timestamptz, p_user_id, p_body,
            jsonb_build_object(p_table, jsonb_build_array(p_row)) || p_parts, change_actor())
    ON CONFLICT (collection, region, id) DO UPDATE -- deleted before, and made again by SQL
    SET rev = EXCLUDED.rev, created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at,
        content_at = EXCLUDED.content_at, user_id = EXCLUDED.user_id, body = EXCLUDED.body, parts = EXCLUDED.parts,
        actor = EXCLUDED.actor, deleted_at = EXCLUDED.deleted_at;
END $$;
COMMENT ON FUNCTION keep_deleted IS
    'Keeps a row that is about to be deleted, its parts as an object of table names and rows';

CREATE OR REPLACE FUNCTION take_deleted(p_collection smallint, p_region smallint, p_id bigint) RETURNS deleted_rows
LANGUAGE plpgsql AS $$
DECLARE
    kept deleted_rows;
BEGIN
    IF p_id IS NULL THEN
        RETURN NULL; -- the next id: no deleted row has it
    END IF;
    DELETE FROM deleted_rows d WHERE d.collection = p_collection AND d.region = p_region AND d.id = p_id
    RETURNING * INTO kept;
    RETURN CASE WHEN kept.deleted_at > statement_timestamp() - deleted_kept_for() THEN kept END;
END $$;
COMMENT ON FUNCTION take_deleted IS 'The deleted row under an id that is about to be created again, kept no longer';

CREATE OR REPLACE FUNCTION is_id_kept(p_collection smallint, p_id bigint) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM deleted_rows WHERE collection = p_collection AND id = p_id
               AND region = ANY (ARRAY(SELECT number FROM regions WHERE is_local UNION ALL SELECT 0)));
COMMENT ON FUNCTION is_id_kept IS
    'Whether a deleted row of any region has an id: a new one that took it would take over its password';

-- Undeleting ----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION find_deleted(p_collection smallint, p_region smallint, p_id bigint) RETURNS deleted_rows
LANGUAGE plpgsql AS $$
DECLARE
    coll collections;
    region smallint;
    kept deleted_rows;
BEGIN
    SELECT * INTO kept FROM deleted_rows d WHERE d.collection = p_collection AND d.region = p_region AND d.id = p_id
        AND d.deleted_at > statement_timestamp() - deleted_kept_for() FOR UPDATE;
    IF FOUND THEN
        SELECT * INTO coll FROM collections WHERE number = p_collection;
        EXECUTE format('SELECT region FROM %I WHERE id = $1', coll.table_name) INTO region USING p_id;
        IF region IS NOT NULL THEN
            PERFORM refuse_taken('id', p_id::text,
                                 format('a %s%s', coll.noun, coalesce(' of ' || region_name(region), '')));
        END IF;
    END IF;
    RETURN kept;
END $$;
COMMENT ON FUNCTION find_deleted IS
    'A deleted row that is to be taken back, locked; NULL when there is none, refused when its id is taken';

CREATE OR REPLACE FUNCTION restore_parts(p_kept deleted_rows, VARIADIC p_tables name[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    tab name;
    rows jsonb;
    columns text;
BEGIN
    PERFORM caller_keeps_parts();
    FOREACH tab IN ARRAY p_tables LOOP
        rows := p_kept.parts -> tab;
        -- Only columns that it had: one that an upgrade added since takes its default. The rev is a new one.
        columns := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                    WHERE attrelid = tab::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
                        AND attname <> 'rev' AND rows -> 0 ? attname::text);
        IF columns IS NOT NULL THEN
            EXECUTE format('INSERT INTO %I (%s) SELECT %s FROM jsonb_populate_recordset(NULL::%I, $1)', tab, columns,
                           columns, tab) USING rows;
        END IF;
    END LOOP;
    PERFORM parts_kept();
END $$;
COMMENT ON FUNCTION restore_parts IS 'Writes rows of a deleted document as they were, tables in the order given';

CREATE OR REPLACE FUNCTION undelete_row(p_collection smallint, p_suffix text, p_check text, p_region smallint, p_id bigint,
                                        p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql AS $$
DECLARE
    kept deleted_rows := find_deleted(p_collection, p_region, p_id);
    tab name := (SELECT table_name FROM collections WHERE number = p_collection);
BEGIN
    IF kept.id IS NULL THEN
        RETURN;
    END IF;
    PERFORM note_actor(p_actor);
    EXECUTE format('SELECT %I(NULL, jsonb_populate_record(NULL::%I, $1))', p_check, tab)
        USING kept.parts -> tab::text -> 0;
    PERFORM restore_parts(kept, tab);
    PERFORM take_deleted(p_collection, p_region, p_id);
    PERFORM note_request(p_request);
    RETURN QUERY EXECUTE format('SELECT ''created'', d.id, d.rev, d.updated_us, d.content_us, d.body
                                 FROM %I d WHERE d.region = $1 AND d.id = $2', 'doc_' || p_suffix)
                 USING p_region, p_id;
END $$;
COMMENT ON FUNCTION undelete_row IS
    'undelete_<suffix> of a collection whose documents are rows of one table; p_check(was, want) judges the references';

CREATE OR REPLACE FUNCTION forget_deleted(p_collection smallint, p_region smallint, p_id bigint, p_request uuid,
                                          p_actor text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM note_actor(p_actor);
    IF (take_deleted(p_collection, p_region, p_id)).id IS NULL THEN
        RETURN 'missing';
    END IF;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION forget_deleted IS 'Forgets a deleted row before its day is over';

CREATE OR REPLACE FUNCTION move_deleted(p_user_id bigint, p_to smallint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM deleted_rows there USING deleted_rows d
    WHERE d.user_id = p_user_id AND d.region <> p_to
        AND there.collection = d.collection AND there.region = p_to AND there.id = d.id;
    UPDATE deleted_rows d
    SET region = p_to, rev = nextval('rev_seq'), parts = (
        SELECT jsonb_object_agg(tab.key, (
            SELECT coalesce(jsonb_agg(CASE WHEN r ? 'region' THEN r || jsonb_build_object('region', p_to) ELSE r END),
                            '[]') FROM jsonb_array_elements(tab.value) r))
        FROM jsonb_each(d.parts) tab)
    WHERE d.user_id = p_user_id AND d.region <> p_to;
END $$;
COMMENT ON FUNCTION move_deleted IS 'What a user who moves had deleted moves along, so that it can be taken back';
