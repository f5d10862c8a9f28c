-- name: moment
-- What the ledger is in this snapshot, and the name under which others may look at it.
SELECT pg_export_snapshot(),
       (SELECT ledger_id FROM ledger_identity),
       (SELECT coalesce(max(notification_id), 0) FROM ledger_events),
       (SELECT count(*) FROM ledger_events),
       (SELECT max(version) FROM schema_migrations),
       clock_timestamp();

-- name: who
SELECT (SELECT ledger_id FROM ledger_identity),
       (SELECT coalesce(max(notification_id), 0) FROM ledger_events),
       (SELECT count(*) FROM ledger_events);

-- name: is_there
-- How many tables a schema has, and whether one of them is a log; nothing if there is no schema.
SELECT (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid),
       EXISTS (SELECT FROM pg_class c
                WHERE c.relnamespace = n.oid AND c.relname = 'ledger_events')
  FROM pg_namespace n
 WHERE n.nspname = %(schema)s;
