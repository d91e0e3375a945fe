use crate::doctor::job::of_job;
use crate::obstacles::problem::Problem;
use crate::postgres::error::Result;

/// A run comes close to a timeout once it takes more than half of it. A batched run is one statement, but no transaction.
const TIMEOUTS: &str = "
    WITH job AS (
        SELECT r.oid AS role, r.rolname, d.oid AS database, d.datname, j.command ~* 'backlog_cleanup_run' AS is_batched
        FROM cron.job j JOIN pg_roles r ON r.rolname = j.username JOIN pg_database d ON d.datname = current_database()
        WHERE j.jobid = $1
    ), setting AS (
        SELECT DISTINCT ON (name) name, rolname, datname, is_batched,
               CASE WHEN value ~ '^[ 0-9.]+$' THEN value || ' ms' ELSE value END::interval AS timeout
        FROM job
        CROSS JOIN LATERAL (
            SELECT setrole <> 0, setdatabase <> 0, split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
            FROM pg_db_role_setting, unnest(setconfig) AS setting
            WHERE setrole IN (0, job.role) AND setdatabase IN (0, job.database)
            UNION ALL
            SELECT NULL, NULL, f.name, f.setting FROM pg_file_settings f WHERE f.applied
        ) known (of_role, of_database, name, value)
        WHERE name IN ('statement_timeout', 'transaction_timeout')
        ORDER BY name, of_role DESC NULLS LAST, of_database DESC NULLS LAST
    ), longest AS (
        SELECT max(finished_at - started_at) AS duration
        FROM (SELECT started_at, finished_at FROM backlog_cleanup.run WHERE target = $2 AND finished_at IS NOT NULL
              ORDER BY id DESC LIMIT 10) last
    )
    SELECT 'warn', format('runs took up to %s s, more than half of the %s of role \"%s\", %s s, which would end them',
                          round(extract(epoch FROM duration), 1), name, rolname, round(extract(epoch FROM timeout), 1)),
           format('ALTER ROLE %I IN DATABASE %I SET %s = %L', rolname, datname, name,
                  ceil(4 * extract(epoch FROM duration)) || 's')
    FROM setting, longest
    WHERE timeout > '0' AND duration > timeout / 2 AND NOT (name = 'transaction_timeout' AND is_batched)
    ORDER BY 2";

/// Compares the timeouts that the job's role has in this database with the longest of the last ten runs. A run sets its own
/// lock_timeout, and is never idle in a transaction.
pub fn timeouts(target: &str) -> Result<Vec<Problem>> {
    of_job(target, TIMEOUTS)
}
