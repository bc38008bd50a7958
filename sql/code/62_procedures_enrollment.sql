-- The procedures, learning: from enrollment to review. 60_procedures_users.sql says what all procedures keep to.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE OR REPLACE FUNCTION has_paid(p_user_id bigint, p_course_id bigint) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp
RETURN EXISTS (SELECT FROM transactions
                WHERE user_id = p_user_id AND course_id = p_course_id AND status = 'completed');
COMMENT ON FUNCTION has_paid(bigint, bigint) IS
'Part of the procedures: whether a completed payment, not refunded, is there.
p_user_id, p_course_id: who, for what.
Errors: none.';

CREATE OR REPLACE FUNCTION add_enrollment(p_user users, p_course courses) RETURNS bigint
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    earlier enrollments;
BEGIN
    SELECT * INTO earlier FROM enrollments WHERE user_id = p_user.id AND course_id = p_course.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN (SELECT id FROM put_enrollments(p_user.region, NULL, jsonb_build_object(
                    'user_id', p_user.id, 'course_id', p_course.id, 'status', 'active'),
                    NULL, NULL, false, NULL, NULL));
    ELSIF earlier.status <> 'cancelled' THEN
        PERFORM refuse('23505', 'course_id', format('user %s is enrolled in course %s already (enrollment %s, %s)',
                                                    p_user.id, p_course.id, earlier.id, earlier.status));
    END IF;
    UPDATE enrollments SET status = 'active', enrolled_at = clock_timestamp(), completed_at = NULL
     WHERE region = earlier.region AND id = earlier.id;
    INSERT INTO lesson_progress (enrollment_id, lesson_id)
    SELECT earlier.id, l.id FROM course_modules m JOIN course_lessons l ON l.module_id = m.id
     WHERE m.course_id = p_course.id
    ON CONFLICT DO NOTHING;
    RETURN earlier.id;
END $$;
COMMENT ON FUNCTION add_enrollment(users, courses) IS
'Part of the procedures: enrolls, or takes up an enrollment that was cancelled; returns its id.
p_user, p_course: both locked and judged by the caller.
Errors: 23505 enrolled already.';

CREATE OR REPLACE FUNCTION enrollable_course(p_course_id bigint, p_user_id bigint) RETURNS courses
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    course courses := locked_course(p_course_id);
BEGIN
    IF course.status <> 'published' THEN
        PERFORM refuse('CF005', 'status', format('course %s is %s', p_course_id,
                           CASE course.status WHEN 'draft' THEN 'a draft' ELSE course.status END),
                       'Only published courses take students; publish_course opens one.');
    ELSIF course.instructor_id = p_user_id THEN
        PERFORM refuse('CF005', 'user_id', format('user %s teaches course %s', p_user_id, p_course_id),
                       'Nobody is a student of their own course.');
    END IF;
    RETURN course;
END $$;
COMMENT ON FUNCTION enrollable_course(bigint, bigint) IS
'Part of the procedures: a course that takes this student, locked FOR NO KEY UPDATE.
p_course_id: the course. p_user_id: who wants to join.
Errors: CF001 no such course; CF005 a draft or archived, or the user''s own.';

CREATE OR REPLACE FUNCTION enroll_student(p_user_id bigint, p_course_id bigint, p_complimentary boolean DEFAULT false)
RETURNS bigint
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    student users := active_user(p_user_id, 'enroll');
    course  courses := enrollable_course(p_course_id, p_user_id);
BEGIN
    IF course.price > 0 AND p_complimentary IS NOT TRUE AND NOT has_paid(student.id, course.id) THEN
        PERFORM refuse('CF005', 'course_id', format('course %s costs %s %s, which user %s has not paid', p_course_id,
                                                    course.price, course.currency, p_user_id),
                       'process_payment takes the payment and enrolls; p_complimentary lets someone in for nothing.');
    END IF;
    RETURN add_enrollment(student, course);
END $$;
COMMENT ON FUNCTION enroll_student(bigint, bigint, boolean) IS
'Enrolls a user in a published course of any region of the shard, with an entry for every lesson there is now; returns
the enrollment''s id. A cancelled enrollment is taken up again, progress and all.
p_user_id: an active user who does not teach the course. p_course_id: free, or paid by a completed payment.
p_complimentary: true lets the user in without a payment.
Errors: CF001 no such user or course; CF005 the user is not active, the course is not published, not paid, or the
user''s own; 23505 enrolled already.';

CREATE OR REPLACE FUNCTION cancel_enrollment(p_enrollment_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    enrollment enrollments;
BEGIN
    SELECT * INTO enrollment FROM enrollments WHERE id = p_enrollment_id;
    IF NOT FOUND THEN
        PERFORM refuse_missing('enrollment', p_enrollment_id);
    END IF;
    PERFORM locked_course(enrollment.course_id);
    SELECT * INTO enrollment FROM enrollments WHERE id = p_enrollment_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('enrollment', p_enrollment_id);
    ELSIF enrollment.status <> 'active' THEN
        PERFORM refuse('CF005', 'status', format('enrollment %s is %s, not active', p_enrollment_id,
                                                 enrollment.status));
    END IF;
    UPDATE enrollments SET status = 'cancelled' WHERE region = enrollment.region AND id = enrollment.id;
END $$;
COMMENT ON FUNCTION cancel_enrollment(bigint) IS
'Ends an enrollment before the course is completed; its progress is kept. Money is another matter: refund_payment.
p_enrollment_id: an active enrollment.
Errors: CF001 no such enrollment; CF005 completed or cancelled.';

CREATE OR REPLACE FUNCTION record_lesson_progress(p_enrollment_id bigint, p_lesson_id bigint,
                                                  p_status text DEFAULT 'completed',
                                                  p_position_seconds int DEFAULT NULL) RETURNS numeric
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    enrollment enrollments;
    lesson     course_lessons;
    entry      lesson_progress;
BEGIN
    SELECT * INTO enrollment FROM enrollments WHERE id = p_enrollment_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('enrollment', p_enrollment_id);
    ELSIF enrollment.status = 'cancelled' THEN
        PERFORM refuse('CF005', 'status', format('enrollment %s is cancelled', p_enrollment_id),
                       'enroll_student takes it up again.');
    ELSIF p_status IS NULL OR p_status NOT IN ('in_progress', 'completed') THEN
        PERFORM refuse('22023', 'status', format('progress cannot be %s: must be in_progress or completed',
                                                 quote_nullable(left(p_status, 100))));
    ELSIF p_position_seconds < 0 THEN
        PERFORM refuse('22023', 'position_seconds', format('position_seconds is %s: must not be negative',
                                                           p_position_seconds));
    END IF;
    SELECT l.* INTO lesson FROM course_lessons l JOIN course_modules m ON m.id = l.module_id
     WHERE l.id = p_lesson_id AND m.course_id = enrollment.course_id FOR KEY SHARE OF l;
    IF NOT FOUND THEN
        PERFORM refuse('CF001', 'lesson_id', format('course %s has no lesson %s', enrollment.course_id,
                                                    coalesce(p_lesson_id::text, 'NULL')));
    END IF;
    SELECT * INTO entry FROM lesson_progress WHERE enrollment_id = enrollment.id AND lesson_id = lesson.id;
    IF NOT FOUND THEN -- a lesson that came into the course after the student
        INSERT INTO lesson_progress (enrollment_id, lesson_id, status, position_seconds, completed_at)
        VALUES (enrollment.id, lesson.id, p_status, coalesce(p_position_seconds, 0),
                CASE p_status WHEN 'completed' THEN clock_timestamp() END);
    ELSE -- who watches a completed lesson again has still completed it
        UPDATE lesson_progress p
           SET status = CASE entry.status WHEN 'completed' THEN entry.status ELSE p_status END,
               position_seconds = coalesce(p_position_seconds, entry.position_seconds),
               completed_at = CASE WHEN entry.status = 'completed' THEN entry.completed_at
                                   WHEN p_status = 'completed' THEN clock_timestamp() END
         WHERE p.enrollment_id = entry.enrollment_id AND p.lesson_id = entry.lesson_id;
    END IF;
    RETURN (SELECT e.progress_percent FROM enrollments e WHERE e.region = enrollment.region AND e.id = enrollment.id);
END $$;
COMMENT ON FUNCTION record_lesson_progress(bigint, bigint, text, int) IS
'Notes how far a student is in a lesson; returns the percentage of lessons completed. The last one completes the
enrollment. A completed lesson stays so; a lesson added to the course later joins the enrollment by this.
p_enrollment_id: an active or completed enrollment. p_lesson_id: a lesson of its course. p_status: in_progress or
completed. p_position_seconds: where the player stopped; NULL keeps what is noted.
Errors: CF001 no such enrollment, or no such lesson in its course; CF005 cancelled; 22023 another status, or a negative
position.';

CREATE OR REPLACE FUNCTION complete_course(p_enrollment_id bigint) RETURNS timestamptz
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    enrollment enrollments;
    entries    bigint;
    undone     bigint;
BEGIN
    SELECT * INTO enrollment FROM enrollments WHERE id = p_enrollment_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('enrollment', p_enrollment_id);
    ELSIF enrollment.status = 'cancelled' THEN
        PERFORM refuse('CF005', 'status', format('enrollment %s is cancelled', p_enrollment_id),
                       'enroll_student takes it up again.');
    ELSIF enrollment.status = 'completed' AND enrollment.completed_at IS NOT NULL THEN
        RETURN enrollment.completed_at;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE status <> 'completed') INTO entries, undone
      FROM lesson_progress WHERE enrollment_id = enrollment.id;
    IF entries = 0 OR undone > 0 THEN
        PERFORM refuse('CF005', 'lessons', CASE entries WHEN 0
                           THEN format('enrollment %s has no lessons to complete', p_enrollment_id)
                           ELSE format('%s of %s lessons of enrollment %s are not completed', undone, entries,
                                       p_enrollment_id) END,
                       'record_lesson_progress notes a lesson as completed.');
    END IF;
    UPDATE enrollments e SET status = 'completed', completed_at = coalesce(e.completed_at, clock_timestamp())
     WHERE e.region = enrollment.region AND e.id = enrollment.id
    RETURNING e.completed_at INTO enrollment.completed_at;
    RETURN enrollment.completed_at;
END $$;
COMMENT ON FUNCTION complete_course(bigint) IS
'Makes sure that an enrollment counts as completed; returns since when. The last lesson does the same by itself.
p_enrollment_id: an enrollment all of whose lessons are completed; one that is completed stays as it is.
Errors: CF001 no such enrollment; CF005 cancelled, without lessons, or some lesson is not completed.';

CREATE OR REPLACE FUNCTION submit_review(p_user_id bigint, p_course_id bigint, p_rating int, p_title text DEFAULT NULL,
                                         p_body text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    author users := active_user(p_user_id, 'write reviews');
    course courses := locked_course(p_course_id);
BEGIN
    IF NOT EXISTS (SELECT FROM enrollments WHERE user_id = author.id AND course_id = course.id
                    AND status <> 'cancelled') THEN
        PERFORM refuse('CF005', 'course_id', format('user %s is not enrolled in course %s', p_user_id, p_course_id),
                       'Reviews are by students of the course.');
    END IF;
    RETURN (SELECT r.id FROM put_reviews(author.region,
                (SELECT id FROM course_reviews WHERE user_id = author.id AND course_id = course.id),
                jsonb_build_object('user_id', author.id, 'course_id', course.id, 'rating', p_rating,
                                   'title', p_title, 'body', p_body), NULL, NULL, false, NULL, NULL) r);
END $$;
COMMENT ON FUNCTION submit_review(bigint, bigint, int, text, text) IS
'A student''s review of a course, the first or in place of the earlier one; returns its id. The rating follows.
p_user_id: an active user enrolled in the course, completed or not. p_course_id: the course. p_rating: 1 to 5 stars.
p_title, p_body: the text, may be NULL.
Errors: CF001 no such user or course; CF005 the user is not active or not enrolled; 22023 a wrong rating or text.';
