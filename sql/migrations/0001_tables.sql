-- The tables of one shard. `campusfs init` runs this file once, in one transaction with all that follows it, after
--     SET campusfs.shard_number = '<0..999>'
-- and fills `regions` afterwards. Indexes beyond keys are in 0002; functions, triggers and views are in code/,
-- which is run again whenever it changes. docs/data-model.md explains the whole.
--
-- Third normal form, with these controlled redundancies, each kept true by the database:
--   region of what a user owns       the distribution key; composite foreign keys with ON UPDATE CASCADE
--   courses.duration_minutes,
--     rating_sum, rating_count,
--     enrollment_count               counted per view they would cost an aggregate a listed row; triggers (code/)
--   enrollments.progress_percent     the same
--   rev, updated_at, content_at      the clocks of a document whose parts lie in several tables; triggers (code/)

CREATE SCHEMA campusfs;
COMMENT ON SCHEMA campusfs IS 'One shard of the learning platform: tables, documents and procedures';

CREATE EXTENSION IF NOT EXISTS pgcrypto SCHEMA campusfs;
CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA campusfs;

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

CREATE DOMAIN moment AS timestamptz
    CONSTRAINT moment_finite CHECK (VALUE >= '0001-01-01 00:00:00+00' AND VALUE < '10000-01-01 00:00:00+00');
COMMENT ON DOMAIN moment IS 'A point in time that a document can show: finite, years 1 to 9999';

CREATE DOMAIN day AS date
    CONSTRAINT day_finite CHECK (VALUE >= '0001-01-01' AND VALUE < '10000-01-01');
COMMENT ON DOMAIN day IS 'A calendar day that a document can show: finite, years 1 to 9999';

CREATE DOMAIN currency AS text
    CONSTRAINT currency_iso_4217 CHECK (VALUE ~ '^[A-Z]{3}$');
COMMENT ON DOMAIN currency IS 'ISO 4217 code in capitals, such as EUR';

-- The technical tables -----------------------------------------------------------------------------------------------

CREATE TABLE schema_version (
    entry      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version    int NOT NULL CHECK (version > 0),
    code_hash  text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE schema_version IS 'What init has applied, oldest first; the last entry is what the shard has now';
COMMENT ON COLUMN schema_version.entry IS 'Order of the entries';
COMMENT ON COLUMN schema_version.version IS 'Number of the last migration file applied';
COMMENT ON COLUMN schema_version.code_hash IS 'Hash over all files of code/, in the order they run';
COMMENT ON COLUMN schema_version.applied_at IS 'When init committed it';

CREATE TABLE shard (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    number    smallint NOT NULL CHECK (number BETWEEN 0 AND 999)
);
COMMENT ON TABLE shard IS 'Which shard this database is; one row';
COMMENT ON COLUMN shard.singleton IS 'Always true: there is one row';
COMMENT ON COLUMN shard.number IS 'Ids drawn here are this modulo 1000; never changes';
INSERT INTO shard (number) VALUES (current_setting('campusfs.shard_number')::smallint);

CREATE TABLE regions (
    number   smallint PRIMARY KEY CHECK (number BETWEEN 1 AND 63),
    name     text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9_-]{1,63}$'),
    is_local boolean NOT NULL
);
COMMENT ON TABLE regions IS 'The configured regions of all shards; written by init, never renumbered';
COMMENT ON COLUMN regions.number IS 'Stored in every row of the region and in its inode numbers';
COMMENT ON COLUMN regions.name IS 'Folder name below regions/';
COMMENT ON COLUMN regions.is_local IS 'Whether the rows of the region live on this shard';

CREATE TABLE collections (
    number     smallint PRIMARY KEY CHECK (number BETWEEN 1 AND 15),
    folder     text NOT NULL UNIQUE,
    table_name name NOT NULL UNIQUE,
    noun       text NOT NULL
);
COMMENT ON TABLE collections IS 'The document collections; each file code/4*_*.sql registers its own';
COMMENT ON COLUMN collections.number IS 'Number in inode numbers, change_log and id_claims; never reused';
COMMENT ON COLUMN collections.folder IS 'Folder name in the tree';
COMMENT ON COLUMN collections.table_name IS 'The table whose rows are the documents';
COMMENT ON COLUMN collections.noun IS 'What messages call one document';

CREATE TABLE id_claims (
    collection smallint NOT NULL,
    id         bigint NOT NULL CHECK (id BETWEEN 1 AND 274877906943),
    shard      smallint NOT NULL CHECK (shard BETWEEN 0 AND 999),
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (collection, id)
);
COMMENT ON TABLE id_claims IS 'Ids of this shard''s numbers whose rows live on another shard';
COMMENT ON COLUMN id_claims.collection IS 'collections.number';
COMMENT ON COLUMN id_claims.id IS 'The id taken';
COMMENT ON COLUMN id_claims.shard IS 'Number of the shard where its row lives';
COMMENT ON COLUMN id_claims.claimed_at IS 'When it was claimed';

CREATE TABLE request_log (
    request_id uuid PRIMARY KEY,
    outcome    text NOT NULL CHECK (outcome IN ('committed', 'void')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE request_log IS
    'Every write inserts its request id in its own transaction, so that a lost answer can be looked up; kept '
    '7 days';
COMMENT ON COLUMN request_log.request_id IS 'Chosen by who writes';
COMMENT ON COLUMN request_log.outcome IS
    'committed: the write is there; void: given up before it came, it never can be';
COMMENT ON COLUMN request_log.created_at IS 'For pruning';

CREATE TABLE seed_log (
    seed        bigint PRIMARY KEY CHECK (seed >= 0),
    users       bigint NOT NULL CHECK (users > 0),
    steps       int NOT NULL DEFAULT 0 CHECK (steps >= 0),
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE UNIQUE INDEX seed_log_single ON seed_log ((true));
COMMENT ON TABLE seed_log IS
    'Whether `campusfs seed` has filled the shard, at most one row: a second run changes nothing, an '
    'interrupted one goes on';
COMMENT ON COLUMN seed_log.seed IS 'What the sample data were made of';
COMMENT ON COLUMN seed_log.users IS 'How many users it makes, on all shards together';
COMMENT ON COLUMN seed_log.steps IS 'Batches committed so far; each counts itself in its own transaction';
COMMENT ON COLUMN seed_log.started_at IS 'When the first batch was';
COMMENT ON COLUMN seed_log.finished_at IS 'When all was there, media and preferences too; NULL until then';

-- Ids step by 1000 from the shard's number, so that no two shards ever draw the same one.
DO $$
DECLARE
    shard_number smallint := (SELECT number FROM shard);
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['users', 'courses', 'enrollments', 'course_reviews', 'payment_methods', 'transactions',
                                'invoices', 'course_categories', 'course_modules', 'course_lessons'] LOOP
        EXECUTE format('CREATE SEQUENCE %I AS bigint INCREMENT 1000 MINVALUE %s START %s MAXVALUE 274877906943',
                       name || '_id_seq', CASE shard_number WHEN 0 THEN 1000 ELSE shard_number END,
                       CASE shard_number WHEN 0 THEN 1000 ELSE shard_number END);
        EXECUTE format('COMMENT ON SEQUENCE %I IS %L', name || '_id_seq', 'Fresh ids of ' || name ||
                       '; drawn by next_id() and next_child_id(), which skip ids already taken');
    END LOOP;
END $$;

CREATE SEQUENCE rev_seq AS bigint;
COMMENT ON SEQUENCE rev_seq IS
    'Revisions of documents: one counter a shard, so that a row deleted and created again never repeats one';
CREATE SEQUENCE change_log_id_seq AS bigint;
COMMENT ON SEQUENCE change_log_id_seq IS 'Tells the entries of one transaction apart';
CREATE SEQUENCE invoice_number_seq AS bigint;
COMMENT ON SEQUENCE invoice_number_seq IS 'The running part of invoice numbers, which carry the shard as well';

CREATE TABLE change_log (
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id         bigint NOT NULL DEFAULT nextval('change_log_id_seq'),
    collection smallint NOT NULL,
    region     smallint NOT NULL,
    row_id     bigint,
    operation  text NOT NULL CHECK (operation IN ('insert', 'update', 'delete', 'bulk')),
    rev        bigint NOT NULL,
    actor      text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (xid, id),
    CONSTRAINT change_log_bulk_names_no_row CHECK ((operation = 'bulk') = (row_id IS NULL))
);
COMMENT ON TABLE change_log IS
    'Which document changed, how, when and by whom; no contents. Feeds the caches of mounts and the times of '
    'folders';
COMMENT ON COLUMN change_log.xid IS 'The transaction: what a reader of snapshots needs to find late commits';
COMMENT ON COLUMN change_log.id IS 'Order within the transaction; gaps mean nothing';
COMMENT ON COLUMN change_log.collection IS 'collections.number';
COMMENT ON COLUMN change_log.region IS 'regions.number, 0 for collections without regions';
COMMENT ON COLUMN change_log.row_id IS
    'The document; NULL when a statement changed so many that the whole collection of the region is meant';
COMMENT ON COLUMN change_log.operation IS 'What happened to the document; a change of a part is an update';
COMMENT ON COLUMN change_log.rev IS 'Its revision afterwards; of a deletion, a revision later than any it had';
COMMENT ON COLUMN change_log.actor IS 'Who: the setting campusfs.actor, else the database role';
COMMENT ON COLUMN change_log.changed_at IS 'When the statement ran; the last one is the folder''s mtime';

-- Users --------------------------------------------------------------------------------------------------------------

CREATE TABLE users (
    region         smallint NOT NULL REFERENCES regions (number),
    id             bigint NOT NULL CHECK (id BETWEEN 1 AND 274877906943),
    email          text NOT NULL CHECK (email ~ '^[^\s@]+@[^\s@]+$' AND length(email) <= 254),
    username       text NOT NULL CHECK (username ~ '^[^\s/]{1,64}$'),
    first_name     text NOT NULL CHECK (length(first_name) BETWEEN 1 AND 100),
    last_name      text NOT NULL CHECK (length(last_name) <= 100),
    role           text NOT NULL DEFAULT 'student' CHECK (role IN ('student', 'instructor', 'admin')),
    status         text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'deleted')),
    email_verified boolean NOT NULL DEFAULT false,
    last_login_at  moment,
    created_at     moment NOT NULL DEFAULT statement_timestamp(),
    updated_at     moment NOT NULL DEFAULT statement_timestamp(),
    content_at     moment NOT NULL DEFAULT statement_timestamp(),
    rev            bigint NOT NULL DEFAULT nextval('rev_seq'),
    PRIMARY KEY (region, id),
    UNIQUE (id),
    CONSTRAINT users_content_not_after_update CHECK (content_at <= updated_at)
);
COMMENT ON TABLE users IS 'Students, instructors and admins';
COMMENT ON COLUMN users.region IS
    'Where the user''s data live: the distribution key, carried by all that the user owns';
COMMENT ON COLUMN users.id IS 'Unique over all shards';
COMMENT ON COLUMN users.email IS 'Address to log in with; unique on the shard, whatever the case of its letters';
COMMENT ON COLUMN users.username IS 'Public handle; unique on the shard, whatever the case of its letters';
COMMENT ON COLUMN users.first_name IS 'Given name';
COMMENT ON COLUMN users.last_name IS 'Family name; empty where a person has one name only';
COMMENT ON COLUMN users.role IS 'student, instructor or admin';
COMMENT ON COLUMN users.status IS 'active, suspended (cannot log in), deleted (kept for what refers to it)';
COMMENT ON COLUMN users.email_verified IS 'Whether the address was confirmed';
COMMENT ON COLUMN users.last_login_at IS 'Last successful login; does not count as an edit of the document';
COMMENT ON COLUMN users.created_at IS 'When the account was opened';
COMMENT ON COLUMN users.updated_at IS 'The document''s mtime';
COMMENT ON COLUMN users.content_at IS
    'Last change of what people edit; a save based on an older version conflicts';
COMMENT ON COLUMN users.rev IS 'Revision of the document''s bytes';

CREATE TABLE user_profiles (
    region        smallint NOT NULL,
    user_id       bigint NOT NULL,
    bio           text CHECK (length(bio) <= 10000),
    avatar_url    text CHECK (avatar_url ~ '^https?://\S+$' AND length(avatar_url) <= 2000),
    phone         text CHECK (phone ~ '^\+?[0-9 ()./-]{3,32}$'),
    date_of_birth day,
    country       text CHECK (country ~ '^[A-Z]{2}$'),
    city          text CHECK (length(city) <= 100),
    timezone      text CHECK (timezone ~ '^[A-Za-z0-9_+/-]{1,64}$'),
    language      text CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
    website       text CHECK (website ~ '^https?://\S+$' AND length(website) <= 2000),
    PRIMARY KEY (region, user_id),
    FOREIGN KEY (region, user_id) REFERENCES users (region, id) ON UPDATE CASCADE ON DELETE CASCADE
);
COMMENT ON TABLE user_profiles IS
    'What a user tells about themselves; part of the user''s document, without clocks of its own';
COMMENT ON COLUMN user_profiles.region IS 'The user''s region';
COMMENT ON COLUMN user_profiles.user_id IS 'Whose profile';
COMMENT ON COLUMN user_profiles.bio IS 'A few words, at most 10,000 characters';
COMMENT ON COLUMN user_profiles.avatar_url IS 'Picture, http or https';
COMMENT ON COLUMN user_profiles.phone IS 'As given, digits with the usual separators';
COMMENT ON COLUMN user_profiles.date_of_birth IS 'Day of birth';
COMMENT ON COLUMN user_profiles.country IS 'ISO 3166-1 alpha-2, capitals';
COMMENT ON COLUMN user_profiles.city IS 'Place of residence';
COMMENT ON COLUMN user_profiles.timezone IS 'IANA name, such as Europe/Lisbon';
COMMENT ON COLUMN user_profiles.language IS 'BCP 47 tag, such as pt-BR';
COMMENT ON COLUMN user_profiles.website IS 'Home page, http or https';

CREATE TABLE user_credentials (
    region        smallint NOT NULL,
    user_id       bigint NOT NULL,
    password_hash text NOT NULL CHECK (password_hash ~ '^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$'),
    changed_at    moment NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (region, user_id),
    FOREIGN KEY (region, user_id) REFERENCES users (region, id) ON UPDATE CASCADE ON DELETE CASCADE
);
COMMENT ON TABLE user_credentials IS
    'Password hashes, apart from users so that no error text, document or ordinary grant ever shows one';
COMMENT ON COLUMN user_credentials.region IS 'The user''s region';
COMMENT ON COLUMN user_credentials.user_id IS 'Whose password';
COMMENT ON COLUMN user_credentials.password_hash IS 'bcrypt, made by pgcrypto';
COMMENT ON COLUMN user_credentials.changed_at IS
    'When the password last changed: a time of its own, the user''s document does not move';

-- Courses ------------------------------------------------------------------------------------------------------------

CREATE TABLE course_categories (
    region      smallint NOT NULL DEFAULT 0 CHECK (region = 0),
    id          bigint NOT NULL CHECK (id BETWEEN 1 AND 274877906943),
    parent_id   bigint,
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    slug        text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(slug) <= 200),
    description text CHECK (length(description) <= 10000),
    created_at  moment NOT NULL DEFAULT statement_timestamp(),
    updated_at  moment NOT NULL DEFAULT statement_timestamp(),
    content_at  moment NOT NULL DEFAULT statement_timestamp(),
    rev         bigint NOT NULL DEFAULT nextval('rev_seq'),
    PRIMARY KEY (region, id),
    UNIQUE (id),
    FOREIGN KEY (parent_id) REFERENCES course_categories (id),
    CONSTRAINT course_categories_not_own_parent CHECK (parent_id <> id),
    CONSTRAINT course_categories_content_not_after_update CHECK (content_at <= updated_at)
);
COMMENT ON TABLE course_categories IS
    'Subjects of courses, a tree; reference data, the same on every shard, the first shard has the say';
COMMENT ON COLUMN course_categories.region IS
    'Always 0, no region: keeps the key of every collection (region, id)';
COMMENT ON COLUMN course_categories.id IS 'The same on every shard';
COMMENT ON COLUMN course_categories.parent_id IS 'The wider subject; NULL at the top';
COMMENT ON COLUMN course_categories.name IS 'Shown to people';
COMMENT ON COLUMN course_categories.slug IS 'Name in addresses, unique';
COMMENT ON COLUMN course_categories.description IS 'What belongs here';
COMMENT ON COLUMN course_categories.created_at IS 'When it was added';
COMMENT ON COLUMN course_categories.updated_at IS 'The document''s mtime';
COMMENT ON COLUMN course_categories.content_at IS 'Last change of what people edit';
COMMENT ON COLUMN course_categories.rev IS 'Revision of the document''s bytes, counted by each shard for itself';

CREATE TABLE courses (
    region           smallint NOT NULL REFERENCES regions (number),
    id               bigint NOT NULL CHECK (id BETWEEN 1 AND 274877906943),
    instructor_id    bigint NOT NULL,
    category_id      bigint REFERENCES course_categories (id),
    title            text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    slug             text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(slug) <= 200),
    description      text CHECK (length(description) <= 100000),
    level            text NOT NULL DEFAULT 'beginner' CHECK (level IN ('beginner', 'intermediate', 'advanced')),
    language         text NOT NULL DEFAULT 'en' CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
    price            numeric(10, 2) NOT NULL DEFAULT 0 CHECK (price >= 0),
    currency         currency NOT NULL DEFAULT 'USD',
    status           text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'published', 'archived')),
    duration_minutes int NOT NULL DEFAULT 0 CHECK (duration_minutes >= 0),
    rating_sum       bigint NOT NULL DEFAULT 0,
    rating_count     int NOT NULL DEFAULT 0 CHECK (rating_count >= 0),
    average_rating   numeric(3, 2) GENERATED ALWAYS AS (round(rating_sum::numeric / nullif(rating_count, 0), 2)) STORED,
    enrollment_count int NOT NULL DEFAULT 0 CHECK (enrollment_count >= 0),
    published_at     moment,
    created_at       moment NOT NULL DEFAULT statement_timestamp(),
    updated_at       moment NOT NULL DEFAULT statement_timestamp(),
    content_at       moment NOT NULL DEFAULT statement_timestamp(),
    rev              bigint NOT NULL DEFAULT nextval('rev_seq'),
    PRIMARY KEY (region, id),
    UNIQUE (id),
    -- No ON UPDATE CASCADE: a user who teaches does not move.
    FOREIGN KEY (region, instructor_id) REFERENCES users (region, id),
    CONSTRAINT courses_rating_sum_in_range CHECK (rating_sum BETWEEN rating_count AND 5::bigint * rating_count),
    CONSTRAINT courses_content_not_after_update CHECK (content_at <= updated_at)
);
COMMENT ON TABLE courses IS 'Courses; with their modules and lessons one document';
COMMENT ON COLUMN courses.region IS 'The instructor''s region: the distribution key';
COMMENT ON COLUMN courses.id IS
    'Unique over all shards; who refers to a course does so by id alone, from any region of the shard';
COMMENT ON COLUMN courses.instructor_id IS 'Who teaches: a user of the same region';
COMMENT ON COLUMN courses.category_id IS 'Subject; NULL when not filed yet';
COMMENT ON COLUMN courses.title IS 'Shown to people';
COMMENT ON COLUMN courses.slug IS 'Name in addresses, unique on the shard';
COMMENT ON COLUMN courses.description IS 'What one learns';
COMMENT ON COLUMN courses.level IS 'beginner, intermediate or advanced';
COMMENT ON COLUMN courses.language IS 'Language taught in, BCP 47';
COMMENT ON COLUMN courses.price IS 'Price of an enrollment';
COMMENT ON COLUMN courses.currency IS 'Of the price';
COMMENT ON COLUMN courses.status IS 'draft, published or archived';
COMMENT ON COLUMN courses.duration_minutes IS 'Derived: sum over the lessons';
COMMENT ON COLUMN courses.rating_sum IS
    'Derived: sum of the reviews'' ratings; a sum, so that a review costs one addition';
COMMENT ON COLUMN courses.rating_count IS 'Derived: number of reviews';
COMMENT ON COLUMN courses.average_rating IS 'Derived: rating_sum / rating_count, NULL without reviews';
COMMENT ON COLUMN courses.enrollment_count IS 'Derived: number of enrollments that are not cancelled';
COMMENT ON COLUMN courses.published_at IS 'When it first became public';
COMMENT ON COLUMN courses.created_at IS 'When it was begun';
COMMENT ON COLUMN courses.updated_at IS 'The document''s mtime';
COMMENT ON COLUMN courses.content_at IS
    'Last change of what people edit, modules and lessons included, ratings and counts not';
COMMENT ON COLUMN courses.rev IS 'Revision of the document''s bytes';

CREATE TABLE course_modules (
    id          bigint PRIMARY KEY CHECK (id BETWEEN 1 AND 274877906943),
    course_id   bigint NOT NULL REFERENCES courses (id) ON DELETE CASCADE,
    position    int NOT NULL CHECK (position > 0),
    title       text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    description text CHECK (length(description) <= 10000),
    CONSTRAINT course_modules_position_key UNIQUE (course_id, position) DEFERRABLE
);
COMMENT ON TABLE course_modules IS 'Chapters of a course; part of its document, without clocks of their own';
COMMENT ON COLUMN course_modules.id IS 'Kept over edits, so that a module can be renamed and moved';
COMMENT ON COLUMN course_modules.course_id IS 'The course';
COMMENT ON COLUMN course_modules.position IS 'Place in the course, from 1 without gaps';
COMMENT ON COLUMN course_modules.title IS 'Shown to people';
COMMENT ON COLUMN course_modules.description IS 'What the chapter is about';

CREATE TABLE course_lessons (
    id               bigint PRIMARY KEY CHECK (id BETWEEN 1 AND 274877906943),
    module_id        bigint NOT NULL REFERENCES course_modules (id) ON DELETE CASCADE,
    position         int NOT NULL CHECK (position > 0),
    title            text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    kind             text NOT NULL DEFAULT 'video' CHECK (kind IN ('video', 'document', 'quiz', 'assignment')),
    duration_minutes int NOT NULL DEFAULT 0 CHECK (duration_minutes BETWEEN 0 AND 100000),
    media            text CHECK (media ~ '^[^/[:cntrl:]]+(/[^/[:cntrl:]]+)*$' AND media !~ '(^|/)\.\.?(/|$)'
                                 AND length(media) <= 1000),
    is_preview       boolean NOT NULL DEFAULT false,
    CONSTRAINT course_lessons_position_key UNIQUE (module_id, position) DEFERRABLE
);
COMMENT ON TABLE course_lessons IS
    'Lessons of a module; part of the course''s document, without clocks of their own';
COMMENT ON COLUMN course_lessons.id IS 'Kept over edits, also into another module; progress refers to it';
COMMENT ON COLUMN course_lessons.module_id IS 'The module';
COMMENT ON COLUMN course_lessons.position IS 'Place in the module, from 1 without gaps';
COMMENT ON COLUMN course_lessons.title IS 'Shown to people';
COMMENT ON COLUMN course_lessons.kind IS 'video, document, quiz or assignment';
COMMENT ON COLUMN course_lessons.duration_minutes IS 'Expected time';
COMMENT ON COLUMN course_lessons.media IS 'Path of its file in the course''s media folder';
COMMENT ON COLUMN course_lessons.is_preview IS 'Open to who is not enrolled';

-- Learning -----------------------------------------------------------------------------------------------------------

CREATE TABLE enrollments (
    region           smallint NOT NULL,
    id               bigint NOT NULL CHECK (id BETWEEN 1 AND 274877906943),
    user_id          bigint NOT NULL,
    course_id        bigint NOT NULL REFERENCES courses (id),
    status           text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'completed', 'cancelled')),
    progress_percent numeric(5, 2) NOT NULL DEFAULT 0 CHECK (progress_percent BETWEEN 0 AND 100),
    enrolled_at      moment NOT NULL DEFAULT statement_timestamp(),
    completed_at     moment,
    created_at       moment NOT NULL DEFAULT statement_timestamp(),
    updated_at       moment NOT NULL DEFAULT statement_timestamp(),
    content_at       moment NOT NULL DEFAULT statement_timestamp(),
    rev              bigint NOT NULL DEFAULT nextval('rev_seq'),
    PRIMARY KEY (region, id),
    UNIQUE (id),
    CONSTRAINT enrollments_user_course_key UNIQUE (user_id, course_id),
    FOREIGN KEY (region, user_id) REFERENCES users (region, id) ON UPDATE CASCADE,
    CONSTRAINT enrollments_content_not_after_update CHECK (content_at <= updated_at)
);
COMMENT ON TABLE enrollments IS 'Who takes which course; with the progress in its lessons one document';
COMMENT ON COLUMN enrollments.region IS 'The user''s region';
COMMENT ON COLUMN enrollments.id IS 'Unique over all shards';
COMMENT ON COLUMN enrollments.user_id IS 'The student';
COMMENT ON COLUMN enrollments.course_id IS 'The course, of any region of the shard';
COMMENT ON COLUMN enrollments.status IS 'active, completed or cancelled';
COMMENT ON COLUMN enrollments.progress_percent IS
    'Derived: share of its own entries that are completed; not of the course as it is now, which would '
    'rewrite every enrollment when a lesson is added';
COMMENT ON COLUMN enrollments.enrolled_at IS 'When the student joined';
COMMENT ON COLUMN enrollments.completed_at IS 'When the course was finished';
COMMENT ON COLUMN enrollments.created_at IS 'When the row was made';
COMMENT ON COLUMN enrollments.updated_at IS 'The document''s mtime';
COMMENT ON COLUMN enrollments.content_at IS
    'Last change of what people edit, entries included, progress_percent not';
COMMENT ON COLUMN enrollments.rev IS 'Revision of the document''s bytes';

CREATE TABLE lesson_progress (
    enrollment_id    bigint NOT NULL REFERENCES enrollments (id) ON DELETE CASCADE,
    lesson_id        bigint NOT NULL REFERENCES course_lessons (id),
    status           text NOT NULL DEFAULT 'not_started' CHECK (status IN ('not_started', 'in_progress', 'completed')),
    position_seconds int NOT NULL DEFAULT 0 CHECK (position_seconds >= 0),
    completed_at     moment,
    PRIMARY KEY (enrollment_id, lesson_id)
);
COMMENT ON TABLE lesson_progress IS
    'Progress of an enrollment in each lesson it had when it began; part of the enrollment''s document';
COMMENT ON COLUMN lesson_progress.enrollment_id IS
    'The enrollment; by id alone, so that a user who moves does not rewrite every entry';
COMMENT ON COLUMN lesson_progress.lesson_id IS 'The lesson';
COMMENT ON COLUMN lesson_progress.status IS 'not_started, in_progress or completed';
COMMENT ON COLUMN lesson_progress.position_seconds IS 'Where the player stopped';
COMMENT ON COLUMN lesson_progress.completed_at IS 'When the lesson was finished';

CREATE TABLE course_reviews (
    region     smallint NOT NULL,
    id         bigint NOT NULL CHECK (id BETWEEN 1 AND 274877906943),
    user_id    bigint NOT NULL,
    course_id  bigint NOT NULL REFERENCES courses (id),
    rating     smallint NOT NULL CHECK (rating BETWEEN 1 AND 5),
    title      text CHECK (length(title) <= 200),
    body       text CHECK (length(body) <= 20000),
    created_at moment NOT NULL DEFAULT statement_timestamp(),
    updated_at moment NOT NULL DEFAULT statement_timestamp(),
    content_at moment NOT NULL DEFAULT statement_timestamp(),
    rev        bigint NOT NULL DEFAULT nextval('rev_seq'),
    PRIMARY KEY (region, id),
    UNIQUE (id),
    CONSTRAINT course_reviews_user_course_key UNIQUE (user_id, course_id),
    FOREIGN KEY (region, user_id) REFERENCES users (region, id) ON UPDATE CASCADE,
    CONSTRAINT course_reviews_content_not_after_update CHECK (content_at <= updated_at)
);
COMMENT ON TABLE course_reviews IS 'What students say of courses, one review a student and course';
COMMENT ON COLUMN course_reviews.region IS 'The user''s region';
COMMENT ON COLUMN course_reviews.id IS 'Unique over all shards';
COMMENT ON COLUMN course_reviews.user_id IS 'The author';
COMMENT ON COLUMN course_reviews.course_id IS 'The course, of any region of the shard';
COMMENT ON COLUMN course_reviews.rating IS 'Stars, 1 to 5';
COMMENT ON COLUMN course_reviews.title IS 'Headline';
COMMENT ON COLUMN course_reviews.body IS 'The text';
COMMENT ON COLUMN course_reviews.created_at IS 'When it was written';
COMMENT ON COLUMN course_reviews.updated_at IS 'The document''s mtime';
COMMENT ON COLUMN course_reviews.content_at IS 'Last change of what people edit';
COMMENT ON COLUMN course_reviews.rev IS 'Revision of the document''s bytes';

-- Payments -----------------------------------------------------------------------------------------------------------

CREATE TABLE payment_methods (
    region     smallint NOT NULL,
    id         bigint NOT NULL CHECK (id BETWEEN 1 AND 274877906943),
    user_id    bigint NOT NULL,
    kind       text NOT NULL DEFAULT 'card' CHECK (kind IN ('card', 'paypal', 'bank')),
    brand      text CHECK (length(brand) <= 50),
    last_four  text CHECK (last_four ~ '^[0-9]{4}$'),
    token      text NOT NULL CHECK (length(token) BETWEEN 1 AND 200),
    expires_on day,
    is_default boolean NOT NULL DEFAULT false,
    created_at moment NOT NULL DEFAULT statement_timestamp(),
    updated_at moment NOT NULL DEFAULT statement_timestamp(),
    content_at moment NOT NULL DEFAULT statement_timestamp(),
    rev        bigint NOT NULL DEFAULT nextval('rev_seq'),
    PRIMARY KEY (region, id),
    UNIQUE (id),
    CONSTRAINT payment_methods_user_key UNIQUE (user_id, id),
    FOREIGN KEY (region, user_id) REFERENCES users (region, id) ON UPDATE CASCADE,
    CONSTRAINT payment_methods_content_not_after_update CHECK (content_at <= updated_at)
);
COMMENT ON TABLE payment_methods IS 'Stored ways to pay: what the gateway gave us, never a card number';
COMMENT ON COLUMN payment_methods.region IS 'The user''s region';
COMMENT ON COLUMN payment_methods.id IS 'Unique over all shards';
COMMENT ON COLUMN payment_methods.user_id IS 'Whose';
COMMENT ON COLUMN payment_methods.kind IS 'card, paypal or bank';
COMMENT ON COLUMN payment_methods.brand IS 'Such as visa';
COMMENT ON COLUMN payment_methods.last_four IS 'Last four digits, for people to recognise it';
COMMENT ON COLUMN payment_methods.token IS 'The gateway''s name for it';
COMMENT ON COLUMN payment_methods.expires_on IS 'Last day it is valid';
COMMENT ON COLUMN payment_methods.is_default IS 'Used when none is named; at most one a user';
COMMENT ON COLUMN payment_methods.created_at IS 'When it was stored';
COMMENT ON COLUMN payment_methods.updated_at IS 'The document''s mtime';
COMMENT ON COLUMN payment_methods.content_at IS 'Last change of what people edit';
COMMENT ON COLUMN payment_methods.rev IS 'Revision of the document''s bytes';

CREATE TABLE transactions (
    region            smallint NOT NULL,
    id                bigint NOT NULL CHECK (id BETWEEN 1 AND 274877906943),
    user_id           bigint NOT NULL,
    course_id         bigint NOT NULL REFERENCES courses (id),
    payment_method_id bigint,
    amount            numeric(12, 2) NOT NULL CHECK (amount >= 0),
    currency          currency NOT NULL DEFAULT 'USD',
    status            text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'completed', 'failed', 'refunded')),
    gateway           text CHECK (length(gateway) BETWEEN 1 AND 50),
    gateway_reference text CHECK (length(gateway_reference) BETWEEN 1 AND 200),
    created_at        moment NOT NULL DEFAULT statement_timestamp(),
    updated_at        moment NOT NULL DEFAULT statement_timestamp(),
    content_at        moment NOT NULL DEFAULT statement_timestamp(),
    rev               bigint NOT NULL DEFAULT nextval('rev_seq'),
    PRIMARY KEY (region, id),
    UNIQUE (id),
    FOREIGN KEY (region, user_id) REFERENCES users (region, id) ON UPDATE CASCADE,
    -- By (user, id): nobody pays with another user's method, and a move needs no second cascade.
    FOREIGN KEY (user_id, payment_method_id) REFERENCES payment_methods (user_id, id),
    CONSTRAINT transactions_content_not_after_update CHECK (content_at <= updated_at)
);
COMMENT ON TABLE transactions IS 'Payments for courses';
COMMENT ON COLUMN transactions.region IS 'The user''s region';
COMMENT ON COLUMN transactions.id IS 'Unique over all shards';
COMMENT ON COLUMN transactions.user_id IS 'Who pays';
COMMENT ON COLUMN transactions.course_id IS 'For which course, of any region of the shard';
COMMENT ON COLUMN transactions.payment_method_id IS 'With which of the payer''s methods; NULL when none is stored';
COMMENT ON COLUMN transactions.amount IS 'What was charged';
COMMENT ON COLUMN transactions.currency IS 'Of the amount';
COMMENT ON COLUMN transactions.status IS 'pending, completed, failed or refunded';
COMMENT ON COLUMN transactions.gateway IS 'Payment provider';
COMMENT ON COLUMN transactions.gateway_reference IS 'The provider''s number of the payment, unique for a provider';
COMMENT ON COLUMN transactions.created_at IS 'When it was begun';
COMMENT ON COLUMN transactions.updated_at IS 'The document''s mtime';
COMMENT ON COLUMN transactions.content_at IS 'Last change of what people edit';
COMMENT ON COLUMN transactions.rev IS 'Revision of the document''s bytes';

CREATE TABLE invoices (
    region         smallint NOT NULL,
    id             bigint NOT NULL CHECK (id BETWEEN 1 AND 274877906943),
    transaction_id bigint NOT NULL,
    number         text NOT NULL UNIQUE CHECK (number ~ '^[A-Za-z0-9][A-Za-z0-9./-]{0,63}$'),
    status         text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'issued', 'paid', 'void')),
    issued_on      day,
    due_on         day,
    subtotal       numeric(12, 2) NOT NULL CHECK (subtotal >= 0),
    tax            numeric(12, 2) NOT NULL DEFAULT 0 CHECK (tax >= 0),
    total          numeric(13, 2) GENERATED ALWAYS AS (subtotal + tax) STORED,
    currency       currency NOT NULL DEFAULT 'USD',
    created_at     moment NOT NULL DEFAULT statement_timestamp(),
    updated_at     moment NOT NULL DEFAULT statement_timestamp(),
    content_at     moment NOT NULL DEFAULT statement_timestamp(),
    rev            bigint NOT NULL DEFAULT nextval('rev_seq'),
    PRIMARY KEY (region, id),
    UNIQUE (id),
    FOREIGN KEY (region, transaction_id) REFERENCES transactions (region, id) ON UPDATE CASCADE,
    CONSTRAINT invoices_due_after_issue CHECK (due_on >= issued_on),
    CONSTRAINT invoices_content_not_after_update CHECK (content_at <= updated_at)
);
COMMENT ON TABLE invoices IS 'Invoices, each of one transaction';
COMMENT ON COLUMN invoices.region IS 'The region of the transaction, that is, of its user';
COMMENT ON COLUMN invoices.id IS 'Unique over all shards';
COMMENT ON COLUMN invoices.transaction_id IS 'What is invoiced';
COMMENT ON COLUMN invoices.number IS 'Printed on it; INV-<shard>-<running number> unless given';
COMMENT ON COLUMN invoices.status IS 'draft, issued, paid or void';
COMMENT ON COLUMN invoices.issued_on IS 'Day of issue';
COMMENT ON COLUMN invoices.due_on IS 'Day by which it is to be paid';
COMMENT ON COLUMN invoices.subtotal IS 'Before tax';
COMMENT ON COLUMN invoices.tax IS 'Tax';
COMMENT ON COLUMN invoices.total IS 'Derived: subtotal + tax';
COMMENT ON COLUMN invoices.currency IS 'Of the amounts';
COMMENT ON COLUMN invoices.created_at IS 'When the row was made';
COMMENT ON COLUMN invoices.updated_at IS 'The document''s mtime';
COMMENT ON COLUMN invoices.content_at IS 'Last change of what people edit';
COMMENT ON COLUMN invoices.rev IS 'Revision of the document''s bytes';

-- The feed: what mounts subscribe to. Deletions of old log rows are not news.
CREATE PUBLICATION campusfs_changes FOR TABLE change_log WITH (publish = 'insert');
