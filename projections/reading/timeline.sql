-- name: extent
-- How far the timeline goes.
SELECT position, newest_id, latest_at FROM timeline;

-- name: lock
-- Only one transaction at a time extends the timeline.
SELECT position, newest_id, latest_at FROM timeline FOR UPDATE;

-- name: begin
INSERT INTO timeline DEFAULT VALUES;

-- name: events
-- The next events of the log. Of what is no record, only the beginning, which says when it was.
SELECT notification_id, originator_id, originator_version, topic,
       CASE WHEN originator_id BETWEEN %(first_record)b::uuid AND %(last_record)b::uuid
            THEN state
            ELSE substring(state FROM 1 FOR 64)
        END
  FROM ledger_events
 WHERE notification_id > %(after)b::bigint
   AND notification_id <= %(upto)b::bigint
 ORDER BY notification_id
 LIMIT %(limit)b::bigint;

-- name: states
-- What these records are at the end of the timeline.
SELECT record_id, since, version, status, array_to_string(prior, ','), kind, tag, manager_id, owner,
       function, created_at, modified_at
  FROM record_states
 WHERE record_id = ANY(%(ids)b::bigint[]);

-- name: add_changes
INSERT INTO record_changes (position, record_id, since, old_manager_id, old_modified_at, old_status,
                            old_tag, new_status, new_tag)
SELECT * FROM unnest(%(position)b::bigint[], %(record_id)b::bigint[], %(since)b::bigint[],
                     %(old_manager_id)b::bigint[], %(old_modified_at)b::timestamptz[],
                     %(old_status)b::text[], %(old_tag)b::text[], %(new_status)b::text[],
                     %(new_tag)b::text[]);

-- name: write_states
INSERT INTO record_states AS present (record_id, since, version, status, prior, kind, tag,
                                      manager_id, owner, function, created_at, modified_at)
SELECT record_id, since, version, status, string_to_array(prior, ','), kind, tag, manager_id, owner,
       function, created_at, modified_at
  FROM unnest(%(record_id)b::bigint[], %(since)b::bigint[], %(version)b::integer[],
              %(status)b::text[], %(prior)b::text[], %(kind)b::text[], %(tag)b::text[],
              %(manager_id)b::bigint[], %(owner)b::text[], %(function)b::text[],
              %(created_at)b::timestamptz[], %(modified_at)b::timestamptz[])
       AS new (record_id, since, version, status, prior, kind, tag, manager_id, owner, function,
               created_at, modified_at)
    ON CONFLICT (record_id) DO UPDATE
   SET since = excluded.since,
       version = excluded.version,
       status = excluded.status,
       prior = excluded.prior,
       tag = excluded.tag,
       manager_id = excluded.manager_id,
       modified_at = excluded.modified_at;

-- name: add_marks
INSERT INTO timeline_marks (position, newest_id, latest_at)
SELECT * FROM unnest(%(positions)b::bigint[], %(newest_ids)b::bigint[], %(times)b::timestamptz[]);

-- name: move
UPDATE timeline
   SET position = %(position)b::bigint,
       newest_id = %(newest_id)b::bigint,
       latest_at = %(latest_at)b::timestamptz;

-- name: newest_counts
-- The newest kept counts at or before a position, and how many rows they have.
SELECT position, count(*)
  FROM timeline_counts
 WHERE position = (SELECT max(position) FROM timeline_counts
                    WHERE position <= %(position)b::bigint)
 GROUP BY position;

-- name: counts
-- How many records of each tag were in each status at a position: the kept counts before it, and
-- what has changed since. Given as numbers, so that the plan knows how few rows lie between.
SELECT tag, status, sum(n)::bigint
  FROM (SELECT tag, status, n_records AS n
          FROM timeline_counts
         WHERE position = %(kept)s
         UNION ALL
        SELECT moved.tag, moved.status, moved.n
          FROM record_changes AS c
         CROSS JOIN LATERAL (VALUES (c.old_tag, c.old_status, -1), (c.new_tag, c.new_status, 1))
               AS moved (tag, status, n)
         WHERE c.position > %(kept)s
           AND c.position <= %(position)s
           AND (c.old_status, c.old_tag) IS DISTINCT FROM (c.new_status, c.new_tag)
           AND moved.status IS NOT NULL) AS every
 GROUP BY tag, status
HAVING sum(n) <> 0;

-- name: keep_counts
INSERT INTO timeline_counts (position, tag, status, n_records)
SELECT %(position)b::bigint, *
  FROM unnest(%(tags)b::text[], %(statuses)b::text[], %(numbers)b::bigint[]);

-- name: forget
TRUNCATE timeline_marks, timeline_counts, record_states, record_changes;

-- name: restart
UPDATE timeline SET position = 0, newest_id = 0, latest_at = NULL;
