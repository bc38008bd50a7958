-- index: invoices_status_idx
-- The invoices of a region in some status, by day of issue: what accounting asks for.
--   $1  region
--   $2  draft, issued, paid or void
--   $3  from day
--   $4  before day
SELECT id, number, issued_on, subtotal, tax, total, currency
FROM campusfs.invoices
WHERE region = $1::smallint AND status = $2::text AND issued_on >= $3::date AND issued_on < $4::date
ORDER BY issued_on
