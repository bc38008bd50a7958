-- Collection 7, invoices: each of one transaction.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CALL install_collection(7::smallint, 'invoices', 'invoices', 'invoice');
CALL index_field(7::smallint, 1::smallint, 'transaction_id');
CALL index_field(7::smallint, 2::smallint, 'number');
CALL index_field(7::smallint, 3::smallint, 'status', p_choices => ARRAY['draft', 'issued', 'paid', 'void']);

CREATE OR REPLACE VIEW doc_invoices AS
SELECT i.region, i.id, i.rev, epoch_us(i.updated_at) AS updated_us, epoch_us(i.content_at) AS content_us,
       row_to_json(d)::text AS body
FROM invoices i
CROSS JOIN LATERAL (
    SELECT i.id, (SELECT name FROM regions WHERE number = i.region) AS region, i.transaction_id, i.number, i.status,
           i.issued_on, i.due_on, i.subtotal, i.tax, i.total, i.currency, moment_text(i.created_at) AS created_at,
           moment_text(i.updated_at) AS updated_at) d;
COMMENT ON VIEW doc_invoices IS 'Invoices as documents';

CREATE OR REPLACE FUNCTION next_invoice_number() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    result text;
BEGIN
    LOOP
        result := format('INV-%s-%s', to_char(shard_number(), 'FM000'),
                         to_char(nextval('invoice_number_seq'), 'FM00000000'));
        EXIT WHEN NOT EXISTS (SELECT FROM invoices WHERE number = result);
    END LOOP;
    RETURN result;
END $$;
COMMENT ON FUNCTION next_invoice_number IS 'A fresh number, unique over all shards, which it carries';

ALTER TABLE invoices ALTER COLUMN number SET DEFAULT next_invoice_number();

CREATE OR REPLACE FUNCTION invoice_of(p_was invoices, p_doc jsonb) RETURNS invoices
LANGUAGE plpgsql AS $$
DECLARE
    i invoices := p_was;
BEGIN
    i.transaction_id := field_id(p_doc, 'transaction_id', '', true);
    i.number := field_match(p_doc, 'number', '', 64, '^[A-Za-z0-9][A-Za-z0-9./-]*$', 'letters, digits and . / -',
                            i.id IS NOT NULL, i.number);
    i.status := field_choice(p_doc, 'status', '', ARRAY['draft', 'issued', 'paid', 'void'], 'draft');
    i.issued_on := field_day(p_doc, 'issued_on', '');
    i.due_on := field_day(p_doc, 'due_on', '');
    i.subtotal := field_money(p_doc, 'subtotal', '', 9999999999.99);
    i.tax := field_money(p_doc, 'tax', '', 9999999999.99, true, 0);
    i.total := i.subtotal + i.tax;
    i.currency := field_currency(p_doc, 'currency', '');
    IF i.due_on < i.issued_on THEN
        PERFORM refuse('22023', 'due_on', format('due_on is %s: must not be before issued_on (%s)',
                                                 i.due_on, i.issued_on));
    END IF;
    RETURN i;
END $$;
COMMENT ON FUNCTION invoice_of IS
    'The invoice as the document wants it; what the document cannot say stays as it was';

CREATE OR REPLACE FUNCTION check_invoice_references(p_was invoices, p_want invoices) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    home smallint;
    other invoices;
BEGIN
    IF p_want.transaction_id IS DISTINCT FROM p_was.transaction_id THEN
        PERFORM FROM transactions WHERE region = p_want.region AND id = p_want.transaction_id FOR KEY SHARE;
        IF NOT FOUND THEN
            SELECT region INTO home FROM transactions WHERE id = p_want.transaction_id;
            PERFORM refuse('CF001', 'transaction_id', format('transaction_id is %s: ', p_want.transaction_id) ||
                           coalesce('that transaction lies in ' || region_name(home) || ', not in '
                                        || region_name(p_want.region),
                                    format('there is no such transaction in %s', region_name(p_want.region))));
        END IF;
    END IF;
    IF p_want.number IS DISTINCT FROM p_was.number THEN
        SELECT * INTO other FROM invoices WHERE number = p_want.number;
        IF FOUND THEN
            PERFORM refuse_taken('number', p_want.number,
                                 format('invoice %s of %s', other.id, region_name(other.region)));
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION check_invoice_references IS
    'Refuses a transaction that does not exist in the region, and a number that another invoice has';

CREATE OR REPLACE FUNCTION put_invoices(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz,
                                        p_base timestamptz, p_claimed boolean, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    computed CONSTANT text[] := ARRAY['total'];
    shown doc_invoices;
    was invoices;
    kept deleted_rows;
    want invoices;
    result text := 'unchanged';
BEGIN
    PERFORM check_document('invoice', p_region, p_id, p_doc,
                           ARRAY['id', 'region', 'transaction_id', 'number', 'status', 'issued_on', 'due_on',
                                 'subtotal', 'tax', 'currency', 'created_at', 'updated_at'] || computed, p_at);
    PERFORM note_actor(p_actor);
    SELECT * INTO shown FROM doc_invoices d WHERE d.region = p_region AND d.id = p_id;
    IF FOUND AND same_document(shown.body, p_doc, ARRAY['created_at', 'updated_at'] || computed)
       AND (p_at IS NULL OR epoch_us(p_at) = shown.updated_us) THEN
        RETURN QUERY SELECT result, shown.id, shown.rev, shown.updated_us, shown.content_us, shown.body;
        RETURN;
    END IF;

    LOOP
        SELECT * INTO was FROM invoices i WHERE i.region = p_region AND i.id = p_id FOR NO KEY UPDATE;
        want := invoice_of(was, p_doc);
        want.region := p_region;
        EXIT WHEN was.id IS NOT NULL;
        want.id := new_id(7::smallint, p_id, p_claimed);
        want.updated_at := coalesce(p_at, clock_timestamp());
        kept := take_deleted(7::smallint, p_region, p_id);
        want.created_at := field_moment(p_doc, 'created_at', '', coalesce(kept.created_at, want.updated_at));
        PERFORM check_invoice_references(was, want);
        INSERT INTO invoices (region, id, transaction_id, number, status, issued_on, due_on, subtotal, tax, currency,
                              created_at, updated_at, content_at)
        VALUES (p_region, want.id, want.transaction_id, coalesce(want.number, next_invoice_number()), want.status,
                want.issued_on, want.due_on, want.subtotal, want.tax, want.currency, want.created_at, want.updated_at,
                want.updated_at)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            result := 'created';
            EXIT;
        END IF;
        PERFORM check_id_elsewhere(7::smallint, p_region, want.id);
    END LOOP;

    IF result <> 'created' THEN
        PERFORM check_conflict(format('invoice %s', p_id), was.content_at, p_doc, p_base);
        PERFORM check_invoice_references(was, want);
        IF want IS DISTINCT FROM was OR p_at <> was.updated_at THEN
            UPDATE invoices i
            SET transaction_id = want.transaction_id, number = want.number, status = want.status,
                issued_on = want.issued_on, due_on = want.due_on, subtotal = want.subtotal, tax = want.tax,
                currency = want.currency,
                updated_at = coalesce(p_at, was.updated_at), rev = CASE WHEN p_at IS NULL THEN -1 ELSE 0 END
            WHERE i.region = p_region AND i.id = p_id;
            result := 'updated';
        END IF;
    END IF;
    IF result <> 'unchanged' THEN
        PERFORM note_request(p_request);
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_invoices d WHERE d.region = p_region AND d.id = want.id;
END $$;
COMMENT ON FUNCTION put_invoices IS
    'A document becomes the invoice; p_base: the version it is based on, if later than its updated_at; p_at: '
    'the time to set';

CREATE OR REPLACE FUNCTION delete_invoices(p_region smallint, p_id bigint, p_request uuid, p_actor text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM note_actor(p_actor);
    PERFORM FROM invoices WHERE region = p_region AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    PERFORM keep_deleted(7::smallint, 'invoices', to_jsonb(i),
                         (SELECT user_id FROM transactions WHERE id = i.transaction_id),
                         (SELECT body FROM doc_invoices WHERE region = p_region AND id = p_id))
    FROM invoices i WHERE i.region = p_region AND i.id = p_id;
    DELETE FROM invoices WHERE region = p_region AND id = p_id;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION delete_invoices IS 'Deletes an invoice; nothing refers to invoices';

CREATE OR REPLACE FUNCTION undelete_invoices(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE sql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
    SELECT * FROM undelete_row(7::smallint, 'invoices', 'check_invoice_references', p_region, p_id, p_request, p_actor);
$$;
COMMENT ON FUNCTION undelete_invoices IS
    'Takes an invoice deleted within the last day back, as it was, times and ids included; no row when there is none';
