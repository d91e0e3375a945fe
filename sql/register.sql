-- Registers the nightly job, last of all. pg_dump brings the job in pg_cron's own table, where a second one would break
-- the restore; every session that restores a dump has set xmloption, and no other does.
DO $register$
DECLARE
    problem text;
    remedy  text;
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_settings
               WHERE name OPERATOR(pg_catalog.=) 'xmloption' AND source OPERATOR(pg_catalog.=) 'session') THEN
        RETURN;
    END IF;
    PERFORM @extschema@.backlog_cleanup_schedule();
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT, remedy = PG_EXCEPTION_HINT;
    RAISE WARNING 'the nightly job is not scheduled: %', problem USING HINT = remedy;
END
$register$;
