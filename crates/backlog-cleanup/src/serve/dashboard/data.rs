use std::sync::Arc;

use backlog_cleanup_report::{CleanupDetail, StatusReport};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sqlx::PgPool;

use super::query::Query;
use crate::client::history::{self, Run};
use crate::serve::api::doctor::{self, Check, Doctor};
use crate::serve::api::status;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;

/// Runs that the page shows: as many as a person looks through.
const RUNS: i64 = 30;

/// What the page shows, as the SQL interface returns it.
pub struct Data {
    pub query: Query,
    pub now: DateTime<Utc>,
    pub targets: Vec<String>,
    pub status: StatusReport,
    pub findings: Vec<Check>,
    pub failures: Vec<Failures>,
    /// Newest first.
    pub runs: Vec<Run>,
    /// Of the run whose details are open, most removed first.
    pub run_recipes: Vec<CleanupDetail>,
}

/// One row of `backlog_cleanup_failures`.
#[derive(Deserialize)]
pub struct Failures {
    pub hour: DateTime<Utc>,
    pub failure_type: String,
    pub failed_count: i64,
}

/// As JSON, for all who ask at a time.
const FAILURES: &str = "
    SELECT COALESCE(jsonb_agg(f), '[]')::text FROM backlog_cleanup_failures($1::text, make_interval(hours => $2), types => 5) f
    WHERE isfinite(hour)";

impl Data {
    /// Reads all of it; what takes long at the same time.
    pub async fn read(app: &Arc<App>, caller: &Caller, query: Query) -> Result<Data, Problem> {
        let (pool, target) = (&caller.pool, query.target.as_str());
        let (status, findings, failures) = tokio::try_join!(
            status(app, caller, target),
            findings(app, caller, target),
            failures(app, caller, &query)
        )?;
        let mut runs = history::runs(pool, Some(target), None, RUNS).await?;
        let mut run_recipes = Vec::new();
        if let Some(id) = query.open() {
            run_recipes = history::recipes(pool, id).await?;
            if runs.iter().all(|run| run.id != id) {
                runs.extend(history::run(pool, id).await?.filter(|run| run.target == target));
            }
        }
        let targets = caller.targets().await?;
        Ok(Data { now: Utc::now(), targets, status, findings, failures, runs, run_recipes, query })
    }

    /// The run that is at work.
    pub fn at_work(&self) -> Option<&Run> {
        self.runs.iter().find(|run| run.state == "running")
    }
}

async fn status(app: &Arc<App>, caller: &Caller, target: &str) -> Result<StatusReport, Problem> {
    parsed(&status::report(app, caller, target.to_owned()).await?)
}

async fn findings(app: &Arc<App>, caller: &Caller, target: &str) -> Result<Vec<Check>, Problem> {
    let doctor: Doctor = parsed(&doctor::report(app, caller, target.to_owned()).await?)?;
    Ok(doctor.checks)
}

async fn failures(app: &Arc<App>, caller: &Caller, query: &Query) -> Result<Vec<Failures>, Problem> {
    let (pool, target, span) = (caller.pool.clone(), query.target.clone(), query.span);
    let question = (caller.role.clone(), span.words(), target.clone());
    let failures = app.flights.join(question, async move {
        let failures = sqlx::query_scalar::<_, String>(FAILURES);
        Ok(failures.bind(target).bind(span.hours()).fetch_one(&pool).await?.into())
    });
    parsed(&failures.await?)
}

fn parsed<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(json)
        .map_err(|error| Problem::internal(format!("the database's answer could not be read: {error}")))
}

/// Whose failed rows they are.
pub async fn account(pool: &PgPool, target: &str) -> Result<String, Problem> {
    let account = sqlx::query_scalar("SELECT account FROM backlog_cleanup.target WHERE name = $1");
    Ok(account.bind(target).fetch_one(pool).await?)
}
