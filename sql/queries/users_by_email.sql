-- index: users_email_key
-- Support: who has this address, whatever the case of its letters? Also logins.
--   $1  e-mail address
SELECT id, region, username, status
FROM campusfs.users
WHERE lower(email) = lower($1::text)
