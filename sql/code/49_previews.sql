-- Global collections are written on every shard, the authority last. Before anything is written, the authority is
-- asked what the save would do: the same function runs, and its work is undone.

CREATE OR REPLACE FUNCTION campusfs.preview_put_categories(
    p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz, p_base timestamptz, p_claimed boolean,
    p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql
SET search_path = campusfs, pg_catalog, pg_temp
AS $$
DECLARE
    v record;
BEGIN
    BEGIN
        SELECT * INTO v FROM campusfs.put_categories(p_region, p_id, p_doc, p_at, p_base, p_claimed, p_request, p_actor);
        RAISE EXCEPTION 'undo' USING ERRCODE = 'CF999';
    EXCEPTION WHEN SQLSTATE 'CF999' THEN
        NULL; -- the variable outlives the subtransaction
    END;
    RETURN QUERY SELECT v.outcome, v.id, v.rev, v.updated_us, v.content_us, v.body;
END
$$;
COMMENT ON FUNCTION campusfs.preview_put_categories IS
    'What put_categories would answer (or raise) for the same arguments; changes nothing, though an id may be used up.';

CREATE OR REPLACE FUNCTION campusfs.preview_delete_categories(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS text
LANGUAGE plpgsql
SET search_path = campusfs, pg_catalog, pg_temp
AS $$
DECLARE
    v text;
BEGIN
    BEGIN
        v := campusfs.delete_categories(p_region, p_id, p_request, p_actor);
        RAISE EXCEPTION 'undo' USING ERRCODE = 'CF999';
    EXCEPTION WHEN SQLSTATE 'CF999' THEN
        NULL;
    END;
    RETURN v;
END
$$;
COMMENT ON FUNCTION campusfs.preview_delete_categories IS
    'What delete_categories would answer (or raise) for the same arguments; changes nothing.';
