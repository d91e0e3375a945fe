use crate::doctor::job::of_job;
use crate::extension;
use crate::obstacles::problem::{Problem, problems};
use crate::obstacles::used::on_tables;
use crate::postgres::error::Result;
use crate::postgres::table::Table;
use crate::target::TargetRow;
use crate::target::load::row;

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

/// Servers on which rows are removed by key without a lock_timeout there; `$2` is the one to set.
const SERVERS: &str = "
    SELECT DISTINCT 'warn',
           format('lock_timeout does not reach server %I, where a run waits for as long as another session holds a row%s', s.srvname,
                  CASE WHEN given.options IS NOT NULL
                       THEN format(': decide, and add -c lock_timeout=%s to what its option \"options\" has', $2) END),
           CASE WHEN given.options IS NULL
                THEN format('ALTER SERVER %I OPTIONS (ADD options %L)', s.srvname, '-c lock_timeout=' || $2) END
    FROM used
    JOIN pg_foreign_table t ON t.ftrelid = used.oid
    JOIN pg_foreign_server s ON s.oid = t.ftserver
    JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'postgres_fdw'
    CROSS JOIN LATERAL (SELECT max(option_value) FROM pg_options_to_table(s.srvoptions) WHERE option_name = 'options') given (options)
    -- The last one counts, and 0 is none; it is not deadlock_timeout.
    WHERE coalesce(substring(given.options FROM '(?i).*[^d]lock[-_]timeout=(\\S+)'), '') !~ '[1-9]'
    ORDER BY 2";

/// Compares the timeouts that the job's role has in this database with the longest of the last ten runs. A run sets its own
/// lock_timeout, and is never idle in a transaction; but its lock_timeout ends at this server.
pub fn timeouts(target: &str) -> Result<Vec<Problem>> {
    let mut found = of_job(target, TIMEOUTS)?;
    let TargetRow { generations_table, lock_timeout, .. } = row(Some(target))?;
    if let Some(table) = extension::as_owner(|| Table::find(&generations_table))? {
        let timeout = format!("{lock_timeout}ms");
        found.extend(problems(&on_tables(SERVERS), &[vec![table.oid].into(), timeout.into()])?);
    }
    Ok(found)
}
