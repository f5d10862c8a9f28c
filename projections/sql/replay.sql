-- name: events
-- Every event up to a position, stream by stream: the history of one aggregate comes in one piece,
-- so that a replay holds one aggregate at a time, however long the log is.
SELECT originator_id, originator_version, topic, state, notification_id
  FROM ledger_events
 WHERE notification_id <= %(position)s
 ORDER BY originator_id, originator_version;

-- name: differences
-- Rows that stand in only one of two tables, or differ between them.
SELECT {key}, to_jsonb(live), to_jsonb(replayed)
  FROM (SELECT * FROM {live} WHERE {counted}) AS live
  FULL JOIN (SELECT * FROM {shadow} WHERE {counted}) AS replayed USING ({key})
 WHERE live IS DISTINCT FROM replayed
 ORDER BY {key}
 LIMIT %(limit)s;

-- name: missing_payloads
-- Payloads that records name and that are not there.
SELECT DISTINCT p.digest, p.number
  FROM payload_references p
  LEFT JOIN payloads c ON c.digest = p.digest
 WHERE c.digest IS NULL
 ORDER BY p.number
 LIMIT %(limit)s;
