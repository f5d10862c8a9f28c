-- Families, comments, operations with their undo, and jobs; payloads named by more than records.

CREATE SEQUENCE job_ids;

CREATE INDEX records_running ON records (manager_id, id) WHERE status = 'running';
CREATE INDEX records_error_age ON records (finished_at) WHERE status = 'error';

-- A service goes on where it left off: the newest iteration and its state, a payload's digest and
-- size.
ALTER TABLE records ADD COLUMN iteration integer NOT NULL DEFAULT 0;
ALTER TABLE records ADD COLUMN service_state bytea;

-- Made anew rather than altered: names of NOT NULL constraints, which PostgreSQL 18 keeps and older
-- ones do not have, would otherwise tell an upgraded ledger from a fresh one.
CREATE TEMPORARY TABLE kept_references ON COMMIT DROP AS
SELECT digest, record_id FROM payload_references;
DROP TABLE payload_references;
CREATE TABLE payload_references (
    digest bytea    NOT NULL,
    number bigint   NOT NULL,
    stream smallint NOT NULL,
    PRIMARY KEY (digest, stream, number)
);
CREATE INDEX payload_references_number ON payload_references (stream, number);
INSERT INTO payload_references (digest, number, stream)
SELECT digest, record_id, 1 FROM kept_references;

-- Who asked for whom: services are parents, the records they asked for are children.
CREATE TABLE dependencies (
    parent_id bigint NOT NULL,
    child_id  bigint NOT NULL,
    PRIMARY KEY (parent_id, child_id)
);
CREATE INDEX dependencies_child ON dependencies (child_id, parent_id);

CREATE TABLE comments (
    record_id    bigint      NOT NULL,
    version      integer     NOT NULL,
    commented_at timestamptz NOT NULL,
    author       text        NOT NULL,
    text         text        NOT NULL,
    PRIMARY KEY (record_id, version)
);

-- What people and policies did to records, one row an operation, however many records it changed.
CREATE TABLE operations (
    id         uuid        PRIMARY KEY,
    action     text        NOT NULL,
    actor      text        NOT NULL,
    reason     text,
    started_at timestamptz NOT NULL,
    undoes     uuid,
    n_changes  bigint      NOT NULL
);
CREATE INDEX operations_started_at ON operations (started_at DESC, id DESC);
CREATE INDEX operations_undoes ON operations (undoes) WHERE undoes IS NOT NULL;

-- Which events of which records belong to an operation: what an undo reads.
CREATE TABLE operation_changes (
    operation_id uuid    NOT NULL,
    record_id    bigint  NOT NULL,
    version      integer NOT NULL,
    PRIMARY KEY (operation_id, record_id, version)
);

-- Operations on many records, done in slices by the server's own job.
CREATE TABLE jobs (
    id           bigint      PRIMARY KEY,
    version      integer     NOT NULL,
    operation_id uuid        NOT NULL,
    action       text        NOT NULL,
    state        text        NOT NULL CHECK (state IN (
                     'running', 'finished', 'cancelling', 'cancelled')),
    actor        text        NOT NULL,
    reason       text,
    n_total      bigint      NOT NULL,
    n_done       bigint      NOT NULL,
    n_updated    bigint      NOT NULL,
    n_relatives  bigint      NOT NULL,
    n_refused    bigint      NOT NULL,
    created_at   timestamptz NOT NULL,
    modified_at  timestamptz NOT NULL
);
CREATE INDEX jobs_state ON jobs (state, id);
CREATE INDEX jobs_operation ON jobs (operation_id);
