-- name: edges_of
-- The relations in which any of these records is parent or child.
SELECT parent_id, child_id FROM dependencies WHERE parent_id = ANY(%(ids)b::bigint[])
UNION
SELECT parent_id, child_id FROM dependencies WHERE child_id = ANY(%(ids)b::bigint[]);

-- name: edges_up
SELECT parent_id, child_id FROM dependencies WHERE child_id = ANY(%(ids)b::bigint[]);

-- name: edges_down
SELECT parent_id, child_id FROM dependencies WHERE parent_id = ANY(%(ids)b::bigint[]);

-- name: has_relatives
-- Whether any of these records has a parent or a child.
SELECT EXISTS (SELECT FROM dependencies WHERE child_id = ANY(%(ids)b::bigint[]))
    OR EXISTS (SELECT FROM dependencies WHERE parent_id = ANY(%(ids)b::bigint[]));

-- name: lock
-- New relations to old records are made one after the other, so that two of them cannot close a
-- circle that neither sees.
SELECT pg_advisory_xact_lock(%(lock)b);

-- name: insert
INSERT INTO dependencies (parent_id, child_id)
SELECT * FROM unnest(%(parents)b::bigint[], %(children)b::bigint[]) AS edge
 ORDER BY 1, 2
    ON CONFLICT DO NOTHING;

-- name: forget
DELETE FROM dependencies
 WHERE parent_id = ANY(%(ids)b::bigint[]) OR child_id = ANY(%(ids)b::bigint[]);

-- name: page_of_children
SELECT child_id FROM dependencies
 WHERE parent_id = %(id)s AND child_id > %(after)s
 ORDER BY child_id
 LIMIT %(limit)s;

-- name: page_of_parents
SELECT parent_id FROM dependencies
 WHERE child_id = %(id)s AND parent_id > %(after)s
 ORDER BY parent_id
 LIMIT %(limit)s;
