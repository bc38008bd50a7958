-- index: payment_methods_id_key
-- Where a payment method lies when only the id is known; how next_id() skips ids taken.
--   $1  id
SELECT region
FROM campusfs.payment_methods
WHERE id = $1::bigint
