-- index: payment_methods_token_idx
-- A gateway's message names its token: whose is it?
--   $1  token
SELECT id, region, user_id, kind
FROM campusfs.payment_methods
WHERE token = $1::text
