-- name: try
-- The lock belongs to the session: it is gone when the connection is.
SELECT pg_try_advisory_lock(%(space)s, %(job)s);
