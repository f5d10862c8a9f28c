-- Where in the log users have done something, which the code fills from the log; and webhooks.

CREATE TABLE user_blocks (
    actor text   NOT NULL,
    block bigint NOT NULL,
    PRIMARY KEY (actor, block)
);

CREATE SEQUENCE webhook_ids;

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

CREATE TABLE webhook_secrets (
    webhook_id bigint PRIMARY KEY,
    secret     bytea  NOT NULL
);

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
