-- The batched run: a thin procedure that commits, around functions in Rust.
CREATE FUNCTION backlog_cleanup.start_run(arguments json) RETURNS bigint
    LANGUAGE c AS 'MODULE_PATHNAME', 'start_batched_run_wrapper';
CREATE FUNCTION backlog_cleanup.next_batch(run_id bigint) RETURNS double precision
    LANGUAGE c AS 'MODULE_PATHNAME', 'next_batch_wrapper';
CREATE FUNCTION backlog_cleanup.finish_run(run_id bigint) RETURNS jsonb
    LANGUAGE c AS 'MODULE_PATHNAME', 'finish_run_wrapper';
CREATE PROCEDURE backlog_cleanup.commit_and_wait(seconds double precision)
    LANGUAGE c AS 'MODULE_PATHNAME', 'commit_and_wait_wrapper';

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
COMMENT ON PROCEDURE backlog_cleanup.commit_and_wait IS
    'a part of backlog_cleanup_run: commits, and sleeps without a snapshot';
COMMENT ON FUNCTION backlog_cleanup.start_run IS
    'a part of backlog_cleanup_run: locks the target, fixes the cutoffs, divides the work; returns the run''s id';
COMMENT ON FUNCTION backlog_cleanup.next_batch IS
    'a part of backlog_cleanup_run: removes a batch; returns the seconds to wait, or NULL at the end';
COMMENT ON FUNCTION backlog_cleanup.finish_run IS
    'a part of backlog_cleanup_run: sums up the batches and releases the target; returns the report';

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
