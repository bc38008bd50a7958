-- index: transactions_status_idx
-- Payments of a region that have been pending, or failed, since a time.
--   $1  region
--   $2  pending, failed or refunded
--   $3  not after
SELECT id, user_id, amount, currency, gateway, created_at
FROM campusfs.transactions
WHERE region = $1::smallint AND status = $2::text AND created_at <= $3::timestamptz
ORDER BY created_at
