-- name: delete
DELETE FROM claim_queue q
 USING unnest(%(lane_ids)b::integer[], %(ranks)b::smallint[], %(record_ids)b::bigint[])
       AS gone (lane_id, rank, record_id)
 WHERE q.lane_id = gone.lane_id
   AND q.rank = gone.rank
   AND q.record_id = gone.record_id;

-- name: leave
-- The same for tasks of one place but for their ids.
DELETE FROM claim_queue
 WHERE lane_id = %(lane_id)b::integer
   AND rank = %(rank)b::smallint
   AND record_id = ANY(%(record_ids)b::bigint[]);

-- name: enter
INSERT INTO claim_queue (lane_id, rank, record_id)
SELECT %(lane_id)b::integer, %(rank)b::smallint, unnest(%(record_ids)b::bigint[]);

-- name: candidates
-- The next tasks of these lanes after a place in the order of claiming: by the manager's tags (a
-- lane's turn is that of its tag), then priority, then age. The head of each lane is found first,
-- and only the lanes whose heads win are read on: so the cost depends neither on the depth of the
-- queue nor on the tasks of other lanes, and little on how many lanes there are. Nothing is locked
-- here: the lock of a task is its row in `records`.
  WITH head AS MATERIALIZED (
       SELECT lane.turn, lane.id AS lane_id, first.rank, first.record_id
         FROM unnest(%(lane_ids)b::integer[], %(turns)b::integer[]) AS lane (id, turn)
        CROSS JOIN LATERAL (
              SELECT q.rank, q.record_id
                FROM claim_queue q
               WHERE q.lane_id = lane.id
                 AND (q.rank, q.record_id) > (
                     CASE WHEN lane.turn = %(after_turn)b::integer
                          THEN %(after_rank)b::smallint ELSE (-32768)::smallint END,
                     CASE WHEN lane.turn = %(after_turn)b::integer
                          THEN %(after_id)b::bigint ELSE 0 END)
               ORDER BY q.rank, q.record_id
               LIMIT 1) AS first
        WHERE lane.turn >= %(after_turn)b::integer
        ORDER BY lane.turn, first.rank, first.record_id
        LIMIT %(limit)b::bigint),
       winner AS (
       SELECT *, row_number() OVER (ORDER BY turn, rank, record_id) AS place FROM head)
SELECT winner.turn, next.rank, next.record_id, winner.lane_id
  FROM winner
 CROSS JOIN LATERAL (
       SELECT q.rank, q.record_id
         FROM claim_queue q
        WHERE q.lane_id = winner.lane_id
          AND (q.rank, q.record_id) >= (winner.rank, winner.record_id)
        ORDER BY q.rank, q.record_id
        -- The heads before this one come first.
        LIMIT %(limit)b::bigint - winner.place + 1) AS next
 ORDER BY winner.turn, next.rank, next.record_id
 LIMIT %(limit)b::bigint;

-- name: expected
-- What may be claimed: `Record.claimable`, in SQL.
SELECT lane_id, (-priority)::smallint AS rank, id AS record_id
  FROM {records} AS r
 WHERE status = 'waiting' AND kind = 'task' AND not_before IS NULL AND {only};
