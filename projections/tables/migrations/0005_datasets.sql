-- Datasets: entries x specifications -> records, with counts that are kept, and locked versions.

CREATE SEQUENCE dataset_ids;

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
-- For whoever changes a record: which datasets count it, or refer to it.
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
