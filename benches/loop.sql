-- What such platforms run today: one DELETE per recipe, of the oldest expired failures beyond ten.
DO $$
DECLARE
    cutoff  timestamp := (now() AT TIME ZONE 'UTC') - interval '24 hours';
    failing record;
BEGIN
    FOR failing IN
        SELECT recipe_id, count(*) AS failures FROM generations
        WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < cutoff
        GROUP BY recipe_id
    LOOP
        IF failing.failures <= 10 THEN
            CONTINUE;
        ELSIF failing.recipe_id IS NULL THEN
            DELETE FROM generations
            WHERE id IN (SELECT id FROM generations
                         WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < cutoff
                           AND recipe_id IS NULL
                         ORDER BY updated_at, id LIMIT failing.failures - 10);
        ELSE
            DELETE FROM generations
            WHERE id IN (SELECT id FROM generations
                         WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < cutoff
                           AND recipe_id = failing.recipe_id
                         ORDER BY updated_at, id LIMIT failing.failures - 10);
        END IF;
    END LOOP;
END $$;
