use std::sync::Arc;

use serde::Deserialize;
use utoipa::IntoParams;

use crate::client::targets;
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::{Problem, read};

/// The parameter of requests about a target.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Target {
    /// Name of the target, a row of backlog_cleanup.target: by default generations, or the only one with a table
    pub target: Option<String>,
}

/// The target that a request names, or the one that is meant where it names none. Errors: 400 with the names of all if none
/// is meant.
pub async fn meant(app: &Arc<App>, caller: &Caller, named: Option<String>) -> Result<String, Problem> {
    if let Some(named) = named {
        return Ok(named);
    }
    let names = usable(app, caller).await?;
    let meant = targets::meant(&names).map_err(|unclear| {
        let example = serde_urlencoded::to_string([("target", &unclear.names[0])]).unwrap_or_default();
        Problem::bad_request(unclear.to_string()).hint(format!("?{example}")).with("targets", unclear.names)
    })?;
    Ok(meant.to_owned())
}

/// The names of the targets of which one is meant, in their order. Concurrent requests share a query.
pub async fn usable(app: &Arc<App>, caller: &Caller) -> Result<Vec<String>, Problem> {
    let access = Arc::clone(caller);
    let names = app.flights.join((caller.role.clone(), "usable", String::new()), async move {
        let names = targets::usable(&mut *access.begin().await?).await?;
        Ok(serde_json::to_vec(&names).expect("texts are JSON").into())
    });
    read(&names.await?)
}

/// The names of all targets, in their order. Concurrent requests share a query.
pub async fn names(app: &Arc<App>, caller: &Caller) -> Result<Vec<String>, Problem> {
    let access = Arc::clone(caller);
    let names = app.flights.join((caller.role.clone(), "targets", String::new()), async move {
        let names = targets::names(&mut *access.begin().await?).await?;
        Ok(serde_json::to_vec(&names).expect("texts are JSON").into())
    });
    read(&names.await?)
}
