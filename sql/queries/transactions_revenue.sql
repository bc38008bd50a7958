-- index: transactions_completed_idx
-- Revenue of a period.
--   $1  from
--   $2  before
SELECT currency, sum(amount)
FROM campusfs.transactions
WHERE status = 'completed' AND created_at >= $1::timestamptz AND created_at < $2::timestamptz
GROUP BY currency
