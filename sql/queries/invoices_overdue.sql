-- index: invoices_due_idx
-- Invoices that should have been paid by a day.
--   $1  day
SELECT id, region, number, due_on, total, currency
FROM campusfs.invoices
WHERE status = 'issued' AND due_on < $1::date
ORDER BY due_on
