use backlog_cleanup_report::{TICK_JOB, TICK_SCHEDULE, period};

use crate::doctor::job::{remark, unreadable};
use crate::extension;
use crate::obstacles::problem::{Problem, Status, problems};
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::run::ticks::{self, Kind};
use crate::schedule::{call_to_schedule_tick, database, jobs, jobs_of_database, pg_cron_elsewhere, ticking};

const FAILED: &str = "
    SELECT 'warn', format('step %s of the last tick has failed: %s', concat_ws(' of target ', quote_ident(step.name), quote_ident(step.target)),
                          step.error), NULL
    FROM (SELECT steps FROM backlog_cleanup.tick ORDER BY id DESC LIMIT 1) last
    CROSS JOIN LATERAL jsonb_to_recordset(last.steps) AS given (step text, target text, error text)
    CROSS JOIN LATERAL (SELECT given.step, given.target, given.error) AS step (name, target, error)
    WHERE step.error IS NOT NULL";

/// The rules of a target (`$1`) that take too long, or whose turn does not come. Of those that the last tick has ended, `FAILED` tells.
const RESTING: &str = "
    SELECT 'warn', format('rule \"%s\" rests until %s: it took longer than 3 s, and its alerts neither open nor resolve meanwhile', rule,
                          to_char((measured_at + interval '1 hour') AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC')), NULL
    FROM backlog_cleanup.alert_measured
    WHERE target = $1 AND was_ended AND measured_at BETWEEN now() - interval '1 hour' AND now()
      AND measured_at < (SELECT max(started_at) FROM backlog_cleanup.tick WHERE started_at <= now())
    UNION ALL
    SELECT 'warn', format('rule \"%s\" was not measured since %s: other rules have taken the time of all ticks', rule,
                          to_char(missed_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC')), NULL
    FROM backlog_cleanup.alert_measured
    WHERE target = $1 AND missed_since < now() - interval '15 minutes'";

/// What pg_cron says of the last run of a job (`$1`), if it failed. Of a message the first line: its DETAIL may show rows.
const FAILURE: &str = "
    SELECT format('its run of %s failed: %s', to_char(start_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'),
                  split_part(left(return_message, 2000), E'\\n', 1))
    FROM (SELECT * FROM cron.job_run_details
          WHERE jobid = $1 AND status IN ('succeeded', 'failed') ORDER BY runid DESC LIMIT 1) last
    WHERE status = 'failed'";

/// The rules of a target (`$1`) that the last tick would not measure, since that takes too long.
const UNMEASURED: &str = "
    SELECT 'what no tick measures: ' || string_agg(rule, '; ')
    FROM (SELECT steps FROM backlog_cleanup.tick ORDER BY id DESC LIMIT 1) last
    CROSS JOIN LATERAL jsonb_to_recordset(last.steps) AS step (step text, skipped text)
    CROSS JOIN LATERAL regexp_split_to_table(step.skipped, '; (?=rule \")') AS rule
    WHERE step.step = 'alerts' AND rule LIKE '%too dear: %' AND strpos(rule, format(' of target \"%s\": ', $1)) > 0";

/// A target (`$1`) whose rows are not counted: nothing is decided about it, and alerts do not know it.
const UNCOUNTED: &str = "
    SELECT 'warn', format('no sample of the last hour has counted the rows: %s', (array_agg(not_counted ORDER BY sampled_at DESC))[1]), NULL
    FROM backlog_cleanup.sample
    WHERE target = $1 AND grain = 'fine' AND sampled_at BETWEEN now() - interval '1 hour' AND now()
    HAVING count(*) >= 6 AND count(in_scope) = 0";

/// A tick whose transaction goes on keeps all others away; `$1` is its process.
const OPEN: &str = "
    SELECT 'warn', format('session %s of role \"%s\" has ticked in a transaction that goes on since %s: no other tick can begin before it ends',
                          pid, usename, to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC')),
           format('SELECT pg_terminate_backend(%s)', pid)
    FROM pg_stat_activity
    WHERE pid = $1 AND pid <> pg_backend_pid() AND (state ~ '^idle in transaction' OR xact_start < now() - interval '15 minutes')";

/// Alerts that a transaction has changed or locked open and resolve for nobody else before it ends: ticks pass them over, and so do servers
/// the channels.
const OPEN_ALERTS: &str = "
    SELECT 'warn', format('session %s of role \"%s\" has changed or locked alerts or their channels in a transaction that goes on since %s: no tick can open or resolve these, and no server deliver them, before it ends',
                          pid, usename, to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC')),
           format('SELECT pg_terminate_backend(%s)', pid)
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid()
      AND (state ~ '^idle in transaction' AND state_change < clock_timestamp() - interval '1 second' OR xact_start < now() - interval '15 minutes')
      AND pid IN (SELECT pid FROM pg_locks
                  WHERE relation IN ('backlog_cleanup.alert'::regclass, 'backlog_cleanup.alert_delivery'::regclass, 'backlog_cleanup.alert_channel'::regclass)
                    AND mode <> 'AccessShareLock' AND granted
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    ORDER BY xact_start, pid";

/// Checks that a job ticks, that the last tick is no older than its schedule allows, that no step of it has failed, and that samples count.
/// Whoever has never had a tick is told of it.
pub fn tick(target: &str) -> Result<Vec<Problem>> {
    // Until ALTER EXTENSION UPDATE there is no tick.
    if !extension::is_updated()? {
        return remark("this version has no tick");
    }
    for open in [problems(OPEN, &[ticks::holder(Kind::Tick)?.into()])?, problems(OPEN_ALERTS, &[])?] {
        if !open.is_empty() {
            return Ok(open);
        }
    }
    let warning = |detail: String, fix| Ok(vec![Problem { status: Status::Warn, detail, fix }]);
    let last = "SELECT extract(epoch FROM now() - max(started_at))::bigint FROM backlog_cleanup.tick WHERE started_at <= now()";
    let ago = extension::as_owner(|| read_one::<i64>(last, &[]))?;
    let (here, found) = (database()?, ticking()?);
    let register = call_to_schedule_tick(TICK_SCHEDULE, TICK_JOB)?;
    if !found.iter().any(|job| job.active)
        && let Some(job) = jobs()?.iter().find(|job| job.quietest_hour.is_some() && job.database == here)
    {
        let fix =
            found.first().map_or(register, |job| format!("SELECT cron.alter_job({}, active => true)", job.job_id));
        return warning(format!("{} follows the quietest hour, and no job ticks", job.describe()), Some(fix));
    }
    match (found.iter().find(|job| job.active), found.first(), ago) {
        (None, None, None) => {
            return remark(&match pg_cron_elsewhere()? {
                Some(home) => format!(
                    "there was no tick yet, and whether a job ticks cannot be seen from here: {}",
                    jobs_of_database(&home)?
                ),
                None => format!("there was no tick yet: {register} schedules it"),
            });
        }
        (None, Some(job), _) => {
            let fix = format!("SELECT cron.alter_job({}, active => true)", job.job_id);
            return warning(format!("{} ticks, and is not active", job.describe()), Some(fix));
        }
        (None, None, Some(ago)) if ago > 900 => {
            let minutes = ago / 60;
            return match pg_cron_elsewhere()? {
                Some(home) => {
                    let look = jobs_of_database(&home)?;
                    warning(format!("the last tick was {minutes} minutes ago: look for its job with {look}"), None)
                }
                None => warning(
                    format!("no job ticks any more, and the last tick was {minutes} minutes ago"),
                    Some(register),
                ),
            };
        }
        (Some(job), _, ago) => {
            let unreadable = unreadable(&[job], TICK_SCHEDULE)?;
            if !unreadable.is_empty() {
                return Ok(unreadable);
            }
            let longest =
                if job.schedule == TICK_SCHEDULE { 900 } else { i64::from(period(&job.schedule)) * 3_600 + 900 };
            let failure = || extension::as_owner(|| read_one::<String>(FAILURE, &[job.job_id.into()]));
            match ago {
                None => match failure()? {
                    Some(failure) => return warning(format!("{} has not ticked yet: {failure}", job.describe()), None),
                    None => return remark(&format!("{} has not ticked yet", job.describe())),
                },
                Some(ago) if ago > longest => {
                    let why = failure()?.unwrap_or("see checks \"scheduler\" and \"job_login\"".into());
                    let (job, minutes) = (job.describe(), ago / 60);
                    return warning(format!("{job} ticks, and the last tick was {minutes} minutes ago: {why}"), None);
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
    let mut failed = problems(FAILED, &[])?;
    failed.extend(problems(UNCOUNTED, &[target.into()])?);
    failed.extend(problems(RESTING, &[target.into()])?);
    if found.is_empty() {
        let minutes = ago.unwrap_or_default() / 60;
        failed.extend(remark(&match pg_cron_elsewhere()? {
            Some(home) => format!(
                "the last tick was {minutes} minutes ago; whether a job ticks cannot be seen from here: {}",
                jobs_of_database(&home)?
            ),
            None => format!("no job ticks; the last tick, by hand, was {minutes} minutes ago: {register} schedules it"),
        })?);
    }
    if failed.is_empty()
        && let Some(unmeasured) = extension::as_owner(|| read_one::<String>(UNMEASURED, &[target.into()]))?
    {
        return remark(&unmeasured);
    }
    Ok(failed)
}
