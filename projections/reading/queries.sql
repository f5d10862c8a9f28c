-- name: page
SELECT {columns} FROM {source} WHERE {where} ORDER BY {key} DESC LIMIT %(limit)s;

-- name: merged
-- One page out of several, which have nothing in common.
SELECT r.* FROM ({pages}) AS r ORDER BY r.id DESC LIMIT %(limit)s;

-- name: ids
SELECT r.id FROM {source} WHERE {where} ORDER BY {key} LIMIT %(limit)s;

-- name: of_dataset
-- The records of a dataset, instead of all, in the order of the page: read from an index as far as
-- the page needs them, and looked up one by one (OFFSET 0 keeps them so). A merge of the two
-- indexes would walk over all records that are newer than the dataset.
(SELECT DISTINCT record_id FROM dataset_records WHERE {where} ORDER BY record_id {direction}) AS d
       CROSS JOIN LATERAL (SELECT * FROM records WHERE records.id = d.record_id OFFSET 0) AS r;

-- name: error_groups
-- What records in error say, and how many say the same; of the newest ones only, so that the cost
-- has a limit.
SELECT error_type, error_message, count(*), (array_agg(id ORDER BY id DESC))[1:5],
       max(finished_at)
  FROM (SELECT id, error_type, error_message, finished_at
          FROM records
         WHERE status = 'error'
         ORDER BY id DESC
         LIMIT %(among)s) AS newest
 GROUP BY error_type, error_message
 ORDER BY count(*) DESC, max(id) DESC
 LIMIT %(limit)s;

-- name: ledger_id
SELECT ledger_id FROM ledger_identity;
