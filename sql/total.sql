-- The sums of all runs. A run that is deleted from the history stays in the sums, which never fall.
CREATE FUNCTION backlog_cleanup.duration_bound(seconds double precision) RETURNS double precision
    IMMUTABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', 'duration_bound_wrapper';
COMMENT ON FUNCTION backlog_cleanup.duration_bound IS
    'the lowest bound, in seconds, of the histogram of durations that is at least this duration';

CREATE TABLE backlog_cleanup.forgotten (
    target        text NOT NULL,
    mode          text NOT NULL,
    state         text NOT NULL,
    seconds_up_to double precision NOT NULL,
    runs          bigint NOT NULL,
    removed       bigint NOT NULL,
    seconds       double precision NOT NULL,
    wal_bytes     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (target, mode, state, seconds_up_to)
);
COMMENT ON TABLE backlog_cleanup.forgotten IS 'sums of the runs that have been deleted from the history';
COMMENT ON COLUMN backlog_cleanup.forgotten.target IS 'the target''s name at that time';
COMMENT ON COLUMN backlog_cleanup.forgotten.mode IS 'regular or emergency';
COMMENT ON COLUMN backlog_cleanup.forgotten.state IS 'how they ended';
COMMENT ON COLUMN backlog_cleanup.forgotten.seconds_up_to IS
    'the bound of their durations; each is above the next lower bound';
COMMENT ON COLUMN backlog_cleanup.forgotten.runs IS 'number of runs';
COMMENT ON COLUMN backlog_cleanup.forgotten.removed IS 'rows removed';
COMMENT ON COLUMN backlog_cleanup.forgotten.seconds IS 'sum of their durations';
COMMENT ON COLUMN backlog_cleanup.forgotten.wal_bytes IS 'the WAL that they have written, in bytes, as far as it is known';
SELECT pg_catalog.pg_extension_config_dump('backlog_cleanup.forgotten', '');

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
