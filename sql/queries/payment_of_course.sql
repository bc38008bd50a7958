-- index: transactions_user_idx
-- Whether a user has paid for a course, before the enrollment (has_paid()).
--   $1  user id
--   $2  course id
SELECT id, amount, currency
    FROM campusfs.transactions
    WHERE user_id = $1::bigint AND course_id = $2::bigint AND status = 'completed'
