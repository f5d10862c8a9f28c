-- The schema of a fresh ledger. An older one gets here by the steps in ../migrations, and a test
-- checks that both ways end in the same place. Every object lives in one schema, named by the
-- setting `database_schema`; statements say no schema and rely on search_path, so that a shadow
-- of the projections can be filled by the same statements.
--
-- `ledger_events` is the truth. `payloads` holds bytes that events name by digest. `lanes` gives
-- small numbers to routing keys. Everything under "projections" can be dropped and rebuilt from
-- these. What is under "signals" is neither: it is forgotten without loss.

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

-- Who this ledger is: cursors, exports and receipts of another one are told apart by it.
CREATE TABLE ledger_identity (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ledger_id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO ledger_identity DEFAULT VALUES;

CREATE SEQUENCE record_ids;
CREATE SEQUENCE manager_ids;
CREATE SEQUENCE token_ids;

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
    retries_used    integer     NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX records_status ON records (status, id);
CREATE INDEX records_tag ON records (tag, id);
CREATE INDEX records_owner ON records (owner, id);
CREATE INDEX records_manager ON records (manager_id, id) WHERE manager_id IS NOT NULL;
CREATE INDEX records_created_at ON records USING brin (created_at);

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

-- Which records name which payloads. A payload that nobody names may be destroyed.
CREATE TABLE payload_references (
    digest    bytea  NOT NULL,
    record_id bigint NOT NULL,
    PRIMARY KEY (digest, record_id)
);
CREATE INDEX payload_references_record ON payload_references (record_id);

CREATE TABLE managers (
    id            bigint           PRIMARY KEY,
    version       integer          NOT NULL,
    state         text             NOT NULL CHECK (state IN ('active', 'inactive', 'lost')),
    name          text             NOT NULL,
    hostname      text             NOT NULL,
    tags          text[]           NOT NULL,
    programs      jsonb            NOT NULL,
    lease_s       double precision NOT NULL,
    heartbeat_s   double precision NOT NULL,
    owner         text             NOT NULL,
    registered_at timestamptz      NOT NULL,
    modified_at   timestamptz      NOT NULL
);
CREATE INDEX managers_state ON managers (state, id);

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

-- Signals -----------------------------------------------------------------------------------

-- Signs of life. What follows from their absence (ManagerLost) is in the log; they are not.
CREATE TABLE manager_heartbeats (
    manager_id       bigint      PRIMARY KEY,
    heartbeat_at     timestamptz NOT NULL,
    lease_expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX manager_heartbeats_expiry ON manager_heartbeats (lease_expires_at);

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
