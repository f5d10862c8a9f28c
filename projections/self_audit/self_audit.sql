-- name: head
SELECT coalesce(max(notification_id), 0), now() FROM ledger_events;

-- name: newest_stream
-- The newest aggregate of a kind, found by the ends of the kind's streams.
SELECT originator_id
  FROM ledger_events
 WHERE originator_id BETWEEN %(first)s AND %(last)s
 ORDER BY originator_id DESC
 LIMIT 1;

-- name: touched
-- Events of an aggregate since a position.
SELECT DISTINCT originator_id
  FROM ledger_events
 WHERE notification_id > %(after)s AND notification_id <= %(upto)s;

-- name: ranges
-- The ranges that were looked at, and the position from which on the log has to be followed.
SELECT stream, number FROM self_audit_ranges WHERE stream > 0;

-- name: oldest_position
SELECT min(position) FROM self_audit_ranges WHERE stream > 0;

-- name: checksum
-- The rows of one table, each with a hash of all that it holds, by the aggregate it belongs to.
SELECT t.{owner} AS number, hash_record_extended({row}, {seed}) AS checksum
  FROM {live} AS t
 WHERE {mine};

-- name: checksums
-- A checksum of all rows of each of some aggregates. Those without any row are left out.
SELECT each.number, bit_xor(each.checksum) AS checksum FROM ({rows}) AS each GROUP BY each.number;

-- name: suspects
-- Those of a range whose rows are not what they were when they were proved, or never were proved.
  WITH live AS ({checksums}),
       kept AS (
       SELECT %(low)s::bigint + each.place - 1 AS number, each.checksum
         FROM self_audit_ranges r, unnest(r.checksums) WITH ORDINALITY AS each (checksum, place)
        WHERE r.stream = %(stream)s AND r.number = %(range)s)
SELECT number
  FROM generate_series(%(low)s::bigint, %(high)s::bigint) AS number
  LEFT JOIN kept USING (number)
  LEFT JOIN live USING (number)
 WHERE coalesce(live.checksum, 0) IS DISTINCT FROM kept.checksum;

-- name: kept
SELECT checksums FROM self_audit_ranges WHERE stream = %(stream)s AND number = %(range)s;

-- name: keep
-- A transaction that is late, because another process has taken over, changes nothing.
INSERT INTO self_audit_ranges AS r (stream, number, position, looked_at, n_unproved, checksums)
VALUES (%(stream)s, %(range)s, %(position)s, %(looked_at)s, %(n_unproved)s, %(checksums)s::bigint[])
    ON CONFLICT (stream, number) DO UPDATE
   SET position = excluded.position,
       looked_at = excluded.looked_at,
       n_unproved = excluded.n_unproved,
       checksums = excluded.checksums
 WHERE r.position <= excluded.position;

-- name: keep_on
-- A range in which nothing had to be proved again: its checksums are not written again.
UPDATE self_audit_ranges
   SET position = %(position)s,
       looked_at = %(looked_at)s
 WHERE stream = %(stream)s AND number = %(range)s AND position <= %(position)s;

-- name: outside
-- Aggregates that have rows but no events in the log.
SELECT DISTINCT t.{owner} FROM {live} AS t WHERE {mine} LIMIT %(limit)s;

-- name: differences
-- Rows that stand in only one of two tables, or differ between them.
SELECT to_jsonb(live), to_jsonb(said)
  FROM (SELECT {columns} FROM {live} WHERE {mine}) AS live
  FULL JOIN ({said}) AS said USING ({key})
 WHERE live IS DISTINCT FROM said
 ORDER BY {key}
 LIMIT %(limit)s;

-- name: same
-- Whether two tables hold the same rows, without putting them side by side.
SELECT (SELECT (count(*), bit_xor(hash_record_extended(t, 0)))
          FROM (SELECT {columns} FROM {live} WHERE {mine}) AS t)
     = (SELECT (count(*), bit_xor(hash_record_extended(t, 0))) FROM ({said}) AS t);

-- name: expect_operations_told
-- What was proved of operations, one by one.
SELECT * FROM unnest(%(ids)s::uuid[], %(actions)s::text[], %(actors)s::text[], %(reasons)s::text[],
                     %(times)s::timestamptz[], %(undoes)s::uuid[])
       AS told (id, action, actor, reason, started_at, undoes);

-- name: expect_rescue_counts
SELECT * FROM unnest(%(kinds)s::text[], %(n_results)s::bigint[], %(compute_ms)s::bigint[],
                     %(core_ms)s::bigint[])
       AS summed (kind, n_results, compute_ms, core_ms);

-- name: operation_checksums
SELECT id, hash_record_extended(ROW(action, actor, reason, started_at, undoes), 0) FROM operations;

-- name: first_of_operation
-- The first event of an operation, which says what all of its events say.
SELECT e.topic, e.state
  FROM {operation_changes} AS c
  JOIN ledger_events e
    ON e.originator_id = ('00000000-0000-0001-' || left(lpad(to_hex(c.record_id), 16, '0'), 4) || '-'
                          || right(lpad(to_hex(c.record_id), 16, '0'), 12))::uuid
   AND e.originator_version = c.version
 WHERE c.operation_id = %(id)s
 ORDER BY e.notification_id
 LIMIT 1;

-- name: rescues
SELECT topic, state
  FROM ledger_events
 WHERE notification_id > %(after)s
   AND notification_id <= %(upto)s
   AND topic = ANY(%(topics)s);

-- name: state
-- How far the self-audit is with each kind, and for how long that waits which waits longest.
SELECT stream, count(*), sum(n_unproved)::bigint, min(position),
       extract(epoch FROM clock_timestamp() - min(looked_at))::double precision
  FROM self_audit_ranges
 GROUP BY stream;

-- name: lock
-- Divergences are found and ended one after the other.
SELECT pg_advisory_xact_lock(%(lock)s);

-- name: hold_owner
-- A transaction that has this row locked may change the aggregate.
SELECT FROM {live} WHERE {key} = %(number)s FOR UPDATE;

-- name: hold_table
-- Excludes transactions that count; readers are not blocked.
LOCK TABLE {live} IN SHARE ROW EXCLUSIVE MODE;

-- name: hold_log
SELECT pg_advisory_xact_lock(%(lock)s);

-- name: put
-- Bring a row to what it should be; only what differs is written, for the rest may be just changing.
UPDATE {live} AS t
   SET {assignments}
  FROM {source} AS new, jsonb_populate_record(NULL::{live}, %(row)s) AS wanted
 WHERE {is_the_row} AND {is_new};

-- name: add
INSERT INTO {live} ({columns})
SELECT {new_columns}
  FROM {source} AS new, jsonb_populate_record(NULL::{live}, %(row)s) AS wanted
 WHERE {is_new};

-- name: remove
DELETE FROM {live} AS t
 USING jsonb_populate_record(NULL::{live}, %(row)s) AS wanted
 WHERE {is_the_row};
