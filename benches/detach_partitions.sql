-- The same where retention keeps the tables: they are partitions no more.
DO $$
DECLARE
    old regclass;
BEGIN
    FOR old IN SELECT relid FROM pg_partition_tree('generations')
               WHERE isleaf AND to_date(right(relid::text, 8), 'YYYYMMDD') + 1 < (now() AT TIME ZONE 'UTC') - interval '24 hours'
    LOOP
        EXECUTE format('ALTER TABLE generations DETACH PARTITION %s', old);
    END LOOP;
END $$;
