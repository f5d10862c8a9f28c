-- name: lanes
-- Every lane in which tasks can be claimed, with the counts that are kept of it. The claim queue's
-- key is entered once for each lane, at its head: the cost does not grow with the queue's depth.
SELECT open.lane_id,
       (SELECT s.n_records FROM status_counts s
         WHERE s.lane_id = open.lane_id AND s.status = 'waiting'),
       (SELECT s.n_records FROM status_counts s
         WHERE s.lane_id = open.lane_id AND s.status = 'running')
  FROM (  WITH RECURSIVE head (lane_id) AS (
             (SELECT q.lane_id FROM claim_queue q
               ORDER BY q.lane_id, q.rank, q.record_id LIMIT 1)
           UNION ALL
          SELECT (SELECT q.lane_id FROM claim_queue q
                   WHERE q.lane_id > head.lane_id
                   ORDER BY q.lane_id, q.rank, q.record_id LIMIT 1)
            FROM head
           WHERE head.lane_id IS NOT NULL)
        SELECT head.lane_id FROM head WHERE head.lane_id IS NOT NULL) AS open;

-- name: paused
-- How many of the next tasks to be retried pause in each lane.
SELECT next.lane_id, count(*)
  FROM (SELECT r.lane_id
          FROM records r
         WHERE r.status = 'waiting'
           AND r.not_before IS NOT NULL
         ORDER BY r.not_before
         LIMIT %(limit)b::bigint) AS next
 GROUP BY next.lane_id;

-- name: oldest
-- The oldest claimable task of each priority in these lanes.
SELECT lane.id, head.rank, head.record_id, r.created_at
  FROM unnest(%(lane_ids)b::integer[]) AS lane (id)
 CROSS JOIN unnest(%(ranks)b::smallint[]) AS priority (rank)
 CROSS JOIN LATERAL (
       SELECT q.rank, q.record_id
         FROM claim_queue q
        WHERE q.lane_id = lane.id
          AND q.rank = priority.rank
        ORDER BY q.record_id
        LIMIT 1) AS head
  JOIN records r ON r.id = head.record_id;

-- name: before
-- How many tasks of a lane are claimed before this one; counted no further than a limit.
SELECT count(*)
  FROM (SELECT 1
          FROM claim_queue q
         WHERE q.lane_id = %(lane_id)b::integer
           AND (q.rank, q.record_id) < (%(rank)b::smallint, %(record_id)b::bigint)
         ORDER BY q.rank, q.record_id
         LIMIT %(limit)b::bigint) AS ahead;

-- name: n_waiting
SELECT s.n_records
  FROM status_counts s
 WHERE s.lane_id = %(lane_id)b::integer
   AND s.status = 'waiting';

-- name: children
-- How many of a service's children are in each status; of the first ones, if there are very many.
SELECT r.status, count(*)
  FROM (SELECT d.child_id
          FROM dependencies d
         WHERE d.parent_id = %(id)b::bigint
         ORDER BY d.child_id
         LIMIT %(limit)b::bigint) AS first
  JOIN records r ON r.id = first.child_id
 GROUP BY r.status;

-- name: blocking
-- Children that a service waits for: those that nothing can be expected of, then those that are
-- held, then the others that have not ended.
SELECT c.key, r.id, r.status, r.error_type, r.error_message
  FROM service_children c
  JOIN records r ON r.id = c.child_id
 WHERE c.service_id = %(id)b::bigint
   AND c.awaited
   AND r.status <> 'complete'
 ORDER BY r.status IN ('waiting', 'running'), r.status = 'held', r.id
 LIMIT %(limit)b::bigint;
