-- name: find
SELECT request_hash, answer FROM idempotency_keys WHERE actor = %(actor)b AND key = %(key)b;

-- name: keep
INSERT INTO idempotency_keys (actor, key, request_hash, answer)
VALUES (%(actor)b, %(key)b, %(request_hash)b, %(answer)b);

-- name: forget
-- In slices, so that the transaction stays short however many there are.
DELETE FROM idempotency_keys
 WHERE (actor, key) IN (
       SELECT actor, key FROM idempotency_keys
        WHERE created_at < clock_timestamp() - make_interval(secs => %(older_than_s)s)
        ORDER BY created_at
        LIMIT %(limit)s);
