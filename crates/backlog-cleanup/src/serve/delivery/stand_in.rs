use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{in_time, until};
use crate::client::deliveries;
use crate::failure::Failure;
use crate::serve::app::App;

/// How often the server evaluates the rules, while nothing ticks.
const EVALUATION: Duration = Duration::from_secs(60);

/// Does of the tick what alerts take, while there is none.
pub async fn stand_in(app: Arc<App>) {
    let mut stands_in = false;
    while !app.shutdown.is_cancelled() {
        if !app.channels.borrow().channels.is_empty() {
            match in_time(&app, evaluate(&app)).await {
                Ok(evaluated) => {
                    match (stands_in, evaluated) {
                        (false, true) => tracing::warn!("nothing ticks: this server evaluates the rules"),
                        (true, false) => tracing::info!("there are ticks again"),
                        _ => (),
                    }
                    stands_in = evaluated;
                }
                // Whoever watches the database says that it is away.
                Err(failure) => tracing::debug!("the rules could not be evaluated: {}", failure.message),
            }
        }
        until(&app.shutdown, sleep(EVALUATION)).await;
    }
}

/// Evaluates the rules, if nothing ticks; whether that is so.
async fn evaluate(app: &App) -> Result<bool, Failure> {
    let access = app.deliverer()?;
    let mut work = access.begin().await?;
    if deliveries::is_ticking(&mut work).await? {
        return Ok(false);
    }
    match deliveries::evaluate(&mut work).await {
        Ok(()) => work.commit().await?,
        Err(error) if error.as_database_error().is_some() => {
            tracing::warn!(%error, "the rules could not be evaluated");
        }
        Err(error) => Err(error)?,
    }
    Ok(true)
}
