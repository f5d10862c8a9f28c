-- name: ids
-- Records to which something happened between two positions, by id. What they were is in the first
-- of these rows, and what they became in the last, which is found without sorting: a status as
-- its number below its position.
SELECT record_id
  FROM record_changes
 WHERE position > %(a)s
   AND position <= %(b)s
   AND record_id > %(after)s
 GROUP BY record_id
HAVING {having}
 ORDER BY record_id
 LIMIT %(limit)s

-- name: counts
-- How many went from one status to another; 0 is not to be there.
SELECT from_status, to_status, count(*)
  FROM (SELECT {from_status} AS from_status, {to_status} AS to_status
          FROM record_changes
         WHERE position > %(a)s AND position <= %(b)s
         GROUP BY record_id
        HAVING {having}) AS changed
 GROUP BY from_status, to_status
 ORDER BY from_status, to_status

-- name: from_status
coalesce(max(array_position(%(statuses)s::text[], old_status)) FILTER (WHERE since <= %(a)s), 0)

-- name: to_status
(max((position << 4) | coalesce(array_position(%(statuses)s::text[], new_status), 0)) & 15)::integer

-- name: tagged
-- Who had one of these tags at any time between.
bool_or(old_tag = ANY(%(tags)s) OR new_tag = ANY(%(tags)s))

-- name: rows
-- What each of these records was and became, how much happened to it, and where the newest of that
-- is in the log.
SELECT wanted.id, was.old_status, was.old_tag, became.new_status, became.new_tag, happened.n_events,
       ARRAY(SELECT c.position
               FROM record_changes c
              WHERE c.record_id = wanted.id
                AND c.position > %(a)b::bigint AND c.position <= %(b)b::bigint
              ORDER BY c.position DESC
              LIMIT %(newest)b::bigint)
  FROM unnest(%(ids)b::bigint[]) AS wanted (id)
 CROSS JOIN LATERAL (
       SELECT c.old_status, c.old_tag
         FROM record_changes c
        WHERE c.record_id = wanted.id
          AND c.position > %(a)b::bigint AND c.position <= %(b)b::bigint
        ORDER BY c.position
        LIMIT 1) AS was
 CROSS JOIN LATERAL (
       SELECT c.new_status, c.new_tag
         FROM record_changes c
        WHERE c.record_id = wanted.id
          AND c.position > %(a)b::bigint AND c.position <= %(b)b::bigint
        ORDER BY c.position DESC
        LIMIT 1) AS became
 CROSS JOIN LATERAL (
       SELECT count(*) AS n_events
         FROM record_changes c
        WHERE c.record_id = wanted.id
          AND c.position > %(a)b::bigint AND c.position <= %(b)b::bigint) AS happened
 ORDER BY wanted.id;

-- name: events
-- Events by their positions.
SELECT notification_id, topic, state
  FROM ledger_events
 WHERE notification_id = ANY(%(positions)b::bigint[]);
