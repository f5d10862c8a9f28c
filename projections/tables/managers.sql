-- name: next_id
SELECT nextval('manager_ids');

-- name: write
INSERT INTO managers (id, version, state, name, hostname, tags, programs, lease_s, heartbeat_s,
                      owner, registered_at, modified_at, suspended)
VALUES (%(id)s, %(version)s, %(state)s, %(name)s, %(hostname)s, %(tags)s, %(programs)s,
        %(lease_s)s, %(heartbeat_s)s, %(owner)s, %(registered_at)s, %(modified_at)s,
        %(suspended)s)
    ON CONFLICT (id) DO UPDATE
   SET version = excluded.version,
       state = excluded.state,
       programs = excluded.programs,
       suspended = excluded.suspended,
       modified_at = excluded.modified_at;

-- name: get
SELECT m.id, m.version, m.state, m.name, m.hostname, m.tags, m.programs, m.lease_s,
       m.heartbeat_s, m.owner, m.registered_at, m.modified_at, m.suspended
  FROM managers m
 WHERE m.id = %(id)s;

-- name: lock
SELECT m.id, m.version, m.state, m.name, m.hostname, m.tags, m.programs, m.lease_s,
       m.heartbeat_s, m.owner, m.registered_at, m.modified_at, m.suspended
  FROM managers m
 WHERE m.id = %(id)s
   FOR UPDATE;

-- name: page
SELECT m.id, m.version, m.state, m.name, m.hostname, m.tags, m.programs, m.lease_s,
       m.heartbeat_s, m.owner, m.registered_at, m.modified_at, m.suspended,
       h.heartbeat_at, h.lease_expires_at
  FROM managers m
  LEFT JOIN manager_heartbeats h ON h.manager_id = m.id
 WHERE m.id > %(after)s
   AND (%(states)s::text[] IS NULL OR m.state = ANY(%(states)s))
 ORDER BY m.id
 LIMIT %(limit)s;

-- name: alive
-- The managers that have a lease. Only they have heartbeats, so that it does not matter how many
-- there ever were.
SELECT m.id, m.version, m.state, m.name, m.hostname, m.tags, m.programs, m.lease_s,
       m.heartbeat_s, m.owner, m.registered_at, m.modified_at, m.suspended,
       h.heartbeat_at, h.lease_expires_at
  FROM managers m
  JOIN manager_heartbeats h ON h.manager_id = m.id
 WHERE m.state IN ('active', 'draining')
 ORDER BY m.id;

-- name: first_beat
-- Every active manager has one row, from its registration to its end.
INSERT INTO manager_heartbeats (manager_id, heartbeat_at, lease_expires_at)
VALUES (%(id)s, clock_timestamp(), clock_timestamp() + make_interval(secs => %(lease_s)s));

-- name: beat
-- A heartbeat; the lease runs from the database's clock. No row: the manager is not active. The
-- lock on the row is also what keeps the manager from being declared lost meanwhile.
UPDATE manager_heartbeats h
   SET heartbeat_at = clock_timestamp(),
       lease_expires_at = clock_timestamp() + make_interval(secs => m.lease_s)
  FROM managers m
 WHERE h.manager_id = %(id)s
   AND m.id = h.manager_id
RETURNING h.lease_expires_at, m.id, m.version, m.state, m.name, m.hostname, m.tags, m.programs,
          m.lease_s, m.heartbeat_s, m.owner, m.registered_at, m.modified_at, m.suspended;

-- name: silent
-- Managers whose lease is over. The rows go when the managers are declared lost.
SELECT h.manager_id
  FROM manager_heartbeats h
 WHERE h.lease_expires_at < clock_timestamp()
 ORDER BY h.lease_expires_at
 LIMIT %(limit)s;

-- name: lock_heartbeat
-- Keep the lease as it is until the end of the transaction; say whether it is over.
SELECT h.lease_expires_at < clock_timestamp()
  FROM manager_heartbeats h
 WHERE h.manager_id = %(id)s
   FOR UPDATE;

-- name: forget_heartbeat
DELETE FROM manager_heartbeats WHERE manager_id = %(id)s;

-- name: failures
SELECT program, n_in_a_row FROM manager_failures WHERE manager_id = %(id)s;

-- name: keep_failures
INSERT INTO manager_failures (manager_id, program, n_in_a_row)
VALUES (%(id)s, %(program)s, %(n_in_a_row)s)
    ON CONFLICT (manager_id, program) DO UPDATE SET n_in_a_row = excluded.n_in_a_row;

-- name: end_failures
DELETE FROM manager_failures WHERE manager_id = %(id)s AND program = ANY(%(programs)s);

-- name: forget_failures
DELETE FROM manager_failures WHERE manager_id = %(id)s;
