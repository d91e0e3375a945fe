use pgrx::prelude::*;

use crate::extension;
use crate::history::run::WHOLE_AND_DONE;
use crate::postgres::error::{Result, spi};
use crate::postgres::now::{one_now, rows_now};
use crate::schedule::{database, jobs, pg_cron_elsewhere, pg_cron_is_here, told};

/// What `prune` prunes, as `backlog_cleanup.retention` has it.
pub const WHAT: [&str; 10] = [
    "run_recipe",
    "run_failure",
    "run",
    "sample fine",
    "sample hour",
    "sample day",
    "tick",
    "decision",
    "alert",
    "cron.job_run_details",
];

/// Removes a bounded number of rows that are older than `backlog_cleanup.retention` says; returns why not. Passes over rows that another
/// session has locked.
pub fn prune(what: &str) -> Result<Option<String>> {
    match what {
        "cron.job_run_details" => return job_runs(),
        "run_recipe" | "run_failure" => run(&parts_older_than(what, what)),
        // A run that has lost all of its recipes takes little with it.
        "run" => run(&parts_older_than("run_recipe", "run")).and_then(|()| run(&runs())),
        "tick" => run(&numbered("tick", "started_at")),
        "decision" => run(&numbered("decision", "decided_at")),
        "alert" => run(&alerts()),
        samples => run(&samples_of(samples.trim_start_matches("sample "))),
    }
    .map(|()| None)
}

fn run(statement: &str) -> Result<()> {
    extension::as_owner(|| Spi::run(statement).map_err(spi))
}

/// The instant before which rows are too old; NULL if they are kept.
fn cutoff(what: &str) -> String {
    format!("(SELECT now() - max_age FROM backlog_cleanup.retention WHERE what = '{what}')")
}

/// Whether a run `r` is too old, has ended, and is not the last of its target, the last that was completed, the last regular one, or the
/// last regular one of everything that has done its work: status and doctor tell of these.
fn may_go(what: &str) -> String {
    let is_last = |kind: &str| {
        format!(
            "{kind} AND NOT EXISTS (SELECT FROM backlog_cleanup.run later WHERE later.target = r.target AND later.id > r.id AND {})",
            kind.replace("r.", "later.")
        )
    };
    let last = ["true", "r.state = 'completed'", "r.mode = 'regular'", WHOLE_AND_DONE];
    format!(
        "coalesce(r.finished_at, r.started_at) < {} AND r.state <> 'running' AND NOT ({})",
        cutoff(what),
        last.map(is_last).join(" OR ")
    )
}

/// Removes the rows of runs that are too old from a table, those of older runs first. Walks over the runs that have any.
fn parts_older_than(table: &str, what: &str) -> String {
    format!(
        "WITH RECURSIVE old (id) AS (
             SELECT min(run_id) FROM backlog_cleanup.{table}
             UNION ALL
             SELECT (SELECT min(run_id) FROM backlog_cleanup.{table} WHERE run_id > old.id)
             FROM old
             WHERE EXISTS (SELECT FROM backlog_cleanup.run r WHERE r.id = old.id AND r.started_at < {cutoff})
         )
         DELETE FROM backlog_cleanup.{table} WHERE ctid = ANY (ARRAY(
             SELECT lost.ctid
             FROM old JOIN backlog_cleanup.run r ON r.id = old.id JOIN backlog_cleanup.{table} lost ON lost.run_id = r.id
             WHERE {may_go} LIMIT 10000 FOR UPDATE OF lost SKIP LOCKED))",
        cutoff = cutoff(what),
        may_go = may_go(what)
    )
}

fn runs() -> String {
    format!(
        "DELETE FROM backlog_cleanup.run WHERE id = ANY (ARRAY(
             SELECT r.id FROM backlog_cleanup.run r
             WHERE {} AND NOT EXISTS (SELECT FROM backlog_cleanup.run_recipe left_over WHERE left_over.run_id = r.id)
             ORDER BY r.id LIMIT 100 FOR UPDATE SKIP LOCKED))",
        may_go("run")
    )
}

/// Of a table whose rows are numbered in the order of a time. Looks no further than to the first row that is not too old; one of the future is
/// of a clock that was ahead.
fn numbered(table: &str, time: &str) -> String {
    format!(
        "DELETE FROM backlog_cleanup.{table} WHERE id = ANY (ARRAY(
             SELECT id FROM backlog_cleanup.{table}
             WHERE {time} < {cutoff}
               AND id < coalesce((SELECT id FROM backlog_cleanup.{table} WHERE {time} BETWEEN {cutoff} AND now() ORDER BY id LIMIT 1),
                                 9223372036854775807)
             ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED))",
        cutoff = cutoff(table)
    )
}

/// An open alert stays, and so does one whose snooze is for those that open after it.
fn alerts() -> String {
    format!(
        "DELETE FROM backlog_cleanup.alert WHERE id = ANY (ARRAY(
             SELECT id FROM backlog_cleanup.alert
             WHERE resolved_at < {} AND (snoozed_until > now()) IS NOT TRUE
             ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED))",
        cutoff("alert")
    )
}

/// Of samples that the next grain has been made of. The last one of each grain stays, since the next is told apart from it.
fn samples_of(grain: &str) -> String {
    let next = match grain {
        "fine" => "date_trunc('hour', now(), 'UTC')",
        "hour" => "date_trunc('day', now(), 'UTC')",
        _ => "now()",
    };
    format!(
        "DELETE FROM backlog_cleanup.sample WHERE ctid = ANY (ARRAY(
             SELECT old.ctid
             FROM backlog_cleanup.target t
             CROSS JOIN LATERAL (SELECT s.ctid FROM backlog_cleanup.sample s
                                 WHERE s.target = t.name AND s.grain = '{grain}' AND s.sampled_at < least({}, {next})
                                   AND s.sampled_at < (SELECT max(last.sampled_at) FROM backlog_cleanup.sample last
                                                       WHERE last.target = t.name AND last.grain = '{grain}')
                                 ORDER BY s.sampled_at LIMIT 1000 FOR UPDATE SKIP LOCKED) old))",
        cutoff(&format!("sample {grain}"))
    )
}

/// How many lines of pg_cron's history a tick looks at, which prunes none and has an index for their numbers alone: those of others stay, and
/// are not to be read each time.
const LINES: i64 = 20_000;

/// Of pg_cron's history, what the extension's own jobs of this database have left.
fn job_runs() -> Result<Option<String>> {
    const IS_ON: &str = "
        SELECT what FROM backlog_cleanup.retention WHERE what = 'cron.job_run_details' AND max_age IS NOT NULL";
    // A piece of it after the other, tick by tick.
    const FIRST: &str = "
        SELECT first + (SELECT last_value FROM backlog_cleanup.tick_id_seq) % (1 + (last - first) / $1) * $1
        FROM (SELECT min(runid), max(runid) FROM cron.job_run_details) runs (first, last)";
    // The commands of jobs that are not there any more. Of what only names a function, the calls in it tell.
    const GONE: &str = r"
        SELECT DISTINCT command FROM cron.job_run_details d
        WHERE runid >= $1 AND runid < $1 + $2
          AND NOT EXISTS (SELECT FROM cron.job j WHERE j.jobid = d.jobid) AND database = current_database()
          AND octet_length(command) <= 2048 AND command ~ '\mbacklog_cleanup_(tick|run|failed_generations|emergency)\M'";
    const JOB_RUNS: &str = "
        DELETE FROM cron.job_run_details WHERE runid = ANY (ARRAY(
            SELECT runid FROM cron.job_run_details d
            WHERE runid >= $1 AND runid < $1 + $2
              AND (jobid = ANY ($3)
                   OR command = ANY ($4) AND NOT EXISTS (SELECT FROM cron.job j WHERE j.jobid = d.jobid) AND database = current_database())
              AND status NOT IN ('starting', 'running')
              AND coalesce(end_time, start_time)
                  < (SELECT now() - max_age FROM backlog_cleanup.retention WHERE what = 'cron.job_run_details')
            ORDER BY runid LIMIT 5000 FOR UPDATE OF d SKIP LOCKED))";
    let is_on = extension::as_owner(|| rows_now(IS_ON, &[], |row| row.get::<String>(1)))?;
    if is_on.is_empty() {
        return Ok(None);
    }
    if !pg_cron_is_here()? {
        return Ok(pg_cron_elsewhere()?.map(|home| format!("pg_cron is in database \"{home}\"")));
    }
    let here = database()?;
    let ours: Vec<i64> = jobs()?.into_iter().filter(|job| job.database == here).map(|job| job.job_id).collect();
    let schema = extension::schema()?;
    extension::as_owner(|| {
        let Some(first) = one_now::<i64>(FIRST, &[LINES.into()])? else { return Ok(None) };
        let gone = rows_now(GONE, &[first.into(), LINES.into()], |row| row.get::<String>(1))?;
        let mut gone: Vec<String> = gone.into_iter().flatten().collect();
        gone.retain(|command| {
            let told = told(command, &schema);
            told.ticks || !told.works.is_empty()
        });
        let arguments = [first.into(), LINES.into(), ours.into(), gone.into()];
        Spi::run_with_args(JOB_RUNS, &arguments).map_err(spi).map(|()| None)
    })
}

/// The targets that have an interrupted run whose working state is too old: no run has summed it up since.
pub fn left_over() -> Result<Vec<String>> {
    const LEFT_OVER: &str = "
        SELECT DISTINCT r.target
        FROM backlog_cleanup.run r JOIN backlog_cleanup.target t ON t.name = r.target
        CROSS JOIN LATERAL (SELECT now() - max_age AS cutoff FROM backlog_cleanup.retention WHERE what = 'run_batch') old
        WHERE r.id IN (SELECT run_id FROM backlog_cleanup.run_part
                       UNION SELECT run_id FROM backlog_cleanup.run_cutoff
                       UNION SELECT run_id FROM backlog_cleanup.run_batch)
          AND r.started_at < old.cutoff
          AND NOT EXISTS (SELECT FROM backlog_cleanup.run_batch b WHERE b.run_id = r.id AND b.finished_at >= old.cutoff)";
    let targets = extension::as_owner(|| rows_now(LEFT_OVER, &[], |row| row.get::<String>(1)))?;
    Ok(targets.into_iter().flatten().collect())
}
