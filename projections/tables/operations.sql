-- name: add
-- One row an operation; a job adds to it slice by slice.
INSERT INTO operations AS present (id, action, actor, reason, started_at, undoes, n_changes)
SELECT * FROM unnest(%(ids)b::uuid[], %(actions)b::text[], %(actors)b::text[], %(reasons)b::text[],
                     %(times)b::timestamptz[], %(undoes)b::uuid[], %(counts)b::bigint[])
       AS new (id, action, actor, reason, started_at, undoes, n_changes)
 ORDER BY id
    ON CONFLICT (id) DO UPDATE
   SET n_changes = present.n_changes + excluded.n_changes,
       started_at = least(present.started_at, excluded.started_at);

-- name: add_shared_changes
INSERT INTO operation_changes (operation_id, record_id, version)
SELECT %(operation_id)b, change.*
  FROM unnest(%(record_ids)b::bigint[], %(versions)b::integer[]) AS change;

-- name: get
SELECT id, action, actor, reason, started_at, undoes, n_changes FROM operations WHERE id = %(id)s;

-- name: undone_by
SELECT id FROM operations WHERE undoes = %(id)s ORDER BY started_at;

-- name: page
SELECT id, action, actor, reason, started_at, undoes, n_changes
  FROM operations
 WHERE (%(actor)s::text IS NULL OR actor = %(actor)s)
   AND (%(action)s::text IS NULL OR action = %(action)s)
   AND (%(before_at)s::timestamptz IS NULL
        OR (started_at, id) < (%(before_at)s::timestamptz, %(before_id)s::uuid))
 ORDER BY started_at DESC, id DESC
 LIMIT %(limit)s;

-- name: changed_records
-- The records that an operation changed, a slice of them. Only the primary key gives this order, by
-- the operation first; an index by record would be read from its beginning for a late operation.
SELECT record_id
  FROM (SELECT DISTINCT operation_id, record_id
          FROM operation_changes
         WHERE (operation_id, record_id) > (%(id)b::uuid, %(after)b::bigint)
           AND operation_id <= %(id)b::uuid
         ORDER BY operation_id, record_id
         LIMIT %(limit)b::bigint) AS changed
 ORDER BY record_id;

-- name: events
-- The events of an operation, record by record: a page of them, found in the log one by one. In the
-- order of the primary key, as above.
SELECT c.record_id, c.version, e.notification_id, e.topic, e.state
  FROM (SELECT record_id, version
          FROM operation_changes
         WHERE (operation_id, record_id, version)
               > (%(id)b::uuid, %(record_id)b::bigint, %(version)b::integer)
           AND operation_id <= %(id)b::uuid
         ORDER BY operation_id, record_id, version
         LIMIT %(limit)b::bigint) AS c
 CROSS JOIN LATERAL (
       SELECT notification_id, topic, state
         FROM ledger_events
        WHERE originator_id = (lpad('1', 16, '0') || lpad(to_hex(c.record_id), 16, '0'))::uuid
          AND originator_version = c.version
       OFFSET 0) AS e
 ORDER BY c.record_id, c.version;

-- name: of_records
-- Which events of these records belong to an operation.
SELECT record_id, version FROM operation_changes
 WHERE operation_id = %(id)b::uuid AND record_id = ANY(%(record_ids)b::bigint[])
 ORDER BY record_id, version;

-- name: expected
SELECT c.operation_id AS id, count(*) AS n_changes
  FROM {operation_changes} AS c
 WHERE {only}
 GROUP BY c.operation_id;

-- name: add_up
-- What an operation is, its first event says, as in `operations.parts_of`.
INSERT INTO operations (id, action, actor, reason, started_at, undoes, n_changes)
SELECT DISTINCT ON (id) id, action, actor, reason, started_at, undoes,
       sum(n_changes) OVER (PARTITION BY id)
  FROM operation_parts
 ORDER BY id, started_at, number DESC, version DESC;
