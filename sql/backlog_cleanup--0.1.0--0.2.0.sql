-- 0.2.0 is faster where the partial index is there, and a batched run can be asked to stop.
CREATE FUNCTION backlog_cleanup_stop(run_id bigint) RETURNS boolean
    LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_stop_wrapper';
REVOKE ALL ON FUNCTION backlog_cleanup_stop(bigint) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_stop(bigint) IS
    'asks a batched run to stop after the batch that it is at work on; false where it is over';
