-- index: request_log_pkey
-- What became of a request, once it is known to be over.
--   $1  request id
SELECT outcome
FROM campusfs.request_log
WHERE request_id = $1::uuid
