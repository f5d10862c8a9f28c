-- name: head
-- The newest position; 0 in an empty log.
SELECT coalesce(max(notification_id), 0) FROM ledger_events;

-- name: count
-- How many events there are up to a position.
SELECT count(*) FROM ledger_events WHERE notification_id <= %(position)s;

-- name: stray
-- An event that belongs to no kind of stream: between the last of one kind and the first of the next.
SELECT e.originator_id, e.originator_version
  FROM unnest(%(firsts)b::uuid[], %(lasts)b::uuid[]) AS gap (first, last)
 CROSS JOIN LATERAL (
       SELECT originator_id, originator_version
         FROM ledger_events
        WHERE originator_id BETWEEN gap.first AND gap.last
          AND notification_id <= %(position)b::bigint
        ORDER BY originator_id
        LIMIT 1) AS e
 LIMIT 1;

-- name: newest_stream
-- The last stream at or before another.
SELECT originator_id FROM ledger_events
 WHERE originator_id <= %(last)b::uuid
 ORDER BY originator_id DESC
 LIMIT 1;

-- name: of_streams
-- The events of some streams up to a position, stream by stream: the history of one aggregate comes
-- in one piece, so that a replay holds one aggregate at a time, however long the log is.
SELECT originator_id, originator_version, topic, state, notification_id
  FROM ledger_events
 WHERE originator_id BETWEEN %(first)s::uuid AND %(last)s::uuid
   AND notification_id <= %(position)s
 ORDER BY originator_id, originator_version;

-- name: histories
-- The same of single streams.
SELECT originator_id, originator_version, topic, state, notification_id
  FROM ledger_events
 WHERE originator_id = ANY(%(ids)b::uuid[])
   AND notification_id <= %(position)b::bigint
 ORDER BY originator_id, originator_version;

-- name: slice
-- The next events after a position, and where they belong.
SELECT notification_id, originator_id
  FROM ledger_events
 WHERE notification_id > %(after)b::bigint
   AND notification_id <= %(upto)b::bigint
 ORDER BY notification_id
 LIMIT %(limit)b::bigint;

-- name: services
SELECT id FROM records WHERE kind = 'service' AND id > %(after)s ORDER BY id LIMIT %(limit)s;

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
