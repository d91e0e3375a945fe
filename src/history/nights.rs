use pgrx::prelude::*;

use crate::extension::{self, schema};
use crate::postgres::error::{Result, spi};
use crate::postgres::read::read_one;
use crate::schedule::{database, pg_cron_is_here, told};

/// A failed run of a job, as pg_cron has it.
#[derive(Clone)]
pub struct Night {
    pub job_id: i64,
    pub target: String,
    pub mode: String,
    pub requested_by: String,
    pub started_at: Option<TimestampWithTimeZone>,
    pub finished_at: Option<TimestampWithTimeZone>,
    pub message: String,
}

/// The failed runs of this database's jobs in pg_cron's own history, the newest first: a run of one transaction leaves nothing
/// else when it fails. Whoever has a job may have it say anything: only those of roles that may run count. Of a message the first line, in whatever language: its DETAIL may show values of rows.
pub fn failed() -> Result<Vec<Night>> {
    const MAY: &str = "SELECT has_table_privilege('cron.job_run_details', 'SELECT')";
    // Whoever has a job decides how long its command and its messages are, and how many runs it calls.
    const MOST: usize = 10_000;
    // pg_cron prunes nothing, and has an index for this alone: of the last 300,000 runs of all jobs, a second at most is spent.
    // The newest of each job come first, role by role, so that no other job and no other role hides the nights of one.
    const FAILED: &str = r#"
        WITH may (username) AS (
            -- What the job of another role says is no run.
            SELECT r.rolname FROM pg_roles r, pg_extension e JOIN pg_proc p ON p.pronamespace = e.extnamespace
            WHERE e.extname = 'backlog_cleanup' AND p.proname = 'backlog_cleanup_failed_generations'
              AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
        ), of_job AS (
            SELECT runid, username, row_number() OVER (PARTITION BY username, jobid ORDER BY runid DESC) AS place
            FROM cron.job_run_details JOIN may USING (username)
            WHERE runid > (SELECT max(runid) FROM cron.job_run_details) - 300000
              AND status = 'failed' AND left(command, 4096) ~* 'backlog_cleanup|u&"' AND database = $1
        ), newest AS (
            SELECT runid, row_number() OVER (PARTITION BY username ORDER BY place, runid DESC) AS place
            FROM of_job
            ORDER BY place, runid DESC LIMIT 1000
        )
        SELECT left(command, 4096), jobid, username, start_time, end_time,
               regexp_replace(split_part(left(return_message, 2000), E'\n', 1), '^[^:[:lower:]]+:\s+', '')
        FROM newest JOIN cron.job_run_details USING (runid)
        ORDER BY place, runid DESC"#;
    if !pg_cron_is_here()? {
        return Ok(Vec::new());
    }
    let (here, schema) = (database()?, schema()?);
    let found: Vec<(String, Night)> = extension::as_owner(|| {
        // The extension's owner need not be a superuser.
        if read_one::<bool>(MAY, &[])? != Some(true) {
            return Ok(Vec::new());
        }
        Spi::connect(|client| {
            client
                .select(FAILED, None, &[here.into()])?
                .map(|row| {
                    let night = Night {
                        job_id: row.get(2)?.unwrap_or_default(),
                        target: String::new(),
                        mode: String::new(),
                        requested_by: row.get(3)?.unwrap_or_default(),
                        started_at: row.get(4)?,
                        finished_at: row.get(5)?,
                        message: row.get(6)?.unwrap_or_default(),
                    };
                    Ok((row.get(1)?.unwrap_or_default(), night))
                })
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })?;
    let mut nights = Vec::new();
    for (command, night) in found {
        let mut works = told(&command, &schema).works;
        works.dedup();
        for work in works {
            if let Some(target) = work.target.filter(|_| nights.len() < MOST) {
                nights.push(Night { target, mode: work.mode.as_str().to_owned(), ..night.clone() });
            }
        }
    }
    Ok(nights)
}

#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(sql = false)]
fn failed_jobs() -> Result<
    TableIterator<
        'static,
        (
            name!(job_id, i64),
            name!(target, String),
            name!(mode, String),
            name!(requested_by, String),
            name!(started_at, Option<TimestampWithTimeZone>),
            name!(finished_at, Option<TimestampWithTimeZone>),
            name!(message, String),
        ),
    >,
> {
    let night = |n: Night| (n.job_id, n.target, n.mode, n.requested_by, n.started_at, n.finished_at, n.message);
    Ok(TableIterator::new(failed()?.into_iter().map(night)))
}
