-- After prepare.sql: the same rows in a partition per day. A key of a partitioned table has the day in it, so short_id is unique no more.
CREATE TEMP TABLE definition AS SELECT indexdef FROM pg_indexes WHERE indexname LIKE 'idx_generations%';
ALTER TABLE generations RENAME TO undivided;
CREATE TABLE generations (LIKE undivided INCLUDING DEFAULTS) PARTITION BY RANGE (updated_at);
SELECT format('CREATE TABLE generations_%s PARTITION OF generations FOR VALUES FROM (%L) TO (%L)',
              to_char(day, 'YYYYMMDD'), day, day + interval '1 day')
FROM (SELECT min(updated_at)::date AS first, max(updated_at)::date AS last FROM undivided) days, generate_series(first, last, interval '1 day') day \gexec
INSERT INTO generations SELECT * FROM undivided;
ALTER SEQUENCE generations_id_seq OWNED BY NONE;
DROP TABLE undivided;
ALTER TABLE generations ADD PRIMARY KEY (id, updated_at);
SELECT indexdef FROM definition \gexec
