-- Collection 2, courses: courses with their modules and lessons, the curriculum nested.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CALL install_collection(2::smallint, 'courses', 'courses', 'course',
                        ARRAY['duration_minutes', 'rating_sum', 'rating_count', 'enrollment_count']);
CALL install_changed_triggers('course_modules', 'modules_changed', ARRAY['parts', 'all']);
CALL install_changed_triggers('course_lessons', 'lessons_changed', ARRAY['parts', 'all']);
CALL index_field(2::smallint, 1::smallint, 'slug');
CALL index_field(2::smallint, 2::smallint, 'instructor_id');
CALL index_field(2::smallint, 3::smallint, 'category_id');
CALL index_field(2::smallint, 4::smallint, 'status', p_choices => ARRAY['draft', 'published', 'archived']);

CREATE OR REPLACE VIEW doc_courses AS
SELECT c.region, c.id, c.rev, epoch_us(c.updated_at) AS updated_us, epoch_us(c.content_at) AS content_us,
       row_to_json(d)::text AS body
FROM courses c
CROSS JOIN LATERAL (
    SELECT c.id, (SELECT name FROM regions WHERE number = c.region) AS region, c.instructor_id, c.category_id, c.title,
           c.slug, c.description, c.level, c.language, c.price, c.currency, c.status, c.duration_minutes,
           c.average_rating, c.rating_count, c.enrollment_count, moment_text(c.published_at) AS published_at,
           ARRAY(SELECT module FROM (
               SELECT m.id, m.title, m.description,
                      ARRAY(SELECT lesson FROM (
                          SELECT l.id, l.title, l.kind, l.duration_minutes, l.media, l.is_preview
                          FROM course_lessons l WHERE l.module_id = m.id ORDER BY l.position) lesson) AS lessons
               FROM course_modules m WHERE m.course_id = c.id ORDER BY m.position) module) AS modules,
           moment_text(c.created_at) AS created_at, moment_text(c.updated_at) AS updated_at) d;
COMMENT ON VIEW doc_courses IS 'Courses as documents';

CREATE OR REPLACE FUNCTION course_of(p_was courses, p_doc jsonb) RETURNS courses
LANGUAGE plpgsql AS $$
DECLARE
    c courses := p_was;
BEGIN
    c.instructor_id := field_id(p_doc, 'instructor_id', '', true);
    c.category_id := field_id(p_doc, 'category_id', '');
    c.title := field_text(p_doc, 'title', '', 200, true);
    c.slug := field_slug(p_doc);
    c.description := field_text(p_doc, 'description', '', 100000);
    c.level := field_choice(p_doc, 'level', '', ARRAY['beginner', 'intermediate', 'advanced'], 'beginner');
    c.language := field_language(p_doc, 'language', '', true, 'en');
    c.price := field_money(p_doc, 'price', '', 99999999.99, true, 0);
    c.currency := field_currency(p_doc, 'currency', '');
    c.status := field_choice(p_doc, 'status', '', ARRAY['draft', 'published', 'archived'], 'draft');
    c.published_at := field_moment(p_doc, 'published_at', '');
    RETURN c;
END $$;
COMMENT ON FUNCTION course_of IS
    'The course as the document wants it, its lists aside; what the document cannot say stays as it was';

CREATE OR REPLACE FUNCTION module_of(p_doc jsonb, p_prefix text, p_position bigint) RETURNS course_modules
LANGUAGE plpgsql AS $$
DECLARE
    m course_modules;
BEGIN
    PERFORM check_fields(p_doc, ARRAY['id', 'title', 'description', 'lessons'], p_prefix, 'a module');
    m.id := field_id(p_doc, 'id', p_prefix);
    m.position := p_position;
    m.title := field_text(p_doc, 'title', p_prefix, 200, true);
    m.description := field_text(p_doc, 'description', p_prefix, 10000);
    RETURN m;
END $$;
COMMENT ON FUNCTION module_of IS 'A module of a course''s document; its id is NULL when it has none';

CREATE OR REPLACE FUNCTION lesson_of(p_doc jsonb, p_prefix text, p_module bigint, p_position bigint)
RETURNS course_lessons LANGUAGE plpgsql AS $$
DECLARE
    l course_lessons;
BEGIN
    PERFORM check_fields(p_doc, ARRAY['id', 'title', 'kind', 'duration_minutes', 'media', 'is_preview'], p_prefix,
                         'a lesson');
    l.id := field_id(p_doc, 'id', p_prefix);
    l.module_id := p_module;
    l.position := p_position;
    l.title := field_text(p_doc, 'title', p_prefix, 200, true);
    l.kind := field_choice(p_doc, 'kind', p_prefix, ARRAY['video', 'document', 'quiz', 'assignment'], 'video');
    l.duration_minutes := field_integer(p_doc, 'duration_minutes', p_prefix, 0, 100000, true, 0);
    l.media := field_match(p_doc, 'media', p_prefix, 1000,
                           '^(?!(.*/)?\.\.?(/|$))[^/[:cntrl:]]+(/[^/[:cntrl:]]+)*$',
                           'a path inside the course''s media folder, such as intro/welcome.mp4');
    l.is_preview := field_flag(p_doc, 'is_preview', p_prefix, false);
    RETURN l;
END $$;
COMMENT ON FUNCTION lesson_of IS 'A lesson of a course''s document; its id is NULL when it has none';

CREATE OR REPLACE FUNCTION modules_of(p_doc jsonb, p_exists boolean) RETURNS course_modules[]
LANGUAGE sql
BEGIN ATOMIC
    SELECT coalesce(array_agg(module_of(e.doc, format('modules[%s].', e.n - 1), e.n) ORDER BY e.n), '{}')
    FROM jsonb_array_elements(field_list(p_doc, 'modules', '', p_exists)) WITH ORDINALITY e (doc, n);
END;
COMMENT ON FUNCTION modules_of IS 'The modules of a course''s document, in order';

CREATE OR REPLACE FUNCTION lessons_of(p_doc jsonb, p_exists boolean) RETURNS course_lessons[]
LANGUAGE sql
BEGIN ATOMIC
    SELECT coalesce(array_agg(lesson_of(l.doc, format('modules[%s].lessons[%s].', m.n - 1, l.n - 1), m.n, l.n)
                              ORDER BY m.n, l.n), '{}')
    FROM jsonb_array_elements(p_doc -> 'modules') WITH ORDINALITY m (doc, n),
         jsonb_array_elements(field_list(m.doc, 'lessons', format('modules[%s].', m.n - 1), p_exists))
             WITH ORDINALITY l (doc, n);
END;
COMMENT ON FUNCTION lessons_of IS
    'The lessons of all modules of a course''s document, in order; module_id is the place of the module';

CREATE OR REPLACE FUNCTION check_curriculum_ids(p_course bigint, p_modules course_modules[], p_lessons course_lessons[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    path text;
    child bigint;
    owner bigint;
BEGIN
    SELECT c.id, (array_agg(c.path ORDER BY c.path DESC))[1] INTO child, path FROM (
        SELECT 'module' AS kind, m.id, format('modules[%s].id', m.position - 1) AS path FROM unnest(p_modules) m
        UNION ALL
        SELECT 'lesson', l.id, format('modules[%s].lessons[%s].id', l.module_id - 1, l.position - 1)
        FROM unnest(p_lessons) l) c
    WHERE c.id IS NOT NULL GROUP BY c.kind, c.id HAVING count(*) > 1 ORDER BY c.kind DESC, c.id LIMIT 1;
    IF FOUND THEN
        PERFORM refuse('22023', path, format('%s is %s, which is in the document twice', path, child),
                       'To copy a module or a lesson leave out its id.');
    END IF;
    SELECT w.id, m.course_id, format('modules[%s].id', w.position - 1) INTO child, owner, path
    FROM unnest(p_modules) w JOIN course_modules m ON m.id = w.id WHERE m.course_id <> p_course LIMIT 1;
    IF NOT FOUND THEN
        SELECT w.id, m.course_id, format('modules[%s].lessons[%s].id', w.module_id - 1, w.position - 1)
        INTO child, owner, path
        FROM unnest(p_lessons) w JOIN course_lessons l ON l.id = w.id JOIN course_modules m ON m.id = l.module_id
        WHERE m.course_id <> p_course LIMIT 1;
    END IF;
    IF FOUND THEN
        PERFORM refuse('23505', path, format('%s is %s, which belongs to course %s', path, child, owner),
                       'To copy it leave out its id.');
    END IF;
END $$;
COMMENT ON FUNCTION check_curriculum_ids IS 'Refuses ids that are in the document twice, or in another course';

CREATE OR REPLACE FUNCTION modules_with_ids(p_course bigint, p_modules course_modules[]) RETURNS course_modules[]
LANGUAGE sql
BEGIN ATOMIC
    SELECT coalesce(array_agg(ROW(coalesce(w.id, same_id, next_child_id('course_modules')), p_course, w.position,
                                  w.title, w.description)::course_modules), '{}')
    FROM (SELECT w.*, m.id AS same_id
          FROM unnest(p_modules) w
          LEFT JOIN course_modules m ON w.id IS NULL AND m.course_id = p_course AND m.position = w.position
              AND (m.title, m.description) IS NOT DISTINCT FROM (w.title, w.description)
              AND m.id <> ALL (ARRAY(SELECT id FROM unnest(p_modules) WHERE id IS NOT NULL))
          ORDER BY w.position) w;
END;
COMMENT ON FUNCTION modules_with_ids IS
    'Gives ids to modules without: that of an equal one in the same place, else a fresh one';

CREATE OR REPLACE FUNCTION lessons_with_ids(p_modules course_modules[], p_lessons course_lessons[])
RETURNS course_lessons[] LANGUAGE sql
BEGIN ATOMIC
    SELECT coalesce(array_agg(ROW(coalesce(w.id, same_id, next_child_id('course_lessons')), p_modules[w.module_id].id,
                                  w.position, w.title, w.kind, w.duration_minutes, w.media,
                                  w.is_preview)::course_lessons), '{}')
    FROM (SELECT w.*, l.id AS same_id
          FROM unnest(p_lessons) w
          LEFT JOIN course_lessons l ON w.id IS NULL
              AND l.module_id = p_modules[w.module_id].id AND l.position = w.position
              AND (l.title, l.kind, l.duration_minutes, l.media, l.is_preview)
                  IS NOT DISTINCT FROM (w.title, w.kind, w.duration_minutes, w.media, w.is_preview)
              AND l.id <> ALL (ARRAY(SELECT id FROM unnest(p_lessons) WHERE id IS NOT NULL))
          ORDER BY w.module_id, w.position) w;
END;
COMMENT ON FUNCTION lessons_with_ids IS 'The same for lessons, whose modules have theirs';

CREATE OR REPLACE FUNCTION put_curriculum(p_course bigint, p_modules course_modules[], p_lessons course_lessons[])
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    was_modules CONSTANT course_modules[] := ARRAY(
        SELECT m FROM course_modules m WHERE m.course_id = p_course ORDER BY m.position);
    was_lessons CONSTANT course_lessons[] := ARRAY(
        SELECT l FROM course_modules m JOIN course_lessons l ON l.module_id = m.id WHERE m.course_id = p_course
        ORDER BY m.position, l.position);
    gone_modules bigint[];
    gone_lessons bigint[];
BEGIN
    PERFORM check_curriculum_ids(p_course, p_modules, p_lessons);
    p_modules := modules_with_ids(p_course, p_modules);
    p_lessons := lessons_with_ids(p_modules, p_lessons);
    IF p_modules = was_modules AND p_lessons = was_lessons THEN
        RETURN false;
    END IF;
    gone_modules := ARRAY(SELECT id FROM unnest(was_modules) EXCEPT SELECT id FROM unnest(p_modules));
    gone_lessons := ARRAY(SELECT id FROM unnest(was_lessons) EXCEPT SELECT id FROM unnest(p_lessons));
    IF gone_lessons <> '{}' THEN
        PERFORM check_lessons_unused(gone_lessons);
    END IF;

    PERFORM caller_keeps_parts();
    -- Places may clash until the last statement; then they are checked, before we return.
    SET CONSTRAINTS course_modules_position_key, course_lessons_position_key DEFERRED;
    UPDATE course_modules m SET position = w.position, title = w.title, description = w.description
    FROM unnest(p_modules) w WHERE m.id = w.id AND m IS DISTINCT FROM w;
    INSERT INTO course_modules SELECT w.* FROM unnest(p_modules) w
    WHERE w.id NOT IN (SELECT id FROM unnest(was_modules));
    UPDATE course_lessons l
    SET module_id = w.module_id, position = w.position, title = w.title, kind = w.kind,
        duration_minutes = w.duration_minutes, media = w.media, is_preview = w.is_preview
    FROM unnest(p_lessons) w WHERE l.id = w.id AND l IS DISTINCT FROM w;
    INSERT INTO course_lessons SELECT w.* FROM unnest(p_lessons) w
    WHERE w.id NOT IN (SELECT id FROM unnest(was_lessons));
    IF gone_lessons <> '{}' THEN
        DELETE FROM course_lessons WHERE id = ANY (gone_lessons);
    END IF;
    IF gone_modules <> '{}' THEN
        DELETE FROM course_modules WHERE id = ANY (gone_modules);
    END IF;
    SET CONSTRAINTS course_modules_position_key, course_lessons_position_key IMMEDIATE;
    PERFORM parts_kept();
    RETURN true;
END $$;
COMMENT ON FUNCTION put_curriculum IS
    'Modules and lessons of a document become those of the course, which is locked; whether they are others '
    'than before';

CREATE OR REPLACE FUNCTION check_lessons_unused(p_lessons bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    used text;
BEGIN
    SELECT format('lesson %s ("%s") has progress in %s', l.id, l.title, counted(count(*), 'enrollment')) INTO used
    FROM course_lessons l JOIN lesson_progress p ON p.lesson_id = l.id
    WHERE l.id = ANY (p_lessons) GROUP BY l.id ORDER BY l.id LIMIT 1;
    IF FOUND THEN
        PERFORM refuse('CF002', 'modules', used, 'Keep the lesson; it may move to another module.');
    END IF;
END $$;
COMMENT ON FUNCTION check_lessons_unused IS 'Refuses to remove lessons that enrollments have entries for';

CREATE OR REPLACE FUNCTION check_course_references(p_was courses, p_want courses) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    other courses;
BEGIN
    IF p_want.instructor_id IS DISTINCT FROM p_was.instructor_id THEN
        PERFORM check_user(p_want.region, p_want.instructor_id, 'instructor_id');
    END IF;
    IF p_want.category_id IS DISTINCT FROM p_was.category_id AND p_want.category_id IS NOT NULL THEN
        PERFORM check_category(p_want.category_id, 'category_id');
    END IF;
    IF p_want.slug IS DISTINCT FROM p_was.slug THEN
        SELECT * INTO other FROM courses WHERE slug = p_want.slug;
        IF FOUND THEN
            PERFORM refuse_taken('slug', p_want.slug, format('course %s of %s', other.id, region_name(other.region)));
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION check_course_references IS
    'Refuses references that lead nowhere, and a slug that another course has';

CREATE OR REPLACE FUNCTION put_courses(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz,
                                       p_base timestamptz, p_claimed boolean, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    computed CONSTANT text[] := ARRAY['duration_minutes', 'average_rating', 'rating_count', 'enrollment_count'];
    shown doc_courses;
    was courses;
    kept deleted_rows;
    want courses;
    want_modules course_modules[];
    want_lessons course_lessons[];
    changed boolean; -- the curriculum is, or may be, another one than before
    result text := 'unchanged';
BEGIN
    PERFORM check_document('course', p_region, p_id, p_doc,
                           ARRAY['id', 'region', 'instructor_id', 'category_id', 'title', 'slug', 'description',
                                 'level', 'language', 'price', 'currency', 'status', 'published_at', 'modules',
                                 'created_at', 'updated_at'] || computed, p_at);
    PERFORM note_actor(p_actor);
    SELECT * INTO shown FROM doc_courses d WHERE d.region = p_region AND d.id = p_id;
    IF FOUND AND same_document(shown.body, p_doc, ARRAY['created_at', 'updated_at'] || computed)
       AND (p_at IS NULL OR epoch_us(p_at) = shown.updated_us) THEN
        RETURN QUERY SELECT result, shown.id, shown.rev, shown.updated_us, shown.content_us, shown.body;
        RETURN;
    END IF;

    LOOP
        SELECT * INTO was FROM courses c WHERE c.region = p_region AND c.id = p_id FOR NO KEY UPDATE;
        want := course_of(was, p_doc);
        want.region := p_region;
        -- Most edits leave the curriculum alone: what is known to be there need not be judged again.
        changed := (was.rev = shown.rev AND shown.body::jsonb -> 'modules' = p_doc -> 'modules') IS NOT TRUE;
        IF changed THEN
            want_modules := modules_of(p_doc, was.id IS NOT NULL);
            want_lessons := lessons_of(p_doc, was.id IS NOT NULL);
            want.duration_minutes := (SELECT coalesce(sum(l.duration_minutes), 0) FROM unnest(want_lessons) l);
        END IF;
        EXIT WHEN was.id IS NOT NULL;
        want.id := new_id(2::smallint, p_id, p_claimed);
        want.updated_at := coalesce(p_at, clock_timestamp());
        kept := take_deleted(2::smallint, p_region, p_id);
        want.created_at := field_moment(p_doc, 'created_at', '', coalesce(kept.created_at, want.updated_at));
        PERFORM check_course_references(was, want);
        INSERT INTO courses (region, id, instructor_id, category_id, title, slug, description, level, language, price,
                             currency, status, duration_minutes, published_at, created_at, updated_at, content_at)
        VALUES (p_region, want.id, want.instructor_id, want.category_id, want.title, want.slug, want.description,
                want.level, want.language, want.price, want.currency, want.status, want.duration_minutes,
                want.published_at, want.created_at, want.updated_at, want.updated_at)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            result := 'created';
            PERFORM put_curriculum(want.id, want_modules, want_lessons);
            EXIT;
        END IF;
        PERFORM check_id_elsewhere(2::smallint, p_region, want.id);
    END LOOP;

    IF result <> 'created' THEN
        PERFORM check_conflict(format('course %s', p_id), was.content_at, p_doc, p_base);
        PERFORM check_course_references(was, want);
        IF changed THEN -- a statement of its own: the OR below may skip what it need not know
            changed := put_curriculum(p_id, want_modules, want_lessons);
        END IF;
        IF changed OR want IS DISTINCT FROM was OR p_at <> was.updated_at THEN
            UPDATE courses c
            SET instructor_id = want.instructor_id, category_id = want.category_id, title = want.title,
                slug = want.slug, description = want.description, level = want.level, language = want.language,
                price = want.price, currency = want.currency, status = want.status,
                duration_minutes = want.duration_minutes, published_at = want.published_at,
                updated_at = coalesce(p_at, was.updated_at), rev = CASE WHEN p_at IS NULL THEN -1 ELSE 0 END
            WHERE c.region = p_region AND c.id = p_id;
            result := 'updated';
        END IF;
    END IF;
    IF result <> 'unchanged' THEN
        PERFORM note_request(p_request);
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_courses d WHERE d.region = p_region AND d.id = want.id;
END $$;
COMMENT ON FUNCTION put_courses IS
    'A document becomes the course; p_base: the version it is based on, if later than its updated_at; p_at: '
    'the time to set';

CREATE OR REPLACE FUNCTION delete_courses(p_region smallint, p_id bigint, p_request uuid, p_actor text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM note_actor(p_actor);
    PERFORM FROM courses WHERE region = p_region AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    PERFORM refuse_referred(format('course %s', p_id),
        counted((SELECT count(*) FROM enrollments WHERE course_id = p_id), 'enrollment'),
        counted((SELECT count(*) FROM course_reviews WHERE course_id = p_id), 'review'),
        counted((SELECT count(*) FROM transactions WHERE course_id = p_id), 'transaction'));
    PERFORM keep_deleted(2::smallint, 'courses', to_jsonb(c), c.instructor_id,
                         (SELECT body FROM doc_courses WHERE region = p_region AND id = p_id),
                         jsonb_build_object(
                             'course_modules', ARRAY(SELECT to_jsonb(m) FROM course_modules m WHERE m.course_id = c.id),
                             'course_lessons', ARRAY(SELECT to_jsonb(l) FROM course_lessons l
                                                     WHERE l.module_id = ANY (ARRAY( -- not a join: by index, always
                                                         SELECT m.id FROM course_modules m
                                                         WHERE m.course_id = c.id)))))
    FROM courses c WHERE c.region = p_region AND c.id = p_id;
    DELETE FROM courses WHERE region = p_region AND id = p_id;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION delete_courses IS 'Deletes a course that nothing refers to, with its modules and lessons';

CREATE OR REPLACE FUNCTION undelete_courses(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    kept deleted_rows := find_deleted(2::smallint, p_region, p_id);
    want courses := jsonb_populate_record(NULL::courses, kept.parts -> 'courses' -> 0);
BEGIN
    IF kept.id IS NULL THEN
        RETURN;
    END IF;
    PERFORM note_actor(p_actor);
    PERFORM check_course_references(NULL, want);
    PERFORM check_curriculum_ids(p_id, modules_of(kept.body::jsonb, true), lessons_of(kept.body::jsonb, true));
    PERFORM restore_parts(kept, 'courses', 'course_modules', 'course_lessons');
    PERFORM take_deleted(2::smallint, p_region, p_id);
    PERFORM note_request(p_request);
    RETURN QUERY SELECT 'created', d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_courses d WHERE d.region = p_region AND d.id = p_id;
END $$;
COMMENT ON FUNCTION undelete_courses IS
    'Takes a course deleted within the last day back, as it was, times and ids included; no row when there is none';
