-- After prepare.sql: the outage in a table as River has it, and a target that keeps the ten newest discarded jobs of each kind.
CREATE TYPE river_job_state AS ENUM ('available', 'cancelled', 'completed', 'discarded', 'retryable', 'running', 'scheduled');
CREATE TABLE river_job (
    id           bigserial PRIMARY KEY,
    state        river_job_state NOT NULL,
    attempt      smallint NOT NULL,
    max_attempts smallint NOT NULL,
    attempted_at timestamptz,
    created_at   timestamptz NOT NULL,
    finalized_at timestamptz,
    scheduled_at timestamptz NOT NULL,
    priority     smallint NOT NULL DEFAULT 1,
    args         jsonb NOT NULL,
    attempted_by text[],
    errors       jsonb[],
    kind         text NOT NULL,
    metadata     jsonb NOT NULL DEFAULT '{}',
    queue        text NOT NULL DEFAULT 'default',
    tags         varchar(255)[] NOT NULL DEFAULT '{}'
);
INSERT INTO river_job (id, state, attempt, max_attempts, attempted_at, created_at, finalized_at, scheduled_at, args, errors, kind)
SELECT id, CASE status WHEN 'failed' THEN 'discarded' WHEN 'completed' THEN 'completed' WHEN 'pending' THEN 'available' ELSE 'running' END::river_job_state,
       3, 3, updated_at, created_at, CASE WHEN status IN ('failed', 'completed') THEN updated_at END, created_at,
       metadata || jsonb_build_object('prompt', prompt), ARRAY[error_details], 'recipe ' || coalesce(recipe_id, 0)
FROM generations ORDER BY id;
CREATE INDEX ON river_job (kind);
CREATE INDEX ON river_job (state, finalized_at) WHERE finalized_at IS NOT NULL;
CREATE INDEX ON river_job (state, queue, priority, scheduled_at, id);
CREATE INDEX ON river_job USING gin (args);
CREATE INDEX ON river_job USING gin (metadata);
DELETE FROM backlog_cleanup.target;
DROP TABLE generations;
INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account, recipe_column,
                                    status_column, statuses, completed_status, failed_at_column, failure_type_column)
VALUES ('jobs', 'public.river_job', NULL, NULL, NULL, NULL, NULL, 'kind', 'state', '{discarded,cancelled,completed}', '{}', 'finalized_at', NULL);
UPDATE backlog_cleanup.policy SET keep = 0;
INSERT INTO backlog_cleanup.policy (target, status, max_age, keep) VALUES ('jobs', 'discarded', '24 hours', 10);
