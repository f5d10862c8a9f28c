-- name: old_errors
-- The records that have been in error for longest; the partial index has them in this order.
SELECT id
  FROM records
 WHERE status = 'error'
   AND finished_at <= clock_timestamp() - make_interval(secs => %(older_than_s)s)
 ORDER BY finished_at
 LIMIT %(limit)s;

-- name: retries_due
-- Records whose pause before the next retry is over, those that wait longest first.
SELECT id
  FROM records
 WHERE status = 'waiting'
   AND not_before IS NOT NULL
   AND not_before <= clock_timestamp()
 ORDER BY not_before
 LIMIT %(limit)s;
