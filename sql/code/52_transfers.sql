-- A user moves to another shard, with all that the user owns: one transaction a shard, in two phases. The mount opens
-- one on the shard that the user leaves (transfer_out, which journals it), prepares one on the shard that the user
-- comes to (transfer_in) and on each other home of ids that move (transfer_claims), and commits the first: that decides.
-- Then it commits what was prepared, and transfer_finish notes that all is over.
--
-- What a crash leaves is settled by anybody, any number of times: transfer_outcome says whether the user has left, and
-- where not, that this transfer never can; it waits for a transaction under way. What was prepared is then committed or
-- rolled back. Where a server has lost what it had prepared (a failover to a standby that was behind), transfer_done
-- says so, and transfer_content has all that is to be written again.
--
-- A prepared transaction is named campusfs:<number of the shard left>:<number of its shard>:<transfer>.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE OR REPLACE VIEW transfer_journal AS
SELECT id, outcome, user_id, from_region, to_region, to_shard, shards, actor, created_at, finished_at FROM transfers;
COMMENT ON VIEW transfer_journal IS 'Users who moved to other shards within the last day, without what they took along';

CREATE OR REPLACE FUNCTION home_shard(p_id bigint, p_shards smallint[]) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (p_id % 1000)::smallint = ANY (p_shards) THEN (p_id % 1000)::smallint ELSE p_shards[1] END;
COMMENT ON FUNCTION home_shard IS
    'Which of the configured shards gives an id away: the one of its number, for other numbers the first';

CREATE OR REPLACE FUNCTION named(p_count bigint, p_noun text, p_ids bigint[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN counted(p_count, p_noun) || ' (' || array_to_string(p_ids[1:5], ', ') ||
       CASE WHEN p_count > 5 THEN ', …)' ELSE ')' END;
COMMENT ON FUNCTION named IS '"2 reviews (5, 7)", the first five named; NULL for none';

CREATE OR REPLACE FUNCTION check_may_leave(p_user users) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    taught text;
    bound text;
BEGIN
    taught := counted((SELECT count(*) FROM courses WHERE region = p_user.region AND instructor_id = p_user.id),
                      'course');
    IF taught IS NOT NULL THEN
        PERFORM refuse('CF002', 'region', format('user %s teaches %s of %s', p_user.id, taught,
                                                 region_name(p_user.region)),
                       'Who teaches does not move: give the courses to somebody else first.');
    END IF;
    bound := concat_ws(', ',
        named((SELECT count(*) FROM enrollments WHERE user_id = p_user.id), 'enrollment',
              ARRAY(SELECT id FROM enrollments WHERE user_id = p_user.id ORDER BY id LIMIT 5)),
        named((SELECT count(*) FROM course_reviews WHERE user_id = p_user.id), 'review',
              ARRAY(SELECT id FROM course_reviews WHERE user_id = p_user.id ORDER BY id LIMIT 5)),
        named((SELECT count(*) FROM transactions WHERE user_id = p_user.id), 'transaction',
              ARRAY(SELECT id FROM transactions WHERE user_id = p_user.id ORDER BY id LIMIT 5)));
    IF bound <> '' THEN
        PERFORM refuse('CF002', 'region', format('user %s has %s in courses of this shard', p_user.id, bound),
                       'A reference never leaves its shard: such a user moves between the regions of one shard only.');
    END IF;
END $$;
COMMENT ON FUNCTION check_may_leave IS 'Refuses that a user leaves the shard who is bound to courses of it';

CREATE OR REPLACE FUNCTION transfer_out(p_region smallint, p_id bigint, p_to smallint, p_to_shard smallint,
                                        p_shards smallint[], p_transfer uuid, p_actor text)
RETURNS TABLE (content text, shards text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    who users;
    moved jsonb;
    others smallint[];
BEGIN
    PERFORM note_actor(p_actor);
    -- Locked first: writers of the user and of what is theirs wait, and then find nobody.
    SELECT * INTO who FROM users u WHERE u.region = p_region AND u.id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse('CF001', 'id', format('there is no user %s in %s', p_id, region_name(p_region)));
    ELSIF EXISTS (SELECT FROM regions WHERE number = p_to AND is_local) OR p_to_shard = shard_number() THEN
        PERFORM refuse('CF005', 'region', format('region %s lives on this shard', region_name(p_to)));
    END IF;
    PERFORM check_may_leave(who);
    moved := jsonb_build_object('rows', jsonb_build_object(
        'users', jsonb_build_array(to_jsonb(who)),
        'user_profiles', ARRAY(SELECT to_jsonb(p) FROM user_profiles p WHERE p.user_id = p_id FOR UPDATE),
        'user_credentials', ARRAY(SELECT to_jsonb(c) FROM user_credentials c WHERE c.user_id = p_id
                                  FOR UPDATE),
        'payment_methods', ARRAY(SELECT to_jsonb(m) FROM payment_methods m WHERE m.user_id = p_id ORDER BY m.id
                                 FOR UPDATE),
        'deleted_rows', ARRAY(SELECT to_jsonb(d) FROM deleted_rows d WHERE d.user_id = p_id
                              AND d.deleted_at > statement_timestamp() - deleted_kept_for() FOR UPDATE)));
    moved := moved || jsonb_build_object('claims', ARRAY(
        SELECT jsonb_build_object('collection', c.collection, 'id', c.id, 'home', home_shard(c.id, p_shards))
        FROM (SELECT 1 AS collection, p_id AS id UNION
              SELECT 5, (m ->> 'id')::bigint FROM jsonb_array_elements(moved #> '{rows,payment_methods}') m UNION
              SELECT (d ->> 'collection')::int, (d ->> 'id')::bigint
              FROM jsonb_array_elements(moved #> '{rows,deleted_rows}') d) c));
    INSERT INTO id_claims (collection, id, shard)
    SELECT c.collection, c.id, p_to_shard
    FROM jsonb_to_recordset(moved -> 'claims') AS c (collection smallint, id bigint, home smallint)
    WHERE c.home = shard_number()
    ON CONFLICT (collection, id) DO UPDATE SET shard = EXCLUDED.shard, claimed_at = clock_timestamp();
    DELETE FROM payment_methods m WHERE m.user_id = p_id;
    DELETE FROM deleted_rows d WHERE d.user_id = p_id;
    DELETE FROM users u WHERE u.region = p_region AND u.id = p_id;
    others := p_to_shard || ARRAY(
        SELECT DISTINCT c.home FROM jsonb_to_recordset(moved -> 'claims') AS c (home smallint)
        WHERE c.home NOT IN (p_to_shard, shard_number()) ORDER BY 1);
    INSERT INTO transfers (id, outcome, user_id, from_region, to_region, to_shard, shards, content, actor)
    VALUES (p_transfer, 'committed', p_id, p_region, p_to, p_to_shard, others, moved, change_actor());
    RETURN QUERY SELECT moved::text, array_to_string(others, ' ');
END $$;
COMMENT ON FUNCTION transfer_out IS
    'A user leaves this shard: takes away and returns all that is theirs, and the numbers of the other shards that take '
    'part, the one they come to first. p_shards: the numbers of all shards, the one that keeps strange ids first';

CREATE OR REPLACE FUNCTION moved_row(p_row jsonb, p_to smallint) RETURNS jsonb
LANGUAGE sql
RETURN p_row || jsonb_build_object('region', p_to) || CASE WHEN p_row ? 'content_at' THEN (
    SELECT jsonb_build_object('updated_at', at, 'content_at', at)
    FROM (SELECT greatest(clock_timestamp(), (p_row ->> 'updated_at')::timestamptz + interval '1 microsecond') AS at)
         clock) ELSE '{}' END;
COMMENT ON FUNCTION moved_row IS 'A row as it is in another region: its times move as by any edit';

CREATE OR REPLACE FUNCTION check_two_phases() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('max_prepared_transactions')::int = 0 THEN
        PERFORM refuse('CF007', NULL,
                       format('shard number %s cannot take part in a move between shards: max_prepared_transactions is 0',
                              shard_number()),
                       'Set it to 10 on every node of every shard, standbys first, and restart them.');
    END IF;
END $$;
COMMENT ON FUNCTION check_two_phases IS 'Refuses where the server keeps no prepared transactions';

CREATE OR REPLACE FUNCTION transfer_in(p_content jsonb, p_to smallint, p_transfer uuid, p_actor text)
RETURNS TABLE (outcome text, id bigint, rev bigint, updated_us bigint, content_us bigint, body text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    moved deleted_rows;
    want users;
BEGIN
    PERFORM check_two_phases();
    PERFORM note_actor(p_actor);
    PERFORM local_region(p_to);
    moved.parts := (SELECT jsonb_object_agg(tab.key, (SELECT coalesce(jsonb_agg(moved_row(r, p_to)), '[]')
                                                      FROM jsonb_array_elements(tab.value) r))
                    FROM jsonb_each(p_content -> 'rows') tab WHERE tab.key <> 'deleted_rows');
    want := jsonb_populate_record(NULL::users, moved.parts -> 'users' -> 0);
    PERFORM check_id_elsewhere(1::smallint, 0::smallint, want.id);
    PERFORM check_user_names(want);
    DELETE FROM id_claims c
    USING jsonb_to_recordset(p_content -> 'claims') AS m (collection smallint, id bigint, home smallint)
    WHERE m.home = shard_number() AND c.collection = m.collection AND c.id = m.id;
    PERFORM take_deleted(1::smallint, p_to, want.id);
    PERFORM restore_parts(moved, 'users', 'user_profiles', 'user_credentials', 'payment_methods');
    INSERT INTO deleted_rows SELECT (jsonb_populate_record(NULL::deleted_rows, d)).*
    FROM jsonb_array_elements(p_content #> '{rows,deleted_rows}') d;
    PERFORM move_deleted(want.id, p_to);
    PERFORM note_request(p_transfer);
    RETURN QUERY SELECT 'created', d.id, d.rev, d.updated_us, d.content_us, d.body
                 FROM doc_users d WHERE d.region = p_to AND d.id = want.id;
END $$;
COMMENT ON FUNCTION transfer_in IS
    'A user comes from another shard, with all that transfer_out took there: ids, passwords and deleted rows as they '
    'were, times as a move within a shard sets them. No sequence moves';

CREATE OR REPLACE FUNCTION transfer_claims(p_content jsonb, p_to_shard smallint, p_transfer uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
DECLARE
    claim record;
BEGIN
    PERFORM check_two_phases();
    FOR claim IN SELECT m.collection, m.id
                 FROM jsonb_to_recordset(p_content -> 'claims') AS m (collection smallint, id bigint, home smallint)
                 WHERE m.home = shard_number() ORDER BY m.collection, m.id LOOP
        UPDATE id_claims c SET shard = p_to_shard, claimed_at = clock_timestamp()
        WHERE c.collection = claim.collection AND c.id = claim.id;
        IF NOT FOUND AND claim.collection IN (SELECT number FROM collections) THEN
            PERFORM claim_id(claim.collection, claim.id, p_to_shard);
        END IF;
    END LOOP;
    PERFORM note_request(p_transfer);
    RETURN 'claimed';
END $$;
COMMENT ON FUNCTION transfer_claims IS
    'On a home of ids that move between two other shards: notes where their rows live now';

CREATE OR REPLACE FUNCTION transfer_outcome(p_transfer uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    -- Waits for a transaction under way that has inserted it; a mere SELECT would miss that one.
    INSERT INTO transfers (id, outcome, actor, finished_at) VALUES (p_transfer, 'void', change_actor(), clock_timestamp())
    ON CONFLICT DO NOTHING;
    RETURN (SELECT outcome FROM transfers WHERE id = p_transfer);
END $$;
COMMENT ON FUNCTION transfer_outcome IS
    'On the shard left: committed, the user has left and must arrive; or void, which is then final';

CREATE OR REPLACE FUNCTION transfer_done(p_transfer uuid) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp
RETURN EXISTS (SELECT FROM request_log WHERE request_id = p_transfer AND outcome = 'committed');
COMMENT ON FUNCTION transfer_done IS 'On a shard that takes part: whether it has committed its part';

CREATE OR REPLACE FUNCTION transfer_content(p_transfer uuid) RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp
RETURN (SELECT content::text FROM transfers WHERE id = p_transfer);
COMMENT ON FUNCTION transfer_content IS
    'On the shard left: all that moved, to be written again where a server has lost it. VOLATILE, as campusfs_ro may '
    'not call it: it holds a password''s hash';

CREATE OR REPLACE FUNCTION transfer_finish(p_transfer uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp
BEGIN ATOMIC
    UPDATE transfers SET finished_at = clock_timestamp() WHERE id = p_transfer AND finished_at IS NULL;
END;
COMMENT ON FUNCTION transfer_finish IS 'On the shard left: all others have committed their parts';
