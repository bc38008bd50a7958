-- The procedures, money: ways to pay, payments, refunds, invoices. 60_procedures_users.sql says what all procedures
-- keep to. No procedure talks to a payment provider: it books what the provider has answered.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

-- Payment methods -----------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION add_payment_method(p_user_id bigint, p_kind text, p_token text, p_brand text DEFAULT NULL,
                                              p_last_four text DEFAULT NULL, p_expires_on date DEFAULT NULL,
                                              p_make_default boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    owner users;
BEGIN
    -- One at a time for a user: the first method becomes the default, and there is one first.
    PERFORM FROM users WHERE id = p_user_id FOR NO KEY UPDATE;
    owner := active_user(p_user_id, 'store a payment method');
    IF p_kind = 'card' AND (p_brand IS NULL OR p_last_four IS NULL OR p_expires_on IS NULL) THEN
        PERFORM refuse('22023', 'kind', 'a card needs its brand, its last four digits and its expiry');
    ELSIF p_expires_on < (now() AT TIME ZONE 'UTC')::date THEN
        PERFORM refuse('22023', 'expires_on', format('this payment method expired on %s', p_expires_on));
    END IF;
    RETURN (SELECT id FROM put_payment_methods(owner.region, NULL, jsonb_build_object(
                'user_id', owner.id, 'kind', p_kind, 'brand', p_brand, 'last_four', p_last_four, 'token', p_token,
                'expires_on', p_expires_on,
                'is_default', p_make_default IS TRUE
                              OR NOT EXISTS (SELECT FROM payment_methods WHERE user_id = owner.id AND is_default)),
                NULL, NULL, false, NULL, NULL));
END $$;
COMMENT ON FUNCTION add_payment_method(bigint, text, text, text, text, date, boolean) IS
'Stores what a payment provider gave for a card or account; returns its id. A user''s first one becomes the default.
p_user_id: an active user. p_kind: card, paypal or bank. p_token: the provider''s name for it, never a card number.
p_brand, p_last_four, p_expires_on: needed for cards. p_make_default: true takes the place of the earlier default.
Errors: CF001 no such user; CF005 not active; 22023 a wrong value, expired, or a card number anywhere.';

CREATE OR REPLACE FUNCTION set_default_payment_method(p_payment_method_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    method payment_methods;
BEGIN
    PERFORM FROM users WHERE id = (SELECT user_id FROM payment_methods WHERE id = p_payment_method_id)
        FOR NO KEY UPDATE;
    SELECT * INTO method FROM payment_methods WHERE id = p_payment_method_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('payment method', p_payment_method_id);
    ELSIF method.expires_on < (now() AT TIME ZONE 'UTC')::date THEN
        PERFORM refuse('CF005', 'expires_on', format('payment method %s expired on %s', p_payment_method_id,
                                                     method.expires_on));
    END IF;
    UPDATE payment_methods SET is_default = true
     WHERE region = method.region AND id = method.id AND NOT is_default;
END $$;
COMMENT ON FUNCTION set_default_payment_method(bigint) IS
'Makes a payment method its user''s default; the earlier one no longer is.
p_payment_method_id: the method; if it is the default already, nothing changes.
Errors: CF001 no such payment method; CF005 it has expired.';

-- Invoices ------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION issue_invoice(p_transaction_id bigint, p_tax_percent numeric DEFAULT 0,
                                         p_due_days int DEFAULT 14)
RETURNS TABLE (invoice_id bigint, invoice_number text)
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    today    date := (now() AT TIME ZONE 'UTC')::date;
    payment  transactions;
    earlier  invoices;
    paid     boolean;
    subtotal numeric;
BEGIN
    SELECT * INTO payment FROM transactions WHERE id = p_transaction_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('transaction', p_transaction_id);
    ELSIF payment.status NOT IN ('pending', 'completed') THEN
        PERFORM refuse('CF005', 'status', format('transaction %s is %s', p_transaction_id, payment.status),
                       'Only pending and completed payments are invoiced.');
    ELSIF p_tax_percent IS NULL OR p_tax_percent NOT BETWEEN 0 AND 100 THEN
        PERFORM refuse('22023', 'tax', format('a tax of %s percent is not possible: must be from 0 to 100',
                                              coalesce(p_tax_percent::text, 'NULL')));
    ELSIF p_due_days IS NULL OR p_due_days NOT BETWEEN 0 AND 365 THEN
        PERFORM refuse('22023', 'due_on', format('due in %s days is not possible: must be from 0 to 365',
                                                 coalesce(p_due_days::text, 'NULL')));
    END IF;
    SELECT * INTO earlier FROM invoices i
     WHERE i.region = payment.region AND i.transaction_id = payment.id AND i.status <> 'void'
     ORDER BY i.status = 'draft', i.id LIMIT 1 FOR NO KEY UPDATE;
    IF earlier.status <> 'draft' THEN
        PERFORM refuse('23505', 'transaction_id', format('transaction %s has invoice %s, which is %s', p_transaction_id,
                                                         earlier.number, earlier.status),
                       'void_invoice takes back one that is not paid.');
    ELSIF (earlier.total, earlier.currency) IS DISTINCT FROM (payment.amount, payment.currency)
          AND earlier.id IS NOT NULL THEN
        PERFORM refuse('CF005', 'total', format('draft %s says %s %s, but transaction %s is of %s %s', earlier.number,
                           earlier.total, earlier.currency, p_transaction_id, payment.amount, payment.currency),
                       'Correct the draft or remove it.');
    END IF;
    paid := payment.status = 'completed';
    IF earlier.id IS NOT NULL THEN
        UPDATE invoices i SET status = CASE WHEN paid THEN 'paid' ELSE 'issued' END, issued_on = today,
                              due_on = CASE WHEN paid THEN today ELSE today + p_due_days END
         WHERE i.region = earlier.region AND i.id = earlier.id;
        RETURN QUERY SELECT earlier.id, earlier.number;
        RETURN;
    END IF;
    -- What was paid includes the tax. The number is drawn last, so that what is refused leaves no gap.
    subtotal := round(payment.amount / (1 + p_tax_percent / 100), currency_decimals(payment.currency));
    RETURN QUERY
        SELECT p.id, p.body::jsonb ->> 'number'
          FROM put_invoices(payment.region, NULL, jsonb_build_object(
                   'transaction_id', payment.id, 'status', CASE WHEN paid THEN 'paid' ELSE 'issued' END,
                   'issued_on', today, 'due_on', CASE WHEN paid THEN today ELSE today + p_due_days END,
                   'subtotal', subtotal, 'tax', payment.amount - subtotal, 'currency', payment.currency),
                   NULL, NULL, false, NULL, NULL) p;
END $$;
COMMENT ON FUNCTION issue_invoice(bigint, numeric, int) IS
'Invoices a payment, today (UTC): paid if the payment is completed, else issued; returns id and number, which carries
the shard. A draft of the same amount is issued instead of another one made.
p_transaction_id: a pending or completed payment without an invoice, void ones aside. p_tax_percent: the tax that the
amount includes; of no effect on a draft. p_due_days: time to pay, for a payment that is pending.
Errors: CF001 no such transaction; CF005 failed or refunded, or a draft of another amount; 23505 invoiced already; 22023
a tax or time that is not possible.';

CREATE OR REPLACE FUNCTION void_invoice(p_invoice_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    invoice invoices;
BEGIN
    PERFORM FROM transactions WHERE id = (SELECT transaction_id FROM invoices WHERE id = p_invoice_id)
        FOR NO KEY UPDATE;
    SELECT * INTO invoice FROM invoices WHERE id = p_invoice_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('invoice', p_invoice_id);
    ELSIF invoice.status IN ('paid', 'void') THEN
        PERFORM refuse('CF005', 'status', format('invoice %s is %s', invoice.number, invoice.status),
                       CASE invoice.status WHEN 'paid' THEN 'refund_payment gives the money back and voids it.' END);
    END IF;
    UPDATE invoices SET status = 'void' WHERE region = invoice.region AND id = invoice.id;
END $$;
COMMENT ON FUNCTION void_invoice(bigint) IS
'Takes back an invoice that nobody has paid. It keeps its number; issue_invoice can make another one.
p_invoice_id: a draft or issued invoice.
Errors: CF001 no such invoice; CF005 paid, or void already.';

-- Payments ------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION usable_method(p_user_id bigint, p_payment_method_id bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    today  date := (now() AT TIME ZONE 'UTC')::date;
    method payment_methods;
BEGIN
    IF p_payment_method_id IS NULL THEN
        RETURN (SELECT id FROM payment_methods
                 WHERE user_id = p_user_id AND is_default AND (expires_on IS NULL OR expires_on >= today));
    END IF;
    SELECT * INTO method FROM payment_methods WHERE user_id = p_user_id AND id = p_payment_method_id FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM refuse('CF001', 'payment_method_id', format('user %s has no payment method %s', p_user_id,
                                                            p_payment_method_id));
    ELSIF method.expires_on < today THEN
        PERFORM refuse('CF005', 'payment_method_id', format('payment method %s expired on %s', p_payment_method_id,
                                                            method.expires_on));
    END IF;
    RETURN method.id;
END $$;
COMMENT ON FUNCTION usable_method(bigint, bigint) IS
'Part of the procedures: the payment method to book a payment on; NULL when none was named and no default is valid.
p_user_id: the payer. p_payment_method_id: one of theirs, or NULL for the default.
Errors: CF001 not one of theirs; CF005 expired.';

CREATE OR REPLACE FUNCTION new_payment(p_payer users, p_course_id bigint, p_amount numeric, p_currency text,
                                       p_gateway text, p_gateway_reference text, p_payment_method_id bigint,
                                       p_outcome text) RETURNS bigint
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    course courses := enrollable_course(p_course_id, p_payer.id);
BEGIN
    PERFORM check_amount(p_amount, p_currency, 'amount');
    IF course.price = 0 THEN
        PERFORM refuse('CF005', 'course_id', format('course %s is free', course.id),
                       'enroll_student needs no payment.');
    ELSIF (p_amount, p_currency) IS DISTINCT FROM (course.price, course.currency::text) THEN
        PERFORM refuse('22023', 'amount', format('%s %s is not the price of course %s', p_amount, left(p_currency, 10),
                                                 course.id),
                       format('It costs %s %s.', course.price, course.currency));
    ELSIF has_paid(p_payer.id, course.id) THEN
        PERFORM refuse('23505', 'course_id', format('user %s has paid for course %s already', p_payer.id, course.id));
    END IF;
    RETURN (SELECT id FROM put_transactions(p_payer.region, NULL, jsonb_build_object(
                'user_id', p_payer.id, 'course_id', course.id,
                'payment_method_id', usable_method(p_payer.id, p_payment_method_id), 'amount', p_amount,
                'currency', p_currency, 'status', p_outcome, 'gateway', p_gateway,
                'gateway_reference', p_gateway_reference), NULL, NULL, false, NULL, NULL));
END $$;
COMMENT ON FUNCTION new_payment(users, bigint, numeric, text, text, text, bigint, text) IS
'Part of process_payment: books a payment that is not there yet, by the rules of a sale; returns its id.
p_payer: locked by the caller. The others as there.
Errors: as there.';

CREATE OR REPLACE FUNCTION process_payment(p_user_id bigint, p_course_id bigint, p_amount numeric, p_currency text,
                                           p_gateway text, p_gateway_reference text,
                                           p_payment_method_id bigint DEFAULT NULL, p_outcome text DEFAULT 'completed',
                                           p_tax_percent numeric DEFAULT 0, p_enroll boolean DEFAULT true)
RETURNS TABLE (transaction_id bigint, status text, invoice_id bigint, invoice_number text, enrollment_id bigint)
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    payer   users;
    course  courses;
    payment transactions;
BEGIN
    IF p_gateway IS NULL OR p_gateway_reference IS NULL THEN
        PERFORM refuse('22023', 'gateway_reference', 'gateway and gateway_reference must not be NULL',
                       'By them a message that comes twice is booked once.');
    ELSIF p_outcome IS NULL OR p_outcome NOT IN ('pending', 'completed', 'failed') THEN
        PERFORM refuse('22023', 'status', format('a payment cannot end up %s: must be pending, completed or failed',
                                                 quote_nullable(left(p_outcome, 100))));
    END IF;
    SELECT * INTO payer FROM users WHERE id = p_user_id FOR NO KEY UPDATE; -- nobody pays for one course twice at once
    SELECT * INTO payment FROM transactions t WHERE t.gateway = p_gateway AND t.gateway_reference = p_gateway_reference;
    IF NOT FOUND THEN
        payer := active_user(p_user_id, 'pay');
        payment.id := new_payment(payer, p_course_id, p_amount, p_currency, p_gateway, p_gateway_reference,
                                  p_payment_method_id, p_outcome);
        course := locked_course(p_course_id);
    ELSE
        IF (payment.user_id, payment.course_id, payment.amount, payment.currency::text)
           IS DISTINCT FROM (p_user_id, p_course_id, p_amount, p_currency) THEN
            PERFORM refuse('23505', 'gateway_reference', format('%s %s is transaction %s, another sale', p_gateway,
                                                                p_gateway_reference, payment.id));
        END IF;
        -- The money has moved, whatever has become of payer and course meanwhile: their state is not asked.
        course := locked_course(p_course_id);
        SELECT * INTO payment FROM transactions t
         WHERE t.region = payment.region AND t.id = payment.id FOR NO KEY UPDATE;
        IF ARRAY[payment.status, p_outcome] IN (ARRAY['failed', 'completed'], ARRAY['completed', 'failed'],
                                                ARRAY['refunded', 'failed']) THEN
            PERFORM refuse('CF005', 'status', format('transaction %s is %s already', payment.id, payment.status));
        ELSIF payment.status <> 'pending' OR p_outcome = 'pending' THEN
            RETURN QUERY SELECT * FROM payment_outcome(payment.id);
            RETURN;
        END IF;
        UPDATE transactions t SET status = p_outcome WHERE t.region = payment.region AND t.id = payment.id;
    END IF;
    IF p_outcome = 'failed' THEN
        UPDATE invoices i SET status = 'void'
         WHERE i.region = payer.region AND i.transaction_id = payment.id AND i.status = 'issued';
    ELSIF p_outcome = 'completed' THEN
        UPDATE invoices i SET status = 'paid'
         WHERE i.region = payer.region AND i.transaction_id = payment.id AND i.status = 'issued';
        IF NOT FOUND THEN
            PERFORM issue_invoice(payment.id, p_tax_percent);
        END IF;
        IF p_enroll AND NOT EXISTS (SELECT FROM enrollments e WHERE e.user_id = payer.id AND e.course_id = course.id
                                     AND e.status <> 'cancelled') THEN
            PERFORM add_enrollment(payer, course);
        END IF;
    END IF;
    RETURN QUERY SELECT * FROM payment_outcome(payment.id);
END $$;
COMMENT ON FUNCTION process_payment(bigint, bigint, numeric, text, text, text, bigint, text, numeric, boolean) IS
'Books what a payment provider has answered; one row: the transaction, its state, its invoice and the enrollment (NULL
where there is none). A completed payment is invoiced as paid and enrolls the payer. The same message again changes
nothing; a pending payment is settled by a second call with the same reference.
p_user_id: an active user. p_course_id: a published course. p_amount, p_currency: its price. p_gateway,
p_gateway_reference: the provider and its number of the payment. p_payment_method_id: one of the user''s; NULL: the
default, if there is a valid one. p_outcome: completed, pending or failed. p_tax_percent: tax included in the amount.
p_enroll: false leaves the enrollment to enroll_student.
Errors: CF001 no such user, course or payment method; CF005 user not active, course not published, free or the user''s
own, method expired, or a failed payment that would be completed or the reverse; 22023 not the price, or a wrong value;
23505 paid already, or the reference is of another sale.';

CREATE OR REPLACE FUNCTION payment_outcome(p_transaction_id bigint)
RETURNS TABLE (transaction_id bigint, status text, invoice_id bigint, invoice_number text, enrollment_id bigint)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp AS $$
    SELECT t.id, t.status, i.id, i.number, e.id
      FROM transactions t
      LEFT JOIN LATERAL (SELECT i.id, i.number FROM invoices i
                          WHERE i.region = t.region AND i.transaction_id = t.id
                          ORDER BY i.status = 'void', i.id DESC LIMIT 1) i ON true
      LEFT JOIN enrollments e ON e.user_id = t.user_id AND e.course_id = t.course_id AND e.status <> 'cancelled'
     WHERE t.id = p_transaction_id
$$;
COMMENT ON FUNCTION payment_outcome(bigint) IS
'What a payment led to: its state, its invoice (a void one only where there is no other) and the enrollment that the
payer has in the course. No row for an unknown one.
p_transaction_id: the payment.
Errors: none.';

CREATE OR REPLACE FUNCTION refund_payment(p_transaction_id bigint, p_amount numeric DEFAULT NULL) RETURNS numeric
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    payment transactions;
BEGIN
    SELECT * INTO payment FROM transactions WHERE id = p_transaction_id;
    IF NOT FOUND THEN
        PERFORM refuse_missing('transaction', p_transaction_id);
    END IF;
    PERFORM locked_course(payment.course_id);
    PERFORM FROM enrollments WHERE user_id = payment.user_id AND course_id = payment.course_id FOR NO KEY UPDATE;
    SELECT * INTO payment FROM transactions WHERE id = p_transaction_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('transaction', p_transaction_id);
    ELSIF payment.status <> 'completed' THEN
        PERFORM refuse('CF005', 'status', format('transaction %s is %s', p_transaction_id, payment.status),
                       'Only a completed payment can be refunded, once.');
    ELSIF p_amount <= 0 OR p_amount > payment.amount THEN
        PERFORM refuse('22023', 'amount', format('cannot refund %s of a payment of %s %s', p_amount, payment.amount,
                                                 payment.currency));
    ELSIF p_amount < payment.amount THEN
        PERFORM refuse('CF005', 'amount', format('transaction %s is of %s %s and can only be refunded whole',
                                                 p_transaction_id, payment.amount, payment.currency),
                       'A transaction has one amount and one state: there is no place for a part of it.');
    END IF;
    UPDATE transactions SET status = 'refunded' WHERE region = payment.region AND id = payment.id;
    UPDATE invoices SET status = 'void'
     WHERE region = payment.region AND transaction_id = payment.id AND status <> 'void';
    UPDATE enrollments SET status = 'cancelled'
     WHERE user_id = payment.user_id AND course_id = payment.course_id AND status = 'active';
    RETURN payment.amount;
END $$;
COMMENT ON FUNCTION refund_payment(bigint, numeric) IS
'Books that a payment was given back: its invoices become void, an enrollment that is still active is cancelled. Returns
the amount.
p_transaction_id: a completed payment. p_amount: what was given back, the whole payment; NULL says the same.
Errors: CF001 no such transaction; CF005 not completed, or less than the whole; 22023 more than was paid, or nothing.';
