-- index: payment_methods_expiry_idx
-- Cards that expire in a period: their owners are to be told.
--   $1  from
--   $2  before
SELECT id, region, user_id, brand, last_four, expires_on
FROM campusfs.payment_methods
WHERE expires_on >= $1::date AND expires_on < $2::date
ORDER BY expires_on, id
