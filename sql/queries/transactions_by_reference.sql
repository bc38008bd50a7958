-- index: transactions_gateway_reference_key
-- A gateway's message names its payment: which is it here?
--   $1  reference
--   $2  gateway
SELECT id, region, status, amount
FROM campusfs.transactions
WHERE gateway_reference = $1::text AND gateway = $2::text
