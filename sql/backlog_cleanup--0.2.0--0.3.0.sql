-- 0.3.0: the arguments of a batched run stand once, and a new column of target needs no list of columns. A batched run
-- remembers how its target was read, and how many rows it may remove. A run tells what the rows met that it has kept back, and a
-- batched run tries them again.
ALTER TABLE backlog_cleanup.run ADD COLUMN reading jsonb;
COMMENT ON COLUMN backlog_cleanup.run.reading IS
    'the account, status, columns and time zone by which a batched run was ranked; if they change, its next batch is refused';
ALTER TABLE backlog_cleanup.run
    ADD COLUMN max_rows_per_second integer,
    ADD COLUMN given_up bigint NOT NULL DEFAULT 0,
    ADD COLUMN kept_back_sqlstate text,
    ADD COLUMN kept_back_message text,
    ADD COLUMN kept_back_row text,
    ADD COLUMN error_sqlstate text,
    ADD COLUMN error_message text,
    ADD COLUMN error_at text,
    ADD COLUMN stop_requested_by name,
    ADD COLUMN held bigint NOT NULL DEFAULT 0,
    ADD COLUMN include_held boolean NOT NULL DEFAULT false,
    ADD COLUMN status text,
    ADD COLUMN wal_bytes bigint,
    ADD COLUMN full_page_images bigint,
    ADD COLUMN unreadable bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT run_state_check,
    ADD CHECK (state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'completed', 'stopped', 'interrupted', 'failed']));
COMMENT ON COLUMN backlog_cleanup.run.status IS 'the status that was selected, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.held IS 'rows that policies hold, and that it has passed over';
COMMENT ON COLUMN backlog_cleanup.run.include_held IS 'whether an emergency run was to remove held rows, too';
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
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_policy', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_status', '');
ALTER TABLE backlog_cleanup.run_batch
    ADD COLUMN policies integer[], ALTER COLUMN policies SET STORAGE EXTERNAL,
    ADD COLUMN statuses integer[], ALTER COLUMN statuses SET STORAGE EXTERNAL;
COMMENT ON COLUMN backlog_cleanup.run_batch.policies IS 'the policy of each, by its place in run_policy';
COMMENT ON COLUMN backlog_cleanup.run_batch.statuses IS 'the status of each, by its place in run_status';
ALTER TABLE backlog_cleanup.run_batch
    ADD COLUMN hours bigint[], ADD COLUMN failure_types text[], ADD COLUMN failed_recipes text[], ADD COLUMN of_failures bigint[];
COMMENT ON COLUMN backlog_cleanup.run_batch.hours IS 'the hours in which removed rows failed, in seconds since 1970; run_failure has the sums';
COMMENT ON COLUMN backlog_cleanup.run_batch.failure_types IS 'the failure type of each';
COMMENT ON COLUMN backlog_cleanup.run_batch.failed_recipes IS 'the recipe of each';
COMMENT ON COLUMN backlog_cleanup.run_batch.of_failures IS 'the rows removed of each';
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

SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_failure', '');
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

ALTER TABLE backlog_cleanup.run_part
    ADD COLUMN pass integer NOT NULL DEFAULT 1,
    ADD COLUMN removed bigint NOT NULL DEFAULT 0,
    ADD COLUMN kept_back bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT run_part_pkey,
    ADD PRIMARY KEY (run_id, pass, part);
ALTER TABLE backlog_cleanup.run_cutoff ADD COLUMN removable bigint, ADD COLUMN policy integer NOT NULL DEFAULT 0,
    ADD COLUMN status integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN backlog_cleanup.run_cutoff.place IS
    'counts the recipes of the run, from 0; below 0 those whose rows an emergency run passes over';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.status IS 'the status, by its place in run_status';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.policy IS 'the policy, by its place in run_policy';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.removable IS 'how many of its failed rows the run may remove';
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_cutoff', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.run_batch', '');

-- For the trigger: its hint corrects the statement that has written the target.
CREATE FUNCTION backlog_cleanup.check_written(target text, before text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'check_written_target_wrapper';
COMMENT ON FUNCTION backlog_cleanup.check_written IS
    'a part of check_target: raises an error if a target cannot be used; before is its row before the statement, as JSON';
CREATE FUNCTION backlog_cleanup.check_policies(target text, before text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'check_policies_of_target_wrapper';
COMMENT ON FUNCTION backlog_cleanup.check_policies IS
    'a part of check_target: raises an error if a policy would not be for the same rows any more; before is the target''s row before the statement, as JSON';

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

ALTER TABLE backlog_cleanup.target
    ALTER COLUMN recipe_column DROP NOT NULL,
    ALTER COLUMN failure_type_column DROP NOT NULL,
    ADD COLUMN condition text,
    ADD COLUMN recipe_columns text[]
        CONSTRAINT recipe_columns_is_a_list_of_columns
        CHECK (recipe_columns OPERATOR(pg_catalog.<>) '{}' AND pg_catalog.array_position(recipe_columns, NULL) IS NULL),
    ADD COLUMN id_columns text[]
        CONSTRAINT id_columns_is_a_list_of_columns
        CHECK (id_columns OPERATOR(pg_catalog.<>) '{}' AND pg_catalog.array_position(id_columns, NULL) IS NULL),
    ALTER COLUMN named_by TYPE backlog_cleanup.role USING named_by::pg_catalog.text::backlog_cleanup.role;
ALTER TABLE backlog_cleanup.target
    ALTER COLUMN status_column DROP NOT NULL, ALTER COLUMN account_column DROP NOT NULL, ALTER COLUMN account DROP NOT NULL,
    DROP CONSTRAINT failed_status_is_none_of_the_others,
    ALTER COLUMN failed_status DROP NOT NULL, ALTER COLUMN failed_status DROP DEFAULT,
    ALTER COLUMN failed_status TYPE text[] USING ARRAY[failed_status],
    ALTER COLUMN completed_status DROP NOT NULL, ALTER COLUMN completed_status DROP DEFAULT,
    ALTER COLUMN completed_status TYPE text[] USING ARRAY[completed_status],
    ALTER COLUMN pending_status DROP NOT NULL, ALTER COLUMN pending_status DROP DEFAULT,
    ALTER COLUMN pending_status TYPE text[] USING ARRAY[pending_status],
    ALTER COLUMN processing_status DROP NOT NULL, ALTER COLUMN processing_status DROP DEFAULT,
    ALTER COLUMN processing_status TYPE text[] USING ARRAY[processing_status];
ALTER TABLE backlog_cleanup.target RENAME COLUMN failed_status TO statuses;
ALTER TABLE backlog_cleanup.target
    ALTER COLUMN statuses SET NOT NULL, ALTER COLUMN statuses SET DEFAULT '{failed}',
    ALTER COLUMN completed_status SET DEFAULT '{completed}',
    ALTER COLUMN pending_status SET DEFAULT '{pending}', ALTER COLUMN processing_status SET DEFAULT '{processing}',
    ADD COLUMN pause interval
        CONSTRAINT pause_is_from_0_to_1_day
        CHECK (pause OPERATOR(pg_catalog.>=) interval '0'
               AND pause OPERATOR(pg_catalog.<=) interval '1 day'),
    ADD COLUMN max_rows_per_second integer
        CONSTRAINT max_rows_per_second_is_positive
        CHECK (max_rows_per_second OPERATOR(pg_catalog.>) 0),
    ADD COLUMN workers integer NOT NULL DEFAULT 1
        CONSTRAINT workers_is_from_1_to_64
        CHECK (workers OPERATOR(pg_catalog.>=) 1
               AND workers OPERATOR(pg_catalog.<=) 64),
    ADD COLUMN max_duration interval
        CONSTRAINT max_duration_is_positive_and_finite
        CHECK (max_duration OPERATOR(pg_catalog.>) interval '0'
               AND max_duration OPERATOR(pg_catalog.<=) interval '1000 years'),
    ADD COLUMN max_rows bigint
        CONSTRAINT max_rows_is_positive
        CHECK (max_rows OPERATOR(pg_catalog.>) 0),
    ADD CONSTRAINT workers_is_1_where_max_rows_stops_a_run CHECK (workers OPERATOR(pg_catalog.=) 1 OR max_rows IS NULL),
    ADD CONSTRAINT statuses_is_a_list_of_at_least_one_status
        CHECK (pg_catalog.cardinality(statuses) OPERATOR(pg_catalog.>) 0
               AND pg_catalog.array_ndims(statuses) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC statuses) OPERATOR(pg_catalog.=) 0),
    ADD CONSTRAINT completed_status_is_a_list_of_statuses
        CHECK (pg_catalog.array_ndims(completed_status) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC completed_status) OPERATOR(pg_catalog.=) 0),
    ADD CONSTRAINT pending_status_is_a_list_of_statuses
        CHECK (pg_catalog.array_ndims(pending_status) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC pending_status) OPERATOR(pg_catalog.=) 0),
    ADD CONSTRAINT processing_status_is_a_list_of_statuses
        CHECK (pg_catalog.array_ndims(processing_status) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC processing_status) OPERATOR(pg_catalog.=) 0);

ALTER TABLE backlog_cleanup.policy REPLICA IDENTITY FULL;
ALTER TABLE backlog_cleanup.policy
    ADD COLUMN status text,
    ADD COLUMN max_keep_age interval
        CONSTRAINT max_keep_age_is_from_max_age_to_1000_years
        CHECK ((max_keep_age OPERATOR(pg_catalog.>=) max_age
                OR timestamp '2000-07-01' OPERATOR(pg_catalog.+) max_keep_age
                   OPERATOR(pg_catalog.>=) (timestamp '2000-07-01' OPERATOR(pg_catalog.+) max_age))
               AND max_keep_age OPERATOR(pg_catalog.<=) interval '1000 years'),
    DROP CONSTRAINT max_age_is_positive_and_finite,
    ADD CONSTRAINT max_age_is_from_0_to_1000_years
        CHECK (max_age OPERATOR(pg_catalog.>=) interval '0' AND max_age OPERATOR(pg_catalog.<=) interval '1000 years'),
    DROP CONSTRAINT policy_target_recipe_id_failure_type_key,
    ADD CONSTRAINT policy_names_key UNIQUE NULLS NOT DISTINCT (target, recipe_id, failure_type, status);
COMMENT ON COLUMN backlog_cleanup.policy.status IS 'the status; NULL is any';
COMMENT ON COLUMN backlog_cleanup.policy.max_age IS 'a row older than this is expired; days are of 24 hours, in UTC';
COMMENT ON COLUMN backlog_cleanup.policy.keep IS 'how many of the newest expired rows of a recipe under this policy stay';
COMMENT ON COLUMN backlog_cleanup.policy.max_keep_age IS 'rows older than this go even if they are among those newest; NULL is off';
COMMENT ON COLUMN backlog_cleanup.policy.enabled IS
    'false: a hold, under which nothing goes; of the default policy, a regular run removes nothing under it';
ALTER TABLE backlog_cleanup.run_recipe DROP CONSTRAINT run_recipe_run_id_recipe_id_key;
-- Not on the recipe, whose id may be longer than an index entry.
CREATE INDEX run_recipe_run_id_idx ON backlog_cleanup.run_recipe (run_id);
ALTER TABLE backlog_cleanup.run_recipe REPLICA IDENTITY FULL;

DROP FUNCTION backlog_cleanup.forget_run CASCADE;
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

DROP VIEW backlog_cleanup.progress;
CREATE VIEW backlog_cleanup.progress AS
    SELECT r.id AS run_id, r.target, r.mode,
           CASE WHEN held.pid IS NULL AND NOT pg_catalog.pg_is_in_recovery() THEN 'interrupted' ELSE r.state END AS state,
           CASE WHEN r.state OPERATOR(pg_catalog.=) 'running' THEN held.pid END AS pid, r.started_at, r.batches, r.removed, r.skipped, r.kept_back,
           done.share AS share_done,
           r.removed OPERATOR(pg_catalog./) spent.seconds AS rows_per_second,
           CASE WHEN done.share OPERATOR(pg_catalog.>) double precision '0' THEN
               pg_catalog.make_interval(secs => spent.seconds
                                                OPERATOR(pg_catalog.*) (double precision '1' OPERATOR(pg_catalog.-) done.share)
                                                OPERATOR(pg_catalog./) done.share) END AS time_left,
           r.waiting_for
    FROM backlog_cleanup.run r
    LEFT JOIN pg_catalog.pg_locks held
           ON held.locktype OPERATOR(pg_catalog.=) 'object' AND held.granted
          AND held.database OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_database
                                                    WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
          AND held.classid OPERATOR(pg_catalog.=) 'backlog_cleanup.target'::pg_catalog.regclass::pg_catalog.oid
          AND held.objid OPERATOR(pg_catalog.=)
              (pg_catalog.hashtext(r.target)::bigint OPERATOR(pg_catalog.&) 4294967295)::pg_catalog.oid
          AND held.objsubid OPERATOR(pg_catalog.=) 1::smallint,
    -- In a range of blocks, rows may be anywhere: many blocks are empty after earlier runs. Then rows count.
    LATERAL (SELECT COALESCE(pg_catalog.bool_or(p.first_block IS NOT NULL), false) AS in_blocks,
                    pg_catalog.sum(p.steps_done) AS steps_done, pg_catalog.sum(p.steps) AS steps
             FROM backlog_cleanup.run_part p WHERE p.run_id OPERATOR(pg_catalog.=) r.id) parts,
    LATERAL (SELECT pg_catalog.sum(COALESCE(c.removable, c.failed)) AS rows
             FROM backlog_cleanup.run_cutoff c WHERE c.run_id OPERATOR(pg_catalog.=) r.id AND parts.in_blocks) to_go,
    LATERAL (SELECT LEAST(COALESCE(CASE WHEN parts.in_blocks AND to_go.rows OPERATOR(pg_catalog.>) numeric '0'
                                        THEN (r.removed OPERATOR(pg_catalog.+) r.skipped OPERATOR(pg_catalog.+) r.kept_back)::numeric
                                             OPERATOR(pg_catalog./) to_go.rows
                                        WHEN NOT parts.in_blocks AND parts.steps OPERATOR(pg_catalog.>) numeric '0'
                                        THEN parts.steps_done OPERATOR(pg_catalog./) parts.steps END,
                                   numeric '1'),
                          numeric '1')::double precision AS share) done,
    LATERAL (SELECT GREATEST(EXTRACT(epoch FROM (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) r.started_at)),
                             0.001)::double precision AS seconds) spent
    WHERE r.state OPERATOR(pg_catalog.=) 'running'
       OR r.state OPERATOR(pg_catalog.=) 'interrupted'
          AND NOT EXISTS (SELECT FROM backlog_cleanup.run later
                          WHERE later.target OPERATOR(pg_catalog.=) r.target AND later.id OPERATOR(pg_catalog.>) r.id);
COMMENT ON VIEW backlog_cleanup.progress IS 'batched runs that are running or were interrupted';
COMMENT ON COLUMN backlog_cleanup.progress.run_id IS 'the run';
COMMENT ON COLUMN backlog_cleanup.progress.target IS 'its target';
COMMENT ON COLUMN backlog_cleanup.progress.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.progress.state IS
    'running; interrupted if its process has ended (not detectable on a standby)';
COMMENT ON COLUMN backlog_cleanup.progress.pid IS 'the process that runs it, or NULL';
COMMENT ON COLUMN backlog_cleanup.progress.started_at IS 'when it started';
COMMENT ON COLUMN backlog_cleanup.progress.batches IS 'committed batches';
COMMENT ON COLUMN backlog_cleanup.progress.removed IS 'rows removed so far';
COMMENT ON COLUMN backlog_cleanup.progress.skipped IS 'rows skipped so far because other sessions had locked them';
COMMENT ON COLUMN backlog_cleanup.progress.kept_back IS
    'rows so far that stayed because of what their deletion met';
COMMENT ON COLUMN backlog_cleanup.progress.share_done IS 'share of the work that is done, from 0 to 1';
COMMENT ON COLUMN backlog_cleanup.progress.rows_per_second IS 'rows removed per second since it started';
COMMENT ON COLUMN backlog_cleanup.progress.time_left IS 'estimated at this rate; NULL before the first batch';
COMMENT ON COLUMN backlog_cleanup.progress.waiting_for IS 'why it waits, or NULL';

-- The history with its errors, and with the nights of which only pg_cron knows: a run of one transaction that fails leaves no row.
CREATE FUNCTION backlog_cleanup.failed_jobs()
    RETURNS TABLE (job_id bigint, target text, mode text, requested_by text, started_at timestamptz, finished_at timestamptz,
                   message text)
    STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'failed_jobs_wrapper';
COMMENT ON FUNCTION backlog_cleanup.failed_jobs IS 'the failed runs of jobs in pg_cron''s history, if it is in this database';

CREATE VIEW backlog_cleanup.history AS
    SELECT r.id AS run_id, NULL::bigint AS job_id, r.target, r.mode, COALESCE(p.state, r.state) AS state,
           r.requested_by::pg_catalog.text AS requested_by, r.started_at, r.finished_at, r.total_failed, r.removed, r.skipped, r.kept_back,
           r.error_sqlstate,
           CASE WHEN r.state OPERATOR(pg_catalog.=) 'running' AND p.state OPERATOR(pg_catalog.=) 'interrupted'
                THEN 'the session that ran it has ended' ELSE r.error_message END AS error_message, r.error_at,
           CASE WHEN shown.may THEN e.detail END AS error_detail,
           CASE WHEN shown.may OR e.hint_is_own THEN e.hint END AS error_hint, r.wal_bytes, r.full_page_images
    FROM backlog_cleanup.run r
    LEFT JOIN backlog_cleanup.progress p ON p.run_id OPERATOR(pg_catalog.=) r.id
    LEFT JOIN backlog_cleanup.run_error e ON e.run_id OPERATOR(pg_catalog.=) r.id
    LEFT JOIN LATERAL (
        SELECT pg_catalog.bool_and(c.oid IS NOT NULL AND pg_catalog.pg_has_role(c.relowner, 'USAGE')) AS may
        FROM pg_catalog.unnest(e.tables) AS named (oid)
        LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) named.oid) shown ON true
    UNION ALL
    SELECT NULL, j.job_id, j.target, j.mode, 'failed', j.requested_by, j.started_at, j.finished_at, 0, 0, 0, 0,
           NULL, j.message, NULL, NULL, NULL, NULL, NULL
    FROM backlog_cleanup.failed_jobs() j
    WHERE NOT EXISTS (SELECT FROM backlog_cleanup.run r
                      WHERE r.target OPERATOR(pg_catalog.=) j.target AND r.state OPERATOR(pg_catalog.<>) 'completed'
                        AND r.started_at OPERATOR(pg_catalog.>=) j.started_at
                        AND r.started_at OPERATOR(pg_catalog.<=) COALESCE(j.finished_at, 'infinity'::pg_catalog.timestamptz));
COMMENT ON VIEW backlog_cleanup.history IS 'all runs with their errors, and the failed jobs that have left no run';
COMMENT ON COLUMN backlog_cleanup.history.run_id IS 'the run, or NULL';
COMMENT ON COLUMN backlog_cleanup.history.job_id IS 'the job of pg_cron that failed without a run, or NULL';
COMMENT ON COLUMN backlog_cleanup.history.target IS 'the target''s name at that time';
COMMENT ON COLUMN backlog_cleanup.history.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.history.state IS 'running, completed, stopped, interrupted or failed';
COMMENT ON COLUMN backlog_cleanup.history.requested_by IS 'the role that started it';
COMMENT ON COLUMN backlog_cleanup.history.started_at IS 'start of the (first) transaction';
COMMENT ON COLUMN backlog_cleanup.history.finished_at IS 'when it ended; NULL while it is running';
COMMENT ON COLUMN backlog_cleanup.history.total_failed IS 'failed rows before the run';
COMMENT ON COLUMN backlog_cleanup.history.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.history.skipped IS 'rows that other sessions had locked';
COMMENT ON COLUMN backlog_cleanup.history.kept_back IS 'rows that could not go';
COMMENT ON COLUMN backlog_cleanup.history.error_sqlstate IS 'the SQLSTATE of what ended it, or NULL';
COMMENT ON COLUMN backlog_cleanup.history.error_message IS 'what ended it, or NULL';
COMMENT ON COLUMN backlog_cleanup.history.error_at IS 'what it worked on then, or NULL';
COMMENT ON COLUMN backlog_cleanup.history.error_detail IS
    'the error''s DETAIL, which may show values of rows: for roles with the rights of the owners of the target''s tables';
COMMENT ON COLUMN backlog_cleanup.history.error_hint IS 'the error''s HINT, or NULL: one of code of a table as error_detail';
COMMENT ON COLUMN backlog_cleanup.history.wal_bytes IS 'the WAL that it has written, in bytes; NULL if that is not known';
COMMENT ON COLUMN backlog_cleanup.history.full_page_images IS 'the full-page images in it';

DROP PROCEDURE backlog_cleanup_run;
DROP FUNCTION backlog_cleanup.start_run;
CREATE FUNCTION backlog_cleanup.start_run(arguments json) RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'start_batched_run_wrapper';
-- It has no SET clause and is no SECURITY DEFINER, since neither could commit.
CREATE PROCEDURE backlog_cleanup_run(
    target       text DEFAULT 'generations',
    mode         text DEFAULT 'regular',
    batch_size   integer DEFAULT NULL,
    pause        interval DEFAULT NULL,
    max_duration interval DEFAULT NULL,
    max_rows     bigint DEFAULT NULL,
    workers      integer DEFAULT NULL,
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    force        boolean DEFAULT false,
    include_held boolean DEFAULT false,
    max_rows_per_second integer DEFAULT NULL,
    status       text DEFAULT NULL,
    INOUT report jsonb DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    run     bigint;
    seconds double precision := double precision '0';
BEGIN
    -- If the caller cannot commit, fails here and not after the first batch.
    CALL backlog_cleanup.commit_and_wait(seconds);
    run := backlog_cleanup.start_run(pg_catalog.json_build_object(
        'target', target, 'mode', mode, 'batch_size', batch_size, 'pause', pause, 'max_duration', max_duration,
        'max_rows', max_rows, 'workers', workers, 'recipe_id', recipe_id, 'failure_type', failure_type, 'force', force,
        'include_held', include_held, 'max_rows_per_second', max_rows_per_second, 'status', status));
    LOOP
        CALL backlog_cleanup.commit_and_wait(seconds);
        seconds := backlog_cleanup.next_batch(run);
        EXIT WHEN seconds IS NULL;
    END LOOP;
    report := backlog_cleanup.finish_run(run);
    -- Raises what has failed, which is committed now.
    CALL backlog_cleanup.commit_and_wait(double precision '0');
END
$$;
COMMENT ON PROCEDURE backlog_cleanup_run IS 'does a regular or an emergency run in batches, with a commit after each';
COMMENT ON FUNCTION backlog_cleanup.start_run IS
    'a part of backlog_cleanup_run: locks the target, fixes the cutoffs, divides the work; returns the run''s id';

DROP FUNCTION backlog_cleanup_status;
CREATE FUNCTION backlog_cleanup_status(target text DEFAULT 'generations')
RETURNS TABLE (recipe_id text, recipe_name text, total_count bigint, completed_count bigint, failed_count bigint, pending_count bigint,
               processing_count bigint, removable_count bigint, oldest_failed_at timestamptz, oldest_failed_age text,
               in_scope_count bigint, statuses jsonb)
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'status_by_recipe_wrapper';
COMMENT ON FUNCTION backlog_cleanup_status IS
    'the rows of the account by recipe and status, most failures first';
DROP FUNCTION backlog_cleanup_failed_generations;
CREATE FUNCTION backlog_cleanup_failed_generations(
    target       text DEFAULT 'generations',
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    dry_run      boolean DEFAULT false,
    force        boolean DEFAULT false,
    rehearse     boolean DEFAULT false,
    status       text DEFAULT NULL)
RETURNS jsonb LANGUAGE c AS 'MODULE_PATHNAME', 'regular_run_wrapper';
DROP FUNCTION backlog_cleanup_emergency;
CREATE FUNCTION backlog_cleanup_emergency(
    target       text DEFAULT 'generations',
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    dry_run      boolean DEFAULT false,
    rehearse     boolean DEFAULT false,
    include_held boolean DEFAULT false,
    status       text DEFAULT NULL)
RETURNS jsonb LANGUAGE c AS 'MODULE_PATHNAME', 'emergency_run_wrapper';
COMMENT ON FUNCTION backlog_cleanup_emergency IS
    'removes every row in scope but those that are held, whatever its age; returns a report';

DROP FUNCTION backlog_cleanup.remember_namer CASCADE;
CREATE FUNCTION backlog_cleanup.remember_namer() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    namer backlog_cleanup.role := OLD.named_by;
BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER) THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'INSERT'
       OR EXISTS (SELECT FROM jsonb_each_text(to_jsonb(NEW)) AS is_now JOIN jsonb_each_text(to_jsonb(OLD)) AS was USING (key)
                  WHERE is_now.value IS DISTINCT FROM was.value
                    AND (key IN ('throttle_query', 'search_path', 'condition') OR key LIKE '%\_table' AND is_now.value IS NOT NULL
                         OR key LIKE '%\_column' AND is_now.value LIKE '(%'))
    THEN
        namer := CURRENT_USER::backlog_cleanup.role;
    END IF;
    IF NEW.named_by::oid IS DISTINCT FROM OLD.named_by::oid AND NEW.named_by::oid IS DISTINCT FROM namer::oid THEN
        RAISE EXCEPTION 'permission denied to set named_by of target "%"', NEW.name
            USING ERRCODE = 'insufficient_privilege', HINT = 'leave it out: it is the role that names what the target uses';
    END IF;
    NEW.named_by := namer;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.remember_namer IS
    'remembers the role that makes a target use tables, a search path, a throttle query or expressions';
CREATE TRIGGER remember_namer BEFORE INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.remember_namer();
COMMENT ON TRIGGER remember_namer ON backlog_cleanup.target IS 'a target uses only tables of the role that named them';

-- For the trigger: all that is wrong in a row is told at once.
CREATE FUNCTION backlog_cleanup.check_limits_of_target("row" text, before text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'check_limits_of_target_wrapper';
COMMENT ON FUNCTION backlog_cleanup.check_limits_of_target IS
    'a part of tell_limits: raises an error of all mistakes of a row that is beyond a limit; before is the row before the statement, both as JSON';

-- PostgreSQL ends a statement at the first limit of a table that a row is beyond, before check_target can tell what else is wrong in it.
CREATE FUNCTION backlog_cleanup.tell_limits() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 3 SET intervalstyle = postgres
AS $$
BEGIN
    -- Where its subscripts begin means nothing.
    NEW.run_between := NEW.run_between[:];
    IF NOT backlog_cleanup.restoring() THEN
        PERFORM backlog_cleanup.check_limits_of_target(
            to_jsonb(NEW)::text, CASE TG_OP WHEN 'INSERT' THEN '{}' ELSE to_jsonb(OLD)::text END);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.tell_limits IS 'tells at once all limits that a row of target is beyond, and what else is wrong in it';
CREATE TRIGGER tell_limits BEFORE INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW WHEN (NEW.name IS NOT NULL) EXECUTE FUNCTION backlog_cleanup.tell_limits();
COMMENT ON TRIGGER tell_limits ON backlog_cleanup.target IS 'all that is wrong in a row is one error';

DROP FUNCTION backlog_cleanup.check_target CASCADE;
CREATE FUNCTION backlog_cleanup.check_target() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stranger regclass;
    owner    regrole;
    -- This runs as the owner of the target's table.
    has_code boolean := EXISTS (
        SELECT FROM jsonb_each_text(to_jsonb(NEW)) AS is_now LEFT JOIN jsonb_each_text(to_jsonb(OLD)) AS was USING (key)
        WHERE is_now.value IS DISTINCT FROM was.value
          AND (key IN ('throttle_query', 'search_path', 'condition') OR key LIKE '%\_column' AND is_now.value LIKE '(%'));
BEGIN
    -- To name a table is to let runs read it, write to it and remove its rows as its owner.
    BEGIN
        SELECT c.oid::regclass, c.relowner::regrole INTO stranger, owner
        FROM jsonb_each_text(to_jsonb(NEW)) AS is_now
        LEFT JOIN jsonb_each_text(to_jsonb(OLD)) AS was USING (key)
        CROSS JOIN LATERAL (VALUES (is_now.value), (CASE WHEN key <> 'generations_table' THEN was.value END)) AS named (name)
        JOIN pg_class c ON c.oid = CASE WHEN key LIKE '%\_table' THEN to_regclass(named.name) END
        WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER)
          AND (is_now.value IS DISTINCT FROM was.value
               OR key = 'generations_table' AND has_code
               OR key = 'ledger_table'
                  AND (NEW.account, NEW.account_column) IS DISTINCT FROM (OLD.account, OLD.account_column))
          AND NOT pg_has_role(c.relowner, 'USAGE')
        ORDER BY c.oid;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE EXCEPTION '% (target "%")', SQLERRM, NEW.name
            USING ERRCODE = 'insufficient_privilege', HINT = 'a superuser or a role that may use the schema must do this';
    END;
    IF FOUND THEN
        RAISE EXCEPTION 'must be owner of table "%" to change how target "%" uses it', stranger, NEW.name
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('a superuser or a member of role %s must do this', owner);
    END IF;
    IF backlog_cleanup.restoring() THEN
        RETURN NULL;
    END IF;
    IF NEW.named_by::oid = 0 AND OLD.named_by::oid IS DISTINCT FROM 0 THEN
        RAISE EXCEPTION 'the role that target "%" is to be named by does not exist', NEW.name
            USING ERRCODE = 'undefined_object', HINT = 'SELECT rolname FROM pg_roles';
    END IF;
    PERFORM backlog_cleanup.check_written(NEW.name, CASE TG_OP WHEN 'INSERT' THEN '{}' ELSE to_jsonb(OLD)::text END);
    IF TG_OP = 'INSERT' THEN
        INSERT INTO backlog_cleanup.policy (target) VALUES (NEW.name);
    ELSE
        PERFORM backlog_cleanup.check_policies(NEW.name, to_jsonb(OLD)::text);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_target IS
    'checks a written target and the right to use its tables, and gives a new target the default policy';
CREATE TRIGGER check_target AFTER INSERT OR UPDATE ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_target();
COMMENT ON TRIGGER check_target ON backlog_cleanup.target IS
    'refuses a table, a column or a time zone that does not exist, and tables of other roles';

-- For the trigger: what a policy names, as rows of the target have it.
CREATE FUNCTION backlog_cleanup.written_names(target text, recipe_id text, failure_type text, status text) RETURNS text[]
    LANGUAGE c AS 'MODULE_PATHNAME', 'written_names_wrapper';
COMMENT ON FUNCTION backlog_cleanup.written_names IS
    'a part of check_policy: raises an error if no row can have what a policy names; returns recipe, failure type and status as rows have them';

-- Names the limit of a policy that no run could obey, before a CHECK does.
CREATE FUNCTION backlog_cleanup.check_limits(
    target text, recipe_id text, failure_type text, status text, max_age interval, keep integer, max_keep_age interval) RETURNS void
    LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong    text[];
    possible text;
    mistake  text;
    detail   text;
    hint     text;
BEGIN
    SELECT array_agg(concat_ws(' ', limit_name, checked.wrong) ORDER BY place),
           string_agg(format('%s => %L', limit_name, checked.possible), ', ' ORDER BY place) INTO wrong, possible
    FROM (VALUES
        (1, max_age < '0', 'max_age', format('"%s" is below 0', max_age), '0'),
        (2, max_age > '1000 years', 'max_age', format('"%s" is more than 1000 years', max_age),
         least(max_keep_age, '1000 years')::text),
        (3, keep < 0, 'keep', format('%s is below 0', keep), '0'),
        (4, max_keep_age > '1000 years', 'max_keep_age', format('"%s" is more than 1000 years', max_keep_age), '1000 years'),
        (5, max_keep_age < '0', 'max_keep_age', format('"%s" is below 0', max_keep_age), greatest(max_age, '0')::text)
    ) checked (place, is_wrong, limit_name, wrong, possible) WHERE is_wrong;
    -- Within those, no sum is beyond what a timestamp can be.
    IF wrong IS NULL AND max_keep_age < max_age
       AND timestamp '2000-07-01' + max_keep_age < timestamp '2000-07-01' + max_age THEN
        wrong := ARRAY[format('max_keep_age "%s" is below max_age "%s"', max_keep_age, max_age)];
        possible := format('max_keep_age => %L', max_age);
    END IF;
    IF wrong IS NULL THEN
        RETURN;
    END IF;
    BEGIN
        PERFORM backlog_cleanup.written_names(target, recipe_id, failure_type, status);
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS mistake = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
        wrong := wrong || string_to_array(coalesce(nullif(detail, ''), mistake), E'\n');
    END;
    hint := coalesce(hint, format('SELECT * FROM backlog_cleanup_simulate(%s%s, target => %L)',
                                  concat('recipe_id => ' || quote_literal(recipe_id) || ', ',
                                         'failure_type => ' || quote_literal(failure_type) || ', ',
                                         'status => ' || quote_literal(status) || ', '),
                                  possible, target));
    IF cardinality(wrong) = 1 THEN
        RAISE EXCEPTION 'policy of target "%": %', target, wrong[1]
            USING ERRCODE = 'invalid_parameter_value', COLUMN = split_part(wrong[1], ' ', 1), HINT = hint;
    END IF;
    RAISE EXCEPTION 'policy of target "%" has % mistakes', target, cardinality(wrong)
        USING ERRCODE = 'invalid_parameter_value', DETAIL = array_to_string(wrong, E'\n'), HINT = hint;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_limits IS
    'a part of check_policy: raises an error of all mistakes of a policy if none can have its limits';

-- For the trigger: somebody may have mistaken a name.
CREATE FUNCTION backlog_cleanup.tell_unmatched(target text, recipe_id text, failure_type text, status text) RETURNS void
    LANGUAGE c AS 'MODULE_PATHNAME', 'tell_unmatched_wrapper';
COMMENT ON FUNCTION backlog_cleanup.tell_unmatched IS
    'a part of check_policy: warns if the target has no row in scope now that has what a policy names';

-- Refuses what no run could obey. A restored policy is kept, since a dump must not lose it.
CREATE FUNCTION backlog_cleanup.check_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[];
BEGIN
    IF backlog_cleanup.restoring()
       -- A target that gets another name takes its policies along, by a foreign key: that acts as the extension's owner, who may see what an admin
       -- may not.
       OR NEW.target <> OLD.target AND pg_trigger_depth() > 1
          AND EXISTS (SELECT FROM pg_class c JOIN pg_roles r ON r.oid = relowner WHERE c.oid = TG_RELID AND rolname = CURRENT_USER) THEN
        RETURN NEW;
    END IF;
    PERFORM backlog_cleanup.check_limits(NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status, NEW.max_age, NEW.keep, NEW.max_keep_age);
    IF coalesce(NEW.recipe_id, NEW.failure_type, NEW.status) IS NULL
       OR TG_OP = 'UPDATE' AND (NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status)
                               IS NOT DISTINCT FROM (OLD.target, OLD.recipe_id, OLD.failure_type, OLD.status) THEN
        RETURN NEW;
    END IF;
    names := backlog_cleanup.written_names(NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status);
    NEW.recipe_id := names[1];
    NEW.failure_type := names[2];
    NEW.status := names[3];
    PERFORM backlog_cleanup.tell_unmatched(NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_policy IS
    'refuses a policy for what no row can have, and limits that none can have; warns of what no row has now';
CREATE TRIGGER check_policy BEFORE INSERT OR UPDATE ON backlog_cleanup.policy
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_policy();
COMMENT ON TRIGGER check_policy ON backlog_cleanup.policy IS 'a policy is obeyed, or refused when it is written';

-- For the trigger. Policy and hold are their recipe, failure type, and status.
CREATE FUNCTION backlog_cleanup.lifted(group_word text, policy text[], hold text[]) RETURNS text STRICT
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifted_wrapper';
COMMENT ON FUNCTION backlog_cleanup.lifted IS
    'a part of tell_of_holds: says that a policy takes rows out of a hold, if it does';

-- Whoever writes a policy is told what it does to a hold, and whoever writes a hold, what it does not keep.
CREATE FUNCTION backlog_cleanup.tell_of_holds() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    written CONSTANT text[] := ARRAY[NEW.recipe_id, NEW.failure_type, NEW.status];
    lifted  text;
    at_work bigint;
BEGIN
    IF backlog_cleanup.restoring()
       OR TG_OP = 'UPDATE' AND (NEW.recipe_id, NEW.failure_type, NEW.status, NEW.enabled)
                               IS NOT DISTINCT FROM (OLD.recipe_id, OLD.failure_type, OLD.status, OLD.enabled)
          AND (NEW.target = OLD.target OR NOT EXISTS (SELECT FROM backlog_cleanup.target WHERE name = OLD.target)) THEN
        RETURN NULL;
    END IF;
    SELECT said INTO lifted
    FROM backlog_cleanup.policy AS other JOIN backlog_cleanup.target ON target.name = other.target
         CROSS JOIN LATERAL (SELECT ARRAY[other.recipe_id, other.failure_type, other.status] AS names) AS named
         CROSS JOIN LATERAL (SELECT CASE WHEN NEW.enabled THEN backlog_cleanup.lifted(group_word, written, names)
                                         ELSE backlog_cleanup.lifted(group_word, names, written) END AS said) AS told
    WHERE other.target = NEW.target AND other.enabled <> NEW.enabled AND said IS NOT NULL
    LIMIT 1;
    IF lifted IS NOT NULL THEN
        RAISE WARNING '%', lifted
            USING HINT = format('SELECT detail FROM backlog_cleanup_doctor(%L) WHERE check_name = ''policy''', NEW.target);
    END IF;
    IF NOT NEW.enabled THEN
        SELECT run_id INTO at_work FROM backlog_cleanup.progress WHERE target = NEW.target AND state = 'running' LIMIT 1;
        IF FOUND THEN
            RAISE WARNING 'run % of target "%" is at work, and keeps the policies that it has begun with', at_work, NEW.target
                USING HINT = format('SELECT backlog_cleanup_stop(%s)', at_work);
        END IF;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.tell_of_holds IS 'warns of a policy that takes rows out of a hold, and of a run that does not obey a new one';
CREATE TRIGGER tell_of_holds AFTER INSERT OR UPDATE ON backlog_cleanup.policy
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.tell_of_holds();
COMMENT ON TRIGGER tell_of_holds ON backlog_cleanup.policy IS 'held rows do not go without a word';
CREATE FUNCTION backlog_cleanup_set_policy(
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    status       text DEFAULT NULL,
    max_age      interval DEFAULT NULL,
    keep         integer DEFAULT NULL,
    enabled      boolean DEFAULT NULL,
    note         text DEFAULT NULL,
    target       text DEFAULT 'generations',
    max_keep_age interval DEFAULT NULL,
    no_max_keep_age boolean DEFAULT false)
RETURNS backlog_cleanup.policy LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    names   text[];
    written backlog_cleanup.policy;
BEGIN
    BEGIN
        names := backlog_cleanup.written_names($8, $1, $2, $3);
    EXCEPTION WHEN invalid_text_representation OR invalid_parameter_value OR datatype_mismatch THEN
        -- Tells of these as well.
        PERFORM backlog_cleanup.check_limits($8, $1, $2, $3, $4, $5, $9);
        RAISE;
    END;
    IF $10 AND $9 IS NOT NULL THEN
        RAISE EXCEPTION 'a policy with no_max_keep_age has no max_keep_age' USING ERRCODE = 'invalid_parameter_value',
            HINT = format('SELECT * FROM backlog_cleanup_simulate(max_keep_age => %L, target => %L)', $9, $8);
    END IF;
    -- A new one has the defaults of the table, but a hold is one from its start.
    INSERT INTO backlog_cleanup.policy (target, recipe_id, failure_type, status, enabled)
    VALUES ($8, names[1], names[2], names[3], coalesce($6, true)) ON CONFLICT DO NOTHING;
    UPDATE backlog_cleanup.policy
    SET max_age = coalesce($4, max_age), keep = coalesce($5, keep), enabled = coalesce($6, enabled), note = nullif(coalesce($7, note), ''),
        max_keep_age = CASE WHEN $10 THEN NULL ELSE coalesce($9, max_keep_age) END
    WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ($8, names[1], names[2], names[3])
    RETURNING * INTO written;
    RETURN written;
END
$$;
COMMENT ON FUNCTION backlog_cleanup_set_policy IS
    'writes the policy for a recipe, a failure type, a status, or any row; what is NULL stays as it is, or has its default; an empty note is none; returns the policy';

CREATE FUNCTION backlog_cleanup_drop_policy(
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    status       text DEFAULT NULL,
    target       text DEFAULT 'generations')
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    names text[];
BEGIN
    IF coalesce($1, $2, $3) IS NULL THEN
        PERFORM backlog_cleanup.written_names($4, NULL, NULL, NULL);
        RAISE EXCEPTION 'the default policy of target "%" cannot be dropped', $4
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = format('SELECT backlog_cleanup_set_policy(enabled => false, target => %L)', $4);
    END IF;
    -- As it was written, or as rows have it.
    DELETE FROM backlog_cleanup.policy
    WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ($4, $1, $2, $3);
    IF FOUND THEN
        RETURN true;
    END IF;
    names := backlog_cleanup.written_names($4, $1, $2, $3);
    DELETE FROM backlog_cleanup.policy
    WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ($4, names[1], names[2], names[3]);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION backlog_cleanup_drop_policy IS
    'removes the policy for a recipe, a failure type, a status; its rows have the next one then; returns false if there was none';

CREATE FUNCTION backlog_cleanup_simulate(
    recipe_id    text DEFAULT NULL,
    failure_type text DEFAULT NULL,
    status       text DEFAULT NULL,
    max_age      interval DEFAULT NULL,
    keep         integer DEFAULT NULL,
    enabled      boolean DEFAULT NULL,
    note         text DEFAULT NULL,
    target       text DEFAULT 'generations',
    max_keep_age interval DEFAULT NULL,
    no_max_keep_age boolean DEFAULT false)
RETURNS TABLE (policy text, recipe text, recipe_name text, removable_now bigint, kept_now bigint, removable_then bigint,
               kept_then bigint)
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'backlog_cleanup_simulate_wrapper';
COMMENT ON FUNCTION backlog_cleanup_simulate IS
    'what a regular run would remove and keep now, and what it would under a changed policy, per policy and recipe';
CREATE FUNCTION backlog_cleanup_explain(id text, target text DEFAULT 'generations')
RETURNS TABLE (verdict text, reason text, policy text, rank bigint, keep integer, expires_at timestamptz, removable_at timestamptz)
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'backlog_cleanup_explain_wrapper';
COMMENT ON FUNCTION backlog_cleanup_explain IS
    'why a row stays or goes: its policy, its rank, when it expires, when it can go';

DO $policies$
DECLARE
    names text[];
BEGIN
    SELECT pg_catalog.array_agg(
               pg_catalog.concat_ws(' ', pg_catalog.quote_ident(target),
                                    'recipe_id ' OPERATOR(pg_catalog.||) pg_catalog.quote_literal(recipe_id),
                                    'failure_type ' OPERATOR(pg_catalog.||) pg_catalog.quote_literal(failure_type))
               ORDER BY target, recipe_id, failure_type)
    INTO names FROM backlog_cleanup.policy WHERE recipe_id IS NOT NULL OR failure_type IS NOT NULL;
    IF names IS NOT NULL THEN
        RAISE WARNING 'runs obey % policies from now on that they have ignored: %',
            pg_catalog.cardinality(names),
            pg_catalog.concat(pg_catalog.array_to_string(names[1:100], ', '),
                              CASE WHEN pg_catalog.cardinality(names) OPERATOR(pg_catalog.>) 100 THEN ' and others' END)
            USING HINT = 'SELECT * FROM backlog_cleanup.policy WHERE recipe_id IS NOT NULL OR failure_type IS NOT NULL';
    END IF;
END
$policies$;

-- The rows that CREATE EXTENSION has made. One that somebody has changed is at another place; VACUUM FULL puts all of them elsewhere, in another
-- file. What cannot be found any more stays.
CREATE TABLE backlog_cleanup.as_created (
    relation oid NOT NULL,
    file     oid NOT NULL,
    place    tid NOT NULL,
    made     xid NOT NULL,
    command  cid NOT NULL,
    PRIMARY KEY (relation, place)
);
COMMENT ON TABLE backlog_cleanup.as_created IS
    'the rows of targets, policies and rules that CREATE EXTENSION has made: a dump that is restored replaces those that nobody has changed';
COMMENT ON COLUMN backlog_cleanup.as_created.relation IS 'the table';
COMMENT ON COLUMN backlog_cleanup.as_created.file IS 'the table''s file node then';
COMMENT ON COLUMN backlog_cleanup.as_created.place IS 'the row''s ctid';
COMMENT ON COLUMN backlog_cleanup.as_created.made IS 'the row''s xmin';
COMMENT ON COLUMN backlog_cleanup.as_created.command IS 'the row''s cmin';
CREATE FUNCTION backlog_cleanup.is_as_created(relation oid, place tid, made xid, command cid) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM backlog_cleanup.as_created
                   WHERE relation = $1 AND place = $2 AND made = $3 AND command = $4 AND file = pg_relation_filenode($1))
$$;
COMMENT ON FUNCTION backlog_cleanup.is_as_created IS
    'whether a row, of which these are the system columns, is one that CREATE EXTENSION has made and nobody has changed';

DROP FUNCTION backlog_cleanup.give_way_to_dump CASCADE;
CREATE FUNCTION backlog_cleanup.give_way_to_dump() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns text;
BEGIN
    IF NOT backlog_cleanup.restoring() THEN
        RETURN NEW;
    END IF;
    -- Not an advisory lock, which anybody can hold.
    LOCK TABLE backlog_cleanup.target IN SHARE ROW EXCLUSIVE MODE;
    -- The policies that CREATE EXTENSION has made, and not those that the dump has brought.
    DELETE FROM backlog_cleanup.policy p WHERE p.target = NEW.name AND backlog_cleanup.is_as_created(p.tableoid, p.ctid, p.xmin, p.cmin);
    -- The target that CREATE EXTENSION has made, which the dump need not have, unless it is in use.
    DELETE FROM backlog_cleanup.target t
    WHERE t.name <> NEW.name AND backlog_cleanup.is_as_created(t.tableoid, t.ctid, t.xmin, t.cmin)
      AND NOT EXISTS (SELECT FROM backlog_cleanup.policy p WHERE p.target = t.name AND NOT backlog_cleanup.is_as_created(p.tableoid, p.ctid, p.xmin, p.cmin))
      AND NOT EXISTS (SELECT FROM backlog_cleanup.run r WHERE r.target = t.name AND r.started_at >= t.named_at)
      -- What the dump has brought of it before.
      AND NOT EXISTS (SELECT FROM backlog_cleanup.alert_rule r WHERE r.target = t.name)
      AND NOT EXISTS (SELECT FROM backlog_cleanup.sample s WHERE s.target = t.name)
      AND NOT EXISTS (SELECT FROM backlog_cleanup.auto_schedule a WHERE a.target = t.name);
    PERFORM FROM backlog_cleanup.target WHERE name = NEW.name;
    IF FOUND THEN
        SELECT string_agg(quote_ident(attname), ', ') INTO columns
        FROM pg_attribute
        WHERE attrelid = 'backlog_cleanup.target'::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format('UPDATE backlog_cleanup.target SET (%1$s) = (SELECT %1$s FROM (SELECT ($1).*) dumped) WHERE name = ($1).name',
                       columns) USING NEW;
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dump IS
    'replaces an existing target by the one of a dump that is being restored';
CREATE TRIGGER give_way_to_dump BEFORE INSERT ON backlog_cleanup.target
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dump();
COMMENT ON TRIGGER give_way_to_dump ON backlog_cleanup.target IS 'a restored target replaces the one of the same name';

DROP FUNCTION backlog_cleanup.give_way_to_dumped_policy CASCADE;
-- A parallel restore may bring what is of a target before the target, or both at the same time.
CREATE FUNCTION backlog_cleanup.await_dumped_target(awaited text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Not an advisory lock, which anybody can hold.
    LOCK TABLE backlog_cleanup.target IN SHARE ROW EXCLUSIVE MODE;
    -- Until the dump has brought it, or if that fails, it is of no table.
    INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table)
    SELECT awaited, 'not_restored', NULL, NULL, NULL
    WHERE awaited IS NOT NULL AND NOT EXISTS (SELECT FROM backlog_cleanup.target WHERE name = awaited);
END
$$;
COMMENT ON FUNCTION backlog_cleanup.await_dumped_target IS
    'makes a target that a dump that is being restored brings later; no other restore changes targets until the transaction ends';

CREATE FUNCTION backlog_cleanup.give_way_to_dumped_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT backlog_cleanup.restoring() THEN
        RETURN NEW;
    END IF;
    PERFORM backlog_cleanup.await_dumped_target(NEW.target);
    DELETE FROM backlog_cleanup.policy
    WHERE (target, recipe_id, failure_type, status)
          IS NOT DISTINCT FROM (NEW.target, NEW.recipe_id, NEW.failure_type, NEW.status);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dumped_policy IS
    'makes way for the policies of a dump that is being restored';
CREATE TRIGGER give_way_to_dumped_policy BEFORE INSERT ON backlog_cleanup.policy
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dumped_policy();
COMMENT ON TRIGGER give_way_to_dumped_policy ON backlog_cleanup.policy IS 'a restored policy replaces the one of its kind';

COMMENT ON FUNCTION backlog_cleanup_check IS
    'raises an error if a target names a table, a column or a time zone that cannot be used';

COMMENT ON COLUMN backlog_cleanup.target.name IS 'the target''s name in functions and policies';
COMMENT ON COLUMN backlog_cleanup.target.ledger_table IS
    'the table that gets a row of type backlog_cleanup per run or batch, or NULL';
COMMENT ON COLUMN backlog_cleanup.target.account_column IS
    'the account that the row belongs to; NULL, with account, if every row of the table is the target''s';
COMMENT ON COLUMN backlog_cleanup.target.account IS 'only rows of this account are ever removed; NULL is every row of the table';
COMMENT ON COLUMN backlog_cleanup.target.recipe_column IS
    'the recipe: the group whose newest rows are kept, a column or an expression in parentheses; NULL if there is none: one group';
COMMENT ON COLUMN backlog_cleanup.target.status_column IS
    'the status, a column or an expression in parentheses; NULL if there is none: then a row is in scope once its failed_at_column is not NULL';
COMMENT ON COLUMN backlog_cleanup.target.failed_at_column IS
    'when the row reached its status, a column or an expression in parentheses: timestamp, timestamptz or date';
COMMENT ON COLUMN backlog_cleanup.target.failure_type_column IS
    'the failure type, a column or an expression in parentheses; NULL if there is none';
COMMENT ON COLUMN backlog_cleanup.target.statuses IS
    'only rows in one of these statuses are ever removed; unused without a status_column';
COMMENT ON COLUMN backlog_cleanup.target.completed_status IS 'the statuses that reports count as completed; NULL counts nothing';
COMMENT ON COLUMN backlog_cleanup.target.pending_status IS 'the statuses that reports count as pending; NULL counts nothing';
COMMENT ON COLUMN backlog_cleanup.target.processing_status IS 'the statuses that reports count as processing; NULL counts nothing';
COMMENT ON COLUMN backlog_cleanup.target.time_zone IS 'the time zone in which a timestamp without time zone is read';
COMMENT ON COLUMN backlog_cleanup.target.search_path IS
    'the search path of triggers that fire for a removal; NULL is pg_catalog, the table''s own schema, pg_temp';
COMMENT ON COLUMN backlog_cleanup.target.batch_size IS 'rows per batch of a batched run, at most';
COMMENT ON COLUMN backlog_cleanup.run.pause IS 'how long it sleeps between batches; NULL if that depends on others';
COMMENT ON COLUMN backlog_cleanup.target.pause IS
    'how long a batched run sleeps between batches; NULL: it works little and rests much while others write, and does not sleep while nobody does';
COMMENT ON COLUMN backlog_cleanup.target.max_rows_per_second IS 'a batched run removes no more rows per second than this, over a second or two; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.workers IS 'background workers of a batched run; 1 is the session itself';
COMMENT ON COLUMN backlog_cleanup.target.max_duration IS 'a batched run stops after this time; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.max_rows IS 'a batched run stops after so many removed rows; NULL is off';
COMMENT ON COLUMN backlog_cleanup.run.max_rows_per_second IS 'how many rows it removes per second at most, or NULL';
COMMENT ON COLUMN backlog_cleanup.target.lock_timeout IS 'how long a run waits for a lock; 0 is without limit';
COMMENT ON COLUMN backlog_cleanup.target.max_share IS
    'refuses a regular run that would remove more than this percentage of the rows in scope; 100 is off';
COMMENT ON COLUMN backlog_cleanup.target.max_rows_per_run IS
    'refuses a regular run that would remove more rows than this; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.max_replica_lag IS
    'a batched run waits while a streaming standby replays later than this; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.max_transaction_age IS
    'a batched run waits while a transaction with a snapshot is older than this: vacuum could not reclaim the removed rows; NULL is off';
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
COMMENT ON TABLE backlog_cleanup.policy IS
    'which rows in scope go; a row has the policy that names its recipe, or else its failure type, or else its status; the one that names nothing is the default policy';
COMMENT ON COLUMN backlog_cleanup.run.requested_by IS 'the role that started it';
COMMENT ON COLUMN backlog_cleanup.run.cutoff IS 'failed rows before this were expired; NULL in an emergency run';
COMMENT ON COLUMN backlog_cleanup.run.total_failed IS
    'rows in scope before the run; of a selective emergency run, only those that were selected';
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
COMMENT ON COLUMN backlog_cleanup.run.stop_requested_by IS 'the role that asked it to stop, or NULL';
COMMENT ON COLUMN backlog_cleanup.run.state IS
    'running, completed, stopped (by max_duration or max_rows), interrupted (by a crash or a cancel), or failed (by an error)';
COMMENT ON COLUMN backlog_cleanup.run.batch_size IS
    'rows per batch at most; NULL for a run in one transaction, as are pause, max_rows_per_second, max_duration, max_rows and workers';
COMMENT ON COLUMN backlog_cleanup.run.finished_at IS
    'when it finished; for an interrupted run, when its last batch did; NULL while it is running';
COMMENT ON TABLE backlog_cleanup.run_cutoff IS
    'running runs: per recipe, policy and status, the oldest expired row that stays; older ones are removed';
COMMENT ON COLUMN backlog_cleanup.run_cutoff.failed_at IS
    'failed-at of that row, as the column has it (timestamptz in UTC); NULL if no row of the recipe goes';
ALTER TABLE backlog_cleanup.run_part ADD COLUMN columns smallint[];
COMMENT ON COLUMN backlog_cleanup.run_part.columns IS 'the numbers that the target''s columns had in the table';
COMMENT ON TABLE backlog_cleanup.run_part IS
    'running runs: what is left to do; a part is a range of blocks, a list of positions, or the recipes of a leaf table';
COMMENT ON COLUMN backlog_cleanup.run_part.filenode IS
    'its filenode: if it has changed, the table was rewritten and positions mean other rows; NULL if it has none';
COMMENT ON COLUMN backlog_cleanup.run_part.steps_done IS 'how many of them are done';
COMMENT ON COLUMN backlog_cleanup.run_part.next_offset IS 'rows of the next block up to this offset are done';
COMMENT ON COLUMN backlog_cleanup.run_part.attempts IS
    'how many times in a row a batch was rolled back, by a deadlock or the like';
COMMENT ON COLUMN backlog_cleanup.run_part.lsn IS
    'the WAL position when the positions were read; on a page that is older they still mean the same rows; NULL if they mean nothing any more';
COMMENT ON COLUMN backlog_cleanup.run_part.pass IS
    'counts the passes, from 1: rows that one has kept back are tried again in the next';
COMMENT ON COLUMN backlog_cleanup.run_part.part IS
    'counts the parts of the run, from 1; negative in every second pass, whose last part comes first';
COMMENT ON COLUMN backlog_cleanup.run_part.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.run_part.kept_back IS 'rows that an earlier pass has kept back and that this part has still to try again';
ALTER TABLE backlog_cleanup.run_part ADD COLUMN given_up bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN backlog_cleanup.run_part.given_up IS 'of kept_back, the rows that the run gave up on in the pass before';
ALTER TABLE backlog_cleanup.run_part ADD COLUMN in_circles boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN backlog_cleanup.run_part.in_circles IS 'whether its rows reference each other in circles, and go in one statement';
ALTER TABLE backlog_cleanup.run_part ADD COLUMN leaves oid[];
COMMENT ON COLUMN backlog_cleanup.run_part.leaves IS 'the table of each position, if a circle has rows of several; then leaf is the target''s';
ALTER TABLE backlog_cleanup.run_part ADD COLUMN first_recipe bigint;
COMMENT ON COLUMN backlog_cleanup.run_part.first_recipe IS
    'where a range of recipes starts, for a table whose rows have no positions; then next_offset rows of the next recipe have stayed';
COMMENT ON FUNCTION backlog_cleanup.forget_run IS 'removes the rows of a run that is deleted from the history';
COMMENT ON FUNCTION backlog_cleanup.finish_run IS
    'a part of backlog_cleanup_run: sums up the batches and releases the target; returns the report';
COMMENT ON VIEW backlog_cleanup.progress IS 'batched runs that are running or were interrupted';
COMMENT ON COLUMN backlog_cleanup.progress.state IS
    'running; interrupted if its process has ended (not detectable on a standby)';
COMMENT ON COLUMN backlog_cleanup.progress.skipped IS 'rows skipped so far because other sessions had locked them';
COMMENT ON COLUMN backlog_cleanup.progress.kept_back IS
    'rows so far that stayed because of what their deletion met';
COMMENT ON COLUMN backlog_cleanup.progress.share_done IS 'share of the work that is done, from 0 to 1';
COMMENT ON COLUMN backlog_cleanup.progress.time_left IS 'estimated at this rate; NULL before the first batch';
COMMENT ON FUNCTION backlog_cleanup.duration_bound IS
    'the lowest bound, in seconds, of the histogram of durations that is at least this duration';
COMMENT ON TABLE backlog_cleanup.forgotten IS 'sums of the runs that have been deleted from the history';
COMMENT ON COLUMN backlog_cleanup.forgotten.seconds_up_to IS
    'the bound of their durations; each is above the next lower bound';
COMMENT ON COLUMN backlog_cleanup.forgotten.runs IS 'number of runs';
COMMENT ON COLUMN backlog_cleanup.forgotten.seconds IS 'sum of their durations';
COMMENT ON FUNCTION backlog_cleanup_failed_generations IS
    'removes the expired failed rows of each recipe but the newest; returns a report';
COMMENT ON FUNCTION backlog_cleanup_schedule IS
    'registers the nightly pg_cron job, or changes the existing one; returns its id';
COMMENT ON FUNCTION backlog_cleanup_unschedule IS 'removes the pg_cron job of that name; returns false if there is none';
COMMENT ON FUNCTION backlog_cleanup_doctor IS
    'checks a target and its surroundings, one row per check or problem, with the statement that fixes it';
COMMENT ON FUNCTION backlog_cleanup_stop IS 'stops a batched run: its batch ends early; returns false if it has ended';
DROP FUNCTION backlog_cleanup_failures;
CREATE FUNCTION backlog_cleanup_failures(target text DEFAULT 'generations', since interval DEFAULT '2 days', types integer DEFAULT 8)
RETURNS TABLE (hour timestamptz, failure_type text, failed_count bigint, removed_count bigint)
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'failures_by_hour_wrapper';
COMMENT ON FUNCTION backlog_cleanup_failures IS
    'the failed rows by hour and failure type, oldest hour first: those that are there, and those that runs have removed';
COMMENT ON FUNCTION backlog_cleanup_books IS
    'compares the removed-row counts in ledger and history, of all targets that share the ledger; no row without a ledger';
COMMENT ON FUNCTION backlog_cleanup_revoke IS 'revokes all levels from a role';
COMMENT ON FUNCTION backlog_cleanup.restoring IS
    'whether a superuser restores a dump, which sets both xmloption and check_function_bodies';
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dumped_policy IS
    'replaces an existing policy by the one of a dump that is being restored';
COMMENT ON TRIGGER give_way_to_dumped_policy ON backlog_cleanup.policy IS
    'a restored policy replaces the one for the same recipe, failure type and status';
COMMENT ON FUNCTION backlog_cleanup.interrupt_restored IS
    'marks a restored run as interrupted if it was running when the dump was taken';

CREATE FUNCTION backlog_cleanup_fingerprint(message text) RETURNS text
    IMMUTABLE STRICT PARALLEL SAFE LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_fingerprint_wrapper';
COMMENT ON FUNCTION backlog_cleanup_fingerprint IS
    'the first line of a message without what differs from one failure to the next: numbers, ids, times, addresses, paths, quoted strings';
CREATE FUNCTION backlog_cleanup_has_value(expression text, VARIADIC columns "any") RETURNS boolean
    STABLE PARALLEL UNSAFE COST 1000 LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_has_value_wrapper';
COMMENT ON FUNCTION backlog_cleanup_has_value IS
    'whether an expression, which calls the row g, does not fail for a row of these columns';
-- The targets that are there keep their failure types.
ALTER TABLE backlog_cleanup.target ADD COLUMN fingerprint boolean NOT NULL DEFAULT false;
ALTER TABLE backlog_cleanup.target ALTER COLUMN fingerprint SET DEFAULT true;
COMMENT ON COLUMN backlog_cleanup.target.fingerprint IS
    'true: the failure type of a text is its fingerprint, see backlog_cleanup_fingerprint(); false: it is the first line';
-- The targets that are there keep the words that they had.
ALTER TABLE backlog_cleanup.target
    ADD COLUMN group_word text NOT NULL DEFAULT 'recipe'
        CONSTRAINT group_word_is_words
        CHECK (pg_catalog.char_length(group_word) OPERATOR(pg_catalog.<=) 40
               AND group_word OPERATOR(pg_catalog.~) '^[^[:space:][:cntrl:]]+( [^[:space:][:cntrl:]]+)*$'),
    ADD COLUMN row_word text NOT NULL DEFAULT 'generation'
        CONSTRAINT row_word_is_words
        CHECK (pg_catalog.char_length(row_word) OPERATOR(pg_catalog.<=) 40
               AND row_word OPERATOR(pg_catalog.~) '^[^[:space:][:cntrl:]]+( [^[:space:][:cntrl:]]+)*$');
ALTER TABLE backlog_cleanup.target ALTER COLUMN group_word SET DEFAULT 'group', ALTER COLUMN row_word SET DEFAULT 'row';
COMMENT ON COLUMN backlog_cleanup.target.group_word IS
    'what people call a recipe of this target, in the singular: messages and screens say it';
COMMENT ON COLUMN backlog_cleanup.target.row_word IS 'what people call a row of this target, in the singular';

ALTER TABLE backlog_cleanup.target
    ADD COLUMN adaptive            boolean NOT NULL DEFAULT false,
    ADD COLUMN adaptive_min_rows   bigint NOT NULL DEFAULT 100000
        CONSTRAINT adaptive_min_rows_is_positive CHECK (adaptive_min_rows OPERATOR(pg_catalog.>) 0),
    ADD COLUMN adaptive_rate_factor double precision DEFAULT 5
        CONSTRAINT adaptive_rate_factor_is_above_1
        CHECK (adaptive_rate_factor OPERATOR(pg_catalog.>) 1::double precision
               AND adaptive_rate_factor OPERATOR(pg_catalog.<=) 1000000::double precision),
    ADD COLUMN adaptive_min_interval interval NOT NULL DEFAULT '1 hour'
        CONSTRAINT adaptive_min_interval_is_from_0_to_1000_years
        CHECK (adaptive_min_interval OPERATOR(pg_catalog.>=) interval '0'
               AND adaptive_min_interval OPERATOR(pg_catalog.<=) interval '1000 years'),
    ADD COLUMN run_between time[]
        CONSTRAINT run_between_is_from_one_time_to_another
        CHECK (pg_catalog.cardinality(run_between) OPERATOR(pg_catalog.=) 2
               AND pg_catalog.array_ndims(run_between) OPERATOR(pg_catalog.=) 1
               AND pg_catalog.num_nulls(VARIADIC run_between) OPERATOR(pg_catalog.=) 0
               AND pg_catalog.array_lower(run_between, 1) OPERATOR(pg_catalog.=) 1
               AND run_between[1] OPERATOR(pg_catalog.<>) run_between[2]),
    ADD COLUMN named_at timestamptz NOT NULL DEFAULT pg_catalog.now();
COMMENT ON COLUMN backlog_cleanup.target.adaptive IS
    'whether the tick starts a batched regular run early, as the next three columns say';
COMMENT ON COLUMN backlog_cleanup.target.adaptive_min_rows IS 'it does so when so many rows are removable';
COMMENT ON COLUMN backlog_cleanup.target.adaptive_rate_factor IS
    'or when rows come into scope so many times as fast as usual at this hour of the day; NULL is off';
COMMENT ON COLUMN backlog_cleanup.target.adaptive_min_interval IS 'how long after the start of the last run at the earliest';
COMMENT ON COLUMN backlog_cleanup.target.run_between IS
    'from when to when a regular run in batches works, two times of the day by the clock of time_zone; outside of it the run waits; NULL is always';
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

-- Runs compress the full-page images that they write, and tell how much WAL they have written.
ALTER TABLE backlog_cleanup.target
    ADD COLUMN wal_compression text NOT NULL DEFAULT 'auto'
        CONSTRAINT wal_compression_is_auto_off_lz4_or_zstd
        CHECK (wal_compression OPERATOR(pg_catalog.=) ANY (ARRAY['auto', 'off', 'lz4', 'zstd']));
COMMENT ON COLUMN backlog_cleanup.target.wal_compression IS
    'how runs compress the full-page images that they write: lz4, zstd, off; auto is lz4 where the server has it and its own wal_compression is off, and else what the server does';
COMMENT ON COLUMN backlog_cleanup.run.wal_bytes IS
    'the WAL that it has written, in bytes; NULL for a run of an earlier version';
COMMENT ON COLUMN backlog_cleanup.run.full_page_images IS 'the full-page images in it';
ALTER TABLE backlog_cleanup.forgotten ADD COLUMN wal_bytes bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN backlog_cleanup.forgotten.wal_bytes IS 'the WAL that they have written, in bytes, as far as it is known';
DROP FUNCTION backlog_cleanup.remember_run CASCADE;
CREATE FUNCTION backlog_cleanup.remember_run() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    took double precision := EXTRACT(epoch FROM coalesce(OLD.finished_at, OLD.started_at) - OLD.started_at)::double precision;
BEGIN
    INSERT INTO backlog_cleanup.forgotten AS f (target, mode, state, seconds_up_to, runs, removed, seconds, wal_bytes)
    VALUES (OLD.target, OLD.mode, CASE OLD.state WHEN 'running' THEN 'interrupted' ELSE OLD.state END,
            backlog_cleanup.duration_bound(took), 1, OLD.removed, took, coalesce(OLD.wal_bytes, 0))
    ON CONFLICT (target, mode, state, seconds_up_to) DO UPDATE
        SET runs = f.runs + excluded.runs, removed = f.removed + excluded.removed, seconds = f.seconds + excluded.seconds,
            wal_bytes = f.wal_bytes + excluded.wal_bytes;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.remember_run IS 'keeps a run that is deleted from the history in the sums';
CREATE TRIGGER remember_run AFTER DELETE ON backlog_cleanup.run
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.remember_run();
COMMENT ON TRIGGER remember_run ON backlog_cleanup.run IS 'the sums of all runs never fall';

DROP VIEW backlog_cleanup.total;
CREATE VIEW backlog_cleanup.total AS
    SELECT target, mode, state, seconds_up_to,
           pg_catalog.sum(runs)::bigint AS runs, pg_catalog.sum(removed)::bigint AS removed, pg_catalog.sum(seconds) AS seconds,
           pg_catalog.sum(wal_bytes)::bigint AS wal_bytes
    FROM (SELECT r.target, r.mode, r.state, backlog_cleanup.duration_bound(took.seconds), 1, r.removed, took.seconds,
                 COALESCE(r.wal_bytes, 0::bigint)
          FROM backlog_cleanup.run r,
               LATERAL (SELECT EXTRACT(epoch FROM r.finished_at OPERATOR(pg_catalog.-) r.started_at)::double precision
                        AS seconds) took
          UNION ALL
          SELECT target, mode, state, seconds_up_to, runs, removed, seconds, wal_bytes FROM backlog_cleanup.forgotten)
         ran (target, mode, state, seconds_up_to, runs, removed, seconds, wal_bytes)
    GROUP BY target, mode, state, seconds_up_to;
COMMENT ON VIEW backlog_cleanup.total IS 'sums of all runs, including those deleted from the history; they never fall';
COMMENT ON COLUMN backlog_cleanup.total.target IS 'the target''s name at that time';
COMMENT ON COLUMN backlog_cleanup.total.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.total.state IS 'how they ended, or running';
COMMENT ON COLUMN backlog_cleanup.total.seconds_up_to IS
    'the bound of their durations; each is above the next lower bound; NULL while running';
COMMENT ON COLUMN backlog_cleanup.total.runs IS 'number of runs';
COMMENT ON COLUMN backlog_cleanup.total.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.total.seconds IS 'sum of their durations; NULL while running';
COMMENT ON COLUMN backlog_cleanup.total.wal_bytes IS 'the WAL that they have written, in bytes, as far as it is known';

-- What the tick writes: itself, samples, decisions; and how long everything that grows is kept.
CREATE TABLE backlog_cleanup.tick (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at   timestamptz NOT NULL,
    milliseconds double precision NOT NULL,
    steps        jsonb NOT NULL
);
COMMENT ON TABLE backlog_cleanup.tick IS 'one row per tick, with what each of its steps took';
COMMENT ON COLUMN backlog_cleanup.tick.id IS 'counts the ticks';
COMMENT ON COLUMN backlog_cleanup.tick.started_at IS 'start of its transaction';
COMMENT ON COLUMN backlog_cleanup.tick.milliseconds IS 'how long all steps took, in milliseconds';
COMMENT ON COLUMN backlog_cleanup.tick.steps IS
    'an array of {step, target, milliseconds, skipped, error}: skipped says why a step did nothing or not all, error why it failed';

CREATE TABLE backlog_cleanup.sample (
    target          text NOT NULL REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    grain           text NOT NULL CHECK (grain OPERATOR(pg_catalog.=) ANY (ARRAY['fine', 'hour', 'day'])),
    sampled_at      timestamptz NOT NULL,
    in_scope        bigint,
    statuses        jsonb,
    removable       bigint,
    oldest_at       timestamptz,
    failed          bigint,
    failed_seconds  double precision,
    recipes         jsonb,
    failure_types   jsonb,
    not_counted     text,
    milliseconds    double precision NOT NULL,
    table_bytes     bigint,
    index_bytes     bigint,
    live_rows       bigint,
    dead_rows       bigint,
    seconds         double precision,
    inserted        bigint,
    updated         bigint,
    deleted         bigint,
    transactions    bigint,
    removed         bigint,
    counters        jsonb,
    PRIMARY KEY (target, grain, sampled_at)
);
COMMENT ON TABLE backlog_cleanup.sample IS
    'how a target was at a time, and what has happened since the sample before: every tick writes a fine one, hours and days are made of them';
COMMENT ON COLUMN backlog_cleanup.sample.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.sample.grain IS 'fine (one tick), hour or day (UTC)';
COMMENT ON COLUMN backlog_cleanup.sample.sampled_at IS 'when it was taken; of an hour or a day, its start';
COMMENT ON COLUMN backlog_cleanup.sample.in_scope IS
    'rows in scope; NULL if they were not counted. An hour or a day has the last count';
COMMENT ON COLUMN backlog_cleanup.sample.statuses IS 'the rows in scope by status, as an object; NULL if they were not counted';
COMMENT ON COLUMN backlog_cleanup.sample.removable IS 'rows that a regular run would have removed; NULL if they were not counted';
COMMENT ON COLUMN backlog_cleanup.sample.oldest_at IS 'when the oldest row in scope failed; NULL if there was none, or none was counted';
COMMENT ON COLUMN backlog_cleanup.sample.failed IS
    'rows in scope that failed in failed_seconds; NULL if they were not counted, never before, or their times do not tell';
COMMENT ON COLUMN backlog_cleanup.sample.failed_seconds IS 'the seconds between the count before and this one; of an hour or a day, their sum';
COMMENT ON COLUMN backlog_cleanup.sample.recipes IS
    'the recipes with most failures in failed_seconds, 50 of a fine sample and five of others: [{recipeId, inScope, change}]; change is the rows that failed';
COMMENT ON COLUMN backlog_cleanup.sample.failure_types IS
    'the failure types with most failures in failed_seconds, as many: [{failureType, change}]';
COMMENT ON COLUMN backlog_cleanup.sample.not_counted IS
    'why the rows were not counted, or those that came in were not; or NULL';
COMMENT ON COLUMN backlog_cleanup.sample.milliseconds IS 'how long the sample took; of an hour or a day, the sum';
COMMENT ON COLUMN backlog_cleanup.sample.table_bytes IS 'size of the table with TOAST, all partitions, in bytes; NULL of a foreign table';
COMMENT ON COLUMN backlog_cleanup.sample.index_bytes IS 'size of its indexes, in bytes; NULL of a foreign table';
COMMENT ON COLUMN backlog_cleanup.sample.live_rows IS 'rows of the table, as PostgreSQL''s statistics have them';
COMMENT ON COLUMN backlog_cleanup.sample.dead_rows IS 'dead rows, as PostgreSQL''s statistics have them';
COMMENT ON COLUMN backlog_cleanup.sample.seconds IS
    'the seconds between the sample before and this one, for the rates; of an hour or a day, their sum. NULL in a target''s first';
COMMENT ON COLUMN backlog_cleanup.sample.inserted IS
    'rows inserted into the table in these seconds; NULL if its statistics were reset meanwhile, or its partitions are others';
COMMENT ON COLUMN backlog_cleanup.sample.updated IS 'rows updated, in the same way';
COMMENT ON COLUMN backlog_cleanup.sample.deleted IS 'rows deleted, in the same way';
COMMENT ON COLUMN backlog_cleanup.sample.transactions IS 'transactions of the database, in the same way';
COMMENT ON COLUMN backlog_cleanup.sample.removed IS 'rows that runs of the target removed in these seconds';
COMMENT ON COLUMN backlog_cleanup.sample.counters IS 'the counters from which the next sample is told apart; NULL of an hour or a day';

CREATE TABLE backlog_cleanup.decision (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tick       bigint NOT NULL,
    target     text NOT NULL REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    decided_at timestamptz NOT NULL,
    action     text NOT NULL CHECK (action OPERATOR(pg_catalog.=) ANY (ARRAY['run', 'none', 'slow', 'resume', 'move'])),
    reason     text NOT NULL,
    numbers    jsonb NOT NULL,
    rows_per_second integer
);
CREATE INDEX decision_target_id_idx ON backlog_cleanup.decision (target, id DESC);
COMMENT ON TABLE backlog_cleanup.decision IS
    'what the tick has decided about an adaptive target, or a job that follows the quietest hour, and why';
COMMENT ON COLUMN backlog_cleanup.decision.id IS 'counts the decisions';
COMMENT ON COLUMN backlog_cleanup.decision.tick IS 'the tick';
COMMENT ON COLUMN backlog_cleanup.decision.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.decision.decided_at IS 'when';
COMMENT ON COLUMN backlog_cleanup.decision.action IS
    'run (a cleanup was started), slow (it goes on slower), resume (at its own pace), move (the nightly job, to another hour) or none';
COMMENT ON COLUMN backlog_cleanup.decision.reason IS 'why, in a sentence';
COMMENT ON COLUMN backlog_cleanup.decision.numbers IS 'the numbers that it was decided by';
COMMENT ON COLUMN backlog_cleanup.decision.rows_per_second IS
    'of slow: how many rows per second the run removes at most, until the next decision about its target, or for 15 minutes';

CREATE FUNCTION backlog_cleanup.slowed_to(target text, since timestamptz) RETURNS integer LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT rows_per_second
    FROM (SELECT * FROM backlog_cleanup.decision d WHERE d.target = $1 AND action <> 'move' ORDER BY id DESC LIMIT 1) last
    WHERE decided_at > greatest($2, clock_timestamp() - interval '15 minutes')
$$;
COMMENT ON FUNCTION backlog_cleanup.slowed_to IS
    'how many rows per second a run of the target that started then removes at most, as a tick has decided; NULL is no limit';

CREATE FUNCTION backlog_cleanup.tick_jobs() RETURNS TABLE (job_id bigint, job_name text, active boolean)
    STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'tick_jobs_wrapper';
COMMENT ON FUNCTION backlog_cleanup.tick_jobs IS
    'the jobs of pg_cron that tick this database, if pg_cron is in it and their roles may tick: those first that are active';

CREATE FUNCTION backlog_cleanup.does_regular_run(command text, target text) RETURNS boolean
    STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'does_regular_run_wrapper';
COMMENT ON FUNCTION backlog_cleanup.does_regular_run IS
    'whether a job with this command does a regular run of the whole target: for jobs of a pg_cron that is in another database';

CREATE TABLE backlog_cleanup.auto_schedule (
    job_id    bigint PRIMARY KEY,
    job_name  text,
    username  text NOT NULL,
    target    text NOT NULL REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    hour      integer NOT NULL CHECK (hour OPERATOR(pg_catalog.>=) 0 AND hour OPERATOR(pg_catalog.<=) 23),
    schedule  text NOT NULL,
    is_known  boolean NOT NULL,
    moved_at  timestamptz NOT NULL
);
COMMENT ON TABLE backlog_cleanup.auto_schedule IS 'the jobs that the tick moves to the quietest hour of the day';
COMMENT ON COLUMN backlog_cleanup.auto_schedule.job_id IS
    'the job, in cron.job; one that has another name or role there, or does not run the target, is another one, and stays where it is';
COMMENT ON COLUMN backlog_cleanup.auto_schedule.job_name IS 'its name';
COMMENT ON COLUMN backlog_cleanup.auto_schedule.username IS 'its role';
COMMENT ON COLUMN backlog_cleanup.auto_schedule.target IS 'the target that it runs';
COMMENT ON COLUMN backlog_cleanup.auto_schedule.hour IS 'the hour of the day at which it runs, by the clock of the target''s time zone';
COMMENT ON COLUMN backlog_cleanup.auto_schedule.schedule IS
    'the same in the time zone of pg_cron; a job that has another schedule does not follow any more';
COMMENT ON COLUMN backlog_cleanup.auto_schedule.is_known IS 'whether the samples have told the quietest hour';
COMMENT ON COLUMN backlog_cleanup.auto_schedule.moved_at IS 'when it was placed there; it moves a week later at the earliest';

CREATE TABLE backlog_cleanup.retention (
    what    text PRIMARY KEY CHECK (what OPERATOR(pg_catalog.=) ANY (ARRAY[
        'run', 'run_recipe', 'run_failure', 'run_batch', 'sample fine', 'sample hour', 'sample day', 'tick', 'decision', 'alert',
        'cron.job_run_details'])),
    max_age interval
        CONSTRAINT max_age_is_from_1_hour_to_1000_years
        CHECK (max_age OPERATOR(pg_catalog.>=) interval '1 hour' AND max_age OPERATOR(pg_catalog.<=) interval '1000 years'),
    note    text
);
COMMENT ON TABLE backlog_cleanup.retention IS 'how long the tick keeps the rows of each table that grows';
COMMENT ON COLUMN backlog_cleanup.retention.what IS 'the table, and of samples the grain';
COMMENT ON COLUMN backlog_cleanup.retention.max_age IS 'older rows go, some with every tick; NULL keeps them';
COMMENT ON COLUMN backlog_cleanup.retention.note IS 'for people';
INSERT INTO backlog_cleanup.retention (what, max_age, note) VALUES
    ('run', '400 days', 'of each target the last regular and the last completed run stay'),
    ('run_recipe', '90 days', 'what each run removed per recipe; the run keeps its sums'),
    ('run_failure', '90 days', 'when the removed rows had failed, and as what'),
    ('run_batch', '7 days', 'what an interrupted run has not summed up is summed up then'),
    ('sample fine', '2 days', NULL),
    ('sample hour', '90 days', NULL),
    ('sample day', '3 years', NULL),
    ('tick', '7 days', NULL),
    ('decision', '90 days', NULL),
    ('alert', '400 days', 'counts from when it was resolved'),
    ('cron.job_run_details', NULL, 'the history of the extension''s own jobs in pg_cron');

SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.sample', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.auto_schedule', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.retention', '');

CREATE FUNCTION backlog_cleanup.make_dumped_target() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM backlog_cleanup.target WHERE name = NEW.target;
    IF NOT FOUND AND backlog_cleanup.restoring() THEN
        PERFORM backlog_cleanup.await_dumped_target(NEW.target);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.make_dumped_target IS
    'makes the target of a row of a dump that is being restored, which brings the target later';
CREATE TRIGGER make_dumped_target BEFORE INSERT ON backlog_cleanup.sample
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.make_dumped_target();
COMMENT ON TRIGGER make_dumped_target ON backlog_cleanup.sample IS 'a restored sample may come before its target';
CREATE TRIGGER make_dumped_target BEFORE INSERT ON backlog_cleanup.auto_schedule
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.make_dumped_target();
COMMENT ON TRIGGER make_dumped_target ON backlog_cleanup.auto_schedule IS 'a restored job may come before its target';

CREATE FUNCTION backlog_cleanup.give_way_to_dumped_retention() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF backlog_cleanup.restoring() THEN
        DELETE FROM backlog_cleanup.retention WHERE what = NEW.what;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dumped_retention IS
    'replaces a row of retention by the one of a dump that is being restored';
CREATE TRIGGER give_way_to_dumped_retention BEFORE INSERT ON backlog_cleanup.retention
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dumped_retention();
COMMENT ON TRIGGER give_way_to_dumped_retention ON backlog_cleanup.retention IS
    'a restored row replaces the one for the same table';

CREATE FUNCTION backlog_cleanup_tick() RETURNS jsonb
    STRICT LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_tick_wrapper';
COMMENT ON TABLE backlog_cleanup.run_recipe IS 'history: failed and removed rows per run and recipe that lost rows';
COMMENT ON FUNCTION backlog_cleanup_run_details IS
    'what a run of the history did per recipe that lost rows, most removed first';
CREATE FUNCTION backlog_cleanup_explain_tick(target text DEFAULT 'generations') RETURNS text
    STABLE LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_explain_tick_wrapper';
COMMENT ON FUNCTION backlog_cleanup_explain_tick IS 'what the last tick has decided about an adaptive target, and why';
CREATE FUNCTION backlog_cleanup_quiet_hours(target text DEFAULT 'generations')
RETURNS TABLE (hour text, transactions_per_second double precision, mon double precision, tue double precision,
               wed double precision, thu double precision, fri double precision, sat double precision, sun double precision,
               note text)
STABLE LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_quiet_hours_wrapper';
COMMENT ON FUNCTION backlog_cleanup_quiet_hours IS
    'how busy the database is at each hour of the day and of the week, in transactions per second, in the target''s time zone';
CREATE FUNCTION backlog_cleanup_schedule_tick(
    schedule text DEFAULT '*/5 * * * *',
    job_name text DEFAULT 'backlog-cleanup-tick')
RETURNS bigint LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_schedule_tick_wrapper';
COMMENT ON FUNCTION backlog_cleanup_tick IS
    'takes a sample of each target, opens and resolves alerts, and prunes what is too old, as its pg_cron job does every five minutes; returns what each step took';
COMMENT ON FUNCTION backlog_cleanup_schedule_tick IS
    'registers the pg_cron job of the tick, or changes the existing one; returns its id';

-- Alerts, analytics and the report.
-- Alerts: rules that people edit, and what they have found.
CREATE TABLE backlog_cleanup.alert_rule (
    name       text PRIMARY KEY CONSTRAINT name_is_short CHECK (pg_catalog.char_length(name) OPERATOR(pg_catalog.<=) 100),
    kind       text NOT NULL
        CONSTRAINT kind_is_known
        CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY[
            'rows_in_scope', 'failure_rate', 'failure_rate_factor', 'recipe_failures', 'no_successful_run', 'failed_runs',
            'nothing_removed', 'kept_back', 'books', 'history_size', 'dead_rows', 'table_size'])),
    target     text REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    threshold  double precision NOT NULL
        CONSTRAINT threshold_is_finite_and_not_negative
        CHECK (threshold OPERATOR(pg_catalog.>=) double precision '0' AND threshold OPERATOR(pg_catalog.<) double precision 'Infinity'),
    resolve_at double precision
        CONSTRAINT resolve_at_is_from_0_to_threshold
        CHECK (resolve_at OPERATOR(pg_catalog.>=) double precision '0' AND resolve_at OPERATOR(pg_catalog.<=) threshold),
    within     interval,
    enabled    boolean NOT NULL DEFAULT true,
    note       text,
    CONSTRAINT threshold_is_a_percentage
        CHECK (kind OPERATOR(pg_catalog.<>) ALL (ARRAY['recipe_failures', 'dead_rows'])
               OR threshold OPERATOR(pg_catalog.<) double precision '100'),
    CONSTRAINT history_size_is_for_no_target CHECK (kind OPERATOR(pg_catalog.<>) 'history_size' OR target IS NULL),
    CONSTRAINT within_is_for_kinds_that_look_back_or_ahead
        CHECK ((within IS NOT NULL) OPERATOR(pg_catalog.=)
               (kind OPERATOR(pg_catalog.=) ANY (ARRAY[
                   'failure_rate', 'failure_rate_factor', 'recipe_failures', 'dead_rows', 'table_size']))),
    CONSTRAINT within_is_from_5_minutes_to_1_day
        CHECK (within OPERATOR(pg_catalog.>=) interval '5 minutes'
               AND within OPERATOR(pg_catalog.<=)
                   CASE WHEN kind OPERATOR(pg_catalog.=) 'table_size' THEN interval '10 years' ELSE interval '1 day' END)
);
COMMENT ON TABLE backlog_cleanup.alert_rule IS
    'when to alert: an alert opens when the value is above threshold, and resolves when it is at most resolve_at';
COMMENT ON COLUMN backlog_cleanup.alert_rule.name IS 'the rule''s name';
COMMENT ON COLUMN backlog_cleanup.alert_rule.kind IS
    'what is measured: rows_in_scope (rows), failure_rate (rows a minute), failure_rate_factor (times the usual of the hour), recipe_failures (percent of attempts), no_successful_run (periods of the job), failed_runs (in a row), nothing_removed (rows by which the backlog has grown), kept_back (rows), books (rows of difference), history_size (bytes), dead_rows (percent), table_size (bytes)';
COMMENT ON COLUMN backlog_cleanup.alert_rule.target IS
    'the target; NULL is every target that has no rule of this kind for itself, also none that is disabled';
COMMENT ON COLUMN backlog_cleanup.alert_rule.threshold IS 'an alert opens when the value is above this';
COMMENT ON COLUMN backlog_cleanup.alert_rule.resolve_at IS 'it resolves when the value is at most this; NULL is threshold';
COMMENT ON COLUMN backlog_cleanup.alert_rule.within IS
    'how long the rule looks back, or ahead (table_size); NULL for kinds that do neither';
COMMENT ON COLUMN backlog_cleanup.alert_rule.enabled IS 'false: an open alert of the rule resolves, and none opens';
COMMENT ON COLUMN backlog_cleanup.alert_rule.note IS 'for people';

INSERT INTO backlog_cleanup.alert_rule (name, kind, threshold, resolve_at, within, note) VALUES
    ('rows in scope', 'rows_in_scope', 100000, 80000, NULL, 'more rows in scope than this'),
    ('failure rate', 'failure_rate', 60, 30, '15 minutes', 'more new rows in scope a minute than this'),
    ('unusual failure rate', 'failure_rate_factor', 5, 2, '15 minutes', 'so many times the usual of the hour, which is the median of the same hours'),
    ('recipe failures', 'recipe_failures', 90, 50, '1 hour', 'percent of at least 20 attempts of a recipe'),
    ('no successful run', 'no_successful_run', 2, NULL, NULL, 'periods of the job without a run that completed'),
    ('failed runs', 'failed_runs', 0, NULL, NULL, 'runs in a row that failed or were interrupted'),
    ('nothing removed', 'nothing_removed', 1000, 0, NULL, 'rows by which the backlog grew before a run that removed none'),
    ('rows kept back', 'kept_back', 0, NULL, NULL, 'rows that the last run could not remove'),
    ('books', 'books', 0, NULL, NULL, 'rows of difference between ledger and history'),
    ('history size', 'history_size', 1073741824, 858993459, NULL, 'bytes of the extension''s own tables'),
    ('dead rows', 'dead_rows', 30, 20, '1 hour', 'percent of the table''s rows that are dead, for so long'),
    ('table size', 'table_size', 107374182400, 96636764160, '14 days', 'bytes that the table with its indexes has by then at this pace');

CREATE TABLE backlog_cleanup.alert_measured (
    rule         text NOT NULL REFERENCES backlog_cleanup.alert_rule ON UPDATE CASCADE ON DELETE CASCADE,
    target       text NOT NULL REFERENCES backlog_cleanup.target ON UPDATE CASCADE ON DELETE CASCADE,
    measured_at  timestamptz,
    was_ended    boolean NOT NULL DEFAULT false,
    missed_since timestamptz,
    PRIMARY KEY (rule, target)
);
COMMENT ON TABLE backlog_cleanup.alert_measured IS 'when rules were measured that take too long for every tick, and whose turn has not come';
COMMENT ON COLUMN backlog_cleanup.alert_measured.rule IS 'the rule';
COMMENT ON COLUMN backlog_cleanup.alert_measured.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.alert_measured.measured_at IS 'the last time; NULL if that is not known';
COMMENT ON COLUMN backlog_cleanup.alert_measured.was_ended IS 'whether it took too long then, and was ended: the rule rests for an hour';
COMMENT ON COLUMN backlog_cleanup.alert_measured.missed_since IS 'since which tick others have taken all the time: the longer ago, the sooner its turn comes';

CREATE TABLE backlog_cleanup.alert (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule            text NOT NULL,
    target          text,
    subject         text,
    opened_at       timestamptz NOT NULL DEFAULT pg_catalog.now(),
    resolved_at     timestamptz,
    value           double precision NOT NULL,
    threshold       double precision NOT NULL,
    sentence        text NOT NULL,
    fix             text,
    acknowledged_at timestamptz,
    acknowledged_by name,
    snoozed_until   timestamptz
        CONSTRAINT snoozed_until_is_finite CHECK (pg_catalog.isfinite(snoozed_until)),
    note            text
        CONSTRAINT note_has_at_most_10000_characters CHECK (pg_catalog.char_length(note) OPERATOR(pg_catalog.<=) 10000)
);
-- A name and a recipe may be longer than an index entry. Who chooses them could have two of a weaker hash be the same.
CREATE UNIQUE INDEX alert_is_open_once
    ON backlog_cleanup.alert (
        rule,
        pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(target, '\', '\\'), 'escape')),
        pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(subject, '\', '\\'), 'escape'))) NULLS NOT DISTINCT
    WHERE resolved_at IS NULL;
COMMENT ON TABLE backlog_cleanup.alert IS 'what rules have found: an alert opens once, stays open, and resolves once';
COMMENT ON COLUMN backlog_cleanup.alert.id IS 'the alert';
COMMENT ON COLUMN backlog_cleanup.alert.rule IS 'the rule''s name at that time';
COMMENT ON COLUMN backlog_cleanup.alert.target IS 'the target''s name at that time; NULL if it is about no target';
COMMENT ON COLUMN backlog_cleanup.alert.subject IS 'which recipe, as text, if the rule is about recipes; else NULL';
COMMENT ON COLUMN backlog_cleanup.alert.opened_at IS 'when it opened';
COMMENT ON COLUMN backlog_cleanup.alert.resolved_at IS 'when it resolved; NULL while it is open';
COMMENT ON COLUMN backlog_cleanup.alert.value IS 'the value, in the unit of the rule''s kind; the last above the threshold';
COMMENT ON COLUMN backlog_cleanup.alert.threshold IS 'the rule''s threshold then';
COMMENT ON COLUMN backlog_cleanup.alert.sentence IS 'what is wrong';
COMMENT ON COLUMN backlog_cleanup.alert.fix IS 'the statement that mends it; NULL if somebody has to decide';
COMMENT ON COLUMN backlog_cleanup.alert.acknowledged_at IS 'when somebody took it on, or NULL';
COMMENT ON COLUMN backlog_cleanup.alert.acknowledged_by IS 'the role that did';
COMMENT ON COLUMN backlog_cleanup.alert.snoozed_until IS
    'nobody is told of it before; an alert of the same rule, target and subject that opens before has it, too';
COMMENT ON COLUMN backlog_cleanup.alert.note IS 'what people have said of it';

-- Anybody who may connect can LISTEN: the payload has nothing that rows or errors say. It is shorter than 8,000 bytes.
CREATE FUNCTION backlog_cleanup.notify_alert() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    change text := CASE
        WHEN TG_OP = 'INSERT' THEN 'opened'
        WHEN NEW.resolved_at IS DISTINCT FROM OLD.resolved_at THEN 'resolved'
        WHEN NEW.acknowledged_at IS DISTINCT FROM OLD.acknowledged_at THEN 'acknowledged'
        WHEN NEW.snoozed_until IS DISTINCT FROM OLD.snoozed_until THEN 'snoozed' END;
BEGIN
    -- A queue that is full would fail the commit of whoever changes an alert. Who listens polls, too.
    IF change IS NOT NULL AND NOT backlog_cleanup.restoring() AND pg_notification_queue_usage() < 0.9 THEN
        PERFORM pg_notify('backlog_cleanup', jsonb_build_object(
            'alert', NEW.id, 'change', change, 'rule', NEW.rule, 'target', left(NEW.target, 200))::text);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.notify_alert IS 'tells the listeners of channel backlog_cleanup of a changed alert, as JSON';
CREATE TRIGGER notify_opened AFTER INSERT ON backlog_cleanup.alert
    FOR EACH ROW WHEN (NEW.resolved_at IS NULL) EXECUTE FUNCTION backlog_cleanup.notify_alert();
COMMENT ON TRIGGER notify_opened ON backlog_cleanup.alert IS 'NOTIFY when an alert opens';
CREATE TRIGGER notify_changed AFTER UPDATE ON backlog_cleanup.alert
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.notify_alert();
COMMENT ON TRIGGER notify_changed ON backlog_cleanup.alert IS
    'NOTIFY when an alert resolves, is acknowledged, or is snoozed';

-- The rules of a dump replace those that CREATE EXTENSION has made: also one that somebody has dropped stays dropped.
CREATE FUNCTION backlog_cleanup.give_way_to_dumped_rule() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF backlog_cleanup.restoring() THEN
        PERFORM backlog_cleanup.await_dumped_target(NEW.target);
        DELETE FROM backlog_cleanup.alert_rule r WHERE r.name = NEW.name OR backlog_cleanup.is_as_created(r.tableoid, r.ctid, r.xmin, r.cmin);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.give_way_to_dumped_rule IS
    'replaces the rules that CREATE EXTENSION has made by those of a dump that is being restored';
CREATE TRIGGER give_way_to_dumped_rule BEFORE INSERT ON backlog_cleanup.alert_rule
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.give_way_to_dumped_rule();
COMMENT ON TRIGGER give_way_to_dumped_rule ON backlog_cleanup.alert_rule IS 'restored rules replace those that are there';

SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.alert_rule', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.alert', '');
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.alert_id_seq', '');

CREATE FUNCTION backlog_cleanup.evaluate_alerts() RETURNS TABLE (rule text, target text, unknown text)
    LANGUAGE c AS 'MODULE_PATHNAME', 'evaluate_alerts_wrapper';
COMMENT ON FUNCTION backlog_cleanup.evaluate_alerts IS
    'a part of the tick: opens and resolves alerts; returns the rules whose value is not known now, and why';

-- The delivery of alerts by `backlog-cleanup serve`. Addresses and secrets are in the server's own file, not here.
CREATE TABLE backlog_cleanup.alert_channel (
    name            text PRIMARY KEY
        CONSTRAINT name_is_from_1_to_100_characters
        CHECK (pg_catalog.char_length(name) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.char_length(name) OPERATOR(pg_catalog.<=) 100),
    kind            text NOT NULL
        CONSTRAINT kind_is_known
        CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['webhook', 'slack', 'alertmanager', 'pagerduty', 'mail'])),
    since           timestamptz NOT NULL DEFAULT pg_catalog.now(),
    leased_by       text
        CONSTRAINT leased_by_has_at_most_100_characters
        CHECK (pg_catalog.char_length(leased_by) OPERATOR(pg_catalog.<=) 100),
    leased_until    timestamptz,
    seen_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
    next_attempt_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    delivered_at    timestamptz,
    failures        integer NOT NULL DEFAULT 0,
    failing_since   timestamptz,
    last_error      text
        CONSTRAINT last_error_has_at_most_10000_characters
        CHECK (pg_catalog.char_length(last_error) OPERATOR(pg_catalog.<=) 10000),
    report_at       timestamptz
);
COMMENT ON TABLE backlog_cleanup.alert_channel IS
    'where servers deliver alerts: how that goes. Addresses and secrets are in the server''s own file';
COMMENT ON COLUMN backlog_cleanup.alert_channel.name IS 'its name in the server''s file';
COMMENT ON COLUMN backlog_cleanup.alert_channel.kind IS 'webhook, slack, alertmanager, pagerduty or mail';
COMMENT ON COLUMN backlog_cleanup.alert_channel.since IS 'when a server had it first; it is not told of alerts that had resolved before';
COMMENT ON COLUMN backlog_cleanup.alert_channel.leased_by IS 'the server that delivers now, so that no other does; NULL if none does';
COMMENT ON COLUMN backlog_cleanup.alert_channel.leased_until IS 'until then no other server delivers, even if that one has died';
COMMENT ON COLUMN backlog_cleanup.alert_channel.seen_at IS 'when a server last looked for something to deliver';
COMMENT ON COLUMN backlog_cleanup.alert_channel.next_attempt_at IS 'nothing is delivered before';
COMMENT ON COLUMN backlog_cleanup.alert_channel.delivered_at IS 'when it last took something, or NULL';
COMMENT ON COLUMN backlog_cleanup.alert_channel.failures IS 'attempts in a row that failed';
COMMENT ON COLUMN backlog_cleanup.alert_channel.failing_since IS 'when the first of them did, or NULL';
COMMENT ON COLUMN backlog_cleanup.alert_channel.last_error IS
    'why the last of them did; without failures, what is wrong with the channel all the same; or NULL';
COMMENT ON COLUMN backlog_cleanup.alert_channel.report_at IS 'when the next report is due; NULL without one';

CREATE TABLE backlog_cleanup.alert_delivery (
    channel      text NOT NULL REFERENCES backlog_cleanup.alert_channel ON UPDATE CASCADE ON DELETE CASCADE,
    alert        bigint NOT NULL REFERENCES backlog_cleanup.alert ON DELETE CASCADE,
    change       text NOT NULL
        CONSTRAINT change_is_known CHECK (change OPERATOR(pg_catalog.=) ANY (ARRAY['opened', 'acknowledged', 'resolved'])),
    message      uuid NOT NULL,
    begun_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    attempts     integer NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    refused      text
        CONSTRAINT refused_has_at_most_10000_characters
        CHECK (pg_catalog.char_length(refused) OPERATOR(pg_catalog.<=) 10000),
    PRIMARY KEY (channel, alert, change)
);
CREATE INDEX alert_delivery_alert_idx ON backlog_cleanup.alert_delivery (alert);
CREATE INDEX alert_delivery_message_idx ON backlog_cleanup.alert_delivery (message);
CREATE INDEX alert_delivery_is_under_way ON backlog_cleanup.alert_delivery (channel) WHERE delivered_at IS NULL AND refused IS NULL;
COMMENT ON TABLE backlog_cleanup.alert_delivery IS 'what each channel was told of each alert';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.channel IS 'the channel';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.alert IS 'the alert';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.change IS 'opened, acknowledged or resolved';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.message IS
    'the message that it is told in, with what else was due then; the receiver tells by it that it has had the message before';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.begun_at IS 'when a server took it on';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.attempts IS 'how often the message was sent, or tried to be';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.delivered_at IS 'when the receiver took it, the last time if it is reminded; NULL before';
COMMENT ON COLUMN backlog_cleanup.alert_delivery.refused IS
    'why the receiver does not take this message, also not later; it is not sent again before a server starts or reads its file of channels again. Or NULL';

-- Whoever could write any time would end deliveries, and have the doctor say that all is well.
CREATE FUNCTION backlog_cleanup.check_times() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    column_name text;
    furthest    interval;
BEGIN
    SELECT bounds.column_name, bounds.furthest INTO column_name, furthest
    FROM (SELECT TG_ARGV[i], TG_ARGV[i + 1]::interval FROM generate_series(0, TG_NARGS - 1, 2) AS i) AS bounds (column_name, furthest)
    CROSS JOIN LATERAL (SELECT (to_jsonb(NEW) ->> bounds.column_name)::timestamptz, (to_jsonb(OLD) ->> bounds.column_name)::timestamptz)
        AS times (is_now, was)
    WHERE is_now IS DISTINCT FROM was AND NOT (isfinite(is_now) AND is_now <= clock_timestamp() + bounds.furthest)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '"%" of table "%" is not finite, or further ahead than %', column_name, TG_TABLE_NAME, furthest
            USING ERRCODE = 'invalid_parameter_value', COLUMN = column_name, HINT = 'SELECT now()';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION backlog_cleanup.check_times IS
    'refuses times that no server that delivers alerts would write; its arguments are columns, and how far ahead each may be';
CREATE TRIGGER check_times BEFORE INSERT OR UPDATE ON backlog_cleanup.alert_channel
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_times(
        'since', '0', 'leased_until', '90 seconds', 'seen_at', '0', 'next_attempt_at', '5 minutes', 'delivered_at', '0',
        'failing_since', '0', 'report_at', '10 years');
COMMENT ON TRIGGER check_times ON backlog_cleanup.alert_channel IS 'nobody ends deliveries by a time that is far away';
CREATE TRIGGER check_times BEFORE INSERT OR UPDATE ON backlog_cleanup.alert_delivery
    FOR EACH ROW EXECUTE FUNCTION backlog_cleanup.check_times('begun_at', '0', 'delivered_at', '0');
COMMENT ON TRIGGER check_times ON backlog_cleanup.alert_delivery IS 'what was told was told before';

-- What the samples and the history say: views in plain units, and the rates that alerts are measured by.
CREATE FUNCTION backlog_cleanup.rows_in_per_minute(target text, within interval) RETURNS double precision LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sum(failed) / (sum(failed_seconds) / 60)
    FROM backlog_cleanup.sample s
    WHERE s.target = $1 AND grain = 'fine' AND sampled_at > now() - $2 AND failed IS NOT NULL
    HAVING sum(failed_seconds) >= extract(epoch FROM $2) / 2
$$;
COMMENT ON FUNCTION backlog_cleanup.rows_in_per_minute IS
    'rows that came into scope per minute, by the samples of the last so long; NULL if they cover less than half of it';

CREATE FUNCTION backlog_cleanup.usual_rows_in_per_minute(target text) RETURNS double precision LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY failed / (failed_seconds / 60))
    FROM backlog_cleanup.sample s
    WHERE s.target = $1 AND grain = 'hour' AND failed_seconds >= 1800
      AND sampled_at BETWEEN now() - interval '29 days' AND now() - interval '12 hours'
      AND extract(hour FROM sampled_at AT TIME ZONE 'UTC') = extract(hour FROM now() AT TIME ZONE 'UTC')
    HAVING count(*) >= 3
$$;
COMMENT ON FUNCTION backlog_cleanup.usual_rows_in_per_minute IS
    'the median of rows that came into scope per minute in this hour of the day, UTC, over 28 days; NULL before there are three';

CREATE VIEW backlog_cleanup.activity AS
    SELECT s.target, s.grain, s.sampled_at AS started_at, s.failed AS rows_in, s.removed AS rows_out,
           s.in_scope OPERATOR(pg_catalog.-) pg_catalog.lag(s.in_scope) OVER (PARTITION BY s.target, s.grain ORDER BY s.sampled_at) AS net,
           s.in_scope, s.table_bytes OPERATOR(pg_catalog.+) s.index_bytes AS bytes
    FROM backlog_cleanup.sample s
    WHERE s.grain OPERATOR(pg_catalog.<>) 'fine';
COMMENT ON VIEW backlog_cleanup.activity IS 'rows that came into scope and that runs removed, per hour and per day (UTC)';
COMMENT ON COLUMN backlog_cleanup.activity.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.activity.grain IS 'hour or day';
COMMENT ON COLUMN backlog_cleanup.activity.started_at IS 'start of the hour or the day';
COMMENT ON COLUMN backlog_cleanup.activity.rows_in IS 'rows that came into scope; NULL if they were not counted';
COMMENT ON COLUMN backlog_cleanup.activity.rows_out IS 'rows that runs removed';
COMMENT ON COLUMN backlog_cleanup.activity.net IS
    'change of the rows in scope, in rows; what is neither in nor out has been retried or changed by others';
COMMENT ON COLUMN backlog_cleanup.activity.in_scope IS 'rows in scope at its end';
COMMENT ON COLUMN backlog_cleanup.activity.bytes IS 'size of the table with its indexes at its end, in bytes';

CREATE VIEW backlog_cleanup.pace AS
    SELECT t.name AS target, last.in_scope, last.removable, day.rows_in_per_hour, day.rows_out_per_hour, runs.rows_per_second,
           -- What takes 1,000 years is no forecast.
           CASE WHEN takes.to_clear OPERATOR(pg_catalog.<) 31557600000 THEN pg_catalog.make_interval(secs => takes.to_clear) END AS time_to_clear,
           CASE WHEN takes.to_remove OPERATOR(pg_catalog.<) 31557600000 THEN pg_catalog.make_interval(secs => takes.to_remove) END AS time_to_remove
    FROM backlog_cleanup.target t
    LEFT JOIN LATERAL (
        SELECT s.in_scope, s.removable FROM backlog_cleanup.sample s
        WHERE s.target OPERATOR(pg_catalog.=) t.name AND s.grain OPERATOR(pg_catalog.=) 'fine' AND s.in_scope IS NOT NULL
        ORDER BY s.sampled_at DESC LIMIT 1) last ON true
    LEFT JOIN LATERAL (
        SELECT 3600 OPERATOR(pg_catalog.*) pg_catalog.sum(s.failed)::double precision
                    OPERATOR(pg_catalog./) pg_catalog.sum(s.failed_seconds) FILTER (WHERE s.failed_seconds OPERATOR(pg_catalog.>) 0) AS rows_in_per_hour,
               3600 OPERATOR(pg_catalog.*) pg_catalog.sum(s.removed)::double precision
                    OPERATOR(pg_catalog./) pg_catalog.sum(s.seconds) FILTER (WHERE s.seconds OPERATOR(pg_catalog.>) 0) AS rows_out_per_hour
        FROM backlog_cleanup.sample s
        WHERE s.target OPERATOR(pg_catalog.=) t.name AND s.grain OPERATOR(pg_catalog.=) 'fine'
          AND s.sampled_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '1 day')
        HAVING pg_catalog.sum(s.seconds) OPERATOR(pg_catalog.>=) 43200) day ON true
    LEFT JOIN LATERAL (
        SELECT r.removed OPERATOR(pg_catalog./) GREATEST(EXTRACT(epoch FROM (r.finished_at OPERATOR(pg_catalog.-) r.started_at)), 0.001)::double precision
               AS rows_per_second
        FROM backlog_cleanup.run r
        WHERE r.target OPERATOR(pg_catalog.=) t.name AND r.removed OPERATOR(pg_catalog.>) 0 AND r.finished_at IS NOT NULL
        ORDER BY r.id DESC LIMIT 1) runs ON true
    CROSS JOIN LATERAL (
        SELECT CASE WHEN day.rows_out_per_hour OPERATOR(pg_catalog.>) day.rows_in_per_hour THEN
                   3600 OPERATOR(pg_catalog.*) last.removable OPERATOR(pg_catalog./)
                   (day.rows_out_per_hour OPERATOR(pg_catalog.-) day.rows_in_per_hour) END AS to_clear,
               last.removable OPERATOR(pg_catalog./) runs.rows_per_second AS to_remove) takes;
COMMENT ON VIEW backlog_cleanup.pace IS 'how fast the backlog grows and goes, and when it is gone at this pace';
COMMENT ON COLUMN backlog_cleanup.pace.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.pace.in_scope IS 'rows in scope, by the last sample that counted them';
COMMENT ON COLUMN backlog_cleanup.pace.removable IS 'rows that a regular run would have removed then';
COMMENT ON COLUMN backlog_cleanup.pace.rows_in_per_hour IS
    'rows that came into scope per hour, over the last 24 hours; NULL before samples cover half of them';
COMMENT ON COLUMN backlog_cleanup.pace.rows_out_per_hour IS
    'rows that runs removed per hour, over the last 24 hours; NULL before samples cover half of them';
COMMENT ON COLUMN backlog_cleanup.pace.rows_per_second IS 'rows per second of the last run that removed any';
COMMENT ON COLUMN backlog_cleanup.pace.time_to_clear IS
    'how long until no row is removable, if rows come and go as in the last 24 hours; NULL if more come than go, or as many';
COMMENT ON COLUMN backlog_cleanup.pace.time_to_remove IS 'how long a run now takes at rows_per_second';

CREATE VIEW backlog_cleanup.size AS
    SELECT t.name AS target, last.sampled_at AS measured_at, last.bytes, week.bytes_per_day,
           CASE WHEN week.bytes_per_day IS NOT NULL THEN
               GREATEST(last.bytes::double precision OPERATOR(pg_catalog.+) (30 OPERATOR(pg_catalog.*) week.bytes_per_day), 0) END AS bytes_in_30_days
    FROM backlog_cleanup.target t
    JOIN LATERAL (
        SELECT s.sampled_at, s.table_bytes OPERATOR(pg_catalog.+) s.index_bytes AS bytes FROM backlog_cleanup.sample s
        WHERE s.target OPERATOR(pg_catalog.=) t.name AND s.grain OPERATOR(pg_catalog.=) 'fine' AND s.table_bytes IS NOT NULL
        ORDER BY s.sampled_at DESC LIMIT 1) last ON true
    LEFT JOIN LATERAL (
        SELECT 86400 OPERATOR(pg_catalog.*)
               pg_catalog.regr_slope((s.table_bytes OPERATOR(pg_catalog.+) s.index_bytes)::double precision,
                                     EXTRACT(epoch FROM s.sampled_at)::double precision) AS bytes_per_day
        FROM backlog_cleanup.sample s
        WHERE s.target OPERATOR(pg_catalog.=) t.name AND s.grain OPERATOR(pg_catalog.=) 'hour' AND s.table_bytes IS NOT NULL
          AND s.sampled_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '7 days')
        HAVING pg_catalog.max(s.sampled_at) OPERATOR(pg_catalog.-) pg_catalog.min(s.sampled_at) OPERATOR(pg_catalog.>=) interval '1 day') week ON true;
COMMENT ON VIEW backlog_cleanup.size IS 'the size of each target''s table with its indexes, and its forecast';
COMMENT ON COLUMN backlog_cleanup.size.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.size.measured_at IS 'when it was measured';
COMMENT ON COLUMN backlog_cleanup.size.bytes IS 'the size then, in bytes';
COMMENT ON COLUMN backlog_cleanup.size.bytes_per_day IS
    'bytes by which it grows a day: the slope of a line through the hours of the last 7 days; NULL before there is a day of them';
COMMENT ON COLUMN backlog_cleanup.size.bytes_in_30_days IS 'the size in 30 days at this pace, in bytes';

CREATE VIEW backlog_cleanup.run_statistics AS
    SELECT r.target, r.mode, pg_catalog.count(*) AS runs,
           pg_catalog.count(*) FILTER (WHERE r.state OPERATOR(pg_catalog.=) ANY (ARRAY['completed', 'stopped'])) AS succeeded,
           100.0::double precision OPERATOR(pg_catalog.*)
               pg_catalog.count(*) FILTER (WHERE r.state OPERATOR(pg_catalog.=) ANY (ARRAY['completed', 'stopped']))
               OPERATOR(pg_catalog./) pg_catalog.count(*) AS success_percent,
           pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY took.seconds) AS p50_seconds,
           pg_catalog.percentile_cont(0.95) WITHIN GROUP (ORDER BY took.seconds) AS p95_seconds,
           pg_catalog.max(took.seconds) AS max_seconds,
           pg_catalog.sum(r.removed)::bigint AS removed, pg_catalog.sum(r.kept_back)::bigint AS kept_back,
           pg_catalog.sum(r.wal_bytes)::bigint AS wal_bytes,
           pg_catalog.sum(r.removed)::double precision OPERATOR(pg_catalog.*)
               (SELECT CASE WHEN s.live_rows OPERATOR(pg_catalog.+) s.dead_rows OPERATOR(pg_catalog.>) 0
                            THEN (s.table_bytes OPERATOR(pg_catalog.+) s.index_bytes)::double precision
                                 OPERATOR(pg_catalog./) (s.live_rows OPERATOR(pg_catalog.+) s.dead_rows) END
                FROM backlog_cleanup.sample s
                WHERE s.target OPERATOR(pg_catalog.=) r.target AND s.grain OPERATOR(pg_catalog.=) 'fine' AND s.table_bytes IS NOT NULL
                ORDER BY s.sampled_at DESC LIMIT 1) AS freed_bytes
    FROM backlog_cleanup.history r,
         LATERAL (SELECT EXTRACT(epoch FROM (r.finished_at OPERATOR(pg_catalog.-) r.started_at))::double precision AS seconds) took
    WHERE r.started_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '30 days')
      AND r.state OPERATOR(pg_catalog.<>) 'running'
    GROUP BY r.target, r.mode;
COMMENT ON VIEW backlog_cleanup.run_statistics IS
    'how the runs of the last 30 days went, also those that only pg_cron knows of';
COMMENT ON COLUMN backlog_cleanup.run_statistics.target IS 'the target''s name at that time';
COMMENT ON COLUMN backlog_cleanup.run_statistics.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.run_statistics.runs IS 'number of runs that have ended';
COMMENT ON COLUMN backlog_cleanup.run_statistics.succeeded IS 'those that completed, or stopped at a limit or on request';
COMMENT ON COLUMN backlog_cleanup.run_statistics.success_percent IS 'the same in percent';
COMMENT ON COLUMN backlog_cleanup.run_statistics.p50_seconds IS 'the median of their durations, in seconds';
COMMENT ON COLUMN backlog_cleanup.run_statistics.p95_seconds IS 'the duration that 95 % of them did not exceed, in seconds';
COMMENT ON COLUMN backlog_cleanup.run_statistics.max_seconds IS 'the longest duration, in seconds';
COMMENT ON COLUMN backlog_cleanup.run_statistics.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.run_statistics.kept_back IS 'rows that could not go, once for each run';
COMMENT ON COLUMN backlog_cleanup.run_statistics.wal_bytes IS 'WAL that they wrote, in bytes; NULL if none has counted it';
COMMENT ON COLUMN backlog_cleanup.run_statistics.freed_bytes IS
    'bytes that the removed rows took in the table and its indexes, which VACUUM frees for new rows: at the mean size of a row, by the last sample';

CREATE VIEW backlog_cleanup.ranking AS
    SELECT counted.target, counted.what,
           pg_catalog.rank() OVER (PARTITION BY counted.target, counted.what ORDER BY counted.rows_in DESC) AS place,
           counted.name, counted.rows_in, counted.rows_in_before
    FROM (SELECT s.target, changed.what, changed.name,
                 COALESCE(pg_catalog.sum(changed.change) FILTER (WHERE s.sampled_at OPERATOR(pg_catalog.>) yesterday), 0)::bigint AS rows_in,
                 CASE WHEN before.is_known THEN
                     COALESCE(pg_catalog.sum(changed.change) FILTER (WHERE s.sampled_at OPERATOR(pg_catalog.<=) yesterday), 0)::bigint
                 END AS rows_in_before
          FROM backlog_cleanup.sample s
          LEFT JOIN (SELECT b.target, pg_catalog.sum(b.failed_seconds) OPERATOR(pg_catalog.>=) 77760 AS is_known
                     FROM backlog_cleanup.sample b
                     WHERE b.grain OPERATOR(pg_catalog.=) 'fine'
                       AND b.sampled_at OPERATOR(pg_catalog.<=) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '1 day')
                       AND b.sampled_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '2 days')
                     GROUP BY b.target) before ON before.target OPERATOR(pg_catalog.=) s.target,
               LATERAL (SELECT pg_catalog.now() OPERATOR(pg_catalog.-) interval '1 day' AS yesterday) since,
               LATERAL (SELECT 'recipe' AS what, r."recipeId" AS name, r.change
                        FROM pg_catalog.jsonb_to_recordset(s.recipes) AS r ("recipeId" text, change bigint)
                        UNION ALL
                        SELECT 'failure type', f."failureType", f.change
                        FROM pg_catalog.jsonb_to_recordset(s.failure_types) AS f ("failureType" text, change bigint)) changed
          WHERE s.grain OPERATOR(pg_catalog.=) 'fine'
            AND s.sampled_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '2 days')
          GROUP BY s.target, changed.what, changed.name, before.is_known) counted;
COMMENT ON VIEW backlog_cleanup.ranking IS
    'recipes and failure types by the rows that came into scope in the last 24 hours, as far as samples name them: 50 each';
COMMENT ON COLUMN backlog_cleanup.ranking.target IS 'the target';
COMMENT ON COLUMN backlog_cleanup.ranking.what IS 'recipe or failure type';
COMMENT ON COLUMN backlog_cleanup.ranking.place IS 'its place among those of the target, from 1: most rows first';
COMMENT ON COLUMN backlog_cleanup.ranking.name IS 'the recipe, as text, or the failure type; NULL is none';
COMMENT ON COLUMN backlog_cleanup.ranking.rows_in IS 'rows that came into scope in the last 24 hours';
COMMENT ON COLUMN backlog_cleanup.ranking.rows_in_before IS
    'rows that came into scope in the 24 hours before; NULL if samples cover less than nine tenths of them';

CREATE FUNCTION backlog_cleanup_snooze(alert bigint, until timestamp with time zone, note text DEFAULT NULL) RETURNS void
    LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_snooze_wrapper';
CREATE FUNCTION backlog_cleanup_acknowledge(alert bigint, note text DEFAULT NULL) RETURNS void
    LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_acknowledge_wrapper';
CREATE FUNCTION backlog_cleanup_report(since interval DEFAULT '7 days', target text DEFAULT 'generations', format text DEFAULT 'text') RETURNS text
    STABLE LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_report_wrapper';
COMMENT ON FUNCTION backlog_cleanup_snooze IS 'keeps an open alert from being told of until then; NULL ends that';
COMMENT ON FUNCTION backlog_cleanup_acknowledge IS 'records that the caller has taken an open alert on';
COMMENT ON FUNCTION backlog_cleanup_report IS
    'what has happened to a target, by its samples, runs and alerts: a page for psql, or the same as Markdown';

-- Refuses other functions with the extension's names, whatever their arguments: they could be called instead of the
-- extension's, also by the nightly job.
DO $strangers$
DECLARE
    stranger text;
BEGIN
    SELECT p.oid::pg_catalog.regprocedure INTO stranger
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
      AND p.proname OPERATOR(pg_catalog.~) '^backlog_cleanup_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                        AND d.objid OPERATOR(pg_catalog.=) p.oid
                        AND d.deptype OPERATOR(pg_catalog.=) 'e'
                        AND d.refobjid OPERATOR(pg_catalog.=)
                            (SELECT e.oid FROM pg_catalog.pg_extension e
                             WHERE e.extname OPERATOR(pg_catalog.=) 'backlog_cleanup'));
    IF FOUND THEN
        RAISE EXCEPTION 'function "%" exists already', stranger
            USING ERRCODE = 'duplicate_function', HINT = pg_catalog.format('DROP FUNCTION %s', stranger);
    END IF;
END
$strangers$;

-- Only the owner may do anything until backlog_cleanup_grant(role_name, level) has given a level, whatever the default privileges
-- here are. Two functions are for all: owners of tables call them in runs, and the fingerprint in indexes.
DO $privileges$
DECLARE
    revoke text;
BEGIN
    FOR revoke IN
        WITH ours AS (
            SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
            WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
              AND d.deptype OPERATOR(pg_catalog.=) 'e' AND e.extname OPERATOR(pg_catalog.=) 'backlog_cleanup'
              -- What is new: it came in this transaction.
              AND pg_catalog.age(d.xmin) OPERATOR(pg_catalog.<=) pg_catalog.age(pg_catalog.xid(pg_catalog.pg_current_xact_id()))
        ), given (object, owner, acl) AS (
            SELECT pg_catalog.concat('ROUTINE ', p.oid::pg_catalog.regprocedure), p.proowner,
                   COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))
            FROM ours JOIN pg_catalog.pg_proc p
                ON classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND objid OPERATOR(pg_catalog.=) p.oid
            WHERE p.oid OPERATOR(pg_catalog.<>) ALL (ARRAY['@extschema@.backlog_cleanup_fingerprint(text)'::pg_catalog.regprocedure,
                                                             '@extschema@.backlog_cleanup_has_value(text,"any")'::pg_catalog.regprocedure]::pg_catalog.oid[])
            UNION ALL
            SELECT pg_catalog.concat(CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END, c.oid::pg_catalog.regclass),
                   c.relowner, c.relacl
            FROM ours JOIN pg_catalog.pg_class c
                ON classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND objid OPERATOR(pg_catalog.=) c.oid
            UNION ALL
            SELECT pg_catalog.concat('SCHEMA ', n.oid::pg_catalog.regnamespace), n.nspowner, n.nspacl
            FROM ours JOIN pg_catalog.pg_namespace n
                ON classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass AND objid OPERATOR(pg_catalog.=) n.oid
        )
        SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s FROM %s', object,
                                          CASE WHEN grantee OPERATOR(pg_catalog.=) '0'::pg_catalog.oid THEN 'PUBLIC' ELSE grantee::pg_catalog.regrole::pg_catalog.text END)
        FROM given CROSS JOIN LATERAL pg_catalog.aclexplode(acl)
        WHERE grantee OPERATOR(pg_catalog.<>) owner
    LOOP
        EXECUTE revoke;
    END LOOP;
END
$privileges$;

-- Of the other rows it is not known whether they are as an earlier version has made them.
INSERT INTO backlog_cleanup.as_created (relation, file, place, made, command)
SELECT tableoid, pg_catalog.pg_relation_filenode(tableoid), ctid, xmin, cmin FROM backlog_cleanup.alert_rule;

-- A GRANT in this script would be missing from dumps: backlog_cleanup_grant has to be called again, once per role.
DO $levels$
DECLARE
    again text;
BEGIN
    SELECT pg_catalog.string_agg(pg_catalog.format('SELECT @extschema@.backlog_cleanup_grant(%L, %L)', r.rolname, held.level), '; '
                                 ORDER BY r.rolname)
    INTO again
    FROM (SELECT DISTINCT ON (grantee) grantee, level
          FROM (SELECT a.grantee, 3, 'admin'
                FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                WHERE c.oid OPERATOR(pg_catalog.=) 'backlog_cleanup.target'::pg_catalog.regclass
                  AND a.privilege_type OPERATOR(pg_catalog.=) 'INSERT' AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
                UNION ALL
                SELECT a.grantee, 2, 'operator'
                FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
                WHERE p.oid OPERATOR(pg_catalog.=)
                      '@extschema@.backlog_cleanup_stop(bigint)'::pg_catalog.regprocedure
                  AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
                UNION ALL
                SELECT a.grantee, 1, 'monitor'
                FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                WHERE c.oid OPERATOR(pg_catalog.=) 'backlog_cleanup.run'::pg_catalog.regclass
                  AND a.grantee OPERATOR(pg_catalog.<>) c.relowner) levels (grantee, rank, level)
          ORDER BY grantee, rank DESC) held
    JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) held.grantee
    -- No level may write runs or give levels: default privileges gave that role what it has. The doctor says so.
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
                      WHERE c.oid OPERATOR(pg_catalog.=) 'backlog_cleanup.run'::pg_catalog.regclass
                        AND a.privilege_type OPERATOR(pg_catalog.=) 'INSERT' AND a.grantee OPERATOR(pg_catalog.=) held.grantee)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
                      WHERE p.oid OPERATOR(pg_catalog.=)
                            '@extschema@.backlog_cleanup_grant(text, text)'::pg_catalog.regprocedure
                        AND a.grantee OPERATOR(pg_catalog.=) held.grantee);
    IF again IS NOT NULL THEN
        RAISE WARNING 'roles with a level do not have the new functions yet' USING HINT = again;
    END IF;
END
$levels$;
