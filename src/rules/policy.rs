use pgrx::prelude::*;

use crate::postgres::error::{Result, error, spi};
use crate::postgres::owner::as_owner_of;
use crate::postgres::stream::stream;
use crate::target::{Target, state};

/// The cutoff before which nothing is: nothing is old.
const NEVER: &str = "-infinity";

/// How old and how many, the age already an instant.
pub struct Policy {
    /// Failed rows before this instant are old: a `timestamptz` in ISO 8601, UTC.
    pub cutoff: String,
    pub keep: i32,
}

impl Policy {
    /// The default policy of a target, its cutoff counted in UTC and never in the future. Where it is disabled,
    /// nothing is old. Errors: 42704 (there is none).
    pub fn of(target: &Target) -> Result<Policy> {
        let row = state(|| {
            Spi::connect(|client| -> spi::Result<_> {
                let rows = client.select(
                    "SELECT CASE WHEN enabled THEN
                                pg_catalog.to_char(
                                    LEAST(pg_catalog.timezone('UTC', pg_catalog.now()) OPERATOR(pg_catalog.-) max_age,
                                          pg_catalog.timezone('UTC', pg_catalog.now())),
                                    'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
                            ELSE $2 END,
                            keep
                     FROM backlog_cleanup.policy
                     WHERE target OPERATOR(pg_catalog.=) $1 AND recipe_id IS NULL AND failure_type IS NULL",
                    Some(1),
                    &[target.name.as_str().into(), NEVER.into()],
                )?;
                if rows.is_empty() { Ok((None, None)) } else { rows.first().get_two::<String, i32>() }
            })
            .map_err(spi)
        })?;
        let (Some(cutoff), Some(keep)) = row else {
            return Err(error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("target \"{}\" has no default policy", target.name),
                format!("INSERT INTO backlog_cleanup.policy (target) VALUES ({})", spi::quote_literal(&target.name)),
            ));
        };
        Ok(Policy { cutoff, keep })
    }

    /// The cutoff as a failed-at of the target: microseconds since 2000.
    pub fn cutoff_of(&self, target: &Target) -> Result<i64> {
        let mut cutoff = i64::MIN;
        as_owner_of(&target.table, || {
            stream(&format!("SELECT {}", target.as_failed_at(&self.cutoff)), |row| {
                cutoff = row.instant(0).unwrap_or(cutoff)
            })
        })?;
        Ok(cutoff)
    }

    pub fn is_enabled(&self) -> bool {
        self.cutoff != NEVER
    }
}
