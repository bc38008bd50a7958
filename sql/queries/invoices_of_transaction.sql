-- index: invoices_transaction_idx
-- The invoices of a payment; also what forbids to delete it.
--   $1  region
--   $2  transaction id
SELECT id, number, status, total, currency
FROM campusfs.invoices
WHERE region = $1::smallint AND transaction_id = $2::bigint
