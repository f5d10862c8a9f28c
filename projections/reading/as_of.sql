-- name: bounds
-- Between what moments can be: the first and the newest position, and the ledger's time.
SELECT (SELECT min(notification_id) FROM ledger_events),
       (SELECT max(notification_id) FROM ledger_events),
       clock_timestamp();

-- name: event_at
-- The last event at or before a position.
SELECT notification_id, substring(state FROM 1 FOR 64)
  FROM ledger_events
 WHERE notification_id <= %(position)b::bigint
 ORDER BY notification_id DESC
 LIMIT 1;

-- name: mark_before
-- Up to here, no event is later than this time.
SELECT position
  FROM timeline_marks
 WHERE latest_at <= %(moment)b::timestamptz
 ORDER BY latest_at DESC, position DESC
 LIMIT 1;

-- name: newest_id
-- No record that there was at a position has a higher id than this.
SELECT newest_id
  FROM timeline_marks
 WHERE position >= %(position)b::bigint
 ORDER BY position
 LIMIT 1;

-- name: times_after
-- When the next events happened.
SELECT notification_id, substring(state FROM 1 FOR 64)
  FROM ledger_events
 WHERE notification_id > %(after)b::bigint
   AND notification_id <= %(upto)b::bigint
 ORDER BY notification_id
 LIMIT %(limit)b::bigint;

-- name: histories
-- The events of some records up to a position, each oldest first; and whether they were erased
-- later, which is the one event that comes without its state.
SELECT originator_id, topic,
       CASE WHEN notification_id <= %(position)b::bigint THEN state END
  FROM ledger_events
 WHERE originator_id = ANY(%(ids)b::uuid[])
   AND (notification_id <= %(position)b::bigint OR topic = 'erased')
 ORDER BY originator_id, originator_version;

-- name: states
-- Every state that a record ever was in, from `since` on and before `until`. Without conditions, so
-- that the planner can look for each of them in an index, and merge the two in the order of ids.
(SELECT record_id AS id, old_status AS status, old_tag AS tag, old_manager_id AS manager_id,
        old_modified_at AS modified_at, since, position AS until
   FROM record_changes
  UNION ALL
 SELECT record_id, status, tag, manager_id, modified_at, since, 9223372036854775807
   FROM record_states)

-- name: with_origins
-- The same, with some of what never changes.
(SELECT s.*, {columns}
   FROM {states} AS s
   JOIN record_states AS o ON o.record_id = s.id)

-- name: looked_up
-- Some records, in the order of the page, looked up one by one (OFFSET 0 keeps them so).
(SELECT DISTINCT record_id FROM {candidates} ORDER BY record_id DESC) AS d
       CROSS JOIN LATERAL (
       SELECT * FROM {states} AS s WHERE s.id = d.record_id AND {then} OFFSET 0) AS r

-- name: then
s.since <= %(position)s AND s.until > %(position)s AND s.status IS NOT NULL

-- name: in_cells
dataset_records
 WHERE added_in <= %(version)s
   AND (removed_in IS NULL OR removed_in > %(version)s)

-- name: ever_run
(SELECT record_id FROM record_changes
  WHERE old_status = 'running' AND old_manager_id {given}
  UNION ALL
 SELECT record_id FROM record_states
  WHERE status = 'running' AND manager_id {given}) AS ever_run
 WHERE true

-- name: ever_tagged
record_changes
 WHERE new_tag {given} AND old_tag IS DISTINCT FROM new_tag

-- name: owned
record_states WHERE owner {given}

-- name: dataset_version
-- The version that a dataset had at a position; NULL if it was not there.
SELECT max(originator_version)
  FROM ledger_events
 WHERE originator_id = %(id)b::uuid AND notification_id <= %(position)b::bigint;

-- name: dataset_ids
SELECT id FROM datasets;

-- name: dataset_names
-- What datasets were called last at a position, or that they had been deleted.
SELECT DISTINCT ON (originator_id) originator_id, topic, state
  FROM ledger_events
 WHERE originator_id = ANY(%(ids)b::uuid[])
   AND notification_id <= %(position)b::bigint
   AND topic = ANY('{dataset_created,dataset_renamed,dataset_deleted}')
 ORDER BY originator_id, originator_version DESC;

-- name: entries_named
-- The numbers of the entries that a dataset had under these names in a version of its own.
SELECT name, number
  FROM dataset_entries
 WHERE dataset_id = %(id)s
   AND name = ANY(%(names)s)
   AND added_in <= %(version)s
   AND (removed_in IS NULL OR removed_in > %(version)s);
