-- name: insert
-- Write once: what is there already is the same bytes. Sorted by the caller, so that two
-- transactions that bring the same payloads never wait for each other in a circle.
INSERT INTO payloads (digest, size_bytes, codec, data)
SELECT * FROM unnest(%(digests)b::bytea[], %(sizes)b::bigint[], %(codecs)b::text[],
                     %(datas)b::bytea[])
    ON CONFLICT DO NOTHING
RETURNING digest;

-- name: lock
-- Hold these payloads, so that two submissions of the same specification go one after the other.
SELECT digest FROM payloads WHERE digest = ANY(%(digests)b::bytea[]) ORDER BY digest
   FOR NO KEY UPDATE;

-- name: get
SELECT digest, size_bytes, codec, data FROM payloads WHERE digest = ANY(%(digests)b::bytea[]);

-- name: refer
INSERT INTO payload_references (digest, record_id)
SELECT * FROM unnest(%(digests)b::bytea[], %(record_ids)b::bigint[]) AS reference
 ORDER BY 1, 2
    ON CONFLICT DO NOTHING;

-- name: forget
-- The references of records that were erased.
DELETE FROM payload_references WHERE record_id = ANY(%(record_ids)b::bigint[]);
