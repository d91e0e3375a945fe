-- After prepare.sql: the outage in a table as Oban has it, and a target that keeps the ten newest discarded jobs of each queue and worker.
CREATE TYPE oban_job_state AS ENUM ('available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled');
CREATE TABLE oban_jobs (
    id           bigserial PRIMARY KEY,
    state        oban_job_state NOT NULL,
    queue        text NOT NULL DEFAULT 'default',
    worker       text NOT NULL,
    args         jsonb NOT NULL,
    meta         jsonb NOT NULL DEFAULT '{}',
    tags         text[] NOT NULL DEFAULT '{}',
    errors       jsonb[] NOT NULL DEFAULT '{}',
    attempt      integer NOT NULL,
    max_attempts integer NOT NULL,
    priority     integer NOT NULL DEFAULT 0,
    inserted_at  timestamp NOT NULL,
    scheduled_at timestamp NOT NULL,
    attempted_at timestamp,
    completed_at timestamp,
    cancelled_at timestamp,
    discarded_at timestamp
);
INSERT INTO oban_jobs (id, state, worker, args, errors, attempt, max_attempts, inserted_at, scheduled_at, attempted_at, completed_at, discarded_at)
SELECT id, CASE status WHEN 'failed' THEN 'discarded' WHEN 'completed' THEN 'completed' WHEN 'pending' THEN 'available' ELSE 'executing' END::oban_job_state,
       'Recipe' || coalesce(recipe_id, 0), metadata || jsonb_build_object('prompt', prompt), coalesce(ARRAY[error_details], '{}'), 20, 20,
       created_at, created_at, updated_at, CASE status WHEN 'completed' THEN updated_at END, CASE status WHEN 'failed' THEN updated_at END
FROM generations ORDER BY id;
CREATE INDEX ON oban_jobs (state, queue, priority, scheduled_at, id);
CREATE INDEX ON oban_jobs (state, cancelled_at);
CREATE INDEX ON oban_jobs (state, discarded_at);
CREATE INDEX ON oban_jobs USING gin (args);
CREATE INDEX ON oban_jobs USING gin (meta);
DELETE FROM backlog_cleanup.target;
DROP TABLE generations;
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account, recipe_columns, recipe_column,
                                    status_column, statuses, completed_status, failed_at_column, failure_type_column)
VALUES ('jobs', 'public.oban_jobs', NULL, NULL, NULL, NULL, NULL, '{queue,worker}', NULL, 'state', '{discarded,cancelled,completed}', '{}',
        '(coalesce(discarded_at, cancelled_at, completed_at))', NULL);
UPDATE backlog_cleanup.policy SET keep = 0;
INSERT INTO backlog_cleanup.policy (target, status, max_age, keep) VALUES ('jobs', 'discarded', '24 hours', 10);
