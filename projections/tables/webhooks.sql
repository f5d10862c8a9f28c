-- name: next_id
SELECT nextval('webhook_ids');

-- name: write
INSERT INTO webhooks (id, version, state, url, kinds, tags, actors, dataset_id, owner, why,
                      created_at, modified_at)
VALUES (%(id)s, %(version)s, %(state)s, %(url)s, %(kinds)s, %(tags)s, %(actors)s, %(dataset_id)s,
        %(owner)s, %(why)s, %(created_at)s, %(modified_at)s)
    ON CONFLICT (id) DO UPDATE
   SET version = excluded.version,
       state = excluded.state,
       url = excluded.url,
       kinds = excluded.kinds,
       tags = excluded.tags,
       actors = excluded.actors,
       dataset_id = excluded.dataset_id,
       why = excluded.why,
       modified_at = excluded.modified_at;

-- name: lock
SELECT id, version, state, url, kinds, tags, actors, dataset_id, owner, why, created_at, modified_at
  FROM webhooks
 WHERE id = %(id)s AND state <> 'removed'
   FOR UPDATE;

-- name: lock_all
-- A transaction that adds one makes others wait who add one, so that there are never more than the
-- limit.
LOCK TABLE webhook_secrets IN SHARE ROW EXCLUSIVE MODE;

-- name: all
SELECT w.id, w.version, w.state, w.url, w.kinds, w.tags, w.actors, w.dataset_id, w.owner, w.why,
       w.created_at, w.modified_at,
       d.position, d.n_failures, d.failing_since, d.next_try_at
  FROM webhooks AS w
  JOIN webhook_deliveries AS d ON d.webhook_id = w.id
 WHERE w.state <> 'removed' AND (%(id)s::bigint IS NULL OR w.id = %(id)s)
 ORDER BY w.id;

-- name: count
SELECT count(*) FROM webhooks WHERE state <> 'removed';

-- name: keep_secret
INSERT INTO webhook_secrets (webhook_id, secret) VALUES (%(id)s, %(secret)s);

-- name: secret
SELECT secret FROM webhook_secrets WHERE webhook_id = %(id)s;

-- name: begin
INSERT INTO webhook_deliveries (webhook_id, position) VALUES (%(id)s, %(position)s);

-- name: forget
  WITH secret AS (DELETE FROM webhook_secrets WHERE webhook_id = %(id)s),
       attempts AS (DELETE FROM webhook_attempts WHERE webhook_id = %(id)s)
DELETE FROM webhook_deliveries WHERE webhook_id = %(id)s;

-- name: start_over
-- What is on its way belongs to the address or filter that was: the next message is another one.
UPDATE webhook_deliveries
   SET message_id = NULL, upto = NULL, n_failures = 0, failing_since = NULL,
       next_try_at = clock_timestamp(), worker = NULL, leased_until = NULL
 WHERE webhook_id = %(id)s;

-- name: try_now
-- What is on its way is still the same message.
UPDATE webhook_deliveries
   SET n_failures = 0, failing_since = NULL, next_try_at = clock_timestamp()
 WHERE webhook_id = %(id)s;

-- name: due
-- Webhooks that have events due now and that nobody has in hand.
SELECT w.id
  FROM webhooks AS w
  JOIN webhook_deliveries AS d ON d.webhook_id = w.id
 WHERE w.state = 'enabled'
   AND d.next_try_at <= clock_timestamp()
   AND (d.leased_until IS NULL OR d.leased_until < clock_timestamp())
   AND d.position < (SELECT coalesce(max(notification_id), 0) FROM ledger_events)
 ORDER BY w.id;

-- name: take
-- Have a webhook in hand for a while, if it is still enabled and nobody else has it.
UPDATE webhook_deliveries AS d
   SET worker = %(worker)s,
       leased_until = clock_timestamp() + %(lease_s)s * interval '1 s'
  FROM webhooks AS w, webhook_secrets AS s
 WHERE d.webhook_id = %(id)s AND w.id = d.webhook_id AND s.webhook_id = d.webhook_id
   AND w.state = 'enabled'
   AND (d.worker = %(worker)s OR d.leased_until IS NULL OR d.leased_until < clock_timestamp())
RETURNING w.url, w.kinds, w.tags, w.actors, w.dataset_id, s.secret, d.position, d.message_id,
          d.upto, d.n_failures, d.failing_since;

-- name: set_out
-- A message is on its way: until it is delivered, it is this one.
UPDATE webhook_deliveries
   SET message_id = %(message_id)s, upto = %(upto)s
 WHERE webhook_id = %(id)s AND worker = %(worker)s AND leased_until > clock_timestamp();

-- name: pass_over
-- Up to there is nothing that the filter lets through.
UPDATE webhook_deliveries
   SET position = %(upto)s, message_id = NULL, upto = NULL
 WHERE webhook_id = %(id)s AND worker = %(worker)s;

-- name: delivered
UPDATE webhook_deliveries
   SET position = upto, message_id = NULL, upto = NULL, n_failures = 0, failing_since = NULL,
       next_try_at = clock_timestamp()
 WHERE webhook_id = %(id)s AND worker = %(worker)s AND message_id = %(message_id)s;

-- name: failed
UPDATE webhook_deliveries
   SET n_failures = n_failures + 1,
       failing_since = coalesce(failing_since, clock_timestamp()),
       next_try_at = clock_timestamp() + %(pause_s)s * interval '1 s',
       worker = NULL, leased_until = NULL
 WHERE webhook_id = %(id)s AND worker = %(worker)s AND message_id = %(message_id)s
RETURNING failing_since, extract(epoch FROM clock_timestamp() - failing_since)::float8;

-- name: release
UPDATE webhook_deliveries
   SET worker = NULL, leased_until = NULL
 WHERE webhook_id = %(id)s AND worker = %(worker)s;

-- name: note_attempt
  WITH old AS (
       DELETE FROM webhook_attempts
        WHERE webhook_id = %(id)s
          AND id <= (SELECT id FROM webhook_attempts
                      WHERE webhook_id = %(id)s
                      ORDER BY id DESC OFFSET %(kept)s LIMIT 1))
INSERT INTO webhook_attempts (webhook_id, message_id, after, upto, n_events, duration_s,
                              status_code, error)
VALUES (%(id)s, %(message_id)s, %(after)s, %(upto)s, %(n_events)s, %(duration_s)s,
        %(status_code)s, %(error)s);

-- name: attempts
SELECT message_id, after, upto, n_events, attempted_at, duration_s, status_code, error
  FROM webhook_attempts
 WHERE webhook_id = %(id)s
 ORDER BY id DESC
 LIMIT %(limit)s;
