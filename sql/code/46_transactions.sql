-- Collection 6, transactions: payments for courses.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CALL install_collection(6::smallint, 'transactions', 'transactions', 'transaction');
CALL index_field(6::smallint, 1::smallint, 'user_id');
CALL index_field(6::smallint, 2::smallint, 'course_id');
CALL index_field(6::smallint, 3::smallint, 'payment_method_id');
CALL index_field(6::smallint, 4::smallint, 'status', p_choices => ARRAY['pending', 'completed', 'failed', 'refunded']);
CALL index_field(6::smallint, 5::smallint, 'gateway_reference');

CREATE OR REPLACE VIEW doc_transactions AS
SELECT t.region, t.id, t.rev, epoch_us(t.updated_at) AS updated_us, epoch_us(t.content_at) AS content_us,
       row_to_json(d)::text AS body
FROM transactions t
CROSS JOIN LATERAL (
    SELECT t.id, (SELECT name FROM regions WHERE number = t.region) AS region, t.user_id, t.course_id,
           t.payment_method_id, t.amount, t.currency, t.status, t.gateway, t.gateway_reference,
           moment_text(t.created_at) AS created_at, moment_text(t.updated_at) AS updated_at) d;
COMMENT ON VIEW doc_transactions IS 'Transactions as documents';

CREATE OR REPLACE FUNCTION transaction_of(p_was transactions, p_doc jsonb) RETURNS transactions
LANGUAGE plpgsql AS $$
DECLARE
    t transactions := p_was;
BEGIN
    t.user_id := field_id(p_doc, 'user_id', '', true);
    t.course_id := field_id(p_doc, 'course_id', '', true);
    t.payment_method_id := field_id(p_doc, 'payment_method_id', '');
    t.amount := field_money(p_doc, 'amount', '', 9999999999.99);
    t.currency := field_currency(p_doc, 'currency', '');
    t.status := field_choice(p_doc, 'status', '', ARRAY['pending', 'completed', 'failed', 'refunded'], 'pending');
    t.gateway := nullif(field_text(p_doc, 'gateway', '', 50), '');
    t.gateway_reference := nullif(field_text(p_doc, 'gateway_reference', '', 200), '');
    RETURN t;
END $$;
COMMENT ON FUNCTION transaction_of IS
    'The transaction as the document wants it; what the document cannot say stays as it was';

CREATE OR REPLACE FUNCTION check_transaction_references(p_was transactions, p_want transactions) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    other bigint;
BEGIN
    IF p_want.user_id IS DISTINCT FROM p_was.user_id THEN
        PERFORM check_user(p_want.region, p_want.user_id, 'user_id');
    END IF;
    IF p_want.course_id IS DISTINCT FROM p_was.course_id THEN
        PERFORM check_course(p_want.course_id, 'course_id');
    END IF;
    IF (p_want.user_id, p_want.payment_method_id) IS DISTINCT FROM (p_was.user_id, p_was.payment_method_id)
       AND p_want.payment_method_id IS NOT NULL THEN
        PERFORM FROM payment_methods WHERE user_id = p_want.user_id AND id = p_want.payment_method_id FOR KEY SHARE;
        IF NOT FOUND THEN
            PERFORM refuse('CF001', 'payment_method_id',
                           format('payment_method_id is %s: user %s has no such payment method',
                                  p_want.payment_method_id, p_want.user_id));
        END IF;
    END IF;
    IF (p_want.gateway, p_want.gateway_reference) IS DISTINCT FROM (p_was.gateway, p_was.gateway_reference) THEN
        SELECT id INTO other FROM transactions
        WHERE gateway = p_want.gateway AND gateway_reference = p_want.gateway_reference AND id <> p_want.id;
        IF FOUND THEN
            PERFORM refuse_taken('gateway_reference', p_want.gateway_reference, format('transaction %s', other));
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION check_transaction_references IS
    'Refuses references that lead nowhere, another user''s payment method, and a payment noted twice';

CREATE OR REPLACE FUNCTION put_transactions(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz,
                                            p_base timestamptz, p_claimed boolean, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    shown doc_transactions;
    was transactions;
    kept deleted_rows;
    want transactions;
    result text := 'unchanged';
BEGIN
    PERFORM check_document('transaction', p_region, p_id, p_doc,
                           ARRAY['id', 'region', 'user_id', 'course_id', 'payment_method_id', 'amount', 'currency',
                                 'status', 'gateway', 'gateway_reference', 'created_at', 'updated_at'], p_at);
    PERFORM note_actor(p_actor);
    SELECT * INTO shown FROM doc_transactions d WHERE d.region = p_region AND d.id = p_id;
    IF FOUND AND same_document(shown.body, p_doc, ARRAY['created_at', 'updated_at'])
       AND (p_at IS NULL OR epoch_us(p_at) = shown.updated_us) THEN
        RETURN QUERY SELECT result, shown.id, shown.rev, shown.updated_us, shown.content_us, shown.body;
        RETURN;
    END IF;

    LOOP
        SELECT * INTO was FROM transactions t WHERE t.region = p_region AND t.id = p_id FOR NO KEY UPDATE;
        want := transaction_of(was, p_doc);
        want.region := p_region;
        EXIT WHEN was.id IS NOT NULL;
        want.id := new_id(6::smallint, p_id, p_claimed);
        want.updated_at := coalesce(p_at, clock_timestamp());
        kept := take_deleted(6::smallint, p_region, p_id);
        want.created_at := field_moment(p_doc, 'created_at', '', coalesce(kept.created_at, want.updated_at));
        PERFORM check_transaction_references(was, want);
        INSERT INTO transactions (region, id, user_id, course_id, payment_method_id, amount, currency, status, gateway,
                                  gateway_reference, created_at, updated_at, content_at)
        VALUES (p_region, want.id, want.user_id, want.course_id, want.payment_method_id, want.amount, want.currency,
                want.status, want.gateway, want.gateway_reference, want.created_at, want.updated_at, want.updated_at)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            result := 'created';
            EXIT;
        END IF;
        PERFORM check_id_elsewhere(6::smallint, p_region, want.id);
    END LOOP;

    IF result <> 'created' THEN
        PERFORM check_conflict(format('transaction %s', p_id), was.content_at, p_doc, p_base);
        PERFORM check_transaction_references(was, want);
        IF want IS DISTINCT FROM was OR p_at <> was.updated_at THEN
            UPDATE transactions t
            SET user_id = want.user_id, course_id = want.course_id, payment_method_id = want.payment_method_id,
                amount = want.amount, currency = want.currency, status = want.status, gateway = want.gateway,
                gateway_reference = want.gateway_reference,
                updated_at = coalesce(p_at, was.updated_at), rev = CASE WHEN p_at IS NULL THEN -1 ELSE 0 END
            WHERE t.region = p_region AND t.id = p_id;
            result := 'updated';
        END IF;
    END IF;
    IF result <> 'unchanged' THEN
        PERFORM note_request(p_request);
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_transactions d WHERE d.region = p_region AND d.id = want.id;
END $$;
COMMENT ON FUNCTION put_transactions IS
    'A document becomes the transaction; p_base: the version it is based on, if later than its updated_at; '
    'p_at: the time to set';

CREATE OR REPLACE FUNCTION delete_transactions(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM note_actor(p_actor);
    PERFORM FROM transactions WHERE region = p_region AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    PERFORM refuse_referred(format('transaction %s', p_id),
        counted((SELECT count(*) FROM invoices WHERE region = p_region AND transaction_id = p_id), 'invoice'));
    PERFORM keep_deleted(6::smallint, 'transactions', to_jsonb(t), t.user_id,
                         (SELECT body FROM doc_transactions WHERE region = p_region AND id = p_id))
    FROM transactions t WHERE t.region = p_region AND t.id = p_id;
    DELETE FROM transactions WHERE region = p_region AND id = p_id;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION delete_transactions IS 'Deletes a transaction that no invoice is of';

CREATE OR REPLACE FUNCTION undelete_transactions(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE sql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
    SELECT * FROM undelete_row(6::smallint, 'transactions', 'check_transaction_references', p_region, p_id, p_request, p_actor);
$$;
COMMENT ON FUNCTION undelete_transactions IS
    'Takes a transaction deleted within the last day back, as it was, times included; no row when there is none';
