-- Collection 3, enrollments: who takes which course, with the progress in its lessons.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CALL install_collection(3::smallint, 'enrollments', 'enrollments', 'enrollment', ARRAY['progress_percent']);
CALL install_changed_triggers('enrollments', 'enrollments_changed', ARRAY['all']);
CALL install_changed_triggers('lesson_progress', 'progress_changed', ARRAY['parts', 'all']);
CALL index_field(3::smallint, 1::smallint, 'user_id');
CALL index_field(3::smallint, 2::smallint, 'course_id');
CALL index_field(3::smallint, 3::smallint, 'status', p_choices => ARRAY['active', 'completed', 'cancelled']);

CREATE OR REPLACE VIEW doc_enrollments AS
SELECT e.region, e.id, e.rev, epoch_us(e.updated_at) AS updated_us, epoch_us(e.content_at) AS content_us,
       row_to_json(d)::text AS body
FROM enrollments e
CROSS JOIN LATERAL (
    SELECT e.id, (SELECT name FROM regions WHERE number = e.region) AS region, e.user_id, e.course_id, e.status,
           e.progress_percent, moment_text(e.enrolled_at) AS enrolled_at, moment_text(e.completed_at) AS completed_at,
           ARRAY(SELECT lesson FROM (
               SELECT p.lesson_id, p.status, p.position_seconds, moment_text(p.completed_at) AS completed_at
               FROM lesson_progress p WHERE p.enrollment_id = e.id ORDER BY p.lesson_id) lesson) AS lessons,
           moment_text(e.created_at) AS created_at, moment_text(e.updated_at) AS updated_at) d;
COMMENT ON VIEW doc_enrollments IS 'Enrollments as documents';

CREATE OR REPLACE FUNCTION enrollment_of(p_was enrollments, p_doc jsonb) RETURNS enrollments
LANGUAGE plpgsql AS $$
DECLARE
    e enrollments := p_was;
BEGIN
    e.user_id := field_id(p_doc, 'user_id', '', true);
    e.course_id := field_id(p_doc, 'course_id', '', true);
    e.status := field_choice(p_doc, 'status', '', ARRAY['active', 'completed', 'cancelled'], 'active');
    e.enrolled_at := field_moment(p_doc, 'enrolled_at', '', coalesce(e.enrolled_at, clock_timestamp()));
    e.completed_at := field_moment(p_doc, 'completed_at', '');
    RETURN e;
END $$;
COMMENT ON FUNCTION enrollment_of IS
    'The enrollment as the document wants it, its lessons aside; what the document cannot say stays as it was';

CREATE OR REPLACE FUNCTION entry_of(p_doc jsonb, p_prefix text) RETURNS lesson_progress
LANGUAGE plpgsql AS $$
DECLARE
    p lesson_progress;
BEGIN
    PERFORM check_fields(p_doc, ARRAY['lesson_id', 'status', 'position_seconds', 'completed_at'], p_prefix,
                         'a lesson''s progress');
    p.lesson_id := field_id(p_doc, 'lesson_id', p_prefix, true);
    p.status := field_choice(p_doc, 'status', p_prefix, ARRAY['not_started', 'in_progress', 'completed'],
                             'not_started');
    p.position_seconds := field_integer(p_doc, 'position_seconds', p_prefix, 0, 2147483647, true, 0);
    p.completed_at := field_moment(p_doc, 'completed_at', p_prefix);
    RETURN p;
END $$;
COMMENT ON FUNCTION entry_of IS 'The progress in one lesson, of an enrollment''s document';

CREATE OR REPLACE FUNCTION entries_of(p_doc jsonb, p_exists boolean) RETURNS lesson_progress[]
LANGUAGE sql
BEGIN ATOMIC
    SELECT CASE WHEN field_list(p_doc, 'lessons', '', p_exists) IS NOT NULL THEN coalesce((
        SELECT array_agg(entry_of(e.doc, format('lessons[%s].', e.n - 1)) ORDER BY e.n)
        FROM jsonb_array_elements(p_doc -> 'lessons') WITH ORDINALITY e (doc, n)), '{}') END;
END;
COMMENT ON FUNCTION entries_of IS
    'The entries of an enrollment''s document, in its order; NULL when it has no list';

CREATE OR REPLACE FUNCTION fresh_entries(p_course bigint) RETURNS lesson_progress[]
LANGUAGE sql
BEGIN ATOMIC
    SELECT coalesce(array_agg(ROW(NULL, l.id, 'not_started', 0, NULL)::lesson_progress ORDER BY l.id), '{}')
    FROM course_modules m JOIN course_lessons l ON l.module_id = m.id WHERE m.course_id = p_course;
END;
COMMENT ON FUNCTION fresh_entries IS 'An entry for every lesson that the course has now';

CREATE OR REPLACE FUNCTION check_entries(p_course bigint, p_entries lesson_progress[], p_known bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    place int;
    lesson bigint;
    course bigint;
BEGIN
    SELECT max(e.n) - 1, e.lesson_id INTO place, lesson
    FROM unnest(p_entries) WITH ORDINALITY e (enrollment_id, lesson_id, status, position_seconds, completed_at, n)
    GROUP BY e.lesson_id HAVING count(*) > 1 LIMIT 1;
    IF FOUND THEN
        PERFORM refuse('22023', format('lessons[%s].lesson_id', place),
                       format('lessons[%s].lesson_id is %s, which is in the document twice', place, lesson));
    END IF;
    SELECT e.n - 1, e.lesson_id, m.course_id INTO place, lesson, course
    FROM unnest(p_entries) WITH ORDINALITY e (enrollment_id, lesson_id, status, position_seconds, completed_at, n)
    LEFT JOIN course_lessons l ON l.id = e.lesson_id LEFT JOIN course_modules m ON m.id = l.module_id
    WHERE e.lesson_id <> ALL (p_known) AND m.course_id IS DISTINCT FROM p_course ORDER BY e.n LIMIT 1;
    IF FOUND THEN
        PERFORM refuse('CF001', format('lessons[%s].lesson_id', place),
                       format('lessons[%s].lesson_id is %s: ', place, lesson) ||
                       CASE WHEN course IS NULL THEN 'there is no such lesson'
                            ELSE format('that lesson belongs to course %s, not to %s', course, p_course) END);
    END IF;
END $$;
COMMENT ON FUNCTION check_entries IS
    'Refuses lessons that are in the document twice, and those of other courses unless the enrollment has '
    'them already';

CREATE OR REPLACE FUNCTION put_entries(p_enrollment bigint, p_course bigint, p_moved boolean,
                                       p_entries lesson_progress[])
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    was CONSTANT lesson_progress[] := ARRAY(
        SELECT p FROM lesson_progress p WHERE p.enrollment_id = p_enrollment ORDER BY p.lesson_id);
    want CONSTANT lesson_progress[] := ARRAY(
        SELECT ROW(p_enrollment, e.lesson_id, e.status, e.position_seconds, e.completed_at)::lesson_progress
        FROM unnest(p_entries) e ORDER BY e.lesson_id);
BEGIN
    IF was = want AND NOT p_moved THEN
        RETURN false;
    END IF;
    -- What it has already stays valid while it stays in its course, even if the lesson has moved on.
    PERFORM check_entries(p_course, p_entries,
                          CASE WHEN p_moved THEN '{}' ELSE ARRAY(SELECT lesson_id FROM unnest(was)) END);
    PERFORM caller_keeps_parts();
    UPDATE lesson_progress p
    SET status = w.status, position_seconds = w.position_seconds, completed_at = w.completed_at
    FROM unnest(want) w WHERE p.enrollment_id = p_enrollment AND p.lesson_id = w.lesson_id AND p IS DISTINCT FROM w;
    INSERT INTO lesson_progress SELECT w.* FROM unnest(want) w
    WHERE w.lesson_id NOT IN (SELECT lesson_id FROM unnest(was));
    DELETE FROM lesson_progress p WHERE p.enrollment_id = p_enrollment
        AND p.lesson_id = ANY (ARRAY(SELECT lesson_id FROM unnest(was) EXCEPT SELECT lesson_id FROM unnest(want)));
    PERFORM parts_kept();
    RETURN was <> want;
END $$;
COMMENT ON FUNCTION put_entries IS
    'Entries of a document become those of the enrollment, which is locked; whether they are others than '
    'before';

CREATE OR REPLACE FUNCTION check_enrollment_references(p_was enrollments, p_want enrollments) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    other bigint;
BEGIN
    IF p_want.course_id IS DISTINCT FROM p_was.course_id OR p_want.status IS DISTINCT FROM p_was.status THEN
        PERFORM check_course(p_want.course_id, 'course_id', true);
    END IF;
    IF p_want.user_id IS DISTINCT FROM p_was.user_id THEN
        PERFORM check_user(p_want.region, p_want.user_id, 'user_id');
    END IF;
    IF (p_want.user_id, p_want.course_id) IS DISTINCT FROM (p_was.user_id, p_was.course_id) THEN
        SELECT id INTO other FROM enrollments WHERE user_id = p_want.user_id AND course_id = p_want.course_id;
        IF FOUND THEN
            PERFORM refuse('23505', 'course_id', format('user %s is enrolled in course %s already: enrollment %s',
                                                        p_want.user_id, p_want.course_id, other));
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION check_enrollment_references IS
    'Refuses references that lead nowhere, and a second enrollment in one course';

CREATE OR REPLACE FUNCTION put_enrollments(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz,
                                           p_base timestamptz, p_claimed boolean, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    computed CONSTANT text[] := ARRAY['progress_percent'];
    shown doc_enrollments;
    was enrollments;
    kept deleted_rows;
    want enrollments;
    entries lesson_progress[];
    changed boolean;
    result text := 'unchanged';
BEGIN
    PERFORM check_document('enrollment', p_region, p_id, p_doc,
                           ARRAY['id', 'region', 'user_id', 'course_id', 'status', 'enrolled_at', 'completed_at',
                                 'lessons', 'created_at', 'updated_at'] || computed, p_at);
    PERFORM note_actor(p_actor);
    SELECT * INTO shown FROM doc_enrollments d WHERE d.region = p_region AND d.id = p_id;
    IF FOUND AND same_document(shown.body, p_doc, ARRAY['created_at', 'updated_at'] || computed)
       AND (p_at IS NULL OR epoch_us(p_at) = shown.updated_us) THEN
        RETURN QUERY SELECT result, shown.id, shown.rev, shown.updated_us, shown.content_us, shown.body;
        RETURN;
    END IF;

    LOOP
        SELECT * INTO was FROM enrollments e WHERE e.region = p_region AND e.id = p_id FOR NO KEY UPDATE;
        want := enrollment_of(was, p_doc);
        want.region := p_region;
        entries := entries_of(p_doc, was.id IS NOT NULL);
        EXIT WHEN was.id IS NOT NULL;
        want.id := new_id(3::smallint, p_id, p_claimed);
        want.updated_at := coalesce(p_at, clock_timestamp());
        kept := take_deleted(3::smallint, p_region, p_id);
        want.created_at := field_moment(p_doc, 'created_at', '', coalesce(kept.created_at, want.updated_at));
        PERFORM check_enrollment_references(was, want);
        entries := coalesce(entries, fresh_entries(want.course_id));
        INSERT INTO enrollments (region, id, user_id, course_id, status, progress_percent, enrolled_at, completed_at,
                                 created_at, updated_at, content_at)
        VALUES (p_region, want.id, want.user_id, want.course_id, want.status, progress_of(entries), want.enrolled_at,
                want.completed_at, want.created_at, want.updated_at, want.updated_at)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            result := 'created';
            PERFORM put_entries(want.id, want.course_id, true, entries);
            EXIT;
        END IF;
        PERFORM check_id_elsewhere(3::smallint, p_region, want.id);
    END LOOP;

    IF result <> 'created' THEN
        PERFORM check_conflict(format('enrollment %s', p_id), was.content_at, p_doc, p_base);
        PERFORM check_enrollment_references(was, want);
        -- A statement of its own: OR may skip what it need not know.
        changed := put_entries(p_id, want.course_id, want.course_id <> was.course_id, entries);
        IF changed OR want IS DISTINCT FROM was OR p_at <> was.updated_at THEN
            UPDATE enrollments e
            SET user_id = want.user_id, course_id = want.course_id, status = want.status,
                progress_percent = progress_of(entries), enrolled_at = want.enrolled_at,
                completed_at = want.completed_at,
                updated_at = coalesce(p_at, was.updated_at), rev = CASE WHEN p_at IS NULL THEN -1 ELSE 0 END
            WHERE e.region = p_region AND e.id = p_id;
            result := 'updated';
        END IF;
    END IF;
    IF result <> 'unchanged' THEN
        PERFORM note_request(p_request);
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_enrollments d WHERE d.region = p_region AND d.id = want.id;
END $$;
COMMENT ON FUNCTION put_enrollments IS
    'A document becomes the enrollment; p_base: the version it is based on, if later than its updated_at; '
    'p_at: the time to set';

CREATE OR REPLACE FUNCTION delete_enrollments(p_region smallint, p_id bigint, p_request uuid, p_actor text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM note_actor(p_actor);
    PERFORM FROM enrollments WHERE region = p_region AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    PERFORM keep_deleted(3::smallint, 'enrollments', to_jsonb(e), e.user_id,
                         (SELECT body FROM doc_enrollments WHERE region = p_region AND id = p_id),
                         jsonb_build_object('lesson_progress', ARRAY(
                             SELECT to_jsonb(p) FROM lesson_progress p WHERE p.enrollment_id = e.id)))
    FROM enrollments e WHERE e.region = p_region AND e.id = p_id;
    DELETE FROM enrollments WHERE region = p_region AND id = p_id;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION delete_enrollments IS 'Deletes an enrollment with its progress; nothing refers to enrollments';

CREATE OR REPLACE FUNCTION check_lessons_there(p_lessons bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    missing bigint;
BEGIN
    PERFORM FROM course_lessons WHERE id = ANY (p_lessons) ORDER BY id FOR KEY SHARE;
    missing := (SELECT min(id) FROM unnest(p_lessons) id WHERE id NOT IN (SELECT l.id FROM course_lessons l
                                                                          WHERE l.id = ANY (p_lessons)));
    IF missing IS NOT NULL THEN
        PERFORM refuse('CF001', 'lessons',
                       format('lessons has an entry for lesson %s, which is no longer there', missing),
                       'Create the enrollment anew, without that entry.');
    END IF;
END $$;
COMMENT ON FUNCTION check_lessons_there IS 'Refuses entries for lessons that a course has lost since';

CREATE OR REPLACE FUNCTION undelete_enrollments(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    kept deleted_rows := find_deleted(3::smallint, p_region, p_id);
    want enrollments := jsonb_populate_record(NULL::enrollments, kept.parts -> 'enrollments' -> 0);
BEGIN
    IF kept.id IS NULL THEN
        RETURN;
    END IF;
    PERFORM note_actor(p_actor);
    PERFORM check_enrollment_references(NULL, want);
    PERFORM check_lessons_there(ARRAY(SELECT (entry ->> 'lesson_id')::bigint
                                      FROM jsonb_array_elements(kept.parts -> 'lesson_progress') entry));
    PERFORM restore_parts(kept, 'enrollments', 'lesson_progress');
    PERFORM take_deleted(3::smallint, p_region, p_id);
    PERFORM note_request(p_request);
    RETURN QUERY SELECT 'created', d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_enrollments d WHERE d.region = p_region AND d.id = p_id;
END $$;
COMMENT ON FUNCTION undelete_enrollments IS
    'Takes an enrollment deleted within the last day back, as it was, times included; no row when there is none';
