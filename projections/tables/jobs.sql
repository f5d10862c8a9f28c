-- name: next_id
SELECT nextval('job_ids');

-- name: write
INSERT INTO jobs (id, version, operation_id, action, state, actor, reason, n_total, n_done,
                  n_updated, n_relatives, n_refused, created_at, modified_at)
VALUES (%(id)s, %(version)s, %(operation_id)s, %(action)s, %(state)s, %(actor)s, %(reason)s,
        %(n_total)s, %(n_done)s, %(n_updated)s, %(n_relatives)s, %(n_refused)s, %(created_at)s,
        %(modified_at)s)
    ON CONFLICT (id) DO UPDATE
   SET version = excluded.version,
       state = excluded.state,
       n_done = excluded.n_done,
       n_updated = excluded.n_updated,
       n_relatives = excluded.n_relatives,
       n_refused = excluded.n_refused,
       modified_at = excluded.modified_at;

-- name: get
SELECT id, version, operation_id, action, state, actor, reason, n_total, n_done, n_updated,
       n_relatives, n_refused, created_at, modified_at
  FROM jobs
 WHERE id = %(id)s;

-- name: lock
SELECT id, version, operation_id, action, state, actor, reason, n_total, n_done, n_updated,
       n_relatives, n_refused, created_at, modified_at
  FROM jobs
 WHERE id = %(id)s
   FOR UPDATE;

-- name: page
SELECT id, version, operation_id, action, state, actor, reason, n_total, n_done, n_updated,
       n_relatives, n_refused, created_at, modified_at
  FROM jobs
 WHERE id < %(before)s
 ORDER BY id DESC
 LIMIT %(limit)s;

-- name: unfinished
SELECT id FROM jobs WHERE state = 'running' OR state = 'cancelling' ORDER BY id LIMIT %(limit)s;

-- name: of_operation
SELECT id FROM jobs WHERE operation_id = %(operation_id)s;
