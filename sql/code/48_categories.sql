-- Collection 8, categories: subjects of courses, reference data without a region.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CALL install_collection(8::smallint, 'categories', 'course_categories', 'category', p_global => true);
CALL index_field(8::smallint, 1::smallint, 'slug');
CALL index_field(8::smallint, 2::smallint, 'parent_id');

CREATE OR REPLACE TRIGGER categories_changed_insert AFTER INSERT ON course_categories REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION categories_changed();
CREATE OR REPLACE TRIGGER categories_changed_update AFTER UPDATE ON course_categories REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION categories_changed();

CREATE OR REPLACE VIEW doc_categories AS
SELECT c.region, c.id, c.rev, epoch_us(c.updated_at) AS updated_us, epoch_us(c.content_at) AS content_us,
       row_to_json(d)::text AS body
FROM course_categories c
CROSS JOIN LATERAL (
    SELECT c.id, c.parent_id, c.name, c.slug, c.description, moment_text(c.created_at) AS created_at,
           moment_text(c.updated_at) AS updated_at) d;
COMMENT ON VIEW doc_categories IS 'Categories as documents';

CREATE OR REPLACE FUNCTION category_of(p_was course_categories, p_doc jsonb) RETURNS course_categories
LANGUAGE plpgsql AS $$
DECLARE
    c course_categories := p_was;
BEGIN
    c.parent_id := field_id(p_doc, 'parent_id', '');
    c.name := field_text(p_doc, 'name', '', 100, true);
    c.slug := field_slug(p_doc);
    c.description := field_text(p_doc, 'description', '', 10000);
    RETURN c;
END $$;
COMMENT ON FUNCTION category_of IS
    'The category as the document wants it; what the document cannot say stays as it was';

CREATE OR REPLACE FUNCTION check_category_references(p_was course_categories, p_want course_categories) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    other bigint;
BEGIN
    IF p_want.parent_id = p_want.id THEN
        PERFORM refuse('22023', 'parent_id', format('parent_id is %s, which is the category itself', p_want.id));
    ELSIF p_want.parent_id IS DISTINCT FROM p_was.parent_id AND p_want.parent_id IS NOT NULL THEN
        PERFORM check_category(p_want.parent_id, 'parent_id');
    END IF;
    IF p_want.slug IS DISTINCT FROM p_was.slug THEN
        SELECT id INTO other FROM course_categories WHERE slug = p_want.slug;
        IF FOUND THEN
            PERFORM refuse_taken('slug', p_want.slug, format('category %s', other));
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION check_category_references IS
    'Refuses a parent that does not exist, and a slug that another category has';

CREATE OR REPLACE FUNCTION put_categories(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz,
                                          p_base timestamptz, p_claimed boolean, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    shown doc_categories;
    was course_categories;
    kept deleted_rows;
    want course_categories;
    result text := 'unchanged';
BEGIN
    PERFORM check_document('category', p_region, p_id, p_doc,
                           ARRAY['id', 'parent_id', 'name', 'slug', 'description', 'created_at', 'updated_at'], p_at);
    PERFORM note_actor(p_actor);
    SELECT * INTO shown FROM doc_categories d WHERE d.region = p_region AND d.id = p_id;
    IF FOUND AND same_document(shown.body, p_doc, ARRAY['created_at', 'updated_at'])
       AND (p_at IS NULL OR epoch_us(p_at) = shown.updated_us) THEN
        RETURN QUERY SELECT result, shown.id, shown.rev, shown.updated_us, shown.content_us, shown.body;
        RETURN;
    END IF;

    LOOP
        SELECT * INTO was FROM course_categories c WHERE c.region = p_region AND c.id = p_id FOR NO KEY UPDATE;
        want := category_of(was, p_doc);
        want.region := p_region;
        EXIT WHEN was.id IS NOT NULL;
        want.id := new_id(8::smallint, p_id, p_claimed);
        want.updated_at := coalesce(p_at, clock_timestamp());
        kept := take_deleted(8::smallint, p_region, p_id);
        want.created_at := field_moment(p_doc, 'created_at', '', coalesce(kept.created_at, want.updated_at));
        PERFORM check_category_references(was, want);
        INSERT INTO course_categories (region, id, parent_id, name, slug, description, created_at, updated_at,
                                       content_at)
        VALUES (p_region, want.id, want.parent_id, want.name, want.slug, want.description, want.created_at,
                want.updated_at, want.updated_at)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            result := 'created';
            EXIT;
        END IF;
        PERFORM check_id_elsewhere(8::smallint, p_region, want.id);
    END LOOP;

    IF result <> 'created' THEN
        PERFORM check_conflict(format('category %s', p_id), was.content_at, p_doc, p_base);
        PERFORM check_category_references(was, want);
        IF want IS DISTINCT FROM was OR p_at <> was.updated_at THEN
            UPDATE course_categories c
            SET parent_id = want.parent_id, name = want.name, slug = want.slug, description = want.description,
                updated_at = coalesce(p_at, was.updated_at), rev = CASE WHEN p_at IS NULL THEN -1 ELSE 0 END
            WHERE c.region = p_region AND c.id = p_id;
            result := 'updated';
        END IF;
    END IF;
    IF result <> 'unchanged' THEN
        PERFORM note_request(p_request);
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_categories d WHERE d.region = p_region AND d.id = want.id;
END $$;
COMMENT ON FUNCTION put_categories IS
    'A document becomes the category; p_base: the version it is based on, if later than its updated_at; p_at: '
    'the time to set';

CREATE OR REPLACE FUNCTION delete_categories(p_region smallint, p_id bigint, p_request uuid, p_actor text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM note_actor(p_actor);
    PERFORM FROM course_categories WHERE region = p_region AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    PERFORM refuse_referred(format('category %s', p_id),
        counted((SELECT count(*) FROM courses WHERE category_id = p_id), 'course'),
        counted((SELECT count(*) FROM course_categories WHERE parent_id = p_id), 'narrower category'));
    PERFORM keep_deleted(8::smallint, 'course_categories', to_jsonb(c), NULL,
                         (SELECT body FROM doc_categories WHERE region = p_region AND id = p_id))
    FROM course_categories c WHERE c.region = p_region AND c.id = p_id;
    DELETE FROM course_categories WHERE region = p_region AND id = p_id;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION delete_categories IS 'Deletes a category that has neither courses nor narrower ones';

CREATE OR REPLACE FUNCTION undelete_categories(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE sql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
    SELECT * FROM undelete_row(8::smallint, 'categories', 'check_category_references', p_region, p_id, p_request, p_actor);
$$;
COMMENT ON FUNCTION undelete_categories IS
    'Takes a category deleted within the last day back, as it was, times and ids included; no row when there is none';
