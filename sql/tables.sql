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
        CONSTRAINT batch_size_is_from_1_to_1000000
        CHECK (batch_size OPERATOR(pg_catalog.>=) 1 AND batch_size OPERATOR(pg_catalog.<=) 1000000),
    lock_timeout        interval NOT NULL DEFAULT '5 seconds'
        CONSTRAINT lock_timeout_is_from_0_to_1_day
        CHECK (lock_timeout OPERATOR(pg_catalog.>=) interval '0'
               AND lock_timeout OPERATOR(pg_catalog.<=) interval '1 day')
);
COMMENT ON TABLE backlog_cleanup.target IS 'one row per table to look after, with how to read it';
COMMENT ON COLUMN backlog_cleanup.target.name IS 'what functions and policies call this target';
COMMENT ON COLUMN backlog_cleanup.target.generations_table IS 'the table of job attempts, schema-qualified as in SQL';
COMMENT ON COLUMN backlog_cleanup.target.recipes_table IS 'the table that names the recipes, or NULL';
COMMENT ON COLUMN backlog_cleanup.target.users_table IS 'the table that has the account in its column id, or NULL';
COMMENT ON COLUMN backlog_cleanup.target.ledger_table IS 'the table that gets a row of type backlog_cleanup per run, or NULL';
COMMENT ON COLUMN backlog_cleanup.target.id_column IS 'the row''s unique id: any ordered type';
COMMENT ON COLUMN backlog_cleanup.target.account_column IS 'whose the row is';
COMMENT ON COLUMN backlog_cleanup.target.recipe_column IS 'the group that keeps its newest failures; NULL is a group';
COMMENT ON COLUMN backlog_cleanup.target.status_column IS 'the status';
COMMENT ON COLUMN backlog_cleanup.target.failed_at_column IS 'when the row became failed: timestamp or timestamptz';
COMMENT ON COLUMN backlog_cleanup.target.failure_type_column IS 'what selective runs call the failure type';
COMMENT ON COLUMN backlog_cleanup.target.recipe_key_column IS 'the column of recipes_table that recipe_column refers to';
COMMENT ON COLUMN backlog_cleanup.target.recipe_name_column IS 'the column of recipes_table that reports show';
COMMENT ON COLUMN backlog_cleanup.target.account IS 'only rows of this account are ever removed';
COMMENT ON COLUMN backlog_cleanup.target.failed_status IS 'only rows of this status are ever removed';
COMMENT ON COLUMN backlog_cleanup.target.completed_status IS 'counted by status';
COMMENT ON COLUMN backlog_cleanup.target.pending_status IS 'counted by status';
COMMENT ON COLUMN backlog_cleanup.target.processing_status IS 'counted by status';
COMMENT ON COLUMN backlog_cleanup.target.time_zone IS 'how a timestamp without time zone is read';
COMMENT ON COLUMN backlog_cleanup.target.batch_size IS 'rows per batch of a batched run';
COMMENT ON COLUMN backlog_cleanup.target.lock_timeout IS 'how long a run waits for a lock; 0 is without end';

CREATE TABLE backlog_cleanup.policy (
    target       text NOT NULL REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    recipe_id    text,
    failure_type text,
    max_age      interval NOT NULL DEFAULT '24 hours'
        CONSTRAINT max_age_is_positive_and_finite
        CHECK (max_age OPERATOR(pg_catalog.>) interval '0' AND max_age OPERATOR(pg_catalog.<=) interval '1000 years'),
    keep         integer NOT NULL DEFAULT 10 CONSTRAINT keep_is_not_negative CHECK (keep OPERATOR(pg_catalog.>=) 0),
    enabled      boolean NOT NULL DEFAULT true,
    note         text,
    UNIQUE NULLS NOT DISTINCT (target, recipe_id, failure_type)
);
COMMENT ON TABLE backlog_cleanup.policy IS 'how old and how many: the row with NULL recipe_id and failure_type is the default';
COMMENT ON COLUMN backlog_cleanup.policy.target IS 'the target that it is for';
COMMENT ON COLUMN backlog_cleanup.policy.recipe_id IS 'the recipe, as text; NULL is any';
COMMENT ON COLUMN backlog_cleanup.policy.failure_type IS 'the failure type; NULL is any';
COMMENT ON COLUMN backlog_cleanup.policy.max_age IS 'a failed row older than this is expired; days are of 24 hours, in UTC';
COMMENT ON COLUMN backlog_cleanup.policy.keep IS 'how many of the newest expired rows of a recipe stay';
COMMENT ON COLUMN backlog_cleanup.policy.enabled IS 'false: a regular run removes nothing';
COMMENT ON COLUMN backlog_cleanup.policy.note IS 'for people';

CREATE TABLE backlog_cleanup.run (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target           text NOT NULL,
    mode             text NOT NULL CHECK (mode OPERATOR(pg_catalog.=) ANY (ARRAY['regular', 'emergency'])),
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
COMMENT ON COLUMN backlog_cleanup.run.id IS 'the run, as in reports and the ledger';
COMMENT ON COLUMN backlog_cleanup.run.target IS 'the target''s name at that time';
COMMENT ON COLUMN backlog_cleanup.run.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.run.requested_by IS 'the role that called';
COMMENT ON COLUMN backlog_cleanup.run.recipe_id IS 'the recipe that was selected, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.failure_type IS 'the failure type that was selected, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.cutoff IS 'failed rows before this were old; NULL in an emergency run';
COMMENT ON COLUMN backlog_cleanup.run.total_failed IS 'failed rows before the run; in an emergency run those that it was to remove';
COMMENT ON COLUMN backlog_cleanup.run.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.run.recipes_affected IS 'recipes with failed rows before the run';
COMMENT ON COLUMN backlog_cleanup.run.started_at IS 'start of the transaction';
COMMENT ON COLUMN backlog_cleanup.run.finished_at IS 'when the rows were gone';

CREATE TABLE backlog_cleanup.run_recipe (
    run_id        bigint NOT NULL REFERENCES backlog_cleanup.run ON DELETE CASCADE,
    recipe_id     text,
    failed_count  bigint NOT NULL,
    cleaned_count bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (run_id, recipe_id)
);
COMMENT ON TABLE backlog_cleanup.run_recipe IS 'history: failed and removed rows per run and recipe';
COMMENT ON COLUMN backlog_cleanup.run_recipe.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.run_recipe.recipe_id IS 'the recipe, as text';
COMMENT ON COLUMN backlog_cleanup.run_recipe.failed_count IS 'its failed rows before the run';
COMMENT ON COLUMN backlog_cleanup.run_recipe.cleaned_count IS 'its rows removed';

INSERT INTO backlog_cleanup.target (name) VALUES ('generations');
INSERT INTO backlog_cleanup.policy (target) VALUES ('generations');
