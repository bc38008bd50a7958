-- index: transactions_user_idx
-- Support: a user's payments, newest first; also what forbids to delete the user.
--   $1  user id
--   $2  how many
SELECT id, course_id, amount, currency, status, created_at
FROM campusfs.transactions
WHERE user_id = $1::bigint
ORDER BY created_at DESC
LIMIT $2::bigint
