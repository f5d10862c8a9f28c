-- name: page
-- Events of the log in order, up to a position that bounds how many rows are looked at. `source`
-- is the log, or the streams of some records. An actor is looked for as it is packed in the state.
SELECT e.notification_id, e.originator_id, e.originator_version, e.topic, e.state
  FROM {source} AS e
 WHERE e.notification_id > %(after)b
   AND e.notification_id <= %(upto)b
   AND e.topic <> ALL (%(hidden)b::text[])
   AND (%(kinds)b::text[] IS NULL OR e.topic = ANY (%(kinds)b::text[]))
   AND (%(actors)b::bytea[] IS NULL
        OR EXISTS (SELECT FROM unnest(%(actors)b::bytea[]) AS packed (actor)
                    WHERE position(packed.actor IN e.state) > 0))
   AND (%(tags)b::text[] IS NULL
        OR (left(e.originator_id::text, 18) = '00000000-0000-0001'
            AND EXISTS (SELECT FROM records AS r
                         WHERE r.id = ('x' || right(replace(e.originator_id::text, '-', ''), 16))
                                      ::bit(64)::bigint
                           AND r.tag = ANY (%(tags)b::text[]))))
   AND (%(dataset_id)b::bigint IS NULL
        OR e.originator_id = %(dataset)b::uuid
        OR (left(e.originator_id::text, 18) = '00000000-0000-0001'
            AND EXISTS (SELECT FROM dataset_records AS d
                         WHERE d.dataset_id = %(dataset_id)b::bigint
                           AND d.record_id = ('x' || right(replace(e.originator_id::text, '-', ''),
                                                           16))::bit(64)::bigint
                           AND d.removed_in IS NULL)))
 ORDER BY e.notification_id
 LIMIT %(limit)b;

-- name: of_streams
-- The events of a few streams, found by the streams and not by walking along the log.
(SELECT * FROM ledger_events WHERE originator_id = ANY (%(streams)b::uuid[]) OFFSET 0);

-- name: tags
-- The tags of records; erased ones are not there.
SELECT id, tag FROM records WHERE id = ANY (%(ids)b::bigint[]);

-- name: datasets
-- The datasets whose records these are now.
SELECT DISTINCT record_id, dataset_id
  FROM dataset_records
 WHERE record_id = ANY (%(ids)b::bigint[]) AND removed_in IS NULL;
