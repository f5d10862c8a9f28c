-- name: next_id
SELECT nextval('dataset_ids');

-- name: hold_name
-- Two people who take the same name take it one after the other.
SELECT pg_advisory_xact_lock(%(lock)s, hashtext(lower(%(name)s)));

-- name: write
INSERT INTO datasets (id, version, name, description, owner, cloned_from, created_at, modified_at,
                      deleted_at, n_entries, entries_added, specifications_added, versions_locked)
VALUES (%(id)s, %(version)s, %(name)s, %(description)s, %(owner)s, %(cloned_from)s,
        %(created_at)s, %(modified_at)s, %(deleted_at)s, %(n_entries)s, %(entries_added)s,
        %(specifications_added)s, %(versions_locked)s)
    ON CONFLICT (id) DO UPDATE
   SET version = excluded.version,
       name = excluded.name,
       description = excluded.description,
       modified_at = excluded.modified_at,
       deleted_at = excluded.deleted_at,
       n_entries = excluded.n_entries,
       entries_added = excluded.entries_added,
       specifications_added = excluded.specifications_added,
       versions_locked = excluded.versions_locked;

-- name: get
SELECT id, version, name, description, owner, cloned_from, created_at, modified_at, deleted_at,
       n_entries, entries_added, specifications_added, versions_locked
  FROM datasets
 WHERE id = %(id)s AND deleted_at IS NULL;

-- name: lock
-- A transaction that changes a dataset has this lock, and takes it before those of any records.
SELECT id, version, name, description, owner, cloned_from, created_at, modified_at, deleted_at,
       n_entries, entries_added, specifications_added, versions_locked
  FROM datasets
 WHERE id = %(id)s AND deleted_at IS NULL
   FOR UPDATE;

-- name: id_of
SELECT id FROM datasets WHERE lower(name) = lower(%(name)s) AND deleted_at IS NULL;

-- name: page
SELECT id, version, name, description, owner, cloned_from, created_at, modified_at, deleted_at,
       n_entries, entries_added, specifications_added, versions_locked
  FROM datasets
 WHERE id < %(before)s AND deleted_at IS NULL
 ORDER BY id DESC
 LIMIT %(limit)s;

-- name: specifications
-- Those that a dataset had in a version of its own; what it has now for the newest.
SELECT number, name, kind, function, kwargs, kwargs_size_bytes, required_programs, tag, priority,
       retries, retry_delay_s, retry_on
  FROM dataset_specifications
 WHERE dataset_id = %(id)s
   AND added_in <= %(version)s
   AND (removed_in IS NULL OR removed_in > %(version)s)
 ORDER BY number;

-- name: add_entries
INSERT INTO dataset_entries (dataset_id, number, added_in, name, content, inputs, place, size_bytes,
                             attributes)
SELECT %(id)s, %(first)s + entry.place - 1, %(version)s, entry.name, entry.content, %(inputs)s,
       entry.place - 1, entry.size_bytes, entry.attributes::jsonb
  FROM unnest(%(names)s::text[], %(contents)s::bytea[], %(sizes)s::bigint[],
              %(attributes)s::text[])
       WITH ORDINALITY AS entry (name, content, size_bytes, attributes, place);

-- name: end_entries
UPDATE dataset_entries
   SET removed_in = %(version)s
 WHERE dataset_id = %(id)s AND number = ANY(%(entries)s::integer[]) AND removed_in IS NULL;

-- name: rename_entries
-- The same entries, which end_entries has ended in this version, under their new names.
INSERT INTO dataset_entries (dataset_id, number, added_in, name, content, inputs, place, size_bytes,
                             attributes)
SELECT e.dataset_id, e.number, %(version)s, renamed.name, e.content, e.inputs, e.place,
       e.size_bytes, e.attributes
  FROM unnest(%(entries)s::integer[], %(names)s::text[]) AS renamed (number, name)
  JOIN dataset_entries e
    ON e.dataset_id = %(id)s AND e.number = renamed.number AND e.removed_in = %(version)s;

-- name: end_all_entries
UPDATE dataset_entries SET removed_in = %(version)s
 WHERE dataset_id = %(id)s AND removed_in IS NULL;

-- name: add_specification
INSERT INTO dataset_specifications (dataset_id, number, added_in, name, kind, function, kwargs,
       kwargs_size_bytes, required_programs, tag, priority, retries, retry_delay_s, retry_on)
VALUES (%(id)s, %(number)s, %(version)s, %(name)s, %(kind)s, %(function)s, %(kwargs)s,
        %(kwargs_size_bytes)s, %(required_programs)s, %(tag)s, %(priority)s, %(retries)s,
        %(retry_delay_s)s, %(retry_on)s);

-- name: end_specifications
UPDATE dataset_specifications
   SET removed_in = %(version)s
 WHERE dataset_id = %(id)s
   AND removed_in IS NULL
   AND (%(specification)s::integer IS NULL OR number = %(specification)s);

-- name: link
-- What is counted are the statuses that the records have at the end of the operation.
  WITH linked AS (
       INSERT INTO dataset_records (dataset_id, specification, entry, added_in, record_id)
       SELECT %(id)s, %(specification)s, cell.entry, %(version)s, cell.record_id
         FROM unnest(%(entries)s::integer[], %(record_ids)s::bigint[]) AS cell (entry, record_id)
       RETURNING specification, record_id)
SELECT linked.specification, r.status, count(*)
  FROM linked
  JOIN records r ON r.id = linked.record_id
 GROUP BY 1, 2;

-- name: unlink
-- The cells of these entries, or of this specification, or both; all for neither.
  WITH unlinked AS (
       UPDATE dataset_records
          SET removed_in = %(version)s
        WHERE dataset_id = %(id)s
          AND removed_in IS NULL
          AND (%(specification)s::integer IS NULL OR specification = %(specification)s)
          AND (%(entries)s::integer[] IS NULL OR entry = ANY(%(entries)s::integer[]))
       RETURNING specification, record_id)
SELECT unlinked.specification, r.status, count(*)
  FROM unlinked
  JOIN records r ON r.id = unlinked.record_id
 GROUP BY 1, 2;

-- name: hold_records
-- Before cells are emptied: nobody else may change their records, and what is counted of them.
SELECT count(*) FROM (
       SELECT r.id
         FROM records r
        WHERE r.id IN (
              SELECT record_id
                FROM dataset_records
               WHERE dataset_id = %(id)s
                 AND removed_in IS NULL
                 AND (%(specifications)s::integer[] IS NULL
                      OR specification = ANY(%(specifications)s::integer[]))
                 AND (%(entries)s::integer[] IS NULL OR entry = ANY(%(entries)s::integer[])))
        ORDER BY r.id
          FOR NO KEY UPDATE OF r) AS held;

-- name: add_version
INSERT INTO dataset_versions (dataset_id, number, version, label, doi, n_entries, locked_at,
                              locked_by)
SELECT %(id)s, %(number)s, %(version)s, %(label)s, %(doi)s, count(*), %(locked_at)s, %(locked_by)s
  FROM dataset_entries
 WHERE dataset_id = %(id)s
   AND added_in <= %(version)s
   AND (removed_in IS NULL OR removed_in > %(version)s);

-- name: versions
SELECT number, version, label, doi, n_entries, locked_at, locked_by
  FROM dataset_versions
 WHERE dataset_id = %(id)s
 ORDER BY number;

-- name: counted_in
-- Which cells have one of these records. The one thing that a change of records costs.
SELECT record_id, dataset_id, specification
  FROM dataset_records
 WHERE record_id = ANY(%(record_ids)b::bigint[]) AND removed_in IS NULL;

-- name: cells_of
-- How many cells of each dataset and specification have one of these records.
SELECT dataset_id, specification, count(*)
  FROM dataset_records
 WHERE record_id = ANY(%(record_ids)b::bigint[]) AND removed_in IS NULL
 GROUP BY dataset_id, specification;

-- name: referring
-- Which datasets have one of these records, now or in a locked version.
SELECT DISTINCT d.record_id, s.name, d.removed_in IS NULL AS is_live
  FROM dataset_records d
  JOIN datasets s ON s.id = d.dataset_id
 WHERE d.record_id = ANY(%(record_ids)b::bigint[])
   AND (d.removed_in IS NULL
        OR EXISTS (SELECT FROM dataset_versions v
                    WHERE v.dataset_id = d.dataset_id
                      AND v.version >= d.added_in
                      AND v.version < d.removed_in))
 ORDER BY 1, 2;

-- name: add_counts
-- In the order of the key, so that two transactions never wait for each other in a circle.
INSERT INTO dataset_counts AS present (dataset_id, specification, status, n_records)
SELECT * FROM unnest(%(dataset_ids)b::bigint[], %(specifications)b::integer[], %(statuses)b::text[],
                     %(deltas)b::bigint[])
       AS delta (dataset_id, specification, status, n_records)
 ORDER BY dataset_id, specification, status
    ON CONFLICT (dataset_id, specification, status) DO UPDATE
   SET n_records = present.n_records + excluded.n_records;

-- name: counts
SELECT specification, status, n_records
  FROM dataset_counts
 WHERE dataset_id = %(id)s AND n_records <> 0;

-- name: counts_of_all
-- How many cells of each dataset have a record, and how many of these are in which status.
SELECT dataset_id, status, sum(n_records)::bigint
  FROM dataset_counts
 WHERE dataset_id = ANY(%(ids)s) AND n_records <> 0
 GROUP BY 1, 2;

-- name: entries_named
SELECT name, number, content
  FROM dataset_entries
 WHERE dataset_id = %(id)s AND name = ANY(%(names)s) AND removed_in IS NULL;

-- name: entries_numbered
SELECT e.number, e.name, e.inputs, e.place, e.size_bytes
  FROM unnest(%(numbers)s::integer[]) AS wanted (number)
  JOIN dataset_entries e
    ON e.dataset_id = %(id)s AND e.number = wanted.number AND e.removed_in IS NULL;

-- name: entries
-- A page of the entries that a dataset had in a version of its own, by number.
SELECT number, name, inputs, place, size_bytes
  FROM dataset_entries
 WHERE dataset_id = %(id)s
   AND number > %(after)s
   AND added_in <= %(version)s
   AND (removed_in IS NULL OR removed_in > %(version)s)
 ORDER BY number
 LIMIT %(limit)s;

-- name: cells
-- The records of these entries, in a version of the dataset's own, with what they are now.
SELECT d.entry, d.specification, d.record_id, r.status
  FROM dataset_records d
  LEFT JOIN records r ON r.id = d.record_id
 WHERE d.dataset_id = %(id)s
   AND d.entry = ANY(%(entries)s::integer[])
   AND d.specification = ANY(%(specifications)s::integer[])
   AND d.added_in <= %(version)s
   AND (d.removed_in IS NULL OR d.removed_in > %(version)s)
 ORDER BY d.entry, d.specification;

-- name: selected_entries
-- Entries by what people say of them; every condition that is not NULL must hold.
SELECT number, size_bytes
  FROM dataset_entries
 WHERE dataset_id = %(id)s
   AND removed_in IS NULL
   AND (%(names)s::text[] IS NULL OR name = ANY(%(names)s::text[]))
   AND (%(pattern)s::text IS NULL OR name LIKE %(pattern)s)
   AND (%(attributes)s::jsonb IS NULL OR attributes @> %(attributes)s::jsonb)
 ORDER BY number;

-- name: linked_entries
-- Which entries have a record for a specification.
SELECT entry
  FROM dataset_records
 WHERE dataset_id = %(id)s
   AND specification = %(specification)s
   AND removed_in IS NULL
   AND (%(entries)s::integer[] IS NULL OR entry = ANY(%(entries)s::integer[]));

-- name: record_events
-- The events of the records that a dataset has, record by record: a page of them. Each record has
-- one at least, but for the first, where the page before may have ended with its last.
SELECT d.record_id, e.originator_version, e.notification_id, e.topic, e.state
  FROM (SELECT DISTINCT dataset_id, record_id
          FROM dataset_records
         WHERE (dataset_id, record_id) >= (%(dataset_id)b::bigint, %(record_id)b::bigint)
           AND dataset_id <= %(dataset_id)b::bigint
           AND removed_in IS NULL
         -- An index that begins with the dataset has this order; that by record has not.
         ORDER BY dataset_id, record_id
         LIMIT %(limit)b::bigint + 1) AS d
 CROSS JOIN LATERAL (
       SELECT originator_version, notification_id, topic, state
         FROM ledger_events
        WHERE originator_id = (lpad('1', 16, '0') || lpad(to_hex(d.record_id), 16, '0'))::uuid
          AND (d.record_id > %(record_id)b::bigint OR originator_version > %(version)b::integer)
        ORDER BY originator_version
       OFFSET 0) AS e
 ORDER BY d.record_id, e.originator_version
 LIMIT %(limit)b::bigint;

-- name: expected_counts
SELECT d.dataset_id, d.specification, r.status, count(*) AS n_records
  FROM {dataset_records} AS d
  JOIN {records} AS r ON r.id = d.record_id
 WHERE d.removed_in IS NULL
 GROUP BY d.dataset_id, d.specification, r.status;
