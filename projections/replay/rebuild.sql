-- name: try_to_hold
SELECT pg_try_advisory_lock(%(lock)s, hashtext(%(schema)s));

-- name: let_go
SELECT pg_advisory_unlock(%(lock)s, hashtext(%(schema)s));

-- name: give_up_after
-- For the rest of the transaction, unless it is rolled back to before this.
SELECT set_config('statement_timeout', %(milliseconds)s, true);

-- name: lock_log
SELECT pg_advisory_xact_lock(%(lock)s);
