-- name: try
-- The lock belongs to the session: it is gone when the connection is.
SELECT pg_try_advisory_lock(%(space)s, %(job)s);

-- name: publish
-- Note with which settings the session that has the lock does the job.
INSERT INTO job_leaders (job, backend_pid, settings, elected_at)
VALUES (%(name)s, pg_backend_pid(), %(settings)s, clock_timestamp())
    ON CONFLICT (job) DO UPDATE
   SET backend_pid = excluded.backend_pid,
       settings    = excluded.settings,
       elected_at  = excluded.elected_at;

-- name: in_force
-- The settings of the session that has the lock now. A row whose session is gone, or has not won the
-- lock that another has won since, is of the past.
SELECT j.settings
  FROM job_leaders j
  JOIN pg_locks l ON l.pid = j.backend_pid
 WHERE j.job = %(name)s
   AND l.locktype = 'advisory'
   AND l.granted
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.classid = %(space)s::bigint::oid
   AND l.objid = %(job)s::bigint::oid
   AND l.objsubid = 2;
