-- index: invoices_id_key
-- Where an invoice lies when only the id is known; how next_id() skips ids taken.
--   $1  id
SELECT region
FROM campusfs.invoices
WHERE id = $1::bigint
