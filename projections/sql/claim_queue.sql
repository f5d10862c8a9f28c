-- name: insert
INSERT INTO claim_queue (lane_id, rank, record_id)
SELECT * FROM unnest(%(lane_ids)b::integer[], %(ranks)b::smallint[], %(record_ids)b::bigint[]);

-- name: delete
DELETE FROM claim_queue q
 USING unnest(%(lane_ids)b::integer[], %(ranks)b::smallint[], %(record_ids)b::bigint[])
       AS gone (lane_id, rank, record_id)
 WHERE q.lane_id = gone.lane_id
   AND q.rank = gone.rank
   AND q.record_id = gone.record_id;

-- name: candidates
-- The next tasks of these lanes after a place in the order of claiming, by priority, then age.
-- Each lane is read from its own head through the primary key, so that the cost depends neither
-- on the depth of the queue nor on the tasks of other lanes. Nothing is locked here: the lock of a
-- task is its row in `records`.
SELECT head.rank, head.record_id
  FROM unnest(%(lane_ids)b::integer[]) AS lane (id)
 CROSS JOIN LATERAL (
       SELECT q.rank, q.record_id
         FROM claim_queue q
        WHERE q.lane_id = lane.id
          AND (q.rank, q.record_id) > (%(after_rank)b::smallint, %(after_id)b::bigint)
        ORDER BY q.rank, q.record_id
        LIMIT %(limit)b::bigint) AS head
 ORDER BY head.rank, head.record_id
 LIMIT %(limit)b::bigint;
