-- Collection 1, users: users with their profiles; passwords are written through it and never read back.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CALL install_collection(1::smallint, 'users', 'users', 'user', ARRAY['last_login_at']);
CALL install_changed_triggers('user_profiles', 'profiles_changed', ARRAY['parts', 'all']);
CALL index_field(1::smallint, 1::smallint, 'email', p_folded => true);
CALL index_field(1::smallint, 2::smallint, 'username', p_folded => true);
CALL index_field(1::smallint, 3::smallint, 'role', p_choices => ARRAY['student', 'instructor', 'admin']);
CALL index_field(1::smallint, 4::smallint, 'status', p_choices => ARRAY['active', 'suspended', 'deleted']);
CALL index_field(1::smallint, 5::smallint, 'country', 'user_profiles', 'user_id'); -- profile.country

CREATE OR REPLACE VIEW doc_users AS
SELECT u.region, u.id, u.rev, epoch_us(u.updated_at) AS updated_us, epoch_us(u.content_at) AS content_us,
       row_to_json(d)::text AS body
FROM users u
-- OFFSET 0: looked up row by row. Joined, a page could be a merge that reads all profiles before it.
LEFT JOIN LATERAL (SELECT * FROM user_profiles WHERE region = u.region AND user_id = u.id OFFSET 0) p ON true
CROSS JOIN LATERAL (
    SELECT u.id, (SELECT name FROM regions WHERE number = u.region) AS region, u.email, u.username, u.first_name,
           u.last_name, u.role, u.status, u.email_verified, moment_text(u.last_login_at) AS last_login_at,
           (SELECT profile FROM (
                SELECT p.bio, p.avatar_url, p.phone, p.date_of_birth, p.country, p.city, p.timezone, p.language,
                       p.website) profile) AS profile,
           moment_text(u.created_at) AS created_at, moment_text(u.updated_at) AS updated_at) d;
COMMENT ON VIEW doc_users IS 'Users as documents';

CREATE OR REPLACE FUNCTION password_cost() RETURNS int
LANGUAGE sql STABLE PARALLEL SAFE
RETURN least(greatest(coalesce(nullif(current_setting('campusfs.bcrypt_cost', true), '')::int, 10), 4), 15);
COMMENT ON FUNCTION password_cost IS
    'Work that a bcrypt hash takes, as a power of two: the setting campusfs.bcrypt_cost, 4 to 15, else 10';

CREATE OR REPLACE FUNCTION hash_password(p_password text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF p_password = '' THEN
        PERFORM refuse('22023', 'password', 'password must not be empty');
    ELSIF octet_length(p_password) > 72 THEN
        PERFORM refuse('22023', 'password', 'password is too long: at most 72 bytes',
                       'bcrypt ignores what is beyond; letters outside ASCII take 2 to 4 bytes each.');
    END IF;
    RETURN crypt(p_password, gen_salt('bf', password_cost()));
END $$;
COMMENT ON FUNCTION hash_password IS 'bcrypt hash of a password, which must have 1 to 72 bytes';

CREATE OR REPLACE FUNCTION checkable_hash(p_hash text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN regexp_replace(p_hash, '^\$2[by]\$', '$2a$');
COMMENT ON FUNCTION checkable_hash IS
    'A bcrypt hash as pgcrypto reads it: what others call $2b$ and $2y$, it only knows as $2a$, and takes for DES';

CREATE OR REPLACE FUNCTION put_password(p_region smallint, p_user_id bigint, p_password text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    hash text := (SELECT checkable_hash(password_hash) FROM user_credentials
                  WHERE region = p_region AND user_id = p_user_id);
BEGIN
    IF octet_length(p_password) BETWEEN 1 AND 72 AND crypt(p_password, hash) = hash THEN
        RETURN false; -- an editor saves one buffer many times
    END IF;
    INSERT INTO user_credentials (region, user_id, password_hash)
    VALUES (p_region, p_user_id, hash_password(p_password))
    ON CONFLICT (region, user_id) DO UPDATE SET password_hash = EXCLUDED.password_hash,
        changed_at = greatest(clock_timestamp(), user_credentials.changed_at + interval '1 microsecond');
    RETURN true;
END $$;
COMMENT ON FUNCTION put_password IS 'Sets a user''s password; whether it is another one than before';

CREATE OR REPLACE FUNCTION field_password(p_doc jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(p_doc -> 'password') NOT IN ('string', 'null') THEN
        PERFORM refuse('22023', 'password', 'password must be text');
    ELSIF p_doc ->> 'password' ~ '^\*+$' THEN -- what blanking leaves of one in a refused text
        PERFORM refuse('22023', 'password', 'password is nothing but asterisks: it was blanked when a text was refused',
                       'Write the password again, or leave the field out to keep the one there is.');
    END IF;
    RETURN p_doc ->> 'password';
END $$;
COMMENT ON FUNCTION field_password IS 'The new password; NULL: keep the old one. Its value is in no message';

CREATE OR REPLACE FUNCTION user_of(p_was users, p_doc jsonb) RETURNS users
LANGUAGE plpgsql AS $$
DECLARE
    u users := p_was;
BEGIN
    u.email := field_match(p_doc, 'email', '', 254, '^[^\s@]+@[^\s@]+$', 'an address, such as ada@example.org', true);
    u.username := field_match(p_doc, 'username', '', 64, '^[^\s/]+$', 'a name without spaces and slashes', true);
    u.first_name := field_text(p_doc, 'first_name', '', 100, true);
    u.last_name := coalesce(field_text(p_doc, 'last_name', '', 100), '');
    u.role := field_choice(p_doc, 'role', '', ARRAY['student', 'instructor', 'admin'], 'student');
    u.status := field_choice(p_doc, 'status', '', ARRAY['active', 'suspended', 'deleted'], 'active');
    u.email_verified := field_flag(p_doc, 'email_verified', '', false);
    u.last_login_at := field_moment(p_doc, 'last_login_at', '');
    RETURN u;
END $$;
COMMENT ON FUNCTION user_of IS 'The user as the document wants it; what the document cannot say stays as it was';

CREATE OR REPLACE FUNCTION profile_of(p_doc jsonb) RETURNS user_profiles
LANGUAGE plpgsql AS $$
DECLARE
    prefix CONSTANT text := 'profile.';
    doc jsonb := p_doc -> 'profile';
    p user_profiles;
BEGIN
    IF doc IS NULL OR jsonb_typeof(doc) = 'null' THEN
        RETURN p;
    END IF;
    PERFORM check_fields(doc, ARRAY['bio', 'avatar_url', 'phone', 'date_of_birth', 'country', 'city', 'timezone',
                                    'language', 'website'], prefix, 'a profile');
    p.bio := field_text(doc, 'bio', prefix, 10000);
    p.avatar_url := field_match(doc, 'avatar_url', prefix, 2000, '^https?://\S+$', 'an http or https address');
    p.phone := field_match(doc, 'phone', prefix, 33, '^\+?[0-9 ()./-]{3,32}$', 'a number, such as +49 30 123456');
    p.date_of_birth := field_day(doc, 'date_of_birth', prefix);
    p.country := field_match(doc, 'country', prefix, 2, '^[A-Z]{2}$', 'a two-letter code in capitals, such as DE');
    p.city := field_text(doc, 'city', prefix, 100);
    p.timezone := field_match(doc, 'timezone', prefix, 64, '^[A-Za-z0-9_+/-]+$',
                              'an IANA name, such as Europe/Lisbon');
    p.language := field_language(doc, 'language', prefix);
    p.website := field_match(doc, 'website', prefix, 2000, '^https?://\S+$', 'an http or https address');
    RETURN p;
END $$;
COMMENT ON FUNCTION profile_of IS 'The profile in a user''s document; all NULL when there is none';

CREATE OR REPLACE FUNCTION put_profile(p_region smallint, p_user_id bigint, p_profile user_profiles) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    changed boolean;
BEGIN
    p_profile.region := p_region;
    p_profile.user_id := p_user_id;
    -- Not left to DO UPDATE ... WHERE, which locks the row even where it then has nothing to write.
    IF p_profile = (SELECT p FROM user_profiles p WHERE p.region = p_region AND p.user_id = p_user_id) THEN
        RETURN false;
    END IF;
    PERFORM caller_keeps_parts();
    INSERT INTO user_profiles AS p SELECT p_profile.*
    ON CONFLICT (region, user_id) DO UPDATE SET
        bio = EXCLUDED.bio, avatar_url = EXCLUDED.avatar_url, phone = EXCLUDED.phone,
        date_of_birth = EXCLUDED.date_of_birth, country = EXCLUDED.country, city = EXCLUDED.city,
        timezone = EXCLUDED.timezone, language = EXCLUDED.language, website = EXCLUDED.website
    WHERE p IS DISTINCT FROM EXCLUDED;
    changed := FOUND;
    PERFORM parts_kept();
    RETURN changed;
END $$;
COMMENT ON FUNCTION put_profile IS 'Writes a user''s profile; whether it is another one than before';

CREATE OR REPLACE FUNCTION check_user_names(p_user users) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    other users;
BEGIN
    SELECT * INTO other FROM users WHERE lower(email) = lower(p_user.email) AND id <> p_user.id;
    IF FOUND THEN
        PERFORM refuse_taken('email', p_user.email, format('user %s of %s', other.id, region_name(other.region)));
    END IF;
    SELECT * INTO other FROM users WHERE lower(username) = lower(p_user.username) AND id <> p_user.id;
    IF FOUND THEN
        PERFORM refuse_taken('username', p_user.username, format('user %s of %s', other.id, region_name(other.region)));
    END IF;
END $$;
COMMENT ON FUNCTION check_user_names IS 'Refuses an e-mail address or username that another user has';

CREATE OR REPLACE FUNCTION put_users(p_region smallint, p_id bigint, p_doc jsonb, p_at timestamptz, p_base timestamptz,
                                     p_claimed boolean, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    shown doc_users;
    was users;
    kept deleted_rows;
    want users;
    want_profile user_profiles;
    password text;
    changed boolean;
    result text := 'unchanged';
BEGIN
    PERFORM check_document('user', p_region, p_id, p_doc,
                           ARRAY['id', 'region', 'email', 'username', 'first_name', 'last_name', 'role', 'status',
                                 'email_verified', 'last_login_at', 'profile', 'password', 'created_at', 'updated_at'],
                           p_at);
    PERFORM note_actor(p_actor);
    SELECT * INTO shown FROM doc_users d WHERE d.region = p_region AND d.id = p_id;
    IF FOUND AND same_document(shown.body, p_doc, ARRAY['created_at', 'updated_at'])
       AND (p_at IS NULL OR epoch_us(p_at) = shown.updated_us) THEN
        RETURN QUERY SELECT result, shown.id, shown.rev, shown.updated_us, shown.content_us, shown.body;
        RETURN;
    END IF;
    LOOP
        SELECT * INTO was FROM users u WHERE u.region = p_region AND u.id = p_id FOR NO KEY UPDATE;
        want := user_of(was, p_doc);
        want_profile := profile_of(p_doc);
        password := field_password(p_doc);
        EXIT WHEN was.id IS NOT NULL;
        want.id := new_id(1::smallint, p_id, p_claimed);
        want.updated_at := coalesce(p_at, clock_timestamp());
        kept := take_deleted(1::smallint, p_region, p_id);
        want.created_at := field_moment(p_doc, 'created_at', '', coalesce(kept.created_at, want.updated_at));
        PERFORM check_user_names(want);
        INSERT INTO users (region, id, email, username, first_name, last_name, role, status, email_verified,
                           last_login_at, created_at, updated_at, content_at)
        VALUES (p_region, want.id, want.email, want.username, want.first_name, want.last_name, want.role, want.status,
                want.email_verified, want.last_login_at, want.created_at, want.updated_at, want.updated_at)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            result := 'created';
            PERFORM put_profile(p_region, want.id, want_profile);
            IF kept.id IS NOT NULL THEN
                PERFORM restore_parts(kept, 'user_credentials');
            END IF;
            EXIT;
        END IF;
        PERFORM check_id_elsewhere(1::smallint, p_region, want.id);
    END LOOP;

    IF result <> 'created' THEN
        PERFORM check_conflict(format('user %s', p_id), was.content_at, p_doc, p_base);
        IF was.updated_at > greatest(field_moment(p_doc, 'updated_at', ''), p_base) THEN
            want.last_login_at := was.last_login_at; -- a login since the document was read: no conflict, nor undone
        END IF;
        IF (want.email, want.username) IS DISTINCT FROM (was.email, was.username) THEN
            PERFORM check_user_names(want);
        END IF;
        -- A statement of its own: OR may skip what it need not know.
        changed := put_profile(p_region, p_id, want_profile);
        IF changed OR want IS DISTINCT FROM was OR p_at <> was.updated_at THEN
            UPDATE users u
            SET email = want.email, username = want.username, first_name = want.first_name, last_name = want.last_name,
                role = want.role, status = want.status, email_verified = want.email_verified,
                last_login_at = want.last_login_at,
                updated_at = coalesce(p_at, was.updated_at), rev = CASE WHEN p_at IS NULL THEN -1 ELSE 0 END
            WHERE u.region = p_region AND u.id = p_id;
            result := 'updated';
        END IF;
    END IF;

    IF password IS NOT NULL THEN
        changed := put_password(p_region, want.id, password);
        IF changed AND result = 'unchanged' THEN
            result := 'updated';
        END IF;
    END IF;
    IF result <> 'unchanged' THEN
        PERFORM note_request(p_request);
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_users d WHERE d.region = p_region AND d.id = want.id;
END $$;
COMMENT ON FUNCTION put_users IS
    'A document becomes the user; p_base: the version it is based on, if later than its updated_at; p_at: the '
    'time to set';

CREATE OR REPLACE FUNCTION delete_users(p_region smallint, p_id bigint, p_request uuid, p_actor text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM note_actor(p_actor);
    PERFORM FROM users WHERE region = p_region AND id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'missing';
    END IF;
    PERFORM refuse_referred(format('user %s', p_id),
        counted((SELECT count(*) FROM courses WHERE region = p_region AND instructor_id = p_id), 'course'),
        counted((SELECT count(*) FROM enrollments WHERE user_id = p_id), 'enrollment'),
        counted((SELECT count(*) FROM course_reviews WHERE user_id = p_id), 'review'),
        counted((SELECT count(*) FROM payment_methods WHERE user_id = p_id), 'payment method'),
        counted((SELECT count(*) FROM transactions WHERE user_id = p_id), 'transaction'),
        counted((SELECT count(*) FROM invoices i JOIN transactions t ON t.id = i.transaction_id
                 WHERE t.user_id = p_id), 'invoice'));
    PERFORM keep_deleted(1::smallint, 'users', to_jsonb(u), u.id,
                         (SELECT body FROM doc_users WHERE region = p_region AND id = p_id),
                         jsonb_build_object(
                             'user_profiles', ARRAY(SELECT to_jsonb(p) FROM user_profiles p
                                                    WHERE p.region = u.region AND p.user_id = u.id),
                             'user_credentials', ARRAY(SELECT to_jsonb(c) FROM user_credentials c
                                                       WHERE c.region = u.region AND c.user_id = u.id)))
    FROM users u WHERE u.region = p_region AND u.id = p_id;
    DELETE FROM users WHERE region = p_region AND id = p_id;
    PERFORM note_request(p_request);
    RETURN 'deleted';
END $$;
COMMENT ON FUNCTION delete_users IS
    'Deletes a user whom nothing refers to, profile and password included; kept for a day, as every deleted row';

CREATE OR REPLACE FUNCTION move_users(p_region smallint, p_id bigint, p_to smallint, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    taught text;
    result text := 'unchanged';
BEGIN
    PERFORM note_actor(p_actor);
    PERFORM local_region(p_to);
    PERFORM FROM users u WHERE u.region = p_region AND u.id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse('CF001', 'id', format('there is no user %s in %s', p_id, region_name(p_region)));
    END IF;
    taught := counted((SELECT count(*) FROM courses WHERE region = p_region AND instructor_id = p_id), 'course');
    IF p_to <> p_region AND taught IS NOT NULL THEN
        PERFORM refuse('CF002', 'region', format('user %s teaches %s of %s', p_id, taught, region_name(p_region)),
                       'Who teaches does not move: give the courses to somebody else first.');
    ELSIF p_to <> p_region THEN
        UPDATE users u SET region = p_to WHERE u.region = p_region AND u.id = p_id;
        PERFORM move_deleted(p_id, p_to);
        PERFORM note_request(p_request);
        result := 'updated';
    END IF;
    RETURN QUERY SELECT result, d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_users d WHERE d.region = p_to AND d.id = p_id;
END $$;
COMMENT ON FUNCTION move_users IS 'Moves a user, with all that the user owns, to another region of this shard';

CREATE OR REPLACE FUNCTION undelete_users(p_region smallint, p_id bigint, p_request uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    kept deleted_rows := find_deleted(1::smallint, p_region, p_id);
    want users := jsonb_populate_record(NULL::users, kept.parts -> 'users' -> 0);
BEGIN
    IF kept.id IS NULL THEN
        RETURN;
    END IF;
    PERFORM note_actor(p_actor);
    PERFORM check_user_names(want);
    PERFORM restore_parts(kept, 'users', 'user_profiles', 'user_credentials');
    PERFORM take_deleted(1::smallint, p_region, p_id);
    PERFORM note_request(p_request);
    RETURN QUERY SELECT 'created', d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_users d WHERE d.region = p_region AND d.id = p_id;
END $$;
COMMENT ON FUNCTION undelete_users IS
    'Takes a user deleted within the last day back, as it was, times and ids included; no row when there is none';
