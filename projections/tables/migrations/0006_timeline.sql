-- Earlier moments can be asked about: the past as tables, which are filled behind the log.

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
