-- Roles, ownership and privileges. Last, so that whatever the files before made is covered without being named.
--
-- Roles belong to the whole server: those that are missing are made, none is given a password.
--   campusfs_owner   owns every object, cannot log in
--   campusfs_rw      the mount and SQL clients: reads and writes rows, calls functions
--   campusfs_ro      reads
--   campusfs_repl    streaming replicas and the change feed
-- user_credentials, deleted_rows and transfers are for functions only, which run as the owner.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

DO $$
DECLARE
    superuser CONSTANT boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
    missing text;
    client text;
BEGIN
    FOREACH missing IN ARRAY ARRAY['campusfs_owner', 'campusfs_rw', 'campusfs_ro', 'campusfs_repl'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = missing) THEN
            CONTINUE;
        ELSIF missing = 'campusfs_repl' AND NOT superuser THEN
            RAISE EXCEPTION 'role campusfs_repl is missing, and only a superuser can make it'
                USING ERRCODE = '42501', HINT = 'CREATE ROLE campusfs_repl LOGIN REPLICATION';
        END IF;
        BEGIN
            EXECUTE format('CREATE ROLE %I %s', missing,
                           CASE missing WHEN 'campusfs_owner' THEN 'NOLOGIN'
                                        WHEN 'campusfs_repl' THEN 'LOGIN REPLICATION' ELSE 'LOGIN' END);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- init of another database of this server was faster
        END;
    END LOOP;
    IF NOT superuser AND NOT pg_has_role('campusfs_owner', 'MEMBER') THEN
        GRANT campusfs_owner TO CURRENT_USER;
    END IF;
    IF superuser THEN -- parameters of our statements hold passwords: never in a server log
        ALTER ROLE campusfs_rw SET log_parameter_max_length = 0;
        ALTER ROLE campusfs_rw SET log_parameter_max_length_on_error = 0;
    END IF;
    FOREACH client IN ARRAY ARRAY['campusfs_rw', 'campusfs_ro'] LOOP
        EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = campusfs, pg_catalog, pg_temp', client,
                       current_database());
    END LOOP;
    -- A page of a million users by a plan for unknown limits: 47 ms and more with parallel workers, 2 ms without.
    EXECUTE format('ALTER ROLE campusfs_rw IN DATABASE %I SET max_parallel_workers_per_gather = 0', current_database());
    EXECUTE format('ALTER ROLE campusfs_rw IN DATABASE %I SET jit = off', current_database());
    EXECUTE format('REVOKE CREATE ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO campusfs_rw, campusfs_ro, campusfs_repl, campusfs_owner',
                   current_database());
END $$;

ALTER SCHEMA campusfs OWNER TO campusfs_owner;

-- Everything that is not an extension's belongs to the owner, and functions are nobody else's business until granted.
DO $$
DECLARE
    command text;
BEGIN
    FOR command IN
        WITH extension_members AS (
            SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
        SELECT format('ALTER %s %s OWNER TO campusfs_owner',
                      CASE relkind WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' ELSE 'SEQUENCE' END, c.oid::regclass)
        FROM pg_class c
        WHERE relnamespace = 'campusfs'::regnamespace AND relowner <> 'campusfs_owner'::regrole
            AND (relkind IN ('r', 'v') -- a sequence that belongs to a column follows its table
                 OR relkind = 'S' AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype IN ('a', 'i')))
            AND NOT EXISTS (SELECT FROM extension_members WHERE classid = 'pg_class'::regclass AND objid = c.oid)
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO campusfs_owner', p.oid::regprocedure)
        FROM pg_proc p
        WHERE pronamespace = 'campusfs'::regnamespace AND proowner <> 'campusfs_owner'::regrole
            AND NOT EXISTS (SELECT FROM extension_members WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
        UNION ALL
        SELECT format('ALTER DOMAIN %s OWNER TO campusfs_owner', t.oid::regtype)
        FROM pg_type t
        WHERE typnamespace = 'campusfs'::regnamespace AND typtype = 'd' AND typowner <> 'campusfs_owner'::regrole
        UNION ALL
        SELECT format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', p.oid::regprocedure)
        FROM pg_proc p
        WHERE pronamespace = 'campusfs'::regnamespace
            AND NOT EXISTS (SELECT FROM extension_members WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
        UNION ALL
        SELECT format('GRANT EXECUTE ON ROUTINE %s TO campusfs_rw%s', p.oid::regprocedure,
                      CASE WHEN provolatile <> 'v' THEN ', campusfs_ro' ELSE '' END)
        FROM pg_proc p
        WHERE pronamespace = 'campusfs'::regnamespace
            AND NOT EXISTS (SELECT FROM extension_members WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
    LOOP
        EXECUTE command;
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA campusfs TO campusfs_rw, campusfs_ro, campusfs_repl;
-- For pg_stat_wal_receiver.received_tli: only by it does a mount see at once that a standby follows a new timeline.
GRANT pg_read_all_stats TO campusfs_rw;
GRANT SELECT ON ALL TABLES IN SCHEMA campusfs TO campusfs_rw, campusfs_ro;

-- Rows of documents and of their parts; but nobody except the triggers writes what they derive.
DO $$
DECLARE
    tab name;
    columns text;
BEGIN
    FOR tab IN SELECT table_name FROM collections UNION ALL
               VALUES ('user_profiles'), ('course_modules'), ('course_lessons'), ('lesson_progress') LOOP
        columns := (SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
                    WHERE attrelid = tab::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
                        AND (tab, attname) NOT IN (
                            ('courses', 'duration_minutes'), ('courses', 'rating_sum'), ('courses', 'rating_count'),
                            ('courses', 'enrollment_count'), ('enrollments', 'progress_percent')));
        EXECUTE format('GRANT INSERT (%s), UPDATE (%s), DELETE ON %I TO campusfs_rw', columns, columns, tab);
    END LOOP;
END $$;

GRANT USAGE ON ALL SEQUENCES IN SCHEMA campusfs TO campusfs_rw;
GRANT SELECT ON change_log TO campusfs_repl;
REVOKE ALL ON user_credentials, deleted_rows, transfers FROM campusfs_rw, campusfs_ro, campusfs_repl;
-- The mount may be told to show them (credentials = on).
REVOKE ALL ON doc_credentials FROM campusfs_ro, campusfs_repl;
