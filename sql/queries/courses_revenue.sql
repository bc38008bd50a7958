-- index: transactions_course_idx
-- What some courses took in and gave back, for an instructor (course_revenue()).
--   $1  course ids
SELECT currency, count(*), sum(amount), sum(amount) FILTER (WHERE status = 'refunded')
    FROM campusfs.transactions
    WHERE course_id = ANY ($1::bigint[]) AND status IN ('completed', 'refunded')
    GROUP BY currency
