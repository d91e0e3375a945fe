-- Small batches by key, as pt-archiver does it: ids of a thousand rows behind the last one, a DELETE of these, a commit.
DO $$
DECLARE
    ids  integer[];
    last integer := 0;
BEGIN
    LOOP
        ids := ARRAY(SELECT id FROM generations
                     WHERE id > last AND user_id = 'system_backlog' AND status = 'failed'
                       AND updated_at < (now() AT TIME ZONE 'UTC') - interval '24 hours'
                     ORDER BY id LIMIT 1000);
        EXIT WHEN ids = '{}';
        DELETE FROM generations WHERE id = ANY (ids);
        last := ids[cardinality(ids)];
        COMMIT;
    END LOOP;
END $$;
