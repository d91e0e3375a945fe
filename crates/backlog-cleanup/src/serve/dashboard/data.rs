use std::collections::BTreeMap;
use std::sync::Arc;

use backlog_cleanup_report::{CleanupDetail, Nouns, PolicyDetail, State, StatusDetail, StatusReport};
use chrono::{DateTime, Utc};

use super::query::{Query, Span};
use crate::client::alerts::{self, Alert};
use crate::client::analytics::{self, Grain, Hour, Sample};
use crate::client::calls::{self, Failures, Finding};
use crate::client::columns;
use crate::client::history::{self, Night, Run};
use crate::client::policies::{self, Policy};
use crate::client::targets::{self, About, Confirming};
use crate::serve::api::doctor::{self, Doctor};
use crate::serve::api::target;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, read};
use crate::serve::shared::light::Light;

/// The number of runs that the page shows.
const RUNS: i64 = 30;

/// All targets, with their lights as of the last count.
#[derive(Clone, Default)]
pub struct Tabs {
    pub targets: Vec<String>,
    /// The one to show where the address names none.
    usual: String,
    pub lights: BTreeMap<String, Light>,
}

impl Tabs {
    pub async fn read(app: &Arc<App>, caller: &Caller) -> Result<Tabs, Problem> {
        let (targets, usable) = (target::names(app, caller).await?, target::usable(app, caller).await?);
        Ok(Tabs { targets, usual: targets::usual(&usable).to_owned(), lights: app.metrics.lights() })
    }

    /// The target that a page is about.
    pub fn shown(&self, query: &Query) -> String {
        if query.target.is_empty() { &self.usual } else { &query.target }.clone()
    }
}

/// What the page shows.
pub struct Data {
    pub query: Query,
    /// The target that the address names, or the usual one.
    pub target: String,
    pub now: DateTime<Utc>,
    pub tabs: Tabs,
    pub about: About,
    pub status: Arc<StatusReport>,
    pub findings: Vec<Finding>,
    pub failures: Vec<Failures>,
    /// The alerts that are open, newest first.
    pub alerts: Vec<Alert>,
    /// Of the hours of a week, oldest first.
    pub samples: Vec<Sample>,
    pub quiet_hours: Vec<Hour>,
    /// Those that name most first.
    pub policies: Vec<Policy>,
    /// Newest first.
    pub runs: Vec<Run>,
    /// The nights between them that failed without a run.
    pub nights: Vec<Night>,
    /// The recipes of the run whose details are open, most removed first.
    pub run_recipes: Vec<CleanupDetail>,
    /// Its policies, those that name most first.
    pub run_policies: Vec<PolicyDetail>,
    /// Its rows by status.
    pub run_statuses: Vec<StatusDetail>,
}

/// The hours of a week.
const HOURS: i64 = 168;

/// The number of failure types in the chart; the others are `(other)`.
const TYPES: i32 = 5;

impl Data {
    /// Reads everything; the three slow queries run concurrently.
    pub async fn read(app: &Arc<App>, caller: &Caller, query: Query) -> Result<Data, Problem> {
        let tabs = Tabs::read(app, caller).await?;
        let target = tabs.shown(&query);
        let (status, findings, failures) = tokio::try_join!(
            status(app, caller, &target),
            findings(app, caller, &target),
            failures(app, caller, &target, query.span)
        )?;
        let mut work = caller.begin().await?;
        let policies = policies::list(&mut work, &target).await?;
        let alerts = alerts::list(&mut work, Some(&target), false).await?;
        let samples = analytics::samples(&mut work, &target, Grain::Hour, HOURS).await?;
        let quiet_hours = analytics::quiet_hours(&mut work, &target).await?;
        let mut runs = history::runs(&mut work, Some(&target), None, RUNS).await?;
        let nights = history::nights(&mut work, Some(&target), None, &runs, RUNS).await?;
        let (mut run_recipes, mut run_policies, mut run_statuses) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(id) = query.open() {
            run_recipes = calls::run_details(&mut work, id).await?;
            run_policies = history::policies(&mut work, id).await?;
            run_statuses = history::statuses(&mut work, id).await?;
            if runs.iter().all(|run| run.id != id) {
                runs.extend(history::run(&mut work, id).await?.filter(|run| run.target == target));
            }
        }
        let about = targets::about(&mut work, &target).await?;
        let about = about.ok_or_else(|| columns::missing(&target))?;
        Ok(Data {
            target,
            now: Utc::now(),
            tabs,
            about,
            status,
            findings,
            failures,
            alerts,
            samples,
            quiet_hours,
            policies,
            runs,
            nights,
            run_recipes,
            run_policies,
            run_statuses,
            query,
        })
    }

    /// What people call the target's groups and rows.
    pub fn nouns(&self) -> &Nouns {
        &self.status.nouns
    }

    /// The running run.
    pub fn running(&self) -> Option<&Run> {
        self.runs.iter().find(|run| run.state == State::Running)
    }
}

async fn status(app: &Arc<App>, caller: &Caller, target: &str) -> Result<Arc<StatusReport>, Problem> {
    let (access, target) = (Arc::clone(caller), target.to_owned());
    let question = (caller.role.clone(), "status", target.clone());
    app.reports
        .join(question, async move { Ok(Arc::new(calls::status(&mut *access.begin().await?, &target).await?)) })
        .await
}

/// The checks of the doctor.
pub async fn findings(app: &Arc<App>, caller: &Caller, target: &str) -> Result<Vec<Finding>, Problem> {
    let doctor: Doctor = read(&doctor::report(app, caller, target.to_owned()).await?)?;
    Ok(doctor.checks)
}

async fn failures(app: &Arc<App>, caller: &Caller, target: &str, span: Span) -> Result<Vec<Failures>, Problem> {
    let (access, target) = (Arc::clone(caller), target.to_owned());
    let question = (caller.role.clone(), span.words(), target.clone());
    let failures = app.flights.join(question, async move {
        let failures = calls::failures(&mut *access.begin().await?, &target, span.hours(), TYPES).await?;
        Ok(serde_json::to_vec(&failures).expect("texts are JSON").into())
    });
    read(&failures.await?)
}

/// What people call the groups and rows of a target.
pub async fn nouns(caller: &Caller, target: &str) -> Result<Nouns, Problem> {
    Ok(targets::nouns(&mut *caller.begin().await?, target).await?)
}

/// What confirms an emergency run of a target. Errors: 404.
pub async fn confirming(caller: &Caller, target: &str) -> Result<Confirming, Problem> {
    let confirming = targets::confirming(&mut *caller.begin().await?, target).await?;
    Ok(confirming.ok_or_else(|| columns::missing(target))?)
}
