use std::sync::Arc;

use super::{in_time, until};
use crate::client::deliveries;
use crate::failure::Failure;
use crate::serve::app::App;

/// Does of the tick what alerts take, while there is none. The turn comes once a minute, to one of the servers: to that which is the
/// first to look for something to deliver to the first channel; without channels to each.
pub async fn stand_in(app: Arc<App>) {
    let (mut stands_in, mut is_refused) = (false, false);
    while until(&app.shutdown, app.turn.notified()).await.is_some() {
        match in_time(&app, evaluate(&app)).await {
            Ok(evaluated) => {
                match (stands_in, evaluated) {
                    (false, true) => tracing::warn!("nothing ticks: this server evaluates the rules"),
                    (true, false) => tracing::info!("there are ticks again"),
                    _ => (),
                }
                (stands_in, is_refused) = (evaluated, false);
            }
            // No token has the level.
            Err(failure) if app.deliverer().is_err() => {
                if !is_refused {
                    tracing::warn!("this server evaluates no rules while nothing ticks: {}", failure.message);
                }
                is_refused = true;
            }
            // Whoever watches the database says that it is away.
            Err(failure) => tracing::debug!("the rules could not be evaluated: {}", failure.message),
        }
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
