-- A table of jobs of a shape, seven of ten failed in the last ten days, as a target; and the rows that a run is to remove. By variables of psql:
-- rows, indexes besides that of the key and ours, keep; a type and an expression of `i` for the id, the recipe and the payload; and
-- the target's recipe_column.
SET client_min_messages = error;
CREATE EXTENSION backlog_cleanup;
CREATE EXTENSION pg_prewarm;
CREATE TABLE job (id :id_type, recipe :recipe_type, state text NOT NULL, attempts integer NOT NULL, finished_at timestamptz, payload text);
ALTER TABLE job ALTER payload SET STORAGE EXTERNAL;
INSERT INTO job
SELECT :id, :recipe, CASE WHEN i % 10 < 7 THEN 'failed' ELSE 'completed' END, 3, now() - (1 - i::float8 / :rows) * interval '10 days', :payload
FROM generate_series(1::bigint, :rows) i;
ALTER TABLE job ADD PRIMARY KEY (id);
SELECT format('CREATE INDEX ON job (state, finished_at, (attempts + %s))', i) FROM generate_series(1, :indexes) i \gexec
DELETE FROM backlog_cleanup.target;
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account, recipe_column,
                                    status_column, failed_at_column, failure_type_column)
VALUES ('job', 'public.job', NULL, NULL, NULL, NULL, NULL, :recipe_column, 'state', 'finished_at', NULL);
UPDATE backlog_cleanup.policy SET keep = :keep;
CREATE TABLE removable AS
    SELECT tid FROM (
        SELECT ctid AS tid, row_number() OVER (PARTITION BY recipe ORDER BY finished_at DESC, id DESC) AS rank
        FROM job WHERE state = 'failed' AND finished_at < now() - interval '24 hours') ranked
    WHERE rank > :keep ORDER BY tid;
