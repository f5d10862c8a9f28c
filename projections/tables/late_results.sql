-- name: add
INSERT INTO rescue_counts AS present (kind, n_results, compute_ms, core_ms)
VALUES (%(kind)s, %(n_results)s, %(compute_ms)s, %(core_ms)s)
    ON CONFLICT (kind) DO UPDATE
   SET n_results = present.n_results + excluded.n_results,
       compute_ms = present.compute_ms + excluded.compute_ms,
       core_ms = present.core_ms + excluded.core_ms;

-- name: hold
SELECT FROM rescue_counts ORDER BY kind FOR UPDATE;

-- name: totals
SELECT kind, n_results, compute_ms, core_ms FROM rescue_counts;

-- name: of_old_logs
-- Read once, by the migration that adds the table.
SELECT topic, state FROM ledger_events WHERE topic = ANY(%(topics)s);

-- name: add_up
INSERT INTO rescue_counts (kind, n_results, compute_ms, core_ms)
SELECT kind, sum(n_results), sum(compute_ms), sum(core_ms) FROM rescue_count_parts GROUP BY kind;
