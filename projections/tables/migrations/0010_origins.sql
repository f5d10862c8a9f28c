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
