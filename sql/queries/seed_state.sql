-- What `campusfs seed` finds on a shard: its own entry, if there is one, and a collection that has rows.
SELECT l.seed, l.users, l.steps, l.finished_at IS NOT NULL AS finished,
       (SELECT folder FROM collections WHERE number = CASE
            WHEN EXISTS (SELECT FROM users) THEN 1
            WHEN EXISTS (SELECT FROM courses) THEN 2
            WHEN EXISTS (SELECT FROM course_categories) THEN 8
        END) AS filled,
       pg_try_advisory_lock(hashtext('campusfs seed')) AS locked
FROM (SELECT) AS always LEFT JOIN seed_log l ON true
