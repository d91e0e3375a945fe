use std::time::Instant;

use backlog_cleanup_report::{STATUSES, StatusReport};
use chrono::{DateTime, Utc};

use crate::client::policies;
use crate::client::statement::query_scalar;
use crate::client::{calls, history, targets};
use crate::serve::access::Access;
use crate::serve::shared::cron::longest_gap;
use crate::serve::shared::light::{Light, Night, judge};

/// The number of failure types that have a series of their own; the others share `(other)`.
pub const TYPES: i32 = 20;

/// The number of policies that have a series of their own; the others share `(other)`.
pub const POLICIES: usize = 50;

/// The number of statuses that have a series of their own; the others share `(other)`.
pub const EVERY_STATUS: usize = 20;

/// What sums up those behind the largest.
const OTHER: &str = "(other)";

/// The status of rows that have none.
const NONE: &str = "(none)";

/// The last count of a target, and whether there was an error since.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    pub success: bool,
    pub figures: Option<Figures>,
    /// `None` while it is not known.
    pub light: Option<Light>,
}

/// What was counted, and when.
#[derive(Debug, Clone)]
pub struct Figures {
    pub at: DateTime<Utc>,
    /// How long it took.
    pub seconds: f64,
    /// By status; `other` are those of none that is counted.
    pub rows: Vec<(&'static str, i64)>,
    pub removable: i64,
    pub oldest_failed_at: Option<DateTime<Utc>>,
    /// The longest time between two runs of the schedule.
    pub period_days: i64,
    pub failure_types: Vec<(String, i64)>,
    /// The removed rows of the ledger less those of the runs; `None` without a ledger.
    pub books_difference: Option<i64>,
    /// Of the last regular run, by policy: rows in scope, rows removed.
    pub policies: Vec<(String, [i64; 2])>,
    /// The same by status.
    pub run_statuses: Vec<(String, [i64; 2])>,
    /// The rows of every status that is there.
    pub every_status: Vec<(String, [i64; 1])>,
}

impl Counted {
    /// Renews the figures; keeps the last ones, with their time, if the count failed.
    pub fn renew(&mut self, target: &str, figures: sqlx::Result<Figures>) {
        self.success = figures.is_ok();
        match figures {
            Ok(figures) => self.figures = Some(figures),
            Err(error) => tracing::warn!(target_name = target, %error, "the target could not be counted"),
        }
    }
}

/// The light of a target, as its page shows it.
pub async fn light(access: &Access, target: &str) -> sqlx::Result<Light> {
    let mut work = access.begin().await?;
    let findings = calls::doctor(&mut work, target).await?;
    let about = targets::about(&mut work, target).await?;
    let runs = history::runs(&mut work, Some(target), None, 1).await?;
    // Only where the doctor warns of the job: the answer counts the table.
    let warns_of_job = findings.iter().any(|finding| finding.check == "job" && finding.status != "ok");
    let night = Night {
        has_policy: about.is_some_and(|about| about.max_age.is_some()),
        has_job: !warns_of_job || calls::job(&mut work, target).await.is_ok_and(|job| job["active"] == true),
    };
    Ok(judge(&findings, runs.first(), night).0)
}

pub async fn figures(access: &Access, target: &str) -> sqlx::Result<Figures> {
    let started = Instant::now();
    let mut work = access.begin().await?;
    let at = query_scalar("SELECT now()").fetch_one(&mut *work).await?;
    let status: StatusReport = calls::status(&mut work, target).await?;
    let failure_types = calls::failure_types(&mut work, target, TYPES).await?;
    let books_difference = calls::books_difference(&mut work, target).await?;
    let policies = policies::list(&mut work, target).await?.into_iter();
    let policies = policies.filter_map(|it| Some((it.policy, [it.in_scope?, it.removed?])));
    let run_statuses = match history::last_whole_run(&mut work, target).await? {
        Some(run) => history::statuses(&mut work, run).await?,
        None => Vec::new(),
    };
    let run_statuses =
        run_statuses.into_iter().map(|it| (it.status.unwrap_or_else(|| NONE.into()), [it.in_scope, it.removed]));
    let every_status = status.every_status.iter().map(|it| (it.status.clone(), [it.count]));
    Ok(Figures {
        at,
        seconds: started.elapsed().as_secs_f64(),
        rows: rows(&status),
        removable: status.removable_generations,
        // An infinite time cannot be parsed, and is left out.
        oldest_failed_at: status
            .recipes_with_failed_generations
            .iter()
            .filter_map(|recipe| recipe.oldest_failed_at.as_ref()?.parse().ok())
            .min(),
        period_days: status.schedule["schedule"].as_str().map_or(1, longest_gap),
        failure_types,
        books_difference,
        policies: bounded(policies, POLICIES),
        run_statuses: bounded(run_statuses, EVERY_STATUS),
        every_status: bounded(every_status, EVERY_STATUS),
    })
}

fn rows(status: &StatusReport) -> Vec<(&'static str, i64)> {
    let mut rows = STATUSES.map(|name| (name, status.statuses.of(name))).to_vec();
    let counted: i64 = rows.iter().map(|(_, count)| count).sum();
    rows.push(("other", status.total_generations - counted));
    rows
}

/// Those with the largest figures, and the sums of the others.
fn bounded<const N: usize>(all: impl Iterator<Item = (String, [i64; N])>, most: usize) -> Vec<(String, [i64; N])> {
    // The extension may have summed up some of them.
    let (mut others, mut listed): (Vec<_>, Vec<_>) = all.partition(|(name, _)| name == OTHER);
    listed.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    others.extend(listed.split_off(listed.len().min(most)));
    if !others.is_empty() {
        let sum = |figure: usize| others.iter().map(|(_, figures)| figures[figure]).sum();
        listed.push((OTHER.into(), std::array::from_fn(sum)));
    }
    listed
}
