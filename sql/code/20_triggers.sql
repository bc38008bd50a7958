-- The clocks of documents, the change log, and derived values.
--
-- A document has three clocks: rev moves with every change of its bytes; updated_at is what users see; content_at
-- moves only with what people edit. For the row itself a BEFORE UPDATE trigger moves them, of which install_collection
-- writes one a table. (WHEN conditions would choose as well, but they are read from the catalogue and prepared anew at
-- every statement, which took a tenth of a save.) Writers tell it more by what they set rev to:
--     rev = 0     updated_at and content_at become the updated_at that is given
--     rev = -1    a part of the document in another table changed: as if a field of the row had
-- Any other hand on rev, updated_at or content_at is overruled.
--
-- All else are statement-level triggers on transition tables. Who writes a document whole keeps its parts and derived
-- fields itself, and says so by the setting campusfs.caller_keeps:
--     parts       parts of documents do not touch their document (the put functions)
--     all         nor do rows move counters of other documents (bulk loads that bring every derived value along)

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

-- Clocks of the row -----------------------------------------------------------------------------------------------

DROP FUNCTION IF EXISTS clock_content(), clock_derived() CASCADE; -- of former versions, with their triggers

CREATE OR REPLACE PROCEDURE install_clock(p_table name, p_content text, p_rest text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($body$
CREATE OR REPLACE FUNCTION %1$I() RETURNS trigger LANGUAGE plpgsql AS $clock$
BEGIN
    IF NEW.rev <= 0 OR %2$s THEN -- what people edit has changed
        IF NEW.rev <> 0 THEN
            NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
        END IF;
        NEW.content_at := NEW.updated_at;
        NEW.rev := nextval('campusfs.rev_seq');
    ELSIF %3$s THEN -- a derived value
        NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
        NEW.content_at := OLD.content_at;
        NEW.rev := nextval('campusfs.rev_seq');
    END IF;
    RETURN NEW;
END $clock$;
COMMENT ON FUNCTION %1$I IS 'BEFORE UPDATE of %4$s: moves the clocks of the document';
CREATE OR REPLACE TRIGGER clock BEFORE UPDATE ON %4$I FOR EACH ROW EXECUTE FUNCTION %1$I()
        $body$, 'clock_' || p_table, p_content, p_rest, p_table);
END $$;
COMMENT ON PROCEDURE install_clock IS
    'Puts the clocks on a table of documents; p_content, p_rest: whether what people edit, or derived values and '
    'clocks, differ between OLD and NEW';

-- Change log ----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION change_actor() RETURNS text
LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('campusfs.actor', true), ''), session_user);
COMMENT ON FUNCTION change_actor IS
    'Who changes: what the setting campusfs.actor says, else the role that logged in';

CREATE OR REPLACE FUNCTION log_bulk(p_collection smallint, p_regions smallint[]) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO change_log (collection, region, operation, rev, actor)
    SELECT p_collection, region, 'bulk', nextval('rev_seq'), change_actor() FROM unnest(p_regions) region;
END;
COMMENT ON FUNCTION log_bulk IS 'One entry a region that says: anything in this collection may have changed';

CREATE OR REPLACE FUNCTION change_time(p_updated_at timestamptz) RETURNS timestamptz
LANGUAGE sql VOLATILE
RETURN CASE WHEN p_updated_at BETWEEN transaction_timestamp() AND clock_timestamp() THEN p_updated_at
            ELSE clock_timestamp() END;
COMMENT ON FUNCTION change_time IS
    'When a document changed: its own time, unless that was given; so who saves knows the time of the folder as well';

CREATE OR REPLACE FUNCTION log_documents() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    most CONSTANT int := 1000; -- rows of one statement that are logged one by one
    coll CONSTANT smallint := TG_ARGV[0];
BEGIN
    IF TG_OP = 'INSERT' THEN
        -- claim_id holds this lock exclusively: either it sees our rows or we see its claim.
        PERFORM pg_advisory_xact_lock_shared(claim_lock_class(), coll);
        IF EXISTS (SELECT FROM id_claims WHERE collection = coll) THEN
            PERFORM check_claims(coll, ARRAY(SELECT id FROM new_rows));
        END IF;
        IF (SELECT count(*) FROM new_rows) > most THEN
            PERFORM log_bulk(coll, ARRAY(SELECT DISTINCT region FROM new_rows));
        ELSE
            INSERT INTO change_log (collection, region, row_id, operation, rev, actor, changed_at)
            SELECT coll, region, id, 'insert', rev, change_actor(), change_time(updated_at) FROM new_rows;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        IF (SELECT count(*) FROM new_rows) > most THEN
            PERFORM log_bulk(coll, ARRAY(SELECT DISTINCT region FROM (
                (SELECT region, id, rev FROM new_rows EXCEPT SELECT region, id, rev FROM old_rows) UNION ALL
                (SELECT region, id, rev FROM old_rows EXCEPT SELECT region, id, rev FROM new_rows)) changed));
        ELSE
            INSERT INTO change_log (collection, region, row_id, operation, rev, actor, changed_at)
            SELECT coll, region, id, 'update', rev, change_actor(), change_time(updated_at)
            FROM new_rows n
            WHERE NOT EXISTS (SELECT FROM old_rows o WHERE (o.region, o.id, o.rev) = (n.region, n.id, n.rev));
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        IF (SELECT count(*) FROM old_rows) > most THEN
            PERFORM log_bulk(coll, ARRAY(SELECT DISTINCT region FROM old_rows));
        ELSE
            INSERT INTO change_log (collection, region, row_id, operation, rev, actor)
            SELECT coll, region, id, 'delete', nextval('rev_seq'), change_actor() FROM old_rows;
        END IF;
    ELSE
        PERFORM log_bulk(coll, CASE TG_ARGV[1] WHEN 'global' THEN ARRAY[0::smallint]
                                               ELSE ARRAY(SELECT number FROM regions WHERE is_local) END);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION log_documents IS 'AFTER INSERT, UPDATE, DELETE or TRUNCATE of documents: the change log';

CREATE OR REPLACE FUNCTION log_upgrade() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    here CONSTANT smallint[] := ARRAY(SELECT number FROM regions WHERE is_local);
BEGIN
    IF EXISTS (SELECT FROM schema_version OFFSET 1) THEN -- before the first entry nobody has read anything
        PERFORM log_bulk(number, CASE table_name WHEN 'course_categories' THEN ARRAY[0::smallint] ELSE here END)
        FROM collections;
        PERFORM log_bulk(credentials_number(), here);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION log_upgrade IS
    'AFTER INSERT of what init has applied: any document may look otherwise now, though no row has changed';
CREATE OR REPLACE TRIGGER log_upgrade AFTER INSERT ON schema_version
FOR EACH STATEMENT EXECUTE FUNCTION log_upgrade();

CREATE OR REPLACE FUNCTION check_claims(p_collection smallint, p_ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    claim id_claims;
BEGIN
    SELECT * INTO claim FROM id_claims WHERE collection = p_collection AND id = ANY (p_ids) LIMIT 1;
    IF FOUND THEN
        PERFORM refuse_taken('id', claim.id::text, format('a row of shard %s, which has claimed it', claim.shard));
    END IF;
END $$;
COMMENT ON FUNCTION check_claims IS 'Refuses to create rows whose ids live on another shard';

CREATE OR REPLACE FUNCTION log_departure() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO change_log (collection, region, row_id, operation, rev, actor)
    VALUES (TG_ARGV[0]::smallint, OLD.region, OLD.id, 'delete', nextval('rev_seq'), change_actor());
    RETURN NULL;
END $$;
COMMENT ON FUNCTION log_departure IS 'AFTER UPDATE of a row that left its region: gone from the old folder';

-- Parts of documents --------------------------------------------------------------------------------------------------
-- Each collects the documents whose parts changed, whatever the operation, and touches them once.

CREATE OR REPLACE FUNCTION touch_users(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM users WHERE id = ANY (p_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE users SET rev = -1 WHERE id = ANY (p_ids);
END $$;
COMMENT ON FUNCTION touch_users IS 'Moves the clocks of users whose profiles changed';

CREATE OR REPLACE FUNCTION touch_courses(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Locked first, in one order: no deadlock, and the sum below sees what others have committed.
    PERFORM FROM courses WHERE id = ANY (p_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE courses c SET rev = -1, duration_minutes = coalesce((
        SELECT sum(l.duration_minutes) FROM course_modules m JOIN course_lessons l ON l.module_id = m.id
        WHERE m.course_id = c.id), 0)
    WHERE c.id = ANY (p_ids);
END $$;
COMMENT ON FUNCTION touch_courses IS
    'Moves the clocks of courses whose modules or lessons changed, and sums up their durations';

CREATE OR REPLACE FUNCTION touch_enrollments(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM enrollments WHERE id = ANY (p_ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE enrollments e SET
        rev = -1,
        progress_percent = p.percent,
        status = CASE WHEN e.status = 'active' AND p.percent = 100 THEN 'completed' ELSE e.status END,
        completed_at = CASE WHEN e.status = 'active' AND p.percent = 100
                            THEN coalesce(e.completed_at, p.completed_at, clock_timestamp()) ELSE e.completed_at END
    FROM (SELECT id, progress_of(ARRAY(SELECT l FROM lesson_progress l WHERE l.enrollment_id = id)) AS percent,
                 (SELECT max(l.completed_at) FROM lesson_progress l WHERE l.enrollment_id = id) AS completed_at
          FROM unnest(p_ids) id) p
    WHERE e.id = p.id;
END $$;
COMMENT ON FUNCTION touch_enrollments IS
    'Moves the clocks of enrollments whose entries changed, and their progress; the last lesson completes an '
    'active one';

CREATE OR REPLACE FUNCTION progress_of(p_entries lesson_progress[]) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(round(100.0 * count(*) FILTER (WHERE status = 'completed') / nullif(count(*), 0), 2), 0)
        FROM unnest(p_entries));
COMMENT ON FUNCTION progress_of IS 'Share of completed entries in percent; 0 without any';

CREATE OR REPLACE FUNCTION profiles_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM touch_users(ARRAY(SELECT user_id FROM new_rows));
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM touch_users(ARRAY(SELECT user_id FROM old_rows));
    ELSIF TG_OP = 'UPDATE' THEN -- the region apart: a move has touched the user already
        PERFORM touch_users(ARRAY(SELECT DISTINCT user_id FROM (
            (SELECT user_id, to_jsonb(n) - 'region' FROM new_rows n EXCEPT
             SELECT user_id, to_jsonb(o) - 'region' FROM old_rows o) UNION ALL
            (SELECT user_id, to_jsonb(o) - 'region' FROM old_rows o EXCEPT
             SELECT user_id, to_jsonb(n) - 'region' FROM new_rows n)) changed));
    ELSE
        PERFORM touch_users(ARRAY(SELECT id FROM users));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION profiles_changed IS 'AFTER any change of user_profiles: their users'' documents moved';

CREATE OR REPLACE FUNCTION modules_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM touch_courses(ARRAY(SELECT DISTINCT course_id FROM new_rows));
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM touch_courses(ARRAY(SELECT DISTINCT course_id FROM old_rows));
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM touch_courses(ARRAY(SELECT DISTINCT course_id FROM (
            (SELECT * FROM new_rows EXCEPT SELECT * FROM old_rows) UNION ALL
            (SELECT * FROM old_rows EXCEPT SELECT * FROM new_rows)) changed));
    ELSE
        PERFORM touch_courses(ARRAY(SELECT id FROM courses));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION modules_changed IS 'AFTER any change of course_modules: their courses'' documents moved';

CREATE OR REPLACE FUNCTION lessons_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM touch_courses(ARRAY(SELECT DISTINCT course_id FROM course_modules
                                    WHERE id IN (SELECT module_id FROM new_rows)));
    ELSIF TG_OP = 'DELETE' THEN -- lessons that went with their module: modules_changed
        PERFORM touch_courses(ARRAY(SELECT DISTINCT course_id FROM course_modules
                                    WHERE id IN (SELECT module_id FROM old_rows)));
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM touch_courses(ARRAY(SELECT DISTINCT course_id FROM course_modules WHERE id IN (SELECT module_id FROM (
            (SELECT * FROM new_rows EXCEPT SELECT * FROM old_rows) UNION ALL
            (SELECT * FROM old_rows EXCEPT SELECT * FROM new_rows)) changed)));
    ELSE
        PERFORM touch_courses(ARRAY(SELECT id FROM courses));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION lessons_changed IS 'AFTER any change of course_lessons: their courses'' documents moved';

CREATE OR REPLACE FUNCTION progress_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM touch_enrollments(ARRAY(SELECT DISTINCT enrollment_id FROM new_rows));
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM touch_enrollments(ARRAY(SELECT DISTINCT enrollment_id FROM old_rows));
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM touch_enrollments(ARRAY(SELECT DISTINCT enrollment_id FROM (
            (SELECT * FROM new_rows EXCEPT SELECT * FROM old_rows) UNION ALL
            (SELECT * FROM old_rows EXCEPT SELECT * FROM new_rows)) changed));
    ELSE
        PERFORM touch_enrollments(ARRAY(SELECT id FROM enrollments));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION progress_changed IS
    'AFTER any change of lesson_progress: their enrollments'' documents and progress moved';

-- Counters of other documents -----------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION move_course_counters(p_ids bigint[], p_stars bigint[], p_ratings bigint[],
                                                p_enrollments bigint[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(p_ids) > 1 THEN -- one course needs no order
        PERFORM FROM courses WHERE id = ANY (p_ids) ORDER BY id FOR NO KEY UPDATE;
    END IF;
    UPDATE courses c SET rating_sum = c.rating_sum + coalesce(d.stars, 0),
                         rating_count = c.rating_count + coalesce(d.ratings, 0),
                         enrollment_count = c.enrollment_count + coalesce(d.enrollments, 0)
    FROM unnest(p_ids, p_stars, p_ratings, p_enrollments) AS d (id, stars, ratings, enrollments)
    WHERE c.id = d.id;
END $$;
COMMENT ON FUNCTION move_course_counters IS 'Adds to the derived counters of courses';

CREATE OR REPLACE FUNCTION reviews_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    ids bigint[];
    stars bigint[];
    ratings bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(d.course_id), array_agg(d.stars), array_agg(d.ratings) INTO ids, stars, ratings
        FROM (SELECT course_id, sum(rating) AS stars, count(*) AS ratings FROM new_rows GROUP BY course_id) d;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(d.course_id), array_agg(d.stars), array_agg(d.ratings) INTO ids, stars, ratings
        FROM (SELECT course_id, -sum(rating) AS stars, -count(*) AS ratings FROM old_rows GROUP BY course_id) d;
    ELSIF TG_OP = 'UPDATE' THEN
        SELECT array_agg(d.course_id), array_agg(d.stars), array_agg(d.ratings) INTO ids, stars, ratings
        FROM (SELECT course_id, sum(rating) AS stars, sum(n) AS ratings
              FROM (SELECT course_id, rating, 1 AS n FROM new_rows UNION ALL
                    SELECT course_id, -rating, -1 FROM old_rows) both_rows
              GROUP BY course_id HAVING sum(rating) <> 0 OR sum(n) <> 0) d;
    ELSE
        SELECT array_agg(id), array_agg(-rating_sum), array_agg(-rating_count) INTO ids, stars, ratings
        FROM courses WHERE rating_count > 0;
    END IF;
    IF ids IS NOT NULL THEN
        PERFORM move_course_counters(ids, stars, ratings, NULL);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION reviews_changed IS 'AFTER any change of course_reviews: the courses'' ratings';

CREATE OR REPLACE FUNCTION enrollments_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    ids bigint[];
    counts bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(d.course_id), array_agg(d.n) INTO ids, counts
        FROM (SELECT course_id, count(*) AS n FROM new_rows WHERE status <> 'cancelled' GROUP BY course_id) d;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(d.course_id), array_agg(d.n) INTO ids, counts
        FROM (SELECT course_id, -count(*) AS n FROM old_rows WHERE status <> 'cancelled' GROUP BY course_id) d;
    ELSIF TG_OP = 'UPDATE' THEN
        SELECT array_agg(d.course_id), array_agg(d.n) INTO ids, counts
        FROM (SELECT course_id, sum(n) AS n
              FROM (SELECT course_id, 1 AS n FROM new_rows WHERE status <> 'cancelled' UNION ALL
                    SELECT course_id, -1 FROM old_rows WHERE status <> 'cancelled') both_rows
              GROUP BY course_id HAVING sum(n) <> 0) d;
    ELSE
        SELECT array_agg(id), array_agg(-enrollment_count) INTO ids, counts FROM courses WHERE enrollment_count > 0;
    END IF;
    IF ids IS NOT NULL THEN
        PERFORM move_course_counters(ids, NULL, NULL, counts);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION enrollments_changed IS 'AFTER any change of enrollments: how many the courses have';

CREATE OR REPLACE FUNCTION default_method_chosen() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    UPDATE payment_methods SET is_default = false WHERE user_id = NEW.user_id AND is_default AND id <> NEW.id;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION default_method_chosen IS
    'BEFORE a payment method becomes the default: the user''s earlier one no longer is';

CREATE OR REPLACE FUNCTION categories_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    looped bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM new_rows WHERE parent_id IS NOT NULL) THEN
        RETURN NULL;
    END IF;
    -- Two moves at a time, each harmless, could close a circle together.
    LOCK TABLE course_categories IN SHARE ROW EXCLUSIVE MODE;
    WITH RECURSIVE above (start, id) AS (
        SELECT id, parent_id FROM new_rows WHERE parent_id IS NOT NULL
        UNION -- not ALL: ends in circles, too
        SELECT a.start, c.parent_id FROM above a JOIN course_categories c ON c.id = a.id WHERE c.parent_id IS NOT NULL)
    SELECT start INTO looped FROM above WHERE id = start LIMIT 1;
    IF FOUND THEN
        PERFORM refuse('22023', 'parent_id',
                       format('parent_id of category %s: the category would lie below itself', looped));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION categories_changed IS 'AFTER INSERT or UPDATE of course_categories: they stay a tree';

CREATE OR REPLACE FUNCTION region_renamed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    tab name;
BEGIN
    FOR tab IN SELECT table_name FROM collections LOOP
        EXECUTE format('UPDATE %I SET rev = rev + 1 WHERE region = $1', tab) USING NEW.number;
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION region_renamed IS
    'AFTER a region got another name: it is in all documents of the region, so they moved';

CREATE OR REPLACE TRIGGER region_renamed AFTER UPDATE ON regions FOR EACH ROW WHEN (OLD.name <> NEW.name)
    EXECUTE FUNCTION region_renamed();

-- Putting them on -----------------------------------------------------------------------------------------------------

CREATE OR REPLACE PROCEDURE install_changed_triggers(p_table name, p_function name, p_exempt text[])
LANGUAGE plpgsql AS $$
DECLARE
    op text;
BEGIN
    FOREACH op IN ARRAY ARRAY['insert', 'update', 'delete', 'truncate'] LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %I AFTER %s ON %I %s FOR EACH STATEMENT
             WHEN (current_setting(''campusfs.caller_keeps'', true) = ANY (%L) IS NOT TRUE) EXECUTE FUNCTION %I()',
            p_function || '_' || op, op, p_table,
            CASE op WHEN 'insert' THEN 'REFERENCING NEW TABLE AS new_rows'
                    WHEN 'update' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
                    WHEN 'delete' THEN 'REFERENCING OLD TABLE AS old_rows' ELSE '' END,
            p_exempt, p_function);
    END LOOP;
END $$;
COMMENT ON PROCEDURE install_changed_triggers IS
    'Has a statement-level trigger function called after every change of a table, unless the caller keeps '
    'what it would';

CREATE OR REPLACE PROCEDURE install_collection(p_number smallint, p_folder text, p_table name, p_noun text,
                                               p_derived text[] DEFAULT '{}', p_global boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
    clocks CONSTANT text[] := ARRAY['rev', 'updated_at', 'content_at'];
    content text; -- "(OLD.a, OLD.b) IS DISTINCT FROM (NEW.a, NEW.b)" over what people edit
    rest text;    -- the same over derived columns and clocks
BEGIN
    INSERT INTO collections (number, folder, table_name, noun) VALUES (p_number, p_folder, p_table, p_noun)
    ON CONFLICT (number) DO UPDATE
    SET folder = EXCLUDED.folder, table_name = EXCLUDED.table_name, noun = EXCLUDED.noun;
    DELETE FROM indexed_fields WHERE collection = p_number; -- index_field() declares them anew
    SELECT format('(%s) IS DISTINCT FROM (%s)', string_agg('OLD.' || quote_ident(attname), ', ' ORDER BY attnum),
                  string_agg('NEW.' || quote_ident(attname), ', ' ORDER BY attnum))
    INTO content FROM pg_attribute
    WHERE attrelid = p_table::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
        AND attname <> ALL (p_derived || clocks);
    SELECT format('(%s) IS DISTINCT FROM (%s)', string_agg('OLD.' || quote_ident(name), ', '),
                  string_agg('NEW.' || quote_ident(name), ', '))
    INTO rest FROM unnest(p_derived || clocks) name;

    EXECUTE format('ALTER TABLE %I ALTER COLUMN id SET DEFAULT next_id(%s::smallint)', p_table, p_number);
    CALL install_clock(p_table, content, rest);
    EXECUTE format('CREATE OR REPLACE TRIGGER log_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows
                    FOR EACH STATEMENT EXECUTE FUNCTION log_documents(%s)', p_table, p_number);
    EXECUTE format('CREATE OR REPLACE TRIGGER log_update AFTER UPDATE ON %I
                    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
                    FOR EACH STATEMENT EXECUTE FUNCTION log_documents(%s)', p_table, p_number);
    EXECUTE format('CREATE OR REPLACE TRIGGER log_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS old_rows
                    FOR EACH STATEMENT EXECUTE FUNCTION log_documents(%s)', p_table, p_number);
    EXECUTE format('CREATE OR REPLACE TRIGGER log_truncate AFTER TRUNCATE ON %I
                    FOR EACH STATEMENT EXECUTE FUNCTION log_documents(%s, %L)', p_table, p_number,
                   CASE WHEN p_global THEN 'global' ELSE 'regional' END);
    EXECUTE format('CREATE OR REPLACE TRIGGER log_departure AFTER UPDATE ON %I FOR EACH ROW
                    WHEN (OLD.region <> NEW.region) EXECUTE FUNCTION log_departure(%s)', p_table, p_number);
END $$;
COMMENT ON PROCEDURE install_collection IS
    'Registers a collection, whose table has id, region and the clocks, and puts clocks and change log on it';

CREATE OR REPLACE FUNCTION caller_keeps_parts() RETURNS text
LANGUAGE sql
RETURN set_config('campusfs.caller_keeps',
                  CASE current_setting('campusfs.caller_keeps', true) WHEN 'all' THEN 'all' ELSE 'parts' END, true);
COMMENT ON FUNCTION caller_keeps_parts IS 'A put function is about to write parts of its document';

CREATE OR REPLACE FUNCTION parts_kept() RETURNS text
LANGUAGE sql
RETURN set_config('campusfs.caller_keeps',
                  CASE current_setting('campusfs.caller_keeps', true) WHEN 'all' THEN 'all' ELSE '' END, true);
COMMENT ON FUNCTION parts_kept IS 'It has written them';
