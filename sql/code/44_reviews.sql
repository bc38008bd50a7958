-- Collection 4, reviews: what students say of courses.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CALL install_collection(4::smallint, 'reviews', 'course_reviews', 'review');
CALL install_changed_triggers('course_reviews', 'reviews_changed', ARRAY['all']);
CALL index_field(4::smallint, 1::smallint, 'user_id');
CALL index_field(4::smallint, 2::smallint, 'course_id');

CREATE OR REPLACE VIEW doc_reviews AS
SELECT r.region, r.id, r.rev, epoch_us(r.updated_at) AS updated_us, epoch_us(r.content_at) AS content_us,
       row_to_json(d)::text AS body
FROM course_reviews r
CROSS JOIN LATERAL (
    SELECT r.id, (SELECT name FROM regions WHERE number = r.region) AS region, r.user_id, r.course_id, r.rating,
           r.title, r.body, moment_text(r.created_at) AS created_at, moment_text(r.updated_at) AS updated_at) d;
COMMENT ON VIEW doc_reviews IS 'Reviews as documents';

CREATE OR REPLACE FUNCTION review_of(p_was course_reviews, p_doc jsonb) RETURNS course_reviews
LANGUAGE plpgsql AS $$
DECLARE
    r course_reviews := p_was;
BEGIN
    r.user_id := field_id(p_doc, 'user_id', '', true);
    r.course_id := field_id(p_doc, 'course_id', '', true);
    r.rating := field_integer(p_doc, 'rating', '', 1, 5, true);
    r.title := field_text(p_doc, 'title', '', 200);
    r.body := field_text(p_doc, 'body', '', 20000);
    RETURN r;
END $$;
COMMENT ON FUNCTION review_of IS
    'The review as the document wants it; what the document cannot say stays as it was';

CREATE OR REPLACE FUNCTION check_review_references(p_was course_reviews, p_want course_reviews) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    other bigint;
BEGIN
    IF (p_want.course_id, p_want.rating) IS DISTINCT FROM (p_was.course_id, p_was.rating) THEN
        PERFORM check_course(p_want.course_id, 'course_id', true);
    END IF;
    IF p_want.user_id IS DISTINCT FROM p_was.user_id THEN
        PERFORM check_user(p_want.region, p_want.user_id, 'user_id');
    END IF;
    IF (p_want.user_id, p_want.course_id) IS DISTINCT FROM (p_was.user_id, p_was.course_id) THEN
        SELECT id INTO other FROM course_reviews WHERE user_id = p_want.user_id AND course_id = p_want.course_id;
        IF FOUND THEN
            PERFORM refuse('23505', 'course_id', format('user %s has reviewed course %s already: review %s',
                                                        p_want.user_id, p_want.course_id, other));
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION check_review_references IS
    'Refuses references that lead nowhere, and a second review of one course';

CREATE OR REPLACE FUNCTION put_reviews(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz,
                                       p_base timestamptz, p_claimed boolean, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    shown doc_reviews;
    was course_reviews;
    kept deleted_rows;
    want course_reviews;
    result text := 'unchanged';
BEGIN
    PERFORM check_document('review', p_region, p_id, p_doc,
                           ARRAY['id', 'region', 'user_id', 'course_id', 'rating', 'title', 'body', 'created_at',
                                 'updated_at'], p_at);
    PERFORM note_actor(p_actor);
    SELECT * INTO shown FROM doc_reviews d WHERE d.region = p_region AND d.id = p_id;
    IF FOUND AND same_document(shown.body, p_doc, ARRAY['created_at', 'updated_at'])
       AND (p_at IS NULL OR epoch_us(p_at) = shown.updated_us) THEN
        RETURN QUERY SELECT result, shown.id, shown.rev, shown.updated_us, shown.content_us, shown.body;
        RETURN;
    END IF;

    LOOP
        SELECT * INTO was FROM course_reviews r WHERE r.region = p_region AND r.id = p_id FOR NO KEY UPDATE;
        want := review_of(was, p_doc);
        want.region := p_region;
        EXIT WHEN was.id IS NOT NULL;
        want.id := new_id(4::smallint, p_id, p_claimed);
        want.updated_at := coalesce(p_at, clock_timestamp());
        kept := take_deleted(4::smallint, p_region, p_id);
        want.created_at := field_moment(p_doc, 'created_at', '', coalesce(kept.created_at, want.updated_at));
        PERFORM check_review_references(was, want);
        INSERT INTO course_reviews (region, id, user_id, course_id, rating, title, body, created_at, updated_at,
                                    content_at)
        VALUES (p_region, want.id, want.user_id, want.course_id, want.rating, want.title, want.body, want.created_at,
                want.updated_at, want.updated_at)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            result := 'created';
            EXIT;
        END IF;
        PERFORM check_id_elsewhere(4::smallint, p_region, want.id);
    END LOOP;

    IF result <> 'created' THEN
        PERFORM check_conflict(format('review %s', p_id), was.content_at, p_doc, p_base);
        PERFORM check_review_references(was, want);
        IF want IS DISTINCT FROM was OR p_at <> was.updated_at THEN
            UPDATE course_reviews r
            SET user_id = want.user_id, course_id = want.course_id, rating = want.rating, title = want.title,
                body = want.body,
                updated_at = coalesce(p_at, was.updated_at), rev = CASE WHEN p_at IS NULL THEN -1 ELSE 0 END
            WHERE r.region = p_region AND r.id = p_id;
            result := 'updated';
        END IF;
    END IF;
    IF result <> 'unchanged' THEN
        PERFORM note_request(p_request);
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_reviews d WHERE d.region = p_region AND d.id = want.id;
END $$;
COMMENT ON FUNCTION put_reviews IS
    'A document becomes the review; p_base: the version it is based on, if later than its updated_at; p_at: '
    'the time to set';

CREATE OR REPLACE FUNCTION delete_reviews(p_region smallint, p_id bigint, p_request uuid, p_actor text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM note_actor(p_actor);
    PERFORM FROM course_reviews WHERE region = p_region AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    PERFORM keep_deleted(4::smallint, 'course_reviews', to_jsonb(r), r.user_id,
                         (SELECT body FROM doc_reviews WHERE region = p_region AND id = p_id))
    FROM course_reviews r WHERE r.region = p_region AND r.id = p_id;
    DELETE FROM course_reviews WHERE region = p_region AND id = p_id;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION delete_reviews IS 'Deletes a review; nothing refers to reviews';

CREATE OR REPLACE FUNCTION undelete_reviews(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE sql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
    SELECT * FROM undelete_row(4::smallint, 'reviews', 'check_review_references', p_region, p_id, p_request, p_actor);
$$;
COMMENT ON FUNCTION undelete_reviews IS
    'Takes a review deleted within the last day back, as it was, times and ids included; no row when there is none';
