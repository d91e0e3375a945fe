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
