-- The self-audit: divergences as a projection of their own, and what it has proved.

CREATE SEQUENCE divergence_ids;

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

-- For whoever proves the rows of some records.
CREATE INDEX operation_changes_record ON operation_changes (record_id, version);

-- What the self-audit knows: for ranges of aggregates of a kind, up to which position of the log the
-- rows of each were proved, and what their checksum was then; NULL for what is not proved. A checksum
-- that is lost is computed anew, from the log. Kind 0 is what is counted over all.
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
