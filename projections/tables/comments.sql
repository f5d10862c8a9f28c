-- name: forget
DELETE FROM comments WHERE record_id = ANY(%(ids)b::bigint[]);

-- name: get
SELECT record_id, version, commented_at, author, text
  FROM comments
 WHERE record_id = %(id)s AND version > %(after)s
 ORDER BY version
 LIMIT %(limit)s;
