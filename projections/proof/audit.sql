-- name: histories
-- All events of several streams with their positions.
SELECT notification_id, originator_id, originator_version, topic, state
  FROM ledger_events
 WHERE originator_id = ANY(%(ids)b::uuid[])
 ORDER BY notification_id;

-- name: not_destroyed
-- Those of these payloads that are there although nobody names them.
SELECT p.digest
  FROM payloads p
 WHERE p.digest = ANY(%(digests)b::bytea[])
   AND NOT EXISTS (SELECT FROM payload_references r WHERE r.digest = p.digest);
