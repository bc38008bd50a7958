-- What `campusfs check` asks one shard. Tables are walked by id, a page a call, so that each call is short whatever there
-- is: `last` is where the next page begins, NULL behind the last; `seen` counts rows for the progress bar.
--
-- Functions named check_… only read; those named repair_… mend what the first have found, and look again themselves.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

-- Derived values -----------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW derived_courses AS
SELECT c.id, c.region, c.duration_minutes, c.rating_sum, c.rating_count, c.enrollment_count,
       (SELECT coalesce(sum(l.duration_minutes), 0)::int FROM course_modules m JOIN course_lessons l ON l.module_id = m.id
        WHERE m.course_id = c.id) AS want_duration_minutes,
       r.stars AS want_rating_sum, r.ratings AS want_rating_count,
       (SELECT count(*)::int FROM enrollments e WHERE e.course_id = c.id AND e.status <> 'cancelled')
           AS want_enrollment_count
FROM courses c
CROSS JOIN LATERAL (SELECT coalesce(sum(v.rating), 0)::bigint AS stars, count(*)::int AS ratings
                    FROM course_reviews v WHERE v.course_id = c.id) r;
COMMENT ON VIEW derived_courses IS 'Derived values of courses beside what they should be';

CREATE OR REPLACE VIEW derived_enrollments AS
SELECT e.id, e.region, e.progress_percent,
       (SELECT coalesce(round(100.0 * count(*) FILTER (WHERE l.status = 'completed') / nullif(count(*), 0), 2), 0)
        FROM lesson_progress l WHERE l.enrollment_id = e.id) AS want_progress_percent
FROM enrollments e;
COMMENT ON VIEW derived_enrollments IS 'Derived values of enrollments beside what they should be';

CREATE OR REPLACE FUNCTION differs(p_field text, p_is numeric, p_want numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN p_is <> p_want THEN format('%s is %s, should be %s', p_field, p_is, p_want) END;
COMMENT ON FUNCTION differs IS 'A value that is not what it should be, in words; NULL where it is';

CREATE OR REPLACE FUNCTION check_courses(p_after bigint, p_limit bigint)
RETURNS TABLE (last bigint, seen bigint, id bigint, region text, message text)
LANGUAGE plpgsql STABLE SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ids CONSTANT bigint[] := ARRAY(SELECT c.id FROM courses c WHERE c.id > p_after ORDER BY c.id LIMIT p_limit);
    n CONSTANT bigint := cardinality(ids);
BEGIN
    RETURN QUERY SELECT CASE WHEN n = p_limit THEN ids[n] END, n, NULL::bigint, NULL, NULL;
    RETURN QUERY
        SELECT NULL::bigint, NULL::bigint, d.id, region_name(d.region), d.words
        FROM (SELECT v.id, v.region, concat_ws(', ',
                  differs('duration_minutes', v.duration_minutes, v.want_duration_minutes),
                  differs('the sum of ratings', v.rating_sum, v.want_rating_sum),
                  differs('rating_count', v.rating_count, v.want_rating_count),
                  differs('enrollment_count', v.enrollment_count, v.want_enrollment_count)) AS words
              FROM derived_courses v WHERE v.id = ANY (ids)) d
        WHERE d.words <> '';
END $$;
COMMENT ON FUNCTION check_courses IS 'Courses whose derived values are wrong: a row that says where the page ended, then those';

CREATE OR REPLACE FUNCTION repair_courses(p_ids bigint[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    repaired bigint;
BEGIN
    PERFORM FROM courses WHERE id = ANY (p_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE courses c SET duration_minutes = d.want_duration_minutes, rating_sum = d.want_rating_sum,
                         rating_count = d.want_rating_count, enrollment_count = d.want_enrollment_count
    FROM derived_courses d
    WHERE c.id = ANY (p_ids) AND d.id = c.id
        AND (c.duration_minutes, c.rating_sum, c.rating_count, c.enrollment_count) <>
            (d.want_duration_minutes, d.want_rating_sum, d.want_rating_count, d.want_enrollment_count);
    GET DIAGNOSTICS repaired = ROW_COUNT;
    RETURN repaired;
END $$;
COMMENT ON FUNCTION repair_courses IS 'Sets derived values of courses to what they should be; how many were not';

CREATE OR REPLACE FUNCTION check_enrollments(p_after bigint, p_limit bigint)
RETURNS TABLE (last bigint, seen bigint, id bigint, region text, message text)
LANGUAGE plpgsql STABLE SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ids CONSTANT bigint[] := ARRAY(SELECT e.id FROM enrollments e WHERE e.id > p_after ORDER BY e.id LIMIT p_limit);
    n CONSTANT bigint := cardinality(ids);
BEGIN
    RETURN QUERY SELECT CASE WHEN n = p_limit THEN ids[n] END, n, NULL::bigint, NULL, NULL;
    RETURN QUERY
        SELECT NULL::bigint, NULL::bigint, d.id, region_name(d.region),
               differs('progress_percent', d.progress_percent, d.want_progress_percent)
        FROM derived_enrollments d WHERE d.id = ANY (ids) AND d.progress_percent <> d.want_progress_percent;
END $$;
COMMENT ON FUNCTION check_enrollments IS 'Enrollments whose progress is wrong: a row that says where the page ended, then those';

CREATE OR REPLACE FUNCTION repair_enrollments(p_ids bigint[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    repaired bigint;
BEGIN
    PERFORM FROM enrollments WHERE id = ANY (p_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE enrollments e SET progress_percent = d.want_progress_percent
    FROM derived_enrollments d
    WHERE e.id = ANY (p_ids) AND d.id = e.id AND e.progress_percent <> d.want_progress_percent;
    GET DIAGNOSTICS repaired = ROW_COUNT;
    RETURN repaired;
END $$;
COMMENT ON FUNCTION repair_enrollments IS 'Sets the progress of enrollments to what it should be; how many were not';

-- Regions and sequences ----------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION check_regions() RETURNS TABLE (collection text, region text, rows bigint)
LANGUAGE plpgsql STABLE SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    coll collections;
BEGIN
    FOR coll IN SELECT * FROM collections ORDER BY number LOOP
        RETURN QUERY EXECUTE format(
            'SELECT $1, r.name, (SELECT count(*) FROM %I t WHERE t.region = r.number) FROM regions r
             WHERE NOT r.is_local AND EXISTS (SELECT FROM %1$I t WHERE t.region = r.number)', coll.table_name)
            USING coll.folder;
    END LOOP;
END $$;
COMMENT ON FUNCTION check_regions IS 'Rows here whose region lives on another shard: how many, by collection and region';

CREATE OR REPLACE FUNCTION check_sequences() RETURNS TABLE (sequence text, last bigint, behind bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    near CONSTANT bigint := 1000000000; -- a million numbers: what lies beyond was chosen, and is far away
    seq record;
    at bigint;
    furthest bigint;
    taken boolean;
BEGIN
    FOR seq IN SELECT s.relname AS name, s.oid, left(s.relname, -7) AS tab FROM pg_class s
               WHERE s.relnamespace = 'campusfs'::regnamespace AND s.relkind = 'S' AND s.relname LIKE '%\_id\_seq'
                   AND to_regclass(left(s.relname, -7)) IS NOT NULL AND s.relname <> 'change_log_id_seq'
               ORDER BY 1 LOOP
        -- One that was never drawn from is about to give its first number.
        at := coalesce(pg_sequence_last_value(seq.oid),
                       (SELECT seqstart - seqincrement FROM pg_sequence WHERE seqrelid = seq.oid));
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE id = $1 + 1000)', seq.tab) INTO taken USING at;
        IF taken THEN
            EXECUTE format('SELECT max(id) FROM %I WHERE id > $1 AND id <= $1 + $2 AND id %% 1000 = shard_number()',
                           seq.tab) INTO furthest USING at, near;
            RETURN QUERY SELECT seq.name::text, at, furthest;
        END IF;
    END LOOP;
    at := coalesce(pg_sequence_last_value('invoice_number_seq'), 0);
    IF EXISTS (SELECT FROM invoices WHERE number = format('INV-%s-%s', to_char(shard_number(), 'FM000'),
                                                          to_char(at + 1, 'FM00000000'))) THEN
        furthest := (SELECT max(split_part(number, '-', 3)::bigint) FROM invoices
                     WHERE number ~ format('^INV-%s-[0-9]{8,12}$', to_char(shard_number(), 'FM000')));
        RETURN QUERY SELECT 'invoice_number_seq', at, furthest;
    END IF;
END $$;
COMMENT ON FUNCTION check_sequences IS
    'Sequences whose next value is taken: where they stand, and the last value in use that is near. A value of one''s '
    'choice further on is no fault, and harmless: fresh ids step over what is taken';

CREATE OR REPLACE FUNCTION repair_sequences() RETURNS TABLE (sequence text, moved_to bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found record;
BEGIN
    FOR found IN SELECT * FROM check_sequences() LOOP
        PERFORM pass_sequence(found.sequence::regclass, found.behind, 274877906943);
        RETURN QUERY SELECT found.sequence, found.behind;
    END LOOP;
END $$;
COMMENT ON FUNCTION repair_sequences IS 'Moves sequences behind what is taken';

-- Ids ----------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION check_ids(p_collection smallint, p_shards smallint[], p_after bigint, p_limit bigint)
RETURNS TABLE (last bigint, seen bigint, home smallint, ids text)
LANGUAGE plpgsql STABLE SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tab name := (SELECT table_name FROM collections WHERE number = p_collection);
    page bigint[];
    n bigint;
BEGIN
    EXECUTE format('SELECT ARRAY(SELECT id FROM %I WHERE id > $1 ORDER BY id LIMIT $2)', tab)
        INTO page USING p_after, p_limit;
    n := cardinality(page);
    RETURN QUERY SELECT CASE WHEN n = p_limit THEN page[n] END, n, NULL::smallint, NULL;
    RETURN QUERY
        SELECT NULL::bigint, NULL::bigint, home_shard(id, p_shards), array_agg(id ORDER BY id)::text
        FROM unnest(page) id WHERE home_shard(id, p_shards) <> shard_number() GROUP BY 3;
END $$;
COMMENT ON FUNCTION check_ids IS
    'Rows here whose ids are other shards'': a row that says where the page ended, then those by home';

CREATE OR REPLACE FUNCTION check_claimed(p_collection smallint, p_ids bigint[], p_shard smallint)
RETURNS TABLE (id bigint, taken boolean, claimed_by smallint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tab name := (SELECT table_name FROM collections WHERE number = p_collection);
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT i.id, EXISTS (SELECT FROM %I t WHERE t.id = i.id), c.shard
         FROM unnest($1) i (id) LEFT JOIN id_claims c ON c.collection = $2 AND c.id = i.id
         WHERE c.shard IS DISTINCT FROM $3 OR EXISTS (SELECT FROM %1$I t WHERE t.id = i.id)', tab)
        USING p_ids, p_collection, p_shard;
END $$;
COMMENT ON FUNCTION check_claimed IS
    'On the home of some ids that a shard has rows of: those that are not claimed for it, or have a row here as well';

CREATE OR REPLACE FUNCTION check_claims_page(p_collection smallint, p_after bigint, p_limit bigint)
RETURNS TABLE (last bigint, seen bigint, shard smallint, ids text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp
BEGIN ATOMIC
    WITH page AS (
        SELECT id, shard, claimed_at FROM id_claims WHERE collection = p_collection AND id > p_after
        ORDER BY id LIMIT p_limit)
    SELECT CASE WHEN count(*) = p_limit THEN max(id) END, count(*), NULL::smallint, NULL FROM page
    UNION ALL
    -- A claim is taken a moment before its row is written.
    SELECT NULL, NULL, shard, array_agg(id ORDER BY id)::text FROM page
    WHERE claimed_at < clock_timestamp() - interval '1 hour' GROUP BY shard;
END;
COMMENT ON FUNCTION check_claims_page IS
    'Claims that are older than an hour: a row that says where the page ended, then the ids by the shard they are for';

CREATE OR REPLACE FUNCTION check_unused(p_collection smallint, p_ids bigint[]) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    tab name := (SELECT table_name FROM collections WHERE number = p_collection);
    unused bigint[];
BEGIN
    EXECUTE format('SELECT array_agg(id ORDER BY id) FROM unnest($1) id
                    WHERE NOT EXISTS (SELECT FROM %I t WHERE t.id = id.id)
                        AND NOT EXISTS (SELECT FROM deleted_rows d WHERE d.collection = $2 AND d.id = id.id)', tab)
        INTO unused USING p_ids, p_collection;
    RETURN unused::text;
END $$;
COMMENT ON FUNCTION check_unused IS 'Those of some ids that no row here has, nor one that was deleted within the last day';

CREATE OR REPLACE FUNCTION repair_claims(p_collection smallint, p_ids bigint[], p_shard smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM id_claims WHERE collection = p_collection AND id = ANY (p_ids) AND shard = p_shard
        AND claimed_at < clock_timestamp() - interval '1 hour';
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
COMMENT ON FUNCTION repair_claims IS 'Drops claims for rows that a shard does not have; how many went';

-- Categories ---------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION repair_category(p_doc jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    c course_categories := jsonb_populate_record(NULL::course_categories, p_doc);
BEGIN
    PERFORM check_category_references((SELECT k FROM course_categories k WHERE k.id = c.id), c);
    INSERT INTO course_categories (id, parent_id, name, slug, description, created_at, updated_at, content_at)
    VALUES (c.id, c.parent_id, c.name, c.slug, c.description, c.created_at, c.updated_at, c.updated_at)
    ON CONFLICT (id) DO UPDATE
    SET parent_id = EXCLUDED.parent_id, name = EXCLUDED.name, slug = EXCLUDED.slug, description = EXCLUDED.description,
        created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at, rev = 0;
    IF (SELECT body FROM doc_categories WHERE id = c.id)::jsonb <> p_doc THEN
        PERFORM refuse('22023', NULL, format('category %s cannot be made what it is on the first shard', c.id));
    END IF;
END $$;
COMMENT ON FUNCTION repair_category IS 'Makes a copy of a category what the first shard has, times and all';

-- Preferences --------------------------------------------------------------------------------------------------------

-- They lie in MongoDB and go with their users. A move between shards is known for a while on the shard left: shards are
-- asked one after the other. Somebody erased whose account stays for its invoices (erase_user) has nothing any more.
CREATE OR REPLACE FUNCTION preferences_owners(p_ids bigint[])
RETURNS TABLE (user_id bigint, state text, claimed_by smallint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
    SELECT asked.id,
           CASE WHEN u.status = 'deleted' AND u.email LIKE 'erased-%@erased.invalid' THEN 'gone'
                WHEN u.id IS NOT NULL THEN 'there'
                WHEN EXISTS (SELECT FROM deleted_rows d WHERE d.collection = 1 AND d.id = asked.id
                                AND d.deleted_at > statement_timestamp() - deleted_kept_for())
                  OR EXISTS (SELECT FROM transfers t WHERE t.user_id = asked.id AND t.outcome = 'committed'
                                AND coalesce(t.finished_at, 'infinity') > statement_timestamp() - interval '10 minutes')
                    THEN 'kept'
                WHEN EXISTS (SELECT FROM change_log c WHERE c.row_id = asked.id AND c.collection = 1
                                AND c.operation = 'delete') THEN 'gone' END,
           (SELECT c.shard FROM id_claims c WHERE c.collection = 1 AND c.id = asked.id)
    FROM unnest(p_ids) WITH ORDINALITY AS asked(id, place)
         LEFT JOIN users u ON u.id = asked.id
    ORDER BY asked.place
$$;
COMMENT ON FUNCTION preferences_owners IS
    'What this shard knows of users, in the order asked: there, kept (deleted within the last day, or on the way to another '
    'shard), gone (deleted, or erased), NULL: nothing; and the shard that their id is claimed for';
