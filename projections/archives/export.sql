-- name: position
-- The ledger, its newest position, and its schema's version.
SELECT (SELECT ledger_id FROM ledger_identity),
       (SELECT coalesce(max(notification_id), 0) FROM ledger_events),
       (SELECT max(version) FROM schema_migrations),
       clock_timestamp();

-- name: records
SELECT r.id, r.kind, r.status, r.function, r.tag, r.priority, l.required_programs, r.owner,
       r.created_at, r.modified_at, r.attempt, r.manager_id, r.started_at, r.finished_at,
       r.outcome, r.error_type, r.error_message, r.retries, r.retries_used, r.retry_delay_s,
       r.retry_on, r.not_before, r.iteration, r.version, r.prior, r.spec, r.spec_size_bytes
  FROM records r
  JOIN lanes l ON l.id = r.lane_id
 ORDER BY r.id;

-- name: log
-- The log in order, without what happens to tokens.
SELECT notification_id, originator_id, originator_version, topic, state
  FROM ledger_events
 WHERE topic <> ALL (%(hidden)s)
 ORDER BY notification_id;

-- name: streams
-- The log aggregate by aggregate: the streams whose ids are in a range.
SELECT notification_id, originator_id, originator_version, topic, state
  FROM ledger_events
 WHERE originator_id >= %(first)s
   AND originator_id < %(end)s
 ORDER BY originator_id, originator_version;

-- name: streams_named
SELECT notification_id, originator_id, originator_version, topic, state
  FROM ledger_events
 WHERE originator_id = ANY(%(ids)s::uuid[])
 ORDER BY originator_id, originator_version;

-- name: comments
SELECT record_id, version, commented_at, author, text FROM comments ORDER BY record_id, version;

-- name: managers
SELECT id, version, state, name, hostname, tags, programs::text, lease_s, heartbeat_s, owner,
       registered_at, modified_at
  FROM managers
 ORDER BY id;

-- name: operations
SELECT id::text, action, actor, reason, started_at, undoes::text, n_changes
  FROM operations
 ORDER BY started_at, id;

-- name: datasets
SELECT id, version, name, description, owner, cloned_from, created_at, modified_at, deleted_at,
       n_entries, versions_locked
  FROM datasets
 ORDER BY id;

-- name: entries
SELECT dataset_id, number, added_in, removed_in, name, attributes::text
  FROM dataset_entries
 ORDER BY dataset_id, number, added_in;

-- name: cells
-- The cells, with the names that entry and specification have now, or had last.
SELECT c.dataset_id, s.name, c.specification,
       (SELECT e.name FROM dataset_entries e
         WHERE e.dataset_id = c.dataset_id AND e.number = c.entry
         ORDER BY e.added_in DESC LIMIT 1),
       c.entry, c.record_id, c.added_in, c.removed_in
  FROM dataset_records c
  JOIN dataset_specifications s ON s.dataset_id = c.dataset_id AND s.number = c.specification
 ORDER BY c.dataset_id, c.specification, c.entry, c.added_in;

-- name: payloads
-- These payloads as they are stored.
SELECT digest, size_bytes, codec, data
  FROM payloads
 WHERE digest = ANY(%(digests)s::bytea[])
 ORDER BY digest;

-- name: records_of_dataset
-- Every record that a dataset has, or had in any version.
SELECT DISTINCT record_id FROM dataset_records WHERE dataset_id = %(id)s ORDER BY record_id;
