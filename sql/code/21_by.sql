-- .by: the rows of a collection by the values of an indexed field. Each collection's file declares its fields with
-- index_field(), and three functions serve them all, by statements made of these declarations and of nothing else; values
-- are parameters. They run on replicas.
--
-- The statements are planned with the values that they are asked for: a value that most rows have is read along the
-- primary key, another one along its index, and a partial index is used where it applies. The former costs no more than
-- a scan of what is passed over, the latter a sort of what there is: for a page of 512 of a million rows the worst value
-- is one that some 20,000 rows have.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE OR REPLACE PROCEDURE index_field(p_collection smallint, p_number smallint, p_name text, p_table name DEFAULT NULL,
                                        p_id_column name DEFAULT 'id', p_folded boolean DEFAULT false,
                                        p_choices text[] DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    tab CONSTANT name := coalesce(p_table, (SELECT table_name FROM collections WHERE number = p_collection));
    key CONSTANT text := format(CASE WHEN p_folded THEN 'lower(%I)' ELSE '%I' END, p_name);
    base regtype;
    leads boolean;
    alone boolean;
BEGIN
    SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END INTO STRICT base
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = tab::regclass AND a.attname = p_name::name AND NOT a.attisdropped;
    -- Behind the region, or first: then rows of the shard's other regions are passed over.
    SELECT count(*) > 0,
           bool_or(indisunique AND indnkeyatts = 1 AND indpred IS NULL AND pg_get_indexdef(indexrelid, 1, true) = key)
    INTO leads, alone FROM pg_index
    WHERE indrelid = tab::regclass AND (
        pg_get_indexdef(indexrelid, 1, true) = key
        OR pg_get_indexdef(indexrelid, 1, true) = 'region' AND pg_get_indexdef(indexrelid, 2, true) = key);
    IF NOT leads OR p_folded AND NOT alone OR base NOT IN ('text'::regtype, 'bigint'::regtype, 'date'::regtype) THEN
        RAISE EXCEPTION 'field % of collection % cannot be listed: no index, or not of a known type', p_name, p_collection;
    END IF;
    INSERT INTO indexed_fields VALUES (
        p_collection, p_number, p_name, tab, p_name, p_id_column,
        CASE base WHEN 'text'::regtype THEN 'text' WHEN 'bigint'::regtype THEN 'number' ELSE 'day' END,
        p_folded, alone, (SELECT array_agg(c ORDER BY c) FROM unnest(p_choices) c));
END $$;
COMMENT ON PROCEDURE index_field IS
    'Declares a field of a collection''s documents that has an index; p_table and p_id_column where it lies in a part';

CREATE OR REPLACE FUNCTION by_fields(p_collection smallint) RETURNS TABLE (number smallint, name text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
    SELECT number, name FROM indexed_fields WHERE collection = p_collection ORDER BY name
$$;
COMMENT ON FUNCTION by_fields IS 'The fields by which a collection''s rows can be found';

CREATE OR REPLACE FUNCTION by_key_text(p_field indexed_fields) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN format(CASE WHEN (p_field).is_folded THEN 'lower(k.%I)' ELSE 'k.%I' END, (p_field).column_name);
COMMENT ON FUNCTION by_key_text IS 'SQL: what a field''s index has, of row k';

CREATE OR REPLACE FUNCTION by_value_text(p_field indexed_fields) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (p_field).is_folded THEN 'lower($2)' WHEN (p_field).kind = 'number' THEN '$2::bigint'
            WHEN (p_field).kind = 'day' THEN '$2::date' ELSE '$2' END;
COMMENT ON FUNCTION by_value_text IS 'SQL: what is compared with it, of parameter $2';

CREATE OR REPLACE FUNCTION is_by_value(p_field indexed_fields, p_value text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE (p_field).kind WHEN 'number' THEN p_value ~ '^[1-9][0-9]{0,17}$'
                           WHEN 'day' THEN length(p_value) = 10 AND is_calendar_day(p_value)
                           ELSE true END;
COMMENT ON FUNCTION is_by_value IS 'Whether a text is a value of the field as documents show them';

CREATE OR REPLACE FUNCTION by_rows_text(p_field indexed_fields) RETURNS text
LANGUAGE sql STABLE
RETURN (SELECT format('SELECT k.%1$I, %2$s FROM %3$I k WHERE k.region = $1 AND %4$s = %5$s AND k.%1$I > $3 '
                      'ORDER BY k.%1$I LIMIT $4', (p_field).id_column,
                      CASE WHEN c.table_name = (p_field).table_name THEN 'k.rev'
                           ELSE format('(SELECT d.rev FROM %I d WHERE d.region = k.region AND d.id = k.%I)', c.table_name,
                                       (p_field).id_column) END,
                      (p_field).table_name, by_key_text(p_field), by_value_text(p_field))
        FROM collections c WHERE c.number = (p_field).collection);
COMMENT ON FUNCTION by_rows_text IS 'SQL: ids and revs of a page of rows. $1 region, $2 value, $3 last id, $4 how many';

-- enable_seqscan = off: after a load without statistics a small region would be looked for in the whole table.
CREATE OR REPLACE FUNCTION by_rows(p_collection smallint, p_region smallint, p_field smallint, p_value text,
                                   p_after bigint, p_limit bigint) RETURNS TABLE (id bigint, rev bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    field indexed_fields;
BEGIN
    SELECT * INTO field FROM indexed_fields f WHERE f.collection = p_collection AND f.number = p_field;
    IF FOUND AND is_by_value(field, p_value) THEN
        RETURN QUERY EXECUTE by_rows_text(field) USING p_region, p_value, p_after, p_limit;
    END IF;
END $$;
COMMENT ON FUNCTION by_rows IS 'A page of the rows that have a value, by id; none for what is no value of the field';

CREATE OR REPLACE FUNCTION by_values_text(p_field indexed_fields, p_first boolean) RETURNS text
LANGUAGE sql STABLE
RETURN format(
    CASE WHEN (p_field).is_unique THEN
        'SELECT to_json(k.%3$I) #>> ''{}'' FROM %1$I k WHERE k.region = $1 AND %2$s %4$s ORDER BY %2$s LIMIT $3'
    ELSE -- from value to value, however many rows have one
        'WITH RECURSIVE found AS ('
        '(SELECT %2$s AS value FROM %1$I k WHERE k.region = $1 AND %2$s %4$s ORDER BY %2$s LIMIT 1) UNION ALL '
        'SELECT (SELECT %2$s FROM %1$I k WHERE k.region = $1 AND %2$s > found.value ORDER BY %2$s LIMIT 1) '
        'FROM found WHERE found.value IS NOT NULL) '
        'SELECT to_json(value) #>> ''{}'' FROM found WHERE value IS NOT NULL LIMIT $3' END,
    (p_field).table_name, by_key_text(p_field), (p_field).column_name,
    CASE WHEN p_first THEN 'IS NOT NULL' ELSE '> ' || by_value_text(p_field) END);
COMMENT ON FUNCTION by_values_text IS
    'SQL: a page of the values that there are. $1 region, $2 last value, unless it is the first page, $3 how many';

CREATE OR REPLACE FUNCTION by_values(p_collection smallint, p_region smallint, p_field smallint, p_after text,
                                     p_limit bigint) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    field indexed_fields;
    choice text;
    found boolean;
BEGIN
    SELECT * INTO field FROM indexed_fields f WHERE f.collection = p_collection AND f.number = p_field;
    IF field.choices IS NULL AND (p_after IS NULL OR is_by_value(field, p_after)) THEN
        RETURN QUERY EXECUTE by_values_text(field, p_after IS NULL) USING p_region, p_after, p_limit;
        RETURN;
    END IF;
    FOREACH choice IN ARRAY coalesce(field.choices, '{}') LOOP
        CONTINUE WHEN choice <= p_after;
        -- One by one, each a constant to the planner: only so it sees which partial index has it.
        EXECUTE format('SELECT EXISTS (SELECT FROM %I k WHERE k.region = $1 AND %s = $2)', field.table_name,
                       by_key_text(field)) INTO found USING p_region, choice;
        IF found THEN
            RETURN NEXT choice;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION by_values IS 'A page of the values that a field has in a region, in order, NULL left out';
