-- name: add
-- In the order of the key, so that two transactions never wait for each other in a circle.
INSERT INTO status_counts AS present (lane_id, status, n_records)
SELECT * FROM unnest(%(lane_ids)b::integer[], %(statuses)b::text[], %(deltas)b::bigint[])
       AS delta (lane_id, status, n_records)
 ORDER BY lane_id, status
    ON CONFLICT (lane_id, status) DO UPDATE
   SET n_records = present.n_records + excluded.n_records;

-- name: by_status
SELECT status, sum(n_records)::bigint FROM status_counts GROUP BY status HAVING sum(n_records) <> 0;

-- name: add_up
INSERT INTO status_counts (lane_id, status, n_records)
SELECT lane_id, status, sum(n_records) FROM status_count_parts GROUP BY lane_id, status;

-- name: expected
SELECT lane_id, status, count(*) AS n_records FROM {records} AS r GROUP BY lane_id, status;
