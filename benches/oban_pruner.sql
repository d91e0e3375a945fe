-- What Oban's pruner does, if its age is a day: any 10,000 jobs at a time. It takes them once a minute; here it does not wait.
DO $$
DECLARE
    gone bigint;
BEGIN
    LOOP
        DELETE FROM oban_jobs USING (
            SELECT id FROM oban_jobs
            WHERE state = 'completed' AND completed_at < (now() AT TIME ZONE 'UTC') - interval '24 hours'
               OR state = 'cancelled' AND cancelled_at < (now() AT TIME ZONE 'UTC') - interval '24 hours'
               OR state = 'discarded' AND discarded_at < (now() AT TIME ZONE 'UTC') - interval '24 hours'
            LIMIT 10000) old
        WHERE oban_jobs.id = old.id;
        GET DIAGNOSTICS gone = ROW_COUNT;
        COMMIT;
        EXIT WHEN gone = 0;
    END LOOP;
END $$;
