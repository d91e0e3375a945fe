-- 0.2.0 is faster, can ask a batched run to stop, and has the functions that the companion asks for.
CREATE FUNCTION backlog_cleanup_stop(run_id bigint) RETURNS boolean
    LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', 'backlog_cleanup_stop_wrapper';
REVOKE ALL ON FUNCTION backlog_cleanup_stop(bigint) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_stop(bigint) IS
    'asks a batched run to stop after the batch that it is at work on; false where it is over';
CREATE FUNCTION backlog_cleanup_failures(
    target text DEFAULT 'generations', since interval DEFAULT '2 days', types integer DEFAULT 8)
RETURNS TABLE (hour timestamptz, failure_type text, failed_count bigint)
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'backlog_cleanup_failures_wrapper';
REVOKE ALL ON FUNCTION backlog_cleanup_failures(text, interval, integer) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_failures(text, interval, integer) IS
    'the failed rows that are there by hour and failure type, oldest hour first';
CREATE FUNCTION backlog_cleanup_run_details(run_id bigint) RETURNS jsonb
STABLE LANGUAGE c AS 'MODULE_PATHNAME', 'backlog_cleanup_run_details_wrapper';
REVOKE ALL ON FUNCTION backlog_cleanup_run_details(bigint) FROM PUBLIC;
COMMENT ON FUNCTION backlog_cleanup_run_details(bigint) IS
    'what a run of the history did per recipe, most removed first';
