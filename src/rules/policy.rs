use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error};
use crate::postgres::now::rows_now;
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
