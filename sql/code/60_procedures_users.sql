-- The procedures: operations with their business rules and side effects, for SQL clients. A save of a document never
-- calls one. All files 6*_*.sql keep to this:
--   * Rows that are made are made by the put functions, so that values are judged once, in the same words.
--   * Clocks, counters and the change log are the triggers' work. Who acts is the setting campusfs.actor.
--   * Locks are taken parent first: user, course (FOR NO KEY UPDATE when its counters will move), enrollment or
--     payment method, transaction, invoice. A row that must only stay as it is, is locked FOR SHARE.
--   * SQLSTATE 22023 a value is wrong, 23505 taken or done already, CF001 no such row, CF002 others need it,
--     CF005 the rules do not allow it; 28P01 and 28000 refuse a login. docs/procedures.md lists them.
-- This file: accounts.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

-- What the procedures share -------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION refuse_missing(p_noun text, p_id bigint) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    IF p_id IS NULL THEN
        PERFORM refuse('22023', 'id', format('no %s is named: the id is NULL', p_noun));
    END IF;
    PERFORM refuse('CF001', 'id', format('there is no %s %s on this shard', p_noun, p_id),
                   'Every row lives on one shard, the one of its region.');
END $$;
COMMENT ON FUNCTION refuse_missing(text, bigint) IS
'Part of the procedures: refuses an id that names no row; does not return.
p_noun: what is missing, such as course. p_id: its id.
Errors: CF001 always; 22023 for NULL.';

CREATE OR REPLACE FUNCTION local_region(p_region text) RETURNS smallint
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    found_region regions;
BEGIN
    IF p_region IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO found_region FROM regions WHERE name = p_region;
    IF NOT FOUND OR NOT found_region.is_local THEN
        PERFORM refuse(CASE WHEN FOUND THEN 'CF005' ELSE '22023' END, 'region',
                       format(CASE WHEN FOUND THEN 'region %s lives on another shard' ELSE 'there is no region %s' END,
                              quote_ident(left(p_region, 100))),
                       'This shard has ' || (SELECT string_agg(name, ', ' ORDER BY number) FROM regions
                                             WHERE is_local) || '.');
    END IF;
    RETURN found_region.number;
END $$;
COMMENT ON FUNCTION local_region(text) IS
'Part of the procedures: the number of a region of this shard; NULL for NULL.
p_region: its name.
Errors: 22023 no such region; CF005 another shard''s.';

CREATE OR REPLACE FUNCTION active_user(p_user_id bigint, p_what text) RETURNS users
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    account users;
BEGIN
    SELECT * INTO account FROM users WHERE id = p_user_id FOR SHARE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('user', p_user_id);
    ELSIF account.status <> 'active' THEN
        PERFORM refuse('CF005', 'status', format('user %s is %s and cannot %s', p_user_id, account.status, p_what),
                       CASE account.status WHEN 'suspended' THEN 'reactivate_user lifts a suspension.' END);
    END IF;
    RETURN account;
END $$;
COMMENT ON FUNCTION active_user(bigint, text) IS
'Part of the procedures: an account that may act, locked FOR SHARE so that it stays so until the commit.
p_user_id: the user. p_what: what they want to do, for the message.
Errors: CF001 no such user; CF005 suspended or deleted.';

CREATE OR REPLACE FUNCTION password_matches(p_password text, p_hash text) RETURNS boolean
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    -- A statement of its own: compared with a NULL in one expression, the planner would not compute it.
    computed text := crypt(coalesce(p_password, ''),
                           coalesce(checkable_hash(p_hash),
                                    format('$2a$%s$campusfs.nobody.at.all', to_char(password_cost(), 'FM00'))));
BEGIN
    RETURN computed = checkable_hash(p_hash) AND octet_length(p_password) <= 72; -- bcrypt ignores what is beyond
END $$;
COMMENT ON FUNCTION password_matches(text, text) IS
'Part of the procedures: whether a password is the one of a hash. Without a hash it works as long, on a salt that nobody
has, so that the time of an answer does not tell which accounts exist.
p_password: as given. p_hash: bcrypt, or NULL.
Errors: none.';

CREATE OR REPLACE FUNCTION check_new_password(p_password text, p_email text, p_username text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    IF p_password IS NULL OR length(p_password) < 8 THEN
        PERFORM refuse('22023', 'password', 'the password is too short: at least 8 characters');
    ELSIF lower(p_password) IN (lower(p_email), lower(p_username)) THEN
        PERFORM refuse('22023', 'password', 'the password is the e-mail address or the username: choose another one');
    END IF;
END $$;
COMMENT ON FUNCTION check_new_password(text, text, text) IS
'Part of the procedures: what people choose must be harder to guess than what an import may bring.
p_password, p_email, p_username: of one account.
Errors: 22023 too short, or equal to either.';

-- Accounts ------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION register_user(p_region text, p_email text, p_username text, p_password text,
                                         p_first_name text, p_last_name text DEFAULT '',
                                         p_role text DEFAULT 'student', p_profile jsonb DEFAULT '{}') RETURNS bigint
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    IF p_region IS NULL THEN
        PERFORM refuse('22023', 'region', 'region must not be NULL');
    ELSIF p_role = 'admin' THEN
        PERFORM refuse('CF005', 'role', 'nobody registers as an admin',
                       'Register as a student or instructor; an admin then changes the role in the user''s document.');
    END IF;
    PERFORM check_new_password(p_password, p_email, p_username);
    RETURN (SELECT id FROM put_users(local_region(p_region), NULL, jsonb_build_object(
                'email', btrim(p_email), 'username', btrim(p_username), 'password', p_password,
                'first_name', btrim(p_first_name), 'last_name', btrim(p_last_name), 'role', p_role,
                'profile', coalesce(p_profile, '{}')), NULL, NULL, false, NULL, NULL));
END $$;
COMMENT ON FUNCTION register_user(text, text, text, text, text, text, text, jsonb) IS
'Opens an account, active, its address not yet verified; returns the id.
p_region: name of a region of this shard. p_email, p_username: unique on the shard whatever the case of their letters.
p_password: 8 characters to 72 bytes, kept as a bcrypt hash. p_first_name, p_last_name: shown to people.
p_role: student or instructor. p_profile: fields of the profile, as in the user''s document.
Errors: 22023 a value is wrong; 23505 address or username taken; CF005 another shard''s region, or the role admin.';

CREATE OR REPLACE FUNCTION authenticate_user(p_login text, p_password text)
RETURNS TABLE (user_id bigint, region text, username text, role text, previous_login_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    account users;
    hash    text;
BEGIN
    SELECT * INTO account FROM users WHERE lower(email) = lower(p_login);
    IF NOT FOUND THEN
        SELECT * INTO account FROM users WHERE lower(username) = lower(p_login);
    END IF;
    IF account.status <> 'deleted' THEN
        SELECT password_hash INTO hash FROM user_credentials c
         WHERE c.region = account.region AND c.user_id = account.id;
    END IF;
    IF password_matches(p_password, hash) IS NOT TRUE THEN
        PERFORM refuse('28P01', NULL, 'unknown user or wrong password');
    ELSIF account.status <> 'active' THEN
        PERFORM refuse('28000', NULL, format('this account is %s', account.status),
                       'Only who knows the password is told. reactivate_user lifts a suspension.');
    END IF;
    -- A hash that was made when less work was asked for is made again, now that the password is at hand.
    IF split_part(hash, '$', 3)::int < password_cost() THEN
        UPDATE user_credentials c SET password_hash = hash_password(p_password)
         WHERE c.region = account.region AND c.user_id = account.id AND c.password_hash = hash;
    END IF;
    UPDATE users u SET last_login_at = greatest(clock_timestamp(), u.last_login_at)
     WHERE u.region = account.region AND u.id = account.id;
    RETURN QUERY SELECT account.id, region_name(account.region), account.username, account.role,
                        account.last_login_at::timestamptz;
END $$;
COMMENT ON FUNCTION authenticate_user(text, text) IS
'Checks a login and notes its time; one row, or an error. Takes as long for unknown users as for known ones.
p_login: e-mail address or username, whatever the case of its letters. p_password: as typed.
Errors: 28P01 unknown user or wrong password, which of them is not told; 28000 right, but the account is suspended.';

CREATE OR REPLACE FUNCTION change_password(p_user_id bigint, p_old_password text, p_new_password text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    account users;
    hash    text;
BEGIN
    SELECT * INTO account FROM users WHERE id = p_user_id FOR NO KEY UPDATE;
    SELECT password_hash INTO hash FROM user_credentials c WHERE c.region = account.region AND c.user_id = account.id;
    IF password_matches(p_old_password, hash) IS NOT TRUE THEN
        PERFORM refuse('28P01', NULL, 'unknown user or wrong password');
    ELSIF account.status <> 'active' THEN
        PERFORM refuse('28000', NULL, format('this account is %s', account.status));
    END IF;
    PERFORM check_new_password(p_new_password, account.email, account.username);
    IF NOT put_password(account.region, account.id, p_new_password) THEN
        PERFORM refuse('22023', 'password', 'the new password is the old one: choose another one');
    END IF;
END $$;
COMMENT ON FUNCTION change_password(bigint, text, text) IS
'Replaces a password by its owner. The user''s document does not show passwords and does not move.
p_user_id: whose. p_old_password: the one that holds now. p_new_password: 8 characters to 72 bytes.
Errors: 28P01 no such user or not their password; 28000 suspended; 22023 too short, too long, or not a new one.';

CREATE OR REPLACE FUNCTION update_profile(p_user_id bigint, p_changes jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    account  users;
    document jsonb;
BEGIN
    SELECT * INTO account FROM users WHERE id = p_user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('user', p_user_id);
    ELSIF account.status = 'deleted' THEN
        PERFORM refuse('CF005', 'status', format('user %s is deleted and has no profile to edit', p_user_id));
    ELSIF jsonb_typeof(p_changes) IS DISTINCT FROM 'object' THEN
        PERFORM refuse('22023', 'profile', 'the changes must be an object in { }', 'For example {"city": "Lisbon"}.');
    END IF;
    SELECT d.body::jsonb INTO document FROM doc_users d WHERE d.region = account.region AND d.id = account.id;
    -- The row is locked: what the document was based on cannot have changed since.
    RETURN (SELECT p.body::jsonb -> 'profile' FROM put_users(account.region, account.id,
                (document - 'updated_at') || jsonb_build_object('profile', (document -> 'profile') || p_changes),
                NULL, NULL, false, NULL, NULL) p);
END $$;
COMMENT ON FUNCTION update_profile(bigint, jsonb) IS
'Changes some fields of a profile and keeps the others; returns the profile as it is then.
p_user_id: whose. p_changes: an object; a field that is null is emptied.
Errors: CF001 no such user; CF005 a deleted one; 22023 an unknown field or a wrong value (COLUMN names it).';

CREATE OR REPLACE FUNCTION suspend_user(p_user_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    account users;
BEGIN
    SELECT * INTO account FROM users WHERE id = p_user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('user', p_user_id);
    ELSIF account.status <> 'active' THEN
        PERFORM refuse('CF005', 'status', format('user %s is %s already', p_user_id, account.status));
    END IF;
    UPDATE users SET status = 'suspended' WHERE region = account.region AND id = account.id;
END $$;
COMMENT ON FUNCTION suspend_user(bigint) IS
'Locks an active user out: no login, no enrollment, payment or review. What they have stays as it is.
p_user_id: the user.
Errors: CF001 no such user; CF005 suspended or deleted already.';

CREATE OR REPLACE FUNCTION reactivate_user(p_user_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    account users;
BEGIN
    SELECT * INTO account FROM users WHERE id = p_user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_missing('user', p_user_id);
    ELSIF account.status <> 'suspended' THEN
        PERFORM refuse('CF005', 'status', format('user %s is %s, not suspended', p_user_id, account.status),
                       CASE account.status WHEN 'deleted' THEN 'What was deleted does not come back by this.' END);
    END IF;
    UPDATE users SET status = 'active' WHERE region = account.region AND id = account.id;
END $$;
COMMENT ON FUNCTION reactivate_user(bigint) IS
'Lifts a suspension.
p_user_id: the user.
Errors: CF001 no such user; CF005 not suspended.';

CREATE OR REPLACE FUNCTION erase_user(p_user_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    account users;
    alias   text := 'erased-' || gen_random_uuid();
BEGIN
    SELECT * INTO account FROM users WHERE id = p_user_id FOR UPDATE;
    IF NOT FOUND THEN
        DELETE FROM deleted_rows WHERE user_id = p_user_id;
        IF NOT FOUND THEN
            PERFORM refuse_missing('user', p_user_id);
        END IF;
        RETURN 'removed';
    ELSIF EXISTS (SELECT FROM courses WHERE region = account.region AND instructor_id = account.id) THEN
        PERFORM refuse('CF002', 'instructor_id', format('user %s teaches %s', p_user_id,
                           counted((SELECT count(*) FROM courses WHERE region = account.region
                                       AND instructor_id = account.id), 'course')),
                       'Give them to another instructor, or delete them, first.');
    END IF;
    -- Their counters will move: locked here in one order, before the rows that they count.
    PERFORM FROM courses
      WHERE id IN (SELECT course_id FROM enrollments WHERE user_id = p_user_id
                   UNION ALL SELECT course_id FROM course_reviews WHERE user_id = p_user_id)
      ORDER BY id FOR NO KEY UPDATE;
    DELETE FROM course_reviews WHERE user_id = p_user_id;
    DELETE FROM enrollments WHERE user_id = p_user_id;
    -- A draft was never handed out, and a payment without an invoice is no voucher: only the others must be kept.
    DELETE FROM invoices i USING transactions t
     WHERE t.user_id = p_user_id AND i.region = t.region AND i.transaction_id = t.id AND i.status = 'draft';
    DELETE FROM transactions t
     WHERE t.user_id = p_user_id
       AND NOT EXISTS (SELECT FROM invoices i WHERE i.region = t.region AND i.transaction_id = t.id);
    UPDATE transactions SET payment_method_id = NULL WHERE user_id = p_user_id AND payment_method_id IS NOT NULL;
    DELETE FROM payment_methods WHERE user_id = p_user_id;
    DELETE FROM user_credentials WHERE region = account.region AND user_id = account.id;
    DELETE FROM deleted_rows WHERE user_id = p_user_id;
    IF NOT EXISTS (SELECT FROM transactions WHERE user_id = p_user_id) THEN
        DELETE FROM users WHERE region = account.region AND id = account.id;
        RETURN 'removed';
    END IF;
    PERFORM put_profile(account.region, account.id, NULL);
    UPDATE users SET email = alias || '@erased.invalid', username = alias, first_name = 'Erased', last_name = '',
                     role = 'student', status = 'deleted', email_verified = false, last_login_at = NULL
     WHERE region = account.region AND id = account.id;
    RETURN 'anonymised';
END $$;
COMMENT ON FUNCTION erase_user(bigint) IS
'Erases a person: reviews, enrollments with their progress, payment methods, password, draft invoices, payments without
an invoice, the account, and what was deleted within the last day and is still kept, an account too. Where invoices were
handed out, those stay with their payments, and the account stays for them without anything that tells whose it was,
deleted for good. Returns removed or anonymised; can be repeated.
Preferences in MongoDB are deleted by the mounts, within media_sweep or an hour; backups and logs are outside of it.
p_user_id: the user.
Errors: CF001 no such user; CF002 the user teaches courses.';
