-- index: payment_methods_user_key
-- The ways a user can pay; also what forbids to delete the user.
--   $1  user id
SELECT id, kind, brand, last_four, expires_on, is_default
FROM campusfs.payment_methods
WHERE user_id = $1::bigint
ORDER BY id
