//! `schedule => 'auto'`: a nightly job that follows the quietest hour of the day, by the clock of its target's time zone.

use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error, spi};
use crate::postgres::read::read_one;
use crate::schedule::home::{pg_cron_is_here, setting};
use crate::schedule::quiet_hours::{Hour, hours, quietest};
use crate::schedule::statement::call_to_schedule;
use crate::schedule::work::told;
use crate::target::TargetRow;
use crate::target::row::row;

/// The schedule that follows.
pub const AUTO: &str = "auto";
/// Where a job is before the samples tell.
const DEFAULT_HOUR: i32 = 2;
/// On so many days each hour has to be sampled before they do.
const DAYS: i64 = 3;

/// A row of `backlog_cleanup.auto_schedule`, and the schedule that its job has in pg_cron.
pub struct AutoJob {
    pub id: i64,
    pub target: String,
    pub hour: i32,
    pub schedule: String,
    pub is_known: bool,
    pub moved_seconds: f64,
    pub database: Option<String>,
    pub current: Option<String>,
    /// Whether a job of this number has its name and its role, and runs its target. pg_cron numbers jobs anew when it is created, and a
    /// dump brings the numbers of another server.
    pub is_there: bool,
}

/// An hour of the day, and the schedule in pg_cron that is then.
pub struct Place {
    pub hour: i32,
    pub schedule: String,
    is_known: bool,
}

impl Place {
    pub fn of(hour: i32, is_known: bool, target: &TargetRow) -> Result<Place> {
        // Of its next time: it depends on daylight saving.
        const SCHEDULE: &str = "
            SELECT pg_catalog.to_char(pg_catalog.timezone(CASE WHEN $3 OPERATOR(pg_catalog.<>) '' THEN $3 ELSE 'GMT' END, at), 'FMMI FMHH24 * * *')
            FROM (SELECT pg_catalog.timezone($2, pg_catalog.date_trunc('day', pg_catalog.timezone($2, pg_catalog.now()))
                                                 OPERATOR(pg_catalog.+) pg_catalog.make_interval(days => day, hours => $1)) AS at
                  FROM pg_catalog.generate_series(0, 2) AS day) times
            WHERE at OPERATOR(pg_catalog.>) pg_catalog.now()
            ORDER BY at LIMIT 1";
        let zone = setting("cron.timezone")?.unwrap_or_default();
        let arguments = [hour.into(), target.time_zone.as_str().into(), zone.into()];
        let schedule = read_one::<String>(SCHEDULE, &arguments)?.unwrap_or_default();
        Ok(Place { hour, schedule, is_known })
    }

    /// Where a job begins. Errors: 22023 (no hour begins within `run_between`), 55000 (until ALTER EXTENSION UPDATE).
    pub fn first(target: &str, job_name: &str) -> Result<Place> {
        extension::is_of_this_version()?;
        let target = row(Some(target))?;
        if let Some(window) = target.run_between.as_ref().filter(|_| !has_hours(&target)) {
            let zone = setting("cron.timezone")?.unwrap_or_default();
            let schedule = format!("{} * * *", window.opens(&target.time_zone, &zone)?);
            return Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("no hour begins within run_between, {window}: schedule \"auto\" has none to follow"),
                call_to_schedule(&schedule, true, &target.name, job_name)?,
            ));
        }
        let hours = hours(&target.name, &target.time_zone)?;
        let quietest = quietest_of(&hours, &target);
        Place::of(quietest.map_or(default_hour(&target), |hour| hour.hour), quietest.is_some(), &target)
    }

    /// Has the tick move a job from here.
    pub fn remember(&self, job: i64, target: &str) -> Result<()> {
        const REMEMBER: &str = "
            INSERT INTO backlog_cleanup.auto_schedule (job_id, job_name, username, target, hour, schedule, is_known, moved_at)
            SELECT jobid, jobname::text, username, $2, $3, $4, $5, now() FROM cron.job WHERE jobid = $1
            ON CONFLICT (job_id) DO UPDATE
            SET job_name = EXCLUDED.job_name, username = EXCLUDED.username, target = EXCLUDED.target, hour = EXCLUDED.hour, schedule = EXCLUDED.schedule, is_known = EXCLUDED.is_known,
                moved_at = EXCLUDED.moved_at";
        let values = [job.into(), target.into(), self.hour.into(), self.schedule.as_str().into(), self.is_known.into()];
        extension::as_owner(|| Spi::run_with_args(REMEMBER, &values).map_err(spi))
    }

    /// Writes where a job is now: it has moved, or only the clock has.
    pub fn update(&self, job: &AutoJob) -> Result<()> {
        const UPDATE: &str = "
            UPDATE backlog_cleanup.auto_schedule
            SET moved_at = CASE WHEN (hour, is_known) = ($2, $4) THEN moved_at ELSE now() END, hour = $2, schedule = $3, is_known = $4
            WHERE job_id = $1";
        let values = [job.id.into(), self.hour.into(), self.schedule.as_str().into(), self.is_known.into()];
        extension::as_owner(|| {
            Spi::run_with_args(
                "SELECT cron.alter_job($1, schedule => $2)",
                &[job.id.into(), self.schedule.as_str().into()],
            )
            .and_then(|()| Spi::run_with_args(UPDATE, &values))
            .map_err(spi)
        })
    }
}

/// Whether the target's window, if it has one, has the hour.
pub fn is_in_window(hour: i32, target: &TargetRow) -> bool {
    target.run_between.as_ref().is_none_or(|window| window.has(&format!("{hour:02}:00:00")))
}

/// Whether an hour begins in the target's window.
pub fn has_hours(target: &TargetRow) -> bool {
    (0..24).any(|hour| is_in_window(hour, target))
}

/// Whether a job of a target has moved since a day ago: its next run can be almost two days after the last.
pub fn has_moved(target: &str) -> Result<bool> {
    const MOVED: &str = "
        SELECT target FROM backlog_cleanup.auto_schedule WHERE target = $1 AND moved_at > now() - interval '1 day' LIMIT 1";
    if !extension::is_updated()? {
        return Ok(false);
    }
    extension::as_owner(|| Ok(read_one::<String>(MOVED, &[target.into()])?.is_some()))
}

/// The default hour, or the first in the target's window.
fn default_hour(target: &TargetRow) -> i32 {
    (DEFAULT_HOUR..DEFAULT_HOUR + 24)
        .map(|hour| hour % 24)
        .find(|hour| is_in_window(*hour, target))
        .unwrap_or(DEFAULT_HOUR)
}

/// The quietest hour in the target's window; `None` before each hour was sampled on enough days.
pub fn quietest_of<'a>(hours: &'a [Hour], target: &TargetRow) -> Option<&'a Hour> {
    let are_enough = hours.iter().all(|hour| hour.days >= DAYS);
    quietest(hours.iter().filter(|hour| is_in_window(hour.hour, target))).filter(|_| are_enough)
}

/// Where a job goes that may move: as far as one move goes towards the quietest hour, but into the target's window at once.
pub fn towards(quietest: i32, job: &AutoJob, furthest: i32, target: &TargetRow) -> i32 {
    let way = (quietest - job.hour + 36) % 24 - 12;
    let next = (job.hour + way.clamp(-furthest, furthest)).rem_euclid(24);
    if is_in_window(job.hour, target) && is_in_window(next, target) { next } else { quietest }
}

/// The hour at which a job waits for samples.
pub fn waiting(job: &AutoJob, target: &TargetRow) -> i32 {
    if is_in_window(job.hour, target) { job.hour } else { default_hour(target) }
}

/// The jobs that follow.
pub fn all() -> Result<Vec<AutoJob>> {
    const ALL: &str = "
        SELECT a.job_id, a.target, a.hour, a.schedule, a.is_known, extract(epoch FROM now() - a.moved_at)::float8, j.database, j.schedule,
               (j.jobname::text, j.username) IS NOT DISTINCT FROM (a.job_name, a.username), left(j.command, 4096)
        FROM backlog_cleanup.auto_schedule a LEFT JOIN cron.job j ON j.jobid = a.job_id
        ORDER BY a.target, a.job_id";
    let some =
        extension::as_owner(|| read_one::<i64>("SELECT job_id FROM backlog_cleanup.auto_schedule LIMIT 1", &[]))?;
    if some.is_none() || !pg_cron_is_here()? {
        return Ok(Vec::new());
    }
    let schema = extension::schema()?;
    extension::as_owner(|| {
        Spi::connect(|client| {
            let job = |row: pgrx::spi::SpiHeapTupleData| {
                let target: String = row.get(2)?.unwrap_or_default();
                let works = told(&row.get::<String>(10)?.unwrap_or_default(), &schema).works;
                Ok(AutoJob {
                    id: row.get(1)?.unwrap_or_default(),
                    hour: row.get(3)?.unwrap_or_default(),
                    schedule: row.get(4)?.unwrap_or_default(),
                    is_known: row.get(5)?.unwrap_or_default(),
                    moved_seconds: row.get(6)?.unwrap_or_default(),
                    database: row.get(7)?,
                    current: row.get(8)?,
                    is_there: row.get(9)? == Some(true) && works.iter().any(|work| work.is_regular_run_of(&target)),
                    target,
                })
            };
            client.select(ALL, None, &[])?.map(job).collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}

/// Leaves a job where it is from now on.
pub fn forget(job: i64) -> Result<()> {
    if !extension::is_updated()? {
        return Ok(());
    }
    let forget = "DELETE FROM backlog_cleanup.auto_schedule WHERE job_id = $1";
    extension::as_owner(|| Spi::run_with_args(forget, &[job.into()]).map_err(spi))
}
