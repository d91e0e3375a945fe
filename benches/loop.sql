-- What such platforms run today: per recipe, count the expired failures, and delete the oldest beyond ten.
DO $$
DECLARE
    cutoff   timestamp := (now() AT TIME ZONE 'UTC') - interval '24 hours';
    failing  record;
    failures bigint;
BEGIN
    FOR failing IN
        SELECT DISTINCT recipe_id FROM generations WHERE user_id = 'system_backlog' AND status = 'failed'
    LOOP
        IF failing.recipe_id IS NULL THEN
            SELECT count(*) INTO failures FROM generations
            WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < cutoff AND recipe_id IS NULL;
            IF failures > 10 THEN
                DELETE FROM generations
                WHERE id IN (SELECT id FROM generations
                             WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < cutoff
                               AND recipe_id IS NULL
                             ORDER BY updated_at, id LIMIT failures - 10);
            END IF;
        ELSE
            SELECT count(*) INTO failures FROM generations
            WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < cutoff
              AND recipe_id = failing.recipe_id;
            IF failures > 10 THEN
                DELETE FROM generations
                WHERE id IN (SELECT id FROM generations
                             WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < cutoff
                               AND recipe_id = failing.recipe_id
                             ORDER BY updated_at, id LIMIT failures - 10);
            END IF;
        END IF;
    END LOOP;
END $$;
