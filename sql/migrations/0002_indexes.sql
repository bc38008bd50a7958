-- Indexes beyond keys. Each serves a named query of queries/, whose first line names it; a test runs EXPLAIN on every
-- one. Foreign keys that can be followed backwards (deletion, cascade) are covered, too.

SET LOCAL search_path = campusfs, pg_catalog, pg_temp;

-- Users
CREATE UNIQUE INDEX users_email_key ON users (lower(email));
CREATE UNIQUE INDEX users_username_key ON users (lower(username));
CREATE UNIQUE INDEX payment_methods_default_key ON payment_methods (user_id) WHERE is_default;
