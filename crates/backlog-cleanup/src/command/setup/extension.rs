use sqlx::Executor;
use sqlx::postgres::PgConnection;

use super::{Setup, Step};
use crate::failure::{Failure, Result};

/// Creates the extension where it is missing, which wants a superuser.
pub async fn set_up(setup: &Setup, connection: &mut PgConnection) -> Result<Step> {
    if let Some(version) = version(connection).await? {
        return Ok(Step::new("extension", "kept", format!("version {version}")));
    }
    let names = "SELECT format('CREATE EXTENSION backlog_cleanup SCHEMA %I', $1),
                        format('SELECT %I.backlog_cleanup_grant(%L, ''admin'')', $1, current_user)";
    let (create, grant): (String, String) =
        sqlx::query_as(names).bind(&setup.schema).fetch_one(&mut *connection).await?;
    match connection.execute(create.as_str()).await.map_err(Failure::from) {
        Ok(_) => {
            let version = version(connection).await?.unwrap_or_default();
            Ok(Step::new("extension", "created", format!("version {version}")))
        }
        Err(failure) if failure.sqlstate.as_deref() == Some("42501") => {
            Ok(Step::to_do("extension", &failure, vec![create, grant]))
        }
        Err(failure) => Err(failure),
    }
}

async fn version(connection: &mut PgConnection) -> Result<Option<String>> {
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'backlog_cleanup'";
    Ok(sqlx::query_scalar(version).fetch_optional(connection).await?)
}
