-- The state of the extension. Plain CREATE: an existing schema of this name is refused, not adopted.
CREATE SCHEMA backlog_cleanup;
COMMENT ON SCHEMA backlog_cleanup IS 'targets, policies and history of the backlog_cleanup extension';

-- A role by its oid: the same after ALTER ROLE ... RENAME. Dumps have its name; a name that no role has is read as nobody.
CREATE TYPE backlog_cleanup.role;
CREATE FUNCTION backlog_cleanup.role_in(cstring) RETURNS backlog_cleanup.role
    STABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'role_in_wrapper';
CREATE FUNCTION backlog_cleanup.role_out(backlog_cleanup.role) RETURNS cstring
    STABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'role_out_wrapper';
CREATE TYPE backlog_cleanup.role (INPUT = backlog_cleanup.role_in, OUTPUT = backlog_cleanup.role_out, LIKE = pg_catalog.oid);
CREATE CAST (backlog_cleanup.role AS pg_catalog.oid) WITHOUT FUNCTION;
COMMENT ON TYPE backlog_cleanup.role IS 'a role, written as its name; empty for a role that does not exist';
COMMENT ON FUNCTION backlog_cleanup.role_in IS 'reads a role''s name';
COMMENT ON FUNCTION backlog_cleanup.role_out IS 'writes a role''s name';
COMMENT ON CAST (backlog_cleanup.role AS pg_catalog.oid) IS 'the role''s oid; 0 for nobody';

CREATE TABLE backlog_cleanup.target (
    name                text PRIMARY KEY,
    generations_table   text NOT NULL DEFAULT 'public.generations',
    recipes_table       text DEFAULT 'public.recipes',
    users_table         text DEFAULT 'public.users',
    ledger_table        text DEFAULT 'public.credit_transactions',
    id_column           text NOT NULL DEFAULT 'id',
    account_column      text DEFAULT 'user_id',
    recipe_column       text DEFAULT 'recipe_id',
    status_column       text DEFAULT 'status',
    failed_at_column    text NOT NULL DEFAULT 'updated_at',
    failure_type_column text DEFAULT 'failure_reason',
    fingerprint         boolean NOT NULL DEFAULT true,
    recipe_key_column   text NOT NULL DEFAULT 'id',
    recipe_name_column  text NOT NULL DEFAULT 'name',
    account             text DEFAULT 'system_backlog',
    statuses            text[] NOT NULL DEFAULT '{failed}'
        CONSTRAINT statuses_is_a_list_of_at_least_one_status
        CHECK (pg_catalog.cardinality(statuses) OPERATOR(pg_catalog.>) 0
               AND pg_catalog.array_ndims(statuses) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC statuses) OPERATOR(pg_catalog.=) 0),
    completed_status    text[] DEFAULT '{completed}'
        CONSTRAINT completed_status_is_a_list_of_statuses
        CHECK (pg_catalog.array_ndims(completed_status) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC completed_status) OPERATOR(pg_catalog.=) 0),
    pending_status      text[] DEFAULT '{pending}'
        CONSTRAINT pending_status_is_a_list_of_statuses
        CHECK (pg_catalog.array_ndims(pending_status) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC pending_status) OPERATOR(pg_catalog.=) 0),
    processing_status   text[] DEFAULT '{processing}'
        CONSTRAINT processing_status_is_a_list_of_statuses
        CHECK (pg_catalog.array_ndims(processing_status) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC processing_status) OPERATOR(pg_catalog.=) 0),
    time_zone           text NOT NULL DEFAULT 'UTC',
    search_path         text,
    batch_size          integer NOT NULL DEFAULT 10000
        CONSTRAINT batch_size_is_from_1_to_1000000
        CHECK (batch_size OPERATOR(pg_catalog.>=) 1 AND batch_size OPERATOR(pg_catalog.<=) 1000000),
    pause               interval
        CONSTRAINT pause_is_from_0_to_1_day
        CHECK (pause OPERATOR(pg_catalog.>=) interval '0'
               AND pause OPERATOR(pg_catalog.<=) interval '1 day'),
    max_rows_per_second integer
        CONSTRAINT max_rows_per_second_is_positive
        CHECK (max_rows_per_second OPERATOR(pg_catalog.>) 0),
    workers             integer NOT NULL DEFAULT 1
        CONSTRAINT workers_is_from_1_to_64
        CHECK (workers OPERATOR(pg_catalog.>=) 1
               AND workers OPERATOR(pg_catalog.<=) 64),
    max_duration        interval
        CONSTRAINT max_duration_is_positive_and_finite
        CHECK (max_duration OPERATOR(pg_catalog.>) interval '0'
               AND max_duration OPERATOR(pg_catalog.<=) interval '1000 years'),
    max_rows            bigint
        CONSTRAINT max_rows_is_positive
        CHECK (max_rows OPERATOR(pg_catalog.>) 0),
    lock_timeout        interval NOT NULL DEFAULT '5 seconds'
        CONSTRAINT lock_timeout_is_from_0_to_1_day
        CHECK (lock_timeout OPERATOR(pg_catalog.>=) interval '0'
               AND lock_timeout OPERATOR(pg_catalog.<=) interval '1 day'),
    max_share           double precision NOT NULL DEFAULT 100
        CONSTRAINT max_share_is_from_0_to_100
        CHECK (max_share OPERATOR(pg_catalog.>=) 0::double precision
               AND max_share OPERATOR(pg_catalog.<=) 100::double precision),
    max_rows_per_run    bigint
        CONSTRAINT max_rows_per_run_is_positive CHECK (max_rows_per_run OPERATOR(pg_catalog.>) 0),
    max_replica_lag     interval
        CONSTRAINT max_replica_lag_is_positive CHECK (max_replica_lag OPERATOR(pg_catalog.>) interval '0'),
    max_transaction_age interval
        CONSTRAINT max_transaction_age_is_positive CHECK (max_transaction_age OPERATOR(pg_catalog.>) interval '0'),
    yield_to_autovacuum boolean NOT NULL DEFAULT false,
    max_wal_rate        bigint CONSTRAINT max_wal_rate_is_positive CHECK (max_wal_rate OPERATOR(pg_catalog.>) 0),
    throttle_query      text,
    named_by            backlog_cleanup.role,
    condition           text,
    recipe_columns      text[]
        CONSTRAINT recipe_columns_is_a_list_of_columns
        CHECK (recipe_columns OPERATOR(pg_catalog.<>) '{}' AND pg_catalog.array_position(recipe_columns, NULL) IS NULL),
    id_columns          text[]
        CONSTRAINT id_columns_is_a_list_of_columns
        CHECK (id_columns OPERATOR(pg_catalog.<>) '{}' AND pg_catalog.array_position(id_columns, NULL) IS NULL),
    group_word          text NOT NULL DEFAULT 'group'
        CONSTRAINT group_word_is_words
        CHECK (pg_catalog.char_length(group_word) OPERATOR(pg_catalog.<=) 40
               AND group_word OPERATOR(pg_catalog.~) '^[^[:space:][:cntrl:]]+( [^[:space:][:cntrl:]]+)*$'),
    row_word            text NOT NULL DEFAULT 'row'
        CONSTRAINT row_word_is_words
        CHECK (pg_catalog.char_length(row_word) OPERATOR(pg_catalog.<=) 40
               AND row_word OPERATOR(pg_catalog.~) '^[^[:space:][:cntrl:]]+( [^[:space:][:cntrl:]]+)*$'),
    adaptive            boolean NOT NULL DEFAULT false,
    adaptive_min_rows   bigint NOT NULL DEFAULT 100000
        CONSTRAINT adaptive_min_rows_is_positive CHECK (adaptive_min_rows OPERATOR(pg_catalog.>) 0),
    adaptive_rate_factor double precision DEFAULT 5
        CONSTRAINT adaptive_rate_factor_is_above_1
        CHECK (adaptive_rate_factor OPERATOR(pg_catalog.>) 1::double precision
               AND adaptive_rate_factor OPERATOR(pg_catalog.<=) 1000000::double precision),
    adaptive_min_interval interval NOT NULL DEFAULT '1 hour'
        CONSTRAINT adaptive_min_interval_is_from_0_to_1000_years
        CHECK (adaptive_min_interval OPERATOR(pg_catalog.>=) interval '0'
               AND adaptive_min_interval OPERATOR(pg_catalog.<=) interval '1000 years'),
    run_between         time[]
        CONSTRAINT run_between_is_from_one_time_to_another
        CHECK (pg_catalog.cardinality(run_between) OPERATOR(pg_catalog.=) 2
               AND pg_catalog.array_ndims(run_between) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC run_between) OPERATOR(pg_catalog.=) 0
               AND pg_catalog.array_lower(run_between, 1) OPERATOR(pg_catalog.=) 1
               AND run_between[1] OPERATOR(pg_catalog.<>) run_between[2]),
    named_at            timestamptz NOT NULL DEFAULT pg_catalog.now(),
    wal_compression     text NOT NULL DEFAULT 'auto'
        CONSTRAINT wal_compression_is_auto_off_lz4_or_zstd
        CHECK (wal_compression OPERATOR(pg_catalog.=) ANY (ARRAY['auto', 'off', 'lz4', 'zstd'])),
    CONSTRAINT workers_is_1_where_max_rows_stops_a_run CHECK (workers OPERATOR(pg_catalog.=) 1 OR max_rows IS NULL)
);
COMMENT ON TABLE backlog_cleanup.target IS 'one row per table to look after, with how to read it';
COMMENT ON COLUMN backlog_cleanup.target.name IS 'the target''s name in functions and policies';
COMMENT ON COLUMN backlog_cleanup.target.generations_table IS 'the table of job attempts, schema-qualified as in SQL';
COMMENT ON COLUMN backlog_cleanup.target.recipes_table IS 'the table that names the recipes, or NULL';
COMMENT ON COLUMN backlog_cleanup.target.users_table IS 'the table that has the account in its column id, or NULL';
COMMENT ON COLUMN backlog_cleanup.target.ledger_table IS
    'the table that gets a row of type backlog_cleanup per run or batch, or NULL';
COMMENT ON COLUMN backlog_cleanup.target.id_column IS 'the row''s unique id: any ordered type';
COMMENT ON COLUMN backlog_cleanup.target.account_column IS
    'the account that the row belongs to; NULL, with account, if every row of the table is the target''s';
COMMENT ON COLUMN backlog_cleanup.target.recipe_column IS
    'the recipe: the group whose newest rows are kept, a column or an expression in parentheses; NULL if there is none: one group';
COMMENT ON COLUMN backlog_cleanup.target.status_column IS
    'the status, a column or an expression in parentheses; NULL if there is none: then a row is in scope once its failed_at_column is not NULL';
COMMENT ON COLUMN backlog_cleanup.target.failed_at_column IS
    'when the row reached its status, a column or an expression in parentheses: timestamp, timestamptz or date';
COMMENT ON COLUMN backlog_cleanup.target.failure_type_column IS
    'the failure type, a column or an expression in parentheses; NULL if there is none';
COMMENT ON COLUMN backlog_cleanup.target.fingerprint IS
    'true: the failure type of a text is its fingerprint, see backlog_cleanup_fingerprint(); false: it is the first line';
COMMENT ON COLUMN backlog_cleanup.target.recipe_key_column IS 'the column of recipes_table that recipe_column refers to';
COMMENT ON COLUMN backlog_cleanup.target.recipe_name_column IS 'the column of recipes_table that reports show';
COMMENT ON COLUMN backlog_cleanup.target.account IS 'only rows of this account are ever removed; NULL is every row of the table';
COMMENT ON COLUMN backlog_cleanup.target.statuses IS
    'only rows in one of these statuses are ever removed; unused without a status_column';
COMMENT ON COLUMN backlog_cleanup.target.completed_status IS 'the statuses that reports count as completed; NULL counts nothing';
COMMENT ON COLUMN backlog_cleanup.target.pending_status IS 'the statuses that reports count as pending; NULL counts nothing';
COMMENT ON COLUMN backlog_cleanup.target.processing_status IS 'the statuses that reports count as processing; NULL counts nothing';
COMMENT ON COLUMN backlog_cleanup.target.time_zone IS 'the time zone in which a timestamp without time zone is read';
COMMENT ON COLUMN backlog_cleanup.target.search_path IS
    'the search path of triggers that fire for a removal; NULL is pg_catalog, the table''s own schema, pg_temp';
COMMENT ON COLUMN backlog_cleanup.target.batch_size IS 'rows per batch of a batched run, at most';
COMMENT ON COLUMN backlog_cleanup.target.pause IS
    'how long a batched run sleeps between batches; NULL: it works little and rests much while others write, and does not sleep while nobody does';
COMMENT ON COLUMN backlog_cleanup.target.max_rows_per_second IS 'a batched run removes no more rows per second than this, over a second or two; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.workers IS 'background workers of a batched run; 1 is the session itself';
COMMENT ON COLUMN backlog_cleanup.target.max_duration IS 'a batched run stops after this time; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.max_rows IS 'a batched run stops after so many removed rows; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.lock_timeout IS 'how long a run waits for a lock; 0 is without limit';
COMMENT ON COLUMN backlog_cleanup.target.max_share IS
    'refuses a regular run that would remove more than this percentage of the rows in scope; 100 is off';
COMMENT ON COLUMN backlog_cleanup.target.max_rows_per_run IS
    'refuses a regular run that would remove more rows than this; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.max_replica_lag IS
    'a batched run waits while a streaming standby replays later than this; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.max_transaction_age IS
    'a batched run waits while a transaction with a snapshot is older than this: vacuum could not reclaim the removed rows; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.yield_to_autovacuum IS 'a batched run waits while autovacuum works on the table';
COMMENT ON COLUMN backlog_cleanup.target.max_wal_rate IS
    'a batched run waits while the server has written more bytes of WAL per second than this since the last batch; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.throttle_query IS
    'a query that returns a reason for a batched run to wait, or NULL; it runs as the table''s owner';
COMMENT ON COLUMN backlog_cleanup.target.named_by IS
    'the role that made the target use its tables, and that must still be their owner; NULL is a superuser; set by a trigger';
COMMENT ON COLUMN backlog_cleanup.target.condition IS
    'only rows that meet it are ever removed: an immutable expression in parentheses of the row''s own columns; NULL is no condition';
COMMENT ON COLUMN backlog_cleanup.target.recipe_columns IS
    'several columns that are the recipe together, instead of recipe_column; NULL is none';
COMMENT ON COLUMN backlog_cleanup.target.id_columns IS
    'several columns that are the row''s unique id together, instead of id_column; NULL is none';
COMMENT ON COLUMN backlog_cleanup.target.group_word IS
    'what people call a recipe of this target, in the singular: messages and screens say it';
COMMENT ON COLUMN backlog_cleanup.target.row_word IS 'what people call a row of this target, in the singular';
COMMENT ON COLUMN backlog_cleanup.target.adaptive IS
    'whether the tick starts a batched regular run early, as the next three columns say';
COMMENT ON COLUMN backlog_cleanup.target.adaptive_min_rows IS 'it does so when so many rows are removable';
COMMENT ON COLUMN backlog_cleanup.target.adaptive_rate_factor IS
    'or when rows come into scope so many times as fast as usual at this hour of the day; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.adaptive_min_interval IS 'how long after the start of the last run at the earliest';
COMMENT ON COLUMN backlog_cleanup.target.run_between IS
    'from when to when a regular run in batches works, two times of the day by the clock of time_zone; outside of it the run waits; NULL is always';
COMMENT ON COLUMN backlog_cleanup.target.wal_compression IS
    'how runs compress the full-page images that they write: lz4, zstd, off; auto is lz4 where the server has it and its own wal_compression is off, and else what the server does';
COMMENT ON COLUMN backlog_cleanup.target.named_at IS
    'when it was made or renamed: runs before, which have another name or were of another target, are not its own';
CREATE FUNCTION backlog_cleanup.target_is_renamed() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.named_at := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.target_is_renamed IS 'notes when a target was renamed';
CREATE TRIGGER target_is_renamed BEFORE UPDATE OF name ON backlog_cleanup.target
    FOR EACH ROW WHEN (NEW.name OPERATOR(pg_catalog.<>) OLD.name) EXECUTE FUNCTION backlog_cleanup.target_is_renamed();
COMMENT ON TRIGGER target_is_renamed ON backlog_cleanup.target IS 'notes when a target was renamed';

CREATE TABLE backlog_cleanup.policy (
    target       text NOT NULL REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    recipe_id    text,
    failure_type text,
    max_age      interval NOT NULL DEFAULT '24 hours'
        CONSTRAINT max_age_is_from_0_to_1000_years
        CHECK (max_age OPERATOR(pg_catalog.>=) interval '0' AND max_age OPERATOR(pg_catalog.<=) interval '1000 years'),
    keep         integer NOT NULL DEFAULT 10 CONSTRAINT keep_is_not_negative CHECK (keep OPERATOR(pg_catalog.>=) 0),
    enabled      boolean NOT NULL DEFAULT true,
    note         text,
    status       text,
    -- With months of 30 days, or by the calendar: a year is longer than 364 days.
    max_keep_age interval
        CONSTRAINT max_keep_age_is_from_max_age_to_1000_years
        CHECK ((max_keep_age OPERATOR(pg_catalog.>=) max_age
                OR timestamp '2000-07-01' OPERATOR(pg_catalog.+) max_keep_age
                   OPERATOR(pg_catalog.>=) (timestamp '2000-07-01' OPERATOR(pg_catalog.+) max_age))
               AND max_keep_age OPERATOR(pg_catalog.<=) interval '1000 years'),
    CONSTRAINT policy_names_key UNIQUE NULLS NOT DISTINCT (target, recipe_id, failure_type, status)
);
ALTER TABLE backlog_cleanup.policy REPLICA IDENTITY FULL;
COMMENT ON TABLE backlog_cleanup.policy IS
    'which rows in scope go; a row has the policy that names its recipe, or else its failure type, or else its status; the one that names nothing is the default policy';
COMMENT ON COLUMN backlog_cleanup.policy.target IS 'the target that it is for';
COMMENT ON COLUMN backlog_cleanup.policy.recipe_id IS 'the recipe, as text; NULL is any';
COMMENT ON COLUMN backlog_cleanup.policy.failure_type IS 'the failure type; NULL is any';
COMMENT ON COLUMN backlog_cleanup.policy.status IS 'the status; NULL is any';
COMMENT ON COLUMN backlog_cleanup.policy.max_age IS 'a row older than this is expired; days are of 24 hours, in UTC';
COMMENT ON COLUMN backlog_cleanup.policy.keep IS 'how many of the newest expired rows of a recipe under this policy stay';
COMMENT ON COLUMN backlog_cleanup.policy.max_keep_age IS 'rows older than this go even if they are among those newest; NULL is off';
COMMENT ON COLUMN backlog_cleanup.policy.enabled IS
    'false: a hold, under which nothing goes; of the default policy, a regular run removes nothing under it';
COMMENT ON COLUMN backlog_cleanup.policy.note IS 'for people';

CREATE TABLE backlog_cleanup.run (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target           text NOT NULL,
    mode             text NOT NULL CHECK (mode OPERATOR(pg_catalog.=) ANY (ARRAY['regular', 'emergency'])),
    state            text NOT NULL DEFAULT 'completed'
        CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'stopped', 'interrupted', 'failed'])),
    requested_by     name NOT NULL,
    recipe_id        text,
    failure_type     text,
    cutoff           timestamptz,
    total_failed     bigint NOT NULL,
    removed          bigint NOT NULL,
    skipped          bigint NOT NULL DEFAULT 0,
    kept_back        bigint NOT NULL DEFAULT 0,
    recipes_affected bigint NOT NULL,
    batches          bigint NOT NULL DEFAULT 0,
    batch_size       integer,
    pause            interval,
    max_rows_per_second integer,
    max_duration     interval,
    max_rows         bigint,
    workers          integer,
    waiting_for      text,
    started_at       timestamptz NOT NULL,
    finished_at      timestamptz,
    reading          jsonb,
    given_up         bigint NOT NULL DEFAULT 0,
    kept_back_sqlstate text,
    kept_back_message text,
    kept_back_row    text,
    error_sqlstate   text,
    error_message    text,
    error_at         text,
    stop_requested_by name,
    held             bigint NOT NULL DEFAULT 0,
    include_held     boolean NOT NULL DEFAULT false,
    status           text,
    wal_bytes        bigint,
    full_page_images bigint,
    unreadable       bigint NOT NULL DEFAULT 0
);
CREATE INDEX run_target_id_idx ON backlog_cleanup.run (target, id DESC);
COMMENT ON TABLE backlog_cleanup.run IS 'history: one row per run, written in the transactions that remove';
COMMENT ON COLUMN backlog_cleanup.run.id IS 'the run, as in reports and the ledger';
COMMENT ON COLUMN backlog_cleanup.run.target IS 'the target''s name at that time';
COMMENT ON COLUMN backlog_cleanup.run.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.run.state IS
    'running, completed, stopped (by max_duration or max_rows), interrupted (by a crash or a cancel), or failed (by an error)';
COMMENT ON COLUMN backlog_cleanup.run.requested_by IS 'the role that started it';
COMMENT ON COLUMN backlog_cleanup.run.recipe_id IS 'the recipe that was selected, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.failure_type IS 'the failure type that was selected, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.status IS 'the status that was selected, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.cutoff IS 'failed rows before this were expired; NULL in an emergency run';
COMMENT ON COLUMN backlog_cleanup.run.total_failed IS
    'rows in scope before the run; of a selective emergency run, only those that were selected';
COMMENT ON COLUMN backlog_cleanup.run.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.run.skipped IS 'rows skipped because other sessions had locked them';
COMMENT ON COLUMN backlog_cleanup.run.kept_back IS
    'rows that stayed because of what their deletion met: a trigger, a rule, a foreign key, any error';
COMMENT ON COLUMN backlog_cleanup.run.given_up IS
    'of the rows kept back, those not tried one by one, since too many others were refused';
COMMENT ON COLUMN backlog_cleanup.run.unreadable IS 'of the rows kept back, those for which an expression of the target fails';
COMMENT ON COLUMN backlog_cleanup.run.kept_back_sqlstate IS
    'the SQLSTATE that the first row kept back has met; NULL if a trigger or a rule left the row where it is';
COMMENT ON COLUMN backlog_cleanup.run.kept_back_message IS 'the message that it has met, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.kept_back_row IS 'its id as text';
COMMENT ON COLUMN backlog_cleanup.run.error_sqlstate IS 'the SQLSTATE of what ended it, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.error_message IS 'what ended it, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.error_at IS 'what it worked on then, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.held IS 'rows that policies hold, and that it has passed over';
COMMENT ON COLUMN backlog_cleanup.run.include_held IS 'whether an emergency run was to remove held rows, too';
COMMENT ON COLUMN backlog_cleanup.run.wal_bytes IS
    'the WAL that it has written, in bytes; NULL for a run of an earlier version';
COMMENT ON COLUMN backlog_cleanup.run.full_page_images IS 'the full-page images in it';
COMMENT ON COLUMN backlog_cleanup.run.stop_requested_by IS 'the role that asked it to stop, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.recipes_affected IS 'recipes with failed rows before the run';
COMMENT ON COLUMN backlog_cleanup.run.batches IS 'committed batches that removed rows; 0 for a run in one transaction';
COMMENT ON COLUMN backlog_cleanup.run.batch_size IS
    'rows per batch at most; NULL for a run in one transaction, as are pause, max_rows_per_second, max_duration, max_rows and workers';
COMMENT ON COLUMN backlog_cleanup.run.pause IS 'how long it sleeps between batches; NULL if that depends on others';
COMMENT ON COLUMN backlog_cleanup.run.max_rows_per_second IS 'how many rows it removes per second at most, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.max_duration IS 'after how long it stops, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.max_rows IS 'after how many removed rows it stops, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.workers IS 'how many background workers it got; 0 is the session itself';
COMMENT ON COLUMN backlog_cleanup.run.waiting_for IS 'why a running run waits, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.started_at IS 'start of the (first) transaction';
COMMENT ON COLUMN backlog_cleanup.run.finished_at IS
    'when it finished; for an interrupted run, when its last batch did; NULL while it is running';
COMMENT ON COLUMN backlog_cleanup.run.reading IS
    'the account, status, columns and time zone by which a batched run was ranked; if they change, its next batch is refused';

CREATE TABLE backlog_cleanup.run_recipe (
    run_id        bigint NOT NULL,
    recipe_id     text,
    failed_count  bigint NOT NULL,
    cleaned_count bigint NOT NULL
);
-- Not on the recipe, whose id may be longer than an index entry.
CREATE INDEX run_recipe_run_id_idx ON backlog_cleanup.run_recipe (run_id);
ALTER TABLE backlog_cleanup.run_recipe REPLICA IDENTITY FULL;
COMMENT ON TABLE backlog_cleanup.run_recipe IS 'history: failed and removed rows per run and recipe that lost rows';
COMMENT ON COLUMN backlog_cleanup.run_recipe.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.run_recipe.recipe_id IS 'the recipe, as text';
COMMENT ON COLUMN backlog_cleanup.run_recipe.failed_count IS 'its failed rows before the run';
COMMENT ON COLUMN backlog_cleanup.run_recipe.cleaned_count IS 'its rows removed';

CREATE TABLE backlog_cleanup.run_failure (
    run_id       bigint NOT NULL,
    hour         timestamptz,
    failure_type text,
    recipe_id    text,
    removed      bigint NOT NULL
);
ALTER TABLE backlog_cleanup.run_failure REPLICA IDENTITY FULL;
CREATE INDEX run_failure_run_id_idx ON backlog_cleanup.run_failure (run_id);
COMMENT ON TABLE backlog_cleanup.run_failure IS
    'history: when the rows failed that a run removed, and as what; of more than 127 rows at once, by a sample of them';
COMMENT ON COLUMN backlog_cleanup.run_failure.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.run_failure.hour IS
    'the start of the hour (UTC) in which they failed, of the day if that was more than 7 days ago, of the month if more than 90; NULL if it is not known';
COMMENT ON COLUMN backlog_cleanup.run_failure.failure_type IS
    'their failure type, (none), or (other) behind the 20 with most rows; NULL if it is not known';
COMMENT ON COLUMN backlog_cleanup.run_failure.recipe_id IS
    'their recipe, as text, (none), or (other) behind the 5 with most rows; NULL if it is not known';
COMMENT ON COLUMN backlog_cleanup.run_failure.removed IS 'rows removed; all of a run are those that the run has removed';

CREATE TABLE backlog_cleanup.run_policy (
    run_id       bigint NOT NULL,
    place        integer NOT NULL,
    recipe_id    text,
    failure_type text,
    status       text,
    cutoff       timestamptz NOT NULL,
    keep         integer NOT NULL,
    keep_cutoff  timestamptz,
    enabled      boolean NOT NULL,
    in_scope     bigint NOT NULL,
    removed      bigint NOT NULL,
    kept_back    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, place)
);
COMMENT ON TABLE backlog_cleanup.run_policy IS 'history: the policies that a run has obeyed, and the rows under each';
COMMENT ON COLUMN backlog_cleanup.run_policy.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.run_policy.place IS 'counts the policies of the run, from 0; those that name most come first';
COMMENT ON COLUMN backlog_cleanup.run_policy.recipe_id IS 'the recipe that the policy was for; NULL is any';
COMMENT ON COLUMN backlog_cleanup.run_policy.failure_type IS 'the failure type; NULL is any';
COMMENT ON COLUMN backlog_cleanup.run_policy.status IS 'the status; NULL is any';
COMMENT ON COLUMN backlog_cleanup.run_policy.cutoff IS 'rows before this were expired';
COMMENT ON COLUMN backlog_cleanup.run_policy.keep IS 'how many of the newest expired rows of a recipe stayed';
COMMENT ON COLUMN backlog_cleanup.run_policy.keep_cutoff IS 'rows before this went even so; NULL is none';
COMMENT ON COLUMN backlog_cleanup.run_policy.enabled IS 'whether the policy was enabled';
COMMENT ON COLUMN backlog_cleanup.run_policy.in_scope IS
    'rows under it before the run; of a selective emergency run, only those that were selected';
COMMENT ON COLUMN backlog_cleanup.run_policy.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.run_policy.kept_back IS
    'rows that stayed because of what their deletion met; with several policies, those of whose policy the run knows';

CREATE TABLE backlog_cleanup.run_status (
    run_id    bigint NOT NULL,
    place     integer NOT NULL,
    status    text,
    in_scope  bigint NOT NULL,
    removed   bigint NOT NULL,
    kept_back bigint NOT NULL,
    PRIMARY KEY (run_id, place)
);
COMMENT ON TABLE backlog_cleanup.run_status IS 'history: the rows in scope of a run by their status';
COMMENT ON COLUMN backlog_cleanup.run_status.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.run_status.place IS 'counts the statuses of the target, from 0';
COMMENT ON COLUMN backlog_cleanup.run_status.status IS 'the status, as rows had it; NULL if the target had none';
COMMENT ON COLUMN backlog_cleanup.run_status.in_scope IS
    'rows with it before the run; of a selective emergency run, only those that were selected';
COMMENT ON COLUMN backlog_cleanup.run_status.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.run_status.kept_back IS
    'rows that stayed because of what their deletion met, as far as for a policy';

-- The working state of batched runs. It survives a crash between two batches, and is removed when the run ends.
CREATE TABLE backlog_cleanup.run_cutoff (
    run_id    bigint NOT NULL,
    place     integer NOT NULL,
    recipe_id text,
    failed    bigint NOT NULL,
    failed_at timestamp,
    id        text,
    removable bigint,
    policy    integer NOT NULL DEFAULT 0,
    status    integer NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, place)
);
COMMENT ON TABLE backlog_cleanup.run_cutoff IS
    'running runs: per recipe, policy and status, the oldest expired row that stays; older ones are removed';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.policy IS 'the policy, by its place in run_policy';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.status IS 'the status, by its place in run_status';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.place IS
    'counts the recipes of the run, from 0; below 0 those whose rows an emergency run passes over';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.recipe_id IS 'the recipe, as text';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.failed IS 'its failed rows before the run';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.failed_at IS
    'failed-at of that row, as the column has it (timestamptz in UTC); NULL if no row of the recipe goes';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.id IS 'the id of that row, as text';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.removable IS 'how many of its failed rows the run may remove';

CREATE TABLE backlog_cleanup.run_part (
    run_id      bigint NOT NULL,
    part        integer NOT NULL,
    leaf        oid NOT NULL,
    filenode    oid,
    first_block bigint,
    tids        tid[],
    steps       bigint NOT NULL,
    steps_done  bigint NOT NULL DEFAULT 0,
    next_offset integer NOT NULL DEFAULT 0,
    attempts    integer NOT NULL DEFAULT 0,
    places      integer[],
    lsn         pg_lsn,
    columns     smallint[],
    pass        integer NOT NULL DEFAULT 1,
    removed     bigint NOT NULL DEFAULT 0,
    kept_back   bigint NOT NULL DEFAULT 0,
    given_up    bigint NOT NULL DEFAULT 0,
    in_circles  boolean NOT NULL DEFAULT false,
    leaves      oid[],
    first_recipe bigint,
    PRIMARY KEY (run_id, pass, part)
);
ALTER TABLE backlog_cleanup.run_part ALTER COLUMN tids SET STORAGE EXTERNAL, ALTER COLUMN places SET STORAGE EXTERNAL;
COMMENT ON TABLE backlog_cleanup.run_part IS
    'running runs: what is left to do; a part is a range of blocks, a list of positions, or the recipes of a leaf table';
COMMENT ON COLUMN backlog_cleanup.run_part.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.run_part.part IS 'counts the parts of the run, from 1; negative in every second pass, whose last part comes first';
COMMENT ON COLUMN backlog_cleanup.run_part.leaf IS 'the table';
COMMENT ON COLUMN backlog_cleanup.run_part.filenode IS
    'its filenode: if it has changed, the table was rewritten and positions mean other rows; NULL if it has none';
COMMENT ON COLUMN backlog_cleanup.run_part.first_block IS 'where a range of blocks starts, or NULL';
COMMENT ON COLUMN backlog_cleanup.run_part.tids IS 'the list of positions, or NULL';
COMMENT ON COLUMN backlog_cleanup.run_part.steps IS 'how many blocks, positions or recipes there are';
COMMENT ON COLUMN backlog_cleanup.run_part.steps_done IS 'how many of them are done';
COMMENT ON COLUMN backlog_cleanup.run_part.next_offset IS 'rows of the next block up to this offset are done';
COMMENT ON COLUMN backlog_cleanup.run_part.attempts IS
    'how many times in a row a batch was rolled back, by a deadlock or the like';
COMMENT ON COLUMN backlog_cleanup.run_part.places IS 'the recipe of each position: its place in run_cutoff';
COMMENT ON COLUMN backlog_cleanup.run_part.lsn IS
    'the WAL position when the positions were read; on a page that is older they still mean the same rows; NULL if they mean nothing any more';
COMMENT ON COLUMN backlog_cleanup.run_part.columns IS 'the numbers that the target''s columns had in the table';
COMMENT ON COLUMN backlog_cleanup.run_part.pass IS
    'counts the passes, from 1: rows that one has kept back are tried again in the next';
COMMENT ON COLUMN backlog_cleanup.run_part.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.run_part.kept_back IS 'rows that an earlier pass has kept back and that this part has still to try again';
COMMENT ON COLUMN backlog_cleanup.run_part.given_up IS 'of kept_back, the rows that the run gave up on in the pass before';
COMMENT ON COLUMN backlog_cleanup.run_part.in_circles IS 'whether its rows reference each other in circles, and go in one statement';
COMMENT ON COLUMN backlog_cleanup.run_part.leaves IS 'the table of each position, if a circle has rows of several; then leaf is the target''s';
COMMENT ON COLUMN backlog_cleanup.run_part.first_recipe IS
    'where a range of recipes starts, for a table whose rows have no positions; then next_offset rows of the next recipe have stayed';

CREATE TABLE backlog_cleanup.run_batch (
    run_id       bigint NOT NULL,
    batch        bigint NOT NULL,
    recipe_ids   text[] NOT NULL,
    removed      bigint[] NOT NULL,
    milliseconds double precision NOT NULL,
    finished_at  timestamptz NOT NULL,
    policies     integer[],
    statuses     integer[],
    hours        bigint[],
    failure_types text[],
    failed_recipes text[],
    of_failures  bigint[],
    PRIMARY KEY (run_id, batch)
);
ALTER TABLE backlog_cleanup.run_batch
    ALTER COLUMN recipe_ids SET STORAGE EXTERNAL, ALTER COLUMN removed SET STORAGE EXTERNAL,
    ALTER COLUMN policies SET STORAGE EXTERNAL, ALTER COLUMN statuses SET STORAGE EXTERNAL;
COMMENT ON TABLE backlog_cleanup.run_batch IS 'running runs: what each committed batch removed; run_recipe has the sums when the run is over';
COMMENT ON COLUMN backlog_cleanup.run_batch.hours IS 'the hours in which removed rows failed, in seconds since 1970; run_failure has the sums';
COMMENT ON COLUMN backlog_cleanup.run_batch.failure_types IS 'the failure type of each';
COMMENT ON COLUMN backlog_cleanup.run_batch.failed_recipes IS 'the recipe of each';
COMMENT ON COLUMN backlog_cleanup.run_batch.of_failures IS 'the rows removed of each';
COMMENT ON COLUMN backlog_cleanup.run_batch.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.run_batch.batch IS 'counts the batches of the run, from 1';
COMMENT ON COLUMN backlog_cleanup.run_batch.recipe_ids IS 'the recipes that lost rows';
COMMENT ON COLUMN backlog_cleanup.run_batch.policies IS 'the policy of each, by its place in run_policy';
COMMENT ON COLUMN backlog_cleanup.run_batch.statuses IS 'the status of each, by its place in run_status';
COMMENT ON COLUMN backlog_cleanup.run_batch.removed IS 'how many rows of each';
COMMENT ON COLUMN backlog_cleanup.run_batch.milliseconds IS 'how long the batch held its locks, from the search for its rows on';
COMMENT ON COLUMN backlog_cleanup.run_batch.finished_at IS 'just before its commit';

-- Apart from run, which every level reads: a DETAIL may show values of rows. No dump has it, since oids mean other tables there.
CREATE TABLE backlog_cleanup.run_error (
    run_id bigint PRIMARY KEY,
    detail text,
    hint   text,
    tables oid[] NOT NULL,
    hint_is_own boolean NOT NULL
);
COMMENT ON TABLE backlog_cleanup.run_error IS 'history: more of the errors that ended runs; see the view history';
COMMENT ON COLUMN backlog_cleanup.run_error.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.run_error.detail IS 'the error''s DETAIL, or NULL';
COMMENT ON COLUMN backlog_cleanup.run_error.hint IS 'the error''s HINT, or NULL';
COMMENT ON COLUMN backlog_cleanup.run_error.tables IS 'the tables whose owners may see the DETAIL, and a HINT of their code';
COMMENT ON COLUMN backlog_cleanup.run_error.hint_is_own IS 'whether the HINT is of the extension, and for each level';

-- Not a foreign key: checking for each of two thousand recipes that the run exists would cost a tenth of a run.
CREATE FUNCTION backlog_cleanup.forget_run() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM backlog_cleanup.run_recipe WHERE run_id = OLD.id;
    DELETE FROM backlog_cleanup.run_failure WHERE run_id = OLD.id;
    DELETE FROM backlog_cleanup.run_policy WHERE run_id = OLD.id;
    DELETE FROM backlog_cleanup.run_status WHERE run_id = OLD.id;
    DELETE FROM backlog_cleanup.run_cutoff WHERE run_id = OLD.id;
    DELETE FROM backlog_cleanup.run_part WHERE run_id = OLD.id;
    DELETE FROM backlog_cleanup.run_batch WHERE run_id = OLD.id;
    DELETE FROM backlog_cleanup.run_error WHERE run_id = OLD.id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.forget_run IS 'removes the rows of a run that is deleted from the history';
CREATE TRIGGER forget_run AFTER DELETE ON backlog_cleanup.run
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.forget_run();
COMMENT ON TRIGGER forget_run ON backlog_cleanup.run IS 'what belongs to a run goes with it';

-- The platform's failure types are a list of words.
INSERT INTO backlog_cleanup.target (name, fingerprint, group_word, row_word) VALUES ('generations', false, 'recipe', 'generation');
INSERT INTO backlog_cleanup.policy (target) VALUES ('generations');
