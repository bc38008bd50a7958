-- index: transactions_status_idx
-- What was given back of the payments of a period (revenue_by_month()).
--   $1  regions
--   $2  from
--   $3  before
SELECT currency, sum(amount)
    FROM campusfs.transactions
    WHERE region = ANY ($1::smallint[]) AND status = 'refunded'
      AND created_at >= $2::timestamptz AND created_at < $3::timestamptz
    GROUP BY currency
