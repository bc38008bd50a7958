-- Indexes beyond keys. Each serves a named query of queries/, whose first line names it; a test runs EXPLAIN on every
-- one. Foreign keys that are followed backwards (deletion, cascade) are covered, too.
--
-- Where people look within a region, region leads, and the order of the list ends the key: a page of it is one range.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

-- Users
CREATE UNIQUE INDEX users_email_key ON users (lower(email));
CREATE UNIQUE INDEX users_username_key ON users (lower(username));
CREATE INDEX users_name_trgm ON users USING gin (lower(first_name || ' ' || last_name) gin_trgm_ops);
CREATE INDEX users_created_idx ON users (region, created_at, id);
-- Most users are active students: nobody lists those by status or role.
CREATE INDEX users_status_idx ON users (region, status, id) WHERE status <> 'active';
CREATE INDEX users_role_idx ON users (region, role, id) WHERE role <> 'student';
CREATE INDEX user_profiles_country_idx ON user_profiles (region, country, user_id);

-- Courses
CREATE INDEX course_categories_parent_idx ON course_categories (parent_id, id);
CREATE INDEX courses_instructor_idx ON courses (region, instructor_id, id);
CREATE INDEX courses_category_idx ON courses (category_id, status, published_at);
CREATE INDEX courses_status_idx ON courses (region, status, created_at, id);
CREATE INDEX courses_rating_idx ON courses (average_rating DESC NULLS LAST, rating_count DESC)
    WHERE status = 'published';
CREATE INDEX courses_title_trgm ON courses USING gin (lower(title) gin_trgm_ops);
CREATE INDEX course_lessons_media_idx ON course_lessons (media) WHERE media IS NOT NULL;

-- Learning
CREATE INDEX enrollments_course_idx ON enrollments (course_id, status, id);
CREATE INDEX enrollments_status_idx ON enrollments (region, status, enrolled_at, id);
CREATE INDEX enrollments_enrolled_idx ON enrollments (enrolled_at);
CREATE INDEX enrollments_completed_idx ON enrollments (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX lesson_progress_lesson_idx ON lesson_progress (lesson_id, status);
CREATE INDEX course_reviews_course_idx ON course_reviews (course_id, created_at);
CREATE INDEX course_reviews_low_idx ON course_reviews (region, created_at) WHERE rating <= 2;

-- Payments
CREATE UNIQUE INDEX payment_methods_default_key ON payment_methods (user_id) WHERE is_default;
CREATE INDEX payment_methods_token_idx ON payment_methods (token);
CREATE INDEX payment_methods_expiry_idx ON payment_methods (expires_on, id) WHERE expires_on IS NOT NULL;
CREATE INDEX transactions_user_idx ON transactions (user_id, created_at);
CREATE INDEX transactions_course_idx ON transactions (course_id, status);
CREATE INDEX transactions_method_idx ON transactions (payment_method_id) WHERE payment_method_id IS NOT NULL;
CREATE INDEX transactions_status_idx ON transactions (region, status, created_at);
CREATE INDEX transactions_completed_idx ON transactions (created_at) INCLUDE (amount, currency)
    WHERE status = 'completed';
CREATE UNIQUE INDEX transactions_gateway_reference_key ON transactions (gateway_reference, gateway);
CREATE INDEX invoices_transaction_idx ON invoices (region, transaction_id);
CREATE INDEX invoices_status_idx ON invoices (region, status, issued_on);
CREATE INDEX invoices_due_idx ON invoices (due_on) WHERE status = 'issued';

-- Counters, progress and positions move often, and no index has them: room for the next version on the same page.
ALTER TABLE courses SET (fillfactor = 90);
ALTER TABLE enrollments SET (fillfactor = 90);
ALTER TABLE lesson_progress SET (fillfactor = 90);

-- Technical
CREATE INDEX change_log_folder_idx ON change_log (collection, region, changed_at);
CREATE INDEX change_log_row_idx ON change_log (row_id, collection);
CREATE INDEX request_log_created_idx ON request_log (created_at);
