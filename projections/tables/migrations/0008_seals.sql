-- Seals: the Merkle tree over the log, and signed checkpoints of it.

-- The public keys that seals were signed with, in the format of c2sp.org/signed-note. The secret
-- ones are never here: whoever can write into the database cannot sign.
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
