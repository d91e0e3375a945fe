-- What pg_partman's retention does, in plain SQL: partitions of which every row is older than a day go, whatever is in them.
DO $$
DECLARE
    old regclass;
BEGIN
    FOR old IN SELECT relid FROM pg_partition_tree('generations')
               WHERE isleaf AND to_date(right(relid::text, 8), 'YYYYMMDD') + 1 < (now() AT TIME ZONE 'UTC') - interval '24 hours'
    LOOP
        EXECUTE format('DROP TABLE %s', old);
    END LOOP;
END $$;
