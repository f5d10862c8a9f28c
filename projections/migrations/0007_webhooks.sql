-- Where in the log users have done something; the code fills it from the log.

CREATE TABLE user_blocks (
    actor text   NOT NULL,
    block bigint NOT NULL,
    PRIMARY KEY (actor, block)
);
