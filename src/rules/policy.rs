use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error};
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::stream::stream;
use crate::target::Target;

/// Failed rows before this instant are expired: a `timestamptz` in ISO 8601, UTC, or `-infinity` if nothing expires.
#[derive(Clone)]
pub struct Cutoff(pub String);

/// How old and how many: `max_age` is already resolved to a cutoff.
pub struct Policy {
    pub cutoff: Cutoff,
    pub keep: usize,
}

impl Cutoff {
    const NEVER: &str = "-infinity";

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The instant, unless the policy is disabled and nothing expires.
    pub fn instant(&self) -> Option<&str> {
        (self.0 != Cutoff::NEVER).then_some(&self.0)
    }

    /// As the failed-at column has it: microseconds since 2000.
    pub fn as_failed_at(&self, target: &Target) -> Result<i64> {
        let mut cutoff = i64::MIN;
        reading_as_owner_of(&target.table, || {
            stream(&format!("SELECT {}", target.as_failed_at(&self.0)), |row| cutoff = row.number(0).unwrap_or(cutoff))
        })?;
        Ok(cutoff)
    }
}

impl Policy {
    /// The default policy of a target. Its cutoff is computed in UTC, and is never in the future; a disabled policy's is
    /// `NEVER`. Errors: 42704 (there is none).
    pub fn of(target: &Target) -> Result<Policy> {
        const POLICY: &str = r#"SELECT CASE WHEN enabled THEN
                      to_char(least(timezone('UTC', now()) - max_age, timezone('UTC', now())),
                              'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                  ELSE $2 END,
                  keep
           FROM backlog_cleanup.policy
           WHERE target = $1 AND recipe_id IS NULL AND failure_type IS NULL"#;
        let row = extension::as_owner(|| {
            rows_now(POLICY, &[target.name.as_str().into(), Cutoff::NEVER.into()], |row| {
                Ok((row.get::<String>(1)?, row.get::<i32>(2)?))
            })
        })?;
        let Some((Some(cutoff), Some(keep))) = row.into_iter().next() else {
            return Err(error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("target \"{}\" has no default policy", target.name),
                format!("INSERT INTO backlog_cleanup.policy (target) VALUES ({})", spi::quote_literal(&target.name)),
            ));
        };
        Ok(Policy { cutoff: Cutoff(cutoff), keep: usize::try_from(keep).unwrap_or_default() })
    }
}

/// How many policies of a target no run obeys: those for a recipe or a failure type, which an earlier version has let in.
pub fn ignored(target: &Target) -> Result<i64> {
    const IGNORED: &str = "SELECT count(*) FROM backlog_cleanup.policy
                           WHERE target = $1 AND (recipe_id IS NOT NULL OR failure_type IS NOT NULL)";
    extension::as_owner(|| one_now::<i64>(IGNORED, &[target.name.as_str().into()])).map(Option::unwrap_or_default)
}

/// The statement that removes them.
pub fn forget_ignored(target: &Target) -> String {
    format!(
        "DELETE FROM backlog_cleanup.policy WHERE target = {} AND (recipe_id IS NOT NULL OR failure_type IS NOT NULL)",
        spi::quote_literal(&target.name)
    )
}

/// Raises a WARNING if there are any.
pub fn warn_of_ignored(target: &Target) -> Result<()> {
    let ignored = ignored(target)?;
    if ignored > 0 {
        let message = format!("target \"{}\" has policies that no run obeys: {ignored}", target.name);
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "backlog_cleanup")
            .set_hint(forget_ignored(target))
            .report(PgLogLevel::WARNING);
    }
    Ok(())
}
