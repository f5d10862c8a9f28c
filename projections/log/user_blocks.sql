-- name: add
INSERT INTO user_blocks (actor, block)
SELECT * FROM unnest(%(actors)b::text[], %(blocks)b::bigint[])
    ON CONFLICT DO NOTHING;

-- name: of_old_logs
-- What may be to note after a position: all of a log from before there was this table.
SELECT notification_id, topic, state FROM ledger_events WHERE notification_id > %(after)s;

-- name: between
SELECT notification_id, topic, state
  FROM ledger_events
 WHERE notification_id BETWEEN %(first)s AND %(last)s;

-- name: checksums
-- A checksum of the rows, by stretches of a number of blocks.
SELECT floor(block::numeric / %(blocks)s)::bigint AS stretch,
       bit_xor(hash_record_extended(t, 0))
  FROM {live} AS t
 GROUP BY 1;

-- name: expected
SELECT * FROM unnest(%(actors)s::text[], %(blocks)s::bigint[]) AS noted (actor, block);

-- name: newest
-- The newest blocks with events of a user, up to one.
SELECT block
  FROM user_blocks
 WHERE actor = %(actor)b AND block <= %(edge)b::bigint
 ORDER BY block DESC
 LIMIT %(limit)b;

-- name: oldest
-- The oldest blocks with events of a user, from one on.
SELECT block
  FROM user_blocks
 WHERE actor = %(actor)b AND block >= %(edge)b::bigint
 ORDER BY block
 LIMIT %(limit)b;

-- name: events
-- What an actor did, in some blocks of the log, between two positions (without them). The actor is
-- looked for as it is packed in the state.
SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state
  FROM unnest(%(blocks)b::bigint[]) AS b (block)
 CROSS JOIN LATERAL (
       SELECT *
         FROM ledger_events
        WHERE notification_id >= b.block * %(size)b::bigint
          AND notification_id < (b.block + 1) * %(size)b::bigint
          AND notification_id > %(after)b::bigint
          AND notification_id < %(before)b::bigint
          AND position(%(packed)b::bytea IN state) > 0
          AND topic <> ALL (%(hidden)b::text[])
          AND (%(kinds)b::text[] IS NULL OR topic = ANY (%(kinds)b::text[]))
       OFFSET 0) AS e
 ORDER BY e.notification_id {direction}
 LIMIT %(limit)b;

-- name: add_up
INSERT INTO user_blocks (actor, block) SELECT DISTINCT actor, block FROM user_block_parts;
