use backlog_cleanup_report::DEFAULT_JOB;
use sqlx::Executor;
use sqlx::postgres::PgConnection;

use super::job::named;
use super::{Setup, Step};
use crate::client::calls;
use crate::client::connect::{begin, use_extension};
use crate::client::statement::query_as;
use crate::client::targets::extension_version;
use crate::failure::{Failure, Result};

/// Creates the extension if it does not exist; only a superuser can. The job that it registers is for the next step to ask
/// for, unless there was one of that name before.
pub async fn set_up(setup: &Setup, connection: &mut PgConnection) -> Result<Step> {
    let mut work = begin(connection).await?;
    if let Some(version) = extension_version(&mut work).await? {
        work.commit().await?;
        return Ok(Step::new("extension", "kept", format!("version {version}")));
    }
    let names = "SELECT format('CREATE EXTENSION backlog_cleanup SCHEMA %I', $1),
                        format('SELECT %I.backlog_cleanup_grant(%L, ''admin'')', $1, current_user)";
    let (create, grant): (String, String) = query_as(names).bind(&setup.schema).fetch_one(&mut *work).await?;
    let was_there = named(&mut work, DEFAULT_JOB).await?.is_some();
    match work.execute(create.as_str()).await.map_err(Failure::from) {
        Ok(_) => {
            if !was_there && named(&mut work, DEFAULT_JOB).await?.is_some() {
                use_extension(&mut work).await?;
                calls::unschedule(&mut work, DEFAULT_JOB).await?;
            }
            let version = extension_version(&mut work).await?.unwrap_or_default();
            work.commit().await?;
            Ok(Step::new("extension", "created", format!("version {version}")))
        }
        Err(failure) if failure.sqlstate.as_deref() == Some("42501") => {
            work.rollback().await?;
            Ok(Step::to_do("extension", &failure, vec![create, grant]))
        }
        Err(failure) => Err(failure),
    }
}
