-- index: payment_methods_default_key
-- What a user pays with when nothing is said.
--   $1  user id
SELECT id, kind, brand, last_four
FROM campusfs.payment_methods
WHERE user_id = $1::bigint AND is_default
