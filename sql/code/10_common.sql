-- What the collections share: messages, the fields of documents, ids, requests. Everything below code/ is run again
-- by `campusfs init` whenever a file changed, in the order of the names, in one transaction.
--
-- A document is refused by refuse() with one of these SQLSTATEs:
--   22023 a value is wrong (COLUMN names the field, such as modules[0].title)   23505 taken already
--   CF001 refers to a row that does not exist    CF002 still referred to        CF003 changed since it was read
--   CF005 not possible on this shard             CF006 claim the id first
--   CF007 not possible between shards as their servers are set up
-- Messages name the field, the value and what would be right, but never a password or a card number.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

-- Messages ----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION refuse(p_state text, p_path text, p_message text, p_hint text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    -- RAISE takes no NULL options, and an empty one would be shown.
    IF p_path IS NULL AND p_hint IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = p_state, MESSAGE = p_message;
    ELSIF p_path IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = p_state, MESSAGE = p_message, HINT = p_hint;
    ELSIF p_hint IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = p_state, MESSAGE = p_message, COLUMN = p_path;
    ELSE
        RAISE EXCEPTION USING ERRCODE = p_state, MESSAGE = p_message, COLUMN = p_path, HINT = p_hint;
    END IF;
END $$;
COMMENT ON FUNCTION refuse IS 'Raises an error that names the field; does not return';

CREATE OR REPLACE FUNCTION quoted(p_value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(p_value::text) > 60 THEN left(p_value::text, 60) || '…' ELSE p_value::text END;
COMMENT ON FUNCTION quoted IS 'A value as a message shows it, cut when long';

CREATE OR REPLACE FUNCTION counted(p_count bigint, p_noun text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_count WHEN 0 THEN NULL WHEN 1 THEN '1 ' || p_noun
       ELSE p_count || ' ' || regexp_replace(p_noun, 'y$', 'ie') || 's' END;
COMMENT ON FUNCTION counted IS '"1 invoice", "3 invoices"; NULL for none';

CREATE OR REPLACE FUNCTION refuse_referred(p_what text, VARIADIC p_counts text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    others text := array_to_string(p_counts, ', ');
BEGIN
    IF others <> '' THEN
        PERFORM refuse('CF002', NULL, format('%s has %s', p_what, others), 'Remove those first.');
    END IF;
END $$;
COMMENT ON FUNCTION refuse_referred IS
    'Refuses a deletion when any of the counts, texts made by counted(), is there';

CREATE OR REPLACE FUNCTION refuse_taken(p_path text, p_value text, p_owner text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refuse('23505', p_path, format('%s "%s" is taken by %s', p_path, left(p_value, 100), p_owner));
END $$;
COMMENT ON FUNCTION refuse_taken IS 'Refuses a value that must be unique';

-- Time ----------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION moment_text(p_moment timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(p_moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
COMMENT ON FUNCTION moment_text IS 'A time as documents show it, of fixed width';

CREATE OR REPLACE FUNCTION epoch_us(p_moment timestamptz) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (extract(epoch FROM p_moment) * 1000000)::bigint;
COMMENT ON FUNCTION epoch_us IS 'Microseconds since 1970';

CREATE OR REPLACE FUNCTION check_moment(p_moment timestamptz, p_path text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF p_moment < '0001-01-01 00:00:00+00' OR p_moment >= '10000-01-01 00:00:00+00' THEN
        PERFORM refuse('22023', p_path, format('%s must lie in the years 1 to 9999 (UTC)', p_path));
    END IF;
END $$;
COMMENT ON FUNCTION check_moment IS 'Refuses times that documents cannot show, infinity included';

-- Fields of a document ------------------------------------------------------------------------------------------------
-- Each takes the object, the key, and the path of the object ("" or "modules[0]."). A field that is missing gives the
-- fallback; one that is null gives NULL, or is refused when the field is required; so is a required one that is
-- missing and has no fallback.

CREATE OR REPLACE FUNCTION field_absent(p_value jsonb, p_path text, p_type text, p_required boolean,
                                        p_fallback boolean) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF p_value IS NULL THEN
        IF p_required AND NOT p_fallback THEN
            PERFORM refuse('22023', p_path, format('%s is missing', p_path));
        END IF;
        RETURN true;
    ELSIF jsonb_typeof(p_value) = 'null' THEN
        IF p_required THEN
            PERFORM refuse('22023', p_path, format('%s must not be null', p_path));
        END IF;
        RETURN false;
    END IF;
    PERFORM refuse('22023', p_path, format('%s is %s: must be %s', p_path, quoted(p_value), p_type));
END $$;
COMMENT ON FUNCTION field_absent IS
    'For a value that is not of its type: whether the fallback applies; refuses what is neither missing nor a '
    'permitted null';

CREATE OR REPLACE FUNCTION field_text(p_doc jsonb, p_key text, p_prefix text, p_max int,
                                      p_required boolean DEFAULT false, p_fallback text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    value jsonb := p_doc -> p_key;
    result text;
BEGIN
    IF jsonb_typeof(value) = 'string' THEN
        result := value #>> '{}';
        IF length(result) > p_max THEN
            PERFORM refuse('22023', p_prefix || p_key,
                           format('%s has %s characters: at most %s', p_prefix || p_key, length(result), p_max));
        ELSIF p_required AND result = '' THEN
            PERFORM refuse('22023', p_prefix || p_key, format('%s must not be empty', p_prefix || p_key));
        END IF;
        RETURN result;
    ELSIF field_absent(value, p_prefix || p_key, 'text', p_required, p_fallback IS NOT NULL) THEN
        RETURN p_fallback;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION field_text IS 'Text of at most p_max characters, not empty when required';

CREATE OR REPLACE FUNCTION field_match(p_doc jsonb, p_key text, p_prefix text, p_max int, p_pattern text,
                                       p_wanted text, p_required boolean DEFAULT false,
                                       p_fallback text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    result text := field_text(p_doc, p_key, p_prefix, p_max, p_required, p_fallback);
BEGIN
    IF result !~ p_pattern THEN
        PERFORM refuse('22023', p_prefix || p_key,
                       format('%s is %s: must be %s', p_prefix || p_key, quoted(p_doc -> p_key), p_wanted));
    END IF;
    RETURN result;
END $$;
COMMENT ON FUNCTION field_match IS 'Text that matches a pattern, which p_wanted puts in words';

CREATE OR REPLACE FUNCTION field_choice(p_doc jsonb, p_key text, p_prefix text, p_choices text[], p_fallback text)
RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    result text := field_text(p_doc, p_key, p_prefix, 1000, true, p_fallback);
BEGIN
    IF result <> ALL (p_choices) THEN
        PERFORM refuse('22023', p_prefix || p_key, format('%s is %s: must be one of %s', p_prefix || p_key,
                                                          quoted(p_doc -> p_key), array_to_string(p_choices, ', ')));
    END IF;
    RETURN result;
END $$;
COMMENT ON FUNCTION field_choice IS 'One of a few words';

CREATE OR REPLACE FUNCTION field_flag(p_doc jsonb, p_key text, p_prefix text, p_fallback boolean) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    value jsonb := p_doc -> p_key;
BEGIN
    IF jsonb_typeof(value) = 'boolean' THEN
        RETURN value::boolean;
    END IF;
    PERFORM field_absent(value, p_prefix || p_key, 'true or false', true, true);
    RETURN p_fallback;
END $$;
COMMENT ON FUNCTION field_flag IS 'true or false';

CREATE OR REPLACE FUNCTION field_integer(p_doc jsonb, p_key text, p_prefix text, p_min bigint, p_max bigint,
                                         p_required boolean DEFAULT false, p_fallback bigint DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    value jsonb := p_doc -> p_key;
    result numeric;
BEGIN
    IF jsonb_typeof(value) = 'number' THEN
        result := value::numeric;
        IF result < p_min OR result > p_max OR result <> trunc(result) THEN
            PERFORM refuse('22023', p_prefix || p_key, format('%s is %s: must be a whole number from %s to %s',
                                                              p_prefix || p_key, quoted(value), p_min, p_max));
        END IF;
        RETURN result;
    ELSIF field_absent(value, p_prefix || p_key, 'a whole number', p_required, p_fallback IS NOT NULL) THEN
        RETURN p_fallback;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION field_integer IS 'A whole number within bounds';

CREATE OR REPLACE FUNCTION field_id(p_doc jsonb, p_key text, p_prefix text, p_required boolean DEFAULT false)
RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN field_integer(p_doc, p_key, p_prefix, 1, 274877906943, p_required);
END $$;
COMMENT ON FUNCTION field_id IS 'An id';

CREATE OR REPLACE FUNCTION field_money(p_doc jsonb, p_key text, p_prefix text, p_max numeric,
                                       p_required boolean DEFAULT true, p_fallback numeric DEFAULT NULL)
RETURNS numeric LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    value jsonb := p_doc -> p_key;
    result numeric;
BEGIN
    IF jsonb_typeof(value) = 'number' THEN
        result := value::numeric;
        IF result < 0 OR result > p_max THEN
            PERFORM refuse('22023', p_prefix || p_key, format('%s is %s: must be from 0 to %s', p_prefix || p_key,
                                                              quoted(value), p_max));
        ELSIF result <> round(result, 2) THEN
            PERFORM refuse('22023', p_prefix || p_key,
                           format('%s is %s: must have at most two decimals', p_prefix || p_key, quoted(value)),
                           'More decimals would be rounded.');
        END IF;
        RETURN round(result, 2);
    ELSIF field_absent(value, p_prefix || p_key, 'a number', p_required, p_fallback IS NOT NULL) THEN
        RETURN p_fallback;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION field_money IS 'An amount: not negative, two decimals, never rounded';

CREATE OR REPLACE FUNCTION is_calendar_day(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_text ~ '^(?!0000)\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])'
   AND (substr(p_text, 9, 2) <= '28'
        OR substr(p_text, 9, 2)::int <= extract(day FROM
               make_date(substr(p_text, 1, 4)::int, substr(p_text, 6, 2)::int, 1)
               + interval '1 month' - interval '1 day'));
COMMENT ON FUNCTION is_calendar_day IS 'Whether a text begins with a day that exists';

CREATE OR REPLACE FUNCTION field_moment(p_doc jsonb, p_key text, p_prefix text, p_fallback timestamptz DEFAULT NULL)
RETURNS timestamptz LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    value text;
    result timestamptz;
BEGIN
    IF p_fallback IS NOT NULL AND NOT p_doc ? p_key THEN
        RETURN p_fallback;
    END IF;
    value := field_text(p_doc, p_key, p_prefix, 100, p_fallback IS NOT NULL);
    IF value IS NULL THEN
        RETURN NULL;
    ELSIF value ~ '^[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3])(:[0-5]\d){2}\.\d{6}Z$' THEN
        RETURN value::timestamptz; -- as documents show it: nearly always, and no other rule need be asked
    ELSIF NOT is_calendar_day(value)
       OR value !~ '^.{10}[T ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-](0\d|1[0-4]):?[0-5]\d)$' THEN
        PERFORM refuse('22023', p_prefix || p_key,
                       format('%s is %s: must be a time with its zone', p_prefix || p_key, quoted(p_doc -> p_key)),
                       'Times look like 2026-11-22T15:48:30.123456Z.');
    ELSIF value ~ '\.\d{6}\d*[1-9]' THEN
        PERFORM refuse('22023', p_prefix || p_key,
                       format('%s is %s: must have at most six decimals', p_prefix || p_key, quoted(p_doc -> p_key)),
                       'Times are kept to the microsecond; more would be rounded.');
    END IF;
    result := value::timestamptz;
    PERFORM check_moment(result, p_prefix || p_key);
    RETURN result;
END $$;
COMMENT ON FUNCTION field_moment IS 'A point in time, with its zone; required when there is a fallback';

CREATE OR REPLACE FUNCTION field_day(p_doc jsonb, p_key text, p_prefix text) RETURNS date
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    value text := field_text(p_doc, p_key, p_prefix, 100);
BEGIN
    IF NOT is_calendar_day(value) OR length(value) <> 10 THEN
        PERFORM refuse('22023', p_prefix || p_key,
                       format('%s is %s: must be a day', p_prefix || p_key, quoted(p_doc -> p_key)),
                       'Days look like 2026-11-22.');
    END IF;
    RETURN value::date;
END $$;
COMMENT ON FUNCTION field_day IS 'A calendar day';

CREATE OR REPLACE FUNCTION field_currency(p_doc jsonb, p_key text, p_prefix text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN field_match(p_doc, p_key, p_prefix, 3, '^[A-Z]{3}$', 'an ISO 4217 code, such as EUR', true, 'USD');
END $$;
COMMENT ON FUNCTION field_currency IS 'A currency; USD when missing';

CREATE OR REPLACE FUNCTION field_language(p_doc jsonb, p_key text, p_prefix text, p_required boolean DEFAULT false,
                                          p_fallback text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN field_match(p_doc, p_key, p_prefix, 35, '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$',
                       'a language tag, such as en or pt-BR', p_required, p_fallback);
END $$;
COMMENT ON FUNCTION field_language IS 'A BCP 47 language tag';

CREATE OR REPLACE FUNCTION field_slug(p_doc jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN field_match(p_doc, 'slug', '', 200, '^[a-z0-9]+(-[a-z0-9]+)*$',
                       'small letters a-z, digits and single hyphens', true);
END $$;
COMMENT ON FUNCTION field_slug IS 'The name in addresses';

CREATE OR REPLACE FUNCTION field_list(p_doc jsonb, p_key text, p_prefix text, p_exists boolean) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    value jsonb := p_doc -> p_key;
BEGIN
    IF jsonb_typeof(value) = 'array' THEN
        RETURN value;
    ELSIF value IS NULL AND NOT p_exists THEN
        RETURN NULL;
    ELSIF value IS NULL THEN
        PERFORM refuse('22023', p_prefix || p_key, format('%s is missing', p_prefix || p_key),
                       'A list is part of the document: leaving it out does not keep it. To empty it write [].');
    END IF;
    PERFORM refuse('22023', p_prefix || p_key, format('%s is %s: must be a list', p_prefix || p_key, quoted(value)));
END $$;
COMMENT ON FUNCTION field_list IS 'A list; NULL when missing, which is refused when the document exists already';

CREATE OR REPLACE FUNCTION check_fields(p_doc jsonb, p_known text[], p_prefix text, p_what text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    unknown text;
    near text;
BEGIN
    IF jsonb_typeof(p_doc) IS DISTINCT FROM 'object' THEN
        PERFORM refuse('22023', nullif(rtrim(p_prefix, '.'), ''), format('%s is %s: must be an object in { }',
                       coalesce(nullif(rtrim(p_prefix, '.'), ''), 'the document'), coalesce(quoted(p_doc), 'missing')));
    ELSIF p_doc - p_known <> '{}' THEN
        unknown := (SELECT min(key) FROM jsonb_object_keys(p_doc - p_known) key);
        near := (SELECT name FROM unnest(p_known) name WHERE similarity(name, unknown) > 0.2
                 ORDER BY similarity(name, unknown) DESC, name LIMIT 1);
        PERFORM refuse('22023', p_prefix || left(unknown, 100),
                       format('%s is not a field of %s', p_prefix || left(unknown, 100), p_what),
                       coalesce('Did you mean ' || near || '? ', '') ||
                       'The fields are ' || array_to_string(p_known, ', ') || '.');
    END IF;
END $$;
COMMENT ON FUNCTION check_fields IS 'Refuses what is not an object, and fields that nobody knows';

-- Documents -----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION shard_number() RETURNS smallint
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT number FROM shard);
COMMENT ON FUNCTION shard_number IS 'Which shard this is';

CREATE OR REPLACE FUNCTION region_name(p_region smallint) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT name FROM regions WHERE number = p_region);
COMMENT ON FUNCTION region_name IS 'Folder name of a region';

DROP FUNCTION IF EXISTS check_region(smallint);
CREATE OR REPLACE FUNCTION local_region(p_region smallint) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    region regions;
BEGIN
    SELECT * INTO region FROM regions WHERE number = p_region;
    IF NOT FOUND THEN
        PERFORM refuse('CF005', 'region', format('there is no region number %s', p_region));
    ELSIF NOT region.is_local THEN
        PERFORM refuse('CF005', 'region', format('region %s lives on another shard', region.name));
    END IF;
    RETURN region.name;
END $$;
COMMENT ON FUNCTION local_region(smallint) IS 'Folder name of a region whose rows live here; refuses others';

CREATE OR REPLACE FUNCTION check_document(p_noun text, p_region smallint, p_id bigint, p_doc jsonb, p_known text[],
                                          p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    id bigint;
    region text;
    home text;
BEGIN
    PERFORM check_fields(p_doc, p_known, '', 'a ' || p_noun);
    -- Its own id and its own time: if the row is new, it comes out of a backup (51_sequences.sql).
    PERFORM set_config('campusfs.restoring', CASE WHEN p_id IS NOT NULL AND p_at IS NOT NULL THEN 'on' ELSE '' END,
                       true);
    PERFORM check_moment(p_at, 'updated_at'), field_moment(p_doc, 'updated_at', ''),
            field_moment(p_doc, 'created_at', '');
    id := field_id(p_doc, 'id', '');
    IF id IS NOT NULL AND p_id IS NULL THEN
        PERFORM refuse('22023', 'id', 'id must be left out: a new document takes the next one',
                       format('To create a %s under an id of your own, write it to <id>.json.', p_noun));
    ELSIF id <> p_id THEN
        PERFORM refuse('22023', 'id', format('id is %s, but the file is %s.json', id, p_id));
    ELSIF p_id NOT BETWEEN 1 AND 274877906943 THEN
        PERFORM refuse('22023', 'id', format('%s is no id: must be from 1 to 274877906943', p_id));
    END IF;
    IF 'region' = ANY (p_known) THEN
        home := local_region(p_region);
        region := field_text(p_doc, 'region', '', 1000);
        IF region <> home THEN
            PERFORM refuse('22023', 'region', format('region is %s, but the file lies in %s', quoted(p_doc -> 'region'),
                                                     home));
        END IF;
    ELSIF p_region <> 0 THEN
        PERFORM refuse('22023', 'region', format('a %s belongs to no region', p_noun));
    END IF;
END $$;
COMMENT ON FUNCTION check_document IS 'What is the same for every document: its fields, id and region';

CREATE OR REPLACE FUNCTION same_document(p_body text, p_doc jsonb, p_ignored text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_body::jsonb - p_ignored = p_doc - p_ignored;
COMMENT ON FUNCTION same_document IS 'Whether a document is what the row shows, some fields aside';

CREATE OR REPLACE FUNCTION check_conflict(p_what text, p_content_at timestamptz, p_doc jsonb, p_base timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    seen timestamptz := field_moment(p_doc, 'updated_at', '');
BEGIN
    IF p_base = '-infinity' THEN
        PERFORM refuse('23505', 'id', format('there is %s already: it was made meanwhile', p_what));
    END IF;
    IF p_content_at > greatest(seen, p_base) AND seen IS NOT NULL THEN
        PERFORM refuse('CF003', 'updated_at',
                       format('%s was changed at %s, after the version that this document is based on (%s)', p_what,
                              moment_text(p_content_at), moment_text(greatest(seen, p_base))),
                       'Read it again and repeat the edit; a document without updated_at replaces what is there.');
    END IF;
END $$;
COMMENT ON FUNCTION check_conflict IS
    'Refuses a document that is based on an older version of what people edit; p_base -infinity: on none, a new row';

-- Ids -----------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION next_id(p_collection smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    tab name := (SELECT table_name FROM collections WHERE number = p_collection);
    id bigint;
    taken boolean;
BEGIN
    IF p_collection = credentials_number() THEN
        PERFORM refuse('CF005', NULL, 'credentials take no ids of their own: the file is named by its user');
    ELSIF tab IS NULL THEN
        PERFORM refuse('22023', 'collection', format('there is no collection number %s', p_collection));
    END IF;
    LOOP
        id := nextval(tab || '_id_seq');
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE id = $1)
                            OR EXISTS (SELECT FROM id_claims WHERE collection = $2 AND id = $1)
                            OR is_id_kept($2, $1)', tab)
            INTO taken USING id, p_collection;
        EXIT WHEN NOT taken;
    END LOOP;
    RETURN id;
END $$;
COMMENT ON FUNCTION next_id IS
    'A fresh id of a collection: of this shard''s numbers, not taken here, nor claimed elsewhere, nor that of '
    'a row deleted within the last day';

CREATE OR REPLACE FUNCTION next_child_id(p_table name) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    id bigint;
    taken boolean;
BEGIN
    LOOP
        id := nextval(p_table || '_id_seq');
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE id = $1)', p_table) INTO taken USING id;
        EXIT WHEN NOT taken;
    END LOOP;
    RETURN id;
END $$;
COMMENT ON FUNCTION next_child_id IS 'A fresh id of course_modules or course_lessons';

CREATE OR REPLACE FUNCTION new_id(p_collection smallint, p_id bigint, p_claimed boolean) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    IF p_id IS NULL THEN
        RETURN next_id(p_collection);
    ELSIF p_id % 1000 <> shard_number() AND p_claimed IS NOT TRUE THEN
        PERFORM refuse('CF006', 'id', format('id %s is one of shard %s''s numbers and not claimed there',
                                             p_id, p_id % 1000));
    END IF;
    RETURN p_id;
END $$;
COMMENT ON FUNCTION new_id IS 'The id of a document to create: the next one, or the one asked for';

CREATE OR REPLACE FUNCTION claim_lock_class() RETURNS int
LANGUAGE sql STABLE PARALLEL SAFE
RETURN 'campusfs.id_claims'::regclass::oid::bigint::bit(32)::int;
COMMENT ON FUNCTION claim_lock_class IS
    'Class of the advisory locks, one a collection, that keep claiming and creating apart';

CREATE OR REPLACE FUNCTION claim_id(p_collection smallint, p_id bigint, p_shard smallint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    coll collections;
    taken boolean;
    holder smallint;
BEGIN
    SELECT * INTO coll FROM collections WHERE number = p_collection;
    IF NOT FOUND THEN
        PERFORM refuse('22023', 'collection', format('there is no collection number %s', p_collection));
    ELSIF p_id NOT BETWEEN 1 AND 274877906943 THEN
        PERFORM refuse('22023', 'id', format('%s is no id: they run from 1 to 274877906943', p_id));
    ELSIF p_shard = shard_number() OR p_shard NOT BETWEEN 0 AND 999 THEN
        PERFORM refuse('22023', 'shard', format('shard %s cannot claim an id here', p_shard));
    END IF;
    -- Who creates rows holds this lock shared until the row is committed (log_documents).
    PERFORM pg_advisory_xact_lock(claim_lock_class(), p_collection);
    EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE id = $1)', coll.table_name) INTO taken USING p_id;
    IF taken THEN
        PERFORM refuse_taken('id', p_id::text, format('a %s of its home shard', coll.noun));
    END IF;
    INSERT INTO id_claims AS c (collection, id, shard) VALUES (p_collection, p_id, p_shard)
    ON CONFLICT (collection, id) DO UPDATE SET claimed_at = EXCLUDED.claimed_at -- `check` drops old ones without a row
    WHERE c.shard = EXCLUDED.shard;
    SELECT shard INTO holder FROM id_claims WHERE collection = p_collection AND id = p_id;
    IF holder <> p_shard THEN
        PERFORM refuse_taken('id', p_id::text, format('a %s of shard %s', coll.noun, holder));
    END IF;
END $$;
COMMENT ON FUNCTION claim_id IS
    'On an id''s home shard (the first one for numbers that no shard gives away, which only the configuration '
    'knows): notes that its row lives on another one; can be repeated';

CREATE OR REPLACE FUNCTION check_id_elsewhere(p_collection smallint, p_region smallint, p_id bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    coll collections;
    region smallint;
BEGIN
    SELECT * INTO coll FROM collections WHERE number = p_collection;
    EXECUTE format('SELECT region FROM %I WHERE id = $1', coll.table_name) INTO region USING p_id;
    IF region <> p_region THEN
        PERFORM refuse_taken('id', p_id::text, format('a %s of %s', coll.noun, region_name(region)));
    END IF;
END $$;
COMMENT ON FUNCTION check_id_elsewhere IS
    'For a new id that turned out to be taken: refuses when it is by another region, else the row has just '
    'come and can be updated';

-- References ----------------------------------------------------------------------------------------------------------
-- The key share lock is the one that the foreign key takes anyway: after it the row cannot go before our commit.

CREATE OR REPLACE FUNCTION check_user(p_region smallint, p_id bigint, p_path text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    home smallint;
BEGIN
    PERFORM FROM users WHERE region = p_region AND id = p_id FOR KEY SHARE;
    IF NOT FOUND THEN
        SELECT region INTO home FROM users WHERE id = p_id;
        IF FOUND THEN
            PERFORM refuse('CF001', p_path, format('%s is %s: that user belongs to %s, not to %s', p_path, p_id,
                                                   region_name(home), region_name(p_region)),
                           'What a user owns lies in the user''s region.');
        END IF;
        PERFORM refuse('CF001', p_path, format('%s is %s: there is no such user in %s',
                                               p_path, p_id, region_name(p_region)));
    END IF;
END $$;
COMMENT ON FUNCTION check_user IS 'Refuses a reference to a user who does not exist in the region';

CREATE OR REPLACE FUNCTION check_category(p_id bigint, p_path text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM course_categories WHERE id = p_id FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM refuse('CF001', p_path, format('%s is %s: there is no such category', p_path, p_id));
    END IF;
END $$;
COMMENT ON FUNCTION check_category IS 'Refuses a reference to a category that does not exist';

CREATE OR REPLACE FUNCTION check_course(p_id bigint, p_path text, p_lock boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_lock THEN
        PERFORM FROM courses WHERE id = p_id FOR NO KEY UPDATE;
    ELSE
        PERFORM FROM courses WHERE id = p_id FOR KEY SHARE;
    END IF;
    IF NOT FOUND THEN
        PERFORM refuse('CF001', p_path, format('%s is %s: there is no such course on this shard', p_path, p_id),
                       'A reference never leaves its shard.');
    END IF;
END $$;
COMMENT ON FUNCTION check_course IS
    'Refuses a reference to a course that is not here; p_lock when its counts will move, so that writers '
    'queue in one order';

-- Requests and changes ------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION note_actor(p_actor text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_actor IS NOT NULL THEN
        PERFORM set_config('campusfs.actor', p_actor, true);
    END IF;
END $$;
COMMENT ON FUNCTION note_actor IS 'Names who acts in the change log, for the rest of the transaction';

CREATE OR REPLACE FUNCTION note_request(p_request uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_request IS NOT NULL THEN
        INSERT INTO request_log (request_id, outcome) VALUES (p_request, 'committed') ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            PERFORM refuse('CF005', NULL, format('request %s has been used or given up', p_request));
        END IF;
        -- Here, where a transaction ends: nobody waits for long for what it has locked.
        IF EXISTS (SELECT FROM deleted_rows WHERE deleted_at <= statement_timestamp() - deleted_kept_for())
            OR EXISTS (SELECT FROM transfers WHERE finished_at <= statement_timestamp() - deleted_kept_for()) THEN
            PERFORM purge_deleted();
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION note_request IS
    'Makes the transaction findable by its request id, and exactly once; the last that a write does';

CREATE OR REPLACE FUNCTION resolve_request(p_request uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    -- Waits for a transaction under way that has inserted it; a mere SELECT would miss that one. Writes something in any
    -- case: where a synchronous standby is to confirm commits, it then has confirmed the former one, too.
    INSERT INTO request_log (request_id, outcome) VALUES (p_request, 'void')
    ON CONFLICT (request_id) DO UPDATE SET outcome = request_log.outcome;
    RETURN (SELECT outcome FROM request_log WHERE request_id = p_request);
END $$;
COMMENT ON FUNCTION resolve_request IS
    'What became of a write whose answer was lost: committed, or void, which is then final';

CREATE OR REPLACE FUNCTION collection_changed_us(p_collection smallint, p_region smallint) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp
RETURN coalesce((SELECT epoch_us(changed_at) FROM change_log WHERE collection = p_collection AND region = p_region
                 ORDER BY changed_at DESC LIMIT 1), 0);
COMMENT ON FUNCTION collection_changed_us IS
    'Time of the last change of a folder, microseconds since 1970; 0 when never';

DROP FUNCTION IF EXISTS prune_logs(interval, interval); -- of former versions
CREATE OR REPLACE FUNCTION prune_logs(p_requests interval DEFAULT '7 days', p_changes interval DEFAULT '30 days',
                                      p_limit bigint DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    requests bigint;
    changes bigint;
BEGIN
    DELETE FROM request_log WHERE request_id = ANY (ARRAY(
        SELECT r.request_id FROM request_log r WHERE r.created_at < clock_timestamp() - p_requests
        ORDER BY r.created_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS requests = ROW_COUNT;
    -- The last entry of a collection and region is the folder's mtime: it stays. Folder by folder, by the index: the log
    -- may have millions of entries, and is asked every hour.
    WITH RECURSIVE folders AS (
        (SELECT l.collection, l.region FROM change_log l ORDER BY l.collection, l.region LIMIT 1)
        UNION ALL
        SELECT next.collection, next.region
        FROM folders f
        CROSS JOIN LATERAL (
            SELECT l.collection, l.region FROM change_log l WHERE (l.collection, l.region) > (f.collection, f.region)
            ORDER BY l.collection, l.region LIMIT 1) next)
    DELETE FROM change_log c USING (
        SELECT old.xid, old.id
        FROM folders f
        CROSS JOIN LATERAL (
            SELECT l.xid, l.id FROM change_log l WHERE l.collection = f.collection AND l.region = f.region
            ORDER BY l.changed_at DESC, l.id DESC LIMIT 1) last
        CROSS JOIN LATERAL (
            SELECT l.xid, l.id FROM change_log l
            WHERE l.collection = f.collection AND l.region = f.region
                AND l.changed_at < clock_timestamp() - p_changes AND (l.xid, l.id) <> (last.xid, last.id)
            ORDER BY l.changed_at LIMIT p_limit) old
        LIMIT p_limit) gone
    WHERE c.xid = gone.xid AND c.id = gone.id;
    GET DIAGNOSTICS changes = ROW_COUNT;
    RETURN requests + changes + purge_deleted(p_limit);
END $$;
COMMENT ON FUNCTION prune_logs IS
    'Forgets old requests, changes and deleted rows, of each at most so many; how many rows went';
