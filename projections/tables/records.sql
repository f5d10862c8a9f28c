-- name: next_ids
-- New ids, ascending.
SELECT nextval('record_ids') FROM generate_series(1, %(n)b::bigint) ORDER BY 1;

-- name: get
-- Records as they are now.
SELECT {columns} FROM records r WHERE r.id = ANY(%(ids)b::bigint[]) ORDER BY r.id;

-- name: lock
-- The one lock of a record: its row, in the order of ids. A transaction that has it may change the
-- record and its place in the claim queue.
SELECT {columns} FROM records r WHERE r.id = ANY(%(ids)b::bigint[]) ORDER BY r.id FOR UPDATE;

-- name: lock_classes
-- The same lock, in the same order; of the rows only what their rules ask for, those that are alike
-- in one row.
SELECT r.status, r.prior, r.kind, r.lane_id, r.priority, r.not_before IS NOT NULL,
       array_agg(r.id ORDER BY r.id), array_agg(r.version ORDER BY r.id)
  FROM (SELECT id, version, status, prior, kind, lane_id, priority, not_before
          FROM records
         WHERE id = ANY(%(ids)b::bigint[])
         ORDER BY id
           FOR UPDATE) AS r
 GROUP BY 1, 2, 3, 4, 5, 6
 ORDER BY min(r.id);

-- name: lock_attempts
-- The same lock; of those that a manager runs, what their rules ask for, in classes. All are locked,
-- also those that it does not run: the condition must not move into the part that locks, for the
-- rest would be locked later, and out of the order of ids.
  WITH locked AS MATERIALIZED (
       SELECT id, version, status, kind, lane_id, priority, attempt, manager_id
         FROM records
        WHERE id = ANY(%(ids)b::bigint[])
        ORDER BY id
          FOR UPDATE)
SELECT lane_id, priority, attempt, array_agg(id ORDER BY id), array_agg(version ORDER BY id)
  FROM locked
 WHERE status = 'running'
   AND kind = 'task'
   AND manager_id = %(manager_id)b::bigint
 GROUP BY 1, 2, 3
 ORDER BY min(id);

-- name: lock_claimable
-- Of these candidates, in their order, the first that still wait in their lanes (somebody may just
-- have given them another tag) and that nobody else has locked.
-- SKIP LOCKED: a claim waits for nobody, and two claims never get the same record.
SELECT r.id, r.version, r.attempt, r.lane_id, r.priority, r.spec, r.spec_size_bytes
  FROM unnest(%(ids)b::bigint[], %(lane_ids)b::integer[])
       WITH ORDINALITY AS candidate (id, lane_id, place)
  JOIN records r ON r.id = candidate.id
 WHERE r.status = 'waiting'
   AND r.not_before IS NULL
   AND r.lane_id = candidate.lane_id
 ORDER BY candidate.place
 LIMIT %(limit)b::bigint
   FOR UPDATE OF r SKIP LOCKED;

-- name: lock_of_manager
-- What a manager has.
SELECT {columns}
  FROM records r
 WHERE r.manager_id = %(manager_id)b::bigint
   AND r.status = 'running'
 ORDER BY r.id
   FOR UPDATE;

-- name: running_of_manager
-- The attempts that a manager has.
SELECT r.id, r.attempt, r.started_at
  FROM records r
 WHERE r.manager_id = %(manager_id)b::bigint
   AND r.status = 'running'
 ORDER BY r.id;

-- name: insert
INSERT INTO records ({names})
SELECT id, version, status, string_to_array(prior, ','), lane_id, tag, priority, modified_at,
       attempt, manager_id, started_at, finished_at, outcome, error_type, error_message,
       retries_used, iteration, service_state, not_before, kind, spec, spec_size_bytes, function,
       owner, created_at, retries, retry_delay_s, retry_on
  FROM unnest({arrays}) AS new ({names});

-- name: update
UPDATE records r
   SET version = new.version,
       status = new.status,
       prior = string_to_array(new.prior, ','),
       lane_id = new.lane_id,
       tag = new.tag,
       priority = new.priority,
       modified_at = new.modified_at,
       attempt = new.attempt,
       manager_id = new.manager_id,
       started_at = new.started_at,
       finished_at = new.finished_at,
       outcome = new.outcome,
       error_type = new.error_type,
       error_message = new.error_message,
       retries_used = new.retries_used,
       iteration = new.iteration,
       service_state = new.service_state,
       not_before = new.not_before
  FROM unnest({arrays}) AS new ({names})
 WHERE r.id = new.id;

-- name: update_alike
-- What one event makes of records that were alike: the same for all.
UPDATE records
   SET version = version + 1,
       {assignments}
 WHERE id = ANY(%(ids)b::bigint[]);

-- name: update_alike_with_outcomes
-- The same, but for the outcome, which each has for itself.
UPDATE records AS r
   SET version = version + 1,
       outcome = own.outcome,
       {assignments}
  FROM unnest(%(ids)b::bigint[], %(outcomes)b::bytea[]) AS own (id, outcome)
 WHERE r.id = own.id;

-- name: delete
DELETE FROM records WHERE id = ANY(%(ids)b::bigint[]);

-- name: existing
-- For each specification, the oldest record of it that find_existing may give back, of each kind.
SELECT DISTINCT ON (r.spec, r.kind) r.spec, r.kind, r.id
  FROM payload_references p
  JOIN records r ON r.id = p.number AND r.spec = p.digest
 WHERE p.digest = ANY(%(digests)b::bytea[])
   AND p.stream = 1
   AND r.status <> ALL ('{{cancelled,deleted,invalid}}')
 ORDER BY r.spec, r.kind, r.id;
