use std::ffi::CString;

use pgrx::prelude::*;

use crate::doctor::job::{no_job, with_settings_of_job};
use crate::extension;
use crate::obstacles::problem::{Problem, problems};
use crate::obstacles::used::on_tables;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::postgres::table::Table;
use crate::schedule::jobs_of;
use crate::target::TargetRow;
use crate::target::row::row;

/// A run comes close to a timeout once it takes more than half of it. A batched run is one statement, but no transaction. What
/// settings say is `$3`, and in milliseconds `$4`.
const TIMEOUTS: &str = with_settings_of_job!(
    "'statement_timeout', 'transaction_timeout'",
    ", longest AS (
        SELECT max(finished_at - started_at) AS duration
        FROM (SELECT started_at, finished_at FROM backlog_cleanup.run WHERE target = $2 AND finished_at IS NOT NULL
              ORDER BY id DESC LIMIT 10) last
    )
    SELECT 'warn', format('runs took up to %s s, more than half of the %s of role \"%s\", %s s, which would end them',
                          round(extract(epoch FROM duration), 1), name, rolname, round(extract(epoch FROM timeout), 1)),
           format('ALTER ROLE %I IN DATABASE %I SET %s = %L', rolname, datname, name,
                  ceil(4 * extract(epoch FROM duration)) || 's')
    FROM (SELECT setting.*, milliseconds * interval '1 ms' AS timeout FROM setting JOIN unnest($3, $4) read (value, milliseconds) USING (value)) setting,
         longest
    WHERE timeout > '0' AND duration > timeout / 2 AND NOT (name = 'transaction_timeout' AND is_batched)
    ORDER BY 2"
);

/// What is set as a timeout, anywhere.
const VALUES: &str = "
    SELECT array_agg(DISTINCT value)
    FROM (SELECT split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
          FROM pg_db_role_setting, unnest(setconfig) AS setting
          UNION ALL
          SELECT name, setting FROM pg_file_settings) AS setting (name, value)
    WHERE name IN ('statement_timeout', 'transaction_timeout') AND value IS NOT NULL";

/// A timeout as a setting says it, in milliseconds: `30s`, `1e3`, `0x1F4`.
fn milliseconds(value: &str) -> Option<i64> {
    let (value, mut number) = (CString::new(value).ok()?, 0);
    // SAFETY: the value outlives the call, which raises nothing.
    let is_read =
        unsafe { pg_sys::parse_int(value.as_ptr(), &mut number, pg_sys::GUC_UNIT_MS as i32, std::ptr::null_mut()) };
    is_read.then_some(number.into())
}

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
    let values = extension::as_owner(|| read_one::<Vec<String>>(VALUES, &[]))?.unwrap_or_default();
    let (values, read): (Vec<String>, Vec<i64>) =
        values.into_iter().filter_map(|value| milliseconds(&value).map(|read| (value, read))).unzip();
    let mut found = match jobs_of(target)?.first() {
        Some(job) => problems(TIMEOUTS, &[job.job_id.into(), target.into(), values.into(), read.into()])?,
        None => no_job()?,
    };
    let TargetRow { generations_table, lock_timeout, .. } = row(Some(target))?;
    if let Some(table) = extension::as_owner(|| Table::find(&generations_table))? {
        let timeout = format!("{lock_timeout}ms");
        found.extend(problems(&on_tables(SERVERS), &[vec![table.oid].into(), timeout.into()])?);
    }
    Ok(found)
}
