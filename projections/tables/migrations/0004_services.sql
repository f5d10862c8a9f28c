-- Services that run by themselves: what each waits for, its children by key, and who has it.

-- What each service waits for, one row for each that was not erased. `due` says that the runner has
-- something to do; `wanted` that another service waits for it.
CREATE TABLE services (
    record_id    bigint   PRIMARY KEY,
    status       text     NOT NULL,
    rank         smallint NOT NULL,
    wanted       boolean  NOT NULL,
    by_children  boolean  NOT NULL DEFAULT false,
    n_children   integer  NOT NULL DEFAULT 0,
    n_awaited    integer  NOT NULL DEFAULT 0,
    n_open       integer  NOT NULL DEFAULT 0,
    n_troubled   integer  NOT NULL DEFAULT 0,
    any_child    boolean  NOT NULL DEFAULT false,
    takes_errors boolean  NOT NULL DEFAULT false,
    wake_at      timestamptz,
    progress     double precision,
    code_version text,
    due          boolean  NOT NULL GENERATED ALWAYS AS (
        CASE status
        WHEN 'waiting' THEN wanted
        WHEN 'running' THEN (n_open = 0 AND (n_awaited > 0 OR wake_at IS NULL))
                         OR (any_child AND n_open < n_awaited)
                         OR (n_troubled > 0 AND NOT takes_errors)
        WHEN 'error'   THEN by_children AND n_troubled = 0
                        AND (n_open = 0 OR (any_child AND n_open < n_awaited))
        ELSE false END) STORED
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX services_due ON services (rank, record_id) WHERE due;
CREATE INDEX services_unstarted ON services (rank, record_id)
    WHERE status = 'waiting' AND NOT wanted;
CREATE INDEX services_running ON services (record_id) WHERE status = 'running';
CREATE INDEX services_alarm ON services (wake_at)
    WHERE status = 'running' AND NOT due AND wake_at IS NOT NULL;

-- The children of services by the services' own names, and for which of them they wait now.
CREATE TABLE service_children (
    service_id bigint  NOT NULL,
    key        text    NOT NULL,
    child_id   bigint  NOT NULL,
    iteration  integer NOT NULL,
    awaited    boolean NOT NULL,
    PRIMARY KEY (service_id, key)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX service_children_awaited ON service_children (child_id, service_id) WHERE awaited;

-- Which runner has a service in hand, and until when, if it gives no sign of life.
CREATE TABLE service_leases (
    record_id        bigint      PRIMARY KEY,
    runner           text        NOT NULL,
    lease_expires_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
