-- The state of the extension. Plain CREATE: an existing schema of this name is refused, not adopted.
CREATE SCHEMA backlog_cleanup;
COMMENT ON SCHEMA backlog_cleanup IS 'targets, policies and history of the backlog_cleanup extension';

CREATE TABLE backlog_cleanup.target (
    name                text PRIMARY KEY,
    generations_table   text NOT NULL DEFAULT 'public.generations',
    recipes_table       text DEFAULT 'public.recipes',
    users_table         text DEFAULT 'public.users',
    ledger_table        text DEFAULT 'public.credit_transactions',
    id_column           text NOT NULL DEFAULT 'id',
    account_column      text NOT NULL DEFAULT 'user_id',
    recipe_column       text NOT NULL DEFAULT 'recipe_id',
    status_column       text NOT NULL DEFAULT 'status',
    failed_at_column    text NOT NULL DEFAULT 'updated_at',
    failure_type_column text NOT NULL DEFAULT 'failure_reason',
    recipe_key_column   text NOT NULL DEFAULT 'id',
    recipe_name_column  text NOT NULL DEFAULT 'name',
    account             text NOT NULL DEFAULT 'system_backlog',
    failed_status       text NOT NULL DEFAULT 'failed',
    completed_status    text NOT NULL DEFAULT 'completed',
    pending_status      text NOT NULL DEFAULT 'pending',
    processing_status   text NOT NULL DEFAULT 'processing',
    time_zone           text NOT NULL DEFAULT 'UTC',
    batch_size          integer NOT NULL DEFAULT 10000
        CONSTRAINT batch_size_is_from_1_to_1000000 CHECK (batch_size BETWEEN 1 AND 1000000),
    lock_timeout        interval NOT NULL DEFAULT '5 seconds'
        CONSTRAINT lock_timeout_is_not_negative CHECK (lock_timeout >= interval '0')
);
COMMENT ON TABLE backlog_cleanup.target IS 'one row per table to look after, with how to read it';

CREATE TABLE backlog_cleanup.policy (
    target       text NOT NULL REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    recipe_id    text,
    failure_type text,
    max_age      interval NOT NULL DEFAULT '24 hours'
        CONSTRAINT max_age_is_positive_and_finite
        CHECK (max_age > interval '0' AND max_age <= interval '1000 years'),
    keep         integer NOT NULL DEFAULT 10 CONSTRAINT keep_is_not_negative CHECK (keep >= 0),
    enabled      boolean NOT NULL DEFAULT true,
    note         text,
    UNIQUE NULLS NOT DISTINCT (target, recipe_id, failure_type)
);
COMMENT ON TABLE backlog_cleanup.policy IS 'how old and how many: the row with NULL recipe_id and failure_type is the default';

CREATE TABLE backlog_cleanup.run (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target           text NOT NULL,
    mode             text NOT NULL CHECK (mode IN ('regular', 'emergency')),
    requested_by     name NOT NULL,
    recipe_id        text,
    failure_type     text,
    cutoff           timestamptz,
    total_failed     bigint NOT NULL,
    removed          bigint NOT NULL,
    recipes_affected bigint NOT NULL,
    started_at       timestamptz NOT NULL,
    finished_at      timestamptz NOT NULL
);
COMMENT ON TABLE backlog_cleanup.run IS 'history: one row per run, written in the transaction that removes';

CREATE TABLE backlog_cleanup.run_recipe (
    run_id        bigint NOT NULL REFERENCES backlog_cleanup.run ON DELETE CASCADE,
    recipe_id     text,
    failed_count  bigint NOT NULL,
    cleaned_count bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (run_id, recipe_id)
);
COMMENT ON TABLE backlog_cleanup.run_recipe IS 'history: failed and removed rows per run and recipe';

INSERT INTO backlog_cleanup.target (name) VALUES ('generations');
INSERT INTO backlog_cleanup.policy (target) VALUES ('generations');
