-- name: next_id
SELECT nextval('divergence_ids');

-- name: add
INSERT INTO divergences (id, version, state, table_name, row_key, fault, columns, found_at)
VALUES (%(id)s, %(version)s, 'open', %(table)s, %(key)s, %(fault)s, %(columns)s, %(found_at)s);

-- name: end
UPDATE divergences
   SET version = %(version)s,
       state = %(state)s,
       ended_at = %(ended_at)s,
       ended_by = %(ended_by)s
 WHERE id = %(id)s;

-- name: open
-- Those that are open, oldest first.
SELECT id, version, state, table_name, row_key, fault, columns, found_at, ended_at, ended_by
  FROM divergences
 WHERE state = 'open' AND id > %(after)s
 ORDER BY id
 LIMIT %(limit)s;

-- name: page
-- All that there were, newest first.
SELECT id, version, state, table_name, row_key, fault, columns, found_at, ended_at, ended_by
  FROM divergences
 WHERE id < %(before)s
 ORDER BY id DESC
 LIMIT %(limit)s;

-- name: lock
SELECT id, version, state, table_name, row_key, fault, columns, found_at, ended_at, ended_by
  FROM divergences
 WHERE id = %(id)s
   FOR UPDATE;

-- name: counts
-- How many are open, by table.
SELECT table_name, count(*) FROM divergences WHERE state = 'open' GROUP BY table_name;
