-- name: append
-- The last statement of a transaction that changes anything. The advisory lock is held from here
-- to the commit, so that positions are given out in the order of commits and no reader of the log
-- can pass a gap that is filled later. One NOTIFY a transaction, without a payload.
  WITH log AS MATERIALIZED (
       SELECT pg_advisory_xact_lock(%(lock)b), pg_notify(%(channel)b, ''))
INSERT INTO ledger_events (originator_id, originator_version, topic, state)
SELECT event.*
  FROM log,
       unnest(%(ids)b::uuid[], %(versions)b::bigint[], %(topics)b::text[], %(states)b::bytea[])
       AS event
RETURNING notification_id;

-- name: append_by_users
-- The same for events of which some are by users: notes in which blocks of the log they are. The
-- positions of one statement follow on each other, for nobody else is given any meanwhile.
  WITH log AS MATERIALIZED (
       SELECT pg_advisory_xact_lock(%(lock)b), pg_notify(%(channel)b, '')),
       appended AS (
       INSERT INTO ledger_events (originator_id, originator_version, topic, state)
       SELECT event.*
         FROM log,
              unnest(%(ids)b::uuid[], %(versions)b::bigint[], %(topics)b::text[],
                     %(states)b::bytea[]) AS event
       RETURNING notification_id),
       noted AS (
       INSERT INTO user_blocks (actor, block)
       SELECT DISTINCT run.actor, block
         FROM (SELECT min(notification_id) AS position FROM appended) AS first,
              unnest(%(actors)b::text[], %(firsts)b::bigint[], %(lasts)b::bigint[])
              AS run (actor, first, last),
              generate_series((first.position + run.first) / %(size)b::bigint,
                              (first.position + run.last) / %(size)b::bigint) AS block
           ON CONFLICT DO NOTHING)
SELECT notification_id FROM appended;

-- name: append_shared
-- The same for events of many records that have one topic and one actor, with the bytes that all
-- share, or with those of each. Blocks are noted if the actor is a user: the positions of one
-- statement follow on each other.
  WITH log AS MATERIALIZED (
       SELECT pg_advisory_xact_lock(%(lock)b), pg_notify(%(channel)b, '')),
       appended AS (
       INSERT INTO ledger_events (originator_id, originator_version, topic, state)
       SELECT (lpad('1', 16, '0') || lpad(to_hex(record.id), 16, '0'))::uuid, record.version,
              %(topic)b, {state}
         FROM log,
              unnest(%(ids)b::bigint[], %(versions)b::bigint[]{states})
              WITH ORDINALITY AS record (id, version{column}, place)
        ORDER BY record.place
       RETURNING notification_id)
INSERT INTO user_blocks (actor, block)
SELECT %(actor)b, block
  FROM (SELECT min(notification_id) AS first, max(notification_id) AS last FROM appended)
       AS placed,
       generate_series(placed.first / %(size)b::bigint, placed.last / %(size)b::bigint) AS block
 WHERE %(is_by_user)b
    ON CONFLICT DO NOTHING;

-- name: now
-- The ledger's time: the database's clock, read after the locks are held.
SELECT clock_timestamp();

-- name: history
-- All events of one stream, oldest first.
SELECT notification_id, originator_version, topic, state
  FROM ledger_events
 WHERE originator_id = %(id)b
 ORDER BY originator_version;

-- name: histories
-- All events of several streams, each oldest first.
SELECT originator_id, topic, state
  FROM ledger_events
 WHERE originator_id = ANY(%(ids)b::uuid[])
 ORDER BY originator_id, originator_version;

-- name: head
-- The newest position; 0 in an empty log.
SELECT coalesce(max(notification_id), 0) FROM ledger_events;

-- name: read_log
-- The log in order, for replay: streamed through a server-side cursor.
SELECT notification_id, originator_id, originator_version, topic, state
  FROM ledger_events
 WHERE notification_id > %(after)s AND notification_id <= %(upto)s
 ORDER BY notification_id;
