-- name: page
SELECT {columns} FROM records r WHERE {where} ORDER BY r.id DESC LIMIT %(limit)s;

-- name: page_of_several_statuses
SELECT r.*
  FROM unnest(%(status)s::text[]) AS each (status)
 CROSS JOIN LATERAL (
       SELECT {columns} FROM records r WHERE {where} ORDER BY r.id DESC LIMIT %(limit)s) AS r
 ORDER BY r.id DESC
 LIMIT %(limit)s;

-- name: ledger_id
SELECT ledger_id FROM ledger_identity;
