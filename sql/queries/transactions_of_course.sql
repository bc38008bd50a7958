-- index: transactions_course_idx
-- What a course has brought in; also what forbids to delete it.
--   $1  course id
SELECT currency, sum(amount)
FROM campusfs.transactions
WHERE course_id = $1::bigint AND status = 'completed'
GROUP BY currency
