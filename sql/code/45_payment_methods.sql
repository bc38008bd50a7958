-- Collection 5, payment-methods: stored ways to pay. A card number never gets in, in whatever field it is written.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CALL install_collection(5::smallint, 'payment-methods', 'payment_methods', 'payment method');
CALL index_field(5::smallint, 1::smallint, 'user_id');
CALL index_field(5::smallint, 2::smallint, 'token');
CALL index_field(5::smallint, 3::smallint, 'expires_on');

-- Row by row and before, unlike the others: the unique index on defaults allows no second one, not for a moment.
CREATE OR REPLACE TRIGGER default_method_chosen BEFORE INSERT OR UPDATE ON payment_methods FOR EACH ROW
    WHEN (NEW.is_default AND current_setting('campusfs.caller_keeps', true) IS DISTINCT FROM 'all')
    EXECUTE FUNCTION default_method_chosen();

CREATE OR REPLACE VIEW doc_payment_methods AS
SELECT p.region, p.id, p.rev, epoch_us(p.updated_at) AS updated_us, epoch_us(p.content_at) AS content_us,
       row_to_json(d)::text AS body
FROM payment_methods p
CROSS JOIN LATERAL (
    SELECT p.id, (SELECT name FROM regions WHERE number = p.region) AS region, p.user_id, p.kind, p.brand, p.last_four,
           p.token, p.expires_on, p.is_default, moment_text(p.created_at) AS created_at,
           moment_text(p.updated_at) AS updated_at) d;
COMMENT ON VIEW doc_payment_methods IS 'Payment methods as documents';

CREATE OR REPLACE FUNCTION is_card_number(p_digits text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN length(p_digits) BETWEEN 13 AND 19 AND 0 = (
    SELECT sum(CASE WHEN n % 2 = 1 THEN d WHEN d > 4 THEN 2 * d - 9 ELSE 2 * d END) % 10
    FROM (SELECT n, substr(reverse(p_digits), n, 1)::int AS d FROM generate_series(1, length(p_digits)) n) digits);
COMMENT ON FUNCTION is_card_number IS 'Whether digits have the length and the check sum (Luhn) of a card number';

CREATE OR REPLACE FUNCTION check_no_card_number(p_doc jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- Blanks, hyphens and dots between digits do not hide it; names of fields are looked through as well.
    IF EXISTS (SELECT FROM regexp_matches(p_doc::text, '(?<!\d)\d(?:[ .-]?\d){12,18}(?!\d)', 'g') run
               WHERE is_card_number(regexp_replace(run[1], '\D', '', 'g'))) THEN
        PERFORM refuse('22023', NULL, 'the document contains a card number: it must not be stored',
                       'Store the token that the gateway gives for it, and the last four digits.');
    END IF;
END $$;
COMMENT ON FUNCTION check_no_card_number IS
    'Refuses a document that has a card number anywhere, without repeating it';

CREATE OR REPLACE FUNCTION payment_method_of(p_was payment_methods, p_doc jsonb) RETURNS payment_methods
LANGUAGE plpgsql AS $$
DECLARE
    p payment_methods := p_was;
BEGIN
    p.user_id := field_id(p_doc, 'user_id', '', true);
    p.kind := field_choice(p_doc, 'kind', '', ARRAY['card', 'paypal', 'bank'], 'card');
    p.brand := field_text(p_doc, 'brand', '', 50);
    p.last_four := field_match(p_doc, 'last_four', '', 4, '^[0-9]{4}$', 'four digits in quotes, such as "4242"');
    p.token := field_text(p_doc, 'token', '', 200, true);
    IF p.token ~ '^[* -]+$' THEN -- what blanking leaves of a card number in a refused text
        PERFORM refuse('22023', 'token', 'token is nothing but asterisks: it was blanked when a text was refused',
                       'Store the token that the gateway gives for the card.');
    END IF;
    p.expires_on := field_day(p_doc, 'expires_on', '');
    p.is_default := field_flag(p_doc, 'is_default', '', false);
    RETURN p;
END $$;
COMMENT ON FUNCTION payment_method_of IS
    'The payment method as the document wants it; what the document cannot say stays as it was';

CREATE OR REPLACE FUNCTION check_payment_method_references(p_was payment_methods, p_want payment_methods) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_want.user_id IS DISTINCT FROM p_was.user_id THEN
        PERFORM check_user(p_want.region, p_want.user_id, 'user_id');
        PERFORM refuse_referred(format('payment method %s, which is to change its user,', p_was.id),
            counted((SELECT count(*) FROM transactions WHERE user_id = p_was.user_id AND payment_method_id = p_was.id),
                    'transaction'));
    END IF;
END $$;
COMMENT ON FUNCTION check_payment_method_references IS
    'Refuses references that lead nowhere, and a change of hands after a payment';

CREATE OR REPLACE FUNCTION lock_owner_of_default(p_region smallint, p_doc jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF field_flag(p_doc, 'is_default', '', false) THEN
        PERFORM FROM users WHERE region = p_region AND id = field_id(p_doc, 'user_id', '') FOR NO KEY UPDATE;
    END IF;
END $$;
COMMENT ON FUNCTION lock_owner_of_default IS
    'Has new defaults of one user wait for each other before they lock a method: each will change the other''s';

CREATE OR REPLACE FUNCTION put_payment_methods(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz,
                                               p_base timestamptz, p_claimed boolean, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    shown doc_payment_methods;
    was payment_methods;
    kept deleted_rows;
    want payment_methods;
    result text := 'unchanged';
BEGIN
    PERFORM check_no_card_number(p_doc); -- before anything is said about any field
    PERFORM check_document('payment method', p_region, p_id, p_doc,
                           ARRAY['id', 'region', 'user_id', 'kind', 'brand', 'last_four', 'token', 'expires_on',
                                 'is_default', 'created_at', 'updated_at'], p_at);
    PERFORM note_actor(p_actor);
    SELECT * INTO shown FROM doc_payment_methods d WHERE d.region = p_region AND d.id = p_id;
    IF FOUND AND same_document(shown.body, p_doc, ARRAY['created_at', 'updated_at'])
       AND (p_at IS NULL OR epoch_us(p_at) = shown.updated_us) THEN
        RETURN QUERY SELECT result, shown.id, shown.rev, shown.updated_us, shown.content_us, shown.body;
        RETURN;
    END IF;

    PERFORM lock_owner_of_default(p_region, p_doc);
    LOOP
        SELECT * INTO was FROM payment_methods p WHERE p.region = p_region AND p.id = p_id FOR NO KEY UPDATE;
        want := payment_method_of(was, p_doc);
        want.region := p_region;
        EXIT WHEN was.id IS NOT NULL;
        want.id := new_id(5::smallint, p_id, p_claimed);
        want.updated_at := coalesce(p_at, clock_timestamp());
        kept := take_deleted(5::smallint, p_region, p_id);
        want.created_at := field_moment(p_doc, 'created_at', '', coalesce(kept.created_at, want.updated_at));
        PERFORM check_payment_method_references(was, want);
        INSERT INTO payment_methods (region, id, user_id, kind, brand, last_four, token, expires_on, is_default,
                                     created_at, updated_at, content_at)
        VALUES (p_region, want.id, want.user_id, want.kind, want.brand, want.last_four, want.token, want.expires_on,
                want.is_default, want.created_at, want.updated_at, want.updated_at)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            result := 'created';
            EXIT;
        END IF;
        PERFORM check_id_elsewhere(5::smallint, p_region, want.id);
        -- Who keeps all by himself has left another default: nobody clears it, and the next round would end no better.
        IF want.is_default AND current_setting('campusfs.caller_keeps', true) = 'all'
           AND EXISTS (SELECT FROM payment_methods p
                       WHERE p.user_id = want.user_id AND p.is_default AND p.id <> want.id) THEN
            PERFORM refuse('23505', 'is_default', format('user %s has another default payment method', want.user_id));
        END IF;
    END LOOP;

    IF result <> 'created' THEN
        PERFORM check_conflict(format('payment method %s', p_id), was.content_at, p_doc, p_base);
        PERFORM check_payment_method_references(was, want);
        IF want IS DISTINCT FROM was OR p_at <> was.updated_at THEN
            UPDATE payment_methods p
            SET user_id = want.user_id, kind = want.kind, brand = want.brand, last_four = want.last_four,
                token = want.token, expires_on = want.expires_on, is_default = want.is_default,
                updated_at = coalesce(p_at, was.updated_at), rev = CASE WHEN p_at IS NULL THEN -1 ELSE 0 END
            WHERE p.region = p_region AND p.id = p_id;
            result := 'updated';
        END IF;
    END IF;
    IF result <> 'unchanged' THEN
        PERFORM note_request(p_request);
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_payment_methods d WHERE d.region = p_region AND d.id = want.id;
END $$;
COMMENT ON FUNCTION put_payment_methods IS
    'A document becomes the payment method, and the user''s only default if it says so; p_base: the version '
    'it is based on, if later than its updated_at; p_at: the time to set';

CREATE OR REPLACE FUNCTION delete_payment_methods(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    payer bigint;
BEGIN
    PERFORM note_actor(p_actor);
    SELECT user_id INTO payer FROM payment_methods WHERE region = p_region AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    PERFORM refuse_referred(format('payment method %s', p_id),
        counted((SELECT count(*) FROM transactions WHERE user_id = payer AND payment_method_id = p_id), 'transaction'));
    PERFORM keep_deleted(5::smallint, 'payment_methods', to_jsonb(p), p.user_id,
                         (SELECT body FROM doc_payment_methods WHERE region = p_region AND id = p_id))
    FROM payment_methods p WHERE p.region = p_region AND p.id = p_id;
    DELETE FROM payment_methods WHERE region = p_region AND id = p_id;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION delete_payment_methods IS 'Deletes a payment method with which nothing was paid';

CREATE OR REPLACE FUNCTION undelete_payment_methods(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    kept deleted_rows := find_deleted(5::smallint, p_region, p_id);
    want payment_methods := jsonb_populate_record(NULL::payment_methods, kept.parts -> 'payment_methods' -> 0);
BEGIN
    IF kept.id IS NULL THEN
        RETURN;
    END IF;
    PERFORM note_actor(p_actor);
    PERFORM lock_owner_of_default(p_region, kept.body::jsonb);
    PERFORM check_payment_method_references(NULL, want);
    PERFORM restore_parts(kept, 'payment_methods');
    PERFORM take_deleted(5::smallint, p_region, p_id);
    PERFORM note_request(p_request);
    RETURN QUERY SELECT 'created', d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_payment_methods d WHERE d.region = p_region AND d.id = p_id;
END $$;
COMMENT ON FUNCTION undelete_payment_methods IS
    'Takes a payment method deleted within the last day back, as it was, times included; no row when there is none';
