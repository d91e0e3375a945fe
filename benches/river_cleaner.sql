-- What River's cleaner does, if all states have the same age: the jobs of lowest ids, 10,000 at a time. It sleeps between batches; here it does not.
DO $$
DECLARE
    gone bigint;
BEGIN
    LOOP
        DELETE FROM river_job WHERE id IN (
            SELECT id FROM river_job
            WHERE state = 'completed' AND finalized_at < now() - interval '24 hours'
               OR state = 'cancelled' AND finalized_at < now() - interval '24 hours'
               OR state = 'discarded' AND finalized_at < now() - interval '24 hours'
            ORDER BY id LIMIT 10000);
        GET DIAGNOSTICS gone = ROW_COUNT;
        COMMIT;
        EXIT WHEN gone < 10000;
    END LOOP;
END $$;
