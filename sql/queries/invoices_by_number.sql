-- index: invoices_number_key
-- Support: the invoice that a customer holds in hand.
--   $1  number
SELECT id, region, transaction_id, status, total, currency
FROM campusfs.invoices
WHERE number = $1::text
