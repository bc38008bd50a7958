-- index: request_log_created_idx
-- Requests that nobody will ask for any more (prune_logs()).
--   $1  before
SELECT request_id
FROM campusfs.request_log
WHERE created_at < $1::timestamptz
