-- Pauses before retries, suspended programs of managers, managers that drain, rescued results.

ALTER TABLE records ADD COLUMN retry_delay_s double precision NOT NULL DEFAULT 0;
ALTER TABLE records ADD COLUMN retry_on text NOT NULL DEFAULT '';
ALTER TABLE records ADD COLUMN not_before timestamptz;
CREATE INDEX records_not_before ON records (not_before)
    WHERE status = 'waiting' AND not_before IS NOT NULL;

ALTER TABLE managers ADD COLUMN suspended jsonb NOT NULL DEFAULT '{}';
ALTER TABLE managers DROP CONSTRAINT managers_state_check;
ALTER TABLE managers ADD CONSTRAINT managers_state_check
    CHECK (state IN ('active', 'draining', 'inactive', 'lost'));

CREATE TABLE rescue_counts (
    kind       text   PRIMARY KEY CHECK (kind IN ('late', 'adopted')),
    n_results  bigint NOT NULL,
    compute_ms bigint NOT NULL,
    core_ms    bigint NOT NULL
);

CREATE TABLE manager_failures (
    manager_id bigint  NOT NULL,
    program    text    NOT NULL,
    n_in_a_row integer NOT NULL,
    PRIMARY KEY (manager_id, program)
);
