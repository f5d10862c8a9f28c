-- The schema of a fresh ledger, as the first ten steps of migrations/ leave it: it takes only the
-- later ones. An older ledger takes all steps that it lacks, and a test checks that both ways end in
-- the same place. A new table needs a step there, and no change here. Every object lives in one schema, named by the
-- setting `database_schema`; statements say no schema and rely on search_path, so that a shadow
-- of the projections can be filled by the same statements.
--
-- `ledger_events` is the truth. `payloads` holds bytes that events name by digest. `lanes` gives
-- small numbers to routing keys. The secrets of webhooks and how far delivery has come are kept
-- beside the log. Everything under "projections" can be dropped and rebuilt from these. What is
-- under "seals" proves what the log was; with the key it could be made again. What is under
-- "signals" is neither: it is forgotten without loss.

-- The log -----------------------------------------------------------------------------------

-- One row an event. The columns and their names are those of the eventsourcing library;
-- notification_id is the position: the order in which transactions committed.
CREATE TABLE ledger_events (
    originator_id      uuid   NOT NULL,
    originator_version bigint NOT NULL CHECK (originator_version > 0),
    topic              text   NOT NULL,
    state              bytea  NOT NULL,
    notification_id    bigserial NOT NULL,
    PRIMARY KEY (originator_id, originator_version)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);

CREATE UNIQUE INDEX ledger_events_notification_id_idx ON ledger_events (notification_id);

CREATE FUNCTION refuse_to_change_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only: % is refused', TG_OP
          USING ERRCODE = 'insufficient_privilege',
                HINT = 'Correct the past by a new event: undo, reset, invalidate.';
END $$;

CREATE TRIGGER ledger_events_are_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_history();

-- ALWAYS: also where session_replication_role is replica.
ALTER TABLE ledger_events ENABLE ALWAYS TRIGGER ledger_events_are_immutable;

REVOKE UPDATE, DELETE, TRUNCATE ON ledger_events FROM PUBLIC, CURRENT_USER;

-- Who this ledger is: cursors, exports and receipts of another one are distinguished by it.
CREATE TABLE ledger_identity (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ledger_id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO ledger_identity DEFAULT VALUES;

CREATE SEQUENCE record_ids;
CREATE SEQUENCE manager_ids;
CREATE SEQUENCE token_ids;
CREATE SEQUENCE job_ids;
CREATE SEQUENCE dataset_ids;
CREATE SEQUENCE webhook_ids;
CREATE SEQUENCE divergence_ids;

-- Content -----------------------------------------------------------------------------------

-- Bytes by the SHA-256 of what they are before compression; written once, never changed.
CREATE TABLE payloads (
    digest     bytea  PRIMARY KEY CHECK (octet_length(digest) = 32),
    size_bytes bigint NOT NULL,
    codec      text   NOT NULL CHECK (codec IN ('raw', 'zstd')),
    data       bytea  NOT NULL
);
ALTER TABLE payloads ALTER COLUMN data SET STORAGE EXTERNAL;

-- Routing keys, interned. Rows are added and never change.
CREATE TABLE lanes (
    id                integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tag               text   NOT NULL,
    required_programs text[] NOT NULL,
    UNIQUE (tag, required_programs)
);

-- What messages to webhooks are signed with. Kept as it is, for that is how it is used; destroyed with
-- its webhook. It is in no event, and no answer but the first.
CREATE TABLE webhook_secrets (
    webhook_id bigint PRIMARY KEY,
    secret     bytea  NOT NULL
);

-- How far delivery to each webhook has come: everything up to `position`, but for what its filter
-- leaves out. `message_id` and `upto` are of the message that is on its way; a worker has it in
-- hand until `leased_until`. Without this it is not known what was delivered: it is kept with the
-- ledger.
CREATE TABLE webhook_deliveries (
    webhook_id    bigint      PRIMARY KEY,
    position      bigint      NOT NULL,
    message_id    text,
    upto          bigint,
    n_failures    integer     NOT NULL DEFAULT 0,
    failing_since timestamptz,
    next_try_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    worker        text,
    leased_until  timestamptz
) WITH (fillfactor = 50);

-- Projections -------------------------------------------------------------------------------

-- The current state of every record that was not erased.
CREATE TABLE records (
    id              bigint      PRIMARY KEY,
    version         integer     NOT NULL,
    status          text        NOT NULL CHECK (status IN (
                        'waiting', 'running', 'complete', 'error', 'cancelled', 'deleted',
                        'invalid', 'held', 'failed')),
    prior           text[]      NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('task', 'service')),
    spec            bytea       NOT NULL,
    spec_size_bytes bigint      NOT NULL,
    function        text        NOT NULL,
    lane_id         integer     NOT NULL,
    tag             text        NOT NULL,
    priority        smallint    NOT NULL,
    owner           text        NOT NULL,
    created_at      timestamptz NOT NULL,
    modified_at     timestamptz NOT NULL,
    attempt         integer     NOT NULL,
    manager_id      bigint,
    started_at      timestamptz,
    finished_at     timestamptz,
    outcome         bytea,
    error_type      text,
    error_message   text,
    retries         integer     NOT NULL,
    retries_used    integer     NOT NULL,
    iteration       integer     NOT NULL DEFAULT 0,
    service_state   bytea,
    retry_delay_s   double precision NOT NULL DEFAULT 0,
    retry_on        text        NOT NULL DEFAULT '',
    not_before      timestamptz
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX records_status ON records (status, id);
CREATE INDEX records_tag ON records (tag, id);
CREATE INDEX records_owner ON records (owner, id);
CREATE INDEX records_manager ON records (manager_id, id) WHERE manager_id IS NOT NULL;
CREATE INDEX records_created_at ON records USING brin (created_at);
-- What a manager has now, however much it has done before.
CREATE INDEX records_running ON records (manager_id, id) WHERE status = 'running';
-- For the policy by which errors become failures after a while.
CREATE INDEX records_error_age ON records (finished_at) WHERE status = 'error';
-- For those that wait for the time of their next retry.
CREATE INDEX records_not_before ON records (not_before)
    WHERE status = 'waiting' AND not_before IS NOT NULL;

-- What may be claimed, and only that: a claim deletes the row, a requeue inserts it. `rank` is
-- the negated priority, so that the key's own order is the order of claiming.
CREATE TABLE claim_queue (
    lane_id   integer  NOT NULL,
    rank      smallint NOT NULL,
    record_id bigint   NOT NULL,
    PRIMARY KEY (lane_id, rank, record_id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0);

-- How many records of each lane are in each status.
CREATE TABLE status_counts (
    lane_id   integer NOT NULL,
    status    text    NOT NULL,
    n_records bigint  NOT NULL,
    PRIMARY KEY (lane_id, status)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Which aggregates name which payloads. A payload that nobody names may be destroyed.
CREATE TABLE payload_references (
    digest bytea    NOT NULL,
    number bigint   NOT NULL,
    stream smallint NOT NULL,
    PRIMARY KEY (digest, stream, number)
);
CREATE INDEX payload_references_number ON payload_references (stream, number);

CREATE TABLE managers (
    id            bigint           PRIMARY KEY,
    version       integer          NOT NULL,
    state         text             NOT NULL CHECK (state IN (
                      'active', 'draining', 'inactive', 'lost')),
    name          text             NOT NULL,
    hostname      text             NOT NULL,
    tags          text[]           NOT NULL,
    programs      jsonb            NOT NULL,
    lease_s       double precision NOT NULL,
    heartbeat_s   double precision NOT NULL,
    owner         text             NOT NULL,
    registered_at timestamptz      NOT NULL,
    modified_at   timestamptz      NOT NULL,
    suspended     jsonb            NOT NULL DEFAULT '{}'
);
CREATE INDEX managers_state ON managers (state, id);

-- How many results came late, how many of these were adopted, and what they had cost.
CREATE TABLE rescue_counts (
    kind       text   PRIMARY KEY CHECK (kind IN ('late', 'adopted')),
    n_results  bigint NOT NULL,
    compute_ms bigint NOT NULL,
    core_ms    bigint NOT NULL
);

-- `user` is a reserved word in SQL, hence user_name.
CREATE TABLE tokens (
    id         bigint      PRIMARY KEY,
    version    integer     NOT NULL,
    user_name  text        NOT NULL,
    role       text        NOT NULL CHECK (role IN ('reader', 'user', 'compute', 'admin')),
    token_hash bytea       NOT NULL UNIQUE,
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz
);

-- Who asked for whom: services are parents, the records they asked for are children.
CREATE TABLE dependencies (
    parent_id bigint NOT NULL,
    child_id  bigint NOT NULL,
    PRIMARY KEY (parent_id, child_id)
);
CREATE INDEX dependencies_child ON dependencies (child_id, parent_id);

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
-- For a transaction that proves the rows of some records.
CREATE INDEX operation_changes_record ON operation_changes (record_id, version);

-- In which blocks of 64 positions of the log there is anything that a user did: what the history of
-- a user reads. What managers and the server do is not noted.
CREATE TABLE user_blocks (
    actor text   NOT NULL,
    block bigint NOT NULL,
    PRIMARY KEY (actor, block)
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

-- Who receives events. The secrets are elsewhere: they are not in the log.
CREATE TABLE webhooks (
    id          bigint      PRIMARY KEY,
    version     integer     NOT NULL,
    state       text        NOT NULL CHECK (state IN ('enabled', 'disabled', 'removed')),
    url         text        NOT NULL,
    kinds       text[]      NOT NULL,
    tags        text[]      NOT NULL,
    actors      text[]      NOT NULL,
    dataset_id  bigint,
    owner       text        NOT NULL,
    why         text,
    created_at  timestamptz NOT NULL,
    modified_at timestamptz NOT NULL
);

-- Named collections of entries x specifications -> records. What changes in them has a range of the
-- dataset's own versions, [added_in, removed_in): so that any version can be read as it was.
CREATE TABLE datasets (
    id                   bigint      PRIMARY KEY,
    version              integer     NOT NULL,
    name                 text        NOT NULL,
    description          text        NOT NULL,
    owner                text        NOT NULL,
    cloned_from          bigint,
    created_at           timestamptz NOT NULL,
    modified_at          timestamptz NOT NULL,
    deleted_at           timestamptz,
    n_entries            integer     NOT NULL,
    entries_added        integer     NOT NULL,
    specifications_added integer     NOT NULL,
    versions_locked      integer     NOT NULL
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX datasets_name ON datasets (lower(name)) WHERE deleted_at IS NULL;

-- `inputs` is the payload that says what the entry is, at `place`; `content` is the digest of that.
CREATE TABLE dataset_entries (
    dataset_id bigint  NOT NULL,
    number     integer NOT NULL,
    added_in   integer NOT NULL,
    removed_in integer,
    name       text    NOT NULL,
    content    bytea   NOT NULL,
    inputs     bytea   NOT NULL,
    place      integer NOT NULL,
    size_bytes bigint  NOT NULL,
    attributes jsonb   NOT NULL,
    PRIMARY KEY (dataset_id, number, added_in)
);
CREATE UNIQUE INDEX dataset_entries_name ON dataset_entries (dataset_id, name)
    WHERE removed_in IS NULL;

CREATE TABLE dataset_specifications (
    dataset_id        bigint   NOT NULL,
    number            integer  NOT NULL,
    added_in          integer  NOT NULL,
    removed_in        integer,
    name              text     NOT NULL,
    kind              text     NOT NULL CHECK (kind IN ('task', 'service')),
    function          text     NOT NULL,
    kwargs            bytea    NOT NULL,
    kwargs_size_bytes bigint   NOT NULL,
    required_programs text[]   NOT NULL,
    tag               text     NOT NULL,
    priority          smallint NOT NULL,
    retries           integer  NOT NULL,
    retry_delay_s     double precision NOT NULL,
    retry_on          text[]   NOT NULL,
    PRIMARY KEY (dataset_id, number)
);

-- The cells: which record an entry has for a specification.
CREATE TABLE dataset_records (
    dataset_id    bigint  NOT NULL,
    specification integer NOT NULL,
    entry         integer NOT NULL,
    added_in      integer NOT NULL,
    removed_in    integer,
    record_id     bigint  NOT NULL,
    PRIMARY KEY (dataset_id, specification, entry, added_in)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);
-- One record a cell.
CREATE UNIQUE INDEX dataset_records_cell ON dataset_records (dataset_id, entry, specification)
    WHERE removed_in IS NULL;
-- For a page of a dataset's records, newest first.
CREATE INDEX dataset_records_page ON dataset_records (dataset_id, record_id)
    WHERE removed_in IS NULL;
-- For a transaction that changes a record: which datasets count it, or refer to it.
CREATE INDEX dataset_records_record ON dataset_records (record_id);

-- How many cells of each specification have a record in each status.
CREATE TABLE dataset_counts (
    dataset_id    bigint  NOT NULL,
    specification integer NOT NULL,
    status        text    NOT NULL,
    n_records     bigint  NOT NULL,
    PRIMARY KEY (dataset_id, specification, status)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Versions that stay readable: `version` is what the dataset's own version was.
CREATE TABLE dataset_versions (
    dataset_id bigint      NOT NULL,
    number     integer     NOT NULL,
    version    integer     NOT NULL,
    label      text        NOT NULL,
    doi        text,
    n_entries  integer     NOT NULL,
    locked_at  timestamptz NOT NULL,
    locked_by  text        NOT NULL,
    PRIMARY KEY (dataset_id, number)
);

-- What was imported, from which ledger, and what it was called there.
CREATE TABLE origins (
    origin_ledger uuid        NOT NULL,
    stream        smallint    NOT NULL,
    origin_id     bigint      NOT NULL,
    number        bigint      NOT NULL,
    archive_hash  text        NOT NULL,
    imported_at   timestamptz NOT NULL,
    imported_by   text        NOT NULL,
    PRIMARY KEY (origin_ledger, stream, origin_id)
);
CREATE INDEX origins_number ON origins (stream, number);

-- Rows of the tables here that were found not to be what the log says.
CREATE TABLE divergences (
    id         bigint      PRIMARY KEY,
    version    integer     NOT NULL,
    state      text        NOT NULL CHECK (state IN ('open', 'repaired', 'gone')),
    table_name text        NOT NULL,
    row_key    text[]      NOT NULL,
    fault      text        NOT NULL CHECK (fault IN ('changed', 'missing', 'extra')),
    columns    text[]      NOT NULL,
    found_at   timestamptz NOT NULL,
    ended_at   timestamptz,
    ended_by   text
);
-- Each is reported once.
CREATE UNIQUE INDEX divergences_open ON divergences (table_name, row_key) WHERE state = 'open';

-- Seals -------------------------------------------------------------------------------------

-- The public keys that seals were signed with, in the format of c2sp.org/signed-note. The secret
-- ones are never here: anyone who can write into the database cannot sign.
CREATE TABLE seal_keys (
    number   integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    vkey     text        NOT NULL UNIQUE,
    added_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The hashes of the tree, 256 at most in a row, as in c2sp.org/tlog-tiles. `last_position` is that
-- of the last event in a tile of leaves.
CREATE TABLE seal_tiles (
    level         smallint NOT NULL,
    number        bigint   NOT NULL,
    last_position bigint   CHECK ((level = 0) = (last_position IS NOT NULL)),
    hashes        bytea    NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192),
    PRIMARY KEY (level, number)
);
ALTER TABLE seal_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX seal_tiles_position ON seal_tiles (last_position) WHERE level = 0;

-- The first `size` events, the last of them at `position`, have this root; `note` is the signed
-- checkpoint that says so.
CREATE TABLE seals (
    size      bigint      PRIMARY KEY,
    position  bigint      NOT NULL,
    root      bytea       NOT NULL CHECK (octet_length(root) = 32),
    note      text        NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- The past ----------------------------------------------------------------------------------

-- The past: what every record was, from when to when, for questions about earlier moments. Filled
-- behind the log and in its order, up to `timeline.position`; it can be emptied at any time.
CREATE TABLE timeline (
    only_row  boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    position  bigint      NOT NULL DEFAULT 0,
    newest_id bigint      NOT NULL DEFAULT 0,
    latest_at timestamptz
);
INSERT INTO timeline DEFAULT VALUES;

-- Every few hundred positions, the newest time of all events up to there, and the newest record:
-- neither times nor ids are in the order of positions, and these are.
CREATE TABLE timeline_marks (
    position  bigint      PRIMARY KEY,
    newest_id bigint      NOT NULL,
    latest_at timestamptz NOT NULL
);
CREATE INDEX timeline_marks_time ON timeline_marks (latest_at, position);

-- Every so many thousand positions, how many records of each tag were in each status.
CREATE TABLE timeline_counts (
    position  bigint NOT NULL,
    tag       text   NOT NULL,
    status    text   NOT NULL,
    n_records bigint NOT NULL,
    PRIMARY KEY (position, tag, status)
);

-- What each record is at the end of the timeline, since the position of its newest event. Erased
-- ones have no status, and stay.
CREATE TABLE record_states (
    record_id   bigint      PRIMARY KEY,
    since       bigint      NOT NULL,
    version     integer     NOT NULL,
    status      text,
    prior       text[]      NOT NULL,
    kind        text        NOT NULL,
    tag         text        NOT NULL,
    manager_id  bigint,
    owner       text        NOT NULL,
    function    text        NOT NULL,
    created_at  timestamptz NOT NULL,
    modified_at timestamptz NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX record_states_status ON record_states (status, record_id);
CREATE INDEX record_states_owner ON record_states (owner, record_id);
CREATE INDEX record_states_running ON record_states (manager_id, record_id)
    WHERE status = 'running';

-- One row for each event of a record: what the record was until then, since the position of the
-- event before, and what it became. Rows are added in the order of positions and never change.
CREATE TABLE record_changes (
    position        bigint PRIMARY KEY,
    record_id       bigint NOT NULL,
    since           bigint,
    old_manager_id  bigint,
    old_modified_at timestamptz,
    old_status      text,
    old_tag         text,
    new_status      text,
    new_tag         text
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX record_changes_record ON record_changes (record_id, position);
-- Who was in a status at a position, in the order of ids, from the index alone.
CREATE INDEX record_changes_status ON record_changes (old_status, record_id, position, since);
-- Who ever had a tag, and whom a manager ever ran.
CREATE INDEX record_changes_tag ON record_changes (new_tag, record_id)
    WHERE old_tag IS DISTINCT FROM new_tag;
CREATE INDEX record_changes_manager ON record_changes (old_manager_id, record_id)
    WHERE old_status = 'running';

-- Signals -----------------------------------------------------------------------------------
-- Heartbeats. What follows from their absence (ManagerLost) is in the log; they are not.
CREATE TABLE manager_heartbeats (
    manager_id       bigint      PRIMARY KEY,
    heartbeat_at     timestamptz NOT NULL,
    lease_expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX manager_heartbeats_expiry ON manager_heartbeats (lease_expires_at);

-- Which runner has a service in hand, and until when, if it gives no heartbeat.
CREATE TABLE service_leases (
    record_id        bigint      PRIMARY KEY,
    runner           text        NOT NULL,
    lease_expires_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Failures in a row of each manager and program. What follows from them (ProgramSuspended) is in
-- the log; they are not. A row is written and read under the lock of the manager's row.
CREATE TABLE manager_failures (
    manager_id bigint  NOT NULL,
    program    text    NOT NULL,
    n_in_a_row integer NOT NULL,
    PRIMARY KEY (manager_id, program)
);

-- The newest deliveries to webhooks.
CREATE TABLE webhook_attempts (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id   bigint      NOT NULL,
    message_id   text        NOT NULL,
    after        bigint      NOT NULL,
    upto         bigint      NOT NULL,
    n_events     integer     NOT NULL,
    attempted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    duration_s   double precision NOT NULL,
    status_code  integer,
    error        text
);
CREATE INDEX webhook_attempts_webhook ON webhook_attempts (webhook_id, id);

-- Answers to requests that carried an idempotency key, so that a repeated request has one effect.
CREATE TABLE idempotency_keys (
    actor        text        NOT NULL,
    key          text        NOT NULL,
    request_hash bytea       NOT NULL,
    answer       bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- What the self-audit knows: for ranges of aggregates of a kind, up to which position of the log
-- the rows of each were proved, and what their checksum was then; NULL for what is not proved. A
-- checksum that is lost is computed again, from the log. Kind 0 is what is counted over all.
CREATE TABLE self_audit_ranges (
    stream     smallint    NOT NULL,
    number     bigint      NOT NULL,
    position   bigint      NOT NULL,
    looked_at  timestamptz NOT NULL,
    n_unproved integer     NOT NULL,
    checksums    bigint[]    NOT NULL,
    PRIMARY KEY (stream, number)
) WITH (fillfactor = 50);
ALTER TABLE self_audit_ranges ALTER COLUMN checksums SET STORAGE EXTERNAL;
