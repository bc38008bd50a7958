-- Sequences follow a restore. Ids that somebody chose never move a sequence, or one stray 274877906943.json would end
-- it; but after a restore it must not give away ids that the platform had before. What tells the two apart is the time:
-- a document that is created under its own id and with its own time (rsync -a, cp -a, tar x) comes out of a backup.
-- check_document notes that in the setting campusfs.restoring, for the statement that follows.
--
-- So nobody has to remember anything: whatever tool brings the rows back, `.next-id` goes on behind them.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE OR REPLACE FUNCTION pass_sequence(p_sequence regclass, p_used bigint, p_end bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    IF p_used <= coalesce(pg_sequence_last_value(p_sequence), 0) OR p_used > p_end OR p_used IS NULL THEN
        RETURN;
    END IF;
    -- setval and the look before it are one step only under a lock. Of the session, not the transaction: writers of one
    -- collection would wait for each other's commits. Nothing between lock and unlock can fail.
    PERFORM pg_advisory_lock(p_sequence::oid::bigint::bit(32)::int, 0);
    IF p_used > coalesce(pg_sequence_last_value(p_sequence), 0) THEN
        PERFORM setval(p_sequence, p_used);
    END IF;
    PERFORM pg_advisory_unlock(p_sequence::oid::bigint::bit(32)::int, 0);
END $$;
COMMENT ON FUNCTION pass_sequence IS
    'Moves a sequence past a value in use, never back, and not for values beyond p_end';

CREATE OR REPLACE FUNCTION pass_ids() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    -- A million ids stay free behind the last one that a sequence is moved to.
    PERFORM pass_sequence((TG_TABLE_NAME || '_id_seq')::regclass,
                          (SELECT max(id) FROM new_rows WHERE id % 1000 = shard_number()),
                          274877906943 - 1000000000);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pass_ids IS 'AFTER INSERT of rows out of a backup: fresh ids come behind theirs';

CREATE OR REPLACE FUNCTION pass_invoice_numbers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = campusfs, pg_catalog, pg_temp AS $$
BEGIN
    -- INV-002-00000017, and INV-2-17 as older ones are written.
    PERFORM pass_sequence('invoice_number_seq', (
        SELECT max(split_part(number, '-', 3)::bigint) FROM new_rows
        WHERE number ~ format('^INV-0{0,2}%s-[0-9]{1,12}$', shard_number())), 900000000000);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pass_invoice_numbers IS 'AFTER INSERT of invoices out of a backup: fresh numbers come behind theirs';

DO $$
DECLARE
    tab name;
BEGIN
    FOREACH tab IN ARRAY ARRAY['users', 'courses', 'enrollments', 'course_reviews', 'payment_methods', 'transactions',
                               'invoices', 'course_categories', 'course_modules', 'course_lessons'] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER pass_ids AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows
                        FOR EACH STATEMENT WHEN (current_setting(''campusfs.restoring'', true) = ''on'')
                        EXECUTE FUNCTION pass_ids()', tab);
    END LOOP;
END $$;
CREATE OR REPLACE TRIGGER pass_invoice_numbers AFTER INSERT ON invoices REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT WHEN (current_setting('campusfs.restoring', true) = 'on')
    EXECUTE FUNCTION pass_invoice_numbers();
