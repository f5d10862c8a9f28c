-- name: insert
-- Write once: what is there already is the same bytes. Sorted by the caller, so that two
-- transactions that bring the same payloads never wait for each other in a circle.
  WITH nothing_is_erased AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(%(lock)b))
INSERT INTO payloads (digest, size_bytes, codec, data)
SELECT payload.*
  FROM nothing_is_erased,
       unnest(%(digests)b::bytea[], %(sizes)b::bigint[], %(codecs)b::text[], %(datas)b::bytea[])
       AS payload
    ON CONFLICT DO NOTHING
RETURNING digest;

-- name: lock
-- Hold these payloads, so that two submissions of the same specification go one after the other.
SELECT digest FROM payloads WHERE digest = ANY(%(digests)b::bytea[]) ORDER BY digest
   FOR NO KEY UPDATE;

-- name: get
SELECT digest, size_bytes, codec, data FROM payloads WHERE digest = ANY(%(digests)b::bytea[]);

-- name: sizes
SELECT digest, size_bytes FROM payloads WHERE digest = ANY(%(digests)b::bytea[]);

-- name: refer
INSERT INTO payload_references (digest, stream, number)
SELECT * FROM unnest(%(digests)b::bytea[], %(streams)b::smallint[], %(numbers)b::bigint[])
       AS reference
 ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING;

-- name: forget
-- The references of records that were erased; what they named is returned.
DELETE FROM payload_references
 WHERE stream = 1
   AND number = ANY(%(record_ids)b::bigint[])
RETURNING digest;

-- name: release
-- References that are needed no more.
DELETE FROM payload_references r
 USING unnest(%(digests)b::bytea[], %(streams)b::smallint[], %(numbers)b::bigint[])
       AS released (digest, stream, number)
 WHERE r.digest = released.digest
   AND r.stream = released.stream
   AND r.number = released.number
RETURNING r.digest;

-- name: lock_for_erasure
SELECT pg_advisory_xact_lock(%(lock)s);

-- name: destroy
-- Destroy those of these payloads that nobody names any more. A transaction that names one again
-- meanwhile holds the lock that this waits for.
DELETE FROM payloads p
 WHERE p.digest = ANY(%(digests)b::bytea[])
   AND NOT EXISTS (SELECT FROM payload_references r WHERE r.digest = p.digest)
RETURNING p.digest;
