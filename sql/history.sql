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
