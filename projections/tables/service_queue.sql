-- name: lock
-- The rows that a transaction may change: services that changed themselves, those that wait for
-- children that changed, and children, being services, that are waited for no more, or from now on.
-- In the order of ids, and after all locks of records, so that nobody waits in a circle.
SELECT s.record_id
  FROM services s
 WHERE s.record_id IN (
       SELECT unnest(%(services)b::bigint[])
        UNION ALL
       SELECT c.service_id FROM service_children c
        WHERE c.child_id = ANY(%(moved)b::bigint[]) AND c.awaited
        UNION ALL
       SELECT c.child_id FROM service_children c
        WHERE c.service_id = ANY(%(decided)b::bigint[]) AND c.awaited
        UNION ALL
       SELECT c.child_id
         FROM unnest(%(again)b::bigint[], %(keys)b::text[]) AS again (service_id, key)
         JOIN service_children c ON c.service_id = again.service_id AND c.key = again.key)
 ORDER BY s.record_id
   FOR UPDATE OF s;

-- name: tell
-- Children are open, complete or troubled now that were not before: the services that wait for them
-- count them.
UPDATE services s
   SET n_open = s.n_open + told.n_open,
       n_troubled = s.n_troubled + told.n_troubled
  FROM (SELECT c.service_id, sum(moved.n_open)::integer AS n_open,
               sum(moved.n_troubled)::integer AS n_troubled
          FROM unnest(%(ids)b::bigint[], %(opened)b::integer[], %(troubled)b::integer[])
               AS moved (child_id, n_open, n_troubled)
          JOIN service_children c ON c.child_id = moved.child_id AND c.awaited
         GROUP BY c.service_id) AS told
 WHERE s.record_id = told.service_id;

-- name: insert
INSERT INTO services (record_id, status, rank, wanted)
SELECT new.record_id, new.status, new.rank, EXISTS (
       SELECT FROM service_children c WHERE c.child_id = new.record_id AND c.awaited)
  FROM unnest(%(ids)b::bigint[], %(statuses)b::text[], %(ranks)b::smallint[])
       AS new (record_id, status, rank);

-- name: update
UPDATE services s
   SET status = new.status,
       rank = new.rank
  FROM unnest(%(ids)b::bigint[], %(statuses)b::text[], %(ranks)b::smallint[])
       AS new (record_id, status, rank)
 WHERE s.record_id = new.record_id;

-- name: blame
-- Whether it was its children that made a service an error.
UPDATE services s
   SET by_children = errored.by_children
  FROM unnest(%(ids)b::bigint[], %(by_children)b::boolean[]) AS errored (record_id, by_children)
 WHERE s.record_id = errored.record_id;

-- name: await_no_more
UPDATE service_children c
   SET awaited = false
 WHERE c.service_id = ANY(%(ids)b::bigint[])
   AND c.awaited
RETURNING c.child_id;

-- name: add_children
INSERT INTO service_children (service_id, key, child_id, iteration, awaited)
SELECT * FROM unnest(%(services)b::bigint[], %(keys)b::text[], %(children)b::bigint[],
                     %(iterations)b::integer[], %(awaited)b::boolean[]) AS new
 ORDER BY 1, 2
    ON CONFLICT (service_id, key) DO UPDATE SET awaited = excluded.awaited;

-- name: await_again
UPDATE service_children c
   SET awaited = true
  FROM unnest(%(services)b::bigint[], %(keys)b::text[]) AS again (service_id, key)
 WHERE c.service_id = again.service_id
   AND c.key = again.key
RETURNING c.child_id;

-- name: want
-- Whether another service waits for these, of which most are tasks and have no row here.
UPDATE services s
   SET wanted = NOT s.wanted
 WHERE s.record_id = ANY(%(ids)b::bigint[])
   AND s.wanted <> EXISTS (
       SELECT FROM service_children c WHERE c.child_id = s.record_id AND c.awaited);

-- name: decide
-- What services wait for since their last decision, counted from the records of their children,
-- which are locked. One that is not there yet, as may be in a replay, is open.
UPDATE services s
   SET n_children = s.n_children + decided.n_new,
       n_awaited = found.n_awaited,
       n_open = found.n_open,
       n_troubled = found.n_troubled,
       any_child = decided.any_child,
       takes_errors = decided.takes_errors,
       wake_at = decided.wake_at,
       progress = decided.progress,
       code_version = decided.code_version
  FROM unnest(%(ids)b::bigint[], %(n_new)b::integer[], %(any_child)b::boolean[],
              %(takes_errors)b::boolean[], %(wake_at)b::timestamptz[],
              %(progress)b::double precision[], %(code_version)b::text[])
       AS decided (record_id, n_new, any_child, takes_errors, wake_at, progress, code_version)
 CROSS JOIN LATERAL (
       SELECT count(*) AS n_awaited,
              count(*) FILTER (WHERE r.id IS NULL OR r.status = ANY(%(open)b::text[])) AS n_open,
              count(*) FILTER (WHERE r.status = ANY(%(troubled)b::text[])) AS n_troubled
         FROM service_children c
         LEFT JOIN records r ON r.id = c.child_id
        WHERE c.service_id = decided.record_id
          AND c.awaited) AS found
 WHERE s.record_id = decided.record_id;

-- name: forget
DELETE FROM services WHERE record_id = ANY(%(ids)b::bigint[]);

-- name: forget_children
DELETE FROM service_children WHERE service_id = ANY(%(ids)b::bigint[]) RETURNING child_id;

-- name: try_to_pick
-- Runners pick one after the other, so that the limit of running services holds exactly and no two
-- of them get the same service. Who is not first comes again; nobody waits.
SELECT pg_try_advisory_xact_lock(%(lock)b);

-- name: release
-- What a runner is done with.
DELETE FROM service_leases
 WHERE runner = %(runner)b
   AND record_id = ANY(%(ids)b::bigint[]);

-- name: extend
-- A heartbeat for all that a runner has in hand. What it does not know that it has, because the
-- answer to its pick was lost, is free again when the lease is over.
UPDATE service_leases
   SET lease_expires_at = clock_timestamp() + make_interval(secs => %(lease_s)b::double precision)
 WHERE runner = %(runner)b
   AND record_id = ANY(%(ids)b::bigint[])
   AND lease_expires_at < clock_timestamp()
                          + make_interval(secs => 2 * %(lease_s)b::double precision / 3);

-- name: pick
-- The next services for a runner, by priority, then age: those that can go on, those whose alarm
-- has gone off, and as many new ones as may run. What another service waits for is not held back by
-- that limit, or all might wait for what cannot begin.
  WITH leased AS MATERIALIZED (
       SELECT l.record_id, l.lease_expires_at > clock_timestamp() AS held, s.status
         FROM service_leases l
         JOIN services s ON s.record_id = l.record_id),
       due AS (
       SELECT s.rank, s.record_id
         FROM services s
        WHERE s.due
          AND NOT EXISTS (SELECT FROM leased l WHERE l.record_id = s.record_id AND l.held)
        ORDER BY s.rank, s.record_id
        LIMIT %(limit)b::bigint),
       alarm AS (
       SELECT s.rank, s.record_id
         FROM services s
        WHERE s.status = 'running'
          AND NOT s.due
          AND s.wake_at <= clock_timestamp()
          AND NOT EXISTS (SELECT FROM leased l WHERE l.record_id = s.record_id AND l.held)
        ORDER BY s.wake_at
        LIMIT %(limit)b::bigint),
       active AS MATERIALIZED (
       SELECT count(*) + (SELECT count(*) FROM leased WHERE held AND status = 'waiting') AS n
         FROM (SELECT FROM services s WHERE s.status = 'running'
                LIMIT %(active_max)b::bigint) AS running),
       unstarted AS (
       SELECT s.rank, s.record_id
         FROM services s
        WHERE s.status = 'waiting'
          AND NOT s.wanted
          AND NOT EXISTS (SELECT FROM leased l WHERE l.record_id = s.record_id AND l.held)
        ORDER BY s.rank, s.record_id
        LIMIT least(%(limit)b::bigint,
                    greatest(0, %(active_max)b::bigint - (SELECT n FROM active)))),
       next AS (
       SELECT * FROM due UNION ALL SELECT * FROM alarm UNION ALL SELECT * FROM unstarted
        ORDER BY rank, record_id
        LIMIT %(limit)b::bigint)
INSERT INTO service_leases AS l (record_id, runner, lease_expires_at)
SELECT record_id, %(runner)b,
       clock_timestamp() + make_interval(secs => %(lease_s)b::double precision)
  FROM next
    ON CONFLICT (record_id) DO UPDATE
   SET runner = excluded.runner,
       lease_expires_at = excluded.lease_expires_at
 WHERE l.lease_expires_at <= clock_timestamp()
RETURNING l.record_id;

-- name: waits
-- What a service waits for.
SELECT n_children, any_child, takes_errors, wake_at, progress, code_version, due
  FROM services
 WHERE record_id = %(id)b::bigint;

-- name: awaited
-- The children that a service waits for, as they are now.
SELECT c.key, c.child_id, r.status, r.outcome, r.error_type, r.error_message
  FROM service_children c
  JOIN records r ON r.id = c.child_id
 WHERE c.service_id = %(id)b::bigint
   AND c.awaited
 ORDER BY c.child_id, c.key;

-- name: keys
-- Which of these keys a service has given to its children.
SELECT c.key, c.child_id
  FROM service_children c
 WHERE c.service_id = %(id)b::bigint
   AND c.key = ANY(%(keys)b::text[]);

-- name: children
-- The children of services, as they are now: the first ones of each.
SELECT c.service_id, c.key, c.iteration, c.awaited, r.id, r.status, r.kind, r.function
  FROM unnest(%(ids)b::bigint[]) AS service (id)
 CROSS JOIN LATERAL (
       SELECT * FROM service_children c
        WHERE c.service_id = service.id
        ORDER BY c.service_id, c.key
        LIMIT %(limit)b::bigint) AS c
  JOIN records r ON r.id = c.child_id;

-- name: n_children
SELECT record_id, n_children FROM services WHERE record_id = ANY(%(ids)b::bigint[]);

-- name: old_services
-- The streams of services, for a ledger from before there was this table.
SELECT r.id FROM records r WHERE r.kind = 'service' ORDER BY r.id;

-- name: any_running
SELECT EXISTS (SELECT FROM services s WHERE s.status = 'running');

-- name: expected
-- What services count of the children that they wait for, and whether another waits for them.
SELECT s.record_id,
       coalesce(found.n_open, 0)::integer AS n_open,
       coalesce(found.n_troubled, 0)::integer AS n_troubled,
       EXISTS (SELECT FROM {service_children} AS c
                WHERE c.child_id = s.record_id AND c.awaited) AS wanted
  FROM {services} AS s
  LEFT JOIN (
       SELECT c.service_id,
              count(*) FILTER (WHERE r.id IS NULL OR r.status = ANY(%(open)s::text[])) AS n_open,
              count(*) FILTER (WHERE r.status = ANY(%(troubled)s::text[])) AS n_troubled
         FROM {service_children} AS c
         LEFT JOIN {records} AS r ON r.id = c.child_id
        WHERE c.awaited
        GROUP BY c.service_id) AS found ON found.service_id = s.record_id
 WHERE {only};
