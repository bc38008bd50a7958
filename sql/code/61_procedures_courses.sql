-- The procedures, courses: from the draft to the archive. 60_procedures_users.sql says what all procedures keep to.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

-- What they share -----------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION currency_decimals(p_currency text) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN CASE WHEN p_currency IN ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'VND',
                                'VUV', 'XAF', 'XOF', 'XPF') THEN 0 ELSE 2 END;
COMMENT ON FUNCTION currency_decimals(text) IS
'Part of the procedures: how many decimals the amounts of a currency have: 0 for those of ISO 4217 without a minor unit,
else 2, which is what the columns keep.
p_currency: its code.
Errors: none.';

CREATE OR REPLACE FUNCTION check_amount(p_amount numeric, p_currency text, p_path text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    IF p_amount IS NULL OR p_currency IS NULL THEN
        PERFORM refuse('22023', p_path, format('%s and its currency must not be NULL', p_path));
    ELSIF p_amount < 0 OR p_amount = 'NaN' THEN
        PERFORM refuse('22023', p_path, format('%s is %s: must not be negative', p_path, p_amount));
    ELSIF p_amount <> round(p_amount, currency_decimals(p_currency)) THEN
        PERFORM refuse('22023', p_path, format('%s is %s %s: amounts of this currency have %s', p_path, p_amount,
                           left(p_currency, 10),
                           coalesce(counted(currency_decimals(p_currency), 'decimal'), 'no decimals')),
                       'More would be rounded.');
    END IF;
END $$;
COMMENT ON FUNCTION check_amount(numeric, text, text) IS
'Part of the procedures: refuses amounts that cannot be paid in their currency, such as half a yen.
p_amount, p_currency: what is asked for. p_path: the field, for the message.
Errors: 22023 negative, missing, or with too many decimals.';

CREATE OR REPLACE FUNCTION locked_course(p_course_id bigint) RETURNS courses
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    course courses;
BEGIN
    SELECT * INTO course FROM courses WHERE id = p_course_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('course', p_course_id);
    END IF;
    RETURN course;
END $$;
COMMENT ON FUNCTION locked_course(bigint) IS
'Part of the procedures: a course, locked FOR NO KEY UPDATE: who changes it, or what it counts, comes one after another.
p_course_id: the course.
Errors: CF001 no such course.';

CREATE OR REPLACE FUNCTION active_teacher(p_user_id bigint) RETURNS users
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    account users := active_user(p_user_id, 'teach');
BEGIN
    IF account.role NOT IN ('instructor', 'admin') THEN
        PERFORM refuse('CF005', 'instructor_id', format('user %s is a %s and cannot teach', p_user_id, account.role),
                       'Courses belong to instructors and admins.');
    END IF;
    RETURN account;
END $$;
COMMENT ON FUNCTION active_teacher(bigint) IS
'Part of the procedures: an account that may teach, locked FOR SHARE.
p_user_id: the user.
Errors: CF001 no such user; CF005 suspended or deleted, or a student.';

CREATE OR REPLACE FUNCTION free_slug(p_title text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    -- Letters lose their accents; what has no Latin form (a title in Hindi, say) leaves nothing.
    letters   text := lower(regexp_replace(normalize(p_title, NFKD), '[\u0300-\u036f]', '', 'g'));
    stem      text := btrim(left(btrim(regexp_replace(letters, '[^a-z0-9]+', '-', 'g'), '-'), 180), '-');
    candidate text;
BEGIN
    stem := coalesce(nullif(stem, ''), 'course');
    candidate := stem;
    FOR attempt IN 2..50 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM courses WHERE slug = candidate);
        candidate := stem || '-' || attempt;
    END LOOP;
    IF EXISTS (SELECT FROM courses WHERE slug = candidate) THEN
        candidate := stem || '-' || left(replace(gen_random_uuid()::text, '-', ''), 12);
    END IF;
    RETURN candidate;
END $$;
COMMENT ON FUNCTION free_slug(text) IS
'Part of the procedures: a slug made of a title that no course has now.
p_title: the title, in any script.
Errors: none.';

-- Courses -------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION create_course(p_instructor_id bigint, p_title text, p_price numeric DEFAULT 0,
                                         p_currency text DEFAULT 'USD', p_category_id bigint DEFAULT NULL,
                                         p_level text DEFAULT 'beginner', p_language text DEFAULT 'en',
                                         p_slug text DEFAULT NULL, p_description text DEFAULT NULL,
                                         p_modules jsonb DEFAULT '[]') RETURNS bigint
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    teacher users := active_teacher(p_instructor_id);
BEGIN
    PERFORM check_amount(p_price, p_currency, 'price');
    RETURN (SELECT id FROM put_courses(teacher.region, NULL, jsonb_build_object(
                'instructor_id', teacher.id, 'category_id', p_category_id, 'title', btrim(p_title),
                'slug', coalesce(p_slug, free_slug(p_title)), 'description', p_description, 'level', p_level,
                'language', p_language, 'price', p_price, 'currency', p_currency, 'status', 'draft',
                'modules', coalesce(p_modules, '[]')), NULL, NULL, false, NULL, NULL));
END $$;
COMMENT ON FUNCTION create_course(bigint, text, numeric, text, bigint, text, text, text, text, jsonb) IS
'Begins a course, a draft in its instructor''s region; returns the id.
p_instructor_id: an active instructor or admin. p_title: up to 200 characters. p_price, p_currency: 0 for a free course;
a price has the decimals of its currency. p_category_id: subject. p_level: beginner, intermediate or advanced.
p_language: BCP 47. p_slug: name in addresses, unique on the shard; NULL makes one of the title. p_description: text.
p_modules: the curriculum as in the course''s document, without ids.
Errors: CF001 no such instructor or category; CF005 the user may not teach; 22023 a wrong value; 23505 slug taken.';

CREATE OR REPLACE FUNCTION publish_course(p_course_id bigint) RETURNS timestamptz
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    teacher bigint := (SELECT instructor_id FROM courses WHERE id = p_course_id);
    course  courses;
    bare    text;
BEGIN
    IF teacher IS NOT NULL THEN
        PERFORM active_teacher(teacher);
    END IF;
    course := locked_course(p_course_id);
    IF course.status = 'published' THEN
        PERFORM refuse('CF005', 'status', format('course %s is published already', p_course_id));
    ELSIF NOT EXISTS (SELECT FROM course_modules m JOIN course_lessons l ON l.module_id = m.id
                       WHERE m.course_id = course.id) THEN
        PERFORM refuse('CF005', 'modules', format('course %s has no lessons', p_course_id),
                       'A course needs at least one lesson to be published.');
    END IF;
    SELECT m.title INTO bare FROM course_modules m
     WHERE m.course_id = course.id AND NOT EXISTS (SELECT FROM course_lessons l WHERE l.module_id = m.id)
     ORDER BY m.position LIMIT 1;
    IF FOUND THEN
        PERFORM refuse('CF005', 'modules', format('module "%s" of course %s has no lessons', bare, p_course_id),
                       'Fill it or take it out, then publish.');
    END IF;
    PERFORM check_amount(course.price, course.currency, 'price');
    UPDATE courses c SET status = 'published', published_at = coalesce(c.published_at, clock_timestamp())
     WHERE c.region = course.region AND c.id = course.id
    RETURNING c.published_at INTO course.published_at;
    RETURN course.published_at;
END $$;
COMMENT ON FUNCTION publish_course(bigint) IS
'Opens a draft, or an archived course again, for enrollment; returns when it first became public.
p_course_id: a course with at least one lesson, none of its modules empty.
Errors: CF001 no such course; CF005 published already, without lessons, or its instructor may not teach now;
22023 its price has decimals that its currency does not have.';

CREATE OR REPLACE FUNCTION archive_course(p_course_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    course courses := locked_course(p_course_id);
BEGIN
    IF course.status = 'archived' THEN
        PERFORM refuse('CF005', 'status', format('course %s is archived already', p_course_id));
    END IF;
    UPDATE courses SET status = 'archived' WHERE region = course.region AND id = course.id;
END $$;
COMMENT ON FUNCTION archive_course(bigint) IS
'Closes a course to new students; those who are enrolled go on and may finish. publish_course opens it again.
p_course_id: a draft or published course.
Errors: CF001 no such course; CF005 archived already.';

CREATE OR REPLACE FUNCTION reorder_modules(p_course_id bigint, p_module_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    course  courses := locked_course(p_course_id);
    present bigint[] := ARRAY(SELECT id FROM course_modules WHERE course_id = course.id ORDER BY id);
BEGIN
    IF ARRAY(SELECT id FROM unnest(p_module_ids) id ORDER BY id) <> present THEN
        PERFORM refuse('22023', 'modules', format('the list must name each module of course %s once', p_course_id),
                       format('They are {%s}.', array_to_string(present, ',')));
    END IF;
    UPDATE course_modules m SET position = wanted.position
      FROM unnest(p_module_ids) WITH ORDINALITY AS wanted (id, position)
     WHERE m.id = wanted.id AND m.position <> wanted.position;
END $$;
COMMENT ON FUNCTION reorder_modules(bigint, bigint[]) IS
'Puts the modules of a course into another order; the order they have already changes nothing.
p_course_id: the course. p_module_ids: all of its modules, first to last.
Errors: CF001 no such course; 22023 a module is missing from the list, twice in it, or another course''s.';

CREATE OR REPLACE FUNCTION duplicate_course(p_course_id bigint, p_title text DEFAULT NULL,
                                            p_instructor_id bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    original courses;
    teacher  users;
    title    text;
    document jsonb;
BEGIN
    SELECT * INTO original FROM courses WHERE id = p_course_id;
    IF NOT FOUND THEN
        PERFORM refuse_missing('course', p_course_id);
    END IF;
    teacher := active_teacher(coalesce(p_instructor_id, original.instructor_id));
    title := coalesce(btrim(p_title), left(original.title, 193) || ' (copy)');
    -- The document is one snapshot of the course, whoever edits it meanwhile.
    SELECT d.body::jsonb INTO document FROM doc_courses d WHERE d.region = original.region AND d.id = original.id;
    RETURN (SELECT id FROM put_courses(teacher.region, NULL,
                (document - ARRAY['id', 'region', 'published_at', 'created_at', 'updated_at'])
                || jsonb_build_object(
                    'instructor_id', teacher.id, 'title', title, 'slug', free_slug(title), 'status', 'draft',
                    'modules', (SELECT coalesce(jsonb_agg((m.module - 'id') || jsonb_build_object('lessons',
                                           (SELECT coalesce(jsonb_agg(l.lesson - 'id' ORDER BY l.place), '[]')
                                              FROM jsonb_array_elements(m.module -> 'lessons')
                                                   WITH ORDINALITY AS l (lesson, place))) ORDER BY m.place), '[]')
                                  FROM jsonb_array_elements(document -> 'modules')
                                       WITH ORDINALITY AS m (module, place))),
                NULL, NULL, false, NULL, NULL));
END $$;
COMMENT ON FUNCTION duplicate_course(bigint, text, bigint) IS
'Copies a course with its modules and lessons into a new draft, without students, reviews and ratings; returns its id.
Lessons keep the paths of their media, whose files are copied apart (cp -a media/<old> media/<new>).
p_course_id: what to copy, in any state. p_title: the copy''s title; NULL adds "(copy)". p_instructor_id: whose the copy
is, in whose region it lies; NULL: who teaches the original.
Errors: CF001 no such course or user; CF005 the user may not teach; 22023 a title too long.';
