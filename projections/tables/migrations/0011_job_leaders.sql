-- Which session leads in each of the server's jobs, and the settings that it does the job with, for the
-- processes that have to show them. A row holds as long as that session has the job's lock; it is
-- overwritten by the next leader.

CREATE TABLE job_leaders (
    job         text        PRIMARY KEY,
    backend_pid integer     NOT NULL,
    settings    jsonb       NOT NULL,
    elected_at  timestamptz NOT NULL
);
