-- name: add
-- What came here once, came once: a second claim to the same origin changes nothing.
INSERT INTO origins (origin_ledger, stream, origin_id, number, archive_hash, imported_at,
                     imported_by)
SELECT * FROM unnest(%(ledgers)b::uuid[], %(streams)b::smallint[], %(origin_ids)b::bigint[],
                     %(numbers)b::bigint[], %(hashes)b::text[], %(times)b::timestamptz[],
                     %(actors)b::text[]) AS new
 ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING;

-- name: here
-- What of another ledger's aggregates is here, and as which.
SELECT origin_id, number
  FROM origins
 WHERE origin_ledger = %(ledger)b
   AND stream = %(stream)b
   AND origin_id = ANY(%(origin_ids)b::bigint[]);

-- name: page
-- Where an aggregate had come from before that, and so on, comes first.
SELECT origin_ledger, stream, origin_id, number, archive_hash, imported_at, imported_by
  FROM origins
 WHERE stream = %(stream)s
   AND number >= %(since)s
   AND (%(number)s::bigint IS NULL OR number = %(number)s::bigint)
   AND (%(ledger)s::uuid IS NULL OR origin_ledger = %(ledger)s::uuid)
   AND (%(origin_id)s::bigint IS NULL OR origin_id = %(origin_id)s::bigint)
 ORDER BY number, imported_at, origin_ledger
OFFSET %(skip)s
 LIMIT %(limit)s;

-- name: records_here
SELECT id, id FROM records WHERE id = ANY(%(ids)b::bigint[]);

-- name: managers_here
SELECT id, id FROM managers WHERE id = ANY(%(ids)b::bigint[]);

-- name: datasets_here
SELECT id, id FROM datasets WHERE id = ANY(%(ids)b::bigint[]);

-- name: one_import
-- Imports are done one after the other.
SELECT pg_advisory_xact_lock(%(lock)b);

-- name: make_room
-- Where events wait until all of them can be appended in order.
CREATE TEMPORARY TABLE arriving (
    place   bigint PRIMARY KEY,
    id      uuid   NOT NULL,
    version bigint NOT NULL,
    topic   text   NOT NULL,
    state   bytea  NOT NULL
) ON COMMIT DROP;

-- name: arrive
INSERT INTO arriving (place, id, version, topic, state)
SELECT * FROM unnest(%(places)b::bigint[], %(ids)b::uuid[], %(versions)b::bigint[],
                     %(topics)b::text[], %(states)b::bytea[]) AS new;

-- name: lock_log
SELECT pg_advisory_xact_lock(%(lock)b), pg_notify(%(channel)b, '');

-- name: append_all
-- In the order in which they happened there.
INSERT INTO ledger_events (originator_id, originator_version, topic, state)
SELECT id, version, topic, state FROM arriving ORDER BY place;
