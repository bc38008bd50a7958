-- index: transactions_method_idx
-- Whether a payment method was used; what forbids to delete it.
--   $1  payment method id
SELECT count(*)
FROM campusfs.transactions
WHERE payment_method_id = $1::bigint
