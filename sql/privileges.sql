-- Nobody but the owner calls anything until backlog_cleanup_grant(role_name, level) has given a level.
REVOKE ALL ON FUNCTION backlog_cleanup_failed_generations(text, text, text, boolean, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_emergency(text, text, text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_index_sql(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_status(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_status_json(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_schedule(text, boolean, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_unschedule(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_doctor(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_stop(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_failures(text, interval, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_books(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_run_details(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_grant(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION backlog_cleanup_revoke(text) FROM PUBLIC;

COMMENT ON FUNCTION backlog_cleanup_failed_generations(text, text, text, boolean, boolean) IS
    'removes the expired failed rows beyond the newest of each recipe; returns a report';
COMMENT ON FUNCTION backlog_cleanup_emergency(text, text, text, boolean) IS
    'removes every failed row of the account, whatever its age; returns a report';
COMMENT ON FUNCTION backlog_cleanup_index_sql(text) IS
    'the statement that builds the partial index of a target, for \gexec';
COMMENT ON FUNCTION backlog_cleanup_status(text) IS
    'the rows of the account by recipe and status, most failures first';
COMMENT ON FUNCTION backlog_cleanup_schedule(text, boolean, text, text) IS
    'registers the nightly pg_cron job, or changes the one that is there; returns its id';
COMMENT ON FUNCTION backlog_cleanup_unschedule(text) IS
    'removes the pg_cron job of that name; false where there is none';
COMMENT ON FUNCTION backlog_cleanup_status_json(text) IS
    'the status as one document, with the pg_cron job and the last run';
COMMENT ON FUNCTION backlog_cleanup_doctor(text) IS
    'what is wrong with a target and around it, one row per check, each with the statement to run';
COMMENT ON FUNCTION backlog_cleanup_stop(bigint) IS
    'asks a batched run to stop after the batch that it is at work on; false where it is over';
COMMENT ON FUNCTION backlog_cleanup_failures(text, interval, integer) IS
    'the failed rows that are there by hour and failure type, oldest hour first';
COMMENT ON FUNCTION backlog_cleanup_books(text) IS
    'the removed rows that the ledger has of the runs in the history, those that the runs have, and the difference, of all targets that share the ledger; no row without one';
COMMENT ON FUNCTION backlog_cleanup_run_details(bigint) IS
    'what a run of the history did per recipe, most removed first';
COMMENT ON FUNCTION backlog_cleanup_grant(text, text) IS
    'gives a role a level: monitor (status, history), operator (also runs) or admin (also targets, policies, the job)';
COMMENT ON FUNCTION backlog_cleanup_revoke(text) IS 'takes all levels from a role';
