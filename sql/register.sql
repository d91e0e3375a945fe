-- Registers the nightly job, last of all. A dump brings the job in pg_cron's own table, where a second one would break
-- the restore.
DO $register$
DECLARE
    problem text;
    remedy  text;
BEGIN
    IF backlog_cleanup.restoring() THEN
        RETURN;
    END IF;
    PERFORM @extschema@.backlog_cleanup_schedule();
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT, remedy = PG_EXCEPTION_HINT;
    RAISE WARNING 'the nightly job is not scheduled: %', problem USING HINT = remedy;
END
$register$;
